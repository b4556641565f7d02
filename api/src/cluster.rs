//! How traffic is sent to a set of endpoints: a Service port, or a subset of it.

mod balancer;
mod bounds;
mod health;
mod locality;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::invalid::{Invalid, Under, optional_ms, to_ms};
use crate::name::ObjectRef;
use crate::{limits, proto};

pub use balancer::{Balancer, ConsistentHash, HashCookie, HashKey, HashTable, Warmup};
pub use bounds::{Http2Keepalive, Keepalive, Limits, RetryBudget, Timeouts};
pub use health::{Breaker, Outlier, Statuses};
pub use locality::{Locality, Place};
pub use tls::{ClientCertificate, ClientTls, TlsMode};
pub use wire::{ProxyProtocol, Tunnel, TunnelMethod};

/// How traffic is sent to a set of endpoints. Resource name: `host:port` or `host:port|subset`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Name of the Endpoints resource.
    pub endpoints: String,
    /// Labels an endpoint must have; empty for every endpoint.
    pub subset: BTreeMap<String, String>,
    /// How one endpoint is picked.
    pub balancer: Balancer,
    /// For round robin and least request: how endpoints that appear among others are given their weight.
    pub warmup: Option<Warmup>,
    /// Which endpoints go before others by where they are; `None` for all alike.
    pub locality: Option<Locality>,
    /// TCP and TLS handshakes together.
    pub connect_timeout: Duration,
    /// Whether endpoints are reached by TLS.
    pub tls: TlsMode,
    /// Carry HTTP/1.1 to meshed endpoints over HTTP/2.
    pub upgrade_to_http2: bool,
    /// Carry HTTP/1.1 over HTTP/2 to the other endpoints too, in the clear and without asking them (prior knowledge).
    pub upgrade_outside_mesh: bool,
    /// `None`: only connection failures open the breaker of an endpoint.
    pub breaker: Option<Breaker>,
    /// Upper bounds.
    pub limits: Limits,
    /// Ejection of endpoints that fail more than they should.
    pub outlier: Option<Outlier>,
    /// How many retries may be under way.
    pub retry_budget: RetryBudget,
    /// Lifetimes of connections.
    pub timeouts: Timeouts,
    /// TCP keepalive on upstream connections; `None` leaves the system's setting.
    pub keepalive: Option<Keepalive>,
    /// Connections without visible requests go to a server beyond the endpoints.
    pub tunnel: Option<Arc<Tunnel>>,
    /// Tell endpoints who calls, by a PROXY header before everything else.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// PINGs on HTTP/2 connections; `None` for what the proxy does by itself, while requests are under way.
    pub http2_keepalive: Option<Http2Keepalive>,
    /// The objects that shaped this cluster.
    pub sources: Vec<ObjectRef>,
}

impl Cluster {
    /// A cluster over all endpoints of a service port, with every default.
    #[must_use]
    pub fn of(endpoints: impl Into<String>) -> Self {
        Self {
            endpoints: endpoints.into(),
            subset: BTreeMap::new(),
            balancer: Balancer::LeastRequest,
            warmup: None,
            locality: None,
            connect_timeout: limits::CONNECT_TIMEOUT,
            tls: TlsMode::Auto,
            upgrade_to_http2: true,
            upgrade_outside_mesh: false,
            breaker: None,
            limits: Limits::default(),
            outlier: None,
            retry_budget: RetryBudget::default(),
            timeouts: Timeouts::default(),
            keepalive: None,
            tunnel: None,
            proxy_protocol: None,
            http2_keepalive: None,
            sources: Vec::new(),
        }
    }
}

impl TryFrom<proto::Cluster> for Cluster {
    type Error = Invalid;

    fn try_from(pb: proto::Cluster) -> Result<Self, Invalid> {
        let name = pb.balancer();
        let mode = pb.tls();
        let proto::Cluster {
            endpoints,
            subset,
            balancer: _,
            connect_timeout_ms,
            tls: _,
            upgrade_to_http2,
            upgrade_outside_mesh,
            breaker,
            limits,
            outlier,
            retry_budget,
            timeouts,
            keepalive,
            sources,
            consistent_hash,
            warmup,
            client_tls,
            tunnel,
            proxy_protocol,
            http2_keepalive,
            locality,
        } = pb;
        let balancer = balancer::from(name, consistent_hash)?;
        let warmup = warmup
            .map(|warmup| Warmup::of(warmup, &balancer))
            .transpose()
            .under("warmup")?;
        let tls = tls::from(mode, client_tls)?;
        if endpoints.is_empty() {
            return Err(Invalid::new(
                "endpoints",
                "is empty: it names the Endpoints resource",
            ));
        }
        let cluster = Self {
            endpoints,
            subset,
            balancer,
            warmup,
            locality: locality.map(Locality::try_from).transpose().under("locality")?,
            connect_timeout: optional_ms(connect_timeout_ms).unwrap_or(crate::limits::CONNECT_TIMEOUT),
            tls,
            upgrade_to_http2,
            upgrade_outside_mesh,
            breaker: breaker.map(Breaker::try_from).transpose().under("breaker")?,
            limits: limits.map(Limits::from).unwrap_or_default(),
            outlier: outlier.map(Outlier::try_from).transpose().under("outlier")?,
            retry_budget: retry_budget
                .map(RetryBudget::try_from)
                .transpose()
                .under("retry_budget")?
                .unwrap_or_default(),
            timeouts: timeouts.map(Timeouts::from).unwrap_or_default(),
            keepalive: keepalive.map(Keepalive::from),
            tunnel: wire::tunnel(tunnel)?,
            proxy_protocol: wire::proxy_protocol(proxy_protocol)?,
            http2_keepalive: http2_keepalive
                .map(Http2Keepalive::try_from)
                .transpose()
                .under("http2_keepalive")?,
            sources: sources.into_iter().map(Into::into).collect(),
        };
        cluster.check_wire()?;
        Ok(cluster)
    }
}

impl From<Cluster> for proto::Cluster {
    fn from(cluster: Cluster) -> Self {
        let Cluster {
            endpoints,
            subset,
            balancer,
            warmup,
            locality,
            connect_timeout,
            tls,
            upgrade_to_http2,
            upgrade_outside_mesh,
            breaker,
            limits,
            outlier,
            retry_budget,
            timeouts,
            keepalive,
            tunnel,
            proxy_protocol,
            http2_keepalive,
            sources,
        } = cluster;
        let (balancer, consistent_hash) = balancer::to(balancer);
        let (tls, client_tls) = tls::to(tls);
        Self {
            endpoints,
            subset,
            balancer: balancer.into(),
            connect_timeout_ms: to_ms(connect_timeout),
            tls: tls.into(),
            upgrade_to_http2,
            upgrade_outside_mesh,
            breaker: breaker.map(Into::into),
            limits: Some(limits.into()),
            outlier: outlier.map(Into::into),
            retry_budget: Some(retry_budget.into()),
            timeouts: Some(timeouts.into()),
            keepalive: keepalive.map(Into::into),
            sources: sources.into_iter().map(Into::into).collect(),
            consistent_hash,
            warmup: warmup.map(Into::into),
            client_tls,
            tunnel: tunnel.map(wire::to_tunnel),
            proxy_protocol: wire::to_proxy_protocol(proxy_protocol).into(),
            http2_keepalive: http2_keepalive.map(Into::into),
            locality: locality.map(Into::into),
        }
    }
}

fn off_or(value: Option<NonZeroU32>) -> u32 {
    value.map_or(0, NonZeroU32::get)
}

fn ms_or_zero(d: Option<Duration>) -> u64 {
    d.map_or(0, to_ms)
}

//! How traffic is sent to a set of endpoints: a Service port, or a subset of it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::invalid::{Invalid, Under, optional_ms, positive, to_ms};
use crate::name::ObjectRef;
use crate::{limits, proto};

/// How traffic is sent to a set of endpoints. Resource name: `host:port` or `host:port|subset`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Name of the Endpoints resource.
    pub endpoints: String,
    /// Labels an endpoint must have; empty for every endpoint.
    pub subset: BTreeMap<String, String>,
    /// How one endpoint is picked.
    pub balancer: Balancer,
    /// TCP and TLS handshakes together.
    pub connect_timeout: Duration,
    /// Whether endpoints are reached by mutual TLS.
    pub tls: TlsMode,
    /// Carry HTTP/1.1 to meshed endpoints over HTTP/2.
    pub upgrade_to_http2: bool,
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
            connect_timeout: limits::CONNECT_TIMEOUT,
            tls: TlsMode::Auto,
            upgrade_to_http2: true,
            breaker: None,
            limits: Limits::default(),
            outlier: None,
            retry_budget: RetryBudget::default(),
            timeouts: Timeouts::default(),
            keepalive: None,
            sources: Vec::new(),
        }
    }
}

/// How one endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Balancer {
    /// One after the other, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The less busy of two taken by chance.
    LeastRequest,
    /// The one of two taken by chance whose expected latency, times its load, is lower.
    PeakEwma,
}

/// Whether endpoints are reached by mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Mutual TLS where the endpoint has an identity, plaintext where not.
    Auto,
    /// Plaintext.
    Disable,
    /// Mutual TLS; an endpoint without identity is not used.
    Mutual,
}

/// The circuit breaker of each endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Consecutive failures that open it.
    pub failure_threshold: NonZeroU32,
    /// Time open before a probe is let through.
    pub recovery: Duration,
    /// Requests let through while half-open.
    pub half_open_requests: NonZeroU32,
}

/// Upper bounds; `None` for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Connections to the cluster.
    pub max_connections: Option<NonZeroU32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<NonZeroU32>,
    /// Requests under way.
    pub max_requests: Option<NonZeroU32>,
    /// Retries under way.
    pub max_retries: Option<NonZeroU32>,
    /// Requests on one connection before it is closed.
    pub max_requests_per_connection: Option<NonZeroU32>,
}

/// Ejection of endpoints that fail more than they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Consecutive answers 5xx; `None` for off.
    pub consecutive_5xx: Option<NonZeroU32>,
    /// Consecutive answers 502, 503, 504, and connection failures; `None` for off.
    pub consecutive_gateway_errors: Option<NonZeroU32>,
    /// Count connection failures apart from answers.
    pub split_local_errors: bool,
    /// Consecutive connection failures, when counted apart; `None` for off.
    pub consecutive_local_failures: Option<NonZeroU32>,
    /// Between two looks at who may return.
    pub interval: Duration,
    /// Times the number of ejections gives the time out.
    pub base_ejection: Duration,
    /// Upper bound of the ejected share, in percent; at least one endpoint may always be ejected.
    pub max_ejection_percent: u32,
    /// With fewer healthy endpoints than this share, none is ejected.
    pub min_health_percent: u32,
}

/// How many retries may be under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Share of the requests under way, 0 to 100.
    pub percent: f64,
    /// Always allowed.
    pub min_concurrency: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: limits::RETRY_BUDGET_PERCENT,
            min_concurrency: limits::RETRY_BUDGET_MIN,
        }
    }
}

/// Lifetimes of connections; `None` for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A pooled HTTP connection without a request.
    pub http_idle: Option<Duration>,
    /// A TCP stream without a byte.
    pub tcp_idle: Option<Duration>,
    /// Any connection.
    pub max_connection: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            http_idle: Some(limits::IDLE_TIMEOUT),
            tcp_idle: Some(limits::IDLE_TIMEOUT),
            max_connection: None,
        }
    }
}

/// TCP keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Probes without an answer before the connection counts as dead; `None` for the system's setting.
    pub probes: Option<NonZeroU32>,
    /// Idle time before the first probe; `None` for the system's setting.
    pub time: Option<Duration>,
    /// Between probes; `None` for the system's setting.
    pub interval: Option<Duration>,
}

impl TryFrom<proto::Cluster> for Cluster {
    type Error = Invalid;

    fn try_from(pb: proto::Cluster) -> Result<Self, Invalid> {
        let balancer = balancer_from(pb.balancer())?;
        let tls = tls_from(pb.tls())?;
        let proto::Cluster {
            endpoints,
            subset,
            balancer: _,
            connect_timeout_ms,
            tls: _,
            upgrade_to_http2,
            breaker,
            limits,
            outlier,
            retry_budget,
            timeouts,
            keepalive,
            sources,
        } = pb;
        if endpoints.is_empty() {
            return Err(Invalid::new(
                "endpoints",
                "is empty: it names the Endpoints resource",
            ));
        }
        Ok(Self {
            endpoints,
            subset,
            balancer,
            connect_timeout: optional_ms(connect_timeout_ms).unwrap_or(crate::limits::CONNECT_TIMEOUT),
            tls,
            upgrade_to_http2,
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
            sources: sources.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<Cluster> for proto::Cluster {
    fn from(cluster: Cluster) -> Self {
        let Cluster {
            endpoints,
            subset,
            balancer,
            connect_timeout,
            tls,
            upgrade_to_http2,
            breaker,
            limits,
            outlier,
            retry_budget,
            timeouts,
            keepalive,
            sources,
        } = cluster;
        Self {
            endpoints,
            subset,
            balancer: balancer_to(balancer).into(),
            connect_timeout_ms: to_ms(connect_timeout),
            tls: tls_to(tls).into(),
            upgrade_to_http2,
            breaker: breaker.map(Into::into),
            limits: Some(limits.into()),
            outlier: outlier.map(Into::into),
            retry_budget: Some(retry_budget.into()),
            timeouts: Some(timeouts.into()),
            keepalive: keepalive.map(Into::into),
            sources: sources.into_iter().map(Into::into).collect(),
        }
    }
}

fn balancer_from(pb: proto::Balancer) -> Result<Balancer, Invalid> {
    match pb {
        proto::Balancer::RoundRobin => Ok(Balancer::RoundRobin),
        proto::Balancer::Random => Ok(Balancer::Random),
        proto::Balancer::LeastRequest => Ok(Balancer::LeastRequest),
        proto::Balancer::PeakEwma => Ok(Balancer::PeakEwma),
        proto::Balancer::Unspecified => Err(Invalid::new("balancer", "is not one this build knows")),
    }
}

fn balancer_to(balancer: Balancer) -> proto::Balancer {
    match balancer {
        Balancer::RoundRobin => proto::Balancer::RoundRobin,
        Balancer::Random => proto::Balancer::Random,
        Balancer::LeastRequest => proto::Balancer::LeastRequest,
        Balancer::PeakEwma => proto::Balancer::PeakEwma,
    }
}

fn tls_from(pb: proto::TlsMode) -> Result<TlsMode, Invalid> {
    match pb {
        proto::TlsMode::Auto => Ok(TlsMode::Auto),
        proto::TlsMode::Disable => Ok(TlsMode::Disable),
        proto::TlsMode::Mutual => Ok(TlsMode::Mutual),
        proto::TlsMode::Unspecified => Err(Invalid::new("tls", "is not a mode this build knows")),
    }
}

fn tls_to(tls: TlsMode) -> proto::TlsMode {
    match tls {
        TlsMode::Auto => proto::TlsMode::Auto,
        TlsMode::Disable => proto::TlsMode::Disable,
        TlsMode::Mutual => proto::TlsMode::Mutual,
    }
}

fn non_zero(field: &str, value: u32) -> Result<NonZeroU32, Invalid> {
    positive(field, value)?;
    NonZeroU32::new(value).ok_or_else(|| Invalid::new(field, "must be at least 1"))
}

fn off_or(value: Option<NonZeroU32>) -> u32 {
    value.map_or(0, NonZeroU32::get)
}

fn ms_or_zero(d: Option<Duration>) -> u64 {
    d.map_or(0, to_ms)
}

fn percent(field: &str, value: u32) -> Result<u32, Invalid> {
    if value <= 100 {
        Ok(value)
    } else {
        Err(Invalid::new(
            field,
            format!("{value} is not a percentage: use 0 to 100"),
        ))
    }
}

impl TryFrom<proto::Breaker> for Breaker {
    type Error = Invalid;

    fn try_from(pb: proto::Breaker) -> Result<Self, Invalid> {
        let proto::Breaker {
            failure_threshold,
            recovery_ms,
            half_open_requests,
        } = pb;
        let recovery = optional_ms(recovery_ms).ok_or_else(|| {
            Invalid::new(
                "recovery_ms",
                "must be at least 1: an open breaker needs a time to wait",
            )
        })?;
        Ok(Self {
            failure_threshold: non_zero("failure_threshold", failure_threshold)?,
            recovery,
            half_open_requests: non_zero("half_open_requests", half_open_requests)?,
        })
    }
}

impl From<Breaker> for proto::Breaker {
    fn from(
        Breaker {
            failure_threshold,
            recovery,
            half_open_requests,
        }: Breaker,
    ) -> Self {
        Self {
            failure_threshold: failure_threshold.get(),
            recovery_ms: to_ms(recovery),
            half_open_requests: half_open_requests.get(),
        }
    }
}

impl From<proto::Limits> for Limits {
    fn from(pb: proto::Limits) -> Self {
        let proto::Limits {
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            max_requests_per_connection,
        } = pb;
        Self {
            max_connections: NonZeroU32::new(max_connections),
            max_pending_requests: NonZeroU32::new(max_pending_requests),
            max_requests: NonZeroU32::new(max_requests),
            max_retries: NonZeroU32::new(max_retries),
            max_requests_per_connection: NonZeroU32::new(max_requests_per_connection),
        }
    }
}

impl From<Limits> for proto::Limits {
    fn from(limits: Limits) -> Self {
        let Limits {
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            max_requests_per_connection,
        } = limits;
        Self {
            max_connections: off_or(max_connections),
            max_pending_requests: off_or(max_pending_requests),
            max_requests: off_or(max_requests),
            max_retries: off_or(max_retries),
            max_requests_per_connection: off_or(max_requests_per_connection),
        }
    }
}

impl TryFrom<proto::Outlier> for Outlier {
    type Error = Invalid;

    fn try_from(pb: proto::Outlier) -> Result<Self, Invalid> {
        let proto::Outlier {
            consecutive_5xx,
            consecutive_gateway_errors,
            split_local_errors,
            consecutive_local_failures,
            interval_ms,
            base_ejection_ms,
            max_ejection_percent,
            min_health_percent,
        } = pb;
        let needed =
            |field: &str, ms| optional_ms(ms).ok_or_else(|| Invalid::new(field, "must be at least 1"));
        Ok(Self {
            consecutive_5xx: NonZeroU32::new(consecutive_5xx),
            consecutive_gateway_errors: NonZeroU32::new(consecutive_gateway_errors),
            split_local_errors,
            consecutive_local_failures: NonZeroU32::new(consecutive_local_failures),
            interval: needed("interval_ms", interval_ms)?,
            base_ejection: needed("base_ejection_ms", base_ejection_ms)?,
            max_ejection_percent: percent("max_ejection_percent", max_ejection_percent)?,
            min_health_percent: percent("min_health_percent", min_health_percent)?,
        })
    }
}

impl From<Outlier> for proto::Outlier {
    fn from(outlier: Outlier) -> Self {
        let Outlier {
            consecutive_5xx,
            consecutive_gateway_errors,
            split_local_errors,
            consecutive_local_failures,
            interval,
            base_ejection,
            max_ejection_percent,
            min_health_percent,
        } = outlier;
        Self {
            consecutive_5xx: off_or(consecutive_5xx),
            consecutive_gateway_errors: off_or(consecutive_gateway_errors),
            split_local_errors,
            consecutive_local_failures: off_or(consecutive_local_failures),
            interval_ms: to_ms(interval),
            base_ejection_ms: to_ms(base_ejection),
            max_ejection_percent,
            min_health_percent,
        }
    }
}

impl TryFrom<proto::RetryBudget> for RetryBudget {
    type Error = Invalid;

    fn try_from(
        proto::RetryBudget {
            percent,
            min_concurrency,
        }: proto::RetryBudget,
    ) -> Result<Self, Invalid> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Invalid::new(
                "percent",
                format!("{percent} is not a percentage: use 0 to 100"),
            ));
        }
        Ok(Self {
            percent,
            min_concurrency,
        })
    }
}

impl From<RetryBudget> for proto::RetryBudget {
    fn from(
        RetryBudget {
            percent,
            min_concurrency,
        }: RetryBudget,
    ) -> Self {
        Self {
            percent,
            min_concurrency,
        }
    }
}

impl From<proto::Timeouts> for Timeouts {
    fn from(
        proto::Timeouts {
            http_idle_ms,
            tcp_idle_ms,
            max_connection_ms,
        }: proto::Timeouts,
    ) -> Self {
        Self {
            http_idle: optional_ms(http_idle_ms),
            tcp_idle: optional_ms(tcp_idle_ms),
            max_connection: optional_ms(max_connection_ms),
        }
    }
}

impl From<Timeouts> for proto::Timeouts {
    fn from(
        Timeouts {
            http_idle,
            tcp_idle,
            max_connection,
        }: Timeouts,
    ) -> Self {
        Self {
            http_idle_ms: ms_or_zero(http_idle),
            tcp_idle_ms: ms_or_zero(tcp_idle),
            max_connection_ms: ms_or_zero(max_connection),
        }
    }
}

impl From<proto::Keepalive> for Keepalive {
    fn from(
        proto::Keepalive {
            probes,
            time_ms,
            interval_ms,
        }: proto::Keepalive,
    ) -> Self {
        Self {
            probes: NonZeroU32::new(probes),
            time: optional_ms(time_ms),
            interval: optional_ms(interval_ms),
        }
    }
}

impl From<Keepalive> for proto::Keepalive {
    fn from(
        Keepalive {
            probes,
            time,
            interval,
        }: Keepalive,
    ) -> Self {
        Self {
            probes: off_or(probes),
            time_ms: ms_or_zero(time),
            interval_ms: ms_or_zero(interval),
        }
    }
}

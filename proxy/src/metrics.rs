//! The proxy's metrics. Modules count what they know through handles fetched once; the admin server writes them out.
//! Labels are bounded: by the clusters in use, the ports of the pod, or closed sets. `docs/metrics.md` lists every
//! metric and is made from what is registered here.

mod cluster;
mod count;
mod histogram;
mod inbound;
pub(crate) mod process;

use std::fmt;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::breaker;
use crate::config::Current;
use crate::record::Direction;

pub use cluster::{ClusterMetrics, Overflow};
pub use count::{ByClass, ByGrpcStatus, Count};
pub use histogram::Histogram;
pub use inbound::{InboundMetrics, InboundPorts};

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    /// Connections of applications and callers.
    pub connections: Connections,
    /// Verdicts of protocol detection.
    pub detect: Detect,
    /// Configuration and the operator.
    pub config: Config,
    /// This proxy's certificate and its handshakes.
    pub identity: Identity,
    /// Traffic that leaves the mesh.
    pub passthrough: Passthrough,
    /// Circuit breakers.
    pub breaker: Breaker,
    /// Faults injected on purpose.
    pub faults: Faults,
    /// Access log lines lost because writing them took too long.
    pub access_log_dropped: Counter,
    errors: Family<Labels<2>, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers everything. Clusters and ports are found in what `current` holds at scrape time.
    #[must_use]
    pub fn new(current: Current) -> Self {
        let mut registry = Registry::default();
        registry.register(
            "hauberk_build",
            "Version of this proxy",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let errors = Family::default();
        registry.register(
            "hauberk_errors",
            "Requests and connections that did not get their answer, by reason",
            Family::clone(&errors),
        );
        let access_log_dropped = Counter::default();
        registry.register(
            "hauberk_access_log_dropped",
            "Access log lines lost because writing them took too long",
            access_log_dropped.clone(),
        );
        let (connections, detect) = (Connections::new(&mut registry), Detect::new(&mut registry));
        let (config, identity) = (Config::new(&mut registry), Identity::new(&mut registry));
        let passthrough = Passthrough::new(&mut registry);
        let (breaker, faults) = (Breaker::new(&mut registry), Faults::new(&mut registry));
        registry.register_collector(Box::new(cluster::Clusters(current.clone())));
        registry.register_collector(Box::new(inbound::Inbound(current)));
        registry.register_collector(Box::new(process::Process::new()));
        Self {
            registry,
            connections,
            detect,
            config,
            identity,
            passthrough,
            breaker,
            faults,
            access_log_dropped,
            errors,
        }
    }

    /// Counts a request or connection that did not get its answer; `flag` is from a closed set.
    pub fn error(&self, direction: Direction, flag: &'static str) {
        let labels = [("direction", direction.as_str()), ("flag", flag)];
        self.errors.get_or_create(&labels).inc();
    }

    /// All metrics, in the text format of OpenMetrics.
    ///
    /// # Errors
    /// When a metric cannot be written; none of ours fails.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Faults that rules injected on purpose.
#[derive(Debug)]
pub struct Faults {
    /// Requests held back.
    pub delay: Counter,
    /// Requests answered with an error.
    pub abort: Counter,
}

impl Faults {
    fn new(registry: &mut Registry) -> Self {
        let family = counters(
            registry,
            "hauberk_faults",
            "Faults injected on purpose by a VirtualService, by kind",
        );
        let of = |kind| family.get_or_create_owned(&[("fault", kind)]);
        Self {
            delay: of("delay"),
            abort: of("abort"),
        }
    }
}

/// What circuit breakers did.
#[derive(Debug)]
pub struct Breaker {
    /// Opened: no traffic for a while.
    pub open: Counter,
    /// Let the first probe through.
    pub half_open: Counter,
    /// Closed: traffic flows again.
    pub closed: Counter,
}

impl Breaker {
    fn new(registry: &mut Registry) -> Self {
        let family = counters(
            registry,
            "hauberk_breaker_transitions",
            "Changes of endpoints' circuit breakers, by new state",
        );
        let of = |to| family.get_or_create_owned(&[("to", to)]);
        Self {
            open: of("open"),
            half_open: of("half_open"),
            closed: of("closed"),
        }
    }

    /// Counts a change.
    pub fn count(&self, change: breaker::Change) {
        match change {
            breaker::Change::Opened { .. } => self.open.inc(),
            breaker::Change::HalfOpened => self.half_open.inc(),
            breaker::Change::Closed => self.closed.inc(),
        };
    }
}

/// Connections of one direction.
#[derive(Debug)]
pub struct DirectionConnections {
    /// Accepted.
    pub accepted: Counter,
    /// Open now.
    pub active: Gauge,
    /// Closed at once because too many were open.
    pub refused: Counter,
}

/// Connections of applications (outbound) and callers (inbound).
#[derive(Debug)]
pub struct Connections {
    /// From the pod's own application.
    pub outbound: DirectionConnections,
    /// From callers.
    pub inbound: DirectionConnections,
}

impl Connections {
    fn new(registry: &mut Registry) -> Self {
        let accepted = counters(registry, "hauberk_connections_accepted", "Connections accepted");
        let refused = counters(
            registry,
            "hauberk_connections_refused",
            "Connections closed at once because as many were open as the settings allow",
        );
        let active: Family<Labels<1>, Gauge> = Family::default();
        registry.register("hauberk_connections_active", "Connections open", active.clone());
        let of = |direction: Direction| {
            let labels = [("direction", direction.as_str())];
            DirectionConnections {
                accepted: accepted.get_or_create_owned(&labels),
                active: active.get_or_create_owned(&labels),
                refused: refused.get_or_create_owned(&labels),
            }
        };
        Self {
            outbound: of(Direction::Outbound),
            inbound: of(Direction::Inbound),
        }
    }

    /// Those of one direction.
    #[must_use]
    pub fn of(&self, direction: Direction) -> &DirectionConnections {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }
}

/// Verdicts of protocol detection.
#[derive(Debug)]
pub struct Detect {
    /// HTTP/1.1.
    pub http1: Counter,
    /// HTTP/2.
    pub http2: Counter,
    /// TLS of an application.
    pub tls: Counter,
    /// Mutual TLS of a peer's proxy.
    pub mesh: Counter,
    /// Neither.
    pub opaque: Counter,
    /// Closed before the first byte.
    pub closed: Counter,
}

impl Detect {
    fn new(registry: &mut Registry) -> Self {
        let family = counters(
            registry,
            "hauberk_detect",
            "Connections by what their first bytes are; closed: nothing came at all, or not in time",
        );
        let of = |verdict| family.get_or_create_owned(&[("verdict", verdict)]);
        Self {
            http1: of("http1"),
            http2: of("http2"),
            tls: of("tls"),
            mesh: of("mesh"),
            opaque: of("opaque"),
            closed: of("closed"),
        }
    }
}

/// Configuration and the operator.
#[derive(Debug)]
pub struct Config {
    /// Number of the current snapshot.
    pub snapshot: Gauge,
    /// When the last change was applied, in seconds since 1970.
    pub last_applied: Gauge,
    /// 1 while the stream to the operator is up.
    pub connected: Gauge,
    /// Times the stream was opened again.
    pub reconnects: Counter,
    /// Questions for what stands behind an address that took a connection's time.
    pub discoveries: Counter,
    /// Those not answered in time.
    pub discovery_timeouts: Counter,
    resources: Family<Labels<2>, Gauge>,
    nacks: Family<Labels<1>, Counter>,
}

impl Config {
    fn new(registry: &mut Registry) -> Self {
        let gauge = |registry: &mut Registry, name, help| register(registry, name, help, Gauge::default());
        let resources = Family::default();
        registry.register(
            "hauberk_config_resources",
            "Resources held, by kind and state",
            Family::clone(&resources),
        );
        Self {
            snapshot: gauge(
                registry,
                "hauberk_config_snapshot",
                "Number of the current snapshot",
            ),
            last_applied: gauge(
                registry,
                "hauberk_config_last_applied_timestamp_seconds",
                "When configuration last changed, in seconds since 1970",
            ),
            connected: gauge(
                registry,
                "hauberk_operator_connected",
                "1 while the stream to the operator is up",
            ),
            reconnects: register(
                registry,
                "hauberk_operator_reconnects",
                "Times the stream to the operator was opened again",
                Counter::default(),
            ),
            discoveries: register(
                registry,
                "hauberk_discoveries",
                "Connections that had to wait for the operator to say what stands behind their address",
                Counter::default(),
            ),
            discovery_timeouts: register(
                registry,
                "hauberk_discovery_timeouts",
                "Connections for which the operator did not say so in time",
                Counter::default(),
            ),
            nacks: counters(
                registry,
                "hauberk_config_nacks",
                "Resources rejected as invalid, by kind",
            ),
            resources,
        }
    }

    pub(crate) fn set_resources(&self, kind: api::Kind, state: &'static str, n: usize) {
        let labels = [("kind", kind.as_str()), ("state", state)];
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.resources.get_or_create(&labels).set(n);
    }

    /// Counts a rejected resource; `None` for a kind this build does not know.
    pub(crate) fn nack(&self, kind: Option<api::Kind>) {
        let kind = kind.map_or("unknown", api::Kind::as_str);
        self.nacks.get_or_create(&[("kind", kind)]).inc();
    }
}

/// This proxy's certificate, and handshakes made with it.
#[derive(Debug)]
pub struct Identity {
    /// When the certificate expires, in seconds since 1970; 0 for none.
    pub expiry: Gauge,
    /// Certificates received.
    pub renewals: Counter,
    /// Tries to get one that failed.
    pub renewal_failures: Counter,
    /// Handshakes with endpoints.
    pub client: Handshakes,
    /// Handshakes with callers.
    pub server: Handshakes,
}

/// Handshakes of one side.
#[derive(Debug)]
pub struct Handshakes {
    /// Certificates exchanged.
    pub full: Counter,
    /// An earlier session taken up.
    pub resumed: Counter,
    /// Failed.
    pub failed: Counter,
}

impl Identity {
    fn new(registry: &mut Registry) -> Self {
        let handshakes: Family<Labels<2>, Counter> = Family::default();
        registry.register(
            "hauberk_tls_handshakes",
            "Mutual TLS handshakes: with endpoints (client) or callers (server)",
            handshakes.clone(),
        );
        let of = |side| {
            let of = |result| handshakes.get_or_create_owned(&[("side", side), ("result", result)]);
            Handshakes {
                full: of("full"),
                resumed: of("resumed"),
                failed: of("failed"),
            }
        };
        Self {
            expiry: register(
                registry,
                "hauberk_certificate_expiry_timestamp_seconds",
                "When this proxy's certificate expires, in seconds since 1970; 0 while it has none",
                Gauge::default(),
            ),
            renewals: register(
                registry,
                "hauberk_certificate_renewals",
                "Certificates received",
                Counter::default(),
            ),
            renewal_failures: register(
                registry,
                "hauberk_certificate_renewal_failures",
                "Tries to get a certificate that failed",
                Counter::default(),
            ),
            client: of("client"),
            server: of("server"),
        }
    }
}

/// Traffic that leaves the mesh.
#[derive(Debug)]
pub struct Passthrough {
    /// Connections and requests passed on as they are.
    pub connections: Counter,
    /// Bytes sent out of the mesh.
    pub bytes_sent: Counter,
    /// Bytes received from outside the mesh.
    pub bytes_received: Counter,
}

impl Passthrough {
    fn new(registry: &mut Registry) -> Self {
        let counter =
            |registry: &mut Registry, name, help| register(registry, name, help, Counter::default());
        Self {
            connections: counter(
                registry,
                "hauberk_passthrough_connections",
                "Connections to addresses outside the mesh, passed on as they are",
            ),
            bytes_sent: counter(
                registry,
                "hauberk_passthrough_sent_bytes",
                "Bytes sent to addresses outside the mesh",
            ),
            bytes_received: counter(
                registry,
                "hauberk_passthrough_received_bytes",
                "Bytes received from addresses outside the mesh",
            ),
        }
    }
}

fn register<M: prometheus_client::registry::Metric + Clone>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn counters(registry: &mut Registry, name: &'static str, help: &'static str) -> Family<Labels<1>, Counter> {
    register(registry, name, help, Family::default())
}

#[cfg(test)]
mod tests;

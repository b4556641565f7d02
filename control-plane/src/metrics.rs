//! The operator's metrics: the registry, and one bundle of handles for each module that knows the facts. Made once in
//! `main`; modules hold clones of their handles and never look one up by name. Labels are closed sets, so the number of
//! series does not grow with the mesh.

mod admission;
mod writes;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use api::Kind;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub use admission::AdmissionMetrics;
pub(crate) use admission::{Answered, Asked};
pub use writes::WriteMetrics;
pub(crate) use writes::Written;

/// Every metric of the operator.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// What `push` counts.
    pub push: PushMetrics,
    /// What `session` counts.
    pub session: SessionMetrics,
    /// What `authority` counts.
    pub authority: AuthorityMetrics,
    /// What the state of the source shows.
    pub source: SourceMetrics,
    /// What `admission` counts.
    pub admission: AdmissionMetrics,
    /// What the lease holder writes.
    pub writes: WriteMetrics,
    /// What the process costs; set when asked for.
    pub(crate) process: ProcessMetrics,
}

/// Label of what concerns one kind of resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Why a resource was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Cause {
    /// The proxy asked for it.
    #[allow(non_camel_case_types)]
    subscribe,
    /// The world changed.
    #[allow(non_camel_case_types)]
    change,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: Cause,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectKindLabel {
    kind: &'static str,
}

/// One handle for each kind of resource, fetched once.
#[derive(Debug, Clone)]
pub(crate) struct PerKind<M> {
    handles: [M; Kind::ALL.len()],
}

impl<M> PerKind<M> {
    fn new(mut handle: impl FnMut(Kind) -> M) -> Self {
        Self {
            handles: Kind::ALL.map(&mut handle),
        }
    }

    pub(crate) fn of(&self, kind: Kind) -> &M {
        // `Kind::ALL` stands in the order of declaration; a test below holds that.
        &self.handles[kind as usize]
    }
}

/// What `push` counts.
#[derive(Debug, Clone)]
pub struct PushMetrics {
    pub(crate) sessions: Gauge,
    pub(crate) subscriptions: PerKind<Gauge>,
    pub(crate) sent: PerKind<Counter>,
    pub(crate) sent_bytes: Counter,
    pub(crate) coalesced: Counter,
    pub(crate) nacks: PerKind<Counter>,
    pub(crate) compile_seconds: PerKind<Histogram>,
    pub(crate) entries: Gauge,
    changes: Histogram,
    answers: Histogram,
}

impl PushMetrics {
    /// Time from the cause of a resource to the proxy's acknowledgement.
    pub(crate) fn applied(&self, cause: Cause) -> &Histogram {
        match cause {
            Cause::change => &self.changes,
            Cause::subscribe => &self.answers,
        }
    }

    fn register(registry: &mut Registry) -> Self {
        let subscriptions = Family::<KindLabel, Gauge>::default();
        let sent = Family::<KindLabel, Counter>::default();
        let nacks = Family::<KindLabel, Counter>::default();
        let compile = Family::<KindLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(1e-6, 4.0, 10))
        });
        let applied = Family::<CauseLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 2.0, 14))
        });
        let label = |kind: Kind| KindLabel { kind: kind.as_str() };
        let metrics = Self {
            sessions: Gauge::default(),
            subscriptions: PerKind::new(|k| subscriptions.get_or_create_owned(&label(k))),
            sent: PerKind::new(|k| sent.get_or_create_owned(&label(k))),
            sent_bytes: Counter::default(),
            coalesced: Counter::default(),
            nacks: PerKind::new(|k| nacks.get_or_create_owned(&label(k))),
            compile_seconds: PerKind::new(|k| compile.get_or_create_owned(&label(k))),
            entries: Gauge::default(),
            changes: applied.get_or_create_owned(&CauseLabel { cause: Cause::change }),
            answers: applied.get_or_create_owned(&CauseLabel {
                cause: Cause::subscribe,
            }),
        };
        registry.register(
            "sessions",
            "Proxies connected to the configuration stream",
            metrics.sessions.clone(),
        );
        registry.register(
            "subscriptions",
            "Names that proxies are subscribed to",
            subscriptions,
        );
        registry.register("resources_sent", "Resources sent to proxies", sent);
        registry.register(
            "sent_bytes",
            "Encoded size of the resources sent to proxies",
            metrics.sent_bytes.clone(),
        );
        registry.register(
            "coalesced",
            "Versions that a newer one replaced before a slow proxy took them",
            metrics.coalesced.clone(),
        );
        registry.register("nacks", "Resources that a proxy could not apply", nacks);
        registry.register("compile_seconds", "Time to compile one resource", compile);
        registry.register(
            "compiled_resources",
            "Compiled resources held for proxies; proxies that get the same share one",
            metrics.entries.clone(),
        );
        registry.register(
            "applied_seconds",
            "Time from a change, or from a subscription, to the proxy's acknowledgement",
            applied,
        );
        metrics
    }
}

/// What `session` counts.
#[derive(Debug, Clone)]
pub struct SessionMetrics {
    pub(crate) failed_handshakes: Counter,
    pub(crate) refused_tokens: Counter,
    pub(crate) unverified_tokens: Counter,
    pub(crate) protocol_errors: Counter,
}

impl SessionMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            failed_handshakes: Counter::default(),
            refused_tokens: Counter::default(),
            unverified_tokens: Counter::default(),
            protocol_errors: Counter::default(),
        };
        registry.register(
            "failed_handshakes",
            "Connections that did not get through TLS and the HTTP/2 preface",
            metrics.failed_handshakes.clone(),
        );
        registry.register(
            "refused_tokens",
            "Calls refused for their token",
            metrics.refused_tokens.clone(),
        );
        registry.register(
            "unverified_tokens",
            "Calls answered with \"unavailable\" because their token could not be verified at the time",
            metrics.unverified_tokens.clone(),
        );
        registry.register(
            "protocol_errors",
            "Sessions ended because of what the proxy sent",
            metrics.protocol_errors.clone(),
        );
        metrics
    }
}

/// What `authority` counts.
#[derive(Debug, Clone)]
pub struct AuthorityMetrics {
    pub(crate) signed: Counter,
    pub(crate) refused: Counter,
    pub(crate) root_expiry: Gauge,
    pub(crate) server_expiry: Gauge,
    pub(crate) reviews: ReviewMetrics,
    pub(crate) bundles_written: Counter,
    pub(crate) bundles_failed: Counter,
}

/// What becomes of tokens that Kubernetes is to review.
#[derive(Debug, Clone)]
pub struct ReviewMetrics {
    pub(crate) accepted: Counter,
    pub(crate) denied: Counter,
    pub(crate) failed: Counter,
    pub(crate) known: Counter,
}

impl AuthorityMetrics {
    fn register(registry: &mut Registry) -> Self {
        let requests = Family::<ResultLabel, Counter>::default();
        let reviews = Family::<ResultLabel, Counter>::default();
        let bundles = Family::<ResultLabel, Counter>::default();
        let review = |result| reviews.get_or_create_owned(&ResultLabel { result });
        let metrics = Self {
            signed: requests.get_or_create_owned(&ResultLabel { result: "signed" }),
            refused: requests.get_or_create_owned(&ResultLabel { result: "refused" }),
            root_expiry: Gauge::default(),
            server_expiry: Gauge::default(),
            reviews: ReviewMetrics {
                accepted: review("accepted"),
                denied: review("denied"),
                failed: review("failed"),
                known: review("known"),
            },
            bundles_written: bundles.get_or_create_owned(&ResultLabel { result: "written" }),
            bundles_failed: bundles.get_or_create_owned(&ResultLabel { result: "failed" }),
        };
        registry.register(
            "certificate_requests",
            "Certificate requests, by result",
            requests,
        );
        registry.register(
            "token_reviews",
            "Tokens of Kubernetes service accounts, by result; `known` were answered from a review of the last minute",
            reviews,
        );
        registry.register(
            "trust_bundle_writes",
            "Writes of the ConfigMaps with the trust bundle, by result",
            bundles,
        );
        registry.register(
            "root_expiry_timestamp_seconds",
            "When the root or intermediate that signs now expires, in Unix time",
            metrics.root_expiry.clone(),
        );
        registry.register(
            "server_certificate_expiry_timestamp_seconds",
            "When the operator's own certificate expires, in Unix time",
            metrics.server_expiry.clone(),
        );
        metrics
    }
}

/// What the state of the source shows.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    pub(crate) accepted: Gauge,
    pub(crate) rejected: Gauge,
    pub(crate) problems: Gauge,
    changes: Counter,
    failing: Family<ObjectKindLabel, Gauge<f64, AtomicU64>>,
}

impl SourceMetrics {
    /// The source reported a change.
    pub fn count_change(&self) {
        self.changes.inc();
    }

    /// For how long a kind of object has not been followed.
    pub(crate) fn failing(&self, kind: crds::Kind) -> Gauge<f64, AtomicU64> {
        self.failing
            .get_or_create_owned(&ObjectKindLabel { kind: kind.name() })
    }

    fn register(registry: &mut Registry) -> Self {
        let objects = Family::<ResultLabel, Gauge>::default();
        let metrics = Self {
            accepted: objects.get_or_create_owned(&ResultLabel { result: "accepted" }),
            rejected: objects.get_or_create_owned(&ResultLabel { result: "rejected" }),
            problems: Gauge::default(),
            changes: Counter::default(),
            failing: Family::default(),
        };
        registry.register("objects", "Objects of the source, accepted or rejected", objects);
        registry.register(
            "source_problems",
            "Files of the source, and objects of the API server, that could not be read",
            metrics.problems.clone(),
        );
        registry.register(
            "source_changes",
            "Changes of the world that the source reported",
            metrics.changes.clone(),
        );
        registry.register(
            "source_stale_seconds",
            "For how long a kind of object has not been followed in Kubernetes; 0 while it is",
            metrics.failing.clone(),
        );
        metrics
    }
}

/// What the process costs.
#[derive(Debug, Clone)]
pub(crate) struct ProcessMetrics {
    pub(crate) cpu_seconds: Gauge<f64, AtomicU64>,
    pub(crate) resident_bytes: Gauge,
}

impl ProcessMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            cpu_seconds: Gauge::default(),
            resident_bytes: Gauge::default(),
        };
        registry.register(
            "process_cpu_seconds",
            "Processor time used since the start",
            metrics.cpu_seconds.clone(),
        );
        registry.register(
            "process_resident_bytes",
            "Memory in use",
            metrics.resident_bytes.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Registers every metric.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("hauberk_operator");
        let push = PushMetrics::register(&mut registry);
        let session = SessionMetrics::register(&mut registry);
        let authority = AuthorityMetrics::register(&mut registry);
        let source = SourceMetrics::register(&mut registry);
        let admission = AdmissionMetrics::register(&mut registry);
        let writes = WriteMetrics::register(&mut registry);
        let process = ProcessMetrics::register(&mut registry);
        Self {
            registry: Arc::new(registry),
            push,
            session,
            authority,
            source,
            admission,
            writes,
            process,
        }
    }

    /// The metrics in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a String does not fail");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_handle() {
        let names = PerKind::new(Kind::as_str);
        for kind in Kind::ALL {
            assert_eq!(*names.of(kind), kind.as_str());
        }
    }

    #[test]
    fn what_a_module_counts_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.push.sent.of(Kind::Route).inc();
        metrics.push.applied(Cause::change).observe(0.01);
        metrics.authority.refused.inc();
        let text = metrics.text();
        for line in [
            "hauberk_operator_resources_sent_total{kind=\"route\"} 1",
            "hauberk_operator_resources_sent_total{kind=\"cluster\"} 0",
            "hauberk_operator_applied_seconds_count{cause=\"change\"} 1",
            "hauberk_operator_certificate_requests_total{result=\"refused\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn the_user_guide_has_every_metric() {
        let text = Metrics::new().text();
        let mut page = String::from(
            "# Metrics of the operator\n\n\
             At `/metrics` of the admin address, in the OpenMetrics format. Labels have a fixed set of values.\n\n\
             | Metric | Type | Meaning |\n|---|---|---|\n",
        );
        for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = line.split_once(' ').unwrap();
            let kind = text
                .lines()
                .find_map(|l| l.strip_prefix(&format!("# TYPE {name} ")));
            page.push_str(&format!("| `{name}` | {} | {help} |\n", kind.unwrap()));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/operator-metrics.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, page).unwrap();
            return;
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == page,
            "docs/guide/operator-metrics.md is out of date: run `UPDATE=1 cargo test -p control-plane guide`"
        );
    }
}

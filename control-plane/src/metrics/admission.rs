//! What `admission` counts: requests by path and outcome, and connections that did not get that far.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What the API server asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Asked {
    /// To put a proxy into a pod.
    #[allow(non_camel_case_types)]
    inject,
    /// To check one of our objects.
    #[allow(non_camel_case_types)]
    validate,
}

/// What it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Answered {
    /// Taken as it is.
    #[allow(non_camel_case_types)]
    allowed,
    /// Taken, with warnings.
    #[allow(non_camel_case_types)]
    warned,
    /// Taken with a change.
    #[allow(non_camel_case_types)]
    patched,
    /// Refused.
    #[allow(non_camel_case_types)]
    refused,
    /// Not an AdmissionReview that belongs here.
    #[allow(non_camel_case_types)]
    malformed,
    /// The operator could not tell (yet).
    #[allow(non_camel_case_types)]
    unavailable,
}

impl Answered {
    const ALL: [Self; 6] = [
        Self::allowed,
        Self::warned,
        Self::patched,
        Self::refused,
        Self::malformed,
        Self::unavailable,
    ];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    path: Asked,
    outcome: Answered,
}

/// What `admission` counts.
#[derive(Debug, Clone)]
pub struct AdmissionMetrics {
    pub(crate) failed_handshakes: Counter,
    requests: Family<Labels, Counter>,
}

impl AdmissionMetrics {
    /// One request was answered.
    pub(crate) fn count(&self, path: Asked, outcome: Answered) {
        self.requests.get_or_create(&Labels { path, outcome }).inc();
    }

    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            failed_handshakes: Counter::default(),
            requests: Family::default(),
        };
        for path in [Asked::inject, Asked::validate] {
            for outcome in Answered::ALL {
                drop(metrics.requests.get_or_create(&Labels { path, outcome }));
            }
        }
        registry.register(
            "admission_requests",
            "What the API server asked, by path, and what it was answered",
            metrics.requests.clone(),
        );
        registry.register(
            "admission_failed_handshakes",
            "Connections to the webhooks that did not get through TLS",
            metrics.failed_handshakes.clone(),
        );
        metrics
    }
}

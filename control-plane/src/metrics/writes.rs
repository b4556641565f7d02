//! What is counted of everything the lease holder writes: what kind of thing, and how that went.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Written {
    /// The status of one of our objects.
    #[allow(non_camel_case_types)]
    status,
    /// An Event about one of them.
    #[allow(non_camel_case_types)]
    event,
    /// The roots in the registration of the webhooks.
    #[allow(non_camel_case_types)]
    ca_bundle,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    what: Written,
    result: &'static str,
}

/// What the lease holder writes to the API server.
#[derive(Debug, Clone)]
pub struct WriteMetrics {
    writes: Family<Labels, Counter>,
}

impl WriteMetrics {
    /// Something was written, or was not.
    pub(crate) fn count(&self, what: Written, good: bool) {
        let result = if good { "written" } else { "failed" };
        self.writes.get_or_create(&Labels { what, result }).inc();
    }

    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            writes: Family::default(),
        };
        for what in [Written::status, Written::event, Written::ca_bundle] {
            for result in ["written", "failed"] {
                drop(metrics.writes.get_or_create(&Labels { what, result }));
            }
        }
        registry.register(
            "writes",
            "What the holder of the lease wrote to the API server, by kind and result",
            metrics.writes.clone(),
        );
        metrics
    }
}

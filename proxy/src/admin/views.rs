//! What `/config` and `/clusters` show.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::Admin;
use crate::config::{Link, ResourceView, Snapshot};

/// Every resource, and how things stand with the operator.
#[derive(Debug, Serialize)]
pub(super) struct ConfigView {
    operator: OperatorView,
    snapshot: u64,
    resources: Vec<ResourceView>,
}

#[derive(Debug, Serialize)]
struct OperatorView {
    address: String,
    #[serde(flatten)]
    link: Link,
}

#[derive(Debug, Serialize)]
pub(super) struct ClusterView {
    name: String,
    endpoints: Vec<EndpointView>,
    requests_active: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<String>,
    /// The objects that shaped it.
    sources: Vec<String>,
}

#[derive(Debug, Serialize)]
struct EndpointView {
    address: String,
    pod: String,
    zone: String,
    weight: u32,
    identity: Option<String>,
    active: u32,
}

impl Admin {
    pub(super) fn config_view(&self, resources: Vec<ResourceView>) -> ConfigView {
        ConfigView {
            operator: OperatorView {
                address: self.operator.to_string(),
                link: self.config.link(),
            },
            snapshot: self.config.load().number,
            resources,
        }
    }
}

/// Every cluster of the snapshot with its endpoints and their live state.
pub(super) fn clusters(snapshot: &Snapshot) -> Vec<ClusterView> {
    let endpoint = |e: &std::sync::Arc<crate::config::snapshot::Endpoint>| EndpointView {
        address: e.spec.address.to_string(),
        pod: e.spec.pod.clone(),
        zone: e.spec.zone.clone(),
        weight: e.spec.weight,
        identity: e.spec.identity.as_ref().map(ToString::to_string),
        active: e.live.active.load(Ordering::Relaxed),
    };
    snapshot
        .clusters
        .iter()
        .map(|cluster| ClusterView {
            name: cluster.name.to_string(),
            endpoints: cluster.endpoints.iter().map(endpoint).collect(),
            requests_active: cluster.live.requests.load(Ordering::Relaxed),
            absent: cluster.absent.as_ref().map(ToString::to_string),
            sources: cluster.spec.sources.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

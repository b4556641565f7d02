//! What `/config` and `/clusters` show.

use std::sync::atomic::Ordering;

use serde::Serialize;
use tokio::time::Instant;

use super::Admin;
use crate::breaker;
use crate::config::snapshot::{Endpoint, Snapshot};
use crate::config::{Link, ResourceView};
use crate::live::millis;

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
    breaker: &'static str,
    /// Until an open breaker lets a probe through.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_in_ms: Option<f64>,
    times_opened: u32,
    ejected: bool,
    times_ejected: u32,
    /// How long an answer is expected to take, by what was seen so far.
    expected_ms: f32,
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

impl EndpointView {
    fn of(endpoint: &Endpoint, now: Instant) -> Self {
        let (spec, live) = (&endpoint.spec, &endpoint.live);
        let (breaker, remaining) = match live.breaker.state(now) {
            breaker::State::Closed { .. } => ("closed", None),
            breaker::State::HalfOpen { .. } => ("half_open", None),
            breaker::State::Open { remaining } => ("open", Some(remaining.as_secs_f64() * 1000.0)),
        };
        Self {
            address: spec.address.to_string(),
            pod: spec.pod.clone(),
            zone: spec.zone.clone(),
            weight: spec.weight,
            identity: spec.identity.as_ref().map(ToString::to_string),
            active: live.active.load(Ordering::Relaxed),
            breaker,
            probe_in_ms: remaining,
            times_opened: live.breaker.times_opened(),
            ejected: live.outlier.is_ejected(now),
            times_ejected: live.outlier.times_ejected(),
            expected_ms: live.latency.expected_us(false, millis(now)) / 1000.0,
        }
    }
}

/// Every cluster of the snapshot with its endpoints and their live state.
pub(super) fn clusters(snapshot: &Snapshot) -> Vec<ClusterView> {
    let now = Instant::now();
    snapshot
        .clusters
        .iter()
        .map(|cluster| ClusterView {
            name: cluster.name.to_string(),
            endpoints: cluster
                .endpoints
                .iter()
                .map(|e| EndpointView::of(e, now))
                .collect(),
            requests_active: cluster.live.requests.load(Ordering::Relaxed),
            absent: cluster.absent.as_ref().map(ToString::to_string),
            sources: cluster.spec.sources.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

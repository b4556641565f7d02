//! Metrics of clusters and their endpoints. The numbers stand in live state, where workers count without lock or lookup;
//! the collector finds them by walking the current snapshot when it is scraped, so that the series of a cluster go with
//! the cluster.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use tokio::time::Instant;

use super::count::{ByClass, ByGrpcStatus, Count, FamilyWriter};
use super::histogram::Histogram;
use crate::breaker;
use crate::config::Current;
use crate::config::snapshot::{Cluster, Snapshot};

/// What is counted for one cluster.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    /// Requests, by the status that the application got.
    pub requests: ByClass,
    /// From the request's arrival to the end of its response.
    pub latency: Histogram,
    /// gRPC responses, by their status.
    pub grpc: ByGrpcStatus,
    /// Tries after the first.
    pub retries: Count,
    /// Retries that were wanted, but that the budget did not allow.
    pub retry_budget_exhausted: Count,
    /// What a limit of the DestinationRule turned away.
    pub overflow: Overflow,
    /// Copies of requests that it was sent as a mirror.
    pub mirrored: Count,
    /// Those of them that got no answer, or only a part of one.
    pub mirror_failures: Count,
    /// Upstream connections established.
    pub connections_opened: Count,
    /// Upstream connections that have ended.
    pub connections_closed: Count,
    /// Upstream connections that did not come about: refused, timed out, failed handshakes.
    pub connect_failures: Count,
    /// Times an endpoint was ejected.
    pub ejections: Count,
    /// Bytes of bodies and streams sent to the cluster.
    pub bytes_sent: Count,
    /// Bytes of bodies and streams received from the cluster.
    pub bytes_received: Count,
}

/// What limits turned away, by the limit's name in the DestinationRule.
#[derive(Debug, Default)]
pub struct Overflow([Count; 6]);

impl Overflow {
    const NAMES: [&'static str; 6] = [
        "maxConnections",
        "http1MaxPendingRequests",
        "http2MaxRequests",
        "maxRetries",
        "maxRequestsPerConnection",
        "other",
    ];

    /// Counts one, by the field that `Error::Overflow` carries; the label is its last part.
    pub fn inc(&self, limit: &str) {
        let last = Self::NAMES.len() - 1;
        let limit = limit.rsplit('.').next().unwrap_or(limit);
        let index = Self::NAMES.iter().position(|name| *name == limit).unwrap_or(last);
        self.0[index].inc();
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.0.iter().map(Count::get))
    }
}

/// Walks the clusters of the current snapshot.
#[derive(Debug)]
pub(super) struct Clusters(pub(super) Current);

impl Collector for Clusters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let snapshot = self.0.load();
        let mut out = FamilyWriter::new(&mut encoder);
        requests(&mut out, &snapshot)?;
        refusals(&mut out, &snapshot)?;
        connections(&mut out, &snapshot)?;
        endpoints(&mut out, &snapshot)
    }
}

type Series<'a> = (Vec<(&'static str, &'a str)>, u64);

fn one(cluster: &Arc<Cluster>) -> Vec<(&'static str, &str)> {
    vec![("cluster", &*cluster.name)]
}

/// One series a cluster.
fn plain<'a>(
    snapshot: &'a Snapshot,
    read: impl Fn(&ClusterMetrics) -> u64 + 'a,
) -> impl Iterator<Item = Series<'a>> {
    let clusters = snapshot.clusters.iter();
    clusters.map(move |cluster| (one(cluster), read(&cluster.live.metrics)))
}

/// Several series a cluster; those that are still zero are left out, but for what `always` names.
fn split<'a, I: Iterator<Item = (&'static str, u64)>>(
    snapshot: &'a Snapshot,
    label: &'static str,
    read: impl Fn(&'a ClusterMetrics) -> I + 'a,
) -> impl Iterator<Item = Series<'a>> {
    snapshot.clusters.iter().flat_map(move |cluster| {
        let counted = read(&cluster.live.metrics).filter(|(_, n)| *n > 0);
        counted.map(move |(value, n)| (vec![("cluster", &*cluster.name), (label, value)], n))
    })
}

fn requests(out: &mut FamilyWriter<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    out.counters(
        "hauberk_cluster_requests",
        "Requests to a cluster, by class of the status that the application got; none: it went away before",
        split(snapshot, "class", |m| m.requests.each()),
    )?;
    out.histograms(
        "hauberk_cluster_request_duration_seconds",
        "Time from a request's arrival to the end of its response, tries and waiting included",
        snapshot
            .clusters
            .iter()
            .map(|c| (one(c), &c.live.metrics.latency)),
    )?;
    out.counters(
        "hauberk_cluster_grpc_responses",
        "gRPC responses, by status code",
        split(snapshot, "grpc_status", |m| m.grpc.each()),
    )?;
    out.counters(
        "hauberk_cluster_mirrored",
        "Copies of requests sent to a cluster as a mirror; they are among its requests",
        plain(snapshot, |m| m.mirrored.get()),
    )?;
    out.counters(
        "hauberk_cluster_mirror_failures",
        "Copies of requests that got no answer or only a part of one; they are not among the errors",
        plain(snapshot, |m| m.mirror_failures.get()),
    )?;
    out.gauges(
        "hauberk_cluster_requests_active",
        "Requests under way",
        snapshot
            .clusters
            .iter()
            .map(|c| (one(c), i64::from(c.live.requests.load(Ordering::Relaxed)))),
    )?;
    out.gauges(
        "hauberk_cluster_requests_pending",
        "Requests that wait for a connection: for one that is being opened, or for one of as many as there may be",
        snapshot
            .clusters
            .iter()
            .map(|c| (one(c), i64::from(c.live.pending.load(Ordering::Relaxed)))),
    )
}

fn refusals(out: &mut FamilyWriter<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    out.counters(
        "hauberk_cluster_retries",
        "Tries after the first",
        plain(snapshot, |m| m.retries.get()),
    )?;
    out.counters(
        "hauberk_cluster_retry_budget_exhausted",
        "Retries that the retry budget did not allow",
        plain(snapshot, |m| m.retry_budget_exhausted.get()),
    )?;
    out.counters(
        "hauberk_cluster_overflow",
        "Requests and connections that a limit of the DestinationRule turned away",
        split(snapshot, "limit", |m| m.overflow.each()),
    )?;
    out.counters(
        "hauberk_cluster_ejections",
        "Times that outlier detection ejected an endpoint",
        plain(snapshot, |m| m.ejections.get()),
    )
}

fn connections(out: &mut FamilyWriter<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    out.counters(
        "hauberk_cluster_connections_opened",
        "Upstream connections established",
        plain(snapshot, |m| m.connections_opened.get()),
    )?;
    out.counters(
        "hauberk_cluster_connections_closed",
        "Upstream connections that have ended",
        plain(snapshot, |m| m.connections_closed.get()),
    )?;
    out.gauges(
        "hauberk_cluster_connections_active",
        "Upstream connections open",
        snapshot.clusters.iter().map(|cluster| {
            let m = &cluster.live.metrics;
            // Closed is read first: what closes in between must not make the difference negative.
            let closed = m.connections_closed.get();
            let open = m.connections_opened.get().saturating_sub(closed);
            (one(cluster), i64::try_from(open).unwrap_or(i64::MAX))
        }),
    )?;
    out.counters(
        "hauberk_cluster_connect_failures",
        "Upstream connections that did not come about: refused, timed out, handshake failed",
        plain(snapshot, |m| m.connect_failures.get()),
    )?;
    out.counters(
        "hauberk_cluster_sent_bytes",
        "Bytes of bodies and streams sent to a cluster",
        plain(snapshot, |m| m.bytes_sent.get()),
    )?;
    out.counters(
        "hauberk_cluster_received_bytes",
        "Bytes of bodies and streams received from a cluster",
        plain(snapshot, |m| m.bytes_received.get()),
    )
}

fn endpoints(out: &mut FamilyWriter<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    out.gauges(
        "hauberk_cluster_endpoints",
        "Endpoints of a cluster that are ready",
        snapshot.clusters.iter().map(|cluster| {
            let n = i64::try_from(cluster.endpoints.len()).unwrap_or(i64::MAX);
            (one(cluster), n)
        }),
    )?;
    let named: Vec<_> = snapshot
        .endpoints()
        .map(|(cluster, endpoint)| (cluster, endpoint.spec.address.to_string(), endpoint))
        .collect();
    let each = || {
        named.iter().map(|(cluster, address, endpoint)| {
            let labels: Vec<(&'static str, &str)> = vec![
                ("cluster", &cluster.name),
                ("endpoint", address),
                ("pod", &endpoint.spec.pod),
            ];
            (labels, *endpoint)
        })
    };
    out.gauges(
        "hauberk_endpoint_requests_active",
        "Requests and connections under way to an endpoint",
        each().map(|(labels, e)| (labels, i64::from(e.live.active.load(Ordering::Relaxed)))),
    )?;
    let now = Instant::now();
    out.gauges(
        "hauberk_endpoint_breaker_state",
        "Circuit breaker of an endpoint: 0 closed (traffic flows), 1 half-open, 2 open",
        each().map(|(labels, e)| {
            let state = match e.live.breaker.state(now) {
                breaker::State::Closed { .. } => 0,
                breaker::State::HalfOpen { .. } => 1,
                breaker::State::Open { .. } => 2,
            };
            (labels, state)
        }),
    )?;
    out.gauges(
        "hauberk_endpoint_ejected",
        "1 while outlier detection keeps traffic from an endpoint",
        each().map(|(labels, e)| (labels, i64::from(e.live.outlier.is_ejected(now)))),
    )
}

//! Live state of clusters and endpoints: a handful of atomics each, shared by all workers, kept across snapshots.
//!
//! The configuration store makes one value for each cluster and each endpoint of a cluster, and hands the same one to
//! the next snapshot, so that a push of configuration never forgets a count, a latency, an open breaker or an ejection.
//! The modules that decide (`balancer`, `breaker`, `outlier`, `limits`, `retry`) read and write it; nothing here decides.
//! No lock is taken and no clock is read: callers say what time it is.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::balancer::Latency;
use crate::breaker::Breaker;
use crate::metrics::ClusterMetrics;
use crate::outlier::Record;
use crate::retry::budget::Window;
use crate::upstream::queue::Queue;

/// Live state of one endpoint of one cluster.
#[derive(Debug)]
pub struct EndpointLive {
    /// Unique in this process; the key of connection pools.
    pub id: u64,
    /// Requests and connections under way.
    pub active: AtomicU32,
    /// No snapshot names it any more: its pooled connections close when idle.
    pub retired: AtomicBool,
    /// When it appeared among others, in ms; 0 if it was there at first.
    pub(crate) since: AtomicU64,
    /// How long it takes to answer.
    pub latency: Latency,
    /// Its circuit breaker.
    pub breaker: Breaker,
    /// What outlier detection knows of it.
    pub outlier: Record,
}

impl EndpointLive {
    /// State of an endpoint that was never used, with an id no other has.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            active: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            since: AtomicU64::new(0),
            latency: Latency::default(),
            breaker: Breaker::default(),
            outlier: Record::default(),
        }
    }
}

impl EndpointLive {
    /// State of an endpoint that left and is back: new, but for its breaker.
    #[must_use]
    pub fn returning(before: &Self, now: Instant) -> Self {
        Self {
            breaker: before.breaker.resumed(now),
            ..Self::new()
        }
    }
}

impl Default for EndpointLive {
    fn default() -> Self {
        Self::new()
    }
}

/// Live state of one cluster.
#[derive(Debug)]
pub struct ClusterLive {
    /// Resource name of the cluster, `host:port` or `host:port|subset`.
    pub name: Arc<str>,
    /// Upstream connections that are open.
    pub connections: AtomicU32,
    /// Requests that wait for a connection.
    pub pending: AtomicU32,
    /// Requests under way.
    pub requests: AtomicU32,
    /// Retries under way.
    pub retries: AtomicU32,
    /// Those of `pending` who wait because there are as many connections as there may be.
    pub(crate) queue: Queue,
    /// Requests that began lately, where a retry budget counts them.
    pub(crate) recent: Window,
    /// Endpoints ejected, as last counted.
    pub ejected: AtomicU32,
    /// Set while a worker decides about an ejection, so that two never exceed the bound together.
    pub(crate) ejecting: AtomicBool,
    /// Counts up with every round-robin pick.
    pub(crate) cursor: AtomicU64,
    /// When the last endpoint appeared among others, in ms; 0 for never.
    pub(crate) newest: AtomicU64,
    /// Its metrics.
    pub metrics: ClusterMetrics,
}

impl ClusterLive {
    /// State of a cluster that was never used.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            retries: AtomicU32::new(0),
            queue: Queue::default(),
            recent: Window::default(),
            ejected: AtomicU32::new(0),
            ejecting: AtomicBool::new(false),
            cursor: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            metrics: ClusterMetrics::default(),
        }
    }
}

impl ClusterLive {
    /// An endpoint has appeared among others.
    pub(crate) fn appeared(&self, endpoint: &EndpointLive, now: Instant) {
        let now_ms = millis(now);
        endpoint.since.store(now_ms, Ordering::Relaxed);
        self.newest.fetch_max(now_ms, Ordering::Relaxed);
    }
}

/// Milliseconds since an hour before the first time this was asked: small enough to pack into atomics, and never 0,
/// which the atomics use for *never*. The hour keeps times that were taken just before the first question apart.
pub(crate) fn millis(now: Instant) -> u64 {
    const HOUR: Duration = Duration::from_secs(3600);
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = *EPOCH.get_or_init(|| now.checked_sub(HOUR).unwrap_or(now));
    let since = now.saturating_duration_since(epoch).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique() {
        let (a, b) = (EndpointLive::new(), EndpointLive::default());
        assert_ne!(a.id, b.id);
    }

    #[test]
    fn milliseconds_count_as_the_clock_does() {
        let now = Instant::now();
        assert!(millis(now) > 1);
        assert_eq!(millis(now + Duration::from_millis(250)) - millis(now), 250);
    }

    #[test]
    fn live_state_is_shared_by_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<EndpointLive>();
        shared::<ClusterLive>();
        shared::<crate::balancer::Pick>();
        shared::<crate::limits::Permit>();
    }

    #[test]
    fn live_state_stays_small() {
        // Ten thousand endpoints are allowed: what each costs is worth a look when it grows.
        assert!(size_of::<EndpointLive>() <= 96, "{}", size_of::<EndpointLive>());
    }
}

//! Live state of clusters and endpoints: a handful of atomics each, shared by all workers, kept across snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::metrics::ClusterMetrics;

/// Live state of one endpoint of one cluster.
#[derive(Debug)]
pub struct EndpointLive {
    /// Unique in this process; the key of connection pools.
    pub id: u64,
    /// Requests and connections under way.
    pub active: AtomicU32,
    /// No snapshot names it any more: its pooled connections close when idle.
    pub retired: AtomicBool,
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
    /// Requests under way.
    pub requests: AtomicU32,
    /// Its metrics.
    pub metrics: ClusterMetrics,
}

impl ClusterLive {
    /// State of a cluster that was never used.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            requests: AtomicU32::new(0),
            metrics: ClusterMetrics::default(),
        }
    }
}

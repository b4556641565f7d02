//! Live state of clusters and endpoints: a handful of atomics each, shared by all workers, kept across snapshots.

use std::sync::atomic::{AtomicBool, AtomicU32};

/// Live state of one endpoint of one cluster.
#[derive(Debug, Default)]
pub struct EndpointLive {
    /// Unique in this process; the key of connection pools.
    pub id: u64,
    /// Requests and connections under way.
    pub active: AtomicU32,
    /// No snapshot names it any more: its pooled connections close when idle.
    pub retired: AtomicBool,
}

/// Live state of one cluster.
#[derive(Debug, Default)]
pub struct ClusterLive {
    /// Requests under way.
    pub requests: AtomicU32,
}

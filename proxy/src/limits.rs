//! Upper bounds of a cluster (`connectionPool` of the DestinationRule): connections, waiting requests, requests, retries.
//! The outbound path takes a [`Permit`] before it does the thing and drops it after. Nothing waits here: what exceeds a
//! bound is refused at once, with the bound's name; only requests that would open one connection too many wait for one,
//! in `upstream::queue`, as many as `http1MaxPendingRequests` says. Counting goes on without bounds too, for gauges and retry budgets.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::snapshot::Cluster;
use crate::error::Error;
use crate::live::ClusterLive;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Upstream connections that are open.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
}

/// The right to do one more; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped bounds nothing"]
pub struct Permit {
    live: Arc<ClusterLive>,
    bound: Bound,
}

impl Bound {
    /// Every bound.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Pending, Self::Requests, Self::Retries];

    /// Its field in the DestinationRule.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Connections => "connectionPool.tcp.maxConnections",
            Self::Pending => "connectionPool.http.http1MaxPendingRequests",
            Self::Requests => "connectionPool.http.http2MaxRequests",
            Self::Retries => "connectionPool.http.maxRetries",
        }
    }

    /// Its value; `None` for no bound.
    #[must_use]
    pub fn of(self, limits: &api::Limits) -> Option<NonZeroU32> {
        match self {
            Self::Connections => limits.max_connections,
            Self::Pending => limits.max_pending_requests,
            Self::Requests => limits.max_requests,
            Self::Retries => limits.max_retries,
        }
    }

    fn counter(self, live: &ClusterLive) -> &AtomicU32 {
        match self {
            Self::Connections => &live.connections,
            Self::Pending => &live.pending,
            Self::Requests => &live.requests,
            Self::Retries => &live.retries,
        }
    }
}

/// One more of what `bound` counts.
///
/// # Errors
/// [`Error::Overflow`] when there are as many as the DestinationRule allows.
pub fn acquire(cluster: &Cluster, bound: Bound) -> Result<Permit, Error> {
    let max = bound.of(&cluster.spec.limits).map_or(u32::MAX, NonZeroU32::get);
    acquire_below(&cluster.live, bound, max).ok_or_else(|| Error::Overflow {
        cluster: Arc::clone(&cluster.name),
        limit: bound.field(),
    })
}

/// One more of what `bound` counts, if there are fewer than `max`.
pub(crate) fn acquire_below(live: &Arc<ClusterLive>, bound: Bound, max: u32) -> Option<Permit> {
    let one_more = |count: u32| (count < max).then(|| count + 1);
    bound
        .counter(live)
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
        .ok()
        .map(|_| Permit {
            live: Arc::clone(live),
            bound,
        })
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.bound.counter(&self.live).fetch_sub(1, Ordering::Relaxed);
        if self.bound == Bound::Connections {
            self.live.queue.place_freed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::testing::{cluster_of, with};

    fn count(cluster: &Cluster, bound: Bound) -> u32 {
        bound.counter(&cluster.live).load(Ordering::Relaxed)
    }

    #[test]
    fn each_bound_refuses_one_more_by_its_name_until_a_permit_is_dropped() {
        for bound in Bound::ALL {
            let two = NonZeroU32::new(2);
            let cluster = with(cluster_of(&[1]), |spec| match bound {
                Bound::Connections => spec.limits.max_connections = two,
                Bound::Pending => spec.limits.max_pending_requests = two,
                Bound::Requests => spec.limits.max_requests = two,
                Bound::Retries => spec.limits.max_retries = two,
            });
            let first = acquire(&cluster, bound).unwrap();
            let _second = acquire(&cluster, bound).unwrap();
            let refused = acquire(&cluster, bound).unwrap_err();
            assert!(matches!(refused, Error::Overflow { limit, .. } if limit == bound.field()));
            assert_eq!(count(&cluster, bound), 2);
            for other in Bound::ALL.into_iter().filter(|other| *other != bound) {
                assert_eq!(count(&cluster, other), 0);
            }
            drop(first);
            assert!(acquire(&cluster, bound).is_ok());
        }
    }

    #[test]
    fn without_a_bound_it_only_counts() {
        let cluster = cluster_of(&[1]);
        let permits: Vec<_> = (0..1000)
            .map(|_| acquire(&cluster, Bound::Requests).unwrap())
            .collect();
        assert_eq!(count(&cluster, Bound::Requests), 1000);
        drop(permits);
        assert_eq!(count(&cluster, Bound::Requests), 0);
    }

    #[test]
    fn threads_never_exceed_a_bound_together() {
        let cluster = with(cluster_of(&[1]), |spec| {
            spec.limits.max_requests = NonZeroU32::new(3)
        });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let permit = acquire(&cluster, Bound::Requests);
                        assert!(count(&cluster, Bound::Requests) <= 3);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(count(&cluster, Bound::Requests), 0);
    }
}

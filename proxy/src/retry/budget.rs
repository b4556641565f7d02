//! How many retries of a cluster may be under way: so that failing endpoints do not get more traffic than healthy ones.
//! The outbound path takes a permit for each retry and keeps it until that try has its result.
//!
//! The budget is always on: at most `percent` of the requests under way, and always `min_concurrency`. A bound in
//! `connectionPool.http.maxRetries` holds beside it; the smaller of the two decides.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use crate::config::snapshot::Cluster;
use crate::limits::{self, Bound, Permit};

/// No more retries may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// As many as may be.
    pub allowed: u32,
    /// The field that says so.
    pub field: &'static str,
}

/// The right to one more retry.
///
/// # Errors
/// When as many are under way as may be; the failure that would have been retried is then final.
pub fn acquire(cluster: &Cluster) -> Result<Permit, Exhausted> {
    let requests = cluster.live.requests.load(Ordering::Relaxed);
    let mut exhausted = Exhausted {
        allowed: allowed(cluster.spec.retry_budget, requests),
        field: "retryBudget",
    };
    if let Some(max) = Bound::Retries.of(&cluster.spec.limits).map(NonZeroU32::get)
        && max < exhausted.allowed
    {
        exhausted = Exhausted {
            allowed: max,
            field: Bound::Retries.field(),
        };
    }
    limits::acquire_below(&cluster.live, Bound::Retries, exhausted.allowed).ok_or(exhausted)
}

fn allowed(budget: api::RetryBudget, requests: u32) -> u32 {
    // A percentage from 0 to 100 of a `u32` fits a `u32`; the fraction is dropped.
    let share = (budget.percent / 100.0 * f64::from(requests)) as u32;
    share.max(budget.min_concurrency)
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} retries are under way, which is what {} allows",
            self.allowed, self.field
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::testing::{cluster_of, with};

    #[test]
    fn a_share_of_the_requests_is_allowed_and_always_the_minimum() {
        let budget = |percent, min_concurrency| api::RetryBudget {
            percent,
            min_concurrency,
        };
        let table = [
            (budget(20.0, 3), 0, 3),
            (budget(20.0, 3), 15, 3),
            (budget(20.0, 3), 24, 4),
            (budget(20.0, 3), 1000, 200),
            (budget(0.0, 0), 1000, 0),
            (budget(0.5, 0), 1000, 5),
            (budget(100.0, 0), u32::MAX, u32::MAX),
        ];
        for (budget, requests, expected) in table {
            assert_eq!(allowed(budget, requests), expected, "{budget:?} {requests}");
        }
    }

    #[test]
    fn the_budget_follows_the_requests_under_way() {
        let cluster = cluster_of(&[1]);
        let requests: Vec<_> = (0..50)
            .map(|_| limits::acquire(&cluster, Bound::Requests).unwrap())
            .collect();
        let retries: Vec<_> = std::iter::from_fn(|| acquire(&cluster).ok()).collect();
        assert_eq!(retries.len(), 10);
        let refused = acquire(&cluster).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "10 retries are under way, which is what retryBudget allows"
        );
        drop(requests);
        assert_eq!(
            acquire(&cluster).unwrap_err().allowed,
            3,
            "those under way stay, new ones wait"
        );
        drop(retries);
        assert!(acquire(&cluster).is_ok());
    }

    #[test]
    fn the_smaller_of_budget_and_bound_decides() {
        for (max, expected) in [
            (2, (2, "connectionPool.http.maxRetries")),
            (5, (3, "retryBudget")),
        ] {
            let cluster = with(cluster_of(&[1]), |spec| {
                spec.limits.max_retries = NonZeroU32::new(max)
            });
            let held: Vec<_> = std::iter::from_fn(|| acquire(&cluster).ok()).collect();
            let refused = acquire(&cluster).unwrap_err();
            assert_eq!((refused.allowed, refused.field), expected);
            assert_eq!(held.len(), expected.0 as usize);
        }
    }
}

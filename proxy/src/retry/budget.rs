//! How many retries of a cluster may be under way: so that failing endpoints do not get more traffic than healthy ones.
//! The outbound path takes a permit for each retry and keeps it until that try has its result.
//!
//! The budget is always on: at most `percent` of the requests under way, and always `min_concurrency`. With an `interval`,
//! requests that began within it count too where they are more than those under way. A bound in
//! `connectionPool.http.maxRetries` holds beside it; the smaller of the two decides.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::snapshot::Cluster;
use crate::limits::{self, Bound, Permit};
use crate::live::millis;

/// No more retries may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// As many as may be.
    pub allowed: u32,
    /// The field that says so.
    pub field: &'static str,
}

/// The slots of a [`Window`]: it reaches back for its interval, less an eighth at most.
const SLOTS: u64 = 8;

/// Requests that began lately. Each slot counts for an eighth of the interval, and holds the number of that eighth beside
/// its count.
#[derive(Debug, Default)]
pub struct Window([AtomicU64; SLOTS as usize]);

impl Window {
    /// One request begins.
    pub(crate) fn count(&self, interval: Duration, now: Instant) {
        let number = Self::number(interval, now);
        let slot = &self.0[(number % SLOTS) as usize];
        let one_more = |value: u64| match value >> 32 == number {
            // Four billion requests in an eighth: enough to stay at.
            true if value as u32 == u32::MAX => None,
            true => Some(value + 1),
            false => Some(number << 32 | 1),
        };
        let _full = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    fn sum(&self, interval: Duration, now: Instant) -> u32 {
        let number = Self::number(interval, now);
        let slots = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        let recent = slots.filter(|value| number.wrapping_sub(value >> 32) < SLOTS);
        recent.map(|value| value as u32).fold(0, u32::saturating_add)
    }

    /// Numbers of eighths, of 32 bits: with the shortest interval they come round after fifty days.
    fn number(interval: Duration, now: Instant) -> u64 {
        let eighth = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX) / SLOTS;
        (millis(now) / eighth.max(1)) & u64::from(u32::MAX)
    }
}

/// The right to one more retry.
///
/// # Errors
/// When as many are under way as may be; the failure that would have been retried is then final.
pub fn acquire(cluster: &Cluster, now: Instant) -> Result<Permit, Exhausted> {
    let under_way = cluster.live.requests.load(Ordering::Relaxed);
    let budget = cluster.spec.retry_budget;
    let recent = budget
        .interval
        .map_or(0, |interval| cluster.live.recent.sum(interval, now));
    let mut exhausted = Exhausted {
        allowed: allowed(budget, under_way.max(recent)),
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
            interval: None,
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
        let retries: Vec<_> = std::iter::from_fn(|| acquire(&cluster, Instant::now()).ok()).collect();
        assert_eq!(retries.len(), 10);
        let refused = acquire(&cluster, Instant::now()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "10 retries are under way, which is what retryBudget allows"
        );
        drop(requests);
        assert_eq!(
            acquire(&cluster, Instant::now()).unwrap_err().allowed,
            3,
            "those under way stay, new ones wait"
        );
        drop(retries);
        assert!(acquire(&cluster, Instant::now()).is_ok());
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
            let held: Vec<_> = std::iter::from_fn(|| acquire(&cluster, Instant::now()).ok()).collect();
            let refused = acquire(&cluster, Instant::now()).unwrap_err();
            assert_eq!((refused.allowed, refused.field), expected);
            assert_eq!(held.len(), expected.0 as usize);
        }
    }

    #[test]
    fn requests_that_began_within_the_interval_count_and_then_no_more() {
        let cluster = with(cluster_of(&[1]), |spec| {
            spec.retry_budget.interval = Some(Duration::from_secs(8));
        });
        let start = Instant::now();
        let allowed_at = |now| {
            let held: Vec<_> = std::iter::from_fn(|| acquire(&cluster, now).ok()).collect();
            held.len()
        };
        for second in 0..4 {
            for _ in 0..25 {
                let now = start + Duration::from_secs(second);
                cluster.live.recent.count(Duration::from_secs(8), now);
            }
        }
        let after = |second| allowed_at(start + Duration::from_secs(second));
        assert_eq!(after(3), 20, "a fifth of a hundred");
        assert_eq!(after(9), 10, "those of two seconds are left");
        assert_eq!(after(30), 3, "none: the minimum");
        // Where more are under way, these count.
        let _under_way: Vec<_> = (0..50)
            .map(|_| limits::acquire(&cluster, Bound::Requests).unwrap())
            .collect();
        assert_eq!(after(9), 10);
        assert_eq!(after(30), 10);
    }
}

//! How long to wait before a retry: exponential with full jitter. The wait before retry *n* (from 0) is taken evenly from
//! 0 to `base × 2ⁿ`, and that bound stops at 10 × base: 25 ms, 50 ms, 100 ms, 200 ms, 250 ms, 250 ms… by default.
//! Full jitter, because clients that failed together should not come back together.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The bound stops growing at this many times the base.
pub const MOST: u32 = 10;

/// The wait before retry `n` (from 0).
#[must_use]
pub fn wait(policy: &api::Retry, n: u32, rng: &mut impl Rng) -> Duration {
    let bound = bound(policy.backoff, n);
    if bound.is_zero() {
        bound
    } else {
        rng.random_range(Duration::ZERO..=bound)
    }
}

fn bound(base: Duration, n: u32) -> Duration {
    // 2⁴ is above the factor it is cut to, so larger exponents need no computing.
    base.saturating_mul((1 << n.min(4)).min(MOST))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn the_bound_doubles_up_to_ten_times_the_base() {
        let bounds: Vec<_> = (0..7)
            .map(|n| bound(Duration::from_millis(25), n).as_millis())
            .collect();
        assert_eq!(bounds, [25, 50, 100, 200, 250, 250, 250]);
        assert_eq!(bound(Duration::from_millis(25), u32::MAX).as_millis(), 250);
        assert_eq!(bound(Duration::MAX, 3), Duration::MAX);
    }

    #[test]
    fn waits_are_spread_over_all_of_the_bound() {
        let policy = api::Retry::default();
        let mut rng = SmallRng::seed_from_u64(1);
        let waits: Vec<_> = (0..1000)
            .map(|_| wait(&policy, 2, &mut rng).as_millis())
            .collect();
        assert!(waits.iter().all(|ms| *ms <= 100));
        for part in 0..4 {
            let hits = waits
                .iter()
                .filter(|ms| (25 * part..25 * (part + 1)).contains(*ms))
                .count();
            assert!((200..300).contains(&hits), "{hits} in quarter {part}");
        }
    }

    #[test]
    fn no_base_is_no_wait() {
        let policy = api::Retry {
            backoff: Duration::ZERO,
            ..api::Retry::default()
        };
        assert_eq!(wait(&policy, 3, &mut SmallRng::seed_from_u64(1)), Duration::ZERO);
    }
}

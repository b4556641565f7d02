//! Full-jitter exponential back-off, for everything that is asked of the operator again: each delay is taken evenly from
//! zero to a bound that doubles, so that a thousand proxies do not come back in step.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Delays between tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
    rng: StdRng,
}

impl Backoff {
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self::seeded(base, cap, rand::random())
    }

    pub(crate) fn seeded(base: Duration, cap: Duration, seed: u64) -> Self {
        Self {
            base,
            cap,
            failures: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The delay before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let bound = self.base.saturating_mul(factor).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        self.rng.random_range(Duration::ZERO..=bound)
    }

    /// What was tried works again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(10);

    #[test]
    fn delays_stay_below_a_bound_that_doubles_up_to_the_cap() {
        for seed in 0..50 {
            let mut backoff = Backoff::seeded(BASE, CAP, seed);
            for n in 0..200u32 {
                let bound = BASE
                    .saturating_mul(1u32.checked_shl(n).unwrap_or(u32::MAX))
                    .min(CAP);
                assert!(backoff.next() <= bound, "try {n} of seed {seed}");
            }
        }
    }

    #[test]
    fn two_proxies_do_not_come_back_in_step() {
        let mut delays: Vec<_> = (0..20)
            .map(|seed| Backoff::seeded(BASE, CAP, seed).next())
            .collect();
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 15, "{delays:?}");
    }

    #[test]
    fn a_reset_starts_from_the_base() {
        let mut backoff = Backoff::seeded(BASE, CAP, 1);
        for _ in 0..12 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= BASE);
    }
}

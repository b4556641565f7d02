//! A rate and a burst: how often something may happen.

use std::time::Duration;

use tokio::time::Instant;

/// Tokens that come back with time; each thing done takes one.
#[derive(Debug)]
pub(super) struct Bucket {
    every: Duration,
    burst: u32,
    /// When the bucket is full again. Tokens are time before that.
    full: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens; one comes back `every` so often.
    pub(super) fn new(every: Duration, burst: u32, now: Instant) -> Self {
        Self {
            every,
            burst,
            full: now,
        }
    }

    /// Whether there is a token.
    pub(super) fn has(&self, now: Instant) -> bool {
        self.full.max(now) + self.every - now <= self.every * self.burst
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let there = self.has(now);
        if there {
            self.full = self.full.max(now) + self.every;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Duration::from_millis(50), 3, start);
        let mut taken = |ms| {
            let now = start + Duration::from_millis(ms);
            (0..10).filter(|_| bucket.take(now)).count()
        };
        let found: Vec<_> = [0, 49, 50, 200, 10_000].map(&mut taken).into();
        assert_eq!(found, [3, 0, 1, 3, 3]);
    }
}

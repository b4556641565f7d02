//! How long to wait before the next try: longer each time up to a bound, and never for as long as another replica, so
//! that a server that comes back is not overrun. Used by everything that talks to the API server again and again.

use std::time::Duration;

/// Waits that double from `least` to `most`, each shortened by up to a half by chance.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            next: least,
        }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        spread(wait)
    }

    /// Begins from the shortest wait again.
    pub(crate) fn reset(&mut self) {
        self.next = self.least;
    }
}

/// Between a half and all of a time, by chance.
pub(crate) fn spread(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 5);
        for full in [1, 2, 4, 5, 5] {
            let wait = backoff.next();
            assert!(
                wait <= second * full && wait * 2 >= second * full,
                "{wait:?} of {full} s"
            );
        }
        backoff.reset();
        assert!(backoff.next() <= second);
    }
}

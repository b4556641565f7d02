//! Counts durations in buckets of growing width: microseconds to hours in constant memory, within 3.2 %.
//!
//! Filled by [`Report`](super::Report). It never loses a value: what is beyond its last bucket counts there.

use std::time::Duration;

/// Buckets for each power of two.
const STEPS: u64 = 32;
const BUCKETS: usize = 1200;

/// How many durations fell into which bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: vec![0; BUCKETS],
            count: 0,
            max: Duration::ZERO,
        }
    }
}

impl Histogram {
    /// Counts `value`.
    pub fn add(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The duration that a share `quantile` (0 to 1) of the values does not exceed; zero when there are none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among at most 2^52 values, clamped to 0..=count"
        )]
        let rank = ((self.count as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper(index)).min(self.max);
            }
        }
        self.max
    }
}

/// Values below [`STEPS`] have a bucket each; above, every power of two is cut into [`STEPS`] parts.
fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return usize::try_from(micros).expect("below STEPS");
    }
    let power = u64::from(micros.ilog2()) - u64::from(STEPS.ilog2());
    let step = (micros >> power) - STEPS;
    usize::try_from(STEPS + power * STEPS + step).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The largest value of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let (power, step) = ((index - STEPS) / STEPS, (index - STEPS) % STEPS);
    ((STEPS + step + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_a_known_row_are_where_they_should_be() {
        let mut histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.add(Duration::from_millis(millis));
        }
        for (quantile, millis) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile(quantile).as_secs_f64() * 1000.0;
            assert!((found / millis - 1.0).abs() < 0.033, "{quantile}: {found}");
        }
        assert_eq!(histogram.max(), Duration::from_secs(1));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_value_within_the_promised_error(micros in 0u64..(1 << 40)) {
            let top = upper(bucket(micros));
            prop_assert!(top >= micros);
            prop_assert!((top - micros) * 31 <= micros, "{top} for {micros}");
        }

        #[test]
        fn no_duration_is_too_long(secs in any::<u64>()) {
            let mut histogram = Histogram::default();
            histogram.add(Duration::from_secs(secs));
            prop_assert_eq!(histogram.count(), 1);
            prop_assert!(histogram.quantile(0.5) <= histogram.max());
        }
    }
}

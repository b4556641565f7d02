//! A histogram of durations: one atomic a bucket, no lock, shared by all workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds of the buckets, in microseconds: 0.5 ms to 60 s.
const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Longer ones add this much to the sum: a year.
const LONGEST_US: u64 = 365 * 86_400 * 1_000_000;

/// Durations, counted in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        // Bounded, so that no single duration makes the sum wrap.
        let us = u64::try_from(duration.as_micros())
            .unwrap_or(LONGEST_US)
            .min(LONGEST_US);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        // The count is the sum of the buckets as read here, so that one scrape never contradicts itself.
        let counts: [u64; BOUNDS_US.len() + 1] =
            std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed));
        let bounds = BOUNDS_US
            .iter()
            .map(|us| Duration::from_micros(*us).as_secs_f64())
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use std::sync::Arc;

    use super::*;

    #[derive(Debug)]
    struct Shared(Arc<Histogram>);

    impl EncodeMetric for Shared {
        fn encode(&self, encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
            self.0.encode(encoder)
        }

        fn metric_type(&self) -> MetricType {
            self.0.metric_type()
        }
    }

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_includes_them() {
        let histogram = Arc::new(Histogram::default());
        for ms in [0, 1, 1, 3, 70_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.count(), 6);
        let mut registry = Registry::default();
        registry.register("t", "T", Shared(Arc::clone(&histogram)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "t_bucket{le=\"0.0005\"} 1",
            "t_bucket{le=\"0.001\"} 3",
            "t_bucket{le=\"0.005\"} 4",
            "t_bucket{le=\"60.0\"} 4",
            "t_bucket{le=\"+Inf\"} 6",
            "t_count 6",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}

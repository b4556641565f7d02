//! Expected latency of an endpoint: a *peak* exponentially weighted moving average, as Finagle introduced it and Linkerd
//! made it known. A slower answer counts at once and in full; faster ones win back trust over [`DECAY`]; without any
//! answer the estimate fades, so that an endpoint which was slow once is looked at again.
//!
//! `balancer::pick` compares estimates, and a settled pick feeds them. The estimate and its time share one atomic word
//! (32 bits of microseconds as `f32`, 32 bits of milliseconds that wrap around after 49 days): an update is one CAS.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time in which an estimate that nothing confirms falls to 37 %.
pub const DECAY: Duration = Duration::from_secs(10);

/// Estimate for an endpoint that is busy with its first request.
pub const UNKNOWN: Duration = Duration::from_millis(30);

/// Below this latency endpoints are alike; also keeps load from vanishing in a product with 0.
const FLOOR_US: f32 = 1.0;

/// Expected latency of an endpoint.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

#[derive(Clone, Copy)]
struct Estimate {
    us: f32,
    at_ms: u32,
}

impl Estimate {
    /// 0 is *none yet*: an estimate is at least [`FLOOR_US`], whose bits are not 0.
    fn unpack(word: u64) -> Option<Self> {
        (word != 0).then(|| Self {
            us: f32::from_bits((word >> 32) as u32),
            at_ms: word as u32,
        })
    }

    fn pack(self) -> u64 {
        (u64::from(self.us.max(FLOOR_US).to_bits()) << 32) | u64::from(self.at_ms)
    }

    /// How much of the estimate is left at `now`, from 0 to 1.
    fn left(self, now_ms: u32) -> f32 {
        // A time slightly before `at_ms` (another worker's clock reading) wraps to almost 2³²: no time has passed then.
        let passed = now_ms.wrapping_sub(self.at_ms);
        let passed = if passed > u32::MAX / 2 { 0 } else { passed };
        (-(passed as f32) / (DECAY.as_millis() as f32)).exp()
    }
}

impl Latency {
    /// Takes note of a successful answer after `took`.
    pub(crate) fn observe(&self, took: Duration, now_ms: u64) {
        let took = micros(took);
        self.update(now_ms, |old, now| match old {
            Some(old) if took < old.us => {
                let left = old.left(now);
                old.us * left + took * (1.0 - left)
            }
            _ => took,
        });
    }

    /// Takes note of a failure after `took`. However fast it came, it is no reason to send more: the estimate does not
    /// fall, and does not fade while failures go on.
    pub(crate) fn observe_failure(&self, took: Duration, now_ms: u64) {
        let took = micros(took);
        self.update(now_ms, |old, _| {
            took.max(old.map_or(micros(UNKNOWN), |old| old.us))
        });
    }

    /// The expected latency in microseconds, at least 1. One without any answer is fast as long as it has nothing to do,
    /// so that it gets a first request, and counts as [`UNKNOWN`] until that is answered: else an endpoint that is new
    /// among fast ones would stay unknown for ever.
    pub(crate) fn expected_us(&self, idle: bool, now_ms: u64) -> f32 {
        match Estimate::unpack(self.0.load(Ordering::Relaxed)) {
            Some(estimate) => (estimate.us * estimate.left(now_ms as u32)).max(FLOOR_US),
            None if idle => FLOOR_US,
            None => micros(UNKNOWN),
        }
    }

    fn update(&self, now_ms: u64, new_us: impl Fn(Option<Estimate>, u32) -> f32) {
        let at_ms = now_ms as u32;
        // Orderings are relaxed throughout: the word is complete in itself and guards no other memory.
        self.0.update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let us = new_us(Estimate::unpack(word), at_ms);
            Estimate { us, at_ms }.pack()
        });
    }
}

fn micros(d: Duration) -> f32 {
    d.as_secs_f32() * 1e6
}

#[cfg(test)]
mod tests {
    use std::f32::consts::E;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const START: u64 = 3_600_000;

    fn expected_ms(latency: &Latency, now_ms: u64) -> f32 {
        latency.expected_us(false, now_ms) / 1000.0
    }

    fn near(got: f32, expected: f32) {
        assert!(
            (got - expected).abs() <= expected * 0.01,
            "{got} is not near {expected}"
        );
    }

    #[test]
    fn an_unknown_endpoint_is_tried_and_counts_as_30_ms_until_it_answers() {
        let latency = Latency::default();
        near(latency.expected_us(true, START), 1.0);
        near(expected_ms(&latency, START), 30.0);
        latency.observe(2 * MS, START);
        near(expected_ms(&latency, START), 2.0);
    }

    #[test]
    fn a_peak_counts_at_once_and_trust_comes_back_slowly() {
        let latency = Latency::default();
        latency.observe(2 * MS, START);
        latency.observe(100 * MS, START + 1);
        near(expected_ms(&latency, START + 1), 100.0);
        latency.observe(2 * MS, START + 2);
        assert!(expected_ms(&latency, START + 2) > 99.0);
        latency.observe(2 * MS, START + 10_002);
        near(
            expected_ms(&latency, START + 10_002),
            100.0 / E + 2.0 * (1.0 - 1.0 / E),
        );
    }

    #[test]
    fn without_answers_the_estimate_fades_to_its_floor() {
        let latency = Latency::default();
        latency.observe(100 * MS, START);
        near(expected_ms(&latency, START + 10_000), 100.0 / E);
        near(latency.expected_us(false, START + 10_000_000), 1.0);
    }

    #[test]
    fn fast_failures_attract_no_traffic() {
        let latency = Latency::default();
        latency.observe_failure(MS, START);
        near(expected_ms(&latency, START), 30.0);
        latency.observe(50 * MS, START);
        for second in 1..100 {
            latency.observe_failure(MS, START + second * 1000);
        }
        near(expected_ms(&latency, START + 99_000), 50.0);
    }

    #[test]
    fn a_clock_reading_from_just_before_is_no_leap_of_49_days() {
        let latency = Latency::default();
        latency.observe(50 * MS, START);
        near(expected_ms(&latency, START - 1), 50.0);
    }
}

//! Outlier detection: endpoints that fail several times in a row are ejected for a while. `balancer::pick` leaves out
//! the ejected ones, a settled pick reports what happened, and housekeeping calls [`sweep`] to log who is back.
//!
//! An endpoint is out for `base_ejection` times the number of its ejections (300 s at most, or the base if that is
//! longer); for each `interval` it then behaves, one ejection is forgotten. There are no timers: whether an endpoint is
//! out follows from the time at hand, so that it is back at the first pick after its time. `interval` therefore only
//! sets how fast ejections are forgotten.
//!
//! Bounds: at most `max_ejection_percent` of the endpoints are out, but one always may be (so the only endpoint of a
//! cluster can be: `min_health_percent` is the setting against it). With fewer healthy endpoints than
//! `min_health_percent`, none is ejected any more, and those that are out get traffic like the others.
//!
//! What counts: an answer 5xx; 502, 503 and 504 a second time as gateway errors. With `error_codes`, answers with these
//! and no others (the breaker goes on with 5xx). Connection failures, resets and
//! timeouts (local failures) count as 503 would, or with `split_local_errors` only on their own counter.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::balancer::Outcome;
use crate::config::snapshot::{Cluster, Endpoint};
use crate::live::millis;

/// No ejection is longer, unless `base_ejection` is.
pub const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// What outlier detection knows of one endpoint.
#[derive(Debug, Default)]
pub struct Record {
    /// End of the last ejection, in ms; 0 for never ejected.
    until_ms: AtomicU64,
    /// Ejections that are not forgotten yet, as of the last one.
    times: AtomicU32,
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// Ejected, and its return was not announced yet.
    out: AtomicBool,
}

/// Which of the counters was too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `consecutive5xxErrors`.
    ServerErrors,
    /// `consecutiveGatewayErrors`.
    GatewayErrors,
    /// `consecutiveLocalOriginFailures`.
    LocalFailures,
}

/// What came of an endpoint that failed too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It gets no traffic for a while.
    Ejected {
        /// Why.
        cause: Cause,
        /// Failures in a row.
        failures: u32,
        /// How often it was ejected, not counting what is forgotten.
        times: u32,
        /// How long.
        duration: Duration,
    },
    /// It stays, because a bound forbids more ejections; told once for a row of failures.
    Spared {
        /// Why it would have been ejected.
        cause: Cause,
        /// Failures in a row.
        failures: u32,
        /// The bound, as in the DestinationRule.
        bound: &'static str,
    },
}

impl Record {
    /// Whether the endpoint is out.
    #[must_use]
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.is_out(millis(now))
    }

    /// How often it was ejected, as of the last time.
    #[must_use]
    pub fn times_ejected(&self) -> u32 {
        self.times.load(Ordering::Relaxed)
    }

    pub(crate) fn is_out(&self, now_ms: u64) -> bool {
        self.until_ms.load(Ordering::Relaxed) > now_ms
    }

    /// Whether its time is over and nobody has said so yet; true once.
    pub(crate) fn take_return(&self, now_ms: u64) -> bool {
        self.out.load(Ordering::Relaxed) && !self.is_out(now_ms) && self.out.swap(false, Ordering::Relaxed)
    }

    /// Counts, and gives the highest cause whose threshold is reached.
    fn count(&self, rule: &api::Outlier, outcome: Outcome) -> Option<(Cause, u32, NonZeroU32)> {
        let local = matches!(
            outcome,
            Outcome::ConnectFailure | Outcome::Reset | Outcome::Timeout
        );
        match outcome {
            Outcome::Neutral => return None,
            _ if local && rule.split_local_errors => {
                let failures = raise(&self.local_failures);
                return reached(Cause::LocalFailures, failures, rule.consecutive_local_failures);
            }
            Outcome::Success => {
                reset(&self.server_errors);
                reset(&self.gateway_errors);
                reset(&self.local_failures);
                return None;
            }
            _ => {}
        }
        // It answered, or failures are not told apart and the counter is not in use.
        reset(&self.local_failures);
        let server_errors = raise(&self.server_errors);
        let gateway = if outcome == Outcome::ServerError {
            reset(&self.gateway_errors);
            None
        } else {
            let gateway_errors = raise(&self.gateway_errors);
            reached(
                Cause::GatewayErrors,
                gateway_errors,
                rule.consecutive_gateway_errors,
            )
        };
        gateway.or_else(|| reached(Cause::ServerErrors, server_errors, rule.consecutive_5xx))
    }

    fn eject(&self, rule: &api::Outlier, now_ms: u64) -> (u32, Duration) {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        let interval_ms = u64::try_from(rule.interval.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let forgotten = match until_ms {
            0 => 0,
            _ => u32::try_from(now_ms.saturating_sub(until_ms) / interval_ms).unwrap_or(u32::MAX),
        };
        let times = self
            .times
            .load(Ordering::Relaxed)
            .saturating_sub(forgotten)
            .saturating_add(1);
        let longest = LONGEST_EJECTION.max(rule.base_ejection);
        let duration = rule.base_ejection.saturating_mul(times).min(longest);
        let end = now_ms.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        self.times.store(times, Ordering::Relaxed);
        for counter in [&self.server_errors, &self.gateway_errors, &self.local_failures] {
            reset(counter);
        }
        self.out.store(true, Ordering::Relaxed);
        self.until_ms.store(end, Ordering::Relaxed);
        (times, duration)
    }
}

/// A store only where there is something to change, so that good answers leave the cache line shared.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

fn raise(counter: &AtomicU32) -> u32 {
    counter.fetch_add(1, Ordering::Relaxed).saturating_add(1)
}

fn reached(cause: Cause, failures: u32, threshold: Option<NonZeroU32>) -> Option<(Cause, u32, NonZeroU32)> {
    threshold
        .filter(|threshold| failures >= threshold.get())
        .map(|threshold| (cause, failures, threshold))
}

/// Takes note of an outcome, and ejects the endpoint when it is one too many. Without `outlierDetection` it does nothing.
pub(crate) fn observe(
    cluster: &Cluster,
    endpoint: &Endpoint,
    outcome: Outcome,
    code: Option<u16>,
    now_ms: u64,
) -> Option<Event> {
    let rule = cluster.spec.outlier.as_ref()?;
    let outcome = as_told(rule, outcome, code);
    let record = &endpoint.live.outlier;
    // What was under way when it was ejected says nothing new.
    if record.is_out(now_ms) {
        return None;
    }
    let (cause, failures, threshold) = record.count(rule, outcome)?;
    let live = &cluster.live;
    // Another worker is at it: the next failure comes by here again.
    if live.ejecting.swap(true, Ordering::Acquire) {
        return None;
    }
    let event = match bound(cluster, rule, now_ms) {
        None if record.is_out(now_ms) => None,
        None => {
            let (times, duration) = record.eject(rule, now_ms);
            recount(cluster, now_ms);
            Some(Event::Ejected {
                cause,
                failures,
                times,
                duration,
            })
        }
        Some(bound) if failures == threshold.get() => Some(Event::Spared {
            cause,
            failures,
            bound,
        }),
        Some(_) => None,
    };
    live.ejecting.store(false, Ordering::Release);
    event
}

/// What an answer is where the rule says which statuses are errors.
fn as_told(rule: &api::Outlier, outcome: Outcome, code: Option<u16>) -> Outcome {
    match (&rule.error_codes, code) {
        (Some(codes), Some(code)) if !codes.contains(code) => Outcome::Success,
        (Some(_), Some(502..=504)) => Outcome::GatewayError,
        (Some(_), Some(_)) => Outcome::ServerError,
        _ => outcome,
    }
}

/// The bound that forbids one more ejection.
fn bound(cluster: &Cluster, rule: &api::Outlier, now_ms: u64) -> Option<&'static str> {
    let all = cluster.endpoints.len() as u64;
    let out = u64::from(count_out(cluster, now_ms));
    if is_unhealthy(all, out, rule) {
        Some("outlierDetection.minHealthPercent")
    } else if out >= (all * u64::from(rule.max_ejection_percent) / 100).max(1) {
        Some("outlierDetection.maxEjectionPercent")
    } else {
        None
    }
}

fn is_unhealthy(all: u64, out: u64, rule: &api::Outlier) -> bool {
    (all - out.min(all)) * 100 < all * u64::from(rule.min_health_percent)
}

/// Whether ejections are to be respected now: there is a rule, and enough of the cluster is healthy.
pub(crate) fn is_in_force(cluster: &Cluster, now_ms: u64) -> bool {
    let Some(rule) = &cluster.spec.outlier else {
        return false;
    };
    if rule.min_health_percent == 0 || cluster.live.ejected.load(Ordering::Relaxed) == 0 {
        return true;
    }
    let out = count_out(cluster, now_ms);
    !is_unhealthy(cluster.endpoints.len() as u64, out.into(), rule)
}

/// Endpoints of the cluster that are out. Counted, not kept: one that leaves the cluster while out needs no bookkeeping.
fn count_out(cluster: &Cluster, now_ms: u64) -> u32 {
    let out = cluster
        .endpoints
        .iter()
        .filter(|e| e.live.outlier.is_out(now_ms))
        .count();
    u32::try_from(out).unwrap_or(u32::MAX)
}

/// Brings `ClusterLive::ejected` up to date.
pub(crate) fn recount(cluster: &Cluster, now_ms: u64) {
    cluster
        .live
        .ejected
        .store(count_out(cluster, now_ms), Ordering::Relaxed);
}

/// Endpoints whose ejection has ended and which nobody has announced yet; also brings `ClusterLive::ejected` up to date.
/// For logs and metrics, now and then: traffic returns to them without it.
#[must_use]
pub fn sweep(cluster: &Cluster, now: Instant) -> Vec<Arc<Endpoint>> {
    let now_ms = millis(now);
    let back = |endpoint: &&Arc<Endpoint>| endpoint.live.outlier.take_return(now_ms);
    let returned = cluster.endpoints.iter().filter(back).cloned().collect();
    recount(cluster, now_ms);
    returned
}

impl Cause {
    /// Short word for metrics; the set is closed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerErrors => "consecutive_5xx",
            Self::GatewayErrors => "consecutive_gateway_errors",
            Self::LocalFailures => "consecutive_local_failures",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerErrors => "error answers",
            Self::GatewayErrors => "gateway errors",
            Self::LocalFailures => "connection failures",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ejected {
                cause,
                failures,
                times,
                duration,
            } => {
                write!(
                    f,
                    "ejected for {duration:?} after {failures} {cause} in a row (ejection {times})"
                )
            }
            Self::Spared {
                cause,
                failures,
                bound,
            } => {
                write!(
                    f,
                    "not ejected after {failures} {cause} in a row: {bound} allows no more ejections"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;

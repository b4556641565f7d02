//! The six stories.

pub(crate) mod breaker;
pub(crate) mod edit;
pub(crate) mod identity;
pub(crate) mod operator;
pub(crate) mod protocols;
pub(crate) mod split;

use std::time::Duration;

use tests::load::Report;

/// Waiting for a state is a claim of its own: this is how long it may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) const URL: &str = "http://reviews:8080/";

/// Bounds that a share of `p` among `n` independent picks leaves once in some 100,000 runs (4.4 standard deviations).
pub(crate) fn bounds(p: f64, n: f64) -> (f64, f64) {
    let spread = 4.4 * (p * (1.0 - p) / n).sqrt();
    (p - spread, p + spread)
}

/// Calls of a load that went wrong, in words.
pub(crate) fn failures(report: &Report) -> String {
    if report.errors() == 0 {
        return format!("0 of {} failed", report.total());
    }
    format!(
        "{} of {} failed: {:?} {:?}",
        report.errors(),
        report.total(),
        report.statuses(),
        report.failures()
    )
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

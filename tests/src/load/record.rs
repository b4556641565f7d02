//! What a load has recorded: every call, sums over windows of time, and answers to a test's usual questions.
//!
//! Filled by [`Load`](super::Load), read by tests. Pure data; it never looks at a clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::histogram::Histogram;
use crate::client::CallError;

/// Beyond this many calls only sums go on; a load that long has no use for single calls.
const MAX_SAMPLES: usize = 1_000_000;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// No connection.
    Connect,
    /// The connection broke before the answer was complete.
    Broken,
    /// No answer in time.
    Timeout,
    /// The call could not be made at all.
    BadCall,
}

/// What became of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// An answer came, complete.
    Answered {
        /// Its status.
        status: u16,
        /// The version of the application that gave it; empty when the mesh answered itself.
        version: Arc<str>,
    },
    /// None came.
    Failed(Failure),
}

/// One call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sample {
    /// When it started (or was due), from the load's start.
    pub started: Duration,
    /// How long it took.
    pub took: Duration,
    /// Which of the load's tasks made it.
    pub worker: usize,
    /// The number of the connection that it used; 0 when it got none.
    pub connection: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// The calls that ended within one window of time.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Window {
    /// Its start, from the load's start.
    #[serde(serialize_with = "millis", deserialize_with = "from_millis")]
    pub at: Duration,
    /// Calls by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Calls by answering version.
    pub versions: BTreeMap<String, u64>,
    /// Calls without an answer.
    pub failures: BTreeMap<Failure, u64>,
    /// The longest call.
    #[serde(serialize_with = "millis", deserialize_with = "from_millis")]
    pub longest: Duration,
}

/// All that a load has recorded.
#[derive(Clone, Debug)]
pub struct Report {
    window: Duration,
    /// Every call, in the order in which they ended; at most a million.
    pub samples: Vec<Sample>,
    /// Sums over windows of time. Windows without calls are there too.
    pub windows: Vec<Window>,
    /// Times of all calls that were answered.
    pub latency: Histogram,
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// How long it ran; zero until it ends.
    pub elapsed: Duration,
}

/// A report without its single calls.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Summary {
    /// All calls.
    pub requests: u64,
    /// Those that a user would call failed ([`Report::errors`]).
    pub errors: u64,
    /// Calls by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Calls by answering version.
    pub versions: BTreeMap<String, u64>,
    /// Calls without an answer, by reason.
    pub failures: BTreeMap<Failure, u64>,
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// How long it ran, in milliseconds; zero until it ends.
    pub elapsed_ms: f64,
    /// Times of the calls that were answered, in milliseconds.
    pub latency_ms: Latency,
}

/// Times that shares of all calls do not exceed, in milliseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[expect(missing_docs, reason = "they are called what they are")]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Report {
    pub(super) fn new(window: Duration) -> Report {
        Report {
            window,
            samples: Vec::new(),
            windows: Vec::new(),
            latency: Histogram::default(),
            opened: 0,
            closed: 0,
            elapsed: Duration::ZERO,
        }
    }

    pub(super) fn opened(&mut self) -> u32 {
        self.opened += 1;
        u32::try_from(self.opened).unwrap_or(u32::MAX)
    }

    pub(super) fn closed(&mut self) {
        self.closed += 1;
    }

    pub(super) fn end(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    pub(super) fn add(&mut self, sample: Sample) {
        let ended = sample.started + sample.took;
        let index = usize::try_from(ended.as_nanos() / self.window.as_nanos()).unwrap_or(usize::MAX);
        while self.windows.len() <= index {
            let number = u32::try_from(self.windows.len()).unwrap_or(u32::MAX);
            self.windows.push(Window {
                at: self.window * number,
                ..Window::default()
            });
        }
        let window = &mut self.windows[index];
        window.longest = window.longest.max(sample.took);
        match &sample.outcome {
            Outcome::Answered { status, version } => {
                self.latency.add(sample.took);
                *window.statuses.entry(*status).or_default() += 1;
                if !version.is_empty() {
                    *window.versions.entry(version.to_string()).or_default() += 1;
                }
            }
            Outcome::Failed(failure) => *window.failures.entry(*failure).or_default() += 1,
        }
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(sample);
        }
    }

    /// All calls.
    pub fn total(&self) -> u64 {
        self.latency.count() + self.failures().values().sum::<u64>()
    }

    /// Calls by status.
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        add_up(self.windows.iter().map(|window| &window.statuses))
    }

    /// Calls by answering version.
    pub fn versions(&self) -> BTreeMap<String, u64> {
        add_up(self.windows.iter().map(|window| &window.versions))
    }

    /// Calls without an answer, by reason.
    pub fn failures(&self) -> BTreeMap<Failure, u64> {
        add_up(self.windows.iter().map(|window| &window.failures))
    }

    /// Calls with this status.
    pub fn status(&self, status: u16) -> u64 {
        self.statuses().get(&status).copied().unwrap_or(0)
    }

    /// Calls that a user would call failed: no answer, or a status of 500 and above.
    pub fn errors(&self) -> u64 {
        let server: u64 = self.statuses().range(500..).map(|(_, count)| count).sum();
        server + self.failures().values().sum::<u64>()
    }

    /// The share (0 to 1) of calls that ended at or after `from` and were answered by `version`, among those that any
    /// version answered. Counts single calls, so only the first million.
    pub fn share(&self, version: &str, from: Duration) -> f64 {
        let mut all = 0_u32;
        let mut asked = 0_u32;
        for sample in self.samples.iter().filter(|sample| sample.ended() >= from) {
            if let Some(answered) = sample.version() {
                all += 1;
                asked += u32::from(answered == version);
            }
        }
        if all == 0 {
            0.0
        } else {
            f64::from(asked) / f64::from(all)
        }
    }

    /// When the first call answered by `version` ended, at or after `from`.
    pub fn first(&self, version: &str, from: Duration) -> Option<Duration> {
        let of = self
            .samples
            .iter()
            .filter(|sample| sample.version() == Some(version));
        of.map(Sample::ended).filter(|ended| *ended >= from).min()
    }

    /// When the last call that any other version answered *started*: from then on `version` alone answered.
    pub fn last_other(&self, version: &str) -> Option<Duration> {
        let others = self
            .samples
            .iter()
            .filter(|sample| sample.version().is_some_and(|other| other != version));
        others.map(|sample| sample.started).max()
    }

    /// The report without the single calls.
    pub fn summary(&self) -> Summary {
        let quantile = |share| self.latency.quantile(share).as_secs_f64() * 1000.0;
        Summary {
            requests: self.total(),
            errors: self.errors(),
            statuses: self.statuses(),
            versions: self.versions(),
            failures: self.failures(),
            opened: self.opened,
            closed: self.closed,
            elapsed_ms: self.elapsed.as_secs_f64() * 1000.0,
            latency_ms: Latency {
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max: self.latency.max().as_secs_f64() * 1000.0,
            },
        }
    }
}

impl std::fmt::Display for Summary {
    /// As JSON: on one line, or on many with `{:#}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if f.alternate() {
            serde_json::to_string_pretty(self)
        } else {
            serde_json::to_string(self)
        };
        f.write_str(&text.map_err(|_| std::fmt::Error)?)
    }
}

impl Sample {
    /// When it ended, from the load's start.
    pub fn ended(&self) -> Duration {
        self.started + self.took
    }

    /// The version that answered, if one did.
    pub fn version(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Answered { version, .. } if !version.is_empty() => Some(version),
            Outcome::Answered { .. } | Outcome::Failed(_) => None,
        }
    }
}

impl From<&CallError> for Failure {
    fn from(error: &CallError) -> Failure {
        match error {
            CallError::BadCall(_) => Failure::BadCall,
            CallError::Connect { .. } => Failure::Connect,
            CallError::Broken(_) => Failure::Broken,
            CallError::Timeout(_) => Failure::Timeout,
        }
    }
}

fn add_up<'a, K: Clone + Ord + 'a>(maps: impl Iterator<Item = &'a BTreeMap<K, u64>>) -> BTreeMap<K, u64> {
    let mut sums = BTreeMap::new();
    for (key, count) in maps.flatten() {
        *sums.entry(key.clone()).or_default() += count;
    }
    sums
}

fn from_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let millis = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(millis / 1000.0).map_err(serde::de::Error::custom)
}

fn millis<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(value.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(started: u64, took: u64, outcome: Outcome) -> Sample {
        let (started, took) = (Duration::from_millis(started), Duration::from_millis(took));
        Sample {
            started,
            took,
            worker: 0,
            connection: 1,
            outcome,
        }
    }

    fn answered(status: u16, version: &str) -> Outcome {
        Outcome::Answered {
            status,
            version: version.into(),
        }
    }

    fn report() -> Report {
        let mut report = Report::new(Duration::from_millis(100));
        report.add(sample(0, 10, answered(200, "v1")));
        report.add(sample(20, 10, answered(200, "v2")));
        report.add(sample(120, 10, answered(200, "v1")));
        report.add(sample(350, 10, answered(200, "v2")));
        report.add(sample(355, 10, answered(503, "")));
        report.add(sample(360, 10, Outcome::Failed(Failure::Broken)));
        report
    }

    #[test]
    fn calls_count_in_the_window_in_which_they_end_and_quiet_windows_are_kept() {
        let windows = report().windows;
        let totals: Vec<u64> = windows
            .iter()
            .map(|window| window.statuses.values().sum())
            .collect();
        assert_eq!(totals, [2, 1, 0, 2]);
        assert_eq!(windows[3].at, Duration::from_millis(300));
        assert_eq!(windows[3].failures[&Failure::Broken], 1);
    }

    #[test]
    fn errors_are_failures_and_server_errors() {
        let report = report();
        assert_eq!(report.total(), 6);
        assert_eq!(report.errors(), 2);
        assert_eq!(report.status(503), 1);
        assert_eq!(
            report.versions(),
            BTreeMap::from([("v1".to_owned(), 2), ("v2".to_owned(), 2)])
        );
    }

    #[test]
    fn a_change_of_version_can_be_dated() {
        let report = report();
        assert_eq!(
            report.first("v2", Duration::ZERO),
            Some(Duration::from_millis(30))
        );
        assert_eq!(report.first("v3", Duration::ZERO), None);
        assert_eq!(report.last_other("v2"), Some(Duration::from_millis(120)));
        assert!((report.share("v2", Duration::from_millis(200)) - 1.0).abs() < f64::EPSILON);
        assert!((report.share("v2", Duration::ZERO) - 0.5).abs() < f64::EPSILON);
    }
}

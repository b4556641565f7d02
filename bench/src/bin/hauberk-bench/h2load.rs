//! Runs h2load in a pod and reads what it says.
//!
//! The summary on its standard output tells how many requests went well; its log file has a line for each, with the
//! time it took.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ::tests::lab::Pod;
use anyhow::{Context, bail};

use crate::work::{Outcome, Requests};

/// How much longer than it was told to h2load may take.
const GRACE: Duration = Duration::from_secs(20);

/// What is to be sent, and where.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) url: String,
    pub(crate) authority: String,
    pub(crate) http1: bool,
    pub(crate) requests: Requests,
}

/// Sends `load` from `pod` for `time`; `log` is overwritten.
pub(crate) async fn run(pod: &Pod, load: &Load, time: Duration, log: &Path) -> anyhow::Result<Outcome> {
    let mut command = Command::new("h2load");
    command
        .arg(format!("--duration={}ms", time.as_millis()))
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("--clients={}", load.requests.connections))
        .arg(format!("--max-concurrent-streams={}", load.requests.streams))
        .arg(format!("--header=:authority: {}", load.authority));
    if load.http1 {
        command.arg("--h1");
    }
    if let Some(rate) = load.requests.rate {
        command.arg(format!("--rps={rate}"));
    }
    if let Some(body) = &load.requests.body {
        command.arg(format!("--data={}", body.display()));
    }
    command.arg(&load.url);
    // h2load appends to its log.
    if log.exists() {
        std::fs::remove_file(log).with_context(|| format!("cannot replace {}", log.display()))?;
    }
    let process = pod
        .spawn("h2load", command)
        .await
        .map_err(|error| error.context("the bench needs `h2load`: apt-get install nghttp2-client"))?;
    let begun = process.log().len();
    let status = process.wait(time + GRACE).await?;
    let said = process.log();
    let said = said.get(begun..).unwrap_or_default();
    if !status.success() {
        bail!("h2load ended ({status}):\n{}", process.log_tail(10));
    }
    let text = std::fs::read_to_string(log).with_context(|| format!("h2load left no {}", log.display()))?;
    outcome(said, &text)
}

fn outcome(said: &str, log: &str) -> anyhow::Result<Outcome> {
    let summary = summary(said).with_context(|| format!("h2load printed no summary:\n{said}"))?;
    let mut latencies: Vec<u64> = log.lines().filter_map(latency).collect();
    latencies.sort_unstable();
    Ok(Outcome { latencies, ..summary })
}

/// `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout`, and the statuses: h2load counts
/// an answer of 4xx or 5xx as failed.
fn summary(said: &str) -> Option<Outcome> {
    let line = said
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("requests: "))?;
    let count = |word: &str| -> Option<u64> {
        let part = line.split(", ").find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse().ok()
    };
    let failed = count("failed")? + count("errored")? + count("timeout")?;
    Some(Outcome {
        succeeded: count("succeeded")?,
        failed,
        latencies: Vec::new(),
    })
}

/// A line of the log: when the request began, its status, and how long it took, in microseconds, between tabs.
fn latency(line: &str) -> Option<u64> {
    let mut fields = line.split('\t').skip(1);
    let status: i32 = fields.next()?.parse().ok()?;
    let time = fields.next()?.parse().ok()?;
    (200..400).contains(&status).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "starting benchmark...\n\nfinished in 1.00s, 4 req/s, 1KB/s\n\
        requests: 8 total, 8 started, 7 done, 5 succeeded, 2 failed, 2 errored, 1 timeout\n\
        status codes: 5 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn the_summary_tells_what_went_well_and_what_did_not() {
        let outcome = outcome(SAID, "").unwrap();
        assert_eq!((outcome.succeeded, outcome.failed), (5, 5));
    }

    #[test]
    fn latencies_are_read_from_the_log_sorted_and_without_failures() {
        let log = "1700000000000000\t200\t300\n1700000000000001\t204\t100\n1700000000000002\t503\t5\n\
                   1700000000000003\t-1\t9\nnonsense\n";
        assert_eq!(outcome(SAID, log).unwrap().latencies, [100, 300]);
    }

    #[test]
    fn output_without_a_summary_is_an_error_that_shows_it() {
        let error = outcome("connect: refused", "").unwrap_err().to_string();
        assert!(error.contains("connect: refused"), "{error}");
    }
}

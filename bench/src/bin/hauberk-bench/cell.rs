//! One measurement of one peer, and all that were made of it in a scenario.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bench::processor;
use serde::Serialize;
use tests::lab::{Process, Signal};

use crate::Options;
use crate::peer::Peer;
use crate::place::Way;
use crate::statistics::{Spread, percentile, ratio};
use crate::work::Outcome;

/// What one round found.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// CPU time of one proxy per request, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    pub(crate) per_second: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    /// The largest proxy's memory, in MiB.
    pub(crate) rss_mib: Option<f64>,
    /// How much memory one more connection or destination took, in KiB.
    pub(crate) kib_each: Option<f64>,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
}

/// A peer's samples in the order of the rounds; none when it cannot do this.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) peer: Peer,
    pub(crate) samples: Vec<Sample>,
}

impl Cell {
    pub(crate) fn empty(peer: Peer) -> Cell {
        Cell {
            peer,
            samples: Vec::new(),
        }
    }

    pub(crate) fn values(&self, of: fn(&Sample) -> Option<f64>) -> Vec<Option<f64>> {
        self.samples.iter().map(of).collect()
    }

    pub(crate) fn spread(&self, of: fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.values(of).into_iter().flatten())
    }
}

/// One case of a scenario: the same for every peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) cells: Vec<Cell>,
}

impl Row {
    /// What was found for `peer`, if it took part.
    pub(crate) fn cell(&self, peer: Peer) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| cell.peer == peer && !cell.samples.is_empty())
    }

    /// How one peer compares to another, round by round.
    pub(crate) fn ratio(&self, one: Peer, other: Peer, of: fn(&Sample) -> Option<f64>) -> Option<Spread> {
        ratio(&self.cell(one)?.values(of), &self.cell(other)?.values(of))
    }
}

/// The processor time of a way's proxies, from its beginning on.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    proxies: &'a [Arc<Process>],
    before: Duration,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(way: &'a Way) -> anyhow::Result<Meter<'a>> {
        Ok(Meter {
            proxies: &way.proxies,
            before: total(&way.proxies)?,
        })
    }

    /// Ends the measurement, in which there was this outcome. `time` is how long was sent for: what the load generator
    /// takes to start and to say what it found counts for nothing.
    pub(crate) fn stop(&self, outcome: &Outcome, time: Duration) -> anyhow::Result<Sample> {
        let Outcome {
            succeeded: requests,
            failed,
            latencies,
        } = outcome;
        let (requests, failed) = (*requests, *failed);
        let spent = total(self.proxies)?.saturating_sub(self.before);
        if requests == 0 {
            bail!("not one request went well ({failed} failed)");
        }
        #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 requests")]
        let (requests_f, micros) = (requests as f64, |time: u64| time as f64);
        let proxies = u32::try_from(self.proxies.len()).context("more proxies than can be counted")?;
        let cpu_us = (proxies > 0).then(|| spent.as_secs_f64() * 1e6 / requests_f / f64::from(proxies));
        let at = |p| percentile(latencies, p).map(micros);
        Ok(Sample {
            cpu_us,
            per_second: Some(requests_f / time.as_secs_f64()),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            rss_mib: rss_mib(self.proxies)?,
            kib_each: None,
            requests,
            failed,
        })
    }
}

fn total(proxies: &[Arc<Process>]) -> anyhow::Result<Duration> {
    proxies
        .iter()
        .map(|proxy| processor::time_of(proxy.pid()).with_context(|| format!("{} has ended", proxy.name())))
        .sum()
}

pub(crate) fn rss_mib(proxies: &[Arc<Process>]) -> anyhow::Result<Option<f64>> {
    let mut most = None;
    for proxy in proxies {
        most = most.max(Some(proxy.rss()?));
    }
    #[expect(clippy::cast_precision_loss, reason = "memory is below 2^52 bytes")]
    Ok(most.map(|bytes| bytes as f64 / 1024.0 / 1024.0))
}

/// perf, attached to a way's proxies.
#[derive(Debug)]
pub(crate) struct Recording(Process);

impl Recording {
    /// Begins to record into `folder`, where the caller asked for that.
    pub(crate) async fn start(way: &Way, options: &Options, name: &str) -> anyhow::Result<Option<Recording>> {
        let Some(folder) = options.perf.as_deref().filter(|_| !way.proxies.is_empty()) else {
            return Ok(None);
        };
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let pids: Vec<String> = way.proxies.iter().map(|proxy| proxy.pid().to_string()).collect();
        let file = folder.join(format!("{name}.data"));
        let mut command = Command::new("perf");
        command
            .args([
                "record",
                "-e",
                "cpu-clock",
                "-F",
                "1999",
                "-g",
                "-p",
                &pids.join(","),
            ])
            .arg("-o")
            .arg(&file);
        let process = way.client.spawn("perf", command).await;
        Ok(Some(Recording(process.context("--perf needs perf")?)))
    }

    /// Ends the recording and has it written.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.0.signal(Signal::SIGINT)?;
        self.0.wait(Duration::from_secs(20)).await?;
        Ok(())
    }
}

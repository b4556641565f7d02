//! What this process uses, read from `/proc/self` when asked: by the metrics at each scrape and by `/health`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// What this process uses. A figure the system does not give is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) open_files: Option<u64>,
}

/// Linux counts process times for user space in this unit on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

impl Usage {
    pub(crate) fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let files = std::fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu_seconds: cpu_seconds(&stat),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
            threads: field(&status, "Threads:"),
            // One of them is the listing itself.
            open_files: files.map(|f| (f.count() as u64).saturating_sub(1)),
        }
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time. The process name, in parentheses, may hold anything, so fields count from behind it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Reads the process at scrape time.
#[derive(Debug)]
pub(super) struct Process {
    started: f64,
}

impl Process {
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: now.as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let usage = Usage::read();
        if let Some(seconds) = usage.cpu_seconds {
            encoder
                .encode_descriptor(
                    "hauberk_process_cpu_seconds",
                    "CPU time of this process",
                    None,
                    MetricType::Counter,
                )?
                .encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        let gauges = [
            (
                "hauberk_process_resident_memory_bytes",
                "Memory of this process",
                usage.resident_bytes,
            ),
            (
                "hauberk_process_threads",
                "Threads of this process",
                usage.threads,
            ),
            (
                "hauberk_process_open_fds",
                "Files and sockets that this process has open",
                usage.open_files,
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                encoder
                    .encode_descriptor(name, help, None, MetricType::Gauge)?
                    .encode_gauge(&value)?;
            }
        }
        encoder
            .encode_descriptor(
                "hauberk_process_start_time_seconds",
                "When this process started, in seconds since 1970",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let usage = Usage::read();
        assert!(usage.resident_bytes.is_some_and(|b| b > 1 << 20), "{usage:?}");
        assert!(usage.threads.is_some_and(|n| n >= 1), "{usage:?}");
        assert!(usage.open_files.is_some_and(|n| n >= 3), "{usage:?}");
    }
}

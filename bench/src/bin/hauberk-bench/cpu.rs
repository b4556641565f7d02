//! Processors: who runs where, and how long a process was on one.
//!
//! Times come from `/proc/<pid>/task/*/schedstat`, which counts nanoseconds; the clock ticks of `/proc/<pid>/stat` are
//! too coarse for one measurement.

use std::time::Duration;

use anyhow::{Context, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Where the proxies that are measured run.
pub(crate) const PROXY: usize = 0;
/// Where everything else runs: load, backends, the operator and this program.
pub(crate) const LOAD: usize = 1;

/// Keeps this process, and what it will start, on one processor.
pub(crate) fn stay_on(cpu: usize) -> anyhow::Result<()> {
    pin_thread(Pid::from_raw(0), cpu)
}

/// Moves all threads of a process to one processor.
pub(crate) fn pin(pid: u32, cpu: usize) -> anyhow::Result<()> {
    for thread in threads(pid)? {
        pin_thread(Pid::from_raw(thread), cpu)?;
    }
    Ok(())
}

fn pin_thread(thread: Pid, cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(thread, &set)
        .with_context(|| format!("cannot run on processor {cpu}: the bench needs two processors, 0 and 1"))
}

/// How long the threads of a process have been on a processor.
pub(crate) fn on_cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in threads(pid)? {
        let path = format!("/proc/{pid}/task/{thread}/schedstat");
        // A thread may end between the two looks.
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        total += parse(&text).with_context(|| format!("{path} holds {text:?}, not a time"))?;
    }
    Ok(total)
}

fn parse(schedstat: &str) -> Option<Duration> {
    let nanoseconds = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn threads(pid: u32) -> anyhow::Result<Vec<i32>> {
    let path = format!("/proc/{pid}/task");
    let entries =
        std::fs::read_dir(&path).with_context(|| format!("process {pid} has ended ({path} is gone)"))?;
    let threads: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    if threads.is_empty() {
        bail!("process {pid} has no threads");
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_schedstat_is_the_time_on_a_processor() {
        assert_eq!(parse("1500000000 200 37\n"), Some(Duration::from_millis(1500)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("soon 1 2"), None);
    }

    #[test]
    fn this_process_has_been_on_a_processor() {
        let before = on_cpu(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while on_cpu(std::process::id()).unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(on_cpu(std::process::id()).unwrap() > before);
    }
}

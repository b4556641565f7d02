//! What processes cost, as the kernel tells it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Time on a CPU of a process, its threads that have ended included as far as they were seen.
#[derive(Debug)]
pub(crate) struct Cpu {
    pid: u32,
    threads: HashMap<String, Duration>,
}

/// Memory of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident_mib: f64,
    /// The most that was resident.
    pub(crate) peak_mib: f64,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            pid,
            threads: HashMap::new(),
        }
    }

    /// On-CPU time since the process began.
    pub(crate) fn read(&mut self) -> anyhow::Result<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).context("the process has ended")?;
        for task in tasks {
            let task = task?;
            // A thread may end while the list is read.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
            let nanos = nanos.context("schedstat does not begin with a number")?;
            let id = task.file_name().to_string_lossy().into_owned();
            self.threads.insert(id, Duration::from_nanos(nanos));
        }
        Ok(self.threads.values().sum())
    }
}

/// Memory of a process.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let mib = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0)
            .with_context(|| format!("/proc/{pid}/status has no {field}"))
    };
    Ok(Memory {
        resident_mib: mib("VmRSS:")?,
        peak_mib: mib("VmHWM:")?,
    })
}

/// Binds this thread, and the processes that it starts from now on, to a CPU; without effect on a machine that has one.
pub(crate) fn bind(cpu: usize) -> anyhow::Result<()> {
    if std::thread::available_parallelism()?.get() == 1 && cpu > 0 {
        return Ok(());
    }
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot bind to CPU {cpu}"))
}

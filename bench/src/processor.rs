//! Processors: who runs where, and how long a process was on one.

use std::time::Duration;

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Where the processes that are measured run.
pub const MEASURED: usize = 0;
/// Where everything else runs: load, applications and the bench itself.
pub const REST: usize = 1;

/// How long the threads of a process have been on a processor, those that have ended included: the process' own clock,
/// which counts nanoseconds. The clock ticks of `/proc/<pid>/stat` are too coarse for one measurement.
///
/// # Errors
///
/// There is no such process.
pub fn time_of(pid: u32) -> anyhow::Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()));
    let time = clock.and_then(clock_gettime);
    Ok(time.with_context(|| format!("process {pid} has ended"))?.into())
}

/// Keeps this thread, and what it starts from now on, on one processor.
///
/// # Errors
///
/// This process may not run there.
pub fn stay_on(processor: usize) -> anyhow::Result<()> {
    pin_thread(Pid::from_raw(0), processor)
}

/// Moves all threads of a process to one processor.
///
/// # Errors
///
/// The process has ended, or may not run there.
pub fn pin(pid: u32, processor: usize) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/task");
    let threads =
        std::fs::read_dir(&path).with_context(|| format!("process {pid} has ended ({path} is gone)"))?;
    for thread in threads {
        let name = thread?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok());
        let thread = thread.with_context(|| format!("{path} holds {}, not a thread", name.display()))?;
        pin_thread(Pid::from_raw(thread), processor)?;
    }
    Ok(())
}

fn pin_thread(thread: Pid, processor: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(thread, &set)
        .with_context(|| format!("cannot run on processor {processor}: the bench needs processors 0 and 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_processor_grows_and_keeps_that_of_threads_that_ended() {
        let own = std::process::id();
        let before = time_of(own).unwrap();
        let thread = std::thread::spawn(move || {
            let mut sum = 0_u64;
            while time_of(own).unwrap() < before + Duration::from_millis(20) {
                sum = std::hint::black_box(sum + 1);
            }
        });
        thread.join().unwrap();
        assert!(time_of(own).unwrap() >= before + Duration::from_millis(20));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_that_names_it() {
        // Above the highest process id that Linux gives.
        let said = time_of(4_194_305).unwrap_err().to_string();
        assert!(said.contains("4194305"), "{said}");
    }
}

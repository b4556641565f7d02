//! A program that runs in a pod: its log file, its signals, its end, and what it costs.
//!
//! Created by [`Pod::spawn`](super::Pod::spawn). Dropping it kills the program and waits for it, so no program
//! survives the guard that a test holds.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::time::Instant;

pub use nix::sys::signal::Signal;

use super::hub;

/// How often a program's end is looked for while waiting for it.
const LOOK: Duration = Duration::from_millis(5);
/// The unit of processor time in `/proc/<pid>/stat`: part of the kernel's interface, the same everywhere.
const TICKS_PER_SECOND: u64 = 100;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: u32,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command` in the calling thread's network namespace, its output appended to `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open the log file {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a log file")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {program} for {name}"))?;
        Ok(Process {
            name: name.to_owned(),
            log: log.to_owned(),
            pid: child.id(),
            child: Mutex::new(child),
        })
    }

    /// The process id, as seen inside the lab.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it was called when it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its standard output and standard error go.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything that it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last `lines` lines that it has written.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }

    /// Sends a signal. An error when the program has ended already.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The guard is held so that nobody reaps the child, and its id cannot pass to another, before the signal.
        let mut child = self.child();
        if let Some(status) = child.try_wait().context("cannot look at a child")? {
            bail!("{} has ended already ({status})", self.name);
        }
        let pid = Pid::from_raw(i32::try_from(self.pid).context("a process id out of range")?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// How it ended, or nothing while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Waits for its end, at most `deadline` long.
    pub async fn wait(&self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child().try_wait().context("cannot look at a child")? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!(
                    "{} still runs after {deadline:?}; its log ends:\n{}",
                    self.name,
                    self.log_tail(15)
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child();
        // Fails only for a child that has been waited for, which is what is wanted.
        let _already_gone = child.kill();
        let _already_waited = child.wait();
    }

    /// Memory in use now (resident set), in bytes.
    pub fn rss(&self) -> anyhow::Result<u64> {
        let status = self.proc_file("status")?;
        rss_of(&status).with_context(|| format!("{} shows no memory use; has it ended?", self.name))
    }

    /// Processor time used so far, user and kernel together.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = self.proc_file("stat")?;
        cpu_time_of(&stat).with_context(|| format!("{} shows no processor time", self.name))
    }

    fn proc_file(&self, file: &str) -> anyhow::Result<String> {
        if !hub::hub()?.own_proc {
            bail!("the kernel allows no /proc of its own here, so processes cannot be measured; run as root");
        }
        let path = format!("/proc/{}/{file}", self.pid);
        std::fs::read_to_string(&path).with_context(|| format!("{} has ended ({path})", self.name))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `lines` lines of `text`.
pub(super) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn rss_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Fields 14 and 15 of `stat`, counted from after the program name, which may itself hold spaces and brackets.
fn cpu_time_of(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + kernel) * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_status() {
        assert_eq!(
            rss_of("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"),
            Some(2 * 1024 * 1024)
        );
        assert_eq!(rss_of("Name:\tzombie\n"), None);
    }

    #[test]
    fn processor_time_is_found_behind_a_program_name_with_spaces_and_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 9 0 0";
        assert_eq!(cpu_time_of(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time_of("7 (short) S 1"), None);
    }

    #[test]
    fn a_tail_is_the_last_lines_or_all_there_are() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 5), "a");
        assert_eq!(tail("", 5), "");
    }
}

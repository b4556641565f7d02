//! Moves the calling process into private namespaces before it starts its first thread.
//!
//! Called once, first thing in `main`, by every binary that runs a lab. The process it was started as only creates
//! the namespaces, runs the same program again as PID 1 in them, and passes on its exit code. Nothing outlives this: when either of
//! the two dies, the kernel ends every process in the PID namespace and frees networks and mounts. No file of the
//! machine is written; `/run` is an empty memory file system that only the lab sees.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid, getpid};

use super::hub;

/// Set for the inner process; its value says which privileges it has.
const MARK: &str = "HAUBERK_LAB_INSIDE";
/// Set for the inner process: the outer one's id, as the machine knows it.
const OUTER: &str = "HAUBERK_LAB_OUTSIDE";

/// What the lab may do on this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Privileges {
    /// Real root: processes may run under other user ids, as in a pod.
    Root,
    /// A user namespace in which only user 0 exists: the proxy is told apart by its socket mark.
    Rootless,
}

/// Moves this process into the lab's namespaces. Must be the first call of `main`.
///
/// Returns only inside. The outer process exits with the inner one's exit code, or with a line that says what the
/// kernel refused and what to do about it.
pub fn enter() {
    within("lab", hub::open, || {});
}

/// What [`enter`] does, for every kind of place that tests run in: `open` is called inside, with the privileges and
/// with what became of the private mounts; `after` outside, once everything inside has ended. `who` begins errors.
pub(crate) fn within(
    who: &str,
    open: impl FnOnce(Privileges, anyhow::Result<bool>) -> anyhow::Result<()>,
    after: impl FnOnce(),
) {
    let outcome = match inside() {
        Some(privileges) => open(privileges, private_mounts()),
        None => outer(after),
    };
    if let Err(error) = outcome {
        eprintln!("{who}: {error:#}");
        std::process::exit(1);
    }
}

/// The privileges of a process that is inside already; nothing for the one that was started from a shell.
pub(crate) fn inside() -> Option<Privileges> {
    let mark = std::env::var(MARK).ok().filter(|_| getpid().as_raw() == 1)?;
    match mark.as_str() {
        "root" => Some(Privileges::Root),
        "rootless" => Some(Privileges::Rootless),
        _ => None,
    }
}

/// The id, outside, of a process in the lab's network and mount namespaces: what `nsenter -t` takes.
#[must_use]
pub fn outside_pid() -> Option<u32> {
    std::env::var(OUTER).ok()?.parse().ok()
}

/// Creates the namespaces, runs this program again inside and exits as it exits.
fn outer(after: impl FnOnce()) -> anyhow::Result<()> {
    let threads = count_threads()?;
    if threads != 1 {
        bail!("enter() must be the first call in main: this process already has {threads} threads");
    }
    let program = std::env::current_exe().context("cannot find this program's own path")?;
    let privileges = separate()?;
    let mark = match privileges {
        Privileges::Root => "root",
        Privileges::Rootless => "rootless",
    };
    // setpriv(1) asks the kernel to end the inner process with this one; the kernel forgets the request on fork but
    // keeps it across exec. As PID 1 of its namespace the inner process takes all others with it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(&program);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let status = command
        .args(arguments)
        .env(MARK, mark)
        .env(OUTER, getpid().to_string())
        .status()
        .map_err(|error| missing_tool("setpriv", "util-linux", &error))?;
    after();
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    std::process::exit(code)
}

/// Leaves the machine's namespaces: as root directly, otherwise through a user namespace of one's own.
fn separate() -> anyhow::Result<Privileges> {
    let namespaces = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC;
    if geteuid().is_root() {
        match unshare(namespaces) {
            Ok(()) => return Ok(Privileges::Root),
            // Root without CAP_SYS_ADMIN, as in a container: a user namespace may still be allowed.
            Err(Errno::EPERM) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    let (user, group) = (geteuid(), getegid());
    unshare(namespaces | CloneFlags::CLONE_NEWUSER).map_err(refused)?;
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ] {
        std::fs::write(file, text).with_context(|| {
            format!("the kernel refuses to map a user into a new user namespace ({file})")
        })?;
    }
    Ok(Privileges::Rootless)
}

/// Gives the inner process a `/proc` of its own PID namespace and an empty `/run`. Says whether `/proc` was allowed.
fn private_mounts() -> anyhow::Result<bool> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("cannot make mounts private")?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Containers that hide parts of /proc may refuse a new one. Only measuring processes needs it.
    let own_proc = mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        safe | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .is_ok();
    let links = links_in_run();
    // iptables keeps its lock in /run, and the lab its working files: neither may touch the machine's.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), safe, Some("mode=0755"))
        .context("cannot mount a private /run")?;
    for (name, target) in links {
        std::os::unix::fs::symlink(&target, &name)
            .with_context(|| format!("cannot keep the link {} in the lab", name.display()))?;
    }
    Ok(own_proc)
}

/// Links in `/run` to places elsewhere: some distributions find all their programs through one.
fn links_in_run() -> Vec<(PathBuf, PathBuf)> {
    let entries = std::fs::read_dir("/run").into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| Some((entry.path(), std::fs::read_link(entry.path()).ok()?)));
    links
        .filter(|(_, target)| target.is_absolute() && !target.starts_with("/run"))
        .collect()
}

fn refused(error: Errno) -> anyhow::Error {
    let remedy = match error {
        Errno::ENOSPC => "raise the limit: sysctl -w user.max_user_namespaces=10000".to_owned(),
        _ if Path::new("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists() => {
            "run as root, or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".to_owned()
        }
        _ if Path::new("/proc/sys/kernel/unprivileged_userns_clone").exists() => {
            "run as root, or: sysctl -w kernel.unprivileged_userns_clone=1".to_owned()
        }
        _ => "run as root, or in a container with --cap-add SYS_ADMIN --security-opt seccomp=unconfined"
            .to_owned(),
    };
    anyhow::anyhow!("the kernel refuses new namespaces ({error}); {remedy}")
}

/// One line for a program that could not be started.
pub(super) fn missing_tool(tool: &str, package: &str, error: &std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        anyhow::anyhow!("the lab needs `{tool}`: apt-get install {package}")
    } else {
        anyhow::anyhow!("cannot run `{tool}`: {error}")
    }
}

fn count_threads() -> anyhow::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")
        .context("the lab needs /proc")?
        .count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = missing_tool(
            "ip",
            "iproute2",
            &std::io::Error::from(std::io::ErrorKind::NotFound),
        );
        assert_eq!(error.to_string(), "the lab needs `ip`: apt-get install iproute2");
    }

    #[test]
    fn a_full_namespace_table_names_the_limit_to_raise() {
        let text = refused(Errno::ENOSPC).to_string();
        assert!(text.contains("user.max_user_namespaces"), "{text}");
    }
}

//! Moves the calling process into namespaces of its own in which a Kubernetes node can run beside the machine's.
//!
//! Called once, first thing in `main`, by binaries that start a [`Cluster`](super::Cluster). As in the lab, nothing
//! outlives the process: network, mounts and processes are freed by the kernel. Control groups are not, so the
//! outer process removes them, and the next run those of runs that were killed.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};

use super::{NODE_IP, RUN};
use crate::lab::{self, Privileges, ip_batch};

/// Where the machine has its control groups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Our groups are called so, with the id of the outer process behind it.
const GROUP_PREFIX: &str = "hauberk-e2e-";

/// What a kubelet insists on for the whole machine. It reads and writes copies, which nothing heeds: the machine keeps
/// its own.
const MACHINE_WIDE: [&str; 6] = [
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/keys/root_maxbytes",
];

/// Moves this process into the node's namespaces, unless `KUBECONFIG` names a cluster that is there already. Must be
/// the first call of `main`. Returns only inside; otherwise the process exits as the inner one does, or with a line
/// that says what is missing.
pub fn enter() {
    if super::of_the_user().is_some() {
        return;
    }
    if lab::inside().is_none() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!(
                "e2e: a Kubernetes node needs root: `sudo make e2e`; or name a cluster of yours: `KUBECONFIG=… make e2e`"
            );
            std::process::exit(1);
        }
        remove_groups_of_the_dead();
    }
    lab::within(
        "e2e",
        |privileges, mounts| match privileges {
            Privileges::Root => open(mounts),
            Privileges::Rootless => {
                bail!("a Kubernetes node needs all rights of root; this root may not mount")
            }
        },
        || remove_groups(&group_of(std::process::id())),
    );
}

/// The control group below which the node's pods are, as seen from the root of each hierarchy.
pub(super) fn group() -> anyhow::Result<String> {
    let outer = lab::outside_pid().context("cluster::enter() was not called at the start of main")?;
    Ok(group_of(outer))
}

fn group_of(outer: u32) -> String {
    format!("{GROUP_PREFIX}{outer}")
}

fn open(mounts: anyhow::Result<bool>) -> anyhow::Result<()> {
    if !mounts? {
        bail!("the kernel allows no /proc of its own here, which a Kubernetes node needs");
    }
    std::fs::create_dir_all(RUN).with_context(|| format!("cannot create {RUN}"))?;
    // A node's address stands on one end of a cable that leads nowhere; a default route must be there.
    ip_batch(&format!(
        "link set lo up\n\
         link add node0 type veth peer name node0p\n\
         link set node0p up\n\
         addr add {NODE_IP}/24 dev node0\n\
         link set node0 up\n\
         route add default dev node0\n"
    ))
    .context("cannot set up the node's network")?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot enable forwarding on the node")?;
    // Where kubelet and CNI write, whatever they are told.
    for folder in ["/var/log", "/var/lib/cni"] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
        in_memory(Path::new(folder))?;
    }
    for (number, path) in MACHINE_WIDE.iter().enumerate() {
        let copy = Path::new(RUN).join(format!("sysctl-{number}"));
        let value = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
        std::fs::write(&copy, value).with_context(|| format!("cannot write {}", copy.display()))?;
        mount(Some(&copy), *path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot put a copy over {path}"))?;
    }
    create_groups(&group()?)
}

/// Mounts an empty memory file system.
pub(super) fn in_memory(folder: &Path) -> anyhow::Result<()> {
    mount(
        Some("tmpfs"),
        folder,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )
    .with_context(|| format!("cannot mount a memory file system on {}", folder.display()))
}

/// Every hierarchy: one in version 2 of control groups, one for each controller before.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let entries = std::fs::read_dir(&root).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path());
    folders
        .filter(|path| path.is_dir() && !path.is_symlink() && path.join("cgroup.procs").exists())
        .collect()
}

fn create_groups(group: &str) -> anyhow::Result<()> {
    let hierarchies = hierarchies();
    if hierarchies.is_empty() {
        bail!("there are no control groups in {CGROUPS}, which a kubelet needs");
    }
    for hierarchy in hierarchies {
        let ours = hierarchy.join(group);
        std::fs::create_dir_all(&ours).with_context(|| format!("cannot create {}", ours.display()))?;
        // In version 1 these begin empty, and nothing can run in such a group.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let above = std::fs::read(hierarchy.join(file)).unwrap_or_default();
            if !above.is_empty() && ours.join(file).exists() {
                let _same_as_above = std::fs::write(ours.join(file), above);
            }
        }
    }
    Ok(())
}

/// Removes a group and all below it, in every hierarchy. What still holds a process stays.
fn remove_groups(group: &str) {
    for hierarchy in hierarchies() {
        remove_tree(&hierarchy.join(group));
    }
}

fn remove_tree(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _busy_or_gone = std::fs::remove_dir(folder);
}

/// Removes what runs that were killed have left behind.
fn remove_groups_of_the_dead() {
    for hierarchy in hierarchies() {
        for entry in std::fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(GROUP_PREFIX);
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                remove_tree(&entry.path());
            }
        }
    }
}

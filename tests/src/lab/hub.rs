//! The hub: the lab's own network namespace, with the bridge that every pod hangs on.
//!
//! Opened once by [`enter`](super::enter()), and then asked for addresses and links by pods. A test's own code runs in this
//! namespace, so it sees pods as an outsider without a proxy does.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, bail};

use super::enter::{Privileges, missing_tool};

/// The bridge's name.
pub const BRIDGE: &str = "hbk0";
/// The bridge's address: every pod's gateway, and where outsiders come from.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The bridge's IPv6 address.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Where the operator is found.
pub const OPERATOR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The lab's files live here, in memory.
pub(super) const RUN: &str = "/run/hauberk";

static HUB: OnceLock<Hub> = OnceLock::new();

/// What this process found out about its surroundings when it entered.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) privileges: Privileges,
    /// Whether `/proc` shows the processes of the lab.
    pub(super) own_proc: bool,
    pub(super) ipv6: bool,
    /// This process as `/proc` calls it, which other processes must use to open its descriptors.
    proc_pid: PathBuf,
    next_pod: AtomicU16,
}

/// A pod's place on the bridge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Option<Ipv6Addr>,
    number: u16,
}

/// The hub, or an error when this process never entered.
pub(super) fn hub() -> anyhow::Result<&'static Hub> {
    HUB.get()
        .context("lab::enter() was not called at the start of main")
}

/// Sets up the bridge. Called once, inside.
pub(super) fn open(privileges: Privileges, mounts: anyhow::Result<bool>) -> anyhow::Result<()> {
    let own_proc = mounts?;
    let ipv6 = std::path::Path::new("/proc/thread-self/net/if_inet6").exists();
    if ipv6 {
        enable_ipv6();
    }
    // A fixed MAC, or the bridge would take a new one whenever a pod with a smaller address joins.
    let mut batch = format!(
        "link set lo up\n\
         link add {BRIDGE} address 02:77:00:00:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         addr add {GATEWAY}/16 dev {BRIDGE}\n\
         link set {BRIDGE} up\n"
    );
    if ipv6 {
        batch += &format!("addr add {GATEWAY_V6}/64 dev {BRIDGE} nodad\n");
    }
    // A service address that nothing translates must fail at once rather than hang, which takes a router to say.
    batch += "route add unreachable 10.96.0.0/16\n";
    if ipv6 {
        batch += "route add unreachable fd96::/16\n";
        let _no_such_knob = std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    }
    ip_batch(&batch).context("cannot set up the lab's bridge")?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot enable forwarding in the lab")?;
    std::fs::create_dir_all(RUN).with_context(|| format!("cannot create {RUN}"))?;
    let proc_pid = std::fs::read_link("/proc/self").context("the lab needs /proc")?;
    let hub = Hub {
        privileges,
        own_proc,
        ipv6,
        proc_pid,
        next_pod: AtomicU16::new(0),
    };
    if HUB.set(hub).is_err() {
        bail!("lab::enter() was called twice");
    }
    Ok(())
}

impl Hub {
    /// The next free place. Addresses are never given out twice, so that no stale neighbour entry can mislead.
    pub(super) fn next_place(&self) -> anyhow::Result<Place> {
        let number = self.next_pod.fetch_add(1, Ordering::Relaxed);
        if number >= 60_000 {
            bail!("this process has used up the lab's pod addresses");
        }
        let [high, low] = (256 + number / 250 * 256 + number % 250 + 1).to_be_bytes();
        Ok(self.place(Ipv4Addr::new(10, 77, high, low)))
    }

    /// The operator's place, the same in every lab.
    pub(super) fn operator_place(&self) -> Place {
        self.place(OPERATOR)
    }

    fn place(&self, v4: Ipv4Addr) -> Place {
        let [_, _, high, low] = v4.octets();
        let number = u16::from_be_bytes([high, low]);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, u16::from(high), u16::from(low));
        Place {
            v4,
            v6: self.ipv6.then_some(v6),
            number,
        }
    }

    /// Creates the cable between the bridge and the network namespace `netns` (a descriptor of this process).
    pub(super) fn plug(&self, place: Place, netns: &impl AsRawFd) -> anyhow::Result<()> {
        let port = place.port();
        let [high, low] = place.number.to_be_bytes();
        let netns = format!("/proc/{}/fd/{}", self.proc_pid.display(), netns.as_raw_fd());
        ip_batch(&format!(
            "link add {port} type veth peer name eth0 address 02:77:00:01:{high:02x}:{low:02x} netns {netns}\n\
             link set {port} master {BRIDGE} up\n"
        ))
    }
}

impl Place {
    /// The name of the bridge's end of the cable.
    pub(super) fn port(self) -> String {
        format!("pod{}", self.number)
    }

    pub(super) fn addresses(self) -> Vec<IpAddr> {
        std::iter::once(IpAddr::V4(self.v4))
            .chain(self.v6.map(IpAddr::V6))
            .collect()
    }

    /// Sets up the pod's end. Must run on a thread that is in the pod's network namespace.
    pub(super) fn configure(self) -> anyhow::Result<()> {
        if self.v6.is_some() {
            enable_ipv6();
        }
        // Pods may bind any port, as container runtimes allow them.
        std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
            .context("cannot open low ports to the pod's processes")?;
        let mut batch = format!(
            "link set lo up\naddr add {}/16 dev eth0\nlink set eth0 up\nroute add default via {GATEWAY}\n",
            self.v4
        );
        if let Some(v6) = self.v6 {
            batch += &format!("addr add {v6}/64 dev eth0 nodad\nroute add default via {GATEWAY_V6}\n");
        }
        ip_batch(&batch)
    }
}

/// Pulls the cables of pods that are gone. The kernel would do so too, but later.
pub(super) fn unplug(places: &[Place]) {
    let batch: String = places
        .iter()
        .map(|place| format!("link del {}\n", place.port()))
        .collect();
    // A cable that the kernel was quicker to remove is no error, hence -force and no look at the outcome.
    let _already_gone = run_ip(&["-force", "-batch", "-"], &batch);
}

/// Runs `ip` commands in the calling thread's network namespace.
pub(crate) fn ip_batch(commands: &str) -> anyhow::Result<()> {
    run_ip(&["-batch", "-"], commands)
}

fn run_ip(arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| missing_tool("ip", "iproute2", &error))?;
    let mut stdin = child.stdin.take().expect("stdin was asked for");
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("cannot wait for `ip`")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`ip` failed: {}",
            reason.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    written.context("cannot hand commands to `ip`")
}

/// Distributions may switch IPv6 off for new namespaces. Where the knob is missing there is nothing to do.
fn enable_ipv6() {
    for scope in ["all", "default"] {
        let _no_such_knob = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "0");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hub() -> Hub {
        Hub {
            privileges: Privileges::Root,
            own_proc: true,
            ipv6: true,
            proc_pid: PathBuf::from("1"),
            next_pod: AtomicU16::new(0),
        }
    }

    #[test]
    fn pods_get_distinct_usable_addresses_and_never_the_gateways_or_the_operators() {
        let hub = hub();
        let mut seen = HashSet::new();
        for _ in 0..5_000 {
            let place = hub.next_place().unwrap();
            let [_, _, high, low] = place.v4.octets();
            assert!(high >= 1 && (1..=250).contains(&low), "{}", place.v4);
            assert!(place.port().len() <= 15, "an interface name holds 15 characters");
            assert!(seen.insert(place.v4));
        }
    }

    #[test]
    fn the_last_pod_address_is_still_inside_the_lab_and_the_next_is_refused() {
        let hub = hub();
        hub.next_pod.store(59_999, Ordering::Relaxed);
        assert_eq!(hub.next_place().unwrap().v4.octets()[..2], [10, 77]);
        assert!(hub.next_place().is_err());
    }
}

//! `hauberk-proxy init`: makes the kernel send the pod's TCP to the proxy, and proves that it does.
//!
//! Called once by `main`, in an init container that shares the pod's network namespace and holds CAP_NET_ADMIN.
//! A [`plan::Plan`] says what is redirected; the [`nft`] or [`iptables`] backend writes it; [`probe`] dials an address
//! and looks whether the connection arrives. Only what was verified is reported as installed, and what failed its
//! verification is removed again. Running twice leaves what running once leaves; a second run may change any option.
//!
//! It never touches UDP, rules of others, or connections that are already open, and it never runs beside traffic:
//! nothing in the proxy's own process changes rules.

mod command;
mod iptables;
mod nft;
mod plan;
mod probe;
mod report;

use std::fs;

pub use api::{Networks, Ports};
use clap::{Args, ValueEnum};

use self::{
    iptables::Flavour,
    plan::{Plan, Users},
};
pub use self::{
    probe::Verified,
    report::{InterceptionError, Report},
};

const PROXY_UID: u32 = 1337;
const OUTBOUND_PORT: u16 = 15_001;
const INBOUND_PORT: u16 = 15_006;
const ADMIN_PORT: u16 = 15_020;

/// The options of `hauberk-proxy init`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct InitArgs {
    /// The user the proxy runs as; what it sends is left alone
    #[arg(long, value_name = "UID", default_value_t = PROXY_UID)]
    pub proxy_uid: u32,
    /// Where the proxy accepts connections of the pod's apps
    #[arg(long, value_name = "PORT", default_value_t = OUTBOUND_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub outbound_port: u16,
    /// Where the proxy accepts connections to the pod's apps
    #[arg(long, value_name = "PORT", default_value_t = INBOUND_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub inbound_port: u16,
    /// Where the proxy serves health, metrics and its admin pages; never redirected
    #[arg(long, value_name = "PORT", default_value_t = ADMIN_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub admin_port: u16,
    /// Packets with this mark are left alone, where the proxy cannot have a user of its own
    #[arg(long, value_name = "MARK", value_parser = mark)]
    pub exclude_mark: Option<u32>,
    /// Ports of the pod that bypass the proxy, such as 22,8000-8010
    #[arg(long, value_name = "PORTS", default_value = "")]
    pub skip_inbound_ports: Ports,
    /// Ports elsewhere that are called without the proxy
    #[arg(long, value_name = "PORTS", default_value = "")]
    pub skip_outbound_ports: Ports,
    /// Networks whose calls to the pod bypass the proxy, such as 10.0.0.0/8,fd00::/8
    #[arg(long, value_name = "NETWORKS", default_value = "")]
    pub skip_inbound_cidrs: Networks,
    /// Networks that are called without the proxy
    #[arg(long, value_name = "NETWORKS", default_value = "")]
    pub skip_outbound_cidrs: Networks,
    /// Which tool writes the rules
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// Remove all rules instead of writing them
    #[arg(long, conflicts_with = "dry_run")]
    pub remove: bool,
    /// Print the rules instead of writing them
    #[arg(long)]
    pub dry_run: bool,
}

/// Which tool writes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// nft, or iptables where nft is missing or does not work
    Auto,
    /// nft only
    Nft,
    /// iptables only: the flavour that others already use here, else the one on nf_tables
    Iptables,
}

/// Which families get rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    V4AndV6,
}

/// What this namespace has of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ipv6 {
    /// The kernel does not know it.
    Absent,
    /// No address but those every interface gives itself: nothing can be called yet.
    Unaddressed,
    Addressed,
}

/// Does what the options say; `Ok` means that it was also verified.
pub fn run(args: &InitArgs) -> Result<Report, InterceptionError> {
    if args.remove {
        let mut removed = nft::remove()?;
        removed.extend(iptables::remove(None)?);
        return Ok(Report::Removed(removed));
    }
    // The file is missing only from kernels without user namespaces, where every user exists.
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_else(|_| "0 0 4294967295".to_owned());
    let plan = Plan::new(args, &Users::of(&uid_map))?;
    let ipv6 = Ipv6::here();
    if args.dry_run {
        return Ok(Report::DryRun(dry_run(args.backend, &plan, ipv6)));
    }
    let uid = nix::unistd::geteuid().as_raw();
    if uid == plan.proxy_uid {
        return Err(InterceptionError::RunsAsProxy { uid });
    }
    if ipv6 == Ipv6::Absent {
        tracing::info!("this kernel has no IPv6: only IPv4 is redirected");
    }
    install(args.backend, ipv6, &plan, uid)
}

fn install(choice: Backend, ipv6: Ipv6, plan: &Plan, uid: u32) -> Result<Report, InterceptionError> {
    let mut failures = Vec::new();
    for (backend, families) in attempts(choice, ipv6) {
        let attempt = match backend {
            Backend::Iptables => with_iptables(plan, families, uid),
            Backend::Nft | Backend::Auto => with_nft(plan, families, uid),
        };
        match attempt {
            Ok(report) => return Ok(report),
            // The next tool needs the same rights.
            Err(error @ InterceptionError::NotPermitted { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(?backend, ?families, %error, "the redirect could not be set up in this way");
                failures.push(error);
            }
        }
    }
    Err(InterceptionError::of_attempts(choice, failures))
}

/// The ways to try, in order. IPv6 may be given up only where it cannot be used.
fn attempts(choice: Backend, ipv6: Ipv6) -> Vec<(Backend, Families)> {
    let backends: &[Backend] = match choice {
        Backend::Auto => &[Backend::Nft, Backend::Iptables],
        Backend::Nft => &[Backend::Nft],
        Backend::Iptables => &[Backend::Iptables],
    };
    let families: &[Families] = match ipv6 {
        Ipv6::Absent => &[Families::V4],
        Ipv6::Unaddressed => &[Families::V4AndV6, Families::V4],
        Ipv6::Addressed => &[Families::V4AndV6],
    };
    families
        .iter()
        .flat_map(|families| backends.iter().map(|backend| (*backend, *families)))
        .collect()
}

fn with_nft(plan: &Plan, families: Families, uid: u32) -> Result<Report, InterceptionError> {
    nft::install(plan, families)?;
    // Rules of an earlier run with the other tool would go on to redirect what is to be left alone now. A tool that
    // does not work here cannot have left any.
    if let Err(error) = iptables::remove(None) {
        tracing::debug!(%error, "could not look for rules of an earlier run with iptables");
    }
    let kept = nft::forget_failed(plan, families)
        .err()
        .map(|error| error.told_of_timeouts());
    verify(plan, families, uid)
        .map(|outbound| Report::Installed {
            backend: "nft",
            outbound,
            kept,
        })
        .inspect_err(|_| undo(nft::remove()))
}

fn with_iptables(plan: &Plan, families: Families, uid: u32) -> Result<Report, InterceptionError> {
    let mut failures = Vec::new();
    for flavour in iptables::find()?.into_iter().map(|found| found.flavour) {
        match with_flavour(flavour, plan, families, uid) {
            Ok(report) => return Ok(report),
            Err(error @ InterceptionError::NotPermitted { .. }) => return Err(error),
            Err(error) => {
                undo(iptables::remove(None));
                failures.push(error);
            }
        }
    }
    Err(InterceptionError::of_attempts(Backend::Iptables, failures))
}

fn with_flavour(
    flavour: Flavour,
    plan: &Plan,
    families: Families,
    uid: u32,
) -> Result<Report, InterceptionError> {
    iptables::install(flavour, plan, families)?;
    for leftover in [nft::remove(), iptables::remove(Some(flavour))] {
        if let Err(error) = leftover {
            tracing::debug!(%error, "could not look for rules of an earlier run with another tool");
        }
    }
    let outbound = verify(plan, families, uid)?;
    Ok(Report::Installed {
        backend: flavour.name(),
        outbound,
        kept: Some("only nft can make the kernel forget failed connections of the proxy sooner".to_owned()),
    })
}

fn verify(plan: &Plan, families: Families, uid: u32) -> Result<Vec<Verified>, InterceptionError> {
    families
        .each_is_v6()
        .map(|v6| probe::outbound(plan, v6, uid))
        .collect()
}

/// Takes back what an attempt wrote. Its own error is the one worth reporting, so this one is only logged.
fn undo(removal: Result<Vec<String>, InterceptionError>) {
    if let Err(error) = removal {
        tracing::warn!(%error, "could not take back the rules of an attempt that failed");
    }
}

fn dry_run(choice: Backend, plan: &Plan, ipv6: Ipv6) -> String {
    let families = if ipv6 == Ipv6::Absent {
        Families::V4
    } else {
        Families::V4AndV6
    };
    match choice {
        Backend::Auto | Backend::Nft => nft::script(plan, families) + &nft::forget_script(plan, families),
        Backend::Iptables => families
            .each_is_v6()
            .map(|v6| {
                let family = if v6 { 6 } else { 4 };
                let script = iptables::install_script(plan, v6, iptables::Jumps::default());
                format!("# IPv{family}\n{script}")
            })
            .collect(),
    }
}

impl Families {
    /// `false` for IPv4, then, if included, `true` for IPv6.
    fn each_is_v6(self) -> impl Iterator<Item = bool> {
        [false, true]
            .into_iter()
            .take(if self == Self::V4 { 1 } else { 2 })
    }
}

impl Ipv6 {
    fn here() -> Self {
        match fs::read_to_string("/proc/net/if_inet6") {
            Ok(addresses) => Self::of(&addresses),
            Err(_) => Self::Absent,
        }
    }

    /// From the text of `/proc/net/if_inet6`, whose fourth column is the scope of an address, `00` for global.
    fn of(addresses: &str) -> Self {
        let global = addresses
            .lines()
            .any(|line| line.split_whitespace().nth(3) == Some("00"));
        if global {
            Self::Addressed
        } else {
            Self::Unaddressed
        }
    }
}

impl Default for InitArgs {
    fn default() -> Self {
        Self {
            proxy_uid: PROXY_UID,
            outbound_port: OUTBOUND_PORT,
            inbound_port: INBOUND_PORT,
            admin_port: ADMIN_PORT,
            exclude_mark: None,
            skip_inbound_ports: Ports::default(),
            skip_outbound_ports: Ports::default(),
            skip_inbound_cidrs: Networks::default(),
            skip_outbound_cidrs: Networks::default(),
            backend: Backend::Auto,
            remove: false,
            dry_run: false,
        }
    }
}

/// Decimal, or hexadecimal behind `0x`. Zero is the mark of all packets that have none.
fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(0) => Err("0 is the mark of every unmarked packet: choose another".to_owned()),
        Ok(mark) => Ok(mark),
        Err(_) => Err("write a 32-bit number, such as 1337 or 0x539".to_owned()),
    }
}

#[cfg(test)]
impl InitArgs {
    /// Parses flags as `hauberk-proxy init` does.
    pub(crate) fn from_words(words: &[&str]) -> Self {
        Self::try_from_words(words).expect("the test wrote valid flags")
    }

    fn try_from_words(words: &[&str]) -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        struct Init {
            #[command(flatten)]
            args: InitArgs,
        }
        let words = std::iter::once("init").chain(words.iter().copied());
        <Init as clap::Parser>::try_parse_from(words).map(|init| init.args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flags_mean_the_defaults() {
        assert_eq!(InitArgs::from_words(&[]), InitArgs::default());
    }

    #[test]
    fn a_bad_flag_is_refused_with_its_name_and_the_remedy() {
        for (words, name, remedy) in [
            (["--outbound-port", "0"], "--outbound-port", "1..=65535"),
            (["--exclude-mark", "0"], "--exclude-mark", "choose another"),
            (["--exclude-mark", "x"], "--exclude-mark", "0x539"),
            (
                ["--skip-inbound-ports", "http"],
                "--skip-inbound-ports",
                "1 to 65535",
            ),
            (
                ["--skip-outbound-cidrs", "10.1.0.0/8"],
                "--skip-outbound-cidrs",
                "10.0.0.0/8",
            ),
            (["--backend", "ebpf"], "--backend", "iptables"),
        ] {
            let error = InitArgs::try_from_words(&words).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(remedy), "{error}");
        }
        assert!(InitArgs::try_from_words(&["--remove", "--dry-run"]).is_err());
    }

    #[test]
    fn a_mark_may_be_written_in_hexadecimal() {
        assert_eq!(mark("0x539"), Ok(1337));
        assert_eq!(mark("1337"), Ok(1337));
    }

    #[test]
    fn ipv6_is_given_up_only_where_it_has_no_address() {
        use Backend::{Auto, Iptables, Nft};
        use Families::{V4, V4AndV6};
        for (choice, ipv6, expected) in [
            (Auto, Ipv6::Absent, vec![(Nft, V4), (Iptables, V4)]),
            (Auto, Ipv6::Addressed, vec![(Nft, V4AndV6), (Iptables, V4AndV6)]),
            (
                Auto,
                Ipv6::Unaddressed,
                vec![(Nft, V4AndV6), (Iptables, V4AndV6), (Nft, V4), (Iptables, V4)],
            ),
            (Iptables, Ipv6::Addressed, vec![(Iptables, V4AndV6)]),
        ] {
            assert_eq!(attempts(choice, ipv6), expected);
        }
    }

    #[test]
    fn the_addresses_of_loopback_and_of_a_link_do_not_make_ipv6_usable() {
        let lo = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let link = "fe80000000000000001122fffe334455 02 40 20 80     eth0\n";
        let global = "fd990000000000000000000000000002 02 40 00 80     eth0\n";
        assert_eq!(Ipv6::of(""), Ipv6::Unaddressed);
        assert_eq!(Ipv6::of(&format!("{lo}{link}")), Ipv6::Unaddressed);
        assert_eq!(Ipv6::of(&format!("{lo}{link}{global}")), Ipv6::Addressed);
    }

    #[test]
    fn a_dry_run_prints_the_rules_and_needs_no_rights() {
        for (backend, start) in [("nft", "add table"), ("iptables", "# IPv4\n*nat")] {
            let report = run(&InitArgs::from_words(&["--dry-run", "--backend", backend])).unwrap();
            assert!(report.to_string().starts_with(start), "{report}");
        }
    }
}

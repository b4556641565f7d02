//! The iptables backend, for images without nft and kernels without its NAT.
//!
//! Called by [`super`]. Everything of ours stands in two chains of our own in table `nat`, filled by
//! `iptables-restore --noflush` in one transaction a family; other rules are left as they are. Jumps to our chains
//! are counted first and replaced, so that running twice leaves one.
//!
//! iptables comes in two flavours which do not see each other's rules. If somebody else already wrote rules in this
//! namespace with one of them, that one is known to work here and is tried first; else the one on nf_tables is.

use std::fmt::Write;

use super::{
    Families, InterceptionError, command,
    plan::{Action, Match, Plan, Rule},
};

const OUTBOUND: &str = "HAUBERK_OUTBOUND";
const INBOUND: &str = "HAUBERK_INBOUND";

/// One way to call iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// `iptables-nft`: the old commands on top of nf_tables.
    Nft,
    /// `iptables-legacy`: the old kernel interface.
    Legacy,
    /// Plain `iptables`, on systems which do not name the flavours: it is one of the two.
    Plain,
}

/// What `iptables-save` shows of one flavour in this namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) flavour: Flavour,
    /// Rules of others. Worth knowing, see the head of this file.
    pub(crate) foreign_rules: usize,
    pub(crate) ours: bool,
}

impl Flavour {
    fn program(self, v6: bool, action: &str) -> String {
        let family = if v6 { "ip6tables" } else { "iptables" };
        match self {
            Self::Nft => format!("{family}-nft-{action}"),
            Self::Legacy => format!("{family}-legacy-{action}"),
            Self::Plain => format!("{family}-{action}"),
        }
    }

    /// The name one finds in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
            Self::Plain => "iptables",
        }
    }
}

/// The flavours that answer here, best first. Empty when iptables is not installed.
pub(crate) fn find() -> Result<Vec<Found>, InterceptionError> {
    let mut found = Vec::new();
    let mut refused = None;
    for flavour in [Flavour::Nft, Flavour::Legacy, Flavour::Plain] {
        if flavour == Flavour::Plain && !found.is_empty() {
            break;
        }
        let program = flavour.program(false, "save");
        match command::run(&program, &[], "")? {
            Some(output) if output.success => found.push(look(flavour, &output.stdout)),
            Some(output) => refused = Some(command::failure(&program, &[], &output)),
            None => {}
        }
    }
    match refused {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(in_order(found)),
    }
}

/// Writes the rules with one flavour and reads them back.
pub(crate) fn install(flavour: Flavour, plan: &Plan, families: Families) -> Result<(), InterceptionError> {
    for v6 in families.each_is_v6() {
        let saved = command::must(&flavour.program(v6, "save"), &[], "")?;
        restore(flavour, v6, &install_script(plan, v6, Jumps::count(&saved)))?;
        let saved = command::must(&flavour.program(v6, "save"), &[], "")?;
        compare(plan, v6, &saved).map_err(|difference| InterceptionError::RulesDiffer {
            backend: flavour.name(),
            difference,
        })?;
    }
    Ok(())
}

/// Removes what is ours from every flavour but `keep`; tells what was there. Nothing to do if none is installed.
pub(crate) fn remove(keep: Option<Flavour>) -> Result<Vec<String>, InterceptionError> {
    let mut removed = Vec::new();
    for Found { flavour, .. } in find()?.into_iter().filter(|found| Some(found.flavour) != keep) {
        for v6 in [false, true] {
            // A machine may lack the v6 half; then there is nothing of ours in it either.
            let Some(saved) = command::run(&flavour.program(v6, "save"), &[], "")? else {
                continue;
            };
            if let Some(script) = removal_script(&saved.stdout) {
                restore(flavour, v6, &script)?;
                removed.push(format!(
                    "chains of {} (IPv{})",
                    flavour.name(),
                    if v6 { 6 } else { 4 }
                ));
            }
        }
    }
    Ok(removed)
}

fn restore(flavour: Flavour, v6: bool, script: &str) -> Result<(), InterceptionError> {
    // The wait is for the lock of iptables: two init containers never run at once, but a CNI plug-in may be at work.
    command::must(
        &flavour.program(v6, "restore"),
        &["--noflush", "--wait", "5"],
        script,
    )
    .map(drop)
}

fn look(flavour: Flavour, saved: &str) -> Found {
    let rules = saved.lines().filter(|line| line.starts_with("-A "));
    let (ours, foreign): (Vec<&str>, Vec<&str>) = rules.partition(|line| line.contains("HAUBERK_"));
    Found {
        flavour,
        foreign_rules: foreign.len(),
        ours: !ours.is_empty(),
    }
}

fn in_order(mut found: Vec<Found>) -> Vec<Found> {
    // A stable sort: among equals the order they were asked in stays.
    found.sort_by_key(|found| found.foreign_rules == 0);
    found
}

/// How often the built-in chains already jump to ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Jumps {
    outbound: usize,
    inbound: usize,
}

impl Jumps {
    fn count(saved: &str) -> Self {
        let count = |jump: &str| {
            saved
                .lines()
                .filter(|line| line.trim_end() == format!("-A {jump}"))
                .count()
        };
        Self {
            outbound: count(&jump("OUTPUT", OUTBOUND)),
            inbound: count(&jump("PREROUTING", INBOUND)),
        }
    }

    fn deletions(self) -> String {
        let outbound = format!("-D {}\n", jump("OUTPUT", OUTBOUND)).repeat(self.outbound);
        outbound + &format!("-D {}\n", jump("PREROUTING", INBOUND)).repeat(self.inbound)
    }
}

/// Just as `iptables-save` prints it, behind `-A`.
fn jump(from: &str, to: &str) -> String {
    format!("{from} -p tcp -j {to}")
}

/// The whole transaction of one family. Naming a chain of one's own empties it even under `--noflush`.
pub(crate) fn install_script(plan: &Plan, v6: bool, present: Jumps) -> String {
    let mut script = format!("*nat\n:{OUTBOUND} - [0:0]\n:{INBOUND} - [0:0]\n");
    script.push_str(&present.deletions());
    for chain in chains(plan) {
        for line in chain.lines(v6) {
            let _ = writeln!(script, "-A {} {line}", chain.name);
        }
    }
    for (built_in, own) in [("OUTPUT", OUTBOUND), ("PREROUTING", INBOUND)] {
        let _ = writeln!(script, "-I {built_in} 1 -p tcp -j {own}");
    }
    script.push_str("COMMIT\n");
    script
}

/// `None` when nothing of ours is there.
fn removal_script(saved: &str) -> Option<String> {
    let declared: Vec<&str> = [OUTBOUND, INBOUND]
        .into_iter()
        .filter(|chain| saved.lines().any(|line| line.starts_with(&format!(":{chain} "))))
        .collect();
    if declared.is_empty() {
        return None;
    }
    let mut script = String::from("*nat\n");
    script.push_str(&Jumps::count(saved).deletions());
    for verb in ["-F", "-X"] {
        for chain in &declared {
            let _ = writeln!(script, "{verb} {chain}");
        }
    }
    script.push_str("COMMIT\n");
    Some(script)
}

/// What a listing lacks or has too much, if anything. Rules are counted rather than read: each version of iptables
/// writes them in its own way.
fn compare(plan: &Plan, v6: bool, saved: &str) -> Result<(), String> {
    if Jumps::count(saved)
        != (Jumps {
            outbound: 1,
            inbound: 1,
        })
    {
        return Err("the built-in chains do not jump to ours exactly once".to_owned());
    }
    for chain in chains(plan) {
        let start = format!("-A {} ", chain.name);
        let listed: Vec<&str> = saved.lines().filter(|line| line.starts_with(&start)).collect();
        let expected = chain.lines(v6).len();
        if listed.len() != expected {
            return Err(format!(
                "chain {} should hold {expected} rules but holds {}",
                chain.name,
                listed.len()
            ));
        }
        let redirect = format!("-j REDIRECT --to-ports {}", chain.port);
        if !listed
            .last()
            .is_some_and(|line| line.trim_end().ends_with(&redirect))
        {
            return Err(format!(
                "chain {} does not end by redirecting to port {}",
                chain.name, chain.port
            ));
        }
    }
    Ok(())
}

struct Chain<'a> {
    name: &'static str,
    /// The flag for the far end of a connection: it is called, or it calls.
    far_end: &'static str,
    interface: &'static str,
    port: u16,
    rules: &'a [Rule],
}

fn chains(plan: &Plan) -> [Chain<'_>; 2] {
    [
        Chain {
            name: OUTBOUND,
            far_end: "-d",
            interface: "-o",
            port: plan.outbound_port,
            rules: &plan.outbound,
        },
        Chain {
            name: INBOUND,
            far_end: "-s",
            interface: "-i",
            port: plan.inbound_port,
            rules: &plan.inbound,
        },
    ]
}

impl Chain<'_> {
    fn lines(&self, v6: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for Rule {
            matches,
            action,
            why: _,
        } in self.rules
        {
            let verdict = match action {
                Action::Leave => "-j RETURN".to_owned(),
                Action::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
            };
            let conditions = match matches {
                Match::NotOpening => vec!["-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN".to_owned()],
                Match::Uid(uid) => vec![format!("-m owner --uid-owner {uid}")],
                Match::Mark(mark) => vec![format!("-m mark --mark {mark:#x}")],
                Match::Loopback => vec![format!("{} lo", self.interface)],
                Match::Networks(networks) => networks
                    .as_slice()
                    .iter()
                    .filter(|network| network.addr().is_ipv6() == v6)
                    .map(|network| format!("{} {network}", self.far_end))
                    .collect(),
                Match::Ports(ports) => ports
                    .ranges()
                    .iter()
                    .map(|range| match (range.start(), range.end()) {
                        (start, end) if start == end => format!("-p tcp -m tcp --dport {start}"),
                        (start, end) => format!("-p tcp -m tcp --dport {start}:{end}"),
                    })
                    .collect(),
                Match::Every => vec!["-p tcp".to_owned()],
            };
            lines.extend(
                conditions
                    .into_iter()
                    .map(|condition| format!("{condition} {verdict}")),
            );
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interception::{InitArgs, plan::Users};

    fn plan(args: &[&str]) -> Plan {
        Plan::new(&InitArgs::from_words(args), &Users::all()).unwrap()
    }

    #[test]
    fn the_script_of_each_family_reads_as_agreed() {
        let plan = plan(&[
            "--exclude-mark",
            "1337",
            "--skip-outbound-ports",
            "22,8000-8010",
            "--skip-outbound-cidrs",
            "10.0.0.0/8,fd00::/8",
            "--skip-inbound-ports",
            "9100",
        ]);
        let v4 = "*nat
:HAUBERK_OUTBOUND - [0:0]
:HAUBERK_INBOUND - [0:0]
-A HAUBERK_OUTBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN
-A HAUBERK_OUTBOUND -m owner --uid-owner 1337 -j RETURN
-A HAUBERK_OUTBOUND -m mark --mark 0x539 -j RETURN
-A HAUBERK_OUTBOUND -o lo -j RETURN
-A HAUBERK_OUTBOUND -d 127.0.0.0/8 -j RETURN
-A HAUBERK_OUTBOUND -d 10.0.0.0/8 -j RETURN
-A HAUBERK_OUTBOUND -p tcp -m tcp --dport 22 -j RETURN
-A HAUBERK_OUTBOUND -p tcp -m tcp --dport 8000:8010 -j RETURN
-A HAUBERK_OUTBOUND -p tcp -j REDIRECT --to-ports 15001
-A HAUBERK_INBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN
-A HAUBERK_INBOUND -m mark --mark 0x539 -j RETURN
-A HAUBERK_INBOUND -i lo -j RETURN
-A HAUBERK_INBOUND -p tcp -m tcp --dport 15001 -j RETURN
-A HAUBERK_INBOUND -p tcp -m tcp --dport 15006 -j RETURN
-A HAUBERK_INBOUND -p tcp -m tcp --dport 15020 -j RETURN
-A HAUBERK_INBOUND -p tcp -m tcp --dport 9100 -j RETURN
-A HAUBERK_INBOUND -p tcp -j REDIRECT --to-ports 15006
-I OUTPUT 1 -p tcp -j HAUBERK_OUTBOUND
-I PREROUTING 1 -p tcp -j HAUBERK_INBOUND
COMMIT
";
        assert_eq!(install_script(&plan, false, Jumps::default()), v4);
        let v6 = v4
            .replace("-d 127.0.0.0/8", "-d ::1/128")
            .replace("-d 10.0.0.0/8", "-d fd00::/8");
        assert_eq!(install_script(&plan, true, Jumps::default()), v6);
    }

    const FOREIGN: &str = "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j OTHER\n";

    #[test]
    fn jumps_that_are_already_there_are_replaced_and_those_of_others_stay() {
        let saved =
            format!("{FOREIGN}-A OUTPUT -p tcp -j {OUTBOUND}\n-A OUTPUT -p tcp -j {OUTBOUND}\nCOMMIT\n");
        let present = Jumps::count(&saved);
        assert_eq!(
            present,
            Jumps {
                outbound: 2,
                inbound: 0
            }
        );
        let script = install_script(&plan(&[]), false, present);
        assert_eq!(
            script.matches("-D OUTPUT -p tcp -j HAUBERK_OUTBOUND\n").count(),
            2
        );
        assert_eq!(script.matches("-D ").count(), 2);
    }

    #[test]
    fn removal_undoes_the_jumps_before_the_chains_and_does_nothing_where_nothing_is() {
        let saved = format!(
            "*nat\n:{OUTBOUND} - [0:0]\n:{INBOUND} - [3:9]\n-A OUTPUT -p tcp -j {OUTBOUND}\n-A PREROUTING -p tcp -j {INBOUND}\nCOMMIT\n"
        );
        let expected = "*nat
-D OUTPUT -p tcp -j HAUBERK_OUTBOUND
-D PREROUTING -p tcp -j HAUBERK_INBOUND
-F HAUBERK_OUTBOUND
-F HAUBERK_INBOUND
-X HAUBERK_OUTBOUND
-X HAUBERK_INBOUND
COMMIT
";
        assert_eq!(removal_script(&saved).unwrap(), expected);
        assert_eq!(removal_script(FOREIGN), None);
    }

    #[test]
    fn the_flavour_somebody_already_uses_comes_first_and_otherwise_the_one_on_nf_tables() {
        let found = |flavour, foreign_rules| Found {
            flavour,
            foreign_rules,
            ours: false,
        };
        for (nft, legacy, first) in [
            (0, 0, Flavour::Nft),
            (0, 3, Flavour::Legacy),
            (2, 0, Flavour::Nft),
            (2, 5, Flavour::Nft),
        ] {
            let order = in_order(vec![found(Flavour::Nft, nft), found(Flavour::Legacy, legacy)]);
            assert_eq!(order[0].flavour, first, "nft {nft}, legacy {legacy}");
            assert_eq!(order.len(), 2);
        }
    }

    #[test]
    fn our_own_rules_do_not_count_as_somebody_elses() {
        let saved = format!("{FOREIGN}-A OUTPUT -p tcp -j {OUTBOUND}\n-A {OUTBOUND} -o lo -j RETURN\n");
        assert_eq!(
            look(Flavour::Legacy, &saved),
            Found {
                flavour: Flavour::Legacy,
                foreign_rules: 1,
                ours: true
            }
        );
    }

    #[test]
    fn a_listing_that_lacks_something_is_refused_with_what_it_lacks() {
        let plan = plan(&[]);
        let script = install_script(&plan, false, Jumps::default());
        let saved = script
            .replace("-I OUTPUT 1", "-A OUTPUT")
            .replace("-I PREROUTING 1", "-A PREROUTING");
        assert_eq!(compare(&plan, false, &saved), Ok(()));
        for (from, to, said) in [
            ("-A OUTPUT -p tcp -j HAUBERK_OUTBOUND\n", "", "jump"),
            (
                "-A HAUBERK_OUTBOUND -o lo -j RETURN\n",
                "",
                "should hold 5 rules but holds 4",
            ),
            (
                "--to-ports 15006",
                "--to-ports 15007",
                "HAUBERK_INBOUND does not end",
            ),
        ] {
            let difference = compare(&plan, false, &saved.replace(from, to)).unwrap_err();
            assert!(difference.contains(said), "{from}: {difference}");
        }
    }
}

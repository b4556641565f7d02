//! The nft backend: one table of our own, replaced in one transaction.
//!
//! Called by [`super`]. The script is a pure function of the plan; running it twice leaves what running it once
//! leaves, and there is no moment without rules in between. Nothing outside of our table is read or changed.
//! Every rule carries its reason as a comment: whoever lists the ruleset reads it, and so does [`compare`], because
//! comments come back word for word from every version of nft while the rules themselves are rewritten.

use std::fmt::Write;

use super::{
    Families, InterceptionError, command,
    plan::{Action, Match, Plan, Rule},
};

/// Both names, since a namespace without IPv6 gets a table of the other family.
const FAMILIES: [&str; 2] = ["inet", "ip"];
const TABLE: &str = "hauberk";
/// How many seconds the kernel keeps a connection of the proxy that nobody answered or that its peer reset.
const KEPT: u8 = 1;

pub(crate) fn install(plan: &Plan, families: Families) -> Result<(), InterceptionError> {
    command::must("nft", &["-f", "-"], &script(plan, families))?;
    let family = family(families);
    let listing = command::must("nft", &["list", "table", family, TABLE], "")?;
    compare(plan, families, &listing).map_err(|difference| InterceptionError::RulesDiffer {
        backend: "nft",
        difference,
    })?;
    remove_except(Some(family)).map(drop)
}

/// Makes the kernel forget failed connections of the proxy sooner; to be called after [`install`], into whose table
/// it writes. A transaction of its own, because a kernel may lack what it needs and redirect all the same.
pub(crate) fn forget_failed(plan: &Plan, families: Families) -> Result<(), InterceptionError> {
    command::must("nft", &["-f", "-"], &forget_script(plan, families)).map(drop)
}

/// Removes what [`install`] made; tells what was there. `Ok` also when nft is not installed.
pub(crate) fn remove() -> Result<Vec<String>, InterceptionError> {
    remove_except(None)
}

fn remove_except(keep: Option<&str>) -> Result<Vec<String>, InterceptionError> {
    let Some(output) = command::run("nft", &["list", "tables"], "")? else {
        return Ok(Vec::new());
    };
    if !output.success {
        return Err(command::failure("nft", &["list", "tables"], &output));
    }
    let mut removed = Vec::new();
    for family in FAMILIES.into_iter().filter(|family| Some(*family) != keep) {
        let name = format!("table {family} {TABLE}");
        if output.stdout.lines().any(|line| line.trim() == name) {
            command::must("nft", &["delete", "table", family, TABLE], "")?;
            removed.push(format!("nft {name}"));
        }
    }
    Ok(removed)
}

/// The whole transaction. `add` before `delete` makes the deletion succeed also on the first run.
pub(crate) fn script(plan: &Plan, families: Families) -> String {
    let family = family(families);
    let mut script =
        format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n");
    for chain in chains(plan) {
        let Chain { name, hook, .. } = chain;
        let _ = writeln!(
            script,
            "\tchain {name} {{\n\t\ttype nat hook {hook} priority -100; policy accept;"
        );
        for (line, why) in chain.lines(families) {
            let _ = writeln!(script, "\t\t{line} comment \"{why}\"");
        }
        script.push_str("\t}\n");
    }
    script.push_str("}\n");
    script
}

/// The kernel keeps a connection that was opened but not answered for two minutes, and one that was reset for ten
/// seconds. An app that then dials the same address from the same port would be taken for that connection, which was
/// not redirected, and pass by the proxy. A closed connection is no such danger: the kernel starts over by itself.
///
/// A conntrack zone for the proxy would not do: the last packets of a connection come from a socket that no longer has
/// a user, would not be found in the zone, and would leave from another port, so that no peer would see it end.
pub(crate) fn forget_script(plan: &Plan, families: Families) -> String {
    let family = family(families);
    let versions: &[u8] = if families == Families::V4 { &[4] } else { &[4, 6] };
    let mut script = format!("table {family} {TABLE} {{\n");
    for version in versions {
        let protocol = if *version == 4 { "ip" } else { "ip6" };
        let _ = writeln!(
            script,
            "\tct timeout failed_v{version} {{\n\t\tprotocol tcp;\n\t\tl3proto {protocol};\n\t\tpolicy = {{ syn_sent : {KEPT}, close : {KEPT} }};\n\t}}"
        );
    }
    // Between tracking and NAT. The kernel takes the timeouts from the first packet of a connection only.
    script.push_str("\tchain forget {\n\t\ttype filter hook output priority -150; policy accept;\n");
    for condition in plan
        .outbound
        .iter()
        .filter_map(|rule| of_the_proxy(&rule.matches))
    {
        for version in versions {
            // In a table of one family nft refuses the question for the family.
            let of_version = match families {
                Families::V4 => String::new(),
                Families::V4AndV6 => format!("meta nfproto ipv{version} "),
            };
            let _ = writeln!(
                script,
                "\t\tct state new {of_version}meta l4proto tcp {condition} ct timeout set \"failed_v{version}\" comment \"failed connections of the proxy\""
            );
        }
    }
    script.push_str("\t}\n}\n");
    script
}

/// The condition for what the proxy sends; `None` for a match that is not about the sender.
fn of_the_proxy(matches: &Match) -> Option<String> {
    match matches {
        Match::Uid(uid) => Some(format!("meta skuid {uid}")),
        Match::Mark(mark) => Some(format!("meta mark {mark:#x}")),
        _ => None,
    }
}

/// What a listing lacks or has too much, if anything.
fn compare(plan: &Plan, families: Families, listing: &str) -> Result<(), String> {
    for chain in chains(plan) {
        let name = chain.name;
        let listed: Vec<&str> = listing
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != format!("chain {name} {{"))
            .take_while(|line| *line != "}")
            .collect();
        let hook = format!("type nat hook {} ", chain.hook);
        if !listed.iter().any(|line| line.starts_with(&hook)) {
            return Err(format!("chain {name} does not stand at the {} hook", chain.hook));
        }
        let expected: Vec<&str> = chain.lines(families).into_iter().map(|(_, why)| why).collect();
        let found: Vec<&str> = listed.iter().filter_map(|line| comment(line)).collect();
        if found != expected {
            return Err(format!(
                "chain {name} should hold the rules {expected:?} but holds {found:?}"
            ));
        }
        let redirect = format!("redirect to :{} ", chain.port);
        if !listed.last().is_some_and(|line| line.contains(&redirect)) {
            return Err(format!(
                "chain {name} does not end by redirecting to port {}",
                chain.port
            ));
        }
    }
    Ok(())
}

fn comment(line: &str) -> Option<&str> {
    line.split_once("comment \"")?.1.strip_suffix('"')
}

fn family(families: Families) -> &'static str {
    match families {
        Families::V4AndV6 => "inet",
        Families::V4 => "ip",
    }
}

struct Chain<'a> {
    name: &'static str,
    hook: &'static str,
    /// The word for the far end of a connection: it is called, or it calls.
    far_end: &'static str,
    interface: &'static str,
    port: u16,
    rules: &'a [Rule],
}

fn chains(plan: &Plan) -> [Chain<'_>; 2] {
    [
        Chain {
            name: "outbound",
            hook: "output",
            far_end: "daddr",
            interface: "oifname",
            port: plan.outbound_port,
            rules: &plan.outbound,
        },
        Chain {
            name: "inbound",
            hook: "prerouting",
            far_end: "saddr",
            interface: "iifname",
            port: plan.inbound_port,
            rules: &plan.inbound,
        },
    ]
}

impl Chain<'_> {
    fn lines(&self, families: Families) -> Vec<(String, &'static str)> {
        let mut lines = vec![("meta l4proto != tcp return".to_owned(), "all that is not TCP")];
        for Rule { matches, action, why } in self.rules {
            let verdict = match action {
                Action::Leave => "return".to_owned(),
                Action::Redirect(port) => format!("redirect to :{port}"),
            };
            let conditions = match matches {
                Match::NotOpening => vec!["tcp flags & (fin | syn | rst | ack) != syn".to_owned()],
                Match::Uid(uid) => vec![format!("meta skuid {uid}")],
                Match::Mark(mark) => vec![format!("meta mark {mark:#x}")],
                Match::Loopback => vec![format!("{} \"lo\"", self.interface)],
                Match::Networks(networks) => {
                    let (v4, v6) = networks
                        .as_slice()
                        .iter()
                        .partition::<Vec<&ipnet::IpNet>, _>(|network| network.addr().is_ipv4());
                    let v6 = if families == Families::V4 { Vec::new() } else { v6 };
                    [("ip", v4), ("ip6", v6)]
                        .into_iter()
                        .filter(|(_, networks)| !networks.is_empty())
                        .map(|(family, networks)| format!("{family} {} {}", self.far_end, set(&networks)))
                        .collect()
                }
                Match::Ports(ports) => {
                    let ranges = ports
                        .ranges()
                        .iter()
                        .map(|range| match (range.start(), range.end()) {
                            (start, end) if start == end => start.to_string(),
                            (start, end) => format!("{start}-{end}"),
                        });
                    vec![format!("tcp dport {}", set(&ranges.collect::<Vec<_>>()))]
                }
                // Older versions of nft want the protocol named in the very rule that redirects to a port.
                Match::Every => vec!["meta l4proto tcp".to_owned()],
            };
            lines.extend(
                conditions
                    .into_iter()
                    .map(|condition| (format!("{condition} {verdict}"), *why)),
            );
        }
        lines
    }
}

fn set(members: &[impl ToString]) -> String {
    let members = members.iter().map(ToString::to_string).collect::<Vec<_>>();
    format!("{{ {} }}", members.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interception::{InitArgs, plan::Users};

    fn plan(args: &[&str]) -> Plan {
        Plan::new(&InitArgs::from_words(args), &Users::all()).unwrap()
    }

    const ALL: &[&str] = &[
        "--exclude-mark",
        "0x539",
        "--skip-outbound-ports",
        "22,8000-8010",
        "--skip-outbound-cidrs",
        "10.0.0.0/8,192.0.2.7,fd00::/8",
        "--skip-inbound-ports",
        "9100",
        "--skip-inbound-cidrs",
        "10.1.0.0/16",
    ];

    #[test]
    fn the_script_for_both_families_reads_as_agreed() {
        let expected = r#"add table inet hauberk
delete table inet hauberk
table inet hauberk {
	chain outbound {
		type nat hook output priority -100; policy accept;
		meta l4proto != tcp return comment "all that is not TCP"
		tcp flags & (fin | syn | rst | ack) != syn return comment "connections that are already open"
		meta skuid 1337 return comment "the proxy itself"
		meta mark 0x539 return comment "excluded mark"
		oifname "lo" return comment "calls that stay in the pod"
		ip daddr { 127.0.0.0/8 } return comment "loopback addresses"
		ip6 daddr { ::1/128 } return comment "loopback addresses"
		ip daddr { 10.0.0.0/8, 192.0.2.7/32 } return comment "skipped outbound networks"
		ip6 daddr { fd00::/8 } return comment "skipped outbound networks"
		tcp dport { 22, 8000-8010 } return comment "skipped outbound ports"
		meta l4proto tcp redirect to :15001 comment "everything else to the proxy"
	}
	chain inbound {
		type nat hook prerouting priority -100; policy accept;
		meta l4proto != tcp return comment "all that is not TCP"
		tcp flags & (fin | syn | rst | ack) != syn return comment "connections that are already open"
		meta mark 0x539 return comment "excluded mark"
		iifname "lo" return comment "calls that stay in the pod"
		tcp dport { 15001, 15006, 15020 } return comment "ports of the proxy"
		ip saddr { 10.1.0.0/16 } return comment "skipped inbound networks"
		tcp dport { 9100 } return comment "skipped inbound ports"
		meta l4proto tcp redirect to :15006 comment "everything else to the proxy"
	}
}
"#;
        assert_eq!(script(&plan(ALL), Families::V4AndV6), expected);
    }

    #[test]
    fn without_ipv6_the_table_is_of_family_ip_and_names_no_v6_network() {
        let script = script(&plan(ALL), Families::V4);
        assert!(script.starts_with("add table ip hauberk\ndelete table ip hauberk\ntable ip hauberk {\n"));
        assert!(!script.contains("ip6") && !script.contains("inet"), "{script}");
    }

    #[test]
    fn the_script_that_forgets_failed_connections_reads_as_agreed() {
        let expected = r#"table inet hauberk {
	ct timeout failed_v4 {
		protocol tcp;
		l3proto ip;
		policy = { syn_sent : 1, close : 1 };
	}
	ct timeout failed_v6 {
		protocol tcp;
		l3proto ip6;
		policy = { syn_sent : 1, close : 1 };
	}
	chain forget {
		type filter hook output priority -150; policy accept;
		ct state new meta nfproto ipv4 meta l4proto tcp meta skuid 1337 ct timeout set "failed_v4" comment "failed connections of the proxy"
		ct state new meta nfproto ipv6 meta l4proto tcp meta skuid 1337 ct timeout set "failed_v6" comment "failed connections of the proxy"
		ct state new meta nfproto ipv4 meta l4proto tcp meta mark 0x539 ct timeout set "failed_v4" comment "failed connections of the proxy"
		ct state new meta nfproto ipv6 meta l4proto tcp meta mark 0x539 ct timeout set "failed_v6" comment "failed connections of the proxy"
	}
}
"#;
        assert_eq!(forget_script(&plan(ALL), Families::V4AndV6), expected);
        let v4 = forget_script(&plan(ALL), Families::V4);
        assert!(
            v4.starts_with("table ip hauberk {\n") && !v4.contains("v6"),
            "{v4}"
        );
        assert!(!v4.contains("nfproto"), "{v4}");
    }

    /// What nft 1.0.6 answers for the default plan.
    const LISTING: &str = r#"table inet hauberk {
	chain outbound {
		type nat hook output priority -100; policy accept;
		meta l4proto != tcp return comment "all that is not TCP"
		tcp flags != syn / fin,syn,rst,ack return comment "connections that are already open"
		meta skuid 1337 return comment "the proxy itself"
		oifname "lo" return comment "calls that stay in the pod"
		ip daddr 127.0.0.0/8 return comment "loopback addresses"
		ip6 daddr ::1 return comment "loopback addresses"
		meta l4proto tcp redirect to :15001 comment "everything else to the proxy"
	}

	chain inbound {
		type nat hook prerouting priority -100; policy accept;
		meta l4proto != tcp return comment "all that is not TCP"
		tcp flags != syn / fin,syn,rst,ack return comment "connections that are already open"
		iifname "lo" return comment "calls that stay in the pod"
		tcp dport { 15001, 15006, 15020 } return comment "ports of the proxy"
		meta l4proto tcp redirect to :15006 comment "everything else to the proxy"
	}
}
"#;

    #[test]
    fn a_listing_of_the_same_rules_in_the_words_of_nft_is_accepted() {
        assert_eq!(compare(&plan(&[]), Families::V4AndV6, LISTING), Ok(()));
    }

    #[test]
    fn a_listing_that_lacks_something_is_refused_with_what_it_lacks() {
        for (from, to, said) in [
            (
                "hook prerouting",
                "hook input",
                "chain inbound does not stand at the prerouting hook",
            ),
            (
                "\t\tmeta skuid 1337 return comment \"the proxy itself\"\n",
                "",
                "chain outbound should hold",
            ),
            (
                "redirect to :15006 ",
                "redirect to :15007 ",
                "chain inbound does not end by redirecting to port 15006",
            ),
            ("chain inbound", "chain other", "chain inbound does not stand"),
        ] {
            let difference = compare(&plan(&[]), Families::V4AndV6, &LISTING.replace(from, to)).unwrap_err();
            assert!(difference.starts_with(said), "{from}: {difference}");
        }
    }
}

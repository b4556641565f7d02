//! What is redirected and what is left alone, as two ordered lists of rules that know nothing of nft or iptables.
//!
//! Both backends render the same [`Plan`], so they cannot differ in meaning, and the probe asks it which address is
//! worth dialling. A rule keeps the reason why it is there; it becomes the comment one sees in `nft list ruleset`.
//!
//! What is left alone for good reason:
//! * Packets that do not open a connection. NAT looks at the first packet of a connection only, but a kernel that
//!   starts to track in the middle of one takes any packet for the first.
//! * Everything over the loopback interface, which includes an app that calls its own pod address: such a call never
//!   leaves the pod, and the inbound side could not tell it from the proxy's own delivery to the app.
//! * UDP and everything else that is not TCP.

use std::net::SocketAddr;

use api::{Networks, Ports};

use super::{InitArgs, InterceptionError};

/// The rules for connections the pod opens and for connections it receives, each in order of evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) outbound: Vec<Rule>,
    pub(crate) inbound: Vec<Rule>,
    pub(crate) proxy_uid: u32,
    pub(crate) outbound_port: u16,
    pub(crate) inbound_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) matches: Match,
    pub(crate) action: Action,
    pub(crate) why: &'static str,
}

/// What a rule looks at. TCP is a condition of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// Packets other than the one which opens a connection.
    NotOpening,
    /// Sent by this user.
    Uid(u32),
    Mark(u32),
    /// Leaves through (outbound) or came in through (inbound) the loopback interface.
    Loopback,
    /// To one of these (outbound) or from one of these (inbound).
    Networks(Networks),
    /// Destination port.
    Ports(Ports),
    Every,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Leave,
    Redirect(u16),
}

/// The users that exist in this user namespace, from the text of `/proc/self/uid_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Users(Vec<std::ops::Range<u64>>);

impl Plan {
    pub(crate) fn new(args: &InitArgs, users: &Users) -> Result<Self, InterceptionError> {
        let own = [args.outbound_port, args.inbound_port, args.admin_port];
        if own[0] == own[1] || own[0] == own[2] || own[1] == own[2] {
            return Err(InterceptionError::PortsCollide {
                outbound: args.outbound_port,
                inbound: args.inbound_port,
                admin: args.admin_port,
            });
        }
        // The kernel refuses rules about a user who cannot exist, as in a rootless namespace with a single one.
        let proxy_user_exists = users.contain(args.proxy_uid);
        if !proxy_user_exists && args.exclude_mark.is_none() {
            return Err(InterceptionError::NoSuchUser { uid: args.proxy_uid });
        }
        let leave = |matches, why| Rule {
            matches,
            action: Action::Leave,
            why,
        };
        let redirect = |port, why| Rule {
            matches: Match::Every,
            action: Action::Redirect(port),
            why,
        };

        let mut outbound = vec![leave(Match::NotOpening, "connections that are already open")];
        let mut inbound = outbound.clone();
        if proxy_user_exists {
            outbound.push(leave(Match::Uid(args.proxy_uid), "the proxy itself"));
        }
        if let Some(mark) = args.exclude_mark {
            outbound.push(leave(Match::Mark(mark), "excluded mark"));
            inbound.push(leave(Match::Mark(mark), "excluded mark"));
        }
        outbound.push(leave(Match::Loopback, "calls that stay in the pod"));
        outbound.push(leave(Match::Networks(loopback()), "loopback addresses"));
        inbound.push(leave(Match::Loopback, "calls that stay in the pod"));
        inbound.push(leave(
            Match::Ports(own.into_iter().collect()),
            "ports of the proxy",
        ));

        if !args.skip_outbound_cidrs.is_empty() {
            let networks = Match::Networks(args.skip_outbound_cidrs.clone());
            outbound.push(leave(networks, "skipped outbound networks"));
        }
        if !args.skip_outbound_ports.is_empty() {
            outbound.push(leave(
                Match::Ports(args.skip_outbound_ports.clone()),
                "skipped outbound ports",
            ));
        }
        if !args.skip_inbound_cidrs.is_empty() {
            let networks = Match::Networks(args.skip_inbound_cidrs.clone());
            inbound.push(leave(networks, "skipped inbound networks"));
        }
        if !args.skip_inbound_ports.is_empty() {
            inbound.push(leave(
                Match::Ports(args.skip_inbound_ports.clone()),
                "skipped inbound ports",
            ));
        }
        outbound.push(redirect(args.outbound_port, "everything else to the proxy"));
        inbound.push(redirect(args.inbound_port, "everything else to the proxy"));
        Ok(Self {
            outbound,
            inbound,
            proxy_uid: args.proxy_uid,
            outbound_port: args.outbound_port,
            inbound_port: args.inbound_port,
        })
    }

    /// What happens to an unmarked connection which `uid` opens to `destination` outside the pod, and why.
    pub(crate) fn outbound_of(&self, uid: u32, destination: SocketAddr) -> (Action, &'static str) {
        for rule in &self.outbound {
            let hit = match &rule.matches {
                Match::NotOpening | Match::Mark(_) | Match::Loopback => false,
                Match::Uid(excluded) => *excluded == uid,
                Match::Networks(networks) => networks.contains(destination),
                Match::Ports(ports) => ports.contains(destination.port()),
                Match::Every => true,
            };
            if hit {
                return (rule.action, rule.why);
            }
        }
        (Action::Leave, "no rule matched")
    }
}

impl Users {
    pub(crate) fn of(uid_map: &str) -> Self {
        let range = |line: &str| {
            let mut fields = line.split_whitespace();
            let first: u64 = fields.next()?.parse().ok()?;
            let count: u64 = fields.nth(1)?.parse().ok()?;
            Some(first..first.saturating_add(count))
        };
        Self(uid_map.lines().filter_map(range).collect())
    }

    fn contain(&self, uid: u32) -> bool {
        self.0.iter().any(|range| range.contains(&u64::from(uid)))
    }

    /// The namespace of a machine that uses none.
    #[cfg(test)]
    pub(crate) fn all() -> Self {
        Self::of("         0          0 4294967295\n")
    }
}

fn loopback() -> Networks {
    "127.0.0.0/8,::1/128"
        .parse()
        .expect("two networks without host bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &[&str]) -> Plan {
        Plan::new(&InitArgs::from_words(args), &Users::all()).unwrap()
    }

    #[test]
    fn the_outbound_side_redirects_all_but_what_is_listed() {
        let plan = plan(&[
            "--skip-outbound-ports",
            "22,8000-8010",
            "--skip-outbound-cidrs",
            "10.96.0.0/12,fd00::/8",
        ]);
        for (uid, destination, redirected) in [
            (0, "192.0.2.1:80", true),
            (1337, "192.0.2.1:80", false),
            (0, "127.0.0.1:80", false),
            (0, "[::1]:80", false),
            (0, "192.0.2.1:22", false),
            (0, "192.0.2.1:8005", false),
            (0, "192.0.2.1:8011", true),
            (0, "10.100.0.1:80", false),
            (0, "[fd12::1]:80", false),
            (0, "[2001:db8::1]:80", true),
        ] {
            let (action, why) = plan.outbound_of(uid, destination.parse().unwrap());
            let expected = if redirected {
                Action::Redirect(15001)
            } else {
                Action::Leave
            };
            assert_eq!(action, expected, "{destination} by {uid}: {why}");
        }
    }

    #[test]
    fn the_last_rule_of_each_side_redirects_and_no_other_does() {
        let plan = plan(&["--exclude-mark", "1337", "--skip-inbound-ports", "9"]);
        for (rules, port) in [(&plan.outbound, 15001), (&plan.inbound, 15006)] {
            let (last, before) = rules.split_last().unwrap();
            assert_eq!(
                (&last.matches, last.action),
                (&Match::Every, Action::Redirect(port))
            );
            assert!(before.iter().all(|rule| rule.action == Action::Leave));
        }
    }

    #[test]
    fn two_uses_of_one_port_are_refused_by_name() {
        let args = InitArgs::from_words(&["--outbound-port", "15006"]);
        let error = Plan::new(&args, &Users::all()).unwrap_err().to_string();
        assert!(
            error.contains("--outbound-port 15006") && error.contains("--inbound-port 15006"),
            "{error}"
        );
    }

    #[test]
    fn a_user_who_does_not_exist_here_needs_a_mark_in_its_place() {
        let rootless = Users::of("         0       1000          1\n");
        let error = Plan::new(&InitArgs::default(), &rootless)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("1337") && error.contains("--exclude-mark"),
            "{error}"
        );
        let plan = Plan::new(&InitArgs::from_words(&["--exclude-mark", "7"]), &rootless).unwrap();
        assert!(
            plan.outbound
                .iter()
                .all(|rule| !matches!(rule.matches, Match::Uid(_)))
        );

        let pod_with_users = Users::of("0 1966080 65536\n");
        assert!(Plan::new(&InitArgs::default(), &pod_with_users).is_ok());
        assert!(!Users::of("nonsense\n1\n").contain(1));
    }
}

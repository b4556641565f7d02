//! Whether a cluster is fit for Hauberk, and whether the caller may install it: `hauberk check --pre`.

use api::names::{AUTHORITY_SECRET, OPERATOR, ROOT_NAMESPACE};

use super::{Finding, definitions, fail, of, ok, warn};
use crate::facts::{Before, Known, Right, Server};

/// Nothing older has what is needed.
const OLDEST: (u32, u32) = (1, 20);
/// Written for this and later.
const MEANT: (u32, u32) = (1, 29);
/// What the operator cannot do without: one of each line.
const NEEDED: [&[&str]; 6] = [
    &["apps/v1"],
    &["admissionregistration.k8s.io/v1"],
    &["apiextensions.k8s.io/v1"],
    &["authentication.k8s.io/v1"],
    &["coordination.k8s.io/v1"],
    &["discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"],
];

/// Every check before an installation.
pub(crate) fn check(facts: &Before) -> Vec<Finding> {
    vec![
        version(&facts.server),
        apis(&facts.server),
        definitions::check(&facts.definitions, false),
        rights(&facts.rights),
        leftovers(facts),
    ]
}

/// The server's version; the installation asks this too.
pub(super) fn version(server: &Known<Server>) -> Finding {
    const CHECK: &str = "kubernetes version";
    of(CHECK, server, |server| {
        let version = &server.version;
        let (major, minor) = MEANT;
        if server.number < OLDEST {
            let says = format!("{version} is too old");
            fail(
                CHECK,
                says,
                format!("Kubernetes {major}.{minor} or later; 1.20 is the oldest that works"),
            )
        } else if server.number < MEANT {
            let says =
                format!("{version}: proxies are ordinary containers here, which start and end less tidily");
            warn(
                CHECK,
                says,
                format!("Kubernetes {major}.{minor} has native sidecar containers"),
            )
        } else {
            ok(CHECK, version)
        }
    })
}

fn apis(server: &Known<Server>) -> Finding {
    const CHECK: &str = "kubernetes APIs";
    of(CHECK, server, |server| {
        let missing: Vec<_> = NEEDED
            .iter()
            .filter(|choice| !choice.iter().any(|api| server.apis.contains(*api)))
            .map(|choice| choice[0])
            .collect();
        if missing.is_empty() {
            ok(CHECK, "everything that is needed is served")
        } else {
            let says = format!("not served: {}", missing.join(", "));
            fail(
                CHECK,
                says,
                "have the API server serve them (its flag --runtime-config)",
            )
        }
    })
}

fn rights(rights: &[(Right, Known<bool>)]) -> Finding {
    const CHECK: &str = "rights to install";
    let mut missing = Vec::new();
    for (right, allowed) in rights {
        match allowed {
            Ok(true) => {}
            Ok(false) => {
                let place = right.namespace.map_or(String::new(), |n| format!(" in {n}"));
                let group = if right.group.is_empty() { "" } else { "." };
                missing.push(format!("{}{group}{}{place}", right.resource, right.group));
            }
            Err(_) => return of(CHECK, allowed, |_| ok(CHECK, "")),
        }
    }
    if missing.is_empty() {
        ok(CHECK, "you may create everything that the charts have")
    } else {
        let says = format!("you may not create: {}", missing.join(", "));
        fail(
            CHECK,
            says,
            "install as a cluster's administrator, or have the rights given to you",
        )
    }
}

fn leftovers(facts: &Before) -> Finding {
    const CHECK: &str = "leftovers";
    of(CHECK, &facts.deployment, |deployment| {
        if deployment.is_some() {
            return ok(
                CHECK,
                format!("{OPERATOR} is installed already: this would be an upgrade"),
            );
        }
        let left = facts.webhooks.iter().filter(|w| matches!(w.bundles, Ok(Some(_))));
        let left: Vec<_> = left.map(|w| format!("{}webhookconfiguration", w.kind)).collect();
        if !left.is_empty() {
            let says = format!(
                "{} {OPERATOR} without an operator that answers",
                left.join(" and ")
            );
            let kinds: Vec<_> = left.iter().map(|kind| format!("{kind}/{OPERATOR}")).collect();
            return fail(CHECK, says, format!("kubectl delete {}", kinds.join(" ")));
        }
        if facts.secret == Ok(true) {
            return ok(
                CHECK,
                format!(
                    "the roots of an earlier installation are there and will be used again (Secret {ROOT_NAMESPACE}/{AUTHORITY_SECRET})"
                ),
            );
        }
        ok(CHECK, "nothing of an earlier installation")
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::check::Outcome;
    use crate::check::definitions::tests::current;
    use crate::facts::{Deployment, Webhook};

    pub(in crate::check) fn server(minor: u32) -> Server {
        Server {
            version: format!("v1.{minor}.0"),
            number: (1, minor),
            apis: NEEDED
                .iter()
                .map(|choice| choice[choice.len() - 1].to_owned())
                .collect(),
        }
    }

    fn webhook(kind: &'static str, there: bool) -> Webhook {
        let bundles = Ok(there.then(Vec::new));
        Webhook { kind, bundles }
    }

    fn facts() -> Before {
        let right = Right {
            group: "apps",
            resource: "deployments",
            namespace: Some(ROOT_NAMESPACE),
        };
        Before {
            server: Ok(server(33)),
            definitions: current(),
            rights: vec![(right, Ok(true))],
            deployment: Ok(None),
            webhooks: vec![webhook("mutating", false), webhook("validating", false)],
            secret: Ok(false),
        }
    }

    /// The one finding that is not well.
    #[track_caller]
    fn found(facts: &Before) -> Finding {
        let mut bad = check(facts).into_iter().filter(|f| f.outcome != Outcome::Ok);
        let finding = bad.next().expect("something is wrong");
        assert_eq!(bad.next(), None);
        finding
    }

    #[test]
    fn a_fit_cluster_passes() {
        assert!(check(&facts()).iter().all(|f| f.outcome == Outcome::Ok));
    }

    #[test]
    fn old_servers_are_warned_about_or_refused() {
        for (minor, expected) in [
            (19, Outcome::Fail),
            (20, Outcome::Warn),
            (28, Outcome::Warn),
            (29, Outcome::Ok),
        ] {
            assert_eq!(version(&Ok(server(minor))).outcome, expected, "1.{minor}");
        }
    }

    #[test]
    fn a_missing_api_is_named() {
        let mut facts = facts();
        facts
            .server
            .as_mut()
            .unwrap()
            .apis
            .remove("coordination.k8s.io/v1");
        let finding = found(&facts);
        assert_eq!(finding.says, "not served: coordination.k8s.io/v1");
    }

    #[test]
    fn a_missing_right_is_named() {
        let mut facts = facts();
        facts.rights[0].1 = Ok(false);
        let finding = found(&facts);
        assert_eq!(finding.outcome, Outcome::Fail);
        assert_eq!(
            finding.says,
            "you may not create: deployments.apps in hauberk-system"
        );
    }

    #[test]
    fn webhooks_without_an_operator_block_a_cluster_and_must_go() {
        let mut facts = facts();
        facts.webhooks[0] = webhook("mutating", true);
        let finding = found(&facts);
        assert_eq!(finding.outcome, Outcome::Fail);
        let remedy = "kubectl delete mutatingwebhookconfiguration/hauberk-control-plane";
        assert_eq!(finding.remedy.as_deref(), Some(remedy));
        facts.deployment = Ok(Some(Deployment::default()));
        assert_eq!(leftovers(&facts).outcome, Outcome::Ok);
    }
}

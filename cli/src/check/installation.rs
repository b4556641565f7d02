//! Whether an installation is healthy: `hauberk check`. Here the operators and what they need; `mesh` has the pods.

use std::collections::BTreeSet;

use api::names::{AUTHORITY_SECRET, OPERATOR, ROOT_NAMESPACE};

use super::{Finding, count, definitions, fail, mesh, of, ok, pre, warn};
use crate::facts::{Deployment, Installation, Known, Lease, Replica, Webhook};

const LOG: &str = "kubectl logs --namespace hauberk-system deployment/hauberk-control-plane";

/// Every check of an installation.
pub(crate) fn check(facts: &Installation) -> Vec<Finding> {
    let mut findings = vec![
        pre::version(&facts.server),
        definitions::check(&facts.definitions, true),
        deployment(&facts.deployment),
        endpoints(&facts.endpoints),
    ];
    findings.extend(replicas(&facts.replicas));
    findings.push(lease(&facts.lease, &facts.replicas));
    findings.push(secret(&facts.secret));
    findings.extend(webhooks(facts));
    findings.extend(mesh::check(facts));
    findings
}

fn deployment(found: &Known<Option<Deployment>>) -> Finding {
    const CHECK: &str = "operators";
    of(CHECK, found, |found| match found {
        None => fail(
            CHECK,
            format!("there is no Deployment {ROOT_NAMESPACE}/{OPERATOR}"),
            "install the chart hauberk",
        ),
        Some(Deployment {
            wanted,
            ready,
            updated,
        }) => {
            let says = format!("{ready} of {wanted} ready");
            if ready < wanted {
                let remedy = format!("kubectl describe pods --namespace {ROOT_NAMESPACE}; {LOG}");
                let finding = if *ready == 0 { fail } else { warn };
                finding(CHECK, says, remedy)
            } else if updated < wanted {
                let remedy = format!(
                    "wait, or kubectl rollout status --namespace {ROOT_NAMESPACE} deployment/{OPERATOR}"
                );
                warn(CHECK, format!("{says}, {updated} of the newest version"), remedy)
            } else if *wanted < 2 {
                let remedy = "set `replicas` to 2 or more";
                warn(
                    CHECK,
                    format!("{says}: nothing stands in for one that goes"),
                    remedy,
                )
            } else {
                ok(CHECK, says)
            }
        }
    })
}

fn endpoints(found: &Known<Option<usize>>) -> Finding {
    const CHECK: &str = "service";
    of(CHECK, found, |found| match found {
        None => fail(
            CHECK,
            format!("there is no Service {ROOT_NAMESPACE}/{OPERATOR} with endpoints"),
            "upgrade the chart hauberk, which has it",
        ),
        Some(0) => fail(CHECK, "no ready operator behind it: proxies cannot join", LOG),
        Some(n) => ok(CHECK, format!("{} behind it", count(*n, "operator", "operators"))),
    })
}

/// What operators say of themselves: one finding for those that could be asked, and one for their parts.
fn replicas(found: &Known<Vec<Replica>>) -> Vec<Finding> {
    const CHECK: &str = "health";
    let found = match found {
        Ok(found) => found,
        Err(_) => return vec![of(CHECK, found, |_| ok(CHECK, ""))],
    };
    let mut findings = Vec::new();
    let mut good = 0;
    for replica in found {
        let pod = &replica.pod;
        match &replica.health {
            Err(why) => findings.push(warn(
                CHECK,
                format!("{pod} could not be asked: {why}"),
                format!("the API server must reach port 15020 of pods in {ROOT_NAMESPACE}, and you need the right to get pods/proxy there"),
            )),
            Ok(health) => {
                let parts = health.dependencies.iter().filter(|d| d.status != "ok");
                let parts: Vec<_> = parts.map(|d| format!("{} is {}: {}", d.name, d.status, d.detail)).collect();
                let says = format!("{pod}: {}", parts.join("; "));
                match health.status.as_str() {
                    "ok" => good += 1,
                    "failing" => findings.push(fail(CHECK, says, LOG)),
                    _ => findings.push(warn(CHECK, says, LOG)),
                }
            }
        }
    }
    if good > 0 {
        let says = count(
            good,
            "operator says that it is well",
            "operators say that they are well",
        );
        findings.insert(0, ok(CHECK, says));
    }
    findings
}

fn lease(found: &Known<Option<Lease>>, replicas: &Known<Vec<Replica>>) -> Finding {
    const CHECK: &str = "lease";
    const NOBODY: &str = "nobody writes statuses, trust bundles and the webhooks' roots";
    of(CHECK, found, |found| {
        let Some(Lease {
            holder: Some(holder),
            renewed_seconds_ago,
            duration_seconds,
        }) = found
        else {
            return fail(CHECK, format!("nobody holds it: {NOBODY}"), LOG);
        };
        match renewed_seconds_ago {
            // Clocks differ by some seconds.
            Some(ago) if *ago > duration_seconds + 10 => {
                return fail(
                    CHECK,
                    format!("{holder} held it, and renewed it {ago} s ago: {NOBODY}"),
                    LOG,
                );
            }
            None => return fail(CHECK, format!("{holder} has it and never renewed it"), LOG),
            Some(_) => {}
        }
        let known = replicas
            .as_ref()
            .is_ok_and(|all| all.iter().any(|r| &r.pod == holder));
        if known || replicas.is_err() {
            ok(CHECK, format!("held by {holder}"))
        } else {
            let remedy = format!("wait {duration_seconds} s: another takes it over");
            warn(CHECK, format!("held by {holder}, which does not run"), remedy)
        }
    })
}

fn secret(found: &Known<bool>) -> Finding {
    const CHECK: &str = "authority";
    of(CHECK, found, |there| {
        if *there {
            ok(
                CHECK,
                format!("its roots and keys are in the Secret {ROOT_NAMESPACE}/{AUTHORITY_SECRET}"),
            )
        } else {
            let says = format!(
                "there is no Secret {ROOT_NAMESPACE}/{AUTHORITY_SECRET}: no proxy gets a certificate"
            );
            fail(CHECK, says, LOG)
        }
    })
}

/// Whether the API server knows the operators' roots. One configuration may be absent on purpose.
fn webhooks(facts: &Installation) -> Vec<Finding> {
    let roots = facts
        .bundles
        .as_ref()
        .ok()
        .and_then(|bundles| bundles.get(ROOT_NAMESPACE));
    let roots = roots.map(|pem| certificates(pem));
    facts
        .webhooks
        .iter()
        .map(|found| webhook(found, roots.as_ref()))
        .collect()
}

fn webhook(found: &Webhook, roots: Option<&BTreeSet<String>>) -> Finding {
    let (check, value) = match found.kind {
        "mutating" => ("webhook for pods", "injection.enabled"),
        _ => ("webhook for objects", "validation.enabled"),
    };
    of(check, &found.bundles, |bundles| {
        let Some(bundles) = bundles else {
            let says = format!("there is no {}webhookconfiguration {OPERATOR}", found.kind);
            return warn(
                check,
                says,
                format!("if that is not meant, upgrade with {value}=true"),
            );
        };
        let wrong =
            "the operator that holds the lease writes it within a minute; its log says why it does not";
        if bundles.iter().any(|pem| certificates(pem).is_empty()) {
            return fail(
                check,
                "the API server knows no root by which to trust the operators (caBundle is empty)",
                wrong,
            );
        }
        match roots {
            Some(roots) if bundles.iter().any(|pem| certificates(pem) != *roots) => fail(
                check,
                "the API server knows other roots than those of the mesh (caBundle)",
                wrong,
            ),
            Some(_) => ok(check, "registered, with the roots of the mesh"),
            None => warn(
                check,
                "registered, with roots that could not be compared to those of the mesh",
                wrong,
            ),
        }
    })
}

/// The certificates of a PEM text, in no order and without line ends.
pub(super) fn certificates(pem: &str) -> BTreeSet<String> {
    let parts = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    parts
        .filter_map(|part| part.split_once("-----END CERTIFICATE-----"))
        .map(|(body, _)| body.split_whitespace().collect())
        .collect()
}

#[cfg(test)]
pub(super) mod tests;

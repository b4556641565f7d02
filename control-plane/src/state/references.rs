//! Whether what a VirtualService names is there: the Services, their ports, their subsets. Checked again whenever one of
//! those Services or its DestinationRules change, so that the order of creation does not matter.

use std::collections::BTreeSet;

use crds::check::{Finding, MAX_FINDINGS, Severity};

use super::World;
use super::host::ServiceName;
use super::joined::Joint;
use super::rules::{Reference, Rules, Target};

/// What is named and is not there, field by field.
pub(super) fn unresolved(world: &World, namespace: &str, rules: &Rules) -> Vec<Finding> {
    // A port that is left out may be that of the host, so those of the hosts are known here. Adding a host or a port
    // can only resolve more, never less: what is accepted does not depend on the order of creation.
    let dialled: BTreeSet<u16> = rules
        .steered()
        .filter_map(|host| world.service(host))
        .flat_map(|service| service.ports.iter().map(|p| p.number))
        .collect();
    let mut findings: Vec<_> = rules
        .references
        .iter()
        .filter_map(|reference| problem(world, reference, &dialled, rules.steers_others()))
        .chain(world.joints(namespace, rules).into_iter().filter_map(delegate))
        .take(MAX_FINDINGS + 1)
        .collect();
    if findings.len() > MAX_FINDINGS {
        findings.truncate(MAX_FINDINGS);
        findings.push(error(
            "spec",
            "names more that is not there; see to the ones above first".into(),
        ));
    }
    findings
}

/// Why a rule cannot leave its requests to another object.
fn delegate(joint: Joint<'_>) -> Option<Finding> {
    let problem = joint.leaf.err()?;
    let to = &joint.delegation.to;
    let message = format!(
        "names VirtualService `{}` of namespace `{}`, which {problem}",
        to.name, to.namespace
    );
    Some(error(&format!("spec.http[{}].delegate", joint.rule), message))
}

/// Why an `ExternalName` is of no use to a rule.
pub(super) fn external(name: &ServiceName, dns: &str) -> String {
    format!(
        "names Service `{}` of namespace `{}`, which is an ExternalName for `{dns}` and has no endpoints of its own: name \
         the Service that it leads to; connections to what is outside the cluster pass through",
        name.name, name.namespace
    )
}

fn problem(world: &World, reference: &Reference, dialled: &BTreeSet<u16>, wildcard: bool) -> Option<Finding> {
    let Reference { field, target } = reference;
    let Target {
        service: name,
        port,
        subset,
    } = target;
    if let Some(dns) = world.external_name(name) {
        return Some(error(&format!("{field}.host"), external(name, dns)));
    }
    let Some(service) = world.service(name) else {
        let message = format!(
            "names Service `{}` of namespace `{}`, which does not exist: create it or correct the name",
            name.name, name.namespace
        );
        return Some(error(&format!("{field}.host"), message));
    };
    let ports = service.port_list();
    match port {
        Some(port) if service.port(*port).is_none() => {
            let message = format!("{port} is not a port of {name}: it has {ports}");
            return Some(error(&format!("{field}.port.number"), message));
        }
        // Which ports the Services below a wildcard have is known when they are dialled.
        None if !wildcard
            && service.ports.len() != 1
            && !dialled.iter().any(|port| service.port(*port).is_some()) =>
        {
            let message = format!(
                "is needed: {name} has the ports {ports}, and none of them is a port of this object's hosts"
            );
            return Some(error(&format!("{field}.port"), message));
        }
        Some(_) | None => {}
    }
    let subset = subset.as_ref()?;
    let defined = subsets(world, target);
    if defined.contains(subset.as_str()) {
        return None;
    }
    let message = if defined.is_empty() {
        format!("`{subset}` is not defined: no DestinationRule for {name} has subsets")
    } else {
        let list = defined.into_iter().collect::<Vec<_>>().join(", ");
        format!("`{subset}` is not defined: the DestinationRules for {name} have {list}")
    };
    Some(error(&format!("{field}.subset"), message))
}

fn subsets<'a>(world: &'a World, target: &Target) -> BTreeSet<&'a str> {
    let policies = world.governing(&target.service).map(|(_, policy)| policy);
    policies
        .flat_map(|policy| &policy.subsets)
        .map(|subset| subset.name.as_str())
        .collect()
}

fn error(field: &str, message: String) -> Finding {
    Finding {
        field: field.to_owned(),
        severity: Severity::Error,
        message,
    }
}

//! Where an older object has what a younger one claims. Said in the status of the younger; the lookup decides.

use super::policy::Policy;
use super::rules::{HttpTemplate, Rules, TcpTemplate};
use super::{SourceObject, World};

/// Of a VirtualService in force, the rules that an older one for the same host leaves nothing to.
pub(super) fn of_rules(world: &World, object: &SourceObject, rules: &Rules) -> Vec<String> {
    let mut found = Vec::new();
    for (written, host) in &rules.hosts {
        let all = world.steering_host(host);
        let older = all.iter().take_while(|(other, _)| !same(other, object));
        let older: Vec<_> = older
            .filter(|(_, other)| other.export.overlaps(&rules.export))
            .collect();
        let http = |(i, rule): (usize, &HttpTemplate)| {
            let (winner, _) = older
                .iter()
                .find(|(_, other)| other.http.iter().any(|other| takes_requests_of(other, rule)))?;
            Some((format!("spec.http[{i}]"), winner))
        };
        let tcp = |(i, rule): (usize, &TcpTemplate)| {
            let (winner, _) = older
                .iter()
                .find(|(_, other)| other.tcp.iter().any(|other| takes_connections_of(other, rule)))?;
            let field = match i.checked_sub(rules.tls) {
                Some(i) => format!("spec.tcp[{i}]"),
                None => format!("spec.tls[{i}]"),
            };
            Some((field, winner))
        };
        let lost: Vec<_> = rules.http.iter().enumerate().filter_map(http).collect();
        let lost_tcp = rules.tcp.iter().enumerate().filter_map(tcp);
        let lost: Vec<_> = lost.into_iter().chain(lost_tcp).collect();
        match lost.first() {
            Some((_, winner)) if lost.len() == rules.http.len() + rules.tcp.len() => found.push(format!(
                "host `{written}`: {winner} is older and has it; the rules here have no effect on it"
            )),
            _ => found.extend(lost.iter().map(|(field, winner)| {
                format!("host `{written}`: {winner} is older and takes all that {field} is for")
            })),
        }
    }
    found
}

fn same(one: &SourceObject, other: &SourceObject) -> bool {
    (&one.namespace, &one.name) == (&other.namespace, &other.name)
}

/// Whether nothing is left to a rule behind an older one, as far as that shows without knowing what requests look like.
fn takes_requests_of(older: &HttpTemplate, rule: &HttpTemplate) -> bool {
    let has = |block| older.blocks.contains(block);
    older.blocks.is_empty() || (!rule.blocks.is_empty() && rule.blocks.iter().all(has))
}

fn takes_connections_of(older: &TcpTemplate, rule: &TcpTemplate) -> bool {
    let has = |block| older.blocks.contains(block);
    older.blocks.is_empty() || (!rule.blocks.is_empty() && rule.blocks.iter().all(has))
}

/// Of a DestinationRule in force, what an older one of its namespace for the same host and clients defines too. Such objects
/// are one.
pub(super) fn of_policy(world: &World, object: &SourceObject, policy: &Policy) -> Vec<String> {
    let mut found = Vec::new();
    let all = world.governing_host(&policy.target);
    let older = all
        .iter()
        .take_while(|(other, _)| !same(other, object))
        .filter(|(other, theirs)| {
            other.namespace == object.namespace
                && theirs.selector == policy.selector
                && theirs.export.overlaps(&policy.export)
        });
    for (other, theirs) in older {
        let who = format!("{other} is older and has it");
        if policy.top.is_some() && theirs.top.is_some() {
            found.push(format!("trafficPolicy for `{}`: {who}", policy.host));
        }
        for subset in &policy.subsets {
            if theirs.subsets.iter().any(|s| s.name == subset.name) {
                found.push(format!("subset `{}` of `{}`: {who}", subset.name, policy.host));
            }
        }
    }
    found
}

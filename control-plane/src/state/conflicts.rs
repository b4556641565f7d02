//! Where an older object has what a younger one claims. Said in the status of the younger; the lookup decides.

use api::limits::MAX_HTTP_RULES;

use super::lints::MAX_COMPARED;
use super::policy::Policy;
use super::rules::{ActionTemplate, HttpTemplate, Rules, TcpTemplate};
use super::{SourceObject, World};

/// Of a VirtualService in force, the rules that an older one for the same host leaves nothing to, and whether there is room
/// for them.
pub(super) fn of_rules(world: &World, object: &SourceObject, rules: &Rules) -> Vec<String> {
    let mut found = Vec::new();
    let mut pairs = Pairs(MAX_COMPARED);
    for (written, host) in &rules.hosts {
        let all = world.steering_host(host);
        let seen = all
            .into_iter()
            .filter(|(_, other)| other.export.overlaps(&rules.export));
        let mut fitting = world.fitting(up_to(object, seen));
        if fitting.pop().is_none_or(|(last, _)| !same(&last, object)) {
            found.push(format!(
                "host `{written}`: with the older objects for it there would be more than {MAX_HTTP_RULES} rules for \
                 requests, which is the most, so all rules here are left out; remove some, or merge what several say"
            ));
            continue;
        }
        // Clients that do not see the older one have the rules here.
        fitting.retain(|(_, other)| other.export.covers(&rules.export));
        let older = fitting;
        let http = |(i, rule): (usize, &HttpTemplate)| {
            let (winner, _) = older
                .iter()
                .find(|(_, other)| other.http.iter().any(|other| pairs.take_requests(other, rule)))?;
            Some((format!("spec.http[{i}]"), winner))
        };
        let lost: Vec<_> = rules.http.iter().enumerate().filter_map(http).collect();
        let tcp = |(i, rule): (usize, &TcpTemplate)| {
            let (winner, _) = older
                .iter()
                .find(|(_, other)| other.tcp.iter().any(|other| pairs.take_connections(other, rule)))?;
            let field = match i.checked_sub(rules.tls) {
                Some(i) => format!("spec.tcp[{i}]"),
                None => format!("spec.tls[{i}]"),
            };
            Some((field, winner))
        };
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

/// Objects up to this one.
fn up_to<'a>(
    object: &SourceObject,
    all: impl Iterator<Item = (SourceObject, &'a Rules)>,
) -> Vec<(SourceObject, &'a Rules)> {
    let mut seen = Vec::new();
    for one in all {
        let last = same(&one.0, object);
        seen.push(one);
        if last {
            break;
        }
    }
    seen
}

fn same(one: &SourceObject, other: &SourceObject) -> bool {
    (&one.namespace, &one.name) == (&other.namespace, &other.name)
}

/// Pairs of blocks that may still be compared for an object. Beyond them nothing is found.
struct Pairs(usize);

impl Pairs {
    /// Whether nothing is left to a rule behind an older one, as far as that shows without knowing what requests look like.
    fn take_requests(&mut self, older: &HttpTemplate, rule: &HttpTemplate) -> bool {
        // What the rules of another object leave is left to the next rule here.
        let delegates = matches!(older.action, ActionTemplate::Delegate(_));
        !delegates && self.take(&older.blocks, &rule.blocks)
    }

    fn take_connections(&mut self, older: &TcpTemplate, rule: &TcpTemplate) -> bool {
        self.take(&older.blocks, &rule.blocks)
    }

    fn take<B: PartialEq>(&mut self, older: &[B], blocks: &[B]) -> bool {
        let pairs = older.len().max(1) * blocks.len().max(1);
        let Some(left) = self.0.checked_sub(pairs) else {
            self.0 = 0;
            return false;
        };
        self.0 = left;
        older.is_empty() || (!blocks.is_empty() && blocks.iter().all(|block| older.contains(block)))
    }
}

/// Of a DestinationRule in force, what an older one of its namespace for the same host and all of its clients defines too. Such objects
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
                && theirs.export.covers(&policy.export)
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

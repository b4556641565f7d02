//! `/validate`: what the operator would think of an object, before there is one. A pure function that runs the object
//! through the same `World::apply` as the operator does, on a copy: what is refused here is what would not come into force
//! there, in the same words. What is legal and odd gets a warning; so does what names something that is not there, because
//! objects may be applied in any order.

use std::collections::BTreeSet;

use crds::parse::served;
use crds::{Kind, Object, ObjectKey};
use serde_json::Value;

use super::review::{Answer, GroupKind, Operation, Request};
use crate::source::Change;
use crate::state::{Host, ObjectName, ObjectState, Verdict, World};

/// Findings of one refusal; those beyond them are counted.
const MAX_FINDINGS: usize = 10;

/// The answer for an object of ours, or why the request does not belong here.
pub(super) fn judge(world: &World, request: &Request) -> Result<Answer, String> {
    let kind = kind(&request.kind)?;
    let key = ObjectKey {
        kind,
        namespace: request.namespace.clone(),
        name: request.name.clone(),
    };
    let sub_resource = request.sub_resource.as_deref().unwrap_or_default();
    if !sub_resource.is_empty() {
        return Ok(Answer::Allow(Vec::new()));
    }
    match request.operation {
        Operation::Connect => Ok(Answer::Allow(Vec::new())),
        Operation::Delete => {
            let (after, _) = world.apply([Change::Remove(key)]);
            let old = read(kind, request, &request.old_object).ok();
            Ok(Answer::Allow(losers(world, &after, old.as_ref())))
        }
        Operation::Create | Operation::Update if !request.object.is_object() => {
            Err("request.object: is missing".to_owned())
        }
        // Whoever takes the finalizers off is not to be stopped.
        Operation::Create | Operation::Update if is_going(&request.object) => Ok(Answer::Allow(Vec::new())),
        Operation::Create | Operation::Update => Ok(change(world, kind, request)),
    }
}

fn change(world: &World, kind: Kind, request: &Request) -> Answer {
    // What was let in once stands in nobody's way: labels of such an object can be changed.
    let unchanged =
        request.operation == Operation::Update && request.object["spec"] == request.old_object["spec"];
    let refuse = |problems: Vec<String>| {
        if unchanged {
            return Answer::Allow(problems);
        }
        let key = ObjectKey {
            kind,
            namespace: request.namespace.clone(),
            name: request.name.clone(),
        };
        Answer::Refuse(format!(
            "{} is refused: {}",
            key.to_string().trim_end_matches('/'),
            listed(problems)
        ))
    };
    let object = match read(kind, request, &request.object) {
        Ok(object) => object,
        Err(problem) => return refuse(vec![problem]),
    };
    let key = object.key();
    let old = read(kind, request, &request.old_object).ok();
    let (after, _) = world.apply([Change::Set(object.clone())]);
    let Some(state) = after.object(kind, &key.namespace, &key.name) else {
        return Answer::Allow(Vec::new());
    };
    if state.verdict == Verdict::Invalid {
        let wrong = state.findings.iter().filter(|finding| finding.severity.refuses());
        return refuse(wrong.map(ToString::to_string).collect());
    }
    let mut warnings = warnings(&state);
    for object in [Some(&object), old.as_ref()].into_iter().flatten() {
        for loser in losers(world, &after, Some(object)) {
            if !warnings.contains(&loser) {
                warnings.push(loser);
            }
        }
    }
    Answer::Allow(warnings)
}

fn warnings(state: &ObjectState) -> Vec<String> {
    let ObjectState {
        reference,
        findings,
        accepted: _,
        verdict,
        in_force,
        conflicts,
        warnings,
    } = state;
    let mut all = conflicts.clone();
    all.extend(findings.iter().map(|finding| {
        let text = finding.to_string();
        text.strip_prefix("warning: ").unwrap_or(&text).to_owned()
    }));
    all.extend(warnings.iter().cloned());
    if *verdict == Verdict::ReferenceMissing {
        let until = match in_force {
            Some(generation) => format!("until then generation {generation} stays in force"),
            None => "until then it has no effect".to_owned(),
        };
        all.push(format!(
            "{reference} comes into force when what it names is there; {until}"
        ));
    }
    all
}

/// What a change of an object takes away from VirtualServices that were in force with it.
fn losers(before: &World, after: &World, object: Option<&Object>) -> Vec<String> {
    let rule = match object {
        Some(Object::DestinationRule(rule)) => rule,
        Some(Object::VirtualService(leaf)) => {
            let metadata = &leaf.metadata;
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            let to = ObjectName::new(namespace, metadata.name.as_deref().unwrap_or_default());
            return unanswered(before, after, &to);
        }
        _ => return Vec::new(),
    };
    let namespace = rule.metadata.namespace.as_deref().unwrap_or_default();
    let services = after.meant(&Host::resolve(&rule.spec.host, namespace));
    let objects: BTreeSet<_> = services
        .iter()
        .flat_map(|service| after.naming(service))
        .collect();
    let found = objects.into_iter().filter_map(|name| {
        let state = |world: &World| world.object(Kind::VirtualService, &name.namespace, &name.name);
        let (was, is) = (state(before)?, state(after)?);
        let finding = is.findings.iter().find(|finding| finding.severity.refuses())?;
        (was.accepted && !is.accepted).then(|| {
            format!(
                "{} stays as it was, because it would no longer be accepted: {finding}",
                is.reference
            )
        })
    });
    found.collect()
}

/// The rules that can no longer leave their requests to this object.
fn unanswered(before: &World, after: &World, to: &ObjectName) -> Vec<String> {
    let mut found = Vec::new();
    for name in after.delegating(to) {
        let was = before.unjoined(name, to);
        let lost = after.unjoined(name, to).into_iter();
        for (rule, why) in lost.filter(|(rule, _)| !was.iter().any(|(before, _)| before == rule)) {
            found.push(format!(
                "VirtualService {name} delegates to this one in spec.http[{rule}], and its requests get 503: \
                 {to} {why}"
            ));
        }
    }
    found
}

/// Our kind of this name.
fn kind(of: &GroupKind) -> Result<Kind, String> {
    let GroupKind { group, kind } = of;
    match (group.as_str(), kind.as_str()) {
        (crds::GROUP, "VirtualService") => Ok(Kind::VirtualService),
        (crds::GROUP, "DestinationRule") => Ok(Kind::DestinationRule),
        (crds::GROUP, "PeerAuthentication") => Ok(Kind::PeerAuthentication),
        _ => Err(format!(
            "request.kind: is {kind} of group {group:?}, and this path is for the kinds of {}: register the webhook for \
             them alone",
            crds::GROUP
        )),
    }
}

/// The object, or the field that cannot be read and why. One whose name the API server has yet to make up gets one that
/// no object has.
fn read(kind: Kind, request: &Request, object: &Value) -> Result<Object, String> {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("namespace".to_owned(), request.namespace.clone().into());
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            let start = metadata.get("generateName").and_then(Value::as_str);
            let name = start.map_or(request.name.clone(), |start| format!("{start}00000"));
            metadata.insert("name".to_owned(), name.into());
        }
    }
    // Of another version of ours, the fields are compared with those of this one.
    served(kind, object).map_err(|error| match error.field {
        Some(field) => format!("{field}: {}", error.message),
        None => error.message,
    })
}

fn is_going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn listed(problems: Vec<String>) -> String {
    let more = problems.len().saturating_sub(MAX_FINDINGS);
    let text = problems
        .into_iter()
        .take(MAX_FINDINGS)
        .collect::<Vec<_>>()
        .join("; ");
    match more {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}

#[cfg(test)]
mod tests;

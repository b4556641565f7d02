//! The status of the mesh: each object accepted or why not, and how many of the proxies that use it have applied it; each
//! proxy, and what is wrong with files. A pure join of what the world, the source and the hub say, made on demand;
//! `admin` serves it as JSON, the `status` command prints it as text, and `write` puts it into the objects.

mod bucket;
mod desired;
mod event;
mod ledger;
mod local;
mod merge;
mod replicas;
mod text;
pub mod write;

use serde::{Deserialize, Serialize};

use crate::push::{AppliedBy, HubView, ObjectKey, ProxyView, Unsendable};
use crate::source::folder;
use crate::state::{ObjectState, SourceObject, Verdict};

pub use local::Local;
pub use merge::merge;
pub use text::render;

/// What the world says of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectFacts {
    /// The object, with its newest generation.
    pub reference: SourceObject,
    /// Whether the newest generation is in force.
    pub accepted: bool,
    /// The same, with the reason.
    pub verdict: Verdict,
    /// The generation in force; `None` when none ever was.
    pub in_force: Option<i64>,
    /// What is wrong with the newest version, or odd about it.
    pub findings: Vec<String>,
    /// Where an older object has what this one claims.
    pub conflicts: Vec<String>,
    /// What works, but not as it was probably meant.
    pub warnings: Vec<String>,
}

impl From<ObjectState> for ObjectFacts {
    fn from(state: ObjectState) -> Self {
        let ObjectState {
            reference,
            findings,
            accepted,
            verdict,
            in_force,
            conflicts,
            warnings,
        } = state;
        Self {
            reference,
            accepted,
            verdict,
            in_force,
            findings: findings.iter().map(ToString::to_string).collect(),
            conflicts,
            warnings,
        }
    }
}

/// A file of the source that could not be read as objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProblem {
    /// The file, with line and column where they are known, such as `a.yaml:3:4`.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
}

impl From<folder::FileProblem> for FileProblem {
    fn from(found: folder::FileProblem) -> Self {
        let folder::FileProblem {
            file,
            document: _,
            line,
            column,
            field,
            message,
        } = found;
        let place = [line, column].into_iter().flatten().map(|n| format!(":{n}"));
        let file = format!("{}{}", file.display(), place.collect::<String>());
        let problem = field.map_or(message.clone(), |field| format!("{field}: {message}"));
        Self { file, problem }
    }
}

/// An object of ours that the API server holds and nobody can read: it came past the webhook. Where an older version could
/// be read, that one is among the objects, and stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Kubernetes kind.
    pub kind: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
    /// The generation that cannot be read.
    pub generation: i64,
    /// The field, what is wrong with it, and the remedy.
    pub problem: String,
}

/// The status of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Objects, by kind, namespace and name.
    pub objects: Vec<ObjectStatus>,
    /// Files that could not be read as objects.
    pub files: Vec<FileProblem>,
    /// Objects that the API server holds and nobody can read.
    #[serde(default)]
    pub unreadable: Vec<Unreadable>,
    /// Resources whose newest state cannot be sent.
    pub unsendable: Vec<Unsendable>,
    /// Connected proxies, by namespace and pod.
    pub proxies: Vec<ProxyView>,
}

/// The status of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// Kubernetes kind.
    pub kind: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
    /// Newest generation.
    pub generation: i64,
    /// Whether the newest generation is in force.
    pub accepted: bool,
    /// The same, with the reason.
    #[serde(default)]
    pub verdict: Verdict,
    /// The generation in force.
    pub in_force: Option<i64>,
    /// What is wrong with the newest version, or odd about it.
    pub findings: Vec<String>,
    /// Where an older object has what this one claims.
    pub conflicts: Vec<String>,
    /// What works, but not as it was probably meant.
    pub warnings: Vec<String>,
    /// Proxies that are subscribed to something this object shaped.
    pub used_by: usize,
    /// Those that have acknowledged what was made from the generation in force.
    pub applied_by: usize,
    /// Those that could not apply it.
    pub refused_by: Vec<Refusal>,
    /// The above in words, such as `applied by 3 of 3 proxies`.
    pub applied: String,
}

/// One proxy that could not apply something an object shaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Namespace and pod of the proxy.
    pub proxy: String,
    /// The resource, and why.
    pub reason: String,
}

/// Joins what world, source and hub say.
#[must_use]
pub fn board(
    objects: Vec<ObjectFacts>,
    files: Vec<FileProblem>,
    unreadable: Vec<Unreadable>,
    hub: HubView,
) -> Status {
    let HubView {
        mut proxies,
        objects: uses,
        unsendable,
    } = hub;
    let objects = objects
        .into_iter()
        .map(|facts| {
            let by = uses.get(&ObjectKey::from(&facts.reference)).map(Vec::as_slice);
            object_status(facts, by.unwrap_or_default(), &proxies)
        })
        .collect();
    proxies.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
    Status {
        objects,
        files,
        unreadable,
        unsendable,
        proxies,
    }
}

fn object_status(facts: ObjectFacts, by: &[AppliedBy], proxies: &[ProxyView]) -> ObjectStatus {
    let ObjectFacts {
        reference,
        accepted,
        verdict,
        in_force,
        findings,
        conflicts,
        warnings,
    } = facts;
    let applied_by = by
        .iter()
        .filter(|by| by.applied && Some(by.generation) == in_force)
        .count();
    let refused_by: Vec<_> = by
        .iter()
        .filter_map(|by| {
            let proxy = proxies.get(by.proxy)?;
            Some(Refusal {
                proxy: format!("{}/{}", proxy.namespace, proxy.pod),
                reason: by.refused.clone()?,
            })
        })
        .collect();
    let applied = words(accepted, in_force, applied_by, by.len());
    ObjectStatus {
        kind: reference.kind,
        namespace: reference.namespace,
        name: reference.name,
        generation: reference.generation,
        accepted,
        verdict,
        in_force,
        findings,
        conflicts,
        warnings,
        used_by: by.len(),
        applied_by,
        refused_by,
        applied,
    }
}

fn words(accepted: bool, in_force: Option<i64>, applied: usize, used: usize) -> String {
    let proxies = if used == 1 { "proxy" } else { "proxies" };
    match (accepted, in_force, used) {
        (_, None, _) => "not in force".to_owned(),
        (true, Some(_), 0) => "no connected proxy uses it".to_owned(),
        (false, Some(generation), 0) => {
            format!("generation {generation} stays in force; no connected proxy uses it")
        }
        (true, Some(_), _) => format!("applied by {applied} of {used} {proxies}"),
        (false, Some(generation), _) => {
            format!("generation {generation} stays in force, applied by {applied} of {used} {proxies}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(super) fn proxy(pod: &str) -> ProxyView {
        ProxyView {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            service_account: "web".to_owned(),
            proxy_version: "0.1.0".to_owned(),
            revision: 1,
            connected_seconds: 65,
            subscriptions: BTreeMap::from([("route".to_owned(), 2)]),
            applied: 1,
            waiting: 1,
            refused: 0,
            last_nack: None,
        }
    }

    pub(super) fn facts(accepted: bool, in_force: Option<i64>) -> ObjectFacts {
        ObjectFacts {
            reference: SourceObject {
                kind: "VirtualService".to_owned(),
                namespace: "shop".to_owned(),
                name: "reviews".to_owned(),
                generation: 2,
            },
            accepted,
            verdict: if accepted {
                Verdict::Accepted
            } else {
                Verdict::Invalid
            },
            in_force,
            findings: Vec::new(),
            conflicts: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn object_status() -> ObjectStatus {
        one(facts(true, Some(2)), vec![by(0, 2, true)])
    }

    fn by(proxy: usize, generation: i64, applied: bool) -> AppliedBy {
        AppliedBy {
            proxy,
            generation,
            applied,
            refused: None,
        }
    }

    fn one(facts: ObjectFacts, by: Vec<AppliedBy>) -> ObjectStatus {
        let hub = HubView {
            proxies: vec![proxy("web-1"), proxy("web-0")],
            objects: BTreeMap::from([(ObjectKey::from(&facts.reference), by)]),
            ..HubView::default()
        };
        board(vec![facts], Vec::new(), Vec::new(), hub).objects.remove(0)
    }

    #[test]
    fn only_what_was_made_from_the_generation_in_force_counts_as_applied() {
        for (facts, by, says) in [
            (facts(true, Some(2)), vec![], "no connected proxy uses it"),
            (
                facts(true, Some(2)),
                vec![by(0, 2, true), by(1, 2, true)],
                "applied by 2 of 2 proxies",
            ),
            (
                facts(true, Some(2)),
                vec![by(0, 1, true), by(1, 2, false)],
                "applied by 0 of 2 proxies",
            ),
            (
                facts(true, Some(2)),
                vec![by(0, 2, true)],
                "applied by 1 of 1 proxy",
            ),
            (
                facts(false, Some(1)),
                vec![by(0, 1, true), by(1, 1, false)],
                "generation 1 stays in force, applied by 1 of 2 proxies",
            ),
            (facts(false, None), vec![], "not in force"),
        ] {
            assert_eq!(one(facts, by).applied, says);
        }
    }

    #[test]
    fn a_refusal_names_the_proxy_and_the_reason() {
        let mut refused = by(1, 2, false);
        refused.refused = Some("route/x: too many rules".to_owned());
        let status = one(facts(true, Some(2)), vec![by(0, 2, true), refused]);
        assert_eq!(
            status.refused_by,
            vec![Refusal {
                proxy: "shop/web-0".to_owned(),
                reason: "route/x: too many rules".to_owned(),
            }]
        );
    }
}

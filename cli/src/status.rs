//! The status of the mesh over all operators: each knows every object, and the proxies that are connected to it. Pure.

mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::facts::{Object, Proxy, Refusal, Replica, Unreadable, Unsendable};

pub(crate) use text::render as text;

/// The mesh.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Mesh {
    /// Objects, by kind, namespace and name.
    pub(crate) objects: Vec<ObjectView>,
    /// Objects that the API server holds and no operator can read.
    pub(crate) unreadable: BTreeSet<Unreadable>,
    /// Resources whose newest state cannot be sent.
    pub(crate) unsendable: BTreeSet<Unsendable>,
    /// Proxies, by namespace and pod.
    pub(crate) proxies: Vec<ProxyView>,
    /// What operators say of their roots.
    pub(crate) authority: BTreeMap<String, String>,
    /// Operators that could not be asked, and why. Their proxies are missing.
    pub(crate) silent: BTreeMap<String, String>,
}

/// One object.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectView {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) generation: i64,
    pub(crate) accepted: bool,
    /// The generation in force.
    pub(crate) in_force: Option<i64>,
    /// How many proxies use it.
    pub(crate) used_by: usize,
    /// How many of them have applied what is in force.
    pub(crate) applied_by: usize,
    /// What is wrong with it, odd about it, or claimed by an older object.
    pub(crate) notes: BTreeSet<String>,
}

/// One proxy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProxyView {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) service_account: String,
    pub(crate) version: String,
    /// The operator it is connected to.
    pub(crate) operator: String,
    pub(crate) connected_seconds: u64,
    pub(crate) subscriptions: usize,
    pub(crate) applied: usize,
    pub(crate) waiting: usize,
    pub(crate) refused: usize,
    /// Its last refusal.
    pub(crate) note: Option<String>,
}

/// What all operators say, of one namespace or of all.
pub(crate) fn join(replicas: &[Replica], namespace: Option<&str>) -> Mesh {
    let shown = |of: &str| namespace.is_none_or(|namespace| namespace == of);
    let mut mesh = Mesh::default();
    let mut objects: BTreeMap<(String, String, String), ObjectView> = BTreeMap::new();
    for replica in replicas {
        if let Ok(health) = &replica.health {
            let authority = health.dependencies.iter().find(|d| d.name == "authority");
            mesh.authority
                .extend(authority.map(|a| (replica.pod.clone(), a.detail.clone())));
        }
        let status = match &replica.status {
            Ok(status) => status,
            Err(why) => {
                mesh.silent.insert(replica.pod.clone(), why.clone());
                continue;
            }
        };
        for object in status.objects.iter().filter(|o| shown(&o.namespace)) {
            let key = (object.kind.clone(), object.namespace.clone(), object.name.clone());
            match objects.get_mut(&key) {
                Some(known) => add(known, object),
                None => {
                    objects.insert(key, view(object));
                }
            }
        }
        let unreadable = status.unreadable.iter().filter(|o| shown(&o.namespace));
        mesh.unreadable.extend(unreadable.cloned());
        mesh.unsendable.extend(status.unsendable.iter().cloned());
        let proxies = status.proxies.iter().filter(|p| shown(&p.namespace));
        mesh.proxies.extend(proxies.map(|p| proxy(p, &replica.pod)));
    }
    mesh.objects = objects.into_values().collect();
    mesh.proxies
        .sort_by(|a, b| (&a.namespace, &a.pod, &a.operator).cmp(&(&b.namespace, &b.pod, &b.operator)));
    mesh
}

fn view(object: &Object) -> ObjectView {
    let mut view = ObjectView {
        kind: object.kind.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        generation: object.generation,
        accepted: object.accepted,
        in_force: object.in_force,
        used_by: 0,
        applied_by: 0,
        notes: BTreeSet::new(),
    };
    add(&mut view, object);
    view
}

/// Adds what one more operator says. Where they differ, because one has seen a change earlier, the newest generation counts;
/// what was applied counts only where the same generation is in force.
fn add(view: &mut ObjectView, object: &Object) {
    if object.generation > view.generation {
        let Object {
            generation,
            accepted,
            in_force,
            ..
        } = object;
        (view.generation, view.accepted, view.in_force) = (*generation, *accepted, *in_force);
        view.applied_by = 0;
        view.notes.clear();
    }
    view.used_by += object.used_by;
    if object.in_force == view.in_force {
        view.applied_by += object.applied_by;
    }
    if object.generation == view.generation {
        let Object {
            findings,
            conflicts,
            warnings,
            ..
        } = object;
        view.notes
            .extend([findings, conflicts, warnings].into_iter().flatten().cloned());
    }
    let refused = object.refused_by.iter();
    view.notes
        .extend(refused.map(|Refusal { proxy, reason }| format!("refused by {proxy}: {reason}")));
}

fn proxy(proxy: &Proxy, operator: &str) -> ProxyView {
    let nack = proxy.last_nack.as_ref();
    ProxyView {
        namespace: proxy.namespace.clone(),
        pod: proxy.pod.clone(),
        service_account: proxy.service_account.clone(),
        version: proxy.proxy_version.clone(),
        operator: operator.to_owned(),
        connected_seconds: proxy.connected_seconds,
        subscriptions: proxy.subscriptions.values().sum(),
        applied: proxy.applied,
        waiting: proxy.waiting,
        refused: proxy.refused,
        note: nack.map(|n| {
            let ago = crate::table::span(n.seconds_ago);
            format!("refused {} {ago} ago: {}", n.resource, n.reason)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Dependency, Health, Status};

    pub(super) fn object(generation: i64, used_by: usize, applied_by: usize) -> Object {
        Object {
            kind: "VirtualService".to_owned(),
            namespace: "shop".to_owned(),
            name: "reviews".to_owned(),
            generation,
            accepted: true,
            in_force: Some(generation),
            used_by,
            applied_by,
            ..Object::default()
        }
    }

    pub(super) fn replica(pod: &str, objects: Vec<Object>, proxies: &[&str]) -> Replica {
        let proxies = proxies.iter().map(|pod| Proxy {
            namespace: "shop".to_owned(),
            pod: (*pod).to_owned(),
            proxy_version: "0.1.0".to_owned(),
            connected_seconds: 65,
            subscriptions: BTreeMap::from([("route".to_owned(), 2), ("cluster".to_owned(), 3)]),
            applied: 5,
            ..Proxy::default()
        });
        let proxies = proxies.collect();
        let authority = Dependency {
            name: "authority".to_owned(),
            status: "ok".to_owned(),
            detail: "roots in the bundle: 1; the one that signs ends in 3649 days".to_owned(),
        };
        Replica {
            pod: pod.to_owned(),
            health: Ok(Health {
                status: "ok".to_owned(),
                dependencies: vec![authority],
            }),
            status: Ok(Status {
                objects,
                proxies,
                ..Status::default()
            }),
        }
    }

    #[test]
    fn counts_are_added_over_operators_and_proxies_are_in_order() {
        let replicas = [
            replica("op-a", vec![object(2, 3, 3)], &["web-1", "web-3"]),
            replica("op-b", vec![object(2, 2, 1)], &["web-0"]),
        ];
        let mesh = join(&replicas, None);
        assert_eq!((mesh.objects[0].used_by, mesh.objects[0].applied_by), (5, 4));
        let proxies: Vec<_> = mesh
            .proxies
            .iter()
            .map(|p| (p.pod.as_str(), p.operator.as_str()))
            .collect();
        assert_eq!(proxies, [("web-0", "op-b"), ("web-1", "op-a"), ("web-3", "op-a")]);
    }

    #[test]
    fn an_operator_that_is_behind_does_not_make_an_object_look_applied() {
        let mut old = object(1, 2, 2);
        old.findings = vec!["of the old generation".to_owned()];
        for replicas in [
            [
                replica("a", vec![old.clone()], &[]),
                replica("b", vec![object(2, 1, 1)], &[]),
            ],
            [
                replica("a", vec![object(2, 1, 1)], &[]),
                replica("b", vec![old.clone()], &[]),
            ],
        ] {
            let view = &join(&replicas, None).objects[0];
            assert_eq!((view.generation, view.used_by, view.applied_by), (2, 3, 1));
            assert_eq!(view.notes, BTreeSet::new());
        }
    }

    #[test]
    fn a_namespace_is_all_that_is_shown_and_silence_is_told() {
        let mut silent = replica("op-b", vec![], &[]);
        silent.status = Err("no answer".to_owned());
        let replicas = [replica("op-a", vec![object(1, 0, 0)], &["web-0"]), silent];
        let mesh = join(&replicas, Some("other"));
        assert!(mesh.objects.is_empty() && mesh.proxies.is_empty());
        assert_eq!(
            mesh.silent,
            BTreeMap::from([("op-b".to_owned(), "no answer".to_owned())])
        );
        assert_eq!(join(&replicas, Some("shop")).proxies.len(), 1);
    }

    #[test]
    fn fields_of_another_version_are_no_obstacle() {
        let text = r#"{"objects": [{"kind": "VirtualService", "news": 1}], "later": {}, "proxies": [{"pod": "web-0"}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.objects[0].kind, "VirtualService");
        assert_eq!(status.proxies[0].pod, "web-0");
    }
}

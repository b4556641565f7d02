//! One status of the mesh out of those of all replicas. Each replica has all objects, and of the proxies only those that
//! are connected to it.

use std::collections::BTreeMap;

use super::{ObjectStatus, Status, words};
use crate::push::ObjectKey;

impl ObjectStatus {
    /// What the object is called.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// The status of all replicas together. What objects say is taken from the first; the others add the proxies they have.
/// A proxy of a replica that has another generation in force has not applied the one of the first.
#[must_use]
pub fn merge(statuses: Vec<Status>) -> Status {
    let mut statuses = statuses.into_iter();
    let Some(mut all) = statuses.next() else {
        return Status::default();
    };
    let places: BTreeMap<ObjectKey, usize> = all
        .objects
        .iter()
        .enumerate()
        .map(|(i, object)| (object.key(), i))
        .collect();
    for other in statuses {
        for object in &other.objects {
            let Some(place) = places.get(&object.key()) else {
                continue;
            };
            let into = &mut all.objects[*place];
            into.used_by += object.used_by;
            if object.in_force == into.in_force {
                into.applied_by += object.applied_by;
            }
            into.refused_by.extend(object.refused_by.iter().cloned());
        }
        all.proxies.extend(other.proxies);
        all.unsendable.extend(other.unsendable);
    }
    for object in &mut all.objects {
        object.applied = words(
            object.accepted,
            object.in_force,
            object.applied_by,
            object.used_by,
        );
    }
    all.proxies
        .sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
    all.unsendable.sort();
    all.unsendable.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::{AppliedBy, HubView};
    use crate::status::board;
    use crate::status::tests::{facts, proxy};

    /// A replica with these proxies, each with the generation it has applied, or none.
    fn replica(in_force: i64, proxies: &[(&str, Option<i64>)]) -> Status {
        let facts = facts(true, Some(in_force));
        let by = proxies.iter().enumerate().map(|(i, (_, applied))| AppliedBy {
            proxy: i,
            generation: applied.unwrap_or(in_force),
            applied: applied.is_some(),
            refused: applied.is_none().then(|| "route/x: too large".to_owned()),
        });
        let hub = HubView {
            objects: BTreeMap::from([(ObjectKey::from(&facts.reference), by.collect())]),
            proxies: proxies.iter().map(|(pod, _)| proxy(pod)).collect(),
            ..HubView::default()
        };
        board(vec![facts], Vec::new(), Vec::new(), hub)
    }

    #[test]
    fn proxies_are_added_up_and_objects_are_those_of_the_first() {
        let first = replica(2, &[("b", Some(2)), ("d", Some(2))]);
        let lags = replica(1, &[("a", Some(1))]);
        let refuses = replica(2, &[("c", None), ("e", Some(2))]);
        let mut knows_more = replica(2, &[]);
        knows_more.objects[0].name = "unknown-to-the-first".to_owned();
        for (statuses, says, refused, pods) in [
            (vec![], None, 0, ""),
            (vec![first.clone()], Some("applied by 2 of 2 proxies"), 0, "bd"),
            (
                vec![first.clone(), lags.clone()],
                Some("applied by 2 of 3 proxies"),
                0,
                "abd",
            ),
            (
                vec![first.clone(), refuses.clone()],
                Some("applied by 3 of 4 proxies"),
                1,
                "bcde",
            ),
            (
                vec![first.clone(), knows_more],
                Some("applied by 2 of 2 proxies"),
                0,
                "bd",
            ),
            (
                vec![lags, refuses, first],
                Some("applied by 1 of 5 proxies"),
                1,
                "abcde",
            ),
        ] {
            let all = merge(statuses);
            let object = all.objects.first();
            assert_eq!(object.map(|o| o.applied.as_str()), says);
            assert_eq!(object.map_or(0, |o| o.refused_by.len()), refused);
            assert!(all.objects.len() <= 1);
            let found: String = all.proxies.iter().map(|p| p.pod.as_str()).collect();
            assert_eq!(found, pods);
        }
    }
}

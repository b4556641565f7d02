//! The change from a pod to the injected pod, as the JSON Patch that a webhook answers with. Lists of named things
//! (containers, volumes, variables) are compared by name, so an inserted container is one insertion: it touches no field of
//! the pod that injection does not know, whichever version of Kubernetes it comes from.

use std::collections::BTreeSet;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, MoveOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value};

/// The change that makes `after` of `before`.
#[must_use]
pub fn patch(before: &Pod, after: &Pod) -> Patch {
    let value = |pod| serde_json::to_value(pod).expect("a pod is texts, numbers, lists and maps");
    difference(&value(before), &value(after))
}

pub(crate) fn difference(before: &Value, after: &Value) -> Patch {
    let mut operations = Vec::new();
    compare(&PointerBuf::root(), before, after, &mut operations);
    Patch(operations)
}

fn compare(at: &PointerBuf, before: &Value, after: &Value, operations: &mut Vec<PatchOperation>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => compare_objects(at, before, after, operations),
        (Value::Array(before), Value::Array(after)) if are_named(before) && are_named(after) => {
            compare_named(at, before, after, operations);
        }
        _ => operations.push(PatchOperation::Replace(ReplaceOperation {
            path: at.clone(),
            value: after.clone(),
        })),
    }
}

fn compare_objects(
    at: &PointerBuf,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    operations: &mut Vec<PatchOperation>,
) {
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        operations.push(remove(below(at, key)));
    }
    for (key, value) in after {
        match before.get(key) {
            Some(old) => compare(&below(at, key), old, value, operations),
            None => operations.push(add(below(at, key), value)),
        }
    }
}

/// Takes out what is gone, then walks along the new list and puts each element where it belongs.
fn compare_named(at: &PointerBuf, before: &[Value], after: &[Value], operations: &mut Vec<PatchOperation>) {
    let wanted: BTreeSet<_> = after.iter().map(name).collect();
    let mut now: Vec<&Value> = before.iter().collect();
    for index in (0..now.len()).rev() {
        if !wanted.contains(&name(now[index])) {
            now.remove(index);
            operations.push(remove(below(at, &index.to_string())));
        }
    }
    for (index, element) in after.iter().enumerate() {
        let place = below(at, &index.to_string());
        match now.iter().position(|old| name(old) == name(element)) {
            None => {
                operations.push(add(place, element));
                now.insert(index, element);
            }
            Some(from) => {
                let old = now.remove(from);
                if from != index {
                    operations.push(PatchOperation::Move(MoveOperation {
                        from: below(at, &from.to_string()),
                        path: place.clone(),
                    }));
                }
                compare(&place, old, element, operations);
                now.insert(index, element);
            }
        }
    }
}

/// Whether every element has a name of its own.
fn are_named(list: &[Value]) -> bool {
    let names: BTreeSet<_> = list.iter().filter_map(name).collect();
    names.len() == list.len()
}

fn name(element: &Value) -> Option<&str> {
    element.get("name")?.as_str()
}

fn below(at: &PointerBuf, token: &str) -> PointerBuf {
    at.with_trailing_token(token)
}

fn add(path: PointerBuf, value: &Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path,
        value: value.clone(),
    })
}

fn remove(path: PointerBuf) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_inserted_container_is_one_insertion() {
        let before = json!({"containers": [{"name": "app", "image": "a"}], "labels": {"a/b": "c"}});
        let after = json!({
            "containers": [{"name": "proxy"}, {"name": "app", "image": "a", "x": 1}],
            "labels": {"a/b": "d"},
        });
        let patch = serde_json::to_value(difference(&before, &after)).unwrap();
        assert_eq!(
            patch,
            json!([
                {"op": "add", "path": "/containers/0", "value": {"name": "proxy"}},
                {"op": "add", "path": "/containers/1/x", "value": 1},
                {"op": "replace", "path": "/labels/a~1b", "value": "d"},
            ])
        );
    }

    #[test]
    fn fields_that_we_do_not_know_stay_where_they_are() {
        let mut served = json!({"containers": [{"name": "app", "fromTheFuture": true}, {"name": "more"}]});
        let before = json!({"containers": [{"name": "app"}, {"name": "more"}]});
        let after = json!({"containers": [{"name": "more"}, {"name": "proxy"}, {"name": "app"}]});
        json_patch::patch(&mut served, &difference(&before, &after)).unwrap();
        assert_eq!(
            served,
            json!({"containers": [{"name": "more"}, {"name": "proxy"}, {"name": "app", "fromTheFuture": true}]})
        );
    }

    fn named() -> impl Strategy<Value = Value> {
        let element = ("[a-f]", 0u8..3).prop_map(|(name, x)| json!({"name": name, "x": x}));
        prop::collection::vec(element, 0..6).prop_map(Value::Array)
    }

    fn object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            named(),
            (0u8..3).prop_map(|n| json!(n)),
            Just(json!({"a/~": [1, 2]}))
        ];
        prop::collection::btree_map("[a-c~/]", leaf, 0..4).prop_map(|map| json!(map))
    }

    proptest! {
        #[test]
        fn the_change_leads_from_one_to_the_other(before in object(), after in object()) {
            let mut value = before.clone();
            json_patch::patch(&mut value, &difference(&before, &after)).unwrap();
            prop_assert_eq!(value, after);
        }
    }
}

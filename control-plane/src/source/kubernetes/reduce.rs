//! What of an object goes on: fields that nothing reads are dropped before anything is kept of it, so that a change of
//! them alone is no change, and EndpointSlices of `v1beta1` become those of `v1`. Called by `feed` with each object as
//! the server sent it.

use crds::Kind;
use serde_json::{Map, Value};

/// Of the metadata, this is kept. `managedFields` alone is often larger than the rest of the object.
const METADATA: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "ownerReferences",
];

/// Of a pod's spec, this is kept.
const POD_SPEC: [&str; 6] = [
    "serviceAccountName",
    "hostNetwork",
    "nodeName",
    "restartPolicy",
    "containers",
    "initContainers",
];

/// Of a pod's containers, this is kept.
const CONTAINER: [&str; 3] = ["name", "ports", "restartPolicy"];

/// Of a pod's status, this is kept.
const POD_STATUS: [&str; 5] = [
    "phase",
    "podIP",
    "podIPs",
    "containerStatuses",
    "initContainerStatuses",
];

/// Of the status of a container, this is kept. `image` and `imageID` are required of every container's status.
const CONTAINER_STATUS: [&str; 6] = ["name", "state", "image", "imageID", "ready", "restartCount"];

/// What `kubectl apply` keeps in each object: the object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Drops what nothing reads.
pub(super) fn reduce(kind: Kind, value: &mut Value) {
    let Value::Object(object) = value else { return };
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.retain(|field, _| METADATA.contains(&field.as_str()));
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
    }
    match kind {
        Kind::Pod => {
            if let Some(spec) = object.get_mut("spec") {
                keep(spec, &POD_SPEC);
                for containers in ["containers", "initContainers"] {
                    items(spec, containers).for_each(|container| keep(container, &CONTAINER));
                }
            }
            if let Some(status) = object.get_mut("status") {
                keep(status, &POD_STATUS);
                for statuses in ["containerStatuses", "initContainerStatuses"] {
                    items(status, statuses).for_each(|status| keep(status, &CONTAINER_STATUS));
                }
            }
        }
        // Its annotations say when it changed last, and so change each time.
        Kind::EndpointSlice => {
            if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                metadata.remove("annotations");
            }
        }
        Kind::Service | Kind::Namespace => {
            object.remove("status");
        }
        // Written by the operator itself: no reason to look at the object again.
        Kind::VirtualService | Kind::DestinationRule | Kind::PeerAuthentication => {
            object.remove("status");
        }
    }
}

/// Makes the fields of an EndpointSlice of `v1beta1` those of `v1`: what was one map of topology became two fields.
pub(super) fn slice_to_v1(value: &mut Value) {
    for endpoint in items(value, "endpoints") {
        let Value::Object(endpoint) = endpoint else {
            continue;
        };
        let Some(Value::Object(mut topology)) = endpoint.remove("topology") else {
            continue;
        };
        let mut take = |label: &str| topology.remove(label).filter(Value::is_string);
        let (node, zone) = (
            take("kubernetes.io/hostname"),
            take("topology.kubernetes.io/zone"),
        );
        for (field, found) in [("nodeName", node), ("zone", zone)] {
            if let Some(found) = found {
                endpoint.entry(field).or_insert(found);
            }
        }
    }
}

fn keep(value: &mut Value, fields: &[&str]) {
    if let Value::Object(map) = value {
        map.retain(|field, _| fields.contains(&field.as_str()));
    }
}

/// The elements of a list; none where there is no such list.
fn items<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = value
        .as_object_mut()
        .and_then(|map: &mut Map<_, _>| map.get_mut(field));
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reduced(kind: Kind, mut value: Value) -> Value {
        reduce(kind, &mut value);
        value
    }

    #[test]
    fn a_pod_keeps_what_routing_and_jobs_need() {
        let pod = json!({
            "metadata": {"name": "a", "resourceVersion": "5", "managedFields": [1], "labels": {"app": "a"},
                "annotations": {LAST_APPLIED: "x", "hauberk.dev/weight": "5"}},
            "spec": {"serviceAccountName": "sa", "volumes": [1], "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i", "env": [1], "ports": [{"containerPort": 80}]}],
                "initContainers": [{"name": "i", "restartPolicy": "Always", "image": "i"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [1],
                "containerStatuses": [{"name": "c", "state": {"running": {}}, "lastState": {}, "ready": true}]},
        });
        let expected = json!({
            "metadata": {"name": "a", "labels": {"app": "a"}, "annotations": {"hauberk.dev/weight": "5"}},
            "spec": {"serviceAccountName": "sa", "restartPolicy": "Never",
                "containers": [{"name": "c", "ports": [{"containerPort": 80}]}],
                "initContainers": [{"name": "i", "restartPolicy": "Always"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "containerStatuses": [{"name": "c", "state": {"running": {}}, "ready": true}]},
        });
        assert_eq!(reduced(Kind::Pod, pod), expected);
    }

    #[test]
    fn what_changes_by_itself_is_no_change() {
        let rule = |version: &str, status: i32| {
            json!({"metadata": {"name": "a", "generation": 2, "resourceVersion": version},
                "spec": {"host": "a"}, "status": {"observedGeneration": status}})
        };
        assert_eq!(
            reduced(Kind::DestinationRule, rule("5", 1)),
            reduced(Kind::DestinationRule, rule("6", 2))
        );
        let slice = |at: &str| json!({"metadata": {"name": "a", "annotations": {"last-change": at}}, "endpoints": []});
        assert_eq!(
            reduced(Kind::EndpointSlice, slice("1")),
            reduced(Kind::EndpointSlice, slice("2"))
        );
    }

    #[test]
    fn nothing_in_an_object_makes_it_panic() {
        for odd in [
            json!(null),
            json!([]),
            json!({}),
            json!({"metadata": 5, "spec": [], "status": "x", "endpoints": 1}),
            json!({"metadata": {"annotations": 5}, "spec": {"containers": [5, null]}, "endpoints": [1, {"topology": 5}]}),
        ] {
            for kind in Kind::ALL {
                let mut value = odd.clone();
                reduce(kind, &mut value);
                slice_to_v1(&mut value);
            }
        }
    }

    #[test]
    fn topology_of_the_older_version_becomes_node_and_zone() {
        let mut slice = json!({"endpoints": [
            {"addresses": ["10.0.0.1"], "topology": {"kubernetes.io/hostname": "n", "topology.kubernetes.io/zone": "z"}},
            {"addresses": ["10.0.0.2"], "nodeName": "m", "topology": {"kubernetes.io/hostname": "n"}},
            {"addresses": ["10.0.0.3"]},
        ]});
        slice_to_v1(&mut slice);
        let expected = json!({"endpoints": [
            {"addresses": ["10.0.0.1"], "nodeName": "n", "zone": "z"},
            {"addresses": ["10.0.0.2"], "nodeName": "m"},
            {"addresses": ["10.0.0.3"]},
        ]});
        assert_eq!(slice, expected);
    }
}

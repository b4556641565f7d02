//! Worlds for tests, written as the YAML that users write.

use std::sync::Arc;

use super::{ObjectState, Touched, World};
use crate::source::Change;

/// The objects of a text; what cannot be read fails the test.
pub(crate) fn objects(yaml: &str) -> Vec<crds::Object> {
    let read = crds::parse(yaml).into_iter();
    read.map(|result| result.unwrap_or_else(|e| panic!("{e} in:\n{yaml}")))
        .collect()
}

/// Changes that set the objects of a text.
pub(crate) fn set(yaml: &str) -> Vec<Change> {
    objects(yaml).into_iter().map(Change::Set).collect()
}

/// Changes that remove the objects of a text.
pub(crate) fn remove(yaml: &str) -> Vec<Change> {
    objects(yaml)
        .into_iter()
        .map(|object| Change::Remove(object.key()))
        .collect()
}

/// A world of these objects.
pub(crate) fn world(yaml: &str) -> Arc<World> {
    World::default().apply(set(yaml)).0
}

/// The world with these objects added or replaced.
pub(crate) fn with(world: &World, yaml: &str) -> (Arc<World>, Touched) {
    world.apply(set(yaml))
}

/// The world without these objects.
pub(crate) fn without(world: &World, yaml: &str) -> (Arc<World>, Touched) {
    world.apply(remove(yaml))
}

/// What is thought of the object of this name.
pub(crate) fn state(world: &World, name: &str) -> ObjectState {
    world
        .objects()
        .find(|o| o.reference.name == name)
        .unwrap_or_else(|| panic!("no object {name}"))
}

/// A Service of namespace `shop`, with one port for each `name/number`.
pub(crate) fn service(name: &str, address: &str, ports: &[(&str, u16)]) -> String {
    let ports: String = ports
        .iter()
        .map(|(name, port)| format!("  - {{name: {name}, port: {port}, targetPort: 8080}}\n"))
        .collect();
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  clusterIP: {address}
  selector: {{app: {name}}}
  ports:
{ports}"
    )
}

/// An injected pod of namespace `shop`.
pub(crate) fn pod(name: &str, app: &str, version: &str, address: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{app: {app}, version: {version}, hauberk.dev/injected: 'true'}}
spec: {{serviceAccountName: {app}, containers: []}}
status: {{podIP: {address}}}
"
    )
}

/// A slice of a Service of namespace `shop`, with the ports `name/number` on each pod `name/address`.
pub(crate) fn slice(service: &str, ports: &[(&str, u16)], pods: &[(&str, &str)]) -> String {
    let ports: Vec<_> = ports
        .iter()
        .map(|(name, port)| format!("{{name: {name}, port: {port}}}"))
        .collect();
    let entry = |(name, address): &(&str, &str)| {
        format!(
            "{{addresses: [{address}], zone: z1, targetRef: {{kind: Pod, name: {name}, namespace: shop}}}}"
        )
    };
    let entries: Vec<_> = pods.iter().map(entry).collect();
    format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{}]
endpoints: [{}]
",
        ports.join(", "),
        entries.join(", ")
    )
}

/// A VirtualService of namespace `shop`.
pub(crate) fn virtual_service(name: &str, spec: &str) -> String {
    object("VirtualService", "shop", name, spec)
}

/// A DestinationRule of namespace `shop`.
pub(crate) fn destination_rule(name: &str, spec: &str) -> String {
    object("DestinationRule", "shop", name, spec)
}

/// One of our own objects; `spec` is indented by two.
pub(crate) fn object(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: hauberk.dev/v1alpha1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, generation: 1}}
spec:
{spec}
"
    )
}

/// A shop: `reviews` with the pods of two versions, `ratings` with one port and no pod, and the client `web`.
pub(crate) fn shop() -> String {
    [
        service("reviews", "10.0.0.1", &[("http", 9080), ("grpc-admin", 9090)]),
        service("ratings", "10.0.0.2", &[("http", 80)]),
        pod("reviews-1", "reviews", "v1", "10.1.0.1"),
        pod("reviews-2", "reviews", "v2", "10.1.0.2"),
        pod("web", "web", "v1", "10.1.0.9"),
        slice(
            "reviews",
            &[("http", 8080), ("grpc-admin", 8081)],
            &[("reviews-1", "10.1.0.1"), ("reviews-2", "10.1.0.2")],
        ),
    ]
    .concat()
}

/// Two subsets of `reviews`.
pub(crate) fn reviews_subsets() -> String {
    destination_rule(
        "reviews",
        "  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}",
    )
}

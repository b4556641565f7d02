//! The CustomResourceDefinitions, made from the Rust types. `crds/yaml/` holds what this file makes; a test
//! compares the two, and rewrites them with `UPDATE=1 cargo test -p crds`.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{
    destination_rule::DestinationRule, object::Kind, peer_authentication::PeerAuthentication,
    virtual_service::VirtualService,
};

/// The three definitions, as a cluster gets them.
pub fn all() -> [CustomResourceDefinition; 3] {
    [
        VirtualService::crd(),
        DestinationRule::crd(),
        PeerAuthentication::crd(),
    ]
    .map(finish)
}

/// The schema of one of our kinds, as JSON; `None` for kinds that are Kubernetes' own.
pub(crate) fn schema(kind: Kind) -> Option<&'static Value> {
    static SCHEMAS: LazyLock<[Value; 3]> = LazyLock::new(|| {
        all().map(|crd| {
            let crd = serde_json::to_value(crd).expect("a definition is JSON");
            crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
        })
    });
    let [virtual_service, destination_rule, peer_authentication] = &*SCHEMAS;
    match kind {
        Kind::VirtualService => Some(virtual_service),
        Kind::DestinationRule => Some(destination_rule),
        Kind::PeerAuthentication => Some(peer_authentication),
        Kind::Service | Kind::Pod | Kind::Namespace | Kind::EndpointSlice => None,
    }
}

/// Turns what schemars makes into what an API server wants to see.
fn finish(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(crd).expect("a definition is JSON");
    for version in crd["spec"]["versions"]
        .as_array_mut()
        .expect("a definition has versions")
    {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        finish_schema(schema);
        keep_unknown_fields(&mut schema["properties"]["spec"]);
    }
    serde_json::from_value(crd).expect("finishing keeps the shape")
}

/// Has the server keep fields that the schema does not know, instead of dropping them without a word: so that the webhook
/// can refuse them by name, and the operator say so in the status.
fn keep_unknown_fields(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("properties").is_some_and(Value::is_object) {
                map.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
            }
            for (keyword, below) in map.iter_mut() {
                match (keyword.as_str(), below) {
                    ("properties", Value::Object(properties)) => {
                        properties.values_mut().for_each(keep_unknown_fields);
                    }
                    ("items" | "additionalProperties", below) => keep_unknown_fields(below),
                    _ => {}
                }
            }
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn finish_schema(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            // A field without a value is a mistake, and CEL's `has()` must be able to rely on that.
            map.remove("nullable");
            map.remove("title");
            // Servers warn about formats that OpenAPI does not know; `minimum` says the rest.
            if let Some(Value::String(format)) = map.get_mut("format") {
                match format.as_str() {
                    "uint8" | "uint16" => "int32".clone_into(format),
                    "uint32" | "uint64" => "int64".clone_into(format),
                    _ => {}
                }
            }
            // Properties may be called `title`; their names are no keywords.
            for (keyword, below) in map.iter_mut() {
                match (keyword.as_str(), below) {
                    ("properties", Value::Object(properties)) => {
                        properties.values_mut().for_each(finish_schema)
                    }
                    ("default" | "enum" | "x-kubernetes-validations", _) => {}
                    (_, below) => finish_schema(below),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(finish_schema),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

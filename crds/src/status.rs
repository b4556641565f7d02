//! The status all three resources share: what the operator thinks of the object, and how far it has
//! travelled. Written by the operator's status writer alone; a manifest's own status decides nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Type of the condition that says whether the newest generation is in force.
pub const ACCEPTED: &str = "Accepted";

/// Type of the condition that says whether every proxy that uses the object has applied it.
pub const PROGRAMMED: &str = "Programmed";

/// What the operator made of this object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The generation in force; an older one where the newest was not accepted, absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force_generation: Option<i64>,
    /// `Accepted` says whether the newest generation is in force, and if not, why; `Programmed` whether
    /// every proxy that uses it has applied it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
    /// How many of the proxies that use it have applied it, such as `37/37`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// How many proxies have applied the generation in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_by: Option<u32>,
    /// How many proxies use this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<u32>,
}

impl Status {
    /// The condition of this type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

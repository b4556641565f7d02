//! Where traffic goes: a destination, and its share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::Headers;

/// A service, or a subset of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// The service; a short name is one of this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// A subset that a DestinationRule of that host names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub subset: Option<String>,
    /// The port; may be left out where the service has one port, or to keep the one that was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSelector>,
}

/// A port by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortSelector {
    /// The number.
    #[schemars(range(min = 1, max = 65535))]
    pub number: u32,
}

/// A destination of HTTP requests, and its share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteDestination {
    /// Where the requests go.
    pub destination: Destination,
    /// The share, relative to the others; a single destination gets everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub weight: Option<i32>,
    /// Header changes for this destination, after those of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
}

/// A destination of connections, and its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteDestination {
    /// Where the connections go.
    pub destination: Destination,
    /// The share, relative to the others; a single destination gets everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub weight: Option<i32>,
}

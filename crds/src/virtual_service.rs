//! `VirtualService`: where the requests and connections for a host go. Field names, meanings and defaults
//! are those of Istio's `networking.istio.io/v1`, so that a manifest moves over by its `apiVersion` alone.
//! These are shapes only; what works and what is refused is said in [`crate::check`].

pub mod http;
pub mod l4;
pub mod matching;
pub mod resilience;
pub mod route;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use http::HttpRoute;
pub use l4::{TcpRoute, TlsRoute};
pub use matching::HttpMatch;
pub use route::{Destination, HttpRouteDestination};

use crate::status::Status;

/// The most HTTP rules one object may hold. Larger tables are to be split over several objects.
pub const MAX_HTTP_RULES: usize = 10_000;

/// The most `tls` rules, and the most `tcp` rules, one object may hold.
pub const MAX_L4_RULES: usize = 1_000;

/// The most destinations one rule may share its traffic out to.
pub const MAX_DESTINATIONS: usize = 32;

/// The most mirrors one rule may send copies to.
pub const MAX_MIRRORS: usize = 16;

/// Where traffic for a host goes.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hauberk.dev",
    version = "v1alpha1",
    kind = "VirtualService",
    plural = "virtualservices",
    shortname = "vs",
    category = "hauberk",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    doc = "Where the requests and connections for a host go.",
    printcolumn = r#"{"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name": "Applied", "type": "string", "jsonPath": ".status.applied"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "priority": 1, "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].message"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.http) && size(self.http) > 0) || (has(self.tls) && size(self.tls) > 0) || \
             (has(self.tcp) && size(self.tcp) > 0)",
    "message": "one of http, tls and tcp must hold a rule",
}]))]
pub struct VirtualServiceSpec {
    /// Hosts whose traffic these rules steer; a short name is one of this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub hosts: Vec<String>,
    /// `mesh` (the default), or gateways as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub gateways: Vec<String>,
    /// Rules for HTTP, in order; the first that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000))]
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that is not terminated here, by SNI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub tls: Vec<TlsRoute>,
    /// Rules for plain connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub tcp: Vec<TcpRoute>,
    /// Namespaces whose clients this object is for: `*` (the default), `.` for its own, `~` for none, or names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub export_to: Vec<String>,
}

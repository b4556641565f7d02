//! Hauberk's Kubernetes custom resources: their Rust types, the CRDs made from them, the reader of YAML
//! text and the check of what a well-formed object says.
//!
//! Called by the operator (both its sources and its admission) and by the command line. It does no I/O,
//! never talks to a cluster, and knows nothing of the contract with the proxy.
//!
//! - [`virtual_service`], [`destination_rule`], [`peer_authentication`]: the shapes, every field.
//! - [`parse::parse`]: text → objects, or an error that names document, line, field and remedy.
//! - [`convert`]: text with objects written for Istio → the same with ours, and what differs.
//! - [`check`]: an object → what is wrong with it, or is not supported yet, field by field.
//! - [`definitions`]: the CRDs, as committed in `crds/yaml/`.

pub mod check;
pub mod definitions;
pub mod destination_rule;
pub mod duration;
pub mod object;
pub mod parse;
pub mod path;
pub mod peer_authentication;
pub mod selector;
pub mod status;
pub mod string_match;
pub mod virtual_service;
mod words;

pub use check::{Finding, Severity};
pub use destination_rule::{DestinationRule, DestinationRuleSpec};
pub use duration::Duration;
pub use object::{Kind, Object, ObjectKey};
pub use parse::{ParseError, convert, parse};
pub use peer_authentication::{PeerAuthentication, PeerAuthenticationSpec};
pub use status::Status;
pub use string_match::StringMatch;
pub use virtual_service::{VirtualService, VirtualServiceSpec};

/// The API group of all three resources.
pub const GROUP: &str = "hauberk.dev";

/// The version of all three resources.
pub const VERSION: &str = "v1alpha1";

/// `apiVersion` as a manifest writes it.
pub const API_VERSION: &str = "hauberk.dev/v1alpha1";

/// The namespace whose policies hold for the whole mesh.
pub const ROOT_NAMESPACE: &str = "hauberk-system";

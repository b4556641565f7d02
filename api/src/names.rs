//! Names that operator, proxy, charts and users share: ports, labels, annotations, headers. This is their one home.

/// Port on which a pod's outgoing connections arrive at its proxy.
pub const OUTBOUND_PORT: u16 = 15001;
/// Port on which a pod's incoming connections arrive at its proxy.
pub const INBOUND_PORT: u16 = 15006;
/// Health, metrics and configuration views, of proxy and operator.
pub const ADMIN_PORT: u16 = 15020;
/// The operator's gRPC port.
pub const OPERATOR_PORT: u16 = 15010;
/// User and group the proxy runs as; its own traffic is not redirected.
pub const PROXY_UID: u32 = 1337;

/// Label of a pod that has a proxy.
pub const INJECTED_LABEL: &str = "hauberk.dev/injected";
/// Namespace whose policies hold for the whole mesh.
pub const ROOT_NAMESPACE: &str = "hauberk-system";
/// Trust domain unless the installation names another.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// Suffix of a Service's full name.
pub const SERVICE_SUFFIX: &str = "svc.cluster.local";

/// Name of the one Inbound resource of a proxy.
pub const INBOUND_SELF: &str = "self";
/// Name of the trust bundle of the mesh.
pub const TRUST_BUNDLE_MESH: &str = "mesh";

/// Response header with which the proxy says that an answer is its own, and why.
pub const REASON_HEADER: &str = "x-hauberk-reason";
/// Request header that tells an application how many tries came before this one.
pub const ATTEMPT_HEADER: &str = "x-hauberk-attempt";
/// Request header with the verified identity of the caller; always removed from what arrives from outside.
pub const PEER_HEADER: &str = "x-hauberk-peer";

/// Contract revision that this build speaks.
pub const REVISION: u32 = 1;

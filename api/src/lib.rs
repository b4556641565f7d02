//! The contract between Hauberk's operator and its proxies.
//!
//! `proto/` holds the messages, `src/generated` the code made from them (committed; a test keeps it current), and the
//! modules here the checked types: what was parsed once, at the edge, and needs no second look. Operator and proxy build
//! them with the same constructors, so what one accepts the other does not reject. No I/O here, and nothing is spawned.

/// The messages as generated; convert at the edge and use the checked types inside.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod proto {
    include!("generated/hauberk.v1.rs");
}

mod cluster;
mod destination;
mod endpoints;
mod hash;
mod inbound;
mod invalid;
mod name;
mod protocol;
mod resource;
mod route;
mod skip;
mod spiffe;
mod time;
mod trust;

pub mod limits;
pub mod names;

pub use cluster::{
    Balancer, Breaker, ClientCertificate, ClientTls, Cluster, ConsistentHash, HashCookie, HashKey, HashTable,
    Http2Keepalive, Keepalive, Limits, Locality, Outlier, Place, ProxyProtocol, RetryBudget, Statuses,
    Timeouts, TlsMode, Tunnel, TunnelMethod, Warmup,
};
pub use destination::{Destination, Workload};
pub use endpoints::{Endpoint, Endpoints};
pub use hash::stable_hash;
pub use inbound::{Inbound, InboundPort, TlsPolicy};
pub use invalid::Invalid;
pub use name::{Kind, ObjectRef, ResourceName};
pub use protocol::{MeshProtocol, Protocol};
pub use resource::{Body, Resource, Version};
pub use route::{
    Action, Cors, DirectResponse, Fault, FaultAbort, FaultDelay, Forward, Fraction, HeaderChanges, HttpMatch,
    HttpRule, Mirror, NamedMatch, Pattern, Redirect, RegexRewrite, Retry, RetryCondition, Rewrite, Route,
    Split, StringMatch, TcpRule, WeightedCluster,
};
pub use skip::{Networks, Ports, SkipListError};
pub use spiffe::SpiffeId;
pub use time::parse_time;
pub use trust::TrustBundle;

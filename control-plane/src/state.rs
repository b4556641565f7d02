//! Every object the operator knows, typed and indexed. A `World` never changes; a change makes the next one.

use std::collections::{BTreeMap, BTreeSet};

/// What a compiled resource was made from, and what a change touches. Where the two meet, it is compiled again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// A Service with its endpoints, and every object that names it as a host (`namespace`, `name`).
    Service(String, String),
    /// An address that may belong to a Service or a pod, whichever port.
    Address(std::net::IpAddr),
    /// The pod a proxy runs in (`namespace`, `name`), and the policies that select it.
    Pod(String, String),
    /// PeerAuthentication objects of a namespace (the root namespace counts for all).
    Policies(String),
}

/// The dependencies that a change of the world touched.
pub type Touched = BTreeSet<Dependency>;

/// A proxy, as the compiler sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxy {
    /// Its namespace.
    pub namespace: String,
    /// Its pod's name.
    pub pod: String,
    /// Its service account.
    pub service_account: String,
    /// Its pod's labels; empty when the pod is not known (yet).
    pub labels: BTreeMap<String, String>,
}

/// Every object the operator knows.
#[derive(Debug, Default)]
pub struct World {}

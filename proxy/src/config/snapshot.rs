//! What requests see of the configuration: one immutable value, swapped whole. The store makes it; a request takes one
//! `Arc<Snapshot>` at its start and never looks at configuration again. Names are resolved here, so that the request
//! path follows pointers. Live state (counters, breakers, latencies) stands beside it in `live` and survives a swap.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use api::{Action, Split, Version};

use crate::live::{ClusterLive, EndpointLive};

/// The active configuration.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with every swap.
    pub number: u64,
    /// By dialled address.
    pub destinations: HashMap<SocketAddr, Destination>,
    /// What to do with traffic for this pod; `None` until the operator has said so.
    pub inbound: Option<Arc<api::Inbound>>,
}

/// What stands behind a dialled address.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A Service.
    Service(Arc<Route>),
    /// One pod.
    Workload(Arc<Workload>),
    /// Outside the mesh.
    Passthrough,
    /// Not allowed, and why.
    Refuse(Arc<str>),
}

/// A route whose clusters are resolved.
#[derive(Debug)]
pub struct Route {
    /// Resource name, `host:port`.
    pub name: Arc<str>,
    /// Version of the resource.
    pub version: Version,
    /// The rules.
    pub spec: Arc<api::Route>,
    /// For each HTTP rule, the clusters of its split in order; empty for rules that answer themselves.
    pub http: Vec<Vec<Arc<Cluster>>>,
    /// For each TCP rule, the clusters of its split in order.
    pub tcp: Vec<Vec<Arc<Cluster>>>,
}

/// One pod, dialled by its own address: a cluster of one endpoint.
#[derive(Debug)]
pub struct Workload {
    /// What its port is declared to speak.
    pub protocol: Option<api::Protocol>,
    /// The pod, with the settings of its service.
    pub cluster: Arc<Cluster>,
}

/// A cluster with its endpoints.
#[derive(Debug)]
pub struct Cluster {
    /// Resource name, `host:port` or `host:port|subset`.
    pub name: Arc<str>,
    /// The settings.
    pub spec: Arc<api::Cluster>,
    /// Those of the Endpoints resource that the subset selects.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Counters shared by all workers.
    pub live: Arc<ClusterLive>,
}

/// One endpoint of a cluster.
#[derive(Debug)]
pub struct Endpoint {
    /// Address, identity, weight.
    pub spec: api::Endpoint,
    /// Counters shared by all workers.
    pub live: Arc<EndpointLive>,
}

impl Route {
    /// The split of an HTTP rule with its resolved clusters; `None` for rules that answer themselves.
    #[must_use]
    pub fn split(&self, rule: usize) -> Option<(&Split, &[Arc<Cluster>])> {
        match &self.spec.http.get(rule)?.action {
            Action::Forward(forward) => Some((&forward.split, self.http.get(rule)?)),
            Action::Redirect(_) | Action::Direct(_) => None,
        }
    }
}

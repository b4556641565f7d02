//! What requests see of the configuration: one immutable value, swapped whole. The store makes it; a request takes one
//! `Arc<Snapshot>` at its start and never looks at configuration again. Names are resolved here, so that the request
//! path follows pointers. Live state (counters, breakers, latencies) stands beside it in `live` and survives a swap.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use api::{Action, Split, Version};

use crate::config::usage::Usage;
use crate::live::{ClusterLive, EndpointLive};
use crate::metrics::InboundPorts;
use crate::route::Index;

/// The active configuration.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with every swap.
    pub number: u64,
    /// By dialled address, in the form that [`canonical`] gives; look up with [`Snapshot::destination`].
    pub destinations: HashMap<SocketAddr, Entry>,
    /// Every cluster that a destination leads to, by name; views and metrics walk it, requests do not.
    pub clusters: Vec<Arc<Cluster>>,
    /// What to do with traffic for this pod; `None` until the operator has said so.
    pub inbound: Option<Arc<api::Inbound>>,
    /// Metrics of the pod's ports.
    pub inbound_ports: InboundPorts,
}

/// A destination, and who uses it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What stands there.
    pub destination: Destination,
    /// Each connection to the address holds it while open.
    pub usage: Arc<Usage>,
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
    /// For each HTTP rule, the clusters of its split in order, then those of its mirrors; empty for rules that answer
    /// themselves.
    pub http: Vec<Vec<Arc<Cluster>>>,
    /// For each TCP rule, the clusters of its split in order.
    pub tcp: Vec<Vec<Arc<Cluster>>>,
    /// `Index::of(&spec.http)`: which HTTP rules are worth a look, where there are many.
    pub index: Option<Arc<Index>>,
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
    /// Their weights, prepared: `Weights::prepared(&spec, &endpoints, …)`.
    pub weights: crate::balancer::Weights,
    /// Counters shared by all workers.
    pub live: Arc<ClusterLive>,
    /// The operator has no such cluster, or no such endpoints, and why; `endpoints` is then empty.
    pub absent: Option<Arc<str>>,
}

/// One endpoint of a cluster.
#[derive(Debug)]
pub struct Endpoint {
    /// Address, identity, weight.
    pub spec: api::Endpoint,
    /// Counters shared by all workers.
    pub live: Arc<EndpointLive>,
}

impl Snapshot {
    /// What stands behind a dialled address; `None` when the operator has not said so yet.
    #[must_use]
    pub fn destination(&self, address: SocketAddr) -> Option<&Entry> {
        self.destinations.get(&canonical(address))
    }

    /// Endpoints of every cluster, and those reached only by their pod's own address; each once.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&Arc<Cluster>, &Arc<Endpoint>)> {
        let lone = self
            .destinations
            .values()
            .filter_map(|entry| match &entry.destination {
                Destination::Workload(workload) => Some(&workload.cluster),
                Destination::Service(_) | Destination::Passthrough | Destination::Refuse(_) => None,
            });
        let mut seen = HashSet::new();
        self.clusters
            .iter()
            .chain(lone)
            .flat_map(|cluster| cluster.endpoints.iter().map(move |endpoint| (cluster, endpoint)))
            .filter(move |(_, endpoint)| seen.insert(Arc::as_ptr(&endpoint.live)))
    }
}

/// The one form of an address: IPv4 where IPv6 only carries it, and no zone or flow.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Route {
    /// The split of an HTTP rule with its resolved clusters; `None` for rules that answer themselves.
    #[must_use]
    pub fn split(&self, rule: usize) -> Option<(&Split, &[Arc<Cluster>])> {
        match &self.spec.http.get(rule)?.action {
            Action::Forward(forward) => {
                let of_split = self.http.get(rule)?.get(..forward.split.clusters().len())?;
                Some((&forward.split, of_split))
            }
            Action::Redirect(_) | Action::Direct(_) => None,
        }
    }
}

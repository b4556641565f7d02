//! What requests see of the active resources. Names are resolved to pointers here; what did not change keeps its
//! pointer, and live state stays with its cluster and endpoint for as long as a snapshot names them. Only the store
//! uses it.

mod live;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use api::{Action, Kind, ResourceName, Split};

use live::Live;

use super::content::{Content, Held, Versioned};
use crate::balancer::Weights;
use crate::config::snapshot::{Cluster, Destination, Endpoint, Entry, Route, Snapshot, Workload};
use crate::config::usage::Usage;
use crate::live::EndpointLive;
use crate::metrics::InboundPorts;
use crate::route::Index;

/// The parts of the next snapshot.
#[derive(Debug, Default)]
pub(super) struct Built {
    number: u64,
    /// Something differs from the last snapshot.
    dirty: bool,
    clusters: BTreeMap<String, Arc<Cluster>>,
    routes: HashMap<String, Arc<Route>>,
    destinations: HashMap<SocketAddr, Entry>,
    inbound: Option<Arc<api::Inbound>>,
    inbound_ports: InboundPorts,
    live: HashMap<String, Live>,
    /// Clusters some of whose live state may be named no more.
    loose: BTreeSet<String>,
}

type AllHeld = BTreeMap<ResourceName, Held>;

impl Built {
    /// The snapshot, if it differs from the last one. Only here live state is retired: within one change an endpoint may
    /// leave its service and be named by its own address, or the other way round.
    pub(super) fn publish(&mut self, held: &AllHeld) -> Option<Arc<Snapshot>> {
        while let Some(cluster) = self.loose.pop_first() {
            self.retire(&cluster, held);
        }
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        self.number += 1;
        Some(Arc::new(Snapshot {
            number: self.number,
            destinations: self.destinations.clone(),
            clusters: self.clusters.values().cloned().collect(),
            inbound: self.inbound.clone(),
            inbound_ports: self.inbound_ports.clone(),
        }))
    }

    /// Builds `name` anew after it, or something it names, has changed. What it names was built before.
    pub(super) fn rebuild(
        &mut self,
        name: &ResourceName,
        held: &AllHeld,
        usage: &HashMap<SocketAddr, Arc<Usage>>,
    ) {
        let active = held.get(name).and_then(|h| h.active.as_ref());
        match name.kind {
            Kind::Destination => self.rebuild_destination(name, held, usage),
            Kind::Route => self.rebuild_route(&name.name, active),
            Kind::Cluster => self.rebuild_cluster(name, active, held),
            Kind::Inbound => {
                if let Some(Versioned {
                    content: Content::Inbound(inbound),
                    ..
                }) = active
                    && !self.inbound.as_ref().is_some_and(|i| Arc::ptr_eq(i, inbound))
                {
                    self.inbound_ports = self.inbound_ports.of(inbound);
                    self.inbound = Some(Arc::clone(inbound));
                    self.dirty = true;
                }
            }
            Kind::Endpoints | Kind::TrustBundle => {}
        }
    }

    /// Forgets what nobody wants any more.
    pub(super) fn remove(&mut self, name: &ResourceName) {
        match name.kind {
            Kind::Destination => {
                if let Ok(address) = name.name.parse() {
                    self.set_destination(address, None);
                }
            }
            Kind::Route => {
                self.dirty |= self.routes.remove(&name.name).is_some();
            }
            Kind::Cluster => {
                self.dirty |= self.clusters.remove(&name.name).is_some();
                self.loose.insert(name.name.clone());
            }
            Kind::Endpoints | Kind::Inbound | Kind::TrustBundle => {}
        }
    }

    fn rebuild_cluster(&mut self, name: &ResourceName, active: Option<&Versioned>, held: &AllHeld) {
        let (spec, endpoints, absent) = match active.map(|a| &a.content) {
            Some(Content::Cluster(spec)) => {
                let named = ResourceName::new(Kind::Endpoints, &spec.endpoints);
                let content = held
                    .get(&named)
                    .and_then(|h| h.active.as_ref())
                    .map(|a| &a.content);
                match content {
                    Some(Content::Endpoints(all)) => (Arc::clone(spec), Some(Arc::clone(all)), None),
                    Some(Content::Absent(reason)) => (Arc::clone(spec), None, Some(absence(&named, reason))),
                    _ => return,
                }
            }
            Some(Content::Absent(reason)) => {
                let spec = match self.clusters.get(&name.name) {
                    Some(old) if old.absent.is_some() => Arc::clone(&old.spec),
                    _ => Arc::new(api::Cluster::of(&name.name)),
                };
                (spec, None, Some(absence(name, reason)))
            }
            _ => return,
        };
        let old = self.clusters.get(&name.name).cloned();
        let selected: Vec<&api::Endpoint> = endpoints
            .iter()
            .flat_map(|all| select(all, &spec.subset))
            .collect();
        let endpoints = self.endpoints(&name.name, old.as_deref(), &selected);
        let unchanged = old.as_ref().is_some_and(|old| {
            Arc::ptr_eq(&old.spec, &spec) && old.absent == absent && same(&old.endpoints, &endpoints)
        });
        if !unchanged {
            if let Some(old) = old.as_ref().filter(|old| !old.endpoints.is_empty()) {
                live::tell_new(old, &endpoints);
            }
            let live = Arc::clone(&self.live(&name.name).cluster);
            let cluster = Arc::new(Cluster {
                name: Arc::clone(&live.name),
                weights: Weights::prepared(&spec, &endpoints, old.as_deref()),
                spec,
                endpoints,
                live,
                absent,
            });
            self.clusters.insert(name.name.clone(), cluster);
            self.dirty = true;
        }
        self.loose.insert(name.name.clone());
    }

    /// Endpoints with their live state; those that did not change keep their pointer.
    fn endpoints(
        &mut self,
        cluster: &str,
        old: Option<&Cluster>,
        selected: &[&api::Endpoint],
    ) -> Vec<Arc<Endpoint>> {
        let old: HashMap<SocketAddr, &Arc<Endpoint>> = old
            .iter()
            .flat_map(|old| &old.endpoints)
            .map(|e| (e.spec.address, e))
            .collect();
        selected
            .iter()
            .map(|spec| match old.get(&spec.address) {
                Some(endpoint) if endpoint.spec == **spec => Arc::clone(endpoint),
                _ => Arc::new(Endpoint {
                    spec: (*spec).clone(),
                    live: self.endpoint_live(cluster, spec),
                }),
            })
            .collect()
    }

    fn endpoint_live(&mut self, cluster: &str, spec: &api::Endpoint) -> Arc<EndpointLive> {
        self.live(cluster).of(spec)
    }

    fn live(&mut self, cluster: &str) -> &mut Live {
        self.live
            .entry(cluster.to_owned())
            .or_insert_with(|| Live::new(cluster))
    }

    fn rebuild_route(&mut self, name: &str, active: Option<&Versioned>) {
        let Some(active) = active else {
            return;
        };
        let Content::Route(spec) = &active.content else {
            self.dirty |= self.routes.remove(name).is_some();
            return;
        };
        let named = |name: &String| self.clusters.get(name).cloned();
        let resolve = |split: &Split| -> Vec<Arc<Cluster>> {
            let clusters = split.clusters().iter();
            clusters.filter_map(|share| named(&share.cluster)).collect()
        };
        let http: Vec<_> = spec
            .http
            .iter()
            .map(|rule| match &rule.action {
                Action::Forward(forward) => {
                    let mut clusters = resolve(&forward.split);
                    clusters.extend(forward.mirrors.iter().filter_map(|mirror| named(&mirror.cluster)));
                    clusters
                }
                Action::Redirect(_) | Action::Direct(_) => Vec::new(),
            })
            .collect();
        let tcp: Vec<_> = spec.tcp.iter().map(|rule| resolve(&rule.split)).collect();
        let old = self.routes.get(name);
        let equal = |a: &[Vec<Arc<Cluster>>], b: &[Vec<Arc<Cluster>>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        };
        if old.is_some_and(|old| {
            Arc::ptr_eq(&old.spec, spec) && equal(&old.http, &http) && equal(&old.tcp, &tcp)
        }) {
            return;
        }
        // The same rules have the same index, however often their clusters change.
        let index = match old {
            Some(old) if Arc::ptr_eq(&old.spec, spec) => old.index.clone(),
            _ => Index::of(&spec.http),
        };
        let route = Route {
            name: old.map_or_else(|| name.into(), |old| Arc::clone(&old.name)),
            version: active.version,
            spec: Arc::clone(spec),
            http,
            tcp,
            index,
        };
        self.routes.insert(name.to_owned(), Arc::new(route));
        self.dirty = true;
    }

    fn rebuild_destination(
        &mut self,
        name: &ResourceName,
        held: &AllHeld,
        usage: &HashMap<SocketAddr, Arc<Usage>>,
    ) {
        let Ok(address) = name.name.parse::<SocketAddr>() else {
            return;
        };
        let Some(usage) = usage.get(&address) else {
            return;
        };
        let destination = match held.get(name).and_then(|h| h.active.as_ref()).map(|a| &a.content) {
            Some(Content::Destination(destination)) => Some(self.destination(address, destination, held)),
            Some(Content::Absent(reason)) => Some(Destination::Refuse(Arc::clone(reason))),
            _ => blocked(name, held).map(Destination::Refuse),
        };
        let entry = destination.map(|destination| Entry {
            destination,
            usage: Arc::clone(usage),
        });
        self.set_destination(address, entry);
    }

    fn destination(&mut self, address: SocketAddr, spec: &api::Destination, held: &AllHeld) -> Destination {
        match spec {
            api::Destination::Route(name) => match self.routes.get(name) {
                Some(route) => Destination::Service(Arc::clone(route)),
                None => Destination::Refuse(absence_of(&ResourceName::new(Kind::Route, name), held)),
            },
            api::Destination::Workload(spec) => self.workload(address, spec, held),
            api::Destination::Passthrough => Destination::Passthrough,
            api::Destination::Refuse(reason) => Destination::Refuse(reason.as_str().into()),
        }
    }

    fn workload(&mut self, address: SocketAddr, spec: &api::Workload, held: &AllHeld) -> Destination {
        let name = ResourceName::new(Kind::Cluster, &spec.cluster);
        let Some(service) = self.clusters.get(&spec.cluster).cloned() else {
            return Destination::Refuse(absence_of(&name, held));
        };
        if held
            .get(&name)
            .and_then(|h| h.active.as_ref())
            .is_some_and(|a| a.content.is_absent())
        {
            return Destination::Refuse(absence_of(&name, held));
        }
        if let Some(Entry {
            destination: Destination::Workload(old),
            ..
        }) = self.destinations.get(&address)
            && old.protocol == spec.protocol
            && Arc::ptr_eq(&old.cluster.spec, &service.spec)
            && Arc::ptr_eq(&old.cluster.live, &service.live)
            && old.cluster.endpoints.iter().all(|e| e.spec == spec.endpoint)
        {
            return Destination::Workload(Arc::clone(old));
        }
        let endpoint = Endpoint {
            spec: spec.endpoint.clone(),
            live: self.endpoint_live(&spec.cluster, &spec.endpoint),
        };
        Destination::Workload(Arc::new(Workload {
            protocol: spec.protocol,
            cluster: Arc::new(Cluster {
                name: Arc::clone(&service.name),
                spec: Arc::clone(&service.spec),
                endpoints: vec![Arc::new(endpoint)],
                weights: Weights::default(),
                live: Arc::clone(&service.live),
                absent: None,
            }),
        }))
    }

    fn set_destination(&mut self, address: SocketAddr, entry: Option<Entry>) {
        let old = self.destinations.get(&address).map(|e| &e.destination);
        let unchanged = match (old, entry.as_ref().map(|e| &e.destination)) {
            (None, None) | (Some(Destination::Passthrough), Some(Destination::Passthrough)) => true,
            (Some(Destination::Service(a)), Some(Destination::Service(b))) => Arc::ptr_eq(a, b),
            (Some(Destination::Workload(a)), Some(Destination::Workload(b))) => Arc::ptr_eq(a, b),
            (Some(Destination::Refuse(a)), Some(Destination::Refuse(b))) => a == b,
            _ => false,
        };
        if unchanged {
            return;
        }
        let left = match old {
            Some(Destination::Workload(workload)) => Some(Arc::clone(&workload.cluster.name)),
            _ => None,
        };
        match entry {
            Some(entry) => self.destinations.insert(address, entry),
            None => self.destinations.remove(&address),
        };
        self.dirty = true;
        if let Some(cluster) = left {
            self.loose.insert(cluster.to_string());
        }
    }

    /// Retires the live state of endpoints of `cluster` that nothing built names any more.
    fn retire(&mut self, cluster: &str, held: &AllHeld) {
        let Some(live) = self.live.get_mut(cluster) else {
            return;
        };
        let lone = held
            .get(&ResourceName::new(Kind::Cluster, cluster))
            .into_iter()
            .flat_map(|h| &h.dependents)
            .filter(|dependent| dependent.kind == Kind::Destination)
            .filter_map(|dependent| self.destinations.get(&dependent.name.parse().ok()?))
            .filter_map(|entry| match &entry.destination {
                Destination::Workload(workload) => Some(&workload.cluster),
                Destination::Service(_) | Destination::Passthrough | Destination::Refuse(_) => None,
            });
        let named: HashSet<*const EndpointLive> = self
            .clusters
            .get(cluster)
            .into_iter()
            .chain(lone)
            .flat_map(|c| &c.endpoints)
            .map(|e| Arc::as_ptr(&e.live))
            .collect();
        live.keep(&named);
        if named.is_empty() && !self.clusters.contains_key(cluster) {
            self.live.remove(cluster);
        }
    }
}

/// The endpoints that have every label of the subset.
fn select<'a>(
    all: &'a api::Endpoints,
    subset: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a api::Endpoint> {
    all.endpoints.iter().filter(|e| {
        subset
            .iter()
            .all(|(label, value)| e.labels.get(label) == Some(value))
    })
}

fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn absence(name: &ResourceName, reason: &str) -> Arc<str> {
    format!("{name} is absent: {reason}").into()
}

fn absence_of(name: &ResourceName, held: &AllHeld) -> Arc<str> {
    match held.get(name).and_then(|h| h.active.as_ref()).map(|a| &a.content) {
        Some(Content::Absent(reason)) => absence(name, reason),
        _ => absence(name, "it has not arrived"),
    }
}

/// Why `name`, which has never been active, will not become so by waiting: it or something it names was rejected.
fn blocked(name: &ResourceName, held: &AllHeld) -> Option<Arc<str>> {
    let this = held.get(name)?;
    if this.active.is_some() {
        return None;
    }
    match (&this.parked, &this.rejected) {
        (Some(parked), _) => parked
            .content
            .needs()
            .iter()
            .find_map(|needed| blocked(needed, held)),
        (None, Some(rejected)) => Some(format!("{name} was rejected: {}", rejected.reason).into()),
        (None, None) => None,
    }
}

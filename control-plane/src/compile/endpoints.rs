//! The addresses behind one port of a Service, each with the identity expected there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use api::{Body, Endpoint, Endpoints, SpiffeId, limits, names};
use crds::peer_authentication::{MtlsMode, mode_for};

use super::name::{WORKLOAD_CLUSTER, read_service_port};
use super::{From, Outcome};
use crate::state::place::topology;
use crate::state::policy::Rule;
use crate::state::{Dependency, ObjectName, Pod, Proxy, Service, ServiceName, Slice, SliceEntry, World};

pub(super) fn endpoints(world: &World, proxy: &Proxy, name: &str, from: &mut From) -> Outcome {
    if name == WORKLOAD_CLUSTER {
        // Such pods come with their Destination.
        return Ok(Body::Endpoints(Endpoints::default()));
    }
    let (host, number) = read_service_port(name)?;
    from.depend(Dependency::endpoints(&host));
    let service = world
        .service(&host)
        .ok_or_else(|| format!("there is no Service {host}"))?;
    let port = service.port(number).ok_or_else(|| {
        let ports = service.port_list();
        format!("{number} is not a port of {host}: it has {ports}")
    })?;
    let keys: BTreeSet<&str> = world
        .governing(&host)
        .flat_map(|(_, policy)| policy.label_keys())
        .collect();
    let places = Places::of(world, proxy, &host, from);
    // By address, so that each comes once and the order is the same whatever the slices' order.
    let mut candidates: BTreeMap<SocketAddr, Candidate> = BTreeMap::new();
    for slice in one_family(world.slices_of(&host).collect(), service) {
        for (_, number) in slice.ports.iter().filter(|(name, _)| *name == port.name) {
            for entry in &slice.entries {
                let Some(standing) = standing(entry, service) else {
                    continue;
                };
                let address = SocketAddr::new(entry.address, *number);
                if candidates
                    .get(&address)
                    .is_some_and(|known| known.standing <= standing)
                {
                    continue;
                }
                let endpoint = endpoint(world, entry, address, &keys, &places.keys, from);
                let zones = zones(entry, service);
                candidates.insert(
                    address,
                    Candidate {
                        endpoint,
                        standing,
                        zones,
                    },
                );
            }
        }
    }
    let endpoints = choose(candidates, proxy, places.ruled, from);
    if endpoints.len() > limits::MAX_ENDPOINTS {
        let (count, most) = (endpoints.len(), limits::MAX_ENDPOINTS);
        return Err(format!(
            "{name} has {count} endpoints, and {most} is the most: split the Service"
        ));
    }
    Ok(Body::Endpoints(Endpoints { endpoints }))
}

/// What policies say of where endpoints are.
struct Places<'a> {
    /// The labels that rules go by.
    keys: BTreeSet<&'a str>,
    /// The proxy has a rule of the user's, for some port or subset: the proxy goes by that, and hints do not count.
    ruled: bool,
}

impl<'a> Places<'a> {
    fn of(world: &'a World, proxy: &Proxy, host: &ServiceName, from: &mut From) -> Self {
        let all = || world.governing(host).flat_map(|(_, policy)| policy.localities());
        if all().next().is_none() {
            return Self {
                keys: BTreeSet::new(),
                ruled: false,
            };
        }
        let own = world.governing_from(proxy, host);
        from.looked_at(proxy, &own);
        let mut own = own.objects.iter();
        Self {
            keys: all().flat_map(Rule::keys).collect(),
            ruled: own.any(|(_, policy)| policy.localities().next().is_some()),
        }
    }
}

/// An endpoint that may be chosen.
struct Candidate {
    endpoint: Endpoint,
    standing: Standing,
    /// Zones whose clients are to prefer it.
    zones: BTreeSet<String>,
}

/// How much an endpoint is to take traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It is.
    Ready,
    /// It is going away and still answers: only where nothing else does.
    Leaving,
}

fn standing(entry: &SliceEntry, service: &Service) -> Option<Standing> {
    if service.publish_not_ready || (entry.ready && !entry.terminating) {
        Some(Standing::Ready)
    } else if entry.serving && entry.terminating {
        Some(Standing::Leaving)
    } else {
        None
    }
}

/// What the cluster hints at; where it gives no hints, a Service that prefers its clients' zone means the endpoint's own.
fn zones(entry: &SliceEntry, service: &Service) -> BTreeSet<String> {
    let own = (service.prefers_zone && !entry.zone.is_empty()).then_some(&entry.zone);
    match entry.hints.is_empty() {
        true => own.into_iter().cloned().collect(),
        false => entry.hints.iter().cloned().collect(),
    }
}

/// The endpoints to send to. Decided apart for those that subsets tell apart, so that no subset is emptied for another's
/// sake.
fn choose(
    candidates: BTreeMap<SocketAddr, Candidate>,
    proxy: &Proxy,
    ruled: bool,
    from: &mut From,
) -> Vec<Endpoint> {
    if candidates.values().any(|candidate| !candidate.zones.is_empty()) {
        // The proxy's zone decides, and that is its pod's.
        from.aspects.zone = true;
        from.depend(Dependency::pod(&ObjectName::new(&proxy.namespace, &proxy.pod)));
    }
    let mut groups: BTreeMap<BTreeMap<String, String>, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates.into_values() {
        let group = groups.entry(candidate.endpoint.labels.clone()).or_default();
        group.push(candidate);
    }
    let mut chosen: Vec<_> = groups
        .into_values()
        .flat_map(|group| match ruled {
            true => best(group),
            false => near(best(group), &proxy.zone),
        })
        .map(|candidate| candidate.endpoint)
        .collect();
    chosen.sort_by_key(|endpoint| endpoint.address);
    chosen
}

/// Those that are ready; where none is, those that are leaving.
fn best(mut group: Vec<Candidate>) -> Vec<Candidate> {
    let best = group.iter().map(|candidate| candidate.standing).min();
    group.retain(|candidate| Some(candidate.standing) == best);
    group
}

/// Those for a zone. All, where there are none or where it is not said of each: a part of the endpoints is not to take
/// the load of all because of hints that are not complete.
fn near(mut group: Vec<Candidate>, zone: &str) -> Vec<Candidate> {
    let is_near = |candidate: &Candidate| candidate.zones.contains(zone);
    if group.iter().all(|candidate| !candidate.zones.is_empty()) && group.iter().any(is_near) {
        group.retain(is_near);
    }
    group
}

/// Of a Service with addresses of both families, those of its primary one: otherwise each pod would be there twice.
fn one_family<'a>(slices: Vec<&'a Slice>, service: &Service) -> impl Iterator<Item = &'a Slice> {
    let has_entries = |v6| {
        slices
            .iter()
            .any(|slice| slice.v6 == v6 && !slice.entries.is_empty())
    };
    let preferred = service.prefers_v6;
    let family = if has_entries(preferred) {
        preferred
    } else {
        !preferred
    };
    slices.into_iter().filter(move |slice| slice.v6 == family)
}

fn endpoint(
    world: &World,
    entry: &SliceEntry,
    address: SocketAddr,
    keys: &BTreeSet<&str>,
    places: &BTreeSet<&str>,
    from: &mut From,
) -> Endpoint {
    // A pod that the slice names and we do not know (yet) is none: whoever has the address else is another.
    let pod = match &entry.pod {
        Some(name) => world.pod(name),
        None => world.pod_at(entry.address),
    };
    let labels = pod.into_iter().flat_map(|pod| &pod.labels);
    let name = pod.map(|pod| &pod.name).or(entry.pod.as_ref());
    Endpoint {
        address,
        weight: pod.map_or(1, |pod| pod.weight.get()),
        identity: pod.and_then(|pod| identity(world, pod, address.port(), from)),
        labels: labels
            .filter(|(key, _)| keys.contains(key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        zone: entry.zone.clone(),
        pod: name.map(|name| name.name.clone()).unwrap_or_default(),
        topology: topology(
            places.iter().copied(),
            pod.map(|pod| &pod.labels),
            &entry.zone,
            &entry.node,
        ),
    }
}

/// The identity to expect at a port of a pod; `None` where its policy has no mutual TLS, or it has no proxy.
pub(super) fn identity(world: &World, pod: &Pod, port: u16, from: &mut From) -> Option<SpiffeId> {
    let identity = pod.identity(world.trust_domain())?;
    let namespace = &pod.name.namespace;
    from.depend(Dependency::Policies(namespace.clone()));
    from.depend(Dependency::Policies(names::ROOT_NAMESPACE.to_owned()));
    let policies = world
        .policies_for(namespace)
        .into_iter()
        .map(|(_, policy)| policy);
    match mode_for(policies, namespace, &pod.labels, port).mode {
        MtlsMode::Disable => None,
        MtlsMode::Permissive | MtlsMode::Strict => Some(identity),
    }
}

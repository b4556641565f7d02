//! What a proxy does with traffic that arrives for its pod: which connections it takes, what its ports speak, and
//! whether there is anything left to serve.

use std::collections::BTreeMap;

use api::names::{INBOUND_SELF, ROOT_NAMESPACE};
use api::{Body, Inbound, InboundPort, TlsPolicy};
use crds::ObjectKey;
use crds::peer_authentication::{Because, Decision, MtlsMode, PeerAuthentication, mode_for};

use super::declared::declared;
use super::{Aspects, From, Outcome};
use crate::state::SourceObject;
use crate::state::{Dependency, ObjectName, Pod, Proxy, Service, SliceEntry, TargetPort, World};

pub(super) fn inbound(world: &World, proxy: &Proxy, name: &str, from: &mut From) -> Outcome {
    if name != INBOUND_SELF {
        return Err(format!(
            "{name:?} is not `{INBOUND_SELF}`, the only name of this kind"
        ));
    }
    from.aspects = Aspects::ALL;
    let pod = ObjectName::new(&proxy.namespace, &proxy.pod);
    from.depend(Dependency::pod(&pod));
    from.depend(Dependency::Policies(proxy.namespace.clone()));
    from.depend(Dependency::Policies(ROOT_NAMESPACE.to_owned()));
    let policies = world.policies_for(&proxy.namespace);
    let decide = |port| {
        mode_for(
            policies.iter().map(|(_, p)| *p),
            &proxy.namespace,
            &proxy.labels,
            port,
        )
    };
    let mut ports = known_ports(world, proxy, world.pod(&pod), from);
    // Port 0 is no port, so no policy names it: what is decided for it holds for every port without its own.
    let all = decide(0);
    keep_source(&all, &policies, from);
    for port in named_ports(&policies, proxy) {
        let own = decide(port);
        if matches!(own.because, Because::Port(_)) {
            keep_source(&own, &policies, from);
            ports.entry(port).or_insert_with(|| unknown(port)).policy = Some(policy(own.mode));
        }
    }
    Ok(Body::Inbound(Inbound {
        policy: policy(all.mode),
        ports: ports.into_values().collect(),
        sources: from.sources.iter().map(Into::into).collect(),
        finished: world.pod(&pod).is_some_and(|pod| pod.finished),
    }))
}

fn policy(mode: MtlsMode) -> TlsPolicy {
    match mode {
        MtlsMode::Disable => TlsPolicy::Disable,
        MtlsMode::Permissive => TlsPolicy::Permissive,
        MtlsMode::Strict => TlsPolicy::Strict,
    }
}

fn unknown(port: u16) -> InboundPort {
    InboundPort {
        port,
        policy: None,
        protocol: None,
        service: String::new(),
    }
}

/// Ports that a policy of the pod's own namespace names.
fn named_ports(policies: &[(i64, &PeerAuthentication)], proxy: &Proxy) -> Vec<u16> {
    let own = policies
        .iter()
        .filter(|(_, p)| p.metadata.namespace.as_deref() == Some(&proxy.namespace));
    let keys = own.flat_map(|(_, p)| p.spec.port_level_mtls.keys());
    keys.filter_map(|key| key.parse().ok())
        .filter(|port| *port > 0)
        .collect()
}

fn keep_source(decision: &Decision, policies: &[(i64, &PeerAuthentication)], from: &mut From) {
    let (Because::Port(key) | Because::Workload(key) | Because::Namespace(key) | Because::Mesh(key)) =
        &decision.because
    else {
        return;
    };
    let ObjectKey {
        kind,
        namespace,
        name,
    } = key;
    let deciding = policies.iter().find(|(_, p)| {
        p.metadata.namespace.as_ref() == Some(namespace) && p.metadata.name.as_ref() == Some(name)
    });
    from.source(SourceObject {
        kind: kind.name().to_owned(),
        namespace: namespace.clone(),
        name: name.clone(),
        generation: deciding.map_or(0, |(generation, _)| *generation),
    });
}

/// Ports that Services lead to: those that select the pod, and those that have it among their endpoints.
fn known_ports(
    world: &World,
    proxy: &Proxy,
    pod: Option<&Pod>,
    from: &mut From,
) -> BTreeMap<u16, InboundPort> {
    let mut known: BTreeMap<(String, u16), InboundPort> = BTreeMap::new();
    let mut add = |service: &Service, name: &str, number: u16| {
        let Some(port) = service.port_named(name) else {
            return;
        };
        known
            .entry((service.name.to_string(), port.number))
            .or_insert_with(|| InboundPort {
                protocol: declared(&port.name, port.app_protocol.as_deref()),
                service: service.name.to_string(),
                ..unknown(number)
            });
    };
    let mut slices: Vec<_> = pod
        .into_iter()
        .flat_map(|pod| world.slices_with(&pod.name))
        .collect();
    let is_pod = |entry: &SliceEntry, pod: &Pod| match &entry.pod {
        Some(name) => *name == pod.name,
        None => pod.addresses.contains(&entry.address),
    };
    if let Some(pod) = pod {
        let at = pod.addresses.iter().flat_map(|address| world.slices_at(*address));
        slices.extend(at.filter(|slice| slice.entries.iter().any(|entry| is_pod(entry, pod))));
    }
    for slice in slices {
        from.depend(Dependency::service(&slice.service));
        if let Some(service) = world.service(&slice.service) {
            slice
                .ports
                .iter()
                .for_each(|(name, number)| add(service, name, *number));
        }
    }
    for service in world.services_selecting(&proxy.namespace, &proxy.labels) {
        from.depend(Dependency::service(&service.name));
        for port in &service.ports {
            match &port.target {
                TargetPort::Number(number) => add(service, &port.name, *number),
                TargetPort::Name(name) => {
                    if let Some(number) = pod.and_then(|pod| pod.named_ports.get(name)) {
                        add(service, &port.name, *number);
                    }
                }
            }
        }
    }
    // Of several Services that lead to one port, the first by name; one that declares a protocol goes before.
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    for port in known.into_values() {
        match ports.get_mut(&port.port) {
            None => {
                ports.insert(port.port, port);
            }
            Some(first) => first.protocol = first.protocol.or(port.protocol),
        }
    }
    ports
}

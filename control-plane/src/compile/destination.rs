//! What stands behind an address that an application dialled.

use std::net::{IpAddr, SocketAddr};

use api::{Body, Destination, Endpoint, Workload};

use super::declared::declared;
use super::endpoints::identity;
use super::name::{WORKLOAD_CLUSTER, service_port};
use super::{From, Outcome};
use crate::state::{Dependency, Pod, Service, ServicePort, SliceEntry, World};

pub(super) fn destination(world: &World, name: &str, from: &mut From) -> Outcome {
    let dialled: SocketAddr = name
        .parse()
        .map_err(|_| format!("{name:?} is not of the form ip:port"))?;
    // An IPv6 socket dials IPv4 as ::ffff:a.b.c.d; it is the same address.
    let address = dialled.ip().to_canonical();
    from.depend(Dependency::Address(address));
    let target = if let Some(service) = world.service_at(address) {
        from.depend(Dependency::service(&service.name));
        service_address(service, dialled.port())
    } else if let Some(pod) = world.pod_at(address) {
        Destination::Workload(Box::new(workload(world, pod, address, dialled.port(), from)))
    } else {
        Destination::Passthrough
    };
    Ok(Body::Destination(target))
}

fn service_address(service: &Service, port: u16) -> Destination {
    if service.port(port).is_some() {
        Destination::Route(service_port(&service.name, port))
    } else {
        let (name, ports) = (&service.name, service.port_list());
        Destination::Refuse(format!("port {port} is not a port of {name}: it has {ports}"))
    }
}

/// One pod, with the settings of the Service that it serves on this port.
fn workload(world: &World, pod: &Pod, address: IpAddr, port: u16, from: &mut From) -> Workload {
    let serving = serving(world, pod, address, port, from);
    let zone = serving.map(|(.., entry)| entry.zone.clone()).unwrap_or_default();
    Workload {
        endpoint: Endpoint {
            address: SocketAddr::new(address, port),
            weight: 1,
            identity: identity(world, pod, port, from),
            labels: Default::default(),
            zone,
            pod: pod.name.name.clone(),
            topology: Default::default(),
        },
        protocol: serving.and_then(|(_, port, _)| declared(&port.name, port.app_protocol.as_deref())),
        cluster: serving.map_or_else(
            || WORKLOAD_CLUSTER.to_owned(),
            |(service, port, _)| service_port(&service.name, port.number),
        ),
    }
}

/// The Service's port that leads to this port of the pod; of several the first by name.
fn serving<'a>(
    world: &'a World,
    pod: &Pod,
    address: IpAddr,
    port: u16,
    from: &mut From,
) -> Option<(&'a Service, &'a ServicePort, &'a SliceEntry)> {
    let mut found = None;
    for slice in world.slices_at(address) {
        from.depend(Dependency::service(&slice.service));
        // An address is given again to another pod before every slice has heard of it.
        let is_pod = |e: &&SliceEntry| e.address == address && e.pod.as_ref().is_none_or(|p| *p == pod.name);
        let Some(entry) = slice.entries.iter().find(is_pod) else {
            continue;
        };
        let Some(service) = world.service(&slice.service) else {
            continue;
        };
        let names = slice
            .ports
            .iter()
            .filter(|(_, number)| *number == port)
            .map(|(name, _)| name);
        for service_port in names.filter_map(|name| service.port_named(name)) {
            let key = |(s, p): (&Service, &ServicePort)| (s.name.clone(), p.number);
            let better = found.is_none_or(|(s, p, _)| key((service, service_port)) < key((s, p)));
            if better {
                found = Some((service, service_port, entry));
            }
        }
    }
    found
}

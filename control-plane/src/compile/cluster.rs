//! How traffic is sent to a Service port, or a subset of it: the defaults, and the client's DestinationRule laid over.

use api::{Body, Cluster, Place};

use super::name::{WORKLOAD_CLUSTER, read_subset, service_port};
use super::{From, Outcome};
use crate::state::SourceObject;
use crate::state::place::{HOSTNAME, topology};
use crate::state::policy::{Levels, Policy, Rule, Subset, decide};
use crate::state::{Dependency, ObjectName, Proxy, ServiceName, World};

pub(super) fn cluster(world: &World, proxy: &Proxy, name: &str, from: &mut From) -> Outcome {
    if name == WORKLOAD_CLUSTER {
        return Ok(Body::Cluster(Box::new(Cluster::of(WORKLOAD_CLUSTER))));
    }
    let (host, port, subset) = read_subset(name)?;
    from.depend(Dependency::service(&host));
    let service = world
        .service(&host)
        .ok_or_else(|| format!("there is no Service {host}"))?;
    if service.port(port).is_none() {
        let ports = service.port_list();
        return Err(format!("{port} is not a port of {host}: it has {ports}"));
    }
    let mut cluster = Cluster::of(service_port(&host, port));
    let deciding = world.governing_from(proxy, &host);
    from.looked_at(proxy, &deciding);
    place_matters(world, proxy, &host, from);
    let policies = deciding.objects;
    // Objects of one namespace for one host are one: the first policy, and of each name the first subset.
    let top = policies
        .iter()
        .find_map(|(object, policy)| Some((object, policy.top.as_ref()?)));
    let named = subset
        .map(|subset| find(&policies, subset, &host, proxy))
        .transpose()
        // Which names the client's namespace.
        .inspect_err(|_| from.aspects.namespace = true)?;
    let mut layers: Vec<&Levels> = Vec::new();
    if let Some((object, levels)) = top {
        layers.push(levels);
        from.source(object.clone());
    }
    if let Some((object, subset)) = named {
        layers.push(&subset.levels);
        cluster.subset = subset.labels.clone();
        from.source(object.clone());
    }
    if let Some(rule) = decide(&mut cluster, &layers, port) {
        let own = own_topology(world, proxy, &rule);
        cluster.locality = rule.seen_from(&own, cluster.outlier.is_some());
    }
    // Each object fits in itself; layers of two objects may not.
    cluster.check_wire().map_err(|e| e.to_string())?;
    cluster.sources = from.sources.iter().map(Into::into).collect();
    Ok(Body::Cluster(Box::new(cluster)))
}

/// Told by the rules of all namespaces, so that it is the same whoever asks.
fn place_matters(world: &World, proxy: &Proxy, host: &ServiceName, from: &mut From) {
    let mut any = false;
    let policies = world.governing(host).map(|(_, policy)| policy);
    for rule in policies.flat_map(Policy::localities) {
        any = true;
        if rule.keys().contains(HOSTNAME) {
            // Which pod, its namespace tells as well.
            from.aspects.pod = true;
            from.aspects.namespace = true;
        }
    }
    if any {
        from.aspects.zone = true;
        from.aspects.labels = true;
        from.depend(Dependency::pod(&ObjectName::new(&proxy.namespace, &proxy.pod)));
    }
}

/// Where the proxy is, and the labels of its pod that a rule goes by.
fn own_topology(world: &World, proxy: &Proxy, rule: &Rule) -> Place {
    let keys = rule.keys();
    let node = match keys.contains(HOSTNAME) {
        true => world
            .pod(&ObjectName::new(&proxy.namespace, &proxy.pod))
            .map_or("", |pod| &pod.node),
        false => "",
    };
    topology(keys, Some(&proxy.labels), &proxy.zone, node)
}

fn find<'a>(
    policies: &'a [(SourceObject, &'a Policy)],
    name: &str,
    host: &ServiceName,
    proxy: &Proxy,
) -> Result<(&'a SourceObject, &'a Subset), String> {
    let all = || {
        policies
            .iter()
            .flat_map(|(object, policy)| policy.subsets.iter().map(move |s| (object, s)))
    };
    all().find(|(_, subset)| subset.name == name).ok_or_else(|| {
        let mut names: Vec<_> = all().map(|(_, subset)| subset.name.as_str()).collect();
        names.dedup();
        let list = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        let from = &proxy.namespace;
        format!("subset `{name}` of {host} is not defined for clients of namespace `{from}`: there is {list}")
    })
}

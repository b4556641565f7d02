//! How traffic is sent to a Service port, or a subset of it: the defaults, and the client's DestinationRule laid over.

use api::{Body, Cluster};

use super::name::{WORKLOAD_CLUSTER, read_subset, service_port};
use super::{From, Outcome};
use crate::state::SourceObject;
use crate::state::policy::{Levels, Policy, Subset, decide};
use crate::state::{Dependency, Proxy, ServiceName, World};

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
    decide(&mut cluster, &layers, port);
    // Each object fits in itself; layers of two objects may not.
    cluster.check_wire().map_err(|e| e.to_string())?;
    cluster.sources = from.sources.iter().map(Into::into).collect();
    Ok(Body::Cluster(Box::new(cluster)))
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

//! Clusters for the unit tests of the deciding modules.

use std::sync::Arc;

use super::Weights;
use crate::config::snapshot::{Cluster, Endpoint};
use crate::live::{ClusterLive, EndpointLive};

/// An endpoint with a weight, outside the mesh.
pub(crate) fn endpoint(number: usize, weight: u32) -> Endpoint {
    let [_, a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
    Endpoint {
        spec: api::Endpoint {
            address: ([10, a, b, c], 80).into(),
            weight,
            identity: None,
            labels: Default::default(),
            zone: String::new(),
            pod: format!("pod-{number}"),
            topology: Default::default(),
        },
        live: Arc::new(EndpointLive::new()),
    }
}

/// A cluster with one endpoint for each weight, and every default.
pub(crate) fn cluster_of(weights: &[u32]) -> Arc<Cluster> {
    let endpoints: Vec<_> = weights
        .iter()
        .enumerate()
        .map(|(i, weight)| Arc::new(endpoint(i, *weight)))
        .collect();
    let name: Arc<str> = "reviews.shop.svc.cluster.local:80".into();
    Arc::new(Cluster {
        name: Arc::clone(&name),
        spec: Arc::new(api::Cluster::of(&*name)),
        weights: Weights::of(&endpoints),
        endpoints,
        live: Arc::new(ClusterLive::new(name)),
        absent: None,
    })
}

/// A consistent balancer that goes by the header `x-user`.
pub(crate) fn hashed(table: api::HashTable) -> api::Balancer {
    api::Balancer::ConsistentHash(Box::new(api::ConsistentHash {
        key: api::HashKey::Header(http::HeaderName::from_static("x-user")),
        table,
    }))
}

/// The same cluster, live state included, with other settings.
pub(crate) fn with(cluster: Arc<Cluster>, change: impl FnOnce(&mut api::Cluster)) -> Arc<Cluster> {
    let mut spec = (*cluster.spec).clone();
    change(&mut spec);
    Arc::new(Cluster {
        name: Arc::clone(&cluster.name),
        weights: Weights::prepared(&spec, &cluster.endpoints, None),
        spec: Arc::new(spec),
        endpoints: cluster.endpoints.clone(),
        live: Arc::clone(&cluster.live),
        absent: cluster.absent.clone(),
    })
}

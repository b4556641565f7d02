//! What the benches decide about: routes, clusters and manifests of a given size.

pub mod processor;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use api::{
    Action, Body, Forward, HeaderChanges, HttpMatch, HttpRule, Kind, Resource, ResourceName, Retry, Split,
    StringMatch,
};
use proxy::balancer::Weights;
use proxy::config::snapshot::{Cluster, Endpoint, Route};
use proxy::live::{ClusterLive, EndpointLive};
use proxy::route::Index;

/// A cluster of `endpoints` endpoints.
#[must_use]
pub fn cluster(endpoints: u16, balancer: api::Balancer) -> Arc<Cluster> {
    let name: Arc<str> = "reviews.shop.svc.cluster.local:80".into();
    let mut spec = api::Cluster::of(&*name);
    spec.balancer = balancer;
    let endpoints: Vec<_> = (0..endpoints).map(|i| Arc::new(endpoint(i))).collect();
    Arc::new(Cluster {
        name: Arc::clone(&name),
        weights: Weights::prepared(&spec, &endpoints, None),
        spec: Arc::new(spec),
        endpoints,
        live: Arc::new(ClusterLive::new(name)),
        absent: None,
    })
}

fn endpoint(i: u16) -> Endpoint {
    let [high, low] = i.to_be_bytes();
    Endpoint {
        spec: outside(SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 8080))),
        live: Arc::new(EndpointLive::new()),
    }
}

/// An endpoint outside the mesh.
fn outside(address: SocketAddr) -> api::Endpoint {
    api::Endpoint {
        address,
        weight: 1,
        identity: None,
        labels: std::collections::BTreeMap::new(),
        zone: String::new(),
        pod: String::new(),
        topology: Default::default(),
    }
}

/// Endpoints outside the mesh.
#[must_use]
pub fn endpoints(addresses: &[SocketAddr]) -> api::Endpoints {
    api::Endpoints {
        endpoints: addresses.iter().copied().map(outside).collect(),
    }
}

/// A route of `rules` rules, each for a path of its own: `/0`, `/1`, …
#[must_use]
pub fn route(rules: usize) -> Route {
    let http: Vec<HttpRule> = (0..rules).map(rule).collect();
    let cluster = cluster(3, api::Balancer::LeastRequest);
    let spec = api::Route {
        host: "reviews".into(),
        port: 80,
        protocol: None,
        http,
        tcp: Vec::new(),
    };
    let name = ResourceName::new(Kind::Route, "reviews.shop.svc.cluster.local:80");
    let version = Resource::new(name.clone(), Body::Route(Box::new(spec.clone()))).version;
    Route {
        name: name.name.into(),
        version,
        http: vec![vec![cluster]; rules],
        index: Index::of(&spec.http),
        spec: Arc::new(spec),
        tcp: Vec::new(),
    }
}

fn rule(i: usize) -> HttpRule {
    let uri = Some(StringMatch::Exact(format!("/{i}")));
    HttpRule {
        matches: vec![HttpMatch {
            uri,
            ..HttpMatch::default()
        }],
        ..forward("reviews.shop.svc.cluster.local:80")
    }
}

/// A rule that sends every request to one cluster.
#[must_use]
pub fn forward(cluster: &str) -> HttpRule {
    HttpRule {
        name: String::new(),
        source: None,
        matches: Vec::new(),
        action: Action::Forward(Box::new(Forward {
            split: Split::to(cluster),
            timeout: None,
            retry: Retry::default(),
            rewrite: None,
            fault: None,
            mirrors: Vec::new(),
        })),
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        cors: None,
    }
}

/// Manifests of `services` services with three endpoints each.
#[must_use]
pub fn manifests(services: u16) -> String {
    let mut yaml = String::new();
    for i in 0..services {
        let [high, low] = i.to_be_bytes();
        let _ = write!(
            yaml,
            "---
apiVersion: v1
kind: Service
metadata: {{ name: s{i}, namespace: shop }}
spec: {{ clusterIP: 10.96.{high}.{low}, selector: {{ app: s{i} }}, ports: [{{ name: http, port: 80 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: s{i}, namespace: shop, labels: {{ kubernetes.io/service-name: s{i} }} }}
addressType: IPv4
endpoints:
  - {{ addresses: [10.1.{high}.{low}], conditions: {{ ready: true }} }}
  - {{ addresses: [10.2.{high}.{low}], conditions: {{ ready: true }} }}
  - {{ addresses: [10.3.{high}.{low}], conditions: {{ ready: true }} }}
ports: [{{ name: http, port: 80 }}]
"
        );
    }
    yaml
}

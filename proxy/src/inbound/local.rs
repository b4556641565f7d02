//! The application as this proxy sees it: a cluster of one endpoint for each of its ports, without limits or balancing of
//! note, so that requests to it run through the same code as requests to any endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Connection;
use crate::balancer::Weights;
use crate::config::snapshot::{Cluster, Endpoint};
use crate::error::Error;
use crate::live::{ClusterLive, EndpointLive};

/// The cluster of the application's port.
#[must_use]
pub fn cluster(address: SocketAddr) -> Arc<Cluster> {
    let name: Arc<str> = format!("inbound|{}", address.port()).into();
    let mut spec = api::Cluster::of(&*name);
    spec.balancer = api::Balancer::RoundRobin;
    let endpoint = api::Endpoint {
        address,
        weight: 1,
        identity: None,
        labels: std::collections::BTreeMap::new(),
        zone: String::new(),
        pod: String::new(),
        topology: Default::default(),
    };
    Arc::new(Cluster {
        live: Arc::new(ClusterLive::new(Arc::clone(&name))),
        name,
        spec: Arc::new(spec),
        absent: None,
        weights: Weights::default(),
        endpoints: vec![Arc::new(Endpoint {
            spec: endpoint,
            live: Arc::new(EndpointLive::new()),
        })],
    })
}

/// A connection to the application.
///
/// # Errors
/// When it does not listen there.
pub async fn dial(connection: &Connection) -> Result<TcpStream, Error> {
    connection.worker.upstream.dial(connection.dialled, None).await
}

//! The live state that the store keeps, by cluster: it stays with its endpoint for as long as a snapshot names it. Only
//! `build` uses it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::breaker;
use crate::config::snapshot::{Cluster, Endpoint};
use crate::live::{ClusterLive, EndpointLive};

/// Live state of a cluster and its endpoints, by address and pod.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) cluster: Arc<ClusterLive>,
    endpoints: HashMap<(SocketAddr, String), Arc<EndpointLive>>,
    /// Those that left with a breaker that was not closed, and when: should they return, a probe comes first.
    departed: HashMap<(SocketAddr, String), (Arc<EndpointLive>, Instant)>,
}

/// How long it is remembered that an endpoint left with its breaker open, and how many are remembered for a cluster.
const REMEMBERED: Duration = Duration::from_secs(600);
const MAX_DEPARTED: usize = 1000;

impl Live {
    pub(super) fn new(cluster: &str) -> Self {
        Self {
            cluster: Arc::new(ClusterLive::new(cluster)),
            endpoints: HashMap::new(),
            departed: HashMap::new(),
        }
    }

    /// That of an endpoint: as it was, as it is remembered, or new.
    pub(super) fn of(&mut self, spec: &api::Endpoint) -> Arc<EndpointLive> {
        let key = (spec.address, spec.pod.clone());
        let before = self.departed.remove(&key);
        let live = self.endpoints.entry(key);
        Arc::clone(live.or_insert_with(|| {
            Arc::new(before.map_or_else(EndpointLive::new, |(before, _)| {
                EndpointLive::returning(&before, Instant::now())
            }))
        }))
    }

    /// Retires that of all endpoints that are not among the named.
    pub(super) fn keep(&mut self, named: &HashSet<*const EndpointLive>) {
        let now = Instant::now();
        let Self {
            endpoints, departed, ..
        } = self;
        departed.retain(|_, (_, left)| now - *left < REMEMBERED);
        endpoints.retain(|key, endpoint| {
            let stays = named.contains(&Arc::as_ptr(endpoint));
            if !stays {
                endpoint.retired.store(true, Ordering::Release);
                let shut = !matches!(endpoint.breaker.state(now), breaker::State::Closed { .. });
                if shut && departed.len() < MAX_DEPARTED {
                    departed.insert(key.clone(), (Arc::clone(endpoint), now));
                }
            }
            stays
        });
    }
}

/// Notes which endpoints have appeared among those of `old`. What a proxy finds at first has been there for who knows how
/// long, and nothing else could take its traffic: it is not new.
pub(super) fn tell_new(old: &Cluster, endpoints: &[Arc<Endpoint>]) {
    let before: HashSet<_> = old.endpoints.iter().map(|e| Arc::as_ptr(&e.live)).collect();
    let new = endpoints
        .iter()
        .filter(|e| !before.contains(&Arc::as_ptr(&e.live)));
    for endpoint in new {
        old.live.appeared(&endpoint.live, Instant::now());
    }
}

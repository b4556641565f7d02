//! Configuration without an operator: what would come over the stream is handed over by a call. For the command line,
//! which explains what a folder would do, and for benches; a proxy that serves never makes one.

use std::net::SocketAddr;

use api::{ResourceName, proto};
use tokio::time::Instant;

use super::Current;
use super::store::{Outcome, Store};

/// The store of a proxy, without the client that feeds it.
#[derive(Debug)]
pub struct Direct {
    store: Store,
    current: Current,
}

impl Direct {
    /// A store whose snapshots `current` gets.
    #[must_use]
    pub fn new(trust_domain: &str, current: Current) -> Self {
        Self {
            store: Store::new(trust_domain),
            current,
        }
    }

    /// Wants to know what stands behind `address`, as the first connection to it does.
    pub fn want(&mut self, address: SocketAddr) {
        let (outcome, _taken) = self.store.want(address, Instant::now());
        self.publish(outcome);
    }

    /// What the store wants to be told, and has not been yet.
    #[must_use]
    pub fn wanted(&self) -> Vec<ResourceName> {
        let all = self.store.subscriptions();
        let unknown = all.into_iter().filter(|(_, version)| version.is_none());
        unknown.map(|(name, _)| name).collect()
    }

    /// Takes an update of the operator; says how many of its resources became active, or why not all were taken.
    ///
    /// # Errors
    /// With the reason for the first resource that was refused.
    pub fn apply(&mut self, update: proto::Update) -> Result<usize, String> {
        let mut outcome = self.store.apply(update);
        let refused = outcome.nacks.pop();
        let active = outcome.acks.len();
        self.publish(outcome);
        refused.map_or(Ok(active), |nack| Err(nack.reason))
    }

    fn publish(&self, outcome: Outcome) {
        if let Some(snapshot) = outcome.snapshot {
            self.current.store(snapshot);
        }
    }
}

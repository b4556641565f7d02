//! The consistent balancer: a [`Table`] leads from the hash of a key to an endpoint, and the same hash leads to the same
//! endpoint for as long as that one is there and fits. The configuration store makes a table for each set of endpoints,
//! once; workers share it, and nothing in it changes.
//!
//! The slots of a table are points of a ring or slots of a maglev table, each with the endpoint it belongs to. From the
//! slot of a hash a pick walks on until it meets an endpoint that fits, so that what an endpoint leaves behind is spread
//! over the others and comes back to it when it does. The walk has an end: after [`STEPS`] slots, which it takes only where
//! most endpoints are shut, the endpoint that fits is found by rendezvous, which depends on key and endpoints alone, too.
//!
//! Endpoints are told apart by their address, so that all proxies that see the same endpoints agree. A point of a ring
//! takes 10 bytes, a slot of a maglev table 2, an endpoint 8: 640 KiB at most and 128 KiB by default, 10 MiB with the largest ring.

use api::{HashTable, stable_hash};

use crate::config::snapshot::Endpoint;
use std::sync::Arc;

mod key;
mod maglev;
mod ring;

pub use key::Key;

/// Slots that are walked over before rendezvous decides.
const STEPS: usize = 64;

/// What leads from a hash to an endpoint of a set.
#[derive(Debug)]
pub struct Table {
    slots: Slots,
    /// A hash of each endpoint's address, in the order of the set.
    endpoints: Box<[u64]>,
}

/// Indices of endpoints by slot. 16 bits are enough: a set has [`api::limits::MAX_ENDPOINTS`] endpoints at most.
#[derive(Debug)]
enum Slots {
    /// A hash belongs to the first point that is not before it.
    Ring { points: Box<[u64]>, owners: Box<[u16]> },
    /// A hash belongs to the slot of its remainder.
    Maglev { owners: Box<[u16]> },
}

/// An endpoint as the makers of tables see it.
#[derive(Debug, Clone, Copy)]
struct Owner {
    index: u16,
    hash: u64,
    weight: u32,
}

impl Table {
    /// The table of a set of endpoints; of an empty one, an empty table.
    #[must_use]
    pub fn of(kind: HashTable, endpoints: &[Arc<Endpoint>]) -> Self {
        let mut owners: Vec<Owner> = endpoints
            .iter()
            .zip(0..=u16::MAX)
            .map(|(endpoint, index)| Owner {
                index,
                hash: address_hash(endpoint),
                weight: endpoint.spec.weight.max(1),
            })
            .collect();
        let hashes = owners.iter().map(|owner| owner.hash).collect();
        // The order of the set must not matter.
        owners.sort_by_key(|owner| owner.hash);
        let slots = match kind {
            HashTable::Ring(least) => ring::slots(least, &owners),
            HashTable::Maglev(size) => maglev::slots(size, &owners),
        };
        Self {
            slots,
            endpoints: hashes,
        }
    }

    /// The index of the endpoint for a hash, among those that fit; `None` when none does.
    pub(super) fn find(&self, hash: u64, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let (first, owners) = match &self.slots {
            Slots::Ring { points, owners } => (points.partition_point(|point| *point < hash), owners),
            Slots::Maglev { owners } => ((hash % owners.len().max(1) as u64) as usize, owners),
        };
        let (before, from) = owners.split_at_checked(first)?;
        let mut last = None;
        for owner in from.iter().chain(before).take(STEPS) {
            // The next slot is often the same endpoint's.
            if last.replace(*owner) != Some(*owner) && fits(usize::from(*owner)) {
                return Some(usize::from(*owner));
            }
        }
        self.rendezvous(hash, fits)
    }

    /// The endpoint whose hash together with that of the key is the highest. Weights do not count here.
    fn rendezvous(&self, hash: u64, fits: impl Fn(usize) -> bool) -> Option<usize> {
        (0..self.endpoints.len())
            .filter(|i| fits(*i))
            .max_by_key(|i| stable_hash(hash, &self.endpoints[*i].to_le_bytes()))
    }
}

fn address_hash(endpoint: &Endpoint) -> u64 {
    let address = endpoint.spec.address;
    let port = address.port().to_le_bytes();
    match address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            stable_hash(0, &[a, b, c, d, port[0], port[1]])
        }
        std::net::IpAddr::V6(ip) => {
            let mut bytes = [0; 18];
            bytes[..16].copy_from_slice(&ip.octets());
            bytes[16..].copy_from_slice(&port);
            stable_hash(0, &bytes)
        }
    }
}

#[cfg(test)]
mod tests;

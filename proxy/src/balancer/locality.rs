//! Groups of a cluster's endpoints by where they are, for `localityLbSetting`: made once with the weights, for a pick first
//! chooses a group and then, as in a cluster of its own, an endpoint of it.
//!
//! - **Shares** (`distribute`): a group is chosen by chance, as probable as its share.
//! - **Levels** (`failover`): the first group takes all that it is well enough for, the next takes of what is left what it
//!   is well enough for, and so on.
//!
//! A group is well enough for all of its traffic while five of seven of its endpoints are eligible (with one of two it takes
//! 70 %), the slack that proxies of this kind grant a group. What groups are worth is worked out from their
//! endpoints, which takes a look at each: at most every [`STALE_MS`], by the one worker that finds it out of date. In
//! between, a group that has nothing eligible left is passed over at once, for the next is then asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rand::{Rng, RngExt};

use super::Weights;
use super::choose::Field;
use crate::config::snapshot::{Cluster, Endpoint};

/// How long it is believed what groups are worth.
const STALE_MS: u64 = 100;

/// What a group that is well enough takes of everything.
const WHOLE: u32 = 10_000;

/// A group takes so many times the share of its endpoints that is eligible.
const SLACK: f64 = 1.4;

/// The endpoints of a cluster by where they are.
#[derive(Debug)]
pub(super) struct Localities {
    /// In their order; none is empty.
    groups: Box<[Group]>,
    /// Until when the groups' worth is believed, in ms.
    fresh_until: AtomicU64,
    by_level: bool,
}

#[derive(Debug)]
struct Group {
    endpoints: Vec<Arc<Endpoint>>,
    weights: Weights,
    cursor: AtomicU64,
    /// What it takes when it is well.
    share: u32,
    /// The chance to be chosen, relative to those of the others.
    worth: AtomicU32,
}

impl Localities {
    /// Those that the settings make of the endpoints.
    pub(super) fn of(spec: &api::Cluster, endpoints: &[Arc<Endpoint>]) -> Option<Self> {
        let (places, by_level): (Vec<(&api::Place, u32)>, bool) = match spec.locality.as_ref()? {
            api::Locality::Shares(shares) => (shares.iter().map(|(p, n)| (p, n.get())).collect(), false),
            api::Locality::Levels(levels) => (levels.iter().map(|place| (place, WHOLE)).collect(), true),
        };
        // One more, for those that are in none of the places.
        let mut grouped: Vec<Vec<Arc<Endpoint>>> = vec![Vec::new(); places.len() + 1];
        for endpoint in endpoints {
            let first = places.iter().position(|(place, _)| is_in(endpoint, place));
            grouped[first.unwrap_or(places.len())].push(Arc::clone(endpoint));
        }
        let last = by_level.then_some(WHOLE);
        let shares = places.iter().map(|(_, share)| *share).chain(last);
        let groups = grouped
            .into_iter()
            .zip(shares)
            .filter(|(endpoints, _)| !endpoints.is_empty())
            .map(|(endpoints, share)| Group {
                weights: Weights::ungrouped(spec, &endpoints, None),
                endpoints,
                cursor: AtomicU64::new(0),
                // So that shares that are not well do not round to nothing.
                share: if by_level {
                    WHOLE
                } else {
                    share.saturating_mul(1000)
                },
                worth: AtomicU32::new(0),
            });
        let localities = Self {
            groups: groups.collect(),
            fresh_until: AtomicU64::new(0),
            by_level,
        };
        // For picks that come while the first is at it.
        localities.appraise_all(|_| true);
        Some(localities)
    }

    /// Whether no endpoint is in any place that gets traffic.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The group for this pick; `None` where none is worth anything.
    pub(super) fn choose(
        &self,
        rng: &mut impl Rng,
        now_ms: u64,
        is_eligible: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        if now_ms >= self.fresh_until.load(Ordering::Relaxed) {
            self.appraise(now_ms, is_eligible);
        }
        let worth = |group: &Group| u64::from(group.worth.load(Ordering::Relaxed));
        // By far the most common: the first level is well.
        if self.by_level
            && self
                .groups
                .first()
                .is_some_and(|group| worth(group) == u64::from(WHOLE))
        {
            return Some(0);
        }
        // One pass, as another worker may change what groups are worth meanwhile: each takes the place of the one kept so
        // far with the chance of its worth in the sum so far.
        let (mut kept, mut sum) = (None, 0);
        for (i, group) in self.groups.iter().enumerate() {
            let worth = worth(group);
            sum += worth;
            if worth > 0 && rng.random_range(0..sum) < worth {
                kept = Some(i);
            }
        }
        kept
    }

    /// The group for a further try, which is to be of other places than the endpoints of these ids: of those with an endpoint
    /// that is eligible, the first level, or one by chance as its share is. `None` where there is none, or no such wish.
    pub(super) fn elsewhere(
        &self,
        tried: &[u64],
        rng: &mut impl Rng,
        is_eligible: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        if tried.is_empty() {
            return None;
        }
        let is_other = |group: &Group| {
            !group.endpoints.iter().any(|e| tried.contains(&e.live.id))
                && group.endpoints.iter().any(|e| is_eligible(e))
        };
        let mut others = self
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group)| is_other(group));
        if self.by_level {
            return others.next().map(|(i, _)| i);
        }
        let (mut kept, mut sum) = (None, 0);
        for (i, group) in others {
            let share = u64::from(group.share.max(1));
            sum += share;
            if rng.random_range(0..sum) < share {
                kept = Some(i);
            }
        }
        kept
    }

    /// The groups in the order in which they are to be asked: the one chosen, and then the others as they stand.
    pub(super) fn from<'a>(
        &'a self,
        cluster: &'a Cluster,
        chosen: Option<usize>,
    ) -> impl Iterator<Item = Field<'a>> + Clone {
        let others = (0..self.groups.len()).filter(move |i| Some(*i) != chosen);
        let order = chosen.into_iter().chain(others);
        order.map(move |i| self.groups[i].field(cluster))
    }

    /// Works out what the groups are worth, unless another worker is at it.
    fn appraise(&self, now_ms: u64, is_eligible: impl Fn(&Endpoint) -> bool) {
        let until = self.fresh_until.load(Ordering::Relaxed);
        let next = now_ms.saturating_add(STALE_MS);
        let exchange = (Ordering::Relaxed, Ordering::Relaxed);
        if now_ms < until
            || self
                .fresh_until
                .compare_exchange(until, next, exchange.0, exchange.1)
                .is_err()
        {
            return;
        }
        if !self.appraise_all(is_eligible) {
            // Nothing is eligible: should one be picked all the same, then as if all were.
            self.appraise_all(|_| true);
        }
    }

    /// Whether any group is worth something.
    fn appraise_all(&self, is_eligible: impl Fn(&Endpoint) -> bool) -> bool {
        let (mut left, mut any) = (WHOLE, false);
        for group in &self.groups {
            let eligible = group.endpoints.iter().filter(|e| is_eligible(e)).count();
            let well = (SLACK * eligible as f64 / group.endpoints.len() as f64).min(1.0);
            let mut worth = (f64::from(group.share) * well) as u32;
            if self.by_level {
                worth = worth.min(left);
                left -= worth;
            }
            any |= worth > 0;
            group.worth.store(worth, Ordering::Relaxed);
        }
        any
    }
}

impl Group {
    fn field<'a>(&'a self, cluster: &'a Cluster) -> Field<'a> {
        Field {
            cluster,
            endpoints: &self.endpoints,
            weights: &self.weights,
            cursor: &self.cursor,
        }
    }
}

fn is_in(endpoint: &Endpoint, place: &BTreeMap<String, String>) -> bool {
    let topology = &endpoint.spec.topology;
    place
        .iter()
        .all(|(key, value)| topology.get(key).map_or("", String::as_str) == value)
}

#[cfg(test)]
mod tests;

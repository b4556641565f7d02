//! The balancers themselves: which endpoint, among those that fit. Only `balancer::pick` calls it; that an endpoint is
//! chosen changes nothing but the cursor of round robin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::{Rng, RngExt};

use super::Weights;
use super::warmup::{self, Warming};
use crate::config::snapshot::{Cluster, Endpoint};

/// Tries at a fitting endpoint by chance, before all are looked through.
const TRIES: usize = 4;

/// Where to choose: a cluster, or a group of its endpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) endpoints: &'a [Arc<Endpoint>],
    /// Those of these endpoints.
    pub(super) weights: &'a Weights,
    /// Counts up with every round-robin pick.
    pub(super) cursor: &'a AtomicU64,
}

impl<'a> Field<'a> {
    /// All endpoints of the cluster.
    pub(super) fn whole(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            endpoints: &cluster.endpoints,
            weights: &cluster.weights,
            cursor: &cluster.live.cursor,
        }
    }
}

/// Index of an endpoint that fits; `None` when none does.
pub(super) fn one(
    field: Field<'_>,
    hash: Option<u64>,
    rng: &mut impl Rng,
    now_ms: u64,
    fits: impl Fn(&Endpoint) -> bool,
) -> Option<usize> {
    let Field {
        cluster, endpoints, ..
    } = field;
    let fits = |i: usize| fits(&endpoints[i]);
    match endpoints.len() {
        0 => return None,
        1 => return fits(0).then_some(0),
        _ => {}
    }
    match &cluster.spec.balancer {
        api::Balancer::RoundRobin => {
            if let Some(warming) = warmup::under_way(field, now_ms) {
                return warming.one(rng, |_| turn(field), fits);
            }
            let turn = turn(field);
            if fits(turn) {
                Some(turn)
            } else {
                scan(field, rng, fits)
            }
        }
        api::Balancer::Random => sample(field, rng, fits),
        api::Balancer::LeastRequest => {
            if let Some(warming) = warmup::under_way(field, now_ms) {
                return least_of_warming(warming, field, rng, fits);
            }
            let (a, b) = two(field, rng, fits)?;
            Some(lower(a, b, |i| load(&endpoints[i])))
        }
        api::Balancer::PeakEwma => {
            let (a, b) = two(field, rng, fits)?;
            Some(lower(a, b, |i| {
                let endpoint = &endpoints[i];
                let load = load(endpoint);
                f64::from(endpoint.live.latency.expected_us(load == 0.0, now_ms)) * (1.0 + load)
            }))
        }
        api::Balancer::ConsistentHash(_) => match field.weights.table() {
            Some(table) => table.find(hash.unwrap_or_else(|| rng.random()), fits),
            None => sample(field, rng, fits),
        },
    }
}

/// Whose turn it is in round robin.
fn turn(field: Field<'_>) -> usize {
    let cursor = field.cursor.fetch_add(1, Ordering::Relaxed);
    field.weights.turn(cursor, field.endpoints.len())
}

/// As without warm-up: of two the one with less under way, for what it has of its weight now.
fn least_of_warming(
    warming: Warming<'_>,
    field: Field<'_>,
    rng: &mut impl Rng,
    fits: impl Fn(usize) -> bool,
) -> Option<usize> {
    let len = field.endpoints.len();
    let a = warming.one(rng, |rng| field.weights.sample(len, rng), &fits)?;
    let other = |i| i != a && fits(i);
    let b = warming
        .one(rng, |rng| field.weights.sample(len, rng), other)
        .unwrap_or(a);
    Some(lower(a, b, |i| {
        let endpoint = &field.endpoints[i];
        f64::from(endpoint.live.active.load(Ordering::Relaxed)) / warming.weight(endpoint)
    }))
}

/// What is under way, for its weight.
fn load(endpoint: &Endpoint) -> f64 {
    f64::from(endpoint.live.active.load(Ordering::Relaxed)) / f64::from(endpoint.spec.weight.max(1))
}

/// The one with the lower cost; `a` where they are alike.
fn lower(a: usize, b: usize, cost: impl Fn(usize) -> f64) -> usize {
    if a == b || cost(a) <= cost(b) { a } else { b }
}

/// Two different ones that fit, by chance; the same twice when only one fits.
fn two(field: Field<'_>, rng: &mut impl Rng, fits: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let a = sample(field, rng, &fits)?;
    let b = sample(field, rng, |i| i != a && fits(i)).unwrap_or(a);
    Some((a, b))
}

/// One that fits, as probable as its weight.
fn sample(field: Field<'_>, rng: &mut impl Rng, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let len = field.endpoints.len();
    for _ in 0..TRIES {
        let i = field.weights.sample(len, rng);
        if fits(i) {
            return Some(i);
        }
    }
    scan(field, rng, fits)
}

/// As [`sample`], by looking at every endpoint once: each that fits takes the place of the one kept so far with the
/// chance of its weight in the sum so far, which leaves each with the chance of its weight in the whole.
fn scan(field: Field<'_>, rng: &mut impl Rng, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut kept, mut sum) = (None, 0u64);
    for (i, endpoint) in field.endpoints.iter().enumerate() {
        let weight = u64::from(endpoint.spec.weight);
        if weight == 0 || !fits(i) {
            continue;
        }
        sum += weight;
        if rng.random_range(0..sum) < weight {
            kept = Some(i);
        }
    }
    kept
}

//! Weights of a cluster's endpoints, prepared for picking: made once for each snapshot of the cluster, so that a pick
//! does not add them up, with the table that a consistent balancer needs. Where all weights are alike (the common case) nothing is stored and every answer is O(1), else
//! O(log n).

use std::sync::Arc;

use rand::{Rng, RngExt};

use super::Table;
use super::locality::Localities;
use crate::config::snapshot::{Cluster, Endpoint};

/// Weights of a cluster's endpoints, in their order.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    /// Sum of the weights up to and including each endpoint; empty when they are all alike.
    sums: Box<[u64]>,
    /// Step through the weighted turns; see [`Weights::turn`].
    stride: u64,
    /// Of a consistent balancer.
    table: Option<Arc<Table>>,
    /// Where the cluster tells its endpoints apart by where they are; the table is then its groups' affair.
    localities: Option<Arc<Localities>>,
}

impl Weights {
    /// Those of the endpoints.
    #[must_use]
    pub fn of(endpoints: &[Arc<Endpoint>]) -> Self {
        let weight = |endpoint: &Arc<Endpoint>| u64::from(endpoint.spec.weight);
        if endpoints
            .windows(2)
            .all(|pair| weight(&pair[0]) == weight(&pair[1]))
        {
            return Self::default();
        }
        let mut total = 0;
        let sums: Box<[u64]> = endpoints
            .iter()
            .map(|endpoint| {
                total += weight(endpoint);
                total
            })
            .collect();
        Self {
            sums,
            stride: stride(total),
            table: None,
            localities: None,
        }
    }

    /// Those of the endpoints, with the table that the settings ask for: that of `old`, if it was made of the same.
    #[must_use]
    pub fn prepared(spec: &api::Cluster, endpoints: &[Arc<Endpoint>], old: Option<&Cluster>) -> Self {
        if let Some(localities) = Localities::of(spec, endpoints) {
            return Self {
                localities: Some(Arc::new(localities)),
                ..Self::of(endpoints)
            };
        }
        Self::ungrouped(spec, endpoints, old)
    }

    /// As [`Weights::prepared`], wherever the endpoints are.
    pub(super) fn ungrouped(spec: &api::Cluster, endpoints: &[Arc<Endpoint>], old: Option<&Cluster>) -> Self {
        let api::Balancer::ConsistentHash(settings) = &spec.balancer else {
            return Self::of(endpoints);
        };
        let kept = old.and_then(|old| {
            let same = matches!(&old.spec.balancer,
                api::Balancer::ConsistentHash(before) if before.table == settings.table);
            let made_of = |e: &Arc<Endpoint>| (e.spec.address, e.spec.weight);
            let same = same
                && old
                    .endpoints
                    .iter()
                    .map(made_of)
                    .eq(endpoints.iter().map(made_of));
            old.weights.table.clone().filter(|_| same)
        });
        Self {
            table: Some(kept.unwrap_or_else(|| Arc::new(Table::of(settings.table, endpoints)))),
            ..Self::of(endpoints)
        }
    }

    /// The table of a consistent balancer.
    pub(super) fn table(&self) -> Option<&Table> {
        self.table.as_deref()
    }

    /// The endpoints by where they are.
    pub(super) fn localities(&self) -> Option<&Localities> {
        self.localities.as_deref()
    }

    /// Index of the endpoint of `len` whose turn it is when `cursor` turns have been taken.
    ///
    /// With weights, `total` turns make a round in which each endpoint has as many turns as its weight. A stride near
    /// the golden section of the total, with no divisor in common, visits every turn of a round once and spreads the
    /// turns of each endpoint over it, as smooth weighted round robin does, but without state to lock.
    pub(super) fn turn(&self, cursor: u64, len: usize) -> usize {
        match self.sums.last() {
            None => (cursor % len as u64) as usize,
            Some(total) => {
                let position = u128::from(cursor % total) * u128::from(self.stride) % u128::from(*total);
                self.at(position as u64, len)
            }
        }
    }

    /// Index of an endpoint of `len`, each as probable as its weight.
    pub(super) fn sample(&self, len: usize, rng: &mut impl Rng) -> usize {
        match self.sums.last() {
            None => rng.random_range(0..len),
            Some(total) => self.at(rng.random_range(0..*total), len),
        }
    }

    fn at(&self, position: u64, len: usize) -> usize {
        self.sums.partition_point(|sum| *sum <= position).min(len - 1)
    }
}

fn stride(total: u64) -> u64 {
    let golden = ((total as f64) * 0.618_033_988_749_895) as u64;
    (golden.max(1)..total)
        .find(|stride| gcd(*stride, total) == 1)
        .unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use crate::balancer::testing::cluster_of;

    fn round(weights: &[u32]) -> Vec<usize> {
        let prepared = &cluster_of(weights).weights;
        let total = weights.iter().sum::<u32>();
        (0..u64::from(total))
            .map(|cursor| prepared.turn(cursor, weights.len()))
            .collect()
    }

    #[test]
    fn alike_weights_take_turns_in_order() {
        let prepared = &cluster_of(&[7, 7, 7]).weights;
        let turns: Vec<_> = (0..7).map(|cursor| prepared.turn(cursor, 3)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn weighted_turns_are_spread_over_the_round() {
        let turns = round(&[5, 1, 1]);
        let longest_row = turns.chunk_by(|a, b| a == b).map(<[usize]>::len).max().unwrap();
        assert!(longest_row <= 3, "{turns:?}");
    }

    proptest! {
        #[test]
        fn a_round_gives_each_endpoint_as_many_turns_as_its_weight(weights in prop::collection::vec(1u32..20, 1..12)) {
            let turns = if weights.windows(2).all(|w| w[0] == w[1]) { return Ok(()) } else { round(&weights) };
            for (i, weight) in weights.iter().enumerate() {
                prop_assert_eq!(turns.iter().filter(|turn| **turn == i).count(), *weight as usize);
            }
        }

        #[test]
        fn the_largest_weights_do_not_overflow(cursor: u64, seed: u64) {
            let prepared = &cluster_of(&[u32::MAX, u32::MAX - 1, 1]).weights;
            prop_assert!(prepared.turn(cursor, 3) < 3);
            prop_assert!(prepared.sample(3, &mut SmallRng::seed_from_u64(seed)) < 3);
        }
    }

    #[test]
    fn chance_follows_the_weights() {
        let prepared = &cluster_of(&[1, 2, 7]).weights;
        let mut rng = SmallRng::seed_from_u64(7);
        let mut counts = [0u32; 3];
        for _ in 0..10_000 {
            counts[prepared.sample(3, &mut rng)] += 1;
        }
        for (count, expected) in counts.into_iter().zip([1000, 2000, 7000]) {
            assert!(count.abs_diff(expected) < 200, "{counts:?}");
        }
    }
}

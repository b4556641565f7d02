//! How keys are spread, how many move, and that they always lead somewhere.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::*;
use crate::balancer::testing::{cluster_of, endpoint, hashed, with};
use crate::balancer::{Wanted, pick};

const KEYS: u64 = 20_000;

fn ring(least: u32) -> HashTable {
    HashTable::Ring(NonZeroU32::new(least).unwrap())
}

fn maglev(size: u32) -> HashTable {
    HashTable::Maglev(NonZeroU32::new(size).unwrap())
}

fn defaults() -> [HashTable; 2] {
    [ring(api::limits::RING_SIZE), maglev(api::limits::MAGLEV_SIZE)]
}

/// Endpoints of these numbers and weights.
fn set(endpoints: &[(usize, u32)]) -> Vec<Arc<Endpoint>> {
    endpoints
        .iter()
        .map(|(number, weight)| Arc::new(endpoint(*number, *weight)))
        .collect()
}

fn alike(numbers: std::ops::Range<usize>) -> Vec<(usize, u32)> {
    numbers.map(|number| (number, 1)).collect()
}

fn hash(key: u64) -> u64 {
    stable_hash(0, format!("user-{key}").as_bytes())
}

/// The pod of every key.
fn homes(kind: HashTable, endpoints: &[(usize, u32)]) -> Vec<String> {
    let endpoints = set(endpoints);
    let table = Table::of(kind, &endpoints);
    (0..KEYS)
        .map(|key| {
            endpoints[table.find(hash(key), |_| true).unwrap()]
                .spec
                .pod
                .clone()
        })
        .collect()
}

fn share(homes: &[String], number: usize) -> f64 {
    let pod = format!("pod-{number}");
    homes.iter().filter(|home| **home == pod).count() as f64 / homes.len() as f64
}

#[test]
fn keys_are_spread_and_weights_hold() {
    // A share of a ring is as exact as its points are many: 256 points are good for a sixteenth, thrice that is the bound.
    for (kind, bound) in [(defaults()[0], 0.2), (ring(100_000), 0.05), (defaults()[1], 0.05)] {
        let homes = homes(kind, &alike(0..10));
        for number in 0..10 {
            let share = share(&homes, number) * 10.0;
            assert!(
                (share - 1.0).abs() < bound,
                "{kind:?} {number}: {share} of a fair share"
            );
        }
    }
    for (kind, bound) in [(ring(100_000), 0.05), (defaults()[1], 0.05)] {
        let homes = homes(kind, &[(0, 1), (1, 2), (2, 5)]);
        for (number, weight) in [(0, 1.0), (1, 2.0), (2, 5.0)] {
            let share = share(&homes, number) * 8.0 / weight;
            assert!(
                (share - 1.0).abs() < 2.0 * bound,
                "{kind:?} {number}: {share} of its share"
            );
        }
    }
}

#[test]
fn of_n_endpoints_one_that_leaves_or_comes_moves_about_one_key_of_n() {
    for kind in defaults() {
        let (before, after) = (homes(kind, &alike(0..10)), homes(kind, &alike(1..10)));
        let left = before.iter().filter(|home| *home == "pod-0").count();
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        let needless = moved - left;
        // To leave and to come are the same two tables.
        assert!(
            (KEYS / 20..KEYS / 6).contains(&(moved as u64)),
            "{kind:?}: {moved} moved"
        );
        match kind {
            HashTable::Ring(_) => assert_eq!(needless, 0, "the keys of the others stay"),
            HashTable::Maglev(_) => assert!((needless as u64) < KEYS / 50, "{needless} moved in vain"),
        }
        let heirs: BTreeSet<_> = before
            .iter()
            .zip(&after)
            .filter(|(home, _)| *home == "pod-0")
            .map(|(_, heir)| heir)
            .collect();
        assert_eq!(heirs.len(), 9, "all others take their part");
    }
}

#[test]
fn the_same_set_gives_the_same_table_in_every_process() {
    // Worked out once and written down: another build, another machine and another order must come to the same.
    for (kind, expected) in [(ring(64), RING), (maglev(251), MAGLEV)] {
        for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
            let endpoints = set(&order.map(|number| (number, 1 + number as u32 % 2)));
            let table = Table::of(kind, &endpoints);
            let homes = (0..24).map(|key| {
                let home = table.find(hash(key), |_| true).unwrap();
                endpoints[home].spec.pod.strip_prefix("pod-").unwrap().to_owned()
            });
            assert_eq!(homes.collect::<String>(), expected, "{kind:?}");
        }
    }
}

const RING: &str = "133001031033331333333211";
const MAGLEV: &str = "130111131131301121312031";

#[test]
fn weights_of_any_size_keep_a_table_small_and_everyone_in_it() {
    let weights = [(0, u32::MAX), (1, 1), (2, u32::MAX - 1), (3, 7)];
    let Slots::Ring { points, owners } = Table::of(ring(1), &set(&weights)).slots else {
        panic!("not a ring");
    };
    assert!(
        points.len() <= api::limits::MAX_RING_SIZE as usize + 4,
        "{}",
        points.len()
    );
    assert!(points.is_sorted());
    let in_it: BTreeSet<_> = owners.iter().collect();
    assert_eq!(in_it.len(), 4);
    let Slots::Ring { points, .. } = Table::of(ring(1024), &set(&alike(0..3000))).slots else {
        panic!("not a ring");
    };
    assert_eq!(
        points.len(),
        21 * 3000,
        "no more than 65,536 where fewer are asked for"
    );
    let Slots::Maglev { owners } = Table::of(maglev(65_537), &set(&weights)).slots else {
        panic!("not a maglev table");
    };
    assert_eq!(owners.len(), 65_537);
    assert!(owners.iter().all(|owner| *owner < 4), "no slot is left free");
}

#[test]
fn a_key_stays_while_its_endpoint_is_there_and_is_back_when_it_is() {
    for kind in defaults() {
        let endpoints = set(&alike(0..10));
        let table = Table::of(kind, &endpoints);
        for key in 0..500 {
            let home = table.find(hash(key), |_| true).unwrap();
            let heir = table.find(hash(key), |i| i != home).unwrap();
            assert_ne!(heir, home);
            for other in (0..10).filter(|i| ![home, heir].contains(i)) {
                assert_eq!(
                    table.find(hash(key), |i| i != other),
                    Some(home),
                    "it is not concerned"
                );
                let without = table.find(hash(key), |i| ![home, other].contains(&i));
                assert_eq!(without, Some(heir), "and as little when it is with its heir");
            }
        }
    }
}

#[test]
fn an_attempt_after_others_goes_to_the_next_on_the_way() {
    let now = Instant::now();
    for kind in defaults() {
        let cluster = with(cluster_of(&[1; 5]), |spec| spec.balancer = hashed(kind));
        let rng = &mut SmallRng::seed_from_u64(1);
        let mut go = |tried: &[u64]| {
            let wanted = Wanted {
                cluster: &cluster,
                tried,
                hash: Some(hash(7)),
                elsewhere: &[],
            };
            pick(&wanted, rng, now).unwrap().endpoint.live.id
        };
        let home = go(&[]);
        assert_eq!(go(&[]), home, "the same key, the same endpoint");
        let second = go(&[home]);
        let third = go(&[home, second]);
        let all: BTreeSet<_> = [home, second, third].into();
        assert_eq!(all.len(), 3, "none is tried twice");
        assert_eq!(
            go(&[home]),
            second,
            "and a key's second choice is as fixed as its first"
        );
        let ids: Vec<u64> = cluster.endpoints.iter().map(|e| e.live.id).collect();
        assert_eq!(go(&ids), home, "with none left, the first is asked again");
    }
}

#[test]
fn without_a_key_chance_decides() {
    for kind in defaults() {
        let cluster = with(cluster_of(&[1; 5]), |spec| spec.balancer = hashed(kind));
        let rng = &mut SmallRng::seed_from_u64(1);
        let mut go = || {
            pick(&Wanted::of(&cluster), rng, Instant::now())
                .unwrap()
                .endpoint
                .live
                .id
        };
        let seen: BTreeSet<_> = (0..200).map(|_| go()).collect();
        assert_eq!(seen.len(), 5, "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_key_leads_to_an_endpoint_that_fits_whenever_one_does(
        weights in prop::collection::vec((1u32..6, any::<bool>()), 0..40),
        small: bool,
        ring_or_maglev: bool,
        hash: u64,
    ) {
        let kind = match (ring_or_maglev, small) {
            (true, small) => ring(if small { 1 } else { 2000 }),
            (false, small) => maglev(if small { 2 } else { 4099 }),
        };
        let endpoints = set(&weights.iter().map(|(weight, _)| *weight).enumerate().collect::<Vec<_>>());
        let table = Table::of(kind, &endpoints);
        let fits = |i: usize| weights[i].1;
        match table.find(hash, fits) {
            Some(home) => prop_assert!(fits(home)),
            None => prop_assert!(!weights.iter().any(|(_, fits)| *fits)),
        }
        prop_assert_eq!(table.find(hash, fits), Table::of(kind, &endpoints).find(hash, fits));
    }
}

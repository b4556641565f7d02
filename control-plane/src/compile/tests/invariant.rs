use std::collections::BTreeMap;
use std::sync::Arc;

use api::Resource;
use proptest::prelude::*;

use super::universe::{batches, change, universe};
use super::*;
use crate::source::Change;
use crate::state::{ObjectState, Touched};

/// Every name there could be in the universe, for each of three proxies.
fn everything(world: &World) -> BTreeMap<(String, ResourceName), Compiled> {
    let mut names = vec![ResourceName::new(Kind::Inbound, "self")];
    for address in [
        "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.1", "10.1.0.2", "10.9.9.9",
    ] {
        names.extend(
            [80, 81, 8080, 8081].map(|p| ResourceName::new(Kind::Destination, format!("{address}:{p}"))),
        );
    }
    for host in ["a.shop", "b.shop", "c.other"] {
        for port in [80, 81] {
            let name = format!("{host}.svc.cluster.local:{port}");
            names.extend(
                [Kind::Route, Kind::Cluster, Kind::Endpoints].map(|k| ResourceName::new(k, name.clone())),
            );
            names.extend(["v1", "v2"].map(|s| ResourceName::new(Kind::Cluster, format!("{name}|{s}"))));
        }
    }
    let mut all = BTreeMap::new();
    for (namespace, pod) in [("shop", "p1"), ("shop", "p2"), ("other", "p3")] {
        let proxy = world.proxy(namespace, pod, "sa");
        for name in &names {
            all.insert((pod.to_owned(), name.clone()), compile(world, &proxy, name));
        }
    }
    all
}

fn is_touched(compiled: &Compiled, touched: &Touched) -> bool {
    compiled
        .depends
        .iter()
        .any(|dependency| touched.contains(dependency))
}

fn of(world: &World) -> Vec<ObjectState> {
    world.objects().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// THE invariant: what a change did not touch is the same when compiled again.
    #[test]
    fn what_is_not_touched_is_not_different(batches in batches()) {
        let universe = universe();
        let mut world = Arc::new(World::default());
        let mut before = everything(&world);
        for batch in batches {
            let changes: Vec<Change> = batch.iter().map(|(n, v)| change(&universe, *n, *v)).collect();
            let (next, touched) = world.apply(changes.clone());
            let after = everything(&next);
            for (name, old) in &before {
                let new = &after[name];
                if !is_touched(old, &touched) {
                    prop_assert_eq!(old, new, "{:?} after {:#?}, which touched {:?}", name, changes, touched);
                }
            }
            (world, before) = (next, after);
        }
    }

    /// Aspects tell who gets the same: they are one for all proxies, and nothing beside them counts.
    #[test]
    fn proxies_that_agree_in_the_aspects_get_the_same(batches in batches()) {
        let universe = universe();
        let mut world = Arc::new(World::default());
        for batch in batches {
            world = world.apply(batch.iter().map(|(n, v)| change(&universe, *n, *v))).0;
            let mut aspects = BTreeMap::new();
            for ((pod, name), of_all) in everything(&world) {
                let one = *aspects.entry(name.clone()).or_insert(of_all.aspects);
                prop_assert_eq!(one, of_all.aspects, "{:?} for {}", name, pod);
                let namespace = if pod == "p3" { "other" } else { "shop" };
                let proxy = of_all.aspects.of(&world.proxy(namespace, &pod, "sa"));
                let of_few = compile(&world, &proxy, &name);
                prop_assert_eq!(of_few.resource, of_all.resource, "{:?} for {}", name, pod);
                prop_assert_eq!((of_few.aspects, of_few.sources), (of_all.aspects, of_all.sources));
            }
        }
    }

    /// What the operator makes, the proxy takes.
    #[test]
    fn every_resource_reads_back_as_it_was(batches in batches()) {
        let universe = universe();
        let changes = batches.iter().flatten().map(|(n, v)| change(&universe, *n, *v));
        let (world, _) = World::default().apply(changes);
        for compiled in everything(&world).into_values() {
            let read = Resource::try_from(api::proto::Resource::from(compiled.resource.clone()));
            prop_assert_eq!(read, Ok(compiled.resource));
        }
    }

    /// The order in which objects come does not matter, nor in which portions.
    #[test]
    fn the_same_objects_make_the_same_world_in_any_order(
        versions in proptest::collection::vec(0..1000_usize, 21),
        order in Just((0..21_usize).collect::<Vec<_>>()).prop_shuffle(),
        cut in 0..21_usize,
    ) {
        let universe = universe();
        prop_assert_eq!(universe.len(), 21);
        let object = |n: &usize| {
            let (_, all) = &universe[*n];
            Change::Set(all[versions[*n] % all.len()].clone())
        };
        let (at_once, _) = World::default().apply((0..21).map(|n| object(&n)));
        let mut shuffled = Arc::new(World::default());
        for n in &order[..cut] {
            shuffled = shuffled.apply([object(n)]).0;
        }
        shuffled = shuffled.apply(order[cut..].iter().map(object)).0;
        prop_assert_eq!(everything(&at_once), everything(&shuffled));
        prop_assert_eq!(of(&at_once), of(&shuffled));
    }
}

#[test]
fn the_universe_reaches_what_matters() {
    let universe = universe();
    let mut seen = BTreeMap::<&str, usize>::new();
    for seed in 0..200_usize {
        let changes =
            (0..universe.len()).map(|n| change(&universe, n, seed.wrapping_mul(31).wrapping_add(n * 7)));
        let (world, _) = World::default().apply(changes);
        for ((_, name), compiled) in everything(&world) {
            let text = format!("{:?}", compiled.resource.body);
            for (what, hit) in [
                ("subset", name.name.ends_with("|v1") && text.contains("version")),
                ("workload", text.contains("Workload")),
                ("refused", text.contains("Refuse")),
                ("identity", text.contains("spiffe://")),
                (
                    "steered",
                    name.kind == Kind::Route && !compiled.sources.is_empty(),
                ),
                ("strict", text.contains("Strict")),
                ("weight", text.contains("weight: 5")),
                ("levels", text.contains("Levels(")),
                ("zone", text.contains("zone: \"z9\"")),
            ] {
                *seen.entry(what).or_default() += usize::from(hit);
            }
        }
    }
    assert!(seen.values().all(|n| *n > 10), "{seen:?}");
}

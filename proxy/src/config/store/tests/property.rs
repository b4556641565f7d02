//! Random sequences of what operator and applications can do, and what must hold after each step.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::live::EndpointLive;

#[derive(Debug, Clone)]
enum Step {
    Want(usize),
    /// Every destination but these is idle.
    Sweep(Vec<usize>),
    Send(Vec<Sent>),
}

#[derive(Debug, Clone)]
enum Sent {
    Destination(usize, usize),
    Route(usize, Vec<usize>),
    Cluster(usize, usize, bool),
    Endpoints(usize, Vec<u8>),
    Absent(usize, usize),
    Bad(usize, usize),
}

const ADDRESSES: [&str; 3] = ["10.96.0.1:80", "10.96.0.2:80", "10.0.0.1:80"];
const N: usize = 3;

fn kind(i: usize) -> Kind {
    [Kind::Destination, Kind::Route, Kind::Cluster, Kind::Endpoints][i % 4]
}

fn name_in(kind: Kind, i: usize) -> String {
    match kind {
        Kind::Destination => ADDRESSES[i].to_owned(),
        _ => format!("{}-{i}", kind.as_str()),
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        2 => (0..N, 0..6usize).prop_map(|(i, to)| Sent::Destination(i, to)),
        3 => (0..N, prop::collection::vec(0..N, 1..3)).prop_map(|(i, to)| Sent::Route(i, to)),
        3 => (0..N, 0..N, any::<bool>()).prop_map(|(i, to, s)| Sent::Cluster(i, to, s)),
        4 => (0..N, prop::collection::vec(1..6u8, 0..4)).prop_map(|(i, all)| Sent::Endpoints(i, all)),
        1 => (0..4usize, 0..N).prop_map(|(k, i)| Sent::Absent(k, i)),
        1 => (0..4usize, 0..N).prop_map(|(k, i)| Sent::Bad(k, i)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..N).prop_map(Step::Want),
        1 => prop::collection::vec(0..N, 0..3).prop_map(Step::Sweep),
        6 => prop::collection::vec(sent(), 1..8).prop_map(Step::Send),
    ]
}

fn build(sent: &Sent) -> proto::Resource {
    match sent {
        Sent::Destination(i, to @ 0..3) => to_route(ADDRESSES[*i], &name_in(Kind::Route, *to)),
        Sent::Destination(i, 3 | 4) => to_pod(ADDRESSES[*i], &name_in(Kind::Cluster, *i)),
        Sent::Destination(i, _) => resource(
            Kind::Destination,
            ADDRESSES[*i],
            Body::Destination(api::Destination::Passthrough),
        ),
        Sent::Route(i, to) => {
            let mut to: Vec<_> = to.iter().map(|i| name_in(Kind::Cluster, *i)).collect();
            to.dedup();
            let to: Vec<_> = to.iter().map(String::as_str).collect();
            route(&name_in(Kind::Route, *i), &to)
        }
        Sent::Cluster(i, to, subset) => {
            let subset = subset.then_some("v2");
            cluster(
                &name_in(Kind::Cluster, *i),
                &name_in(Kind::Endpoints, *to),
                subset,
            )
        }
        Sent::Endpoints(i, all) => {
            let unique: BTreeSet<_> = all.iter().collect();
            let all: Vec<_> = unique
                .iter()
                .map(|n| (format!("10.0.0.{n}:80"), if **n % 2 == 0 { "v2" } else { "v1" }))
                .collect();
            let all: Vec<_> = all.iter().map(|(a, v)| (a.as_str(), *v)).collect();
            endpoints(&name_in(Kind::Endpoints, *i), &all)
        }
        Sent::Absent(k, i) => absent(kind(*k), &name_in(kind(*k), *i), "removed"),
        Sent::Bad(k, i) => proto::Resource {
            name: Some(name(kind(*k), &name_in(kind(*k), *i)).into()),
            version: 13,
            body: None,
        },
    }
}

/// What an operator and a worker would know after every outcome.
#[derive(Default)]
struct Seen {
    subscribed: BTreeSet<ResourceName>,
    snapshot: Arc<Snapshot>,
    lives: HashSet<*const EndpointLive>,
    /// Keeps every live state ever seen, so that no address is used twice.
    all: Vec<Arc<EndpointLive>>,
}

type Key = (String, SocketAddr, String);

fn live_of(snapshot: &Snapshot) -> BTreeMap<Key, Arc<EndpointLive>> {
    let lone = snapshot
        .destinations
        .values()
        .filter_map(|e| match &e.destination {
            Destination::Workload(w) => Some(&w.cluster),
            _ => None,
        });
    let mut all = BTreeMap::new();
    for cluster in snapshot.clusters.iter().chain(lone) {
        for e in &cluster.endpoints {
            let key = (cluster.name.to_string(), e.spec.address, e.spec.pod.clone());
            let before = all.insert(key.clone(), Arc::clone(&e.live));
            assert!(
                before.is_none_or(|b| Arc::ptr_eq(&b, &e.live)),
                "{key:?} has one live state"
            );
        }
    }
    all
}

impl Seen {
    fn take(&mut self, store: &Store, outcome: Outcome) {
        for gone in &outcome.unsubscribe {
            assert!(self.subscribed.remove(gone), "{gone} was not subscribed");
        }
        for new in &outcome.subscribe {
            assert!(
                self.subscribed.insert(new.clone()),
                "{new} was subscribed already"
            );
        }
        let held: BTreeSet<_> = store.held.keys().cloned().collect();
        assert_eq!(self.subscribed, held);
        // One update may hold two versions of a resource; the last one acknowledged is the one in use.
        let acks: BTreeMap<_, _> = outcome.acks.iter().cloned().collect();
        for (name, version) in &acks {
            let active = store.held.get(name).and_then(|h| h.active.as_ref());
            assert!(
                active.is_none_or(|a| a.version == *version),
                "{name} is acknowledged, but not active"
            );
        }
        if let Some(next) = outcome.snapshot {
            assert_eq!(next.number, self.snapshot.number + 1);
            self.check_live(&next);
            self.snapshot = next;
        }
        check_links(store);
        check_snapshot(store, &self.snapshot);
    }

    fn check_live(&mut self, next: &Snapshot) {
        let (before, after) = (live_of(&self.snapshot), live_of(next));
        for (key, live) in &after {
            assert!(
                !live.retired.load(Ordering::Acquire),
                "{key:?} is named but retired"
            );
            match before.get(key) {
                Some(old) => assert!(Arc::ptr_eq(old, live), "{key:?} lost its live state"),
                None if self.lives.insert(Arc::as_ptr(live)) => self.all.push(Arc::clone(live)),
                None => panic!("{key:?} came back with its old live state"),
            }
        }
        for (key, live) in &before {
            if !after.contains_key(key) {
                assert!(
                    live.retired.load(Ordering::Acquire),
                    "{key:?} is gone, but not retired"
                );
            }
        }
    }
}

fn check_links(store: &Store) {
    for (name, held) in &store.held {
        assert!(held.is_wanted(), "{name} is held, but nobody wants it");
        assert_eq!(held.needs, held.named(), "{name}");
        for needed in &held.needs {
            assert!(
                store.held[needed].dependents.contains(name),
                "{name} needs {needed}"
            );
        }
        for dependent in &held.dependents {
            assert!(
                store.held[dependent].needs.contains(name),
                "{dependent} needs {name}"
            );
        }
    }
}

fn check_snapshot(store: &Store, snapshot: &Snapshot) {
    let is_active = |kind, of: &str| {
        store
            .held
            .get(&name(kind, of))
            .is_some_and(|h| h.active.is_some())
    };
    for (address, entry) in &snapshot.destinations {
        assert!(
            store.usage.contains_key(address),
            "{address} answers, but is not wanted"
        );
        let Destination::Service(route) = &entry.destination else {
            continue;
        };
        assert!(is_active(Kind::Route, &route.name));
        let (split, clusters) = route.split(0).expect("a rule that forwards");
        let named: Vec<_> = split.clusters().iter().map(|c| c.cluster.as_str()).collect();
        let resolved: Vec<_> = clusters.iter().map(|c| &*c.name).collect();
        assert_eq!(named, resolved, "every cluster of an active route is resolved");
        for cluster in clusters {
            let current = snapshot.clusters.iter().any(|c| Arc::ptr_eq(c, cluster));
            assert!(current, "{} is the version that the snapshot has", cluster.name);
        }
    }
    for cluster in &snapshot.clusters {
        assert!(is_active(Kind::Cluster, &cluster.name), "{}", cluster.name);
        if cluster.absent.is_none() {
            assert!(
                is_active(Kind::Endpoints, &cluster.spec.endpoints),
                "{}",
                cluster.name
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_arrives_in_whatever_order_the_snapshot_is_whole(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        const IDLE: Duration = Duration::from_secs(1);
        let mut store = Store::new(TRUST_DOMAIN);
        let mut seen = Seen {
            subscribed: store.held.keys().cloned().collect(),
            ..Seen::default()
        };
        let now = Instant::now();
        for step in steps {
            let outcome = match step {
                Step::Want(i) => store.want(address(ADDRESSES[i]), now).0,
                Step::Sweep(used) => {
                    let used: Vec<_> = used
                        .iter()
                        .filter_map(|i| store.usage.get(&address(ADDRESSES[*i])))
                        .map(Usage::hold)
                        .collect();
                    let outcome = store.sweep(now + IDLE * 2, IDLE);
                    drop(used);
                    outcome
                }
                Step::Send(all) => store.apply(update(all.iter().map(build))),
            };
            seen.take(&store, outcome);
        }
        // Nobody uses anything any more: all that was ever subscribed goes, and with it all live state.
        let outcome = store.sweep(now + IDLE * 100, IDLE);
        seen.take(&store, outcome);
        prop_assert_eq!(store.held.len(), 2);
        prop_assert!(seen.snapshot.destinations.is_empty() && seen.snapshot.clusters.is_empty());
        prop_assert!(seen.all.iter().all(|live| live.retired.load(Ordering::Acquire)));
    }
}

//! Live state: what keeps it, and what ends it.

use super::*;

#[test]
fn live_state_stays_with_its_endpoint_and_a_returning_one_starts_fresh() {
    let (mut store, first) = serving();
    let before = cluster_of(&first);
    let sent = endpoints("e", &[("10.0.0.2:80", "v2"), ("10.0.0.3:80", "v1")]);
    let second = store.apply(update([sent])).snapshot.expect("a snapshot");
    let after = cluster_of(&second);
    assert!(Arc::ptr_eq(&before.live, &after.live));
    assert!(
        Arc::ptr_eq(&before.endpoints[1], &after.endpoints[0]),
        "unchanged: the same pointer"
    );
    assert!(before.endpoints[0].live.retired.load(Ordering::Acquire));
    assert!(!after.endpoints[0].live.retired.load(Ordering::Acquire));

    // New settings of the cluster keep all of it.
    let sent = cluster("c", "e", Some("v2"));
    let third = store.apply(update([sent])).snapshot.expect("a snapshot");
    let narrowed = cluster_of(&third);
    assert!(Arc::ptr_eq(&narrowed.live, &before.live));
    assert_eq!(narrowed.endpoints.len(), 1);
    assert!(Arc::ptr_eq(
        &narrowed.endpoints[0].live,
        &before.endpoints[1].live
    ));

    let sent = [cluster("c", "e", None), endpoints("e", &[("10.0.0.1:80", "v1")])];
    let fourth = store.apply(update(sent)).snapshot.expect("a snapshot");
    let back = &cluster_of(&fourth).endpoints[0].live;
    assert!(!Arc::ptr_eq(back, &before.endpoints[0].live));
    assert!(!back.retired.load(Ordering::Acquire));
}

#[test]
fn an_endpoint_that_left_with_its_breaker_open_is_probed_when_it_returns() {
    use crate::balancer::Outcome;
    use crate::breaker::State;
    let (mut store, first) = serving();
    let before = cluster_of(&first);
    let mut rng = <rand::rngs::SmallRng as rand::SeedableRng>::seed_from_u64(1);
    let sick = loop {
        let pick = crate::balancer::pick(&crate::balancer::Wanted::of(&before), &mut rng, Instant::now())
            .expect("an endpoint");
        let endpoint = Arc::clone(&pick.endpoint);
        pick.finish(Outcome::ConnectFailure, Instant::now());
        if endpoint.spec.address == address("10.0.0.1:80") {
            break endpoint;
        }
    };
    assert!(matches!(
        sick.live.breaker.state(Instant::now()),
        State::Open { .. }
    ));
    let sent = endpoints("e", &[("10.0.0.2:80", "v2")]);
    store.apply(update([sent])).snapshot.expect("a snapshot");
    let sent = endpoints("e", &[("10.0.0.1:80", "v1"), ("10.0.0.2:80", "v2")]);
    let third = store.apply(update([sent])).snapshot.expect("a snapshot");
    let back = cluster_of(&third)
        .endpoints
        .iter()
        .find(|e| e.spec.address == sick.spec.address)
        .cloned();
    let back = back.expect("it is back");
    assert!(!Arc::ptr_eq(&back.live, &sick.live));
    assert_eq!(
        back.live.breaker.state(Instant::now()),
        State::HalfOpen { probes: 0 }
    );
}

#[test]
fn a_pod_dialled_by_its_address_shares_live_state_with_its_service() {
    let (mut store, first) = serving();
    let pod = "10.0.0.1:80";
    store.want(address(pod), Instant::now());
    let outcome = store.apply(update([to_pod(pod, "c")]));
    assert_eq!(names_of(&outcome.acks), ["destination/10.0.0.1:80"]);
    let snapshot = outcome.snapshot.expect("a snapshot");
    let lone = |snapshot: &Snapshot| {
        let entry = snapshot.destination(address(pod)).expect("an answer");
        match &entry.destination {
            Destination::Workload(workload) => Arc::clone(&workload.cluster),
            other => panic!("{other:?}"),
        }
    };
    let service = cluster_of(&first);
    assert!(Arc::ptr_eq(&lone(&snapshot).live, &service.live));
    assert!(Arc::ptr_eq(
        &lone(&snapshot).endpoints[0].live,
        &service.endpoints[0].live
    ));
    assert_eq!(snapshot.endpoints().count(), 2, "counted once");

    // Not ready any more, so no member of the service; who dials it by address still reaches it.
    let outcome = store.apply(update([endpoints("e", &[("10.0.0.2:80", "v2")])]));
    let snapshot = outcome.snapshot.expect("a snapshot");
    assert!(!lone(&snapshot).endpoints[0].live.retired.load(Ordering::Acquire));
    assert_eq!(snapshot.endpoints().count(), 2);
    let outcome = store.apply(update([absent(Kind::Destination, pod, "gone")]));
    assert!(outcome.snapshot.is_some());
    assert!(service.endpoints[0].live.retired.load(Ordering::Acquire));
}

#[test]
fn an_endpoint_that_leaves_its_service_while_its_pod_is_dialled_keeps_its_live_state() {
    let (mut store, first) = serving();
    let pod = "10.0.0.1:80";
    store.want(address(pod), Instant::now());
    let outcome = store.apply(update([
        endpoints("e", &[("10.0.0.2:80", "v2")]),
        to_pod(pod, "c"),
    ]));
    let snapshot = outcome.snapshot.expect("a snapshot");
    let live = &cluster_of(&first).endpoints[0].live;
    assert!(!live.retired.load(Ordering::Acquire));
    assert!(snapshot.endpoints().any(|(_, e)| Arc::ptr_eq(&e.live, live)));
    // And back.
    let outcome = store.apply(update([
        absent(Kind::Destination, pod, "gone"),
        endpoints("e", &[("10.0.0.1:80", "v1")]),
    ]));
    let snapshot = outcome.snapshot.expect("a snapshot");
    assert!(Arc::ptr_eq(&cluster_of(&snapshot).endpoints[0].live, live));
    assert!(!live.retired.load(Ordering::Acquire));
}

#[test]
fn an_endpoint_is_new_when_it_appears_among_others() {
    let since = |cluster: &Cluster| -> Vec<bool> {
        let new = |e: &Arc<crate::config::snapshot::Endpoint>| e.live.since.load(Ordering::Relaxed) > 0;
        cluster.endpoints.iter().map(new).collect()
    };
    let (mut store, first) = serving();
    assert_eq!(
        since(&cluster_of(&first)),
        [false, false],
        "what is found at first is not new"
    );
    assert_eq!(cluster_of(&first).live.newest.load(Ordering::Relaxed), 0);
    let (one, two, three) = (
        ("10.0.0.1:80", "v1"),
        ("10.0.0.2:80", "v2"),
        ("10.0.0.3:80", "v1"),
    );
    let mut send = |all: &[(&str, &str)]| {
        let sent = update([endpoints("e", all)]);
        cluster_of(&store.apply(sent).snapshot.expect("a snapshot"))
    };
    let after = send(&[one, two, three]);
    assert_eq!(since(&after), [false, false, true]);
    assert!(after.live.newest.load(Ordering::Relaxed) > 0);
    assert_eq!(since(&send(&[two, three])), [false, true], "it stays as it was");
    assert_eq!(
        since(&send(&[one, two, three])),
        [true, false, true],
        "and what returns is new"
    );
    assert!(send(&[]).endpoints.is_empty());
    assert_eq!(since(&send(&[one])), [false], "with nobody to warm up beside it");
}

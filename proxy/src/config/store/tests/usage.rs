//! Which destinations are kept: those in use, and those used not long ago.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_idle_destination_is_given_up_and_one_in_use_never() {
    const IDLE: Duration = Duration::from_secs(60);
    let (mut store, snapshot) = serving();
    let usage = Arc::clone(&snapshot.destination(address(VIP)).expect("an answer").usage);
    let held = usage.hold();
    tokio::time::advance(IDLE * 10).await;
    assert!(store.sweep(Instant::now(), IDLE).snapshot.is_none());
    drop(held);
    tokio::time::advance(IDLE - Duration::from_secs(1)).await;
    assert!(store.sweep(Instant::now(), IDLE).snapshot.is_none());
    tokio::time::advance(Duration::from_secs(1)).await;
    let outcome = store.sweep(Instant::now(), IDLE);
    let gone = ["destination/10.96.0.1:80", "route/r", "cluster/c", "endpoints/e"];
    assert_eq!(shown(&outcome.unsubscribe), gone);
    assert!(outcome.snapshot.expect("a snapshot").destinations.is_empty());
    assert_eq!(store.subscriptions().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_came_while_it_was_given_up_brings_it_back() {
    const IDLE: Duration = Duration::from_secs(60);
    let (mut store, snapshot) = serving();
    let usage = Arc::clone(&snapshot.destination(address(VIP)).expect("an answer").usage);
    tokio::time::advance(IDLE).await;
    store.sweep(Instant::now(), IDLE);
    // A worker that still had the old snapshot.
    let _held = usage.hold();
    let outcome = store.sweep(Instant::now(), IDLE);
    assert_eq!(shown(&outcome.subscribe), ["destination/10.96.0.1:80"]);
    tokio::time::advance(IDLE * 2).await;
    assert!(
        store.sweep(Instant::now(), IDLE).unsubscribe.is_empty(),
        "it is in use"
    );
}

#[test]
fn one_destination_too_many_pushes_out_an_idle_one_or_is_refused() {
    let mut store = Store::new(TRUST_DOMAIN);
    let now = Instant::now();
    let nth = |i: usize| SocketAddr::from(([10, 1, (i >> 8) as u8, i as u8], 80));
    for i in 0..limits::MAX_SUBSCRIPTIONS {
        assert!(store.want(nth(i), now).1);
    }
    let (outcome, taken) = store.want(address("10.2.0.0:80"), now);
    assert!(taken);
    assert_eq!((outcome.subscribe.len(), outcome.unsubscribe.len()), (1, 1));
    let held: Vec<_> = store.usage.values().map(Usage::hold).collect();
    let (outcome, taken) = store.want(address("10.2.0.1:80"), now);
    assert!(!taken && outcome.subscribe.is_empty());
    drop(held);
}

//! Tests of picking: who is eligible, how the balancers share, and what a pick does while it lives.

use std::num::NonZeroU32;
use std::time::Duration;

use api::{Balancer, HashTable, TlsMode};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::testing::{cluster_of, endpoint, hashed, with};
use super::*;
use crate::breaker::{Change, State};

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(42)
}

fn balanced(weights: &[u32], balancer: Balancer) -> Arc<Cluster> {
    with(cluster_of(weights), |spec| spec.balancer = balancer)
}

fn with_breaker(cluster: Arc<Cluster>) -> Arc<Cluster> {
    with(cluster, |spec| {
        spec.breaker = Some(api::Breaker {
            failure_threshold: NonZeroU32::MIN,
            recovery: Duration::from_secs(10),
            half_open_requests: NonZeroU32::MIN,
        });
    })
}

fn with_outlier(cluster: Arc<Cluster>) -> Arc<Cluster> {
    with(cluster, |spec| {
        spec.outlier = Some(api::Outlier {
            consecutive_5xx: NonZeroU32::new(1),
            consecutive_gateway_errors: None,
            split_local_errors: false,
            consecutive_local_failures: None,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 100,
            min_health_percent: 0,
            error_codes: None,
        });
    })
}

fn index(cluster: &Cluster, pick: &Pick) -> usize {
    cluster
        .endpoints
        .iter()
        .position(|e| Arc::ptr_eq(e, &pick.endpoint))
        .unwrap()
}

/// Fails endpoint `i` once.
fn fail(cluster: &Arc<Cluster>, i: usize, outcome: Outcome, now: Instant) -> Settled {
    let gate = Gate::of(cluster, millis(now));
    gate.enter(cluster, &cluster.endpoints[i], now)
        .expect("its breaker is closed")
        .finish(outcome, now)
}

/// Picks that end at once, counted by endpoint.
fn shares(cluster: &Arc<Cluster>, picks: usize, now: Instant) -> Vec<usize> {
    let mut rng = rng();
    let mut counts = vec![0; cluster.endpoints.len()];
    for _ in 0..picks {
        let pick = pick(&Wanted::of(cluster), &mut rng, now).unwrap();
        counts[index(cluster, &pick)] += 1;
        pick.finish(Outcome::Success, now);
    }
    counts
}

fn balancers() -> [Balancer; 6] {
    let size = |n| NonZeroU32::new(n).unwrap();
    [
        Balancer::RoundRobin,
        Balancer::Random,
        Balancer::LeastRequest,
        Balancer::PeakEwma,
        // Without a key, chance decides; large enough for the shares that are asked for.
        hashed(HashTable::Ring(size(1 << 16))),
        hashed(HashTable::Maglev(size(65_537))),
    ]
}

#[test]
fn idle_endpoints_get_their_weights_with_every_balancer() {
    for balancer in balancers() {
        for (weights, expected) in [
            (&[1, 1, 1, 1][..], [2500, 2500, 2500, 2500]),
            (&[1, 2, 3, 4], [1000, 2000, 3000, 4000]),
        ] {
            let counts = shares(&balanced(weights, balancer.clone()), 10_000, Instant::now());
            for (count, expected) in counts.iter().zip(expected) {
                assert!(
                    count.abs_diff(expected) < 250,
                    "{balancer:?} {weights:?}: {counts:?}"
                );
            }
        }
    }
}

#[test]
fn round_robin_is_exact_and_shared() {
    let cluster = balanced(&[1, 2, 5], Balancer::RoundRobin);
    assert_eq!(shares(&cluster, 8 * 100, Instant::now()), [100, 200, 500]);
    let cluster = balanced(&[1; 3], Balancer::RoundRobin);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| shares(&cluster, 100, Instant::now()));
        }
    });
    assert_eq!(cluster.live.cursor.load(Ordering::Relaxed), 300);
}

#[test]
fn the_share_of_a_shut_endpoint_is_spread_over_the_others() {
    let now = Instant::now();
    for balancer in balancers() {
        let cluster = with_breaker(balanced(&[1; 5], balancer.clone()));
        fail(&cluster, 2, Outcome::ServerError, now);
        let counts = shares(&cluster, 10_000, now);
        assert_eq!(counts[2], 0);
        for count in [counts[0], counts[1], counts[3], counts[4]] {
            assert!(count.abs_diff(2500) < 250, "{balancer:?}: {counts:?}");
        }
    }
}

#[test]
fn one_that_fits_among_thousands_is_found_by_every_balancer() {
    for balancer in balancers() {
        let cluster = with_breaker(balanced(&vec![1; 3000], balancer.clone()));
        let now = Instant::now();
        for i in (0..3000).filter(|i| *i != 1234) {
            fail(&cluster, i, Outcome::ServerError, now);
        }
        let counts = shares(&cluster, 20, now);
        assert_eq!(counts[1234], 20, "{balancer:?}");
    }
}

#[test]
fn the_less_busy_of_two_is_picked_for_its_weight() {
    let cluster = balanced(&[1, 1], Balancer::LeastRequest);
    let mut rng = rng();
    let now = Instant::now();
    let held: Vec<_> = (0..10)
        .map(|_| pick(&Wanted::of(&cluster), &mut rng, now).unwrap())
        .collect();
    let active = |i: usize| cluster.endpoints[i].live.active.load(Ordering::Relaxed);
    assert_eq!(
        (active(0), active(1)),
        (5, 5),
        "of two endpoints the less busy one is always seen"
    );
    drop(held);
    assert_eq!((active(0), active(1)), (0, 0));

    let cluster = balanced(&[1, 4], Balancer::LeastRequest);
    let held: Vec<_> = (0..50)
        .map(|_| pick(&Wanted::of(&cluster), &mut rng, now).unwrap())
        .collect();
    let light = held.iter().filter(|pick| index(&cluster, pick) == 0).count();
    assert!(
        (9..=11).contains(&light),
        "{light} of 50 at a fifth of the weight"
    );
}

#[test]
fn peak_ewma_leaves_the_slow_endpoint_mostly_alone_and_comes_back_to_it() {
    let cluster = balanced(&[1, 1], Balancer::PeakEwma);
    let mut rng = rng();
    let mut now = Instant::now();
    for _ in 0..20 {
        let pick = pick(&Wanted::of(&cluster), &mut rng, now).unwrap();
        let took = if index(&cluster, &pick) == 0 { 200 } else { 2 };
        pick.finish(Outcome::Success, now + Duration::from_millis(took));
    }
    now += Duration::from_millis(500);
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(pick(&Wanted::of(&cluster), &mut rng, now).unwrap());
    }
    assert!(
        held.iter().all(|pick| index(&cluster, pick) == 1),
        "20 times 2 ms are less than 200 ms"
    );
    held.clear();
    now += Duration::from_secs(120);
    for _ in 0..20 {
        held.push(pick(&Wanted::of(&cluster), &mut rng, now).unwrap());
    }
    assert!(
        held.iter().any(|pick| index(&cluster, pick) == 0),
        "an old peak is no verdict for ever"
    );
}

#[test]
fn latencies_cost_nothing_where_they_are_not_used() {
    let cluster = balanced(&[1], Balancer::LeastRequest);
    let now = Instant::now();
    let pick = pick(&Wanted::of(&cluster), &mut rng(), now).unwrap();
    pick.finish(Outcome::Success, now + Duration::from_secs(5));
    let latency = &cluster.endpoints[0].live.latency;
    assert_eq!(
        latency.expected_us(false, millis(now)),
        UNKNOWN.as_micros() as f32
    );
}

#[test]
fn tried_and_retired_endpoints_are_avoided_while_others_are_left() {
    let now = Instant::now();
    for balancer in balancers() {
        let cluster = balanced(&[1; 4], balancer.clone());
        let id = |i: usize| cluster.endpoints[i].live.id;
        cluster.endpoints[3].live.retired.store(true, Ordering::Relaxed);
        let mut rng = rng();
        let (some, all) = ([id(0), id(2)], [id(0), id(1), id(2), id(3)]);
        let after = |tried| Wanted {
            tried,
            ..Wanted::of(&cluster)
        };
        for _ in 0..50 {
            let pick = pick(&after(&some), &mut rng, now).unwrap();
            assert_eq!(index(&cluster, &pick), 1, "{balancer:?}");
        }
        assert!(
            pick(&after(&all), &mut rng, now).is_ok(),
            "a tried one is better than none"
        );
    }
}

#[test]
fn why_nothing_is_picked_is_told_apart() {
    let now = Instant::now();
    let refused = |cluster: &Arc<Cluster>| pick(&Wanted::of(cluster), &mut rng(), now).unwrap_err().flag();

    assert_eq!(refused(&cluster_of(&[])), "no_endpoint");
    let mutual = with(cluster_of(&[1, 1]), |spec| spec.tls = TlsMode::Mutual);
    assert_eq!(refused(&mutual), "not_meshed");
    let broken = with_breaker(cluster_of(&[1, 1]));
    fail(&broken, 0, Outcome::Timeout, now);
    fail(&broken, 1, Outcome::Timeout, now);
    assert_eq!(refused(&broken), "breaker_open");
    let ejected = with_outlier(cluster_of(&[1, 1]));
    fail(&ejected, 0, Outcome::ServerError, now);
    fail(&ejected, 1, Outcome::ServerError, now);
    assert_eq!(refused(&ejected), "breaker_open");
}

#[test]
fn where_mutual_tls_is_required_only_meshed_endpoints_get_traffic() {
    let mut meshed = endpoint(7, 1);
    meshed.spec.identity = Some("spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap());
    let mut cluster = Arc::into_inner(with(cluster_of(&[1, 1]), |spec| spec.tls = TlsMode::Mutual)).unwrap();
    cluster.endpoints.push(Arc::new(meshed));
    cluster.weights = Weights::of(&cluster.endpoints);
    assert_eq!(shares(&Arc::new(cluster), 100, Instant::now()), [0, 0, 100]);
}

#[test]
fn connection_failures_alone_never_stop_traffic() {
    let now = Instant::now();
    let cluster = cluster_of(&[1, 1]);
    fail(&cluster, 0, Outcome::ConnectFailure, now);
    assert_eq!(
        shares(&cluster, 100, now),
        [0, 100],
        "while another is left, the failed one rests"
    );
    fail(&cluster, 1, Outcome::ConnectFailure, now);
    let mut forced = pick(&Wanted::of(&cluster), &mut rng(), now).unwrap();
    assert_eq!(forced.settle(Outcome::Success, now).breaker, Some(Change::Closed));
    drop(forced);

    let both = with_outlier(cluster_of(&[1, 1]));
    fail(&both, 0, Outcome::ServerError, now);
    fail(&both, 1, Outcome::ConnectFailure, now);
    assert_eq!(
        pick(&Wanted::of(&both), &mut rng(), now).unwrap_err().flag(),
        "breaker_open",
        "both are ejected"
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_lets_one_probe_through_after_its_recovery() {
    let cluster = with_breaker(cluster_of(&[1]));
    fail(&cluster, 0, Outcome::ServerError, Instant::now());
    tokio::time::advance(Duration::from_secs(10)).await;
    let now = Instant::now();
    let probe = pick(&Wanted::of(&cluster), &mut rng(), now).unwrap();
    assert!(probe.half_opened);
    assert_eq!(
        pick(&Wanted::of(&cluster), &mut rng(), now).unwrap_err().flag(),
        "breaker_open"
    );
    // The caller goes away: neither success nor failure, and the place is free again.
    drop(probe);
    let probe = pick(&Wanted::of(&cluster), &mut rng(), now).unwrap();
    assert!(!probe.half_opened, "it is half-open already");
    assert_eq!(probe.finish(Outcome::Success, now).breaker, Some(Change::Closed));
    assert_eq!(
        cluster.endpoints[0].live.breaker.state(now),
        State::Closed { failures: 0 }
    );
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_is_back_at_the_first_pick_after_its_time() {
    let cluster = with_outlier(cluster_of(&[1]));
    let settled = fail(&cluster, 0, Outcome::ServerError, Instant::now());
    assert!(matches!(
        settled.outlier,
        Some(outlier::Event::Ejected { times: 1, .. })
    ));
    tokio::time::advance(Duration::from_secs(30)).await;
    let now = Instant::now();
    assert!(pick(&Wanted::of(&cluster), &mut rng(), now).unwrap().returned);
    assert_eq!(cluster.live.ejected.load(Ordering::Relaxed), 0);
    assert!(
        !pick(&Wanted::of(&cluster), &mut rng(), now).unwrap().returned,
        "told once"
    );
}

#[test]
fn only_the_first_result_counts_and_the_load_lasts_until_the_end() {
    let cluster = with_breaker(cluster_of(&[1]));
    let now = Instant::now();
    let mut stream = pick(&Wanted::of(&cluster), &mut rng(), now).unwrap();
    assert_eq!(stream.settle(Outcome::Success, now), Settled::default());
    assert_eq!(stream.settle(Outcome::ServerError, now), Settled::default());
    assert_eq!(
        Arc::strong_count(&cluster),
        1,
        "a settled pick keeps no old configuration alive"
    );
    let active = || cluster.endpoints[0].live.active.load(Ordering::Relaxed);
    assert_eq!(active(), 1);
    drop(stream);
    assert_eq!(active(), 0);
}

#[test]
fn live_state_survives_a_change_of_settings() {
    let now = Instant::now();
    let cluster = with_outlier(cluster_of(&[1, 1]));
    fail(&cluster, 0, Outcome::ServerError, now);
    let changed = with(Arc::clone(&cluster), |spec| spec.balancer = Balancer::Random);
    assert_eq!(shares(&changed, 50, now), [0, 50]);
    let without = with(changed, |spec| spec.outlier = None);
    assert!(
        shares(&without, 50, now)[0] > 0,
        "no outlierDetection, no ejection"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_counts_end_at_zero_and_something_is_picked_or_explained(
        weights in prop::collection::vec(1u32..5, 0..6),
        balancer in prop::sample::select(balancers().to_vec()),
        configured: bool,
        steps in prop::collection::vec((prop::sample::select(&Outcome::ALL[..]), 0u64..3_000, any::<bool>()), 0..100),
        seed: u64,
    ) {
        let mut cluster = with_outlier(balanced(&weights, balancer));
        if configured {
            cluster = with_breaker(cluster);
        }
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut now = Instant::now();
        let mut held = Vec::new();
        for (outcome, ms, keep) in steps {
            now += Duration::from_millis(ms);
            match pick(&Wanted::of(&cluster), &mut rng, now) {
                Ok(mut pick) => {
                    if outcome != Outcome::Neutral {
                        pick.settle(outcome, now);
                    }
                    if keep {
                        held.push(pick);
                    }
                }
                Err(Error::NoEndpoint { .. }) => prop_assert!(weights.is_empty()),
                Err(Error::BreakerOpen { .. }) => prop_assert!(!weights.is_empty()),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
        drop(held);
        for endpoint in &cluster.endpoints {
            prop_assert_eq!(endpoint.live.active.load(Ordering::Relaxed), 0);
            if let State::HalfOpen { probes } = endpoint.live.breaker.state(now) {
                prop_assert_eq!(probes, 0);
            }
        }
    }
}

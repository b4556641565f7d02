//! Who gets how much, with all well and with some not.

use std::num::NonZeroU32;
use std::time::Duration;

use api::{Balancer, Locality};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::*;
use crate::balancer::testing::{cluster_of, hashed, with};
use crate::balancer::{Outcome, Wanted, pick};
use crate::error::Error;
use crate::live::millis;
use crate::outlier;

const REGION: &str = "region";

fn place(region: &str) -> api::Place {
    BTreeMap::from([(REGION.to_owned(), region.to_owned())])
}

/// A cluster with one endpoint for each region, in their order.
fn cluster(regions: &[&str], locality: Locality, balancer: Balancer) -> Arc<Cluster> {
    let mut plain = Arc::into_inner(cluster_of(&vec![1; regions.len()])).unwrap();
    for (endpoint, region) in plain.endpoints.iter_mut().zip(regions) {
        let endpoint = Arc::get_mut(endpoint).unwrap();
        if !region.is_empty() {
            endpoint.spec.topology = place(region);
        }
    }
    with(Arc::new(plain), |spec| {
        spec.balancer = balancer;
        spec.locality = Some(locality);
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

fn shares(of: &[(&str, u32)]) -> Locality {
    let share = |(region, share): &(&str, u32)| (place(region), NonZeroU32::new(*share).unwrap());
    Locality::Shares(of.iter().map(share).collect())
}

fn levels(of: &[&str]) -> Locality {
    Locality::Levels(of.iter().map(|region| place(region)).collect())
}

/// Ejects endpoints for half a minute.
fn eject(cluster: &Arc<Cluster>, which: &[usize], now: Instant) {
    for i in which {
        let endpoint = &cluster.endpoints[*i];
        outlier::observe(cluster, endpoint, Outcome::ServerError, None, millis(now));
        assert!(endpoint.live.outlier.is_ejected(now));
    }
}

/// The share of each endpoint, in percent.
fn got(cluster: &Arc<Cluster>, now: Instant) -> Vec<f64> {
    const PICKS: usize = 8_000;
    let rng = &mut SmallRng::seed_from_u64(3);
    let mut got = vec![0; cluster.endpoints.len()];
    for _ in 0..PICKS {
        let pick = pick(&Wanted::of(cluster), rng, now).unwrap();
        got[cluster
            .endpoints
            .iter()
            .position(|e| Arc::ptr_eq(e, &pick.endpoint))
            .unwrap()] += 1;
        pick.finish(Outcome::Success, now);
    }
    got.into_iter()
        .map(|n| f64::from(n) * 100.0 / PICKS as f64)
        .collect()
}

fn assert_near(got: &[f64], expected: &[f64], what: &str) {
    let near = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 3.0);
    assert!(
        got.len() == expected.len() && near,
        "{what}: {got:?} for {expected:?}"
    );
}

fn balancers() -> [Balancer; 5] {
    [
        Balancer::RoundRobin,
        Balancer::Random,
        Balancer::LeastRequest,
        Balancer::PeakEwma,
        hashed(api::HashTable::Maglev(NonZeroU32::new(65_537).unwrap())),
    ]
}

#[test]
fn shares_hold_whatever_the_numbers_of_endpoints_and_the_rest_gets_nothing() {
    let now = Instant::now();
    for balancer in balancers() {
        let what = format!("{balancer:?}");
        let regions = ["a", "b", "b", "b", "b", "c", ""];
        let cluster = cluster(
            &regions,
            shares(&[("a", 70), ("b", 20), ("absent", 10)]),
            balancer,
        );
        let b = 20.0 / 0.9 / 4.0;
        let expected = [70.0 / 0.9, b, b, b, b, 0.0, 0.0];
        assert_near(&got(&cluster, now), &expected, &what);
    }
}

#[test]
fn a_further_try_may_be_made_in_another_place() {
    let now = Instant::now();
    let mut rng = SmallRng::seed_from_u64(7);
    for (locality, to) in [
        (levels(&["a", "b", "c"]), [0, 0, 200, 0]),
        (shares(&[("a", 90), ("b", 5), ("c", 5)]), [0, 0, 100, 100]),
    ] {
        let cluster = cluster(&["a", "a", "b", "c"], locality, Balancer::Random);
        let tried = [cluster.endpoints[0].live.id];
        let mut got = [0; 4];
        let mut place = |elsewhere: &[u64], now| {
            let wanted = Wanted {
                elsewhere,
                tried: &tried,
                ..Wanted::of(&cluster)
            };
            let pick = pick(&wanted, &mut rng, now).unwrap();
            cluster
                .endpoints
                .iter()
                .position(|e| Arc::ptr_eq(e, &pick.endpoint))
                .unwrap()
        };
        for _ in 0..200 {
            got[place(&tried, now)] += 1;
        }
        for (got, to) in got.iter().zip(to) {
            assert!((*got as i64 - i64::from(to)).abs() < 50, "{got} of {to}");
        }
        eject(&cluster, &[2, 3], now);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            place(&tried, later),
            1,
            "the place of the try is better than none"
        );
    }
}

#[test]
fn what_is_not_well_gives_of_its_share_and_gets_it_back() {
    let now = Instant::now();
    let cluster = cluster(
        &["a", "a", "b", "b"],
        shares(&[("a", 50), ("b", 50)]),
        Balancer::Random,
    );
    eject(&cluster, &[0], now);
    let later = now + Duration::from_secs(1);
    // 70 % of its half against a whole half.
    let a = 100.0 * 0.7 / 1.7;
    let b = (100.0 - a) / 2.0;
    assert_near(&got(&cluster, later), &[0.0, a, b, b], "one of two is out");
    eject(&cluster, &[1], later);
    let later = later + Duration::from_secs(1);
    assert_near(&got(&cluster, later), &[0.0, 0.0, 50.0, 50.0], "both are out");
    let back = later + Duration::from_secs(60);
    assert_near(&got(&cluster, back), &[25.0; 4], "they are back");
}

#[test]
fn the_first_level_takes_what_it_is_well_enough_for() {
    let now = Instant::now();
    let regions = ["a", "a", "a", "a", "b", "c"];
    for balancer in balancers() {
        let name = format!("{balancer:?}");
        let cluster = cluster(&regions, levels(&["none", "a", "b"]), balancer);
        assert_near(&got(&cluster, now), &[25.0, 25.0, 25.0, 25.0, 0.0, 0.0], &name);
        eject(&cluster, &[0], now);
        let later = now + Duration::from_secs(1);
        let third = 100.0 / 3.0;
        let what = format!("{name}, three of four");
        assert_near(
            &got(&cluster, later),
            &[0.0, third, third, third, 0.0, 0.0],
            &what,
        );
        eject(&cluster, &[1], later);
        let later = later + Duration::from_secs(1);
        let what = format!("{name}, half");
        assert_near(&got(&cluster, later), &[0.0, 0.0, 35.0, 35.0, 30.0, 0.0], &what);
        eject(&cluster, &[2, 3], later);
        // At once, although the groups were found well a moment ago.
        let what = format!("{name}, none");
        assert_near(&got(&cluster, later), &[0.0, 0.0, 0.0, 0.0, 100.0, 0.0], &what);
        eject(&cluster, &[4], later);
        let later = later + Duration::from_secs(1);
        let what = format!("{name}, none but those of no level");
        assert_near(&got(&cluster, later), &[0.0, 0.0, 0.0, 0.0, 0.0, 100.0], &what);
        let back = later + Duration::from_secs(60);
        assert_near(&got(&cluster, back), &[25.0, 25.0, 25.0, 25.0, 0.0, 0.0], &name);
    }
}

#[test]
fn an_empty_value_is_for_what_lacks_the_label() {
    let cluster = cluster(&["a", "", "b"], levels(&["", "b"]), Balancer::Random);
    assert_near(&got(&cluster, Instant::now()), &[0.0, 100.0, 0.0], "no label");
}

#[test]
fn a_retry_stays_in_its_place() {
    let now = Instant::now();
    let cluster = cluster(&["a", "a", "b"], levels(&["a"]), Balancer::LeastRequest);
    let ids: Vec<u64> = cluster.endpoints.iter().map(|e| e.live.id).collect();
    let rng = &mut SmallRng::seed_from_u64(3);
    let mut after = |tried: &[u64]| {
        let wanted = Wanted {
            tried,
            ..Wanted::of(&cluster)
        };
        pick(&wanted, rng, now).unwrap().endpoint.live.id
    };
    for _ in 0..50 {
        assert_eq!(after(&ids[..1]), ids[1], "another one there is better");
        assert_ne!(after(&ids[..2]), ids[2], "the same one there is good enough");
    }
}

#[test]
fn where_no_endpoint_gets_a_share_the_answer_says_so() {
    let cluster = cluster(&["a", "b"], shares(&[("c", 100)]), Balancer::Random);
    let rng = &mut SmallRng::seed_from_u64(3);
    let error = pick(&Wanted::of(&cluster), rng, Instant::now()).unwrap_err();
    let Error::NoEndpoint {
        absent: Some(why), ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert!(why.contains("distribute"), "{why}");
}

#[test]
fn without_outlier_detection_what_cannot_be_connected_to_is_passed_over_all_the_same() {
    let now = Instant::now();
    let cluster = cluster(&["a", "b"], shares(&[("a", 99), ("b", 1)]), Balancer::Random);
    let cluster = with(cluster, |spec| spec.outlier = None);
    let rng = &mut SmallRng::seed_from_u64(3);
    for _ in 0..200 {
        let pick = pick(&Wanted::of(&cluster), rng, now).unwrap();
        let outcome = match Arc::ptr_eq(&pick.endpoint, &cluster.endpoints[0]) {
            true => Outcome::ConnectFailure,
            false => Outcome::Success,
        };
        pick.finish(outcome, now);
    }
    let last = pick(&Wanted::of(&cluster), rng, now).unwrap();
    assert!(Arc::ptr_eq(&last.endpoint, &cluster.endpoints[1]));
}

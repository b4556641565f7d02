//! Tests of outlier detection.

use super::*;
use crate::balancer::testing::{cluster_of, with};

fn rule() -> api::Outlier {
    api::Outlier {
        consecutive_5xx: NonZeroU32::new(5),
        consecutive_gateway_errors: None,
        split_local_errors: false,
        consecutive_local_failures: NonZeroU32::new(5),
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(30),
        max_ejection_percent: 10,
        min_health_percent: 0,
        error_codes: None,
    }
}

fn cluster(endpoints: usize, rule: api::Outlier) -> Arc<Cluster> {
    with(cluster_of(&vec![1; endpoints]), |spec| spec.outlier = Some(rule))
}

/// Reports the outcomes for an endpoint; the events that came of them.
fn report(cluster: &Cluster, endpoint: usize, outcomes: &[Outcome], now: Instant) -> Vec<Event> {
    let endpoint = &cluster.endpoints[endpoint];
    outcomes
        .iter()
        .filter_map(|o| observe(cluster, endpoint, *o, None, millis(now)))
        .collect()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

use Outcome::{ConnectFailure, GatewayError, Neutral, Reset, ServerError, Success, Timeout};

/// Outcomes by a letter each.
fn outcomes(letters: &str) -> Vec<Outcome> {
    let outcome = |letter| match letter {
        '+' => Success,
        '5' => ServerError,
        'g' => GatewayError,
        'c' => ConnectFailure,
        'r' => Reset,
        't' => Timeout,
        '-' => Neutral,
        other => panic!("{other} is no outcome"),
    };
    letters.chars().map(outcome).collect()
}

#[test]
fn each_counter_ejects_at_its_threshold_and_by_its_own_outcomes() {
    use Cause::{GatewayErrors, LocalFailures, ServerErrors};
    let n = NonZeroU32::new;
    let plain = rule();
    let (mut gateway, mut split, mut off) = (rule(), rule(), rule());
    gateway.consecutive_5xx = None;
    gateway.consecutive_gateway_errors = n(3);
    split.split_local_errors = true;
    split.consecutive_local_failures = n(2);
    let mut split_off = split;
    split_off.consecutive_local_failures = None;
    off.consecutive_5xx = None;
    let table = [
        ("five 5xx", plain, "55555", Some(ServerErrors)),
        ("four 5xx", plain, "5555", None),
        ("gateway errors are 5xx", plain, "ggggg", Some(ServerErrors)),
        ("local failures count as 503", plain, "crt55", Some(ServerErrors)),
        ("a success starts over", plain, "5555+5", None),
        ("neutral does nothing", plain, "55-555", Some(ServerErrors)),
        ("gateway errors", gateway, "gcg", Some(GatewayErrors)),
        ("another 5xx starts gateway errors over", gateway, "gg5g", None),
        ("split: local failures alone", split, "ct", Some(LocalFailures)),
        (
            "split: an error answer shows the connection works",
            split,
            "c5c",
            None,
        ),
        ("split: local failures leave answers alone", split, "5555r", None),
        ("split: local failures off", split_off, "cccccccccccc", None),
        ("all off", off, "555555555555", None),
    ];
    for (name, rule, letters, expected) in table {
        let events = report(&cluster(10, rule), 0, &outcomes(letters), Instant::now());
        let causes = events.iter().map(|event| match event {
            Event::Ejected { cause, .. } => *cause,
            Event::Spared { .. } => panic!("{name}: {event}"),
        });
        assert_eq!(causes.collect::<Vec<_>>(), Vec::from_iter(expected), "{name}");
    }
}

#[test]
fn statuses_that_are_errors_take_the_place_of_5xx() {
    use Cause::{GatewayErrors, ServerErrors};
    let mut codes = api::Statuses::default();
    assert!([429, 500, 503].into_iter().all(|code| codes.insert(code)));
    let (mut plain, mut gateway) = (rule(), rule());
    plain.consecutive_5xx = NonZeroU32::new(2);
    plain.error_codes = Some(codes);
    gateway.consecutive_5xx = None;
    gateway.consecutive_gateway_errors = NonZeroU32::new(2);
    gateway.error_codes = Some(codes);
    let table = [
        (plain, [429, 429], Some(ServerErrors)),
        (plain, [500, 503], Some(ServerErrors)),
        (plain, [502, 504], None),
        (plain, [429, 200], None),
        (plain, [429, 501], None),
        (gateway, [503, 503], Some(GatewayErrors)),
        (gateway, [502, 502], None),
        (gateway, [503, 429], None),
    ];
    for (rule, statuses, expected) in table {
        let cluster = cluster(10, rule);
        let mut causes = statuses.iter().filter_map(|code| {
            let status = http::StatusCode::from_u16(*code).unwrap();
            let outcome = Outcome::of_answer(status, None);
            let endpoint = &cluster.endpoints[0];
            match observe(&cluster, endpoint, outcome, Some(*code), millis(Instant::now()))? {
                Event::Ejected { cause, .. } => Some(cause),
                Event::Spared { .. } => None,
            }
        });
        assert_eq!(causes.next(), expected, "{statuses:?}");
    }
    // What is no answer stays what it is.
    assert_eq!(
        report(&cluster(10, plain), 0, &outcomes("cr"), Instant::now()).len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn time_out_grows_with_each_ejection_is_bounded_and_is_forgotten() {
    let cluster = cluster(10, rule());
    let eject = || match report(&cluster, 0, &[ServerError; 5], Instant::now())[..] {
        [Event::Ejected { times, duration, .. }] => (times, duration.as_secs()),
        ref other => panic!("{other:?}"),
    };
    let record = &cluster.endpoints[0].live.outlier;
    for (times, out) in [(1, 30), (2, 60), (3, 90)] {
        assert_eq!(eject(), (times, out));
        assert_eq!(cluster.live.ejected.load(Ordering::Relaxed), 1);
        tokio::time::advance(seconds(out) - Duration::from_millis(1)).await;
        assert!(record.is_ejected(Instant::now()));
        assert!(sweep(&cluster, Instant::now()).is_empty());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!record.is_ejected(Instant::now()));
        let back = sweep(&cluster, Instant::now());
        assert!(Arc::ptr_eq(&back[0], &cluster.endpoints[0]) && back.len() == 1);
        assert!(sweep(&cluster, Instant::now()).is_empty(), "announced once");
        assert_eq!(cluster.live.ejected.load(Ordering::Relaxed), 0);
    }
    // Two intervals of good behaviour: two of three ejections are forgotten.
    tokio::time::advance(seconds(20)).await;
    assert_eq!(eject(), (2, 60));
    tokio::time::advance(seconds(3600)).await;
    assert_eq!(eject(), (1, 30), "all is forgotten in the end");
    for times in 2..=13 {
        while record.is_ejected(Instant::now()) {
            tokio::time::advance(seconds(1)).await;
        }
        assert_eq!(eject(), (times, u64::from(30 * times).min(300)));
    }
    assert_eq!(record.times_ejected(), 13);
}

#[test]
fn a_base_above_the_bound_is_kept() {
    let cluster = cluster(
        10,
        api::Outlier {
            base_ejection: seconds(600),
            ..rule()
        },
    );
    let events = report(&cluster, 0, &[ServerError; 5], Instant::now());
    assert!(matches!(events[..], [Event::Ejected { duration, .. }] if duration == seconds(600)));
}

#[test]
fn no_more_are_out_than_the_share_allows_but_one_always_may_be() {
    let table = [
        (1, 10, 1),
        (9, 10, 1),
        (10, 10, 1),
        (20, 10, 2),
        (29, 10, 2),
        (3, 0, 1),
        (4, 50, 2),
        (3, 100, 3),
    ];
    for (endpoints, max_ejection_percent, expected) in table {
        let cluster = cluster(
            endpoints,
            api::Outlier {
                max_ejection_percent,
                ..rule()
            },
        );
        let now = Instant::now();
        let mut spared = 0;
        for i in 0..endpoints {
            // Far more failures than needed: who is spared is told once.
            let events = report(&cluster, i, &[ServerError; 20], now);
            assert_eq!(events.len(), 1, "{events:?}");
            spared += events
                .iter()
                .filter(|e| matches!(e, Event::Spared { .. }))
                .count();
        }
        let out = cluster.live.ejected.load(Ordering::Relaxed) as usize;
        assert_eq!(
            (out, spared),
            (expected, endpoints - expected),
            "{endpoints} {max_ejection_percent}"
        );
    }
}

#[test]
fn a_spared_endpoint_is_ejected_by_its_next_failure_once_there_is_room() {
    let cluster = cluster(10, rule());
    let now = Instant::now();
    report(&cluster, 0, &[ServerError; 5], now);
    let spared = report(&cluster, 1, &[ServerError; 7], now);
    assert_eq!(
        spared[0].to_string(),
        "not ejected after 5 error answers in a row: outlierDetection.maxEjectionPercent allows no more ejections"
    );
    let events = report(&cluster, 1, &[ServerError], now + seconds(30));
    assert_eq!(
        events[0].to_string(),
        "ejected for 30s after 8 error answers in a row (ejection 1)"
    );
}

#[test]
fn below_the_healthy_share_nothing_is_ejected_and_ejections_are_not_in_force() {
    let rule = api::Outlier {
        max_ejection_percent: 100,
        min_health_percent: 60,
        ..rule()
    };
    let cluster = cluster(4, rule);
    let now = Instant::now();
    assert!(is_in_force(&cluster, millis(now)));
    report(&cluster, 0, &[ServerError; 5], now);
    assert!(is_in_force(&cluster, millis(now)), "3 of 4 are healthy");
    report(&cluster, 1, &[ServerError; 5], now);
    assert!(!is_in_force(&cluster, millis(now)), "2 of 4 are healthy");
    let events = report(&cluster, 2, &[ServerError; 5], now);
    assert!(matches!(
        events[..],
        [Event::Spared {
            bound: "outlierDetection.minHealthPercent",
            ..
        }]
    ));
    assert!(
        is_in_force(&cluster, millis(now + seconds(30))),
        "their time is over"
    );
}

#[test]
fn an_endpoint_that_is_out_is_not_counted_further_and_comes_back_clean() {
    let cluster = cluster(10, rule());
    let now = Instant::now();
    report(&cluster, 0, &[ServerError; 5], now);
    assert!(report(&cluster, 0, &[ServerError; 9], now).is_empty());
    assert!(report(&cluster, 0, &[ServerError; 4], now + seconds(31)).is_empty());
    assert_eq!(report(&cluster, 0, &[ServerError], now + seconds(31)).len(), 1);
}

#[test]
fn threads_together_stay_within_the_bound() {
    let cluster = cluster(50, rule());
    let now = Instant::now();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let cluster = &cluster;
            scope.spawn(move || {
                for i in (0..50).map(|i| (i + start * 13) % 50) {
                    report(cluster, i, &[ServerError; 10], now);
                }
            });
        }
    });
    let out = cluster
        .endpoints
        .iter()
        .filter(|e| e.live.outlier.is_ejected(now))
        .count();
    assert!((1..=5).contains(&out), "{out} are out");
}

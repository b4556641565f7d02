//! Tests of the breaker: tables, a model, and threads.

use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;

fn configured(threshold: u32, recovery_ms: u64, probes: u32) -> Mode {
    Mode::Configured(api::Breaker {
        failure_threshold: NonZeroU32::new(threshold).unwrap(),
        recovery: Duration::from_millis(recovery_ms),
        half_open_requests: NonZeroU32::new(probes).unwrap(),
    })
}

fn attempt(breaker: &Breaker, mode: Mode, outcome: Outcome, now: Instant) -> Option<Change> {
    let (permit, _) = breaker
        .enter(mode, millis(now))
        .expect("the breaker lets it through");
    breaker.settle(mode, permit, outcome, millis(now))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn failures_in_a_row_open_and_a_success_between_starts_over() {
    let (breaker, mode, now) = (Breaker::default(), configured(3, 10_000, 1), Instant::now());
    for outcome in [
        Outcome::Reset,
        Outcome::Timeout,
        Outcome::Success,
        Outcome::ServerError,
        Outcome::Neutral,
    ] {
        assert_eq!(attempt(&breaker, mode, outcome, now), None);
    }
    assert_eq!(breaker.state(now), State::Closed { failures: 1 });
    assert_eq!(attempt(&breaker, mode, Outcome::GatewayError, now), None);
    let opened = attempt(&breaker, mode, Outcome::ConnectFailure, now);
    assert_eq!(
        opened,
        Some(Change::Opened {
            recovery: seconds(10)
        })
    );
    assert_eq!(
        breaker.state(now),
        State::Open {
            remaining: seconds(10)
        }
    );
    assert_eq!(breaker.enter(mode, millis(now)), None);
    assert_eq!(breaker.times_opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_recovery_as_many_probes_pass_as_are_allowed_and_one_success_closes() {
    let (breaker, mode) = (Breaker::default(), configured(1, 10_000, 2));
    attempt(&breaker, mode, Outcome::ServerError, Instant::now());
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert!(!breaker.permits(mode, millis(Instant::now())));
    tokio::time::advance(Duration::from_millis(1)).await;

    let now = millis(Instant::now());
    assert!(breaker.permits(mode, now));
    let (first, change) = breaker.enter(mode, now).unwrap();
    assert_eq!(change, Some(Change::HalfOpened));
    let (second, change) = breaker.enter(mode, now).unwrap();
    assert_eq!(change, None);
    assert!(!breaker.permits(mode, now));
    assert_eq!(breaker.enter(mode, now), None);
    assert_eq!(breaker.state(Instant::now()), State::HalfOpen { probes: 2 });

    assert_eq!(
        breaker.settle(mode, first, Outcome::Success, now),
        Some(Change::Closed)
    );
    // The other probe's late failure counts as any failure of a closed breaker: threshold 1, so it opens.
    let late = breaker.settle(mode, second, Outcome::Reset, now);
    assert_eq!(
        late,
        Some(Change::Opened {
            recovery: seconds(10)
        })
    );
}

#[test]
fn a_failed_probe_opens_again_for_the_same_recovery() {
    let (breaker, mode, now) = (Breaker::default(), configured(1, 1_000, 1), Instant::now());
    attempt(&breaker, mode, Outcome::ServerError, now);
    for n in 1..4 {
        let again = attempt(&breaker, mode, Outcome::ServerError, now + seconds(n));
        assert_eq!(again, Some(Change::Opened { recovery: seconds(1) }));
    }
    assert_eq!(breaker.times_opened(), 4);
}

#[test]
fn a_cancelled_probe_frees_its_place() {
    let (breaker, mode, now) = (Breaker::default(), configured(1, 1_000, 1), Instant::now());
    attempt(&breaker, mode, Outcome::ServerError, now);
    let later = millis(now + seconds(1));
    let (probe, _) = breaker.enter(mode, later).unwrap();
    assert!(!breaker.permits(mode, later));
    breaker.abandon(mode, probe);
    assert!(breaker.permits(mode, later));
}

#[test]
fn a_probe_of_an_earlier_phase_changes_nothing() {
    let (breaker, mode, now) = (Breaker::default(), configured(1, 1_000, 2), Instant::now());
    attempt(&breaker, mode, Outcome::ServerError, now);
    let (old, _) = breaker.enter(mode, millis(now + seconds(1))).unwrap();
    attempt(&breaker, mode, Outcome::ServerError, now + seconds(1));
    let later = millis(now + seconds(2));
    let (_new, _) = breaker.enter(mode, later).unwrap();
    for outcome in [Outcome::Success, Outcome::ServerError, Outcome::Neutral] {
        assert_eq!(breaker.settle(mode, old, outcome, later), None);
        assert_eq!(breaker.state(now + seconds(2)), State::HalfOpen { probes: 1 });
    }
}

#[test]
fn without_settings_only_connection_failures_count_and_time_out_doubles_to_30_s() {
    let (breaker, mode, mut now) = (Breaker::default(), Mode::Passive, Instant::now());
    for outcome in [
        Outcome::ServerError,
        Outcome::GatewayError,
        Outcome::Reset,
        Outcome::Timeout,
    ] {
        assert_eq!(attempt(&breaker, mode, outcome, now), None);
    }
    for expected in [1, 2, 4, 8, 16, 30, 30] {
        let change = attempt(&breaker, mode, Outcome::ConnectFailure, now);
        assert_eq!(
            change,
            Some(Change::Opened {
                recovery: seconds(expected)
            })
        );
        now += seconds(expected);
    }
    // Any answer shows that somebody is there again; the next failure starts from 1 s.
    assert_eq!(
        attempt(&breaker, mode, Outcome::ServerError, now),
        Some(Change::Closed)
    );
    let change = attempt(&breaker, mode, Outcome::ConnectFailure, now);
    assert_eq!(change, Some(Change::Opened { recovery: seconds(1) }));
}

#[test]
fn a_forced_success_closes_and_a_forced_failure_changes_nothing() {
    let (breaker, mode, now) = (Breaker::default(), Mode::Passive, Instant::now());
    attempt(&breaker, mode, Outcome::ConnectFailure, now);
    assert_eq!(
        breaker.settle(mode, Permit::Forced, Outcome::ConnectFailure, millis(now)),
        None
    );
    assert_eq!(
        breaker.state(now),
        State::Open {
            remaining: seconds(1)
        }
    );
    assert_eq!(
        breaker.settle(mode, Permit::Forced, Outcome::Success, millis(now)),
        Some(Change::Closed)
    );
}

#[test]
fn changed_settings_keep_the_count() {
    let (breaker, now) = (Breaker::default(), Instant::now());
    for _ in 0..4 {
        attempt(&breaker, configured(10, 1_000, 1), Outcome::ServerError, now);
    }
    let change = attempt(&breaker, configured(5, 2_000, 1), Outcome::ServerError, now);
    assert_eq!(change, Some(Change::Opened { recovery: seconds(2) }));
}

#[test]
fn threads_never_have_more_probes_under_way_than_allowed() {
    const ALLOWED: u32 = 3;
    let (breaker, mode, now) = (Breaker::default(), configured(1, 1, ALLOWED), Instant::now());
    attempt(&breaker, mode, Outcome::ServerError, now);
    let later = millis(now + seconds(1));
    let (under_way, passed) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let Some((permit, _)) = breaker.enter(mode, later) else {
                        continue;
                    };
                    let probes = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(probes <= ALLOWED, "{probes} probes under way");
                    passed.fetch_add(1, Ordering::SeqCst);
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    breaker.abandon(mode, permit);
                }
            });
        }
    });
    assert!(passed.load(Ordering::SeqCst) > 0);
    assert_eq!(breaker.state(now + seconds(1)), State::HalfOpen { probes: 0 });
}

/// The diagram, written down without atomics: what the breaker must do, step by step.
#[derive(Debug)]
struct Model {
    phase: Phase,
    streak: u32,
}

#[derive(Debug, PartialEq)]
enum Phase {
    Closed(u32),
    Open(u64),
    HalfOpen { number: u64, probes: u32 },
}

impl Model {
    fn enter(&mut self, mode: Mode, now: u64, number: u64) -> Option<Option<u64>> {
        match self.phase {
            Phase::Closed(_) => Some(None),
            Phase::Open(until) if until <= now => {
                self.phase = Phase::HalfOpen { number, probes: 1 };
                Some(Some(number))
            }
            Phase::HalfOpen {
                number,
                ref mut probes,
            } if *probes < mode.probes() => {
                *probes += 1;
                Some(Some(number))
            }
            Phase::Open(_) | Phase::HalfOpen { .. } => None,
        }
    }

    fn settle(&mut self, mode: Mode, probe: Option<u64>, outcome: Outcome, now: u64) {
        let failed = |streak: u32| Phase::Open(now + mode.recovery(streak).as_millis() as u64);
        let verdict = mode.judge(outcome);
        match (&mut self.phase, verdict) {
            (Phase::Closed(failures), Verdict::Success) => *failures = 0,
            (Phase::Closed(failures), Verdict::Failure) => {
                *failures += 1;
                if *failures >= mode.threshold() {
                    self.streak = 0;
                    self.phase = failed(0);
                }
            }
            (Phase::HalfOpen { number, .. }, _) if probe != Some(*number) => {}
            (Phase::HalfOpen { .. }, Verdict::Success) => self.phase = Phase::Closed(0),
            (Phase::HalfOpen { .. }, Verdict::Failure) => {
                self.streak += 1;
                self.phase = failed(self.streak);
            }
            (Phase::HalfOpen { probes, .. }, Verdict::Nothing) => *probes -= 1,
            (Phase::Open(_), _) | (Phase::Closed(_), Verdict::Nothing) => {}
        }
    }

    fn state(&self, now: u64) -> State {
        match self.phase {
            Phase::Closed(failures) => State::Closed { failures },
            Phase::Open(until) if until > now => State::Open {
                remaining: Duration::from_millis(until - now),
            },
            Phase::Open(_) => State::HalfOpen { probes: 0 },
            Phase::HalfOpen { probes, .. } => State::HalfOpen { probes },
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Enter,
    Settle {
        which: prop::sample::Index,
        outcome: Outcome,
    },
    Wait {
        ms: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop::sample::select(&Outcome::ALL[..]);
    let step = prop_oneof![
        4 => Just(Step::Enter),
        4 => (any::<prop::sample::Index>(), outcome).prop_map(|(which, outcome)| Step::Settle { which, outcome }),
        1 => (1..3_000u64).prop_map(|ms| Step::Wait { ms }),
    ];
    prop::collection::vec(step, 0..200)
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![
        1 => Just(Mode::Passive),
        3 => (1..4u32, 1..2_000u64, 1..4u32).prop_map(|(threshold, ms, probes)| configured(threshold, ms, probes)),
    ]
}

proptest! {
    #[test]
    fn the_breaker_does_what_its_diagram_says(mode in modes(), steps in steps()) {
        let breaker = Breaker::default();
        let mut model = Model { phase: Phase::Closed(0), streak: 0 };
        let mut now = Instant::now();
        let mut under_way = Vec::new();
        for (number, step) in (0u64..).zip(steps) {
            match step {
                Step::Wait { ms } => now += Duration::from_millis(ms),
                Step::Enter => {
                    let real = breaker.enter(mode, millis(now));
                    let expected = model.enter(mode, millis(now), number);
                    prop_assert_eq!(real.is_some(), expected.is_some());
                    if let (Some((permit, _)), Some(probe)) = (real, expected) {
                        prop_assert_eq!(permit != Permit::Closed, probe.is_some());
                        under_way.push((permit, probe));
                    }
                }
                Step::Settle { which, outcome } => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let (permit, probe) = under_way.swap_remove(which.index(under_way.len()));
                    breaker.settle(mode, permit, outcome, millis(now));
                    model.settle(mode, probe, outcome, millis(now));
                }
            }
            prop_assert_eq!(breaker.state(now), model.state(millis(now)));
        }
    }
}

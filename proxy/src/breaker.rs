//! The circuit breaker of an endpoint. `balancer::pick` asks it and a settled pick tells it; closed means traffic flows.
//!
//! ```text
//!              failures in a row reach the threshold
//!    closed ───────────────────────────────────────────▶ open ◀───────────────┐
//!      ▲                                                  │                    │
//!      │                                   its time is    │                    │ a probe fails
//!      │                                   over: the next │                    │
//!      │                                   request is a   │                    │
//!      │   a probe succeeds                probe          ▼                    │
//!      └───────────────────────────────────────────── half-open ──────────────┘
//! ```
//!
//! With a `Breaker` in the DestinationRule ([`Mode::Configured`]) every failure of the endpoint counts: any 5xx, resets,
//! timeouts, connection failures. The time open is always `recovery`: users reason with the number they wrote.
//! Without one ([`Mode::Passive`]) only connection failures count: the first opens for 1 s, each failed probe doubles
//! that up to 30 s, and any answer closes. It keeps traffic off pods that are gone before the operator says so, and as it
//! is a guess of ours, `balancer::pick` goes on in spite of it when no other endpoint is left.
//!
//! Results of requests that began before a breaker opened do not move it any more; only probes do. All state is one
//! atomic word, so a change is one CAS, and changed settings apply from the next result on without losing the state.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::balancer::Outcome;
use crate::live::millis;

mod word;

use word::Word;

/// First time out after a connection failure, without a configured breaker.
pub const PASSIVE_FIRST: Duration = Duration::from_secs(1);
/// Longest time out after connection failures, without a configured breaker.
pub const PASSIVE_LONGEST: Duration = Duration::from_secs(30);

/// What rules the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The DestinationRule's settings.
    Configured(api::Breaker),
    /// No settings: connection failures only.
    Passive,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Traffic flows.
    Closed {
        /// Failures in a row so far.
        failures: u32,
    },
    /// No traffic.
    Open {
        /// Time until a probe is let through.
        remaining: Duration,
    },
    /// Probes only.
    HalfOpen {
        /// Probes under way.
        probes: u32,
    },
}

/// A change of state, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Closed or half-open before.
    Opened {
        /// Time until a probe is let through.
        recovery: Duration,
    },
    /// Open before; the request that caused this is a probe.
    HalfOpened,
    /// Open or half-open before.
    Closed,
}

/// What an attempt is to the breaker; settled exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Let through while closed.
    Closed,
    /// A probe of the half-open phase that followed the opening until this time.
    Probe { opened_until_ms: u64 },
    /// Sent against the breaker, because no endpoint was left.
    Forced,
}

/// The breaker of one endpoint.
#[derive(Debug, Default)]
pub struct Breaker {
    word: AtomicU64,
    opened: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Success,
    Failure,
    Nothing,
}

impl Mode {
    /// That of a cluster.
    #[must_use]
    pub fn of(cluster: &api::Cluster) -> Self {
        cluster.breaker.map_or(Self::Passive, Self::Configured)
    }

    fn threshold(self) -> u32 {
        match self {
            Self::Configured(breaker) => breaker.failure_threshold.get(),
            Self::Passive => 1,
        }
    }

    fn probes(self) -> u32 {
        match self {
            // Where the word's field ends; more probes at a time than that are no probes.
            Self::Configured(breaker) => breaker.half_open_requests.get().min(word::MAX_PROBES),
            Self::Passive => NonZeroU32::MIN.get(),
        }
    }

    /// Time open, for the opening number `streak` (from 0) since it was last closed.
    fn recovery(self, streak: u32) -> Duration {
        match self {
            Self::Configured(breaker) => breaker.recovery,
            Self::Passive => PASSIVE_FIRST
                .saturating_mul(1 << streak.min(word::MAX_STREAK))
                .min(PASSIVE_LONGEST),
        }
    }

    fn judge(self, outcome: Outcome) -> Verdict {
        match (self, outcome) {
            (_, Outcome::Success) => Verdict::Success,
            (_, Outcome::ConnectFailure) => Verdict::Failure,
            (_, Outcome::Neutral) => Verdict::Nothing,
            (Self::Configured(_), _) => Verdict::Failure,
            // It answered, so there is somebody to connect to.
            (Self::Passive, Outcome::ServerError | Outcome::GatewayError) => Verdict::Success,
            (Self::Passive, Outcome::Reset | Outcome::Timeout) => Verdict::Nothing,
        }
    }
}

impl Breaker {
    /// That of an endpoint that left and is back. Had it been shut, the operator's word that the endpoint is ready again
    /// takes the place of the wait, but a probe comes before the traffic.
    pub(crate) fn resumed(&self, now: Instant) -> Self {
        let word = match self.load() {
            Word::Closed { .. } => Word::Closed { failures: 0 },
            Word::Open { until_ms, streak }
            | Word::HalfOpen {
                opened_until_ms: until_ms,
                streak,
                ..
            } => Word::Open {
                until_ms: until_ms.min(millis(now)),
                streak,
            },
        };
        Self {
            word: AtomicU64::new(word.pack()),
            opened: AtomicU32::new(self.times_opened()),
        }
    }

    /// Where it stands; an open one whose time is over shows as half-open.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        let now_ms = millis(now);
        match self.load() {
            Word::Closed { failures } => State::Closed { failures },
            Word::Open { until_ms, .. } if until_ms > now_ms => State::Open {
                remaining: Duration::from_millis(until_ms - now_ms),
            },
            Word::Open { .. } => State::HalfOpen { probes: 0 },
            Word::HalfOpen { probes, .. } => State::HalfOpen { probes },
        }
    }

    /// How often it has opened.
    #[must_use]
    pub fn times_opened(&self) -> u32 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Whether [`Breaker::enter`] would let a request through; takes nothing.
    pub(crate) fn permits(&self, mode: Mode, now_ms: u64) -> bool {
        match self.load() {
            Word::Closed { .. } => true,
            Word::Open { until_ms, .. } => until_ms <= now_ms,
            Word::HalfOpen { probes, .. } => probes < mode.probes(),
        }
    }

    /// Lets a request through, as a probe where it must be one; `None` when it may not pass.
    pub(crate) fn enter(&self, mode: Mode, now_ms: u64) -> Option<(Permit, Option<Change>)> {
        self.step(|word| match word {
            Word::Closed { .. } => (None, Some((Permit::Closed, None))),
            Word::Open { until_ms, streak } if until_ms <= now_ms => {
                let next = Word::HalfOpen {
                    probes: 1,
                    opened_until_ms: until_ms,
                    streak,
                };
                let permit = Permit::Probe {
                    opened_until_ms: until_ms,
                };
                (Some(next), Some((permit, Some(Change::HalfOpened))))
            }
            Word::HalfOpen {
                probes,
                opened_until_ms,
                streak,
            } if probes < mode.probes() => {
                let next = Word::HalfOpen {
                    probes: probes + 1,
                    opened_until_ms,
                    streak,
                };
                (Some(next), Some((Permit::Probe { opened_until_ms }, None)))
            }
            Word::Open { .. } | Word::HalfOpen { .. } => (None, None),
        })
    }

    /// Takes the result of what was let through.
    pub(crate) fn settle(&self, mode: Mode, permit: Permit, outcome: Outcome, now_ms: u64) -> Option<Change> {
        let verdict = mode.judge(outcome);
        let open = |streak: u32| {
            let recovery = mode.recovery(streak);
            let until_ms = now_ms.saturating_add(u64::try_from(recovery.as_millis()).unwrap_or(u64::MAX));
            (
                Some(Word::Open { until_ms, streak }),
                Some(Change::Opened { recovery }),
            )
        };
        let closed = Word::Closed { failures: 0 };
        let change = self.step(|word| match (word, verdict) {
            (Word::Closed { failures: 0 }, Verdict::Success) | (Word::Closed { .. }, Verdict::Nothing) => {
                (None, None)
            }
            (Word::Closed { .. }, Verdict::Success) => (Some(closed), None),
            (Word::Closed { failures }, Verdict::Failure) => {
                let failures = failures.saturating_add(1);
                if failures >= mode.threshold() {
                    open(0)
                } else {
                    (Some(Word::Closed { failures }), None)
                }
            }
            (
                Word::HalfOpen {
                    probes,
                    opened_until_ms,
                    streak,
                },
                _,
            ) if permit == (Permit::Probe { opened_until_ms }) => match verdict {
                Verdict::Success => (Some(closed), Some(Change::Closed)),
                Verdict::Failure => open(streak + 1),
                Verdict::Nothing => {
                    let probes = probes.saturating_sub(1);
                    (
                        Some(Word::HalfOpen {
                            probes,
                            opened_until_ms,
                            streak,
                        }),
                        None,
                    )
                }
            },
            (_, Verdict::Success) if permit == Permit::Forced => (Some(closed), Some(Change::Closed)),
            (Word::Open { .. } | Word::HalfOpen { .. }, _) => (None, None),
        });
        if let Some(Change::Opened { .. }) = change {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        change
    }

    /// Frees what a request holds that ended without a result.
    pub(crate) fn abandon(&self, mode: Mode, permit: Permit) {
        // Nothing opens on a neutral outcome, so the time plays no role.
        self.settle(mode, permit, Outcome::Neutral, 0);
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Relaxed))
    }

    /// Repeats `step` until its next word is in place; `None` for no change. Orderings are relaxed throughout: the word
    /// is complete in itself and guards no other memory.
    fn step<T>(&self, step: impl Fn(Word) -> (Option<Word>, T)) -> T {
        let mut current = self.word.load(Ordering::Relaxed);
        loop {
            let (next, result) = step(Word::unpack(current));
            let Some(next) = next else { return result };
            let swap =
                self.word
                    .compare_exchange_weak(current, next.pack(), Ordering::Relaxed, Ordering::Relaxed);
            match swap {
                Ok(_) => return result,
                Err(seen) => current = seen,
            }
        }
    }
}

impl Change {
    /// Short word for metrics; the set is closed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::HalfOpened => "half_opened",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { recovery } => write!(f, "circuit breaker opened for {recovery:?}"),
            Self::HalfOpened => f.write_str("circuit breaker half-open: a request probes the endpoint"),
            Self::Closed => f.write_str("circuit breaker closed: the endpoint answers"),
        }
    }
}

#[cfg(test)]
mod tests;

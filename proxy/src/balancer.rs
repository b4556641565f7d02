//! Picks the endpoint of a cluster that an attempt goes to. The outbound path calls [`pick`] for each try, keeps the
//! [`Pick`] while the attempt lasts, and settles it with what came of it; breakers, outlier detection and latencies learn
//! from that. A pick takes no lock, allocates nothing, reads no clock, and with the sampling balancers its cost does not
//! grow with the number of endpoints as long as most of them are eligible.
//!
//! An endpoint is **eligible** when mutual TLS is not required or it has an identity, it is not ejected, and its breaker
//! lets a request through. Among the eligible ones those are preferred that this request has not tried and that the
//! configuration still names. When nothing is eligible:
//!
//! - no endpoint at all: [`Error::NoEndpoint`]; none with an identity where one is required: [`Error::NotMeshed`];
//! - a breaker is configured, or all are ejected: [`Error::BreakerOpen`], which the application learns at once;
//! - else all are shut by our own guess alone (connection failures, see `breaker`): one is picked anyway. Traffic must
//!   not stop because we guessed.
//!
//! The balancers:
//!
//! - **round robin**: turns in order, shared by all workers; with weights each round gives an endpoint as many turns as
//!   its weight, spread out. The turn of a shut endpoint goes to one by chance, so that none inherits a double share.
//! - **random**: by chance, as probable as the weight.
//! - **least request**: two by chance, as probable as their weights; the one with less under way for its weight. (With
//!   both idle the first stands, so that weights hold when there is little to do; comparing `active + 1` by weight would
//!   starve light endpoints then.)
//! - **peak EWMA**: two by chance as above; the one with the lower expected latency times load, see [`Latency`].
//! - **consistent hash**: the one that a [`Table`] made of the endpoints gives for the key's hash, or the next on the way
//!   that is eligible and not tried. Where there is no key, chance takes its place.
//!
//! Where a cluster tells its endpoints apart by where they are, a pick first chooses one of their groups, see `locality`, and
//! then in it as in a cluster; the other groups are asked in their order where it has nothing eligible.
//!
//! Round robin and least request give an endpoint that is new a part of its weight at first, see `warmup`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::Rng;
use tokio::time::Instant;

use crate::breaker::{self, Mode};
use crate::config::snapshot::{Cluster, Endpoint};
use crate::error::Error;
use crate::live::millis;
use crate::{breaker::Permit, outlier};

mod choose;
mod hash;
mod latency;
mod locality;
mod outcome;
mod standing;
#[cfg(test)]
pub(crate) mod testing;
mod warmup;
mod weights;

use choose::Field;
use locality::Localities;

pub use hash::{Key, Table};
pub use latency::{DECAY, Latency, UNKNOWN};
pub use outcome::{Outcome, code_of};
pub use standing::{Standing, leads_to, standings};
pub use weights::Weights;

/// Other workers may take the last place of a half-open breaker between our look and our step; then we look again.
const RACES: usize = 3;

/// An endpoint picked for one attempt. Keep it while the attempt lasts: it counts as load on the endpoint until it is
/// dropped. Dropped without a result it counts as [`Outcome::Neutral`].
#[derive(Debug)]
#[must_use = "an attempt counts as load only while its pick is kept"]
pub struct Pick {
    /// Where the attempt goes.
    pub endpoint: Arc<Endpoint>,
    /// The endpoint's breaker was open until now: this attempt probes it.
    pub half_opened: bool,
    /// The endpoint was ejected until a while ago, and this is the first notice of its return.
    pub returned: bool,
    permit: Permit,
    started: Instant,
    /// Until the result is known. Let go with it, so that a long stream does not keep an old configuration alive.
    cluster: Option<Arc<Cluster>>,
}

/// What a result changed, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// Change of the endpoint's breaker.
    pub breaker: Option<breaker::Change>,
    /// The endpoint failed too often in a row.
    pub outlier: Option<outlier::Event>,
}

/// What an attempt wants an endpoint for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Where the endpoint is to be of.
    pub cluster: &'a Arc<Cluster>,
    /// Ids ([`EndpointLive::id`](crate::live::EndpointLive::id)) of those the request was sent to before, to be avoided if
    /// others are left; empty where the policy does not avoid them.
    pub tried: &'a [u64],
    /// Hash of the key, see [`Key`]; only a consistent balancer looks at it.
    pub hash: Option<u64>,
    /// Ids of those whose places are to be avoided if others are left.
    pub elsewhere: &'a [u64],
}

impl<'a> Wanted<'a> {
    /// The first attempt, with nothing to go by.
    #[must_use]
    pub fn of(cluster: &'a Arc<Cluster>) -> Self {
        Self {
            cluster,
            tried: &[],
            hash: None,
            elsewhere: &[],
        }
    }
}

/// Picks an endpoint for an attempt.
///
/// # Errors
/// When no endpoint is eligible; see the module's description.
pub fn pick(wanted: &Wanted<'_>, rng: &mut impl Rng, now: Instant) -> Result<Pick, Error> {
    let cluster = wanted.cluster;
    let gate = Gate::of(cluster, millis(now));
    let search = Search { wanted, gate, now };
    let picked = match cluster.weights.localities() {
        None => {
            let whole = Field::whole(cluster);
            search.eligible(whole, rng).or_else(|| search.forced(whole, rng))
        }
        Some(localities) => {
            let gate = &search.gate;
            let elsewhere = localities.elsewhere(wanted.elsewhere, rng, |e| gate.is_eligible(e));
            let chosen = elsewhere.or_else(|| localities.choose(rng, gate.now_ms, |e| gate.is_eligible(e)));
            let mut fields = localities.from(cluster, chosen);
            let eligible = fields.clone().find_map(|field| search.eligible(field, rng));
            eligible.or_else(|| fields.find_map(|field| search.forced(field, rng)))
        }
    };
    picked.ok_or_else(|| search.gate.explain(cluster))
}

/// What is looked for.
struct Search<'a> {
    wanted: &'a Wanted<'a>,
    gate: Gate,
    now: Instant,
}

impl Search<'_> {
    /// One that is eligible, and fresh where there is such a one.
    fn eligible(&self, field: Field<'_>, rng: &mut impl Rng) -> Option<Pick> {
        let gate = &self.gate;
        let enter = |i: usize| gate.enter(self.wanted.cluster, &field.endpoints[i], self.now);
        for _ in 0..RACES {
            let Some(i) = self.choose(field, rng, |e| gate.is_eligible(e) && self.is_fresh(e)) else {
                break;
            };
            if let Some(pick) = enter(i) {
                return Some(pick);
            }
        }
        for _ in 0..RACES {
            let Some(i) = self.choose(field, rng, |e| gate.is_eligible(e)) else {
                break;
            };
            if let Some(pick) = enter(i) {
                return Some(pick);
            }
        }
        // Races lost or nobody eligible; the order of the list decides for once.
        let mut eligible = (0..field.endpoints.len()).filter(|i| gate.is_eligible(&field.endpoints[*i]));
        eligible.find_map(enter)
    }

    /// One that is shut by our own guess alone.
    fn forced(&self, field: Field<'_>, rng: &mut impl Rng) -> Option<Pick> {
        let gate = &self.gate;
        if gate.mode != Mode::Passive {
            return None;
        }
        let usable = |e: &Endpoint| gate.is_meshed(e) && gate.is_in(e);
        let forced = self
            .choose(field, rng, |e| usable(e) && self.is_fresh(e))
            .or_else(|| self.choose(field, rng, usable))?;
        let endpoint = &field.endpoints[forced];
        Some(Pick::new(
            self.wanted.cluster,
            endpoint,
            Permit::Forced,
            false,
            self.now,
        ))
    }

    fn choose(
        &self,
        field: Field<'_>,
        rng: &mut impl Rng,
        fits: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        choose::one(field, self.wanted.hash, rng, self.gate.now_ms, fits)
    }

    /// Not tried for this request, and still named by the configuration.
    fn is_fresh(&self, endpoint: &Endpoint) -> bool {
        !self.wanted.tried.contains(&endpoint.live.id) && !endpoint.live.retired.load(Ordering::Relaxed)
    }
}

/// What an endpoint has to pass, decided once a pick.
struct Gate {
    mode: Mode,
    needs_identity: bool,
    ejections: bool,
    now_ms: u64,
}

impl Gate {
    fn of(cluster: &Cluster, now_ms: u64) -> Self {
        Self {
            mode: Mode::of(&cluster.spec),
            needs_identity: cluster.spec.tls == api::TlsMode::Mutual,
            ejections: outlier::is_in_force(cluster, now_ms),
            now_ms,
        }
    }

    fn is_meshed(&self, endpoint: &Endpoint) -> bool {
        !self.needs_identity || endpoint.spec.identity.is_some()
    }

    fn is_in(&self, endpoint: &Endpoint) -> bool {
        !self.ejections || !endpoint.live.outlier.is_out(self.now_ms)
    }

    fn is_eligible(&self, endpoint: &Endpoint) -> bool {
        self.is_meshed(endpoint)
            && self.is_in(endpoint)
            && endpoint.live.breaker.permits(self.mode, self.now_ms)
    }

    fn enter(&self, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>, now: Instant) -> Option<Pick> {
        let (permit, change) = endpoint.live.breaker.enter(self.mode, self.now_ms)?;
        let half_opened = change == Some(breaker::Change::HalfOpened);
        Some(Pick::new(cluster, endpoint, permit, half_opened, now))
    }

    /// Why nothing could be picked.
    fn explain(&self, cluster: &Cluster) -> Error {
        let name = || Arc::clone(&cluster.name);
        let Some(first) = cluster.endpoints.first() else {
            return Error::NoEndpoint {
                cluster: name(),
                absent: cluster.absent.clone(),
            };
        };
        if cluster.weights.localities().is_some_and(Localities::is_empty) {
            return Error::NoEndpoint {
                cluster: name(),
                absent: Some("none is in a place that localityLbSetting.distribute gives a share to".into()),
            };
        }
        if cluster.endpoints.iter().any(|e| self.is_meshed(e)) {
            Error::BreakerOpen { cluster: name() }
        } else {
            Error::NotMeshed {
                endpoint: first.spec.address,
            }
        }
    }
}

impl Pick {
    fn new(
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        permit: Permit,
        half_opened: bool,
        now: Instant,
    ) -> Self {
        let endpoint = Arc::clone(endpoint);
        endpoint.live.active.fetch_add(1, Ordering::Relaxed);
        let now_ms = millis(now);
        let returned = cluster.spec.outlier.is_some() && endpoint.live.outlier.take_return(now_ms);
        if returned {
            outlier::recount(cluster, now_ms);
        }
        Self {
            endpoint,
            half_opened,
            returned,
            permit,
            started: now,
            cluster: Some(Arc::clone(cluster)),
        }
    }

    /// Takes the result of the attempt, as soon as it is known (for a request: with the response's headers; for a stream:
    /// when it is connected). The pick goes on counting as load until it is dropped. Only the first result counts.
    pub fn settle(&mut self, outcome: Outcome, now: Instant) -> Settled {
        self.settle_answer(outcome, None, now)
    }

    /// As [`Pick::settle`], with the status that an answer counts as, for a rule that says which statuses are errors.
    pub fn settle_answer(&mut self, outcome: Outcome, code: Option<u16>, now: Instant) -> Settled {
        let Some(cluster) = self.cluster.take() else {
            return Settled::default();
        };
        let now_ms = millis(now);
        let live = &self.endpoint.live;
        if cluster.spec.balancer == api::Balancer::PeakEwma {
            let took = now.saturating_duration_since(self.started);
            match outcome {
                Outcome::Success => live.latency.observe(took, now_ms),
                Outcome::Neutral => {}
                _ => live.latency.observe_failure(took, now_ms),
            }
        }
        Settled {
            breaker: live
                .breaker
                .settle(Mode::of(&cluster.spec), self.permit, outcome, now_ms),
            outlier: outlier::observe(&cluster, &self.endpoint, outcome, code, now_ms),
        }
    }

    /// Takes the result of an attempt that is over.
    pub fn finish(mut self, outcome: Outcome, now: Instant) -> Settled {
        self.settle(outcome, now)
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        let live = &self.endpoint.live;
        live.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(cluster) = self.cluster.take() {
            live.breaker.abandon(Mode::of(&cluster.spec), self.permit);
        }
    }
}

#[cfg(test)]
mod tests;

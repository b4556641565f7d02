//! Whether each endpoint of a cluster may be chosen now, and why not; and where a key leads. For explanations: nothing is
//! entered, counted or changed.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use rand::Rng;
use tokio::time::Instant;

use super::Gate;
use super::choose::{self, Field};
use crate::breaker::Mode;
use crate::config::snapshot::{Cluster, Endpoint};
use crate::live::millis;

/// Whether an endpoint may be chosen. `Display` says so in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Eligible,
    /// Its breaker is shut by connection failures alone, and so are all others: one of them is chosen all the same.
    Forced,
    /// It has no identity, and mutual TLS is required.
    NotMeshed,
    /// Outlier detection has ejected it.
    Ejected,
    /// Its breaker lets nothing through.
    BreakerOpen,
}

impl Display for Standing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eligible => "may be chosen",
            Self::Forced => "may be chosen, for the breakers of all are open after connection failures alone",
            Self::NotMeshed => "gets nothing: mutual TLS is required, and it has no identity",
            Self::Ejected => "gets nothing: outlier detection has ejected it",
            Self::BreakerOpen => "gets nothing: its breaker is not closed",
        })
    }
}

/// That of each endpoint, in their order.
pub fn standings(cluster: &Cluster, now: Instant) -> Vec<Standing> {
    let gate = Gate::of(cluster, millis(now));
    let all_shut = gate.mode == Mode::Passive && !cluster.endpoints.iter().any(|e| gate.is_eligible(e));
    let one = |endpoint| match (gate.is_meshed(endpoint), gate.is_in(endpoint)) {
        (false, _) => Standing::NotMeshed,
        (true, false) => Standing::Ejected,
        (true, true) if gate.is_eligible(endpoint) => Standing::Eligible,
        (true, true) if all_shut => Standing::Forced,
        (true, true) => Standing::BreakerOpen,
    };
    cluster.endpoints.iter().map(|endpoint| one(endpoint)).collect()
}

/// The place of the endpoint that a key leads to now.
pub fn leads_to(cluster: &Arc<Cluster>, hash: u64, rng: &mut impl Rng, now: Instant) -> Option<usize> {
    let gate = Gate::of(cluster, millis(now));
    let fits = |endpoint: &Endpoint| gate.is_eligible(endpoint);
    match cluster.weights.localities() {
        None => choose::one(Field::whole(cluster), Some(hash), rng, gate.now_ms, fits),
        Some(localities) => {
            let chosen = localities.choose(rng, gate.now_ms, fits);
            let found = localities.from(cluster, chosen).find_map(|field| {
                let i = choose::one(field, Some(hash), rng, gate.now_ms, fits)?;
                field.endpoints.get(i)
            })?;
            cluster
                .endpoints
                .iter()
                .position(|endpoint| Arc::ptr_eq(endpoint, found))
        }
    }
}

//! Who of the operator's replicas writes: the holder of a Lease. Every replica serves proxies; only what changes objects
//! (status, events, trust bundles) asks here first. `main` runs it, writers follow the receiver.
//!
//! ```text
//! waiting ──free, released, or not renewed for its duration as seen from here──▶ holding
//! holding ──another has it, or no renewal for RENEWED_WITHIN──▶ waiting
//! holding ──told to stop──▶ released
//! ```
//!
//! Clocks of different machines are never compared: how long a lease has not been renewed is measured here, from when a
//! change of it was last seen. Each write names the version it replaces, so of two that try one succeeds. A holder stops
//! believing in itself before anyone else may take over.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::spread;
use super::{code, reason};

/// Name of the Lease, in the operator's namespace.
pub const LEASE_NAME: &str = "hauberk-control-plane";

/// How long a lease that is not renewed is respected.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that has not renewed for so long holds no more; well before the others may take over.
const RENEWED_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at, and renewed.
const EVERY: Duration = Duration::from_secs(5);
/// How soon it is looked at again after a conflict.
const AT_ONCE: Duration = Duration::from_millis(200);
/// How soon it is tried again after a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// How long one request may take.
const ANSWER: Duration = Duration::from_secs(4);
/// Another's lease is respected for at most so long, whatever it says.
const LONGEST: Duration = Duration::from_secs(60);

/// One replica's part in the election.
pub struct Lease {
    api: Api<Object>,
    identity: String,
    holds: watch::Sender<bool>,
    /// The lease as last seen, and since when it has been so.
    seen: Option<(Object, Instant)>,
    /// Until when this replica may believe that it holds the lease.
    until: Option<Instant>,
    /// Whether the last request failed, so that it is said once.
    failing: bool,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("identity", &self.identity)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// A part in the election for the Lease [`LEASE_NAME`] of `namespace`. `identity` is the name of this replica's pod:
    /// no other process may have it. The receiver says whether this replica holds the lease.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: &str) -> (Self, watch::Receiver<bool>) {
        let (holds, held) = watch::channel(false);
        let lease = Self {
            api: Api::namespaced(client, namespace),
            identity: identity.to_owned(),
            holds,
            seen: None,
            until: None,
            failing: false,
        };
        (lease, held)
    }

    /// Takes part until `stop`, and then releases what it holds, so that another replica takes over at once.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let deadline = self.until;
            let pause = tokio::select! {
                pause = self.turn() => pause,
                () = passed(deadline) => { self.lose("it could not be renewed in time"); continue }
                () = &mut stop => break,
            };
            let deadline = self.until;
            tokio::select! {
                () = sleep(pause) => {}
                () = passed(deadline) => self.lose("it could not be renewed in time"),
                () = &mut stop => break,
            }
        }
        self.release().await;
    }

    /// Looks at the lease, or renews it; says when to do so again.
    async fn turn(&mut self) -> Duration {
        let result = timeout(ANSWER, self.attempt()).await;
        let problem = match result {
            Ok(Ok(pause)) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("lease: the API server answers again");
                }
                return pause;
            }
            // Someone wrote in between, or this replica did and did not hear of it: look who holds it now.
            Ok(Err(error)) if code(&error) == Some(409) => {
                self.seen = None;
                return spread(AT_ONCE);
            }
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
        };
        if !std::mem::replace(&mut self.failing, true) {
            let holds = self.until.is_some();
            tracing::warn!(problem, holds, "lease: cannot be read or written; trying again");
        }
        spread(AGAIN)
    }

    async fn attempt(&mut self) -> kube::Result<Duration> {
        if self.until.is_some()
            && let Some((object, _)) = &self.seen
        {
            let object = object.clone();
            return self.write(object).await;
        }
        let found = self.api.get_opt(LEASE_NAME).await?;
        let Some(found) = found else {
            let mut new = Object::default();
            new.metadata.name = Some(LEASE_NAME.to_owned());
            return self.write(new).await;
        };
        let now = Instant::now();
        let since = match &self.seen {
            Some((before, since)) if same(&before.metadata, &found.metadata) => *since,
            _ => now,
        };
        self.seen = Some((found.clone(), since));
        let spec = found.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let expires = since + respected(&spec);
        if holder.is_empty() || holder == self.identity || expires <= now {
            return self.write(found).await;
        }
        if self.until.is_some() {
            self.lose("another replica has it");
        }
        Ok(spread(EVERY).min(expires - now))
    }

    /// Writes the lease as held by this replica, over the version given.
    async fn write(&mut self, mut object: Object) -> kube::Result<Duration> {
        let start = Instant::now();
        let now = MicroTime(Timestamp::now());
        let before = object.spec.take().unwrap_or_default();
        let goes_on = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let is_first = before.holder_identity.is_none() && object.metadata.resource_version.is_none();
        object.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before
                .acquire_time
                .filter(|_| goes_on)
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(!goes_on && !is_first))),
            ..LeaseSpec::default()
        });
        let params = PostParams::default();
        let written = if object.metadata.resource_version.is_none() {
            self.api.create(&params, &object).await?
        } else {
            self.api.replace(LEASE_NAME, &params, &object).await?
        };
        self.seen = Some((written, Instant::now()));
        // From before the request: the others count from when they see it, which is later.
        self.until = Some(start + RENEWED_WITHIN);
        if !self.holds.send_replace(true) {
            tracing::info!(
                identity = self.identity,
                "lease: held by this replica, which writes from now on"
            );
        }
        Ok(spread(EVERY))
    }

    fn lose(&mut self, why: &str) {
        self.until = None;
        self.seen = None;
        if self.holds.send_replace(false) {
            tracing::warn!(why, "lease: not held any more; this replica writes nothing");
        }
    }

    async fn release(mut self) {
        let held = self.until.take().is_some();
        self.holds.send_replace(false);
        let Some((mut object, _)) = self.seen.take().filter(|_| held) else {
            return;
        };
        let spec = object.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let params = PostParams::default();
        let released = timeout(ANSWER, self.api.replace(LEASE_NAME, &params, &object)).await;
        match released {
            Ok(Ok(_)) => tracing::info!("lease: released"),
            Ok(Err(error)) => tracing::warn!(
                problem = reason(&error),
                "lease: not released; it expires by itself"
            ),
            Err(_) => tracing::warn!("lease: not released in time; it expires by itself"),
        }
    }
}

/// How long a lease is respected after it was last seen to change.
fn respected(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
    seconds.map_or(DURATION, Duration::from_secs).min(LONGEST)
}

/// Whether nothing was written between.
fn same(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    (&a.uid, &a.resource_version) == (&b.uid, &b.resource_version)
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

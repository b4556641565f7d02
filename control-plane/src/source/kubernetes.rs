//! The source `kubernetes`: follows every kind of object that the mesh is made of, and tells what changed. `main` starts
//! it with [`watch()`].
//!
//! ```text
//! API server ─list, then watch─▶ one Feed a kind ─▶ reduce ─▶ crds::parse::served ─▶ Collector ─(quiet)─▶ Batch
//! ```
//!
//! Objects are passed on; only their names and a hash of what they said are kept here, so that after a new list what is
//! gone is told and what is the same is not. What cannot be read stops nothing: it is reported by name, and the version
//! before stays. A feed that fails tries again for ever, and what it said stays as it is. It never writes.

mod feed;
mod place;
mod reduce;

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{Kind, ObjectKey};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Batch, Change, Feed, Unreadable};
use crate::kubernetes::capabilities::Capabilities;
use feed::{Follower, Told};

/// A batch goes out when nothing more has come for so long …
const QUIET: Duration = Duration::from_millis(25);
/// … at the latest after so long …
const AT_MOST: Duration = Duration::from_millis(200);
/// … or with so many changes. While everything is read for the first time, this bounds what waits as whole objects.
const LARGEST: usize = 1000;
/// Objects between the feeds and the collector.
const QUEUE: usize = 256;

/// What [`watch()`] gives.
#[derive(Debug)]
pub struct Watching {
    /// What changed. Batches are complete once every kind has been listed; those before are parts of the first load.
    pub batches: mpsc::Receiver<Batch>,
    /// How each kind is doing.
    pub feeds: watch::Receiver<Vec<Feed>>,
}

/// Follows every kind on a server. It goes on until the batches are dropped; failures only delay it, and are in the feeds.
#[must_use]
pub fn watch(client: &Client, capabilities: &Capabilities) -> Watching {
    let feeds: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| Feed {
            kind,
            listed: false,
            heard: None,
            failing: None,
        })
        .collect();
    let (health, feeds) = watch::channel(feeds);
    let (sender, told) = mpsc::channel(QUEUE);
    for kind in Kind::ALL {
        let follower = Follower::new(
            client.clone(),
            kind,
            capabilities.endpoint_slices,
            sender.clone(),
            health.clone(),
        );
        tokio::spawn(follower.run());
    }
    let (out, batches) = mpsc::channel(1);
    tokio::spawn(Collector::new(told).run(out));
    Watching { batches, feeds }
}

/// Gathers what the feeds tell into batches.
struct Collector {
    told: mpsc::Receiver<Told>,
    /// Kinds that have not been listed yet.
    missing: Vec<Kind>,
    /// The newest of each object: what came between does not matter.
    changes: BTreeMap<ObjectKey, Change>,
    unreadable: BTreeMap<ObjectKey, Unreadable>,
    /// Whether there is something to say apart from changes.
    stirred: bool,
}

impl Collector {
    fn new(told: mpsc::Receiver<Told>) -> Self {
        Self {
            told,
            missing: Kind::ALL.to_vec(),
            changes: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            stirred: false,
        }
    }

    async fn run(mut self, out: mpsc::Sender<Batch>) {
        // With a place in the channel taken first, what happens while the receiver is busy goes into one batch.
        while let Ok(place) = out.reserve().await {
            let gathered = tokio::select! {
                gathered = self.gather() => gathered,
                () = out.closed() => false,
            };
            if !gathered {
                return;
            }
            let changes = std::mem::take(&mut self.changes);
            self.stirred = false;
            place.send(Batch {
                changes: changes.into_values().collect(),
                files: Vec::new(),
                unreadable: self.unreadable.values().cloned().collect(),
                complete: self.missing.is_empty(),
            });
        }
    }

    /// Waits for something to say and then for quiet; `false` when there will be nothing any more.
    async fn gather(&mut self) -> bool {
        while !self.stirred && self.changes.is_empty() {
            let Some(told) = self.told.recv().await else {
                return false;
            };
            self.take(told);
        }
        let latest = Instant::now() + AT_MOST;
        while self.changes.len() < LARGEST {
            let until = latest.min(Instant::now() + QUIET);
            match timeout_at(until, self.told.recv()).await {
                Ok(Some(told)) => self.take(told),
                Ok(None) => sleep_until(until).await,
                Err(_) => break,
            }
            if Instant::now() >= latest {
                break;
            }
        }
        true
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Change(change) => {
                let key = match &change {
                    Change::Set(object) => object.key(),
                    Change::Remove(key) => key.clone(),
                };
                self.stirred |= self.unreadable.remove(&key).is_some();
                self.changes.insert(key, change);
            }
            Told::Unreadable(unreadable) => {
                self.stirred = true;
                self.unreadable.insert(unreadable.key.clone(), unreadable);
            }
            Told::Listed(kind) => {
                let before = self.missing.len();
                self.missing.retain(|missing| *missing != kind);
                // Lists after the first load say nothing by themselves.
                self.stirred |= before > 0 && self.missing.is_empty();
            }
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

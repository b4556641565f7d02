//! Configuration: the stream to the operator, the store that decides what is active, and the snapshot that requests use.
//!
//! [`new`] makes a [`Handle`] for workers and a [`Client`] that runs on the background thread. Workers read the snapshot
//! with a [`Reader`] of their own, and ask with [`Handle::discover`] for addresses it does not answer yet.

mod backoff;
mod client;
#[doc(hidden)]
pub mod direct;
pub mod operator;
pub mod snapshot;
mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod usage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Cache};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::Error;
use crate::metrics::Metrics;
use crate::originate::Origins;
use crate::settings::Settings;

pub use client::Client;
pub use snapshot::Snapshot;

pub(crate) use backoff::Backoff;
pub(crate) use store::ResourceView;

/// Where the current snapshot stands. Made before everything that reads it.
#[derive(Debug, Clone, Default)]
pub struct Current(Arc<ArcSwap<Snapshot>>);

impl Current {
    /// The current snapshot.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    pub(crate) fn store(&self, snapshot: Arc<Snapshot>) {
        self.0.store(snapshot);
    }
}

/// A worker's view of the current snapshot: reading it again costs one load while it has not changed.
#[derive(Debug, Clone)]
pub struct Reader(Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>);

impl Reader {
    /// The current snapshot.
    pub fn load(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}

/// How things stand with the operator.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct Link {
    /// The stream is up and the operator has answered on it.
    pub(crate) connected: bool,
    /// Streams opened after the first.
    pub(crate) reconnects: u64,
    /// Version of the operator, as it says.
    pub(crate) operator_version: Option<String>,
    /// When something last came from it.
    #[serde(serialize_with = "rfc3339")]
    pub(crate) last_received: Option<SystemTime>,
    /// How long it took to answer last.
    #[serde(serialize_with = "milliseconds", rename = "latency_ms")]
    pub(crate) latency: Option<Duration>,
    /// Why the last stream ended or did not come about.
    pub(crate) last_error: Option<String>,
}

fn rfc3339<S: serde::Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&time.map(crate::access_log::rfc3339), serializer)
}

fn milliseconds<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&time.map(|t| t.as_secs_f64() * 1000.0), serializer)
}

/// What is asked of the client.
#[derive(Debug)]
enum Command {
    /// To say what stands behind an address; the answer says whether it was taken.
    Want(SocketAddr, oneshot::Sender<bool>),
    /// To show every resource.
    View(oneshot::Sender<Vec<ResourceView>>),
}

/// The configuration as workers and the admin server see it. Cheap to clone; usable from every thread.
#[derive(Debug, Clone)]
pub struct Handle {
    current: Current,
    commands: mpsc::Sender<Command>,
    swapped: watch::Receiver<u64>,
    trust: watch::Receiver<Option<Arc<api::TrustBundle>>>,
    link: watch::Receiver<Link>,
    discovery_timeout: Duration,
    metrics: Arc<Metrics>,
    origins: Origins,
}

/// Makes the configuration. `current` is what `metrics` was made with.
#[must_use]
pub fn new(settings: &Settings, current: Current, metrics: Arc<Metrics>) -> (Handle, Client) {
    const COMMANDS: usize = 1024;
    let (commands, asked) = mpsc::channel(COMMANDS);
    let (swapped, on_swap) = watch::channel(0);
    let (trust, on_trust) = watch::channel(None);
    let (link, on_link) = watch::channel(Link::default());
    let handle = Handle {
        current: current.clone(),
        commands,
        swapped: on_swap,
        trust: on_trust,
        link: on_link,
        discovery_timeout: settings.discovery_timeout,
        metrics: Arc::clone(&metrics),
        origins: Origins::default(),
    };
    let told = client::Told {
        current,
        swapped,
        trust,
        link,
        metrics,
    };
    (handle, Client::new(settings, asked, told))
}

impl Handle {
    /// The current snapshot.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load()
    }

    /// A view for one worker.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader(Cache::new(Arc::clone(&self.current.0)))
    }

    /// The first snapshot that says what stands behind `address`. The operator is asked once, however many ask here.
    ///
    /// # Errors
    /// [`Error::DiscoveryTimeout`] when it does not answer in time, [`Error::Refused`] when as many destinations as may
    /// be are in use.
    pub async fn discover(&self, address: SocketAddr) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.load();
        if snapshot.destination(address).is_some() {
            return Ok(snapshot);
        }
        self.metrics.config.discoveries.inc();
        match tokio::time::timeout(self.discovery_timeout, self.answer(address)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.metrics.config.discovery_timeouts.inc();
                Err(Error::DiscoveryTimeout { address })
            }
        }
    }

    async fn answer(&self, address: SocketAddr) -> Result<Arc<Snapshot>, Error> {
        let mut swapped = self.swapped.clone();
        let stopped = || Error::Refused {
            reason: "the proxy is shutting down, and asks the operator no more".into(),
        };
        let (taken, is_taken) = oneshot::channel();
        let want = Command::Want(address, taken);
        self.commands.send(want).await.map_err(|_| stopped())?;
        if !is_taken.await.map_err(|_| stopped())? {
            return Err(Error::Refused {
                reason: format!(
                    "the application uses {} addresses at once, which is as many as are looked up",
                    api::limits::MAX_SUBSCRIPTIONS
                )
                .into(),
            });
        }
        loop {
            // Marked as seen before the look, so that no swap falls between look and wait.
            swapped.borrow_and_update();
            let snapshot = self.load();
            if snapshot.destination(address).is_some() {
                return Ok(snapshot);
            }
            swapped.changed().await.map_err(|_| stopped())?;
        }
    }

    /// Whether the first configuration is applied: what to do with inbound traffic, and whom to trust.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.load().inbound.is_some() && self.trust.borrow().is_some()
    }

    /// Waits for the first configuration.
    pub async fn ready(&self) {
        let (mut swapped, mut trust) = (self.swapped.clone(), self.trust.clone());
        loop {
            swapped.borrow_and_update();
            trust.borrow_and_update();
            if self.is_ready() {
                return;
            }
            tokio::select! {
                Ok(()) = swapped.changed() => {}
                Ok(()) = trust.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Waits until the operator says that nothing is left to serve here.
    pub async fn finished(&self) {
        let mut swapped = self.swapped.clone();
        loop {
            swapped.borrow_and_update();
            if self
                .load()
                .inbound
                .as_ref()
                .is_some_and(|inbound| inbound.finished)
            {
                return;
            }
            if swapped.changed().await.is_err() {
                // Nobody is left to say so.
                std::future::pending().await
            }
        }
    }

    /// The roots that the operator pushes, for [`crate::identity`] and [`operator`].
    #[must_use]
    pub fn trust(&self) -> watch::Receiver<Option<Arc<api::TrustBundle>>> {
        self.trust.clone()
    }

    /// TLS to servers outside the mesh, shared by all workers.
    #[must_use]
    pub fn origins(&self) -> Origins {
        self.origins.clone()
    }

    pub(crate) fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// Every resource; `None` once the client has stopped.
    pub(crate) async fn view(&self) -> Option<Vec<ResourceView>> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::View(answer)).await.ok()?;
        answered.await.ok()
    }
}

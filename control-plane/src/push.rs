//! Pushing configuration: one task, the hub, owns the newest world and every session's subscriptions. A change touches
//! only what was made from it, is compiled once for all proxies that get the same, and goes out only where the content is
//! new. `session` brings in what proxies say, `source` each new world, `authority` each new bundle; `status` asks for a view.
//!
//! The hub never waits for a proxy: what a slow one has not taken is replaced by what is newer (see `outbox`).

mod entry;
mod message;
mod outbox;
mod table;
mod view;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{ResourceName, TrustBundle, Version};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

pub use message::{Message, Update};
pub(crate) use outbox::Outbox;
pub use outbox::OutboxStream;
pub use view::{AppliedBy, HubView, ObjectKey, ProxyDetail, ProxyView, ResourceDetail, Unsendable};

use crate::compile::{self, Compiled};
use crate::metrics::PushMetrics;
use crate::state::{Proxy, Touched, World};
use table::{Batch, SessionId, Table};

/// A change goes out when nothing more has come for this long …
const QUIET: Duration = Duration::from_millis(10);
/// … and at the latest after this long.
const AT_MOST: Duration = Duration::from_millis(100);
/// Events waiting for the hub; who sends more waits, each for itself.
const QUEUE: usize = 1024;
/// Entries compiled before other tasks of the runtime have a turn.
const TURN: usize = 64;

/// What a proxy gets under a name.
pub type Compile = dyn Fn(&World, &Proxy, &ResourceName) -> Compiled + Send + Sync;
/// A proxy with what is known of its pod, by namespace, pod and service account.
pub type Describe = dyn Fn(&World, &str, &str, &str) -> Proxy + Send + Sync;

/// How resources are made: in the operator by `compile::compile` for `World::proxy`, in tests of the push by what they
/// need.
pub struct Compiler {
    /// See [`Compile`].
    pub compile: Box<Compile>,
    /// See [`Describe`].
    pub describe: Box<Describe>,
}

impl Compiler {
    /// The operator's compiler.
    #[must_use]
    pub fn of_world() -> Self {
        Self {
            compile: Box::new(compile::compile),
            describe: Box::new(World::proxy),
        }
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compiler")
    }
}

/// A proxy that comes in.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Its namespace, as proven.
    pub namespace: String,
    /// Its pod, as proven.
    pub pod: String,
    /// Its service account, as proven.
    pub service_account: String,
    /// Its build, as it says.
    pub proxy_version: String,
    /// The contract revision that both speak.
    pub revision: u32,
}

/// What a proxy asks or answers after its greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Names to follow, with the version the proxy holds of each.
    Subscribe(Vec<(ResourceName, Option<Version>)>),
    /// Names to follow no more.
    Unsubscribe(Vec<ResourceName>),
    /// A version is applied.
    Ack(ResourceName, Version),
    /// A version cannot be applied, and why.
    Nack(ResourceName, Version, String),
}

enum Event {
    Join(Joining, Arc<Outbox>, oneshot::Sender<SessionId>),
    Request(SessionId, Request, oneshot::Sender<()>),
    Leave(SessionId),
    World(Arc<World>, Touched),
    Bundle(TrustBundle),
    View(oneshot::Sender<HubView>),
    Proxy(String, String, oneshot::Sender<Option<ProxyDetail>>),
    EndAll(oneshot::Sender<()>),
    Ping(oneshot::Sender<()>),
}

/// The way to the hub. When the hub is gone, the operator is stopping: callers get nothing and say nothing.
#[derive(Debug, Clone)]
pub struct HubHandle {
    events: mpsc::Sender<Event>,
    changes: Arc<AtomicU64>,
    metrics: PushMetrics,
}

impl HubHandle {
    /// The world has changed.
    pub async fn world_changed(&self, world: Arc<World>, touched: Touched) {
        let _ = self.events.send(Event::World(world, touched)).await;
    }

    /// The trust bundle has changed; tells whether the hub is still there.
    pub async fn bundle_changed(&self, bundle: TrustBundle) -> bool {
        self.events.send(Event::Bundle(bundle)).await.is_ok()
    }

    /// Everything the status view is made of.
    pub async fn view(&self) -> Option<HubView> {
        let (reply, view) = oneshot::channel();
        self.events.send(Event::View(reply)).await.ok()?;
        view.await.ok()
    }

    /// How often something has happened that may change the view: a number to compare with an earlier one, so that who
    /// looks again and again need not ask for the view each time.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// One proxy in full.
    pub async fn proxy(&self, namespace: &str, pod: &str) -> Option<ProxyDetail> {
        let (reply, detail) = oneshot::channel();
        let event = Event::Proxy(namespace.to_owned(), pod.to_owned(), reply);
        self.events.send(event).await.ok()?;
        detail.await.ok()?
    }

    /// How long an event waits for the hub now; `None` when the hub is gone.
    pub async fn ping(&self) -> Option<Duration> {
        let start = Instant::now();
        let (reply, answered) = oneshot::channel();
        self.events.send(Event::Ping(reply)).await.ok()?;
        answered.await.ok()?;
        Some(start.elapsed())
    }

    /// Ends every session, with a status that makes proxies connect again.
    pub async fn end_all(&self) {
        let (reply, done) = oneshot::channel();
        if self.events.send(Event::EndAll(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    pub(crate) fn outbox(&self) -> Arc<Outbox> {
        Outbox::new(self.metrics.clone())
    }

    pub(crate) async fn join(&self, joining: Joining, outbox: Arc<Outbox>) -> Option<SessionId> {
        let (reply, id) = oneshot::channel();
        self.events.send(Event::Join(joining, outbox, reply)).await.ok()?;
        id.await.ok()
    }

    /// Returns when the hub has dealt with it, so that of one proxy only one message waits here, however large and many.
    pub(crate) async fn request(&self, id: SessionId, request: Request) {
        let (done, dealt_with) = oneshot::channel();
        if self.events.send(Event::Request(id, request, done)).await.is_ok() {
            let _ = dealt_with.await;
        }
    }

    pub(crate) async fn leave(&self, id: SessionId) {
        let _ = self.events.send(Event::Leave(id)).await;
    }
}

/// The hub, before it runs.
#[derive(Debug)]
pub struct Hub {
    table: Table,
    events: mpsc::Receiver<Event>,
    pending: Option<Pending>,
    changes: Arc<AtomicU64>,
}

/// Changes that wait to go out together.
#[derive(Debug)]
struct Pending {
    touched: Touched,
    bundle: bool,
    since: Instant,
    due: Instant,
}

impl Hub {
    /// A hub with the world it starts from.
    #[must_use]
    pub fn new(
        compiler: Compiler,
        world: Arc<World>,
        bundle: TrustBundle,
        metrics: PushMetrics,
    ) -> (HubHandle, Self) {
        let (sender, events) = mpsc::channel(QUEUE);
        let changes = Arc::new(AtomicU64::new(0));
        let handle = HubHandle {
            events: sender,
            changes: changes.clone(),
            metrics: metrics.clone(),
        };
        let hub = Self {
            table: Table::new(compiler, world, bundle, metrics),
            events,
            pending: None,
            changes,
        };
        (handle, hub)
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        loop {
            let due = self.pending.as_ref().map(|pending| pending.due);
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.on(event),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.flush().await,
            }
        }
    }

    fn on(&mut self, event: Event) {
        if !matches!(event, Event::View(_) | Event::Proxy(..) | Event::Ping(_)) {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        match event {
            Event::Join(joining, outbox, reply) => {
                let id = self.table.join(joining, outbox);
                if reply.send(id).is_err() {
                    self.table.leave(id);
                }
            }
            Event::Request(id, request, done) => {
                self.table.request(id, request);
                let _ = done.send(());
            }
            Event::Leave(id) => self.table.leave(id),
            Event::World(world, touched) => {
                // New subscriptions are served from the newest world at once; only what is out there already waits.
                self.table.inputs.world = world;
                self.later(touched, false);
            }
            Event::Bundle(bundle) => {
                self.table.inputs.bundle = bundle;
                self.later(Touched::new(), true);
            }
            // An asker that is gone needs no answer.
            Event::View(reply) => drop(reply.send(view::view(&self.table))),
            Event::Proxy(namespace, pod, reply) => {
                drop(reply.send(view::proxy(&self.table, &namespace, &pod)));
            }
            Event::Ping(reply) => drop(reply.send(())),
            Event::EndAll(reply) => {
                self.table.end_all();
                let _ = reply.send(());
            }
        }
    }

    fn later(&mut self, touched: Touched, bundle: bool) {
        let now = Instant::now();
        let pending = self.pending.get_or_insert(Pending {
            touched: Touched::new(),
            bundle: false,
            since: now,
            due: now,
        });
        pending.touched.extend(touched);
        pending.bundle |= bundle;
        pending.due = (now + QUIET).min(pending.since + AT_MOST);
    }

    async fn flush(&mut self) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let mut batch = Batch::new();
        let mut entries = self.table.affected(&pending.touched, pending.since, &mut batch);
        if pending.bundle {
            entries.extend(self.table.entries.of_bundle());
        }
        for (count, entry) in entries.iter().enumerate() {
            self.table.renew(*entry, pending.since, &mut batch);
            if count % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        tracing::debug!(
            touched = pending.touched.len(),
            compiled = entries.len(),
            proxies = batch.len(),
            "pushed a change"
        );
        self.table.send(batch);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

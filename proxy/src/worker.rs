//! One worker: a thread with a current-thread runtime, its own listeners, pool and timers. What workers share is the
//! configuration snapshot and a handful of atomics per endpoint; no request waits for another worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::access_log::AccessLog;
use crate::balancer::{Pick, Settled};
use crate::config::snapshot::{Cluster, Endpoint, Snapshot};
use crate::config::{Handle, Reader};
use crate::drain::{Drain, Phase};
use crate::identity::Identity;
use crate::listener::{Accepted, Listener};
use crate::message::Hosts;
use crate::metrics::Metrics;
use crate::record::{Direction, Recorder};
use crate::settings::Settings;
use crate::upstream::Upstream;
use crate::{inbound, outbound, outlier};

const MAX_LOCAL: usize = 1024;
const SWEEP: Duration = Duration::from_secs(1);
/// Pause after the system could not accept (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every worker gets a copy of.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Settings of the process.
    pub settings: Arc<Settings>,
    /// The configuration.
    pub config: Handle,
    /// Certificates.
    pub identity: Identity,
    /// The shutdown.
    pub drain: Drain,
    /// Makes the recorder of one worker.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access_log: AccessLog,
}

/// What the tasks of one worker share.
#[derive(Debug)]
pub struct Worker {
    /// Settings of the process.
    pub settings: Arc<Settings>,
    /// The configuration.
    pub config: Handle,
    /// Certificates.
    pub identity: Identity,
    /// The shutdown.
    pub drain: Drain,
    /// Where records go.
    pub recorder: Arc<Recorder>,
    /// The way to endpoints.
    pub upstream: Rc<Upstream>,
    /// Chance, for splits, balancers and back-off.
    pub rng: RefCell<SmallRng>,
    /// The snapshot as this worker saw it last.
    seen: RefCell<(Reader, Rc<Seen>)>,
    /// The hosts that requests named last.
    pub hosts: Hosts,
    /// Routes whose servers spoke first, and when that was seen.
    pub speaks_first: RefCell<HashMap<Arc<str>, Instant>>,
    /// The application's ports that requests have arrived for.
    local: RefCell<HashMap<SocketAddr, Arc<Cluster>>>,
}

/// A snapshot as one worker holds it.
#[derive(Debug)]
pub struct Seen(Arc<Snapshot>);

impl std::ops::Deref for Seen {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// Runs futures on the worker's own thread: they need not be `Send`.
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        // As it is: one that waits for it would have room for it twice.
        drop(tokio::task::spawn_local(future));
    }
}

impl Worker {
    /// A worker's state, with an empty pool.
    #[must_use]
    pub fn new(shared: Shared) -> Rc<Self> {
        let Shared {
            settings,
            config,
            identity,
            drain,
            metrics,
            access_log,
        } = shared;
        let upstream = Upstream::new(identity.clone(), config.origins(), settings.socket_mark);
        let seen = RefCell::new((config.reader(), Rc::new(Seen(config.load()))));
        Rc::new(Self {
            settings,
            config,
            seen,
            identity,
            drain,
            recorder: Arc::new(Recorder::new(metrics, access_log)),
            upstream,
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            hosts: Hosts::default(),
            speaks_first: RefCell::default(),
            local: RefCell::default(),
        })
    }

    /// The current snapshot. Whoever holds it is counted by this thread alone: a count that all workers share would be
    /// the one thing that every request of each changes.
    #[must_use]
    pub fn snapshot(&self) -> Rc<Seen> {
        let (reader, seen) = &mut *self.seen.borrow_mut();
        let newest = reader.load();
        if !Arc::ptr_eq(newest, &seen.0) {
            *seen = Rc::new(Seen(Arc::clone(newest)));
        }
        Rc::clone(seen)
    }

    /// Tells of what a pick found.
    pub fn picked(&self, cluster: &Cluster, pick: &Pick) {
        let address = pick.endpoint.spec.address;
        if pick.half_opened {
            self.recorder.metrics().breaker.half_open.inc();
            tracing::info!(cluster = %cluster.name, endpoint = %address, "circuit breaker half-open: a probe is let through");
        }
        if pick.returned {
            tracing::info!(cluster = %cluster.name, endpoint = %address, "the ejected endpoint returns");
        }
    }

    /// Tells of what a result changed.
    pub fn settled(&self, cluster: &Cluster, endpoint: &Endpoint, settled: Settled) {
        let Settled { breaker, outlier } = settled;
        let address = endpoint.spec.address;
        if let Some(change) = breaker {
            self.recorder.metrics().breaker.count(change);
            tracing::info!(cluster = %cluster.name, endpoint = %address, "{change}");
        }
        if let Some(event) = outlier {
            if let outlier::Event::Ejected { .. } = event {
                cluster.live.metrics.ejections.inc();
            }
            tracing::info!(cluster = %cluster.name, endpoint = %address, "{event}");
        }
    }

    /// The application's port, as a cluster of one endpoint.
    #[must_use]
    pub fn local(&self, address: SocketAddr) -> Arc<Cluster> {
        let mut local = self.local.borrow_mut();
        if let Some(cluster) = local.get(&address) {
            return Arc::clone(cluster);
        }
        // Peers choose the ports they dial: what is remembered of them stays bounded.
        if local.len() >= MAX_LOCAL {
            local.clear();
        }
        let cluster = inbound::local::cluster(address);
        if self.drain.phase() >= Phase::Closing {
            retire(&cluster);
        }
        local.insert(address, Arc::clone(&cluster));
        cluster
    }

    /// Keeps no connection to the application open for later. One that shuts down may wait until nobody is connected, as
    /// this proxy waits for it.
    pub fn release_application(&self) {
        self.local.borrow().values().for_each(|cluster| retire(cluster));
        self.upstream.sweep();
    }
}

fn retire(cluster: &Cluster) {
    for endpoint in &cluster.endpoints {
        endpoint.live.retired.store(true, Ordering::Release);
    }
}

/// Starts a worker. Its listeners are bound before this returns, so that a taken port stops the start.
///
/// # Errors
/// When a port cannot be bound or the thread cannot be started.
pub fn start(number: usize, shared: Shared) -> anyhow::Result<std::thread::JoinHandle<()>> {
    use anyhow::Context as _;
    let (bound, result) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || run(shared, &bound))
        .context("starting a worker thread")?;
    result
        .recv()
        .context("a worker ended before it had bound its ports")??;
    Ok(thread)
}

fn run(shared: Shared, bound: &std::sync::mpsc::SyncSender<anyhow::Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = bound.send(Err(error.into()));
            return;
        }
    };
    runtime.block_on(async move {
        let listeners = bind(&shared.settings);
        match listeners {
            Ok((outbound, inbound)) => {
                let _ = bound.send(Ok(()));
                serve(Worker::new(shared), outbound, inbound).await;
            }
            Err(error) => {
                let _ = bound.send(Err(error));
            }
        }
    });
}

fn bind(settings: &Settings) -> anyhow::Result<(Listener, Listener)> {
    use anyhow::Context as _;
    let listener = |port| Listener::bind(port).with_context(|| format!("listening on port {port}"));
    Ok((
        listener(settings.outbound_port)?,
        listener(settings.inbound_port)?,
    ))
}

async fn serve(worker: Rc<Worker>, outbound: Listener, inbound: Listener) {
    let sweeper = tokio::task::spawn_local({
        let worker = Rc::clone(&worker);
        async move {
            let mut tick = tokio::time::interval(SWEEP);
            loop {
                tick.tick().await;
                worker.upstream.sweep();
                // One that has nothing to do must not keep alive what the others have left.
                let _newest = worker.snapshot();
            }
        }
    });
    let closing = worker.drain.closing();
    tokio::pin!(closing);
    loop {
        tokio::select! {
            () = &mut closing => break,
            accepted = outbound.accept() => take(&worker, Direction::Outbound, accepted, outbound::serve).await,
            accepted = inbound.accept() => take(&worker, Direction::Inbound, accepted, inbound::serve).await,
        }
    }
    // The sockets close here: what arrives from now on is refused by the kernel. The application may still call others.
    drop(inbound);
    worker.release_application();
    let over = worker.drain.over();
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => break,
            accepted = outbound.accept() => take(&worker, Direction::Outbound, accepted, outbound::serve).await,
        }
    }
    sweeper.abort();
}

async fn take<F: Future<Output = ()> + 'static>(
    worker: &Rc<Worker>,
    direction: Direction,
    accepted: std::io::Result<Accepted>,
    serve: impl FnOnce(Rc<Worker>, Accepted) -> F,
) {
    match accepted {
        Ok(accepted) => {
            let metrics = Arc::clone(worker.recorder.metrics());
            metrics.connections.of(direction).accepted.inc();
            let Some(open) = worker.drain.open(worker.settings.max_connections) else {
                tracing::warn!(
                    limit = worker.settings.max_connections,
                    "connection refused: HAUBERK_MAX_CONNECTIONS are open"
                );
                metrics.connections.of(direction).refused.inc();
                return;
            };
            metrics.connections.of(direction).active.inc();
            let connection = serve(Rc::clone(worker), accepted);
            tokio::task::spawn_local(async move {
                connection.await;
                metrics.connections.of(direction).active.dec();
                drop(open);
            });
        }
        Err(error) => {
            tracing::warn!(%error, "accepting failed; going on");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

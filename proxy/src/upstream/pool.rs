//! One worker's connections to endpoints. HTTP/1.1 connections carry one request at a time and wait here between two;
//! HTTP/2 connections stay here and are shared. The key is the endpoint's live state, which survives configuration
//! pushes: a push closes nothing.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU32;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::Wire;
use super::body::RequestBody;
use super::queue::{Leaving, Watch};
use super::way::Outside;
use crate::config::snapshot::{Cluster, Endpoint};
use crate::error::Error;
use crate::live::{ClusterLive, EndpointLive};

/// Streams that one HTTP/2 connection carries before another is opened, unless `maxConcurrentStreams` says: the least that
/// servers should allow (RFC 9113, 6.5.2), and what our own inbound side allows.
const STREAMS_OF_APPLICATIONS: u32 = 100;
const STREAMS_OF_PROXIES: u32 = 1000;

/// How long a connection waits that only one client may use: that client may be gone.
const IDLE_OF_ONE: Duration = Duration::from_secs(5);

/// One worker's connections.
#[derive(Debug, Default)]
pub struct Pool {
    lanes: RefCell<HashMap<Key, Rc<Lane>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    endpoint: u64,
    wire: Wire,
}

/// The connections to one endpoint that carry requests in one way.
#[derive(Debug)]
pub(super) struct Lane {
    wire: Wire,
    endpoint: Arc<EndpointLive>,
    pub(super) cluster: Arc<ClusterLive>,
    /// As the newest request's cluster has them: they hold for connections that are open already, too.
    bounds: Cell<Bounds>,
    pub(super) idle: RefCell<Vec<Http1>>,
    pub(super) shared: RefCell<Vec<Http2>>,
    /// One connection is being opened for everyone who waits.
    opening: Cell<bool>,
    opened: Notify,
    /// Number of the latest opening, and how it failed if it did: who waited for it fails with it, not one by one.
    openings: Cell<u64>,
    failure: RefCell<Option<(u64, Error)>>,
    /// Requests that wait for a connection here, see `queue`, the first in front; and how many there are, for some of
    /// these have given up.
    pub(super) waiters: RefCell<VecDeque<oneshot::Sender<Lease>>>,
    pub(super) waiting: Cell<u32>,
    pub(super) watch: RefCell<Option<Watch>>,
}

/// How long and how often a connection may be used.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    max_age: Option<Duration>,
    max_idle: Option<Duration>,
    max_uses: u32,
    /// Streams at once, of HTTP/2.
    max_streams: u32,
    /// The cluster may have no more than so many connections: some may be waited for.
    is_bounded: bool,
}

/// How long and how often a connection has been used.
#[derive(Debug)]
pub(super) struct History {
    pub(super) opened: Instant,
    pub(super) uses: Cell<u32>,
    last_use: Cell<Instant>,
}

impl Bounds {
    fn of(cluster: &Cluster, wire: Wire) -> Self {
        let limits = &cluster.spec.limits;
        let by_itself = || match wire.mesh() {
            Some(_) => STREAMS_OF_PROXIES,
            None => STREAMS_OF_APPLICATIONS,
        };
        Self {
            max_age: cluster.spec.timeouts.max_connection,
            max_idle: match (cluster.spec.timeouts.http_idle, cluster.spec.proxy_protocol) {
                (idle, None) => idle,
                (idle, Some(_)) => Some(idle.map_or(IDLE_OF_ONE, |idle| idle.min(IDLE_OF_ONE))),
            },
            max_uses: limits
                .max_requests_per_connection
                .map_or(u32::MAX, NonZeroU32::get),
            max_streams: limits
                .max_concurrent_streams
                .map_or_else(by_itself, NonZeroU32::get),
            is_bounded: limits.max_connections.is_some(),
        }
    }
}

impl History {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            opened: now,
            uses: Cell::new(0),
            last_use: Cell::new(now),
        }
    }

    fn is_spent(&self, bounds: Bounds, now: Instant) -> bool {
        self.uses.get() >= bounds.max_uses || bounds.max_age.is_some_and(|max| now - self.opened >= max)
    }

    fn is_stale(&self, bounds: Bounds, now: Instant) -> bool {
        self.is_spent(bounds, now)
            || bounds
                .max_idle
                .is_some_and(|max| now - self.last_use.get() >= max)
    }
}

#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) history: Rc<History>,
    /// As the server announced in `Keep-Alive`, less a margin for the way there.
    pub(super) announced: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    pub(super) load: Rc<Load>,
}

/// What a shared connection carries, and has carried.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) history: History,
    pub(super) active: Cell<u32>,
    /// A request of its lane waits for the end of a stream.
    pub(super) is_waited_for: Cell<bool>,
    pub(super) leaving: RefCell<Option<Leaving>>,
    lane: Weak<Lane>,
}

/// What a lane has for a request.
pub(super) enum Found {
    /// A connection.
    Lease(Lease),
    /// Nothing: open one, and tell the lane.
    Open,
    /// Nothing, but one is being opened.
    Wait,
}

/// The right to send one request on a connection. Given back when the response has ended; dropped before, an HTTP/1.1
/// connection closes, and an HTTP/2 stream is reset.
#[derive(Debug)]
pub struct Lease {
    pub(super) sender: Sender,
    lane: Rc<Lane>,
    /// Not its connection's first request: the server may just be closing it.
    pub reused: bool,
}

#[derive(Debug)]
pub(super) enum Sender {
    Http1 {
        sender: http1::SendRequest<RequestBody>,
        history: Rc<History>,
    },
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        active: ActiveStream,
    },
}

/// Counts one stream of a shared connection.
#[derive(Debug)]
pub(super) struct ActiveStream(Rc<Load>);

impl Drop for ActiveStream {
    fn drop(&mut self) {
        let load = &self.0;
        load.active.set(load.active.get() - 1);
        load.history.last_use.set(Instant::now());
        if load.is_waited_for.get()
            && let Some(lane) = load.lane.upgrade()
        {
            lane.stream_ended(load);
        }
    }
}

impl Pool {
    /// The lane to an endpoint of `cluster`, whose bounds hold from now on.
    pub(super) fn lane(&self, cluster: &Cluster, endpoint: &Endpoint, wire: Wire) -> Rc<Lane> {
        let bounds = Bounds::of(cluster, wire);
        let key = Key {
            endpoint: endpoint.live.id,
            wire,
        };
        if let Some(lane) = self.lanes.borrow().get(&key) {
            lane.bounds.set(bounds);
            return Rc::clone(lane);
        }
        let lane = Rc::new(Lane {
            wire,
            endpoint: Arc::clone(&endpoint.live),
            cluster: Arc::clone(&cluster.live),
            bounds: Cell::new(bounds),
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Cell::new(false),
            opened: Notify::new(),
            openings: Cell::new(0),
            failure: RefCell::new(None),
            waiters: RefCell::default(),
            waiting: Cell::new(0),
            watch: RefCell::default(),
        });
        self.lanes.borrow_mut().insert(key, Rc::clone(&lane));
        lane
    }

    /// The ways outside the mesh that connections have taken.
    pub(super) fn ways(&self) -> HashSet<Outside> {
        let way = |key: &Key| match key.wire {
            Wire::Outside(outside) => Some(outside),
            Wire::Http1 | Wire::Http2 | Wire::Mesh(_) => None,
        };
        self.lanes.borrow().keys().filter_map(way).collect()
    }

    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.lanes.borrow_mut().retain(|_, lane| {
            lane.sweep(now);
            // Others hold the lane while a request is under way or a connection is being opened.
            Rc::strong_count(lane) > 1 || lane.has_connections()
        });
    }
}

impl Lane {
    pub(super) fn wire(&self) -> Wire {
        self.wire
    }

    pub(super) fn find(self: &Rc<Self>) -> Found {
        if self.wire.is_http2() {
            self.find_shared()
        } else {
            self.find_idle()
        }
    }

    fn find_idle(self: &Rc<Self>) -> Found {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let connection = &idle[at];
            let quiet = now - connection.history.last_use.get();
            let expired = connection.announced.is_some_and(|limit| quiet >= limit);
            if connection.sender.is_closed() || expired || connection.history.is_stale(self.bounds.get(), now)
            {
                idle.swap_remove(at);
            } else if connection.sender.is_ready() {
                let Http1 {
                    sender,
                    history,
                    announced: _,
                } = idle.swap_remove(at);
                return Found::Lease(self.lease_http1(sender, history, true));
            }
            // Not ready: its last response has ended, but its task has not seen that yet.
        }
        Found::Open
    }

    fn find_shared(self: &Rc<Self>) -> Found {
        if let Some(lease) = self.lease_shared(|_| true) {
            return Found::Lease(lease);
        }
        if self.opening.get() {
            Found::Wait
        } else {
            Found::Open
        }
    }

    /// A stream on a shared connection that takes one more.
    pub(super) fn lease_shared(self: &Rc<Self>, fits: impl Fn(&Http2) -> bool) -> Option<Lease> {
        let now = Instant::now();
        let mut shared = self.shared.borrow_mut();
        let bounds = self.bounds.get();
        shared.retain(|c| !c.sender.is_closed() && !c.load.history.is_spent(bounds, now));
        let found = shared
            .iter()
            .find(|c| c.load.active.get() < bounds.max_streams && fits(c));
        found.map(|connection| self.lease_http2(connection, true))
    }

    pub(super) fn has_connections(&self) -> bool {
        !self.idle.borrow().is_empty() || !self.shared.borrow().is_empty()
    }

    pub(super) fn lease_http1(
        self: &Rc<Self>,
        sender: http1::SendRequest<RequestBody>,
        history: Rc<History>,
        reused: bool,
    ) -> Lease {
        history.uses.set(history.uses.get() + 1);
        Lease {
            sender: Sender::Http1 { sender, history },
            lane: Rc::clone(self),
            reused,
        }
    }

    fn lease_http2(self: &Rc<Self>, connection: &Http2, reused: bool) -> Lease {
        let load = &connection.load;
        load.history.uses.set(load.history.uses.get() + 1);
        load.active.set(load.active.get() + 1);
        let sender = Sender::Http2 {
            sender: connection.sender.clone(),
            active: ActiveStream(Rc::clone(load)),
        };
        Lease {
            sender,
            lane: Rc::clone(self),
            reused,
        }
    }

    pub(super) fn add_http1(self: &Rc<Self>, sender: http1::SendRequest<RequestBody>) -> Lease {
        self.lease_http1(sender, Rc::new(History::new()), false)
    }

    pub(super) fn add_http2(self: &Rc<Self>, sender: http2::SendRequest<RequestBody>) -> Lease {
        let connection = Http2 {
            sender,
            load: Rc::new(Load {
                history: History::new(),
                active: Cell::new(0),
                is_waited_for: Cell::new(false),
                leaving: RefCell::default(),
                lane: Rc::downgrade(self),
            }),
        };
        let lease = self.lease_http2(&connection, false);
        self.shared.borrow_mut().push(connection);
        if self.bounds.get().is_bounded {
            self.watch();
        }
        lease
    }

    /// Marks that one connection is being opened; the mark goes, and waiters look again, when the guard is dropped.
    pub(super) fn opening(self: &Rc<Self>) -> Opening {
        self.opening.set(true);
        self.openings.set(self.openings.get() + 1);
        Opening {
            lane: Rc::clone(self),
            to_one: Cell::new(false),
        }
    }

    /// Whoever waited, and needs to no longer, lets the next look.
    pub(super) fn wake_next(&self) {
        self.opened.notify_one();
    }

    /// Waits until the connection that is being opened is there.
    ///
    /// # Errors
    /// When it failed.
    pub(super) async fn wait(&self) -> Result<(), Error> {
        let number = self.openings.get();
        self.opened.notified().await;
        match &*self.failure.borrow() {
            // Of several openings it may have heard of the last only.
            Some((failed, error)) if *failed >= number => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn sweep(&self, now: Instant) {
        let retired = self.endpoint.retired.load(Ordering::Relaxed);
        let bounds = self.bounds.get();
        self.idle.borrow_mut().retain(|c| {
            let quiet = now - c.history.last_use.get();
            let expired = c.announced.is_some_and(|limit| quiet >= limit);
            !(retired || c.sender.is_closed() || expired || c.history.is_stale(bounds, now))
        });
        self.shared.borrow_mut().retain(|c| {
            let unused = c.load.active.get() == 0;
            !(c.sender.is_closed() || unused && (retired || c.load.history.is_stale(bounds, now)))
        });
    }
}

/// See [`Lane::opening`].
#[derive(Debug)]
pub(super) struct Opening {
    lane: Rc<Lane>,
    /// There is nothing new to share: one who waits is to open one instead.
    pub(super) to_one: Cell<bool>,
}

impl Opening {
    pub(super) fn failed(&self, error: Error) {
        *self.lane.failure.borrow_mut() = Some((self.lane.openings.get(), error));
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.lane.opening.set(false);
        if self.to_one.get() {
            self.lane.wake_next();
        } else {
            self.lane.opened.notify_waiters();
        }
    }
}

impl Lease {
    /// How its connection carries requests, which may be less than was asked for.
    pub fn wire(&self) -> Wire {
        self.lane.wire
    }

    /// The response has ended well: the connection may carry another request. `announced` is the idle time of the
    /// server's `Keep-Alive` header.
    pub fn give_back(self, announced: Option<Duration>) {
        let Self {
            sender,
            lane,
            reused: _,
        } = self;
        match sender {
            Sender::Http1 { sender, history } => {
                let now = Instant::now();
                let retired = lane.endpoint.retired.load(Ordering::Relaxed);
                let bounds = lane.bounds.get();
                if retired || sender.is_closed() || history.is_spent(bounds, now) {
                    return;
                }
                history.last_use.set(now);
                // Some may wait yet for a bound that was lifted.
                if (bounds.is_bounded || lane.waiting.get() > 0) && lane.cluster.queue.len() > 0 {
                    return lane.pass_on(sender, history, now);
                }
                // A second less than announced: what is sent at the last moment arrives too late.
                let announced = announced.map(|limit| limit.saturating_sub(Duration::from_secs(1)));
                lane.idle.borrow_mut().push(Http1 {
                    sender,
                    history,
                    announced,
                });
                if bounds.is_bounded {
                    lane.watch();
                }
            }
            Sender::Http2 { sender: _, active } => drop(active),
        }
    }
}

#[cfg(test)]
mod tests;

//! Requests that wait because their cluster has as many connections as it may (`maxConnections`). `send` comes here when
//! it would open one more; a connection that comes back goes to the first who waits for its lane, and one that closes
//! leaves its place to whoever has waited longest, in whichever worker. How many may wait is for `limits` to say, how long
//! for the caller, who drops what it waits for.
//!
//! Connections are one worker's and one endpoint's, the bound is for all of them together. So that nobody waits while
//! connections are of no use elsewhere, whoever begins to wait says so, and a lane that keeps some gives one up: an unused
//! one at once, one with requests on it when these have ended. While others wait elsewhere, a connection in use stays
//! where it is for a [`TURN`] at least: connecting anew for each request would be worse for all.
//!
//! A cluster without the bound has no part in this.

use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::body::RequestBody;
use super::pool::{History, Http1, Lane, Lease, Load, Sender};
use crate::config::snapshot::Cluster;
use crate::limits::{self, Bound, Permit};
use crate::live::ClusterLive;

/// How long a connection in use stays with its lane while others wait elsewhere.
const TURN: Duration = Duration::from_millis(100);

/// How long a connection that came back has to become ready before the request waits in line, too.
const MOMENT: Duration = Duration::from_millis(5);

/// How long other lanes have to give up an unused connection before one in use is.
const GLANCE: Duration = Duration::from_millis(10);

/// Who waits for a connection of one cluster, over all workers. Only who waits, and who then has something to tell them,
/// touches more than the count.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: AtomicU32,
    /// The bound as the newest of them knows it: it may change while others wait.
    max: AtomicU32,
    /// Connections that were given up while in use, and still are.
    leaving: AtomicU32,
    /// A place is free: wakes the one that has waited longest.
    freed: Notify,
    /// Somebody waits: wakes a lane that may have a connection to give up.
    wanted: Notify,
}

/// What a request that would open a connection gets.
pub(super) enum Place {
    /// It may open one.
    Free(Permit),
    /// One that came back meanwhile.
    Connection(Lease),
}

impl Queue {
    /// A connection has closed.
    pub(crate) fn place_freed(&self) {
        // Who begins to wait counts first and looks for a place then: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.len() > 0 {
            self.freed.notify_one();
        }
    }

    fn bound_by(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(crate) fn len(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl Lane {
    /// A place for one more connection of the lane's cluster, or a connection that is free before there is one. `queued`
    /// is set while it waits.
    pub(super) async fn place(self: &Rc<Self>, cluster: &Cluster, queued: &std::cell::Cell<bool>) -> Place {
        let max = cluster.spec.limits.max_connections;
        let max = max.map_or(u32::MAX, std::num::NonZero::get);
        let live = &cluster.live;
        let waiting = live.queue.len() > 0;
        // Nobody goes before those who wait already, but where there is no bound (any more).
        if (!waiting || max == u32::MAX)
            && let Some(permit) = limits::acquire_below(live, Bound::Connections, max)
        {
            if waiting {
                live.queue.bound_by(max);
                live.queue.freed.notify_one();
            }
            return Place::Free(permit);
        }
        queued.set(true);
        live.queue.bound_by(max);
        let place = self.wait_for_place(live).await;
        queued.set(false);
        place
    }

    async fn wait_for_place(self: &Rc<Self>, live: &Arc<ClusterLive>) -> Place {
        let mut unready = Unready::of(self);
        if let Ok(Some(lease)) = tokio::time::timeout(MOMENT, unready.next()).await {
            return Place::Connection(lease);
        }
        let max = || live.queue.max.load(Ordering::Relaxed);
        let has_room = || live.connections.load(Ordering::Relaxed) < max();
        let mut turn = Turn::begin(self, live);
        // Where a place has become free before this one waited, or the bound was raised, nobody else would say so.
        if has_room() {
            live.queue.freed.notify_one();
        }
        live.queue.wanted.notify_one();
        loop {
            tokio::select! {
                biased;
                given = &mut turn.receiver => {
                    if let Ok(lease) = given && let Some(lease) = unready.unless_usable(lease) {
                        return Place::Connection(lease);
                    }
                    turn.again();
                }
                Some(lease) = unready.next() => return Place::Connection(lease),
                () = live.queue.freed.notified() => {
                    if let Some(permit) = limits::acquire_below(live, Bound::Connections, max()) {
                        if has_room() && live.queue.len() > 1 {
                            live.queue.freed.notify_one();
                        }
                        return Place::Free(permit);
                    }
                }
            }
        }
    }

    /// A connection of HTTP/1.1 that came back while somebody waits: it goes to the first here, or closes for those
    /// elsewhere.
    pub(super) fn pass_on(
        self: &Rc<Self>,
        sender: http1::SendRequest<RequestBody>,
        history: Rc<History>,
        now: Instant,
    ) {
        let elsewhere = self.cluster.queue.len() > self.waiting.get();
        if elsewhere && now - history.opened >= TURN {
            return;
        }
        let mut lease = self.lease_http1(sender, history, true);
        while let Some(waiter) = self.next_waiter() {
            match waiter.send(lease) {
                Ok(()) => return,
                Err(back) => lease = back,
            }
        }
    }

    /// A stream of a connection has ended, and somebody here waited for that.
    pub(super) fn stream_ended(self: &Rc<Self>, load: &Rc<Load>) {
        if self.waiting.get() == 0 {
            return load.is_waited_for.set(false);
        }
        // Not counted, but looked for: one that was given a connection may not have gone yet.
        let Some(waiter) = self.next_waiter() else {
            return;
        };
        match self.lease_shared(|c| Rc::ptr_eq(&c.load, load)) {
            // Where it comes too late, the stream ends once more, and the next has it.
            Some(lease) => drop(waiter.send(lease)),
            None => self.waiters.borrow_mut().push_front(waiter),
        }
    }

    fn next_waiter(&self) -> Option<oneshot::Sender<Lease>> {
        let mut waiters = self.waiters.borrow_mut();
        while let Some(waiter) = waiters.pop_front() {
            if !waiter.is_closed() {
                return Some(waiter);
            }
        }
        None
    }

    /// Sees to it that the lane gives up a connection when somebody waits elsewhere.
    pub(super) fn watch(self: &Rc<Self>) {
        let mut watch = self.watch.borrow_mut();
        // The last to wait may leave when the worker's tasks are dropped, with nothing left to run another.
        if watch.is_none() && tokio::runtime::Handle::try_current().is_ok() {
            let watching = give_up_when_wanted(Rc::downgrade(self), Arc::clone(&self.cluster));
            *watch = Some(Watch(tokio::task::spawn_local(watching).abort_handle()));
        }
    }

    /// Gives up the connection that is used least; one in use only when others have been `asked`.
    fn give_up_one(&self, now: Instant, asked: bool) -> GivenUp {
        if self.idle.borrow_mut().pop().is_some() {
            return GivenUp::One;
        }
        let mut shared = self.shared.borrow_mut();
        let Some(least) = (0..shared.len()).min_by_key(|i| shared[*i].load.active.get()) else {
            return GivenUp::Nothing;
        };
        let load = &shared[least].load;
        if load.active.get() > 0 {
            let end = load.history.opened + TURN;
            if !asked || now < end {
                return GivenUp::Later(end.max(now + GLANCE));
            }
            let queue = &self.cluster.queue;
            if queue.len() <= queue.leaving.load(Ordering::Relaxed) {
                return GivenUp::Later(now + TURN);
            }
            load.leaving.replace(Some(Leaving::begin(&self.cluster)));
        }
        shared.remove(least);
        GivenUp::One
    }
}

/// Connections that came back and take no request yet: their tasks have not seen the end of the last response, or its
/// request is still on the way, for the server answered before it had read all.
struct Unready<'a> {
    lane: &'a Rc<Lane>,
    connections: Vec<Http1>,
}

impl<'a> Unready<'a> {
    /// All that the lane has.
    fn of(lane: &'a Rc<Lane>) -> Self {
        let connections = lane.idle.take();
        Self { lane, connections }
    }

    /// Gives back what was handed over if it takes a request now, and keeps it if it may later.
    fn unless_usable(&mut self, lease: Lease) -> Option<Lease> {
        match lease.sender {
            Sender::Http1 { sender, history } => {
                history.uses.set(history.uses.get() - 1);
                self.connections.push(Http1 {
                    sender,
                    history,
                    announced: None,
                });
                None
            }
            Sender::Http2 { ref sender, .. } => {
                let is_closed = sender.is_closed();
                (!is_closed).then_some(lease)
            }
        }
    }

    /// The first that is ready; `None` when there is none left.
    async fn next(&mut self) -> Option<Lease> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Lease>> {
        let mut at = 0;
        while let Some(connection) = self.connections.get_mut(at) {
            let Poll::Ready(ready) = connection.sender.poll_ready(cx) else {
                at += 1;
                continue;
            };
            let Http1 { sender, history, .. } = self.connections.swap_remove(at);
            if ready.is_ok() {
                return Poll::Ready(Some(self.lane.lease_http1(sender, history, true)));
            }
        }
        if self.connections.is_empty() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Unready<'_> {
    fn drop(&mut self) {
        let lane = self.lane;
        for connection in self.connections.drain(..) {
            if lane.waiting.get() > 0 {
                lane.pass_on(connection.sender, connection.history, Instant::now());
            } else {
                lane.idle.borrow_mut().push(connection);
                lane.watch();
            }
        }
    }
}

/// A connection that was given up in use: counts until its requests have ended.
#[derive(Debug)]
pub(super) struct Leaving(Arc<ClusterLive>);

impl Leaving {
    fn begin(cluster: &Arc<ClusterLive>) -> Self {
        cluster.queue.leaving.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(cluster))
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.queue.leaving.fetch_sub(1, Ordering::Relaxed);
    }
}

enum GivenUp {
    One,
    /// All are in use: none for long enough, others may have one that is not, or enough are leaving.
    Later(Instant),
    Nothing,
}

async fn give_up_when_wanted(lane: Weak<Lane>, cluster: Arc<ClusterLive>) {
    let queue = &cluster.queue;
    let mut asked = false;
    loop {
        // Who began to wait before this lane had a connection told others, or nobody.
        if queue.len() == 0 {
            queue.wanted.notified().await;
            asked = false;
        }
        let Some(lane) = lane.upgrade() else { return };
        if queue.len() == 0 {
            continue;
        }
        match lane.give_up_one(Instant::now(), asked) {
            GivenUp::One => {
                drop(lane);
                asked = false;
                // Its word was for this one. Another may have been lost, for no more than one is kept: who waits for
                // longer has not been heard.
                let _ = tokio::time::timeout(TURN, queue.wanted.notified()).await;
            }
            GivenUp::Later(at) => {
                drop(lane);
                // Perhaps another lane has one that nobody uses.
                queue.wanted.notify_one();
                asked = true;
                tokio::time::sleep_until(at).await;
            }
            GivenUp::Nothing => {
                // Perhaps another lane has one.
                queue.wanted.notify_one();
                lane.watch.borrow_mut().take();
                return;
            }
        }
    }
}

/// Ends with the lane, or when a request of the lane itself waits.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A place in the queue.
struct Turn<'a> {
    lane: &'a Rc<Lane>,
    live: &'a ClusterLive,
    receiver: oneshot::Receiver<Lease>,
}

impl<'a> Turn<'a> {
    fn begin(lane: &'a Rc<Lane>, live: &'a ClusterLive) -> Self {
        let (waiter, receiver) = oneshot::channel();
        lane.waiters.borrow_mut().push_back(waiter);
        lane.waiting.set(lane.waiting.get() + 1);
        for connection in &*lane.shared.borrow() {
            connection.load.is_waited_for.set(true);
        }
        // What this lane has is in use by those before: others are to give up theirs.
        lane.watch.borrow_mut().take();
        live.queue.waiting.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Self { lane, live, receiver }
    }

    /// What it was given was of no use: it is still the first.
    fn again(&mut self) {
        let (waiter, receiver) = oneshot::channel();
        self.lane.waiters.borrow_mut().push_front(waiter);
        self.receiver = receiver;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let lane = self.lane;
        self.live.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        let waiting = lane.waiting.get() - 1;
        lane.waiting.set(waiting);
        self.receiver.close();
        // Those who gave up stay in line until it is worth the walk.
        let mut waiters = lane.waiters.borrow_mut();
        if waiters.len() > 2 * waiting as usize + 16 {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        drop(waiters);
        if waiting == 0 && lane.has_connections() {
            lane.watch();
        }
    }
}

#[cfg(test)]
mod tests;

//! Many calls, and what became of each: status, answering version, time, connection.
//!
//! Run inside a pod by [`Lab::load`](crate::lab::Lab::load), or by `hauberk-testapp load`. It repeats nothing: a call
//! that fails is recorded as failed, so a test sees every error that a user would have seen.

mod histogram;
mod record;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use histogram::Histogram;
pub use record::{Failure, Latency, Outcome, Report, Sample, Summary, Window};

use crate::client::{Call, CallError, Reply, Session};

/// The pause of a task whose connection was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// What to send, how often, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    call: Call,
    connections: usize,
    per_second: Option<f64>,
    requests: Option<u64>,
    duration: Option<Duration>,
    reuse: bool,
    window: Duration,
}

/// A load that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    started: Instant,
    record: Arc<Mutex<Report>>,
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

/// What the tasks of one load share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    address: SocketAddr,
    started: Instant,
    next: AtomicU64,
    record: Arc<Mutex<Report>>,
}

impl Plan {
    /// Calls like this one, over one connection, one after another, until stopped.
    pub fn new(call: Call) -> Plan {
        Plan {
            call,
            connections: 1,
            per_second: None,
            requests: None,
            duration: None,
            reuse: true,
            window: Duration::from_millis(100),
        }
    }

    /// GETs of `url`.
    pub fn get(url: &str) -> Plan {
        Plan::new(Call::get(url))
    }

    /// Uses this many connections at once.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Plan {
        self.connections = connections.max(1);
        self
    }

    /// Starts this many calls a second. A call that starts late counts its lateness as waiting time.
    #[must_use]
    pub fn rate(mut self, per_second: f64) -> Plan {
        self.per_second = Some(per_second.max(0.001));
        self
    }

    /// Ends after this many calls.
    #[must_use]
    pub fn requests(mut self, requests: u64) -> Plan {
        self.requests = Some(requests);
        self
    }

    /// Ends after this time.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Plan {
        self.duration = Some(duration);
        self
    }

    /// Opens a connection for every call.
    #[must_use]
    pub fn fresh_connections(mut self) -> Plan {
        self.reuse = false;
        self
    }

    /// Sums calls up over this long in [`Report::windows`].
    #[must_use]
    pub fn window(mut self, window: Duration) -> Plan {
        self.window = window.max(Duration::from_millis(1));
        self
    }

    /// Host and port of the URL.
    pub fn authority(&self) -> Result<String, CallError> {
        self.call.authority()
    }
}

impl Load {
    /// Starts `plan` against `address` on the current runtime, from its network namespace.
    pub fn start(plan: Plan, address: SocketAddr) -> Load {
        let started = Instant::now();
        let record = Arc::new(Mutex::new(Report::new(plan.window)));
        let (stop, stopped) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        let connections = plan.connections;
        let shared = Arc::new(Shared {
            plan,
            address,
            started,
            next: AtomicU64::new(0),
            record: Arc::clone(&record),
        });
        tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            for number in 0..connections {
                tasks.spawn(call_on(Arc::clone(&shared), number, stopped.clone()));
            }
            while tasks.join_next().await.is_some() {}
            lock(&shared.record).end(shared.started.elapsed());
            finished.send_replace(true);
        });
        Load {
            started,
            record,
            stop,
            done,
        }
    }

    /// When it started: times in its report count from here.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The time on the load's own clock, to compare with times in its report.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Everything recorded until now.
    pub fn so_far(&self) -> Report {
        lock(&self.record).clone()
    }

    /// Whether all planned calls are made.
    pub fn ended(&self) -> bool {
        *self.done.borrow()
    }

    /// Waits for the planned end.
    pub async fn finish(mut self) -> Report {
        // An error means that the runtime that carried it is gone; what was recorded still stands.
        let _ended_either_way = self.done.wait_for(|done| *done).await.is_ok();
        self.so_far()
    }

    /// Ends it now, letting calls under way finish.
    pub async fn stop(self) -> Report {
        self.stopping().await
    }

    /// Tells it to end, and returns what waits for the end of the calls under way.
    pub fn stopping(&self) -> impl Future<Output = Report> + use<> {
        self.stop.send_replace(true);
        let (mut done, record) = (self.done.clone(), Arc::clone(&self.record));
        async move {
            let _ended_either_way = done.wait_for(|done| *done).await.is_ok();
            lock(&record).clone()
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// One of the connections: takes the next call's turn, waits for its time, makes it, records it.
async fn call_on(shared: Arc<Shared>, number: usize, mut stopped: watch::Receiver<bool>) {
    let mut session: Option<Session> = None;
    let mut connection = 0;
    while let Some(due) = shared.next_turn() {
        let late = Instant::now() > due;
        let stop = async {
            // The handle's end is a stop too.
            let _stopped_or_dropped = stopped.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            biased;
            () = stop => break,
            () = tokio::time::sleep_until(due) => {}
        }
        // A call whose turn came too late, since all connections were busy, has waited since it was due. One that
        // was waited for starts when the timer fires, whose slack is not the server's.
        let from = if late && shared.plan.per_second.is_some() {
            due
        } else {
            Instant::now()
        };
        if session.as_ref().is_some_and(Session::closed) {
            session = None;
            lock(&shared.record).closed();
        }
        if session.is_none() {
            match open(&shared).await {
                Ok(opened) => {
                    connection = lock(&shared.record).opened();
                    session = Some(opened);
                }
                Err(error) => {
                    shared.record(from, number, 0, Err(error));
                    // A refused connection costs nothing: without a rate this would become a busy loop.
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    continue;
                }
            }
        }
        let current = session.as_mut().expect("opened above");
        let reply = current.send(&shared.plan.call).await;
        let broken = reply.is_err();
        shared.record(from, number, connection, reply);
        if broken || !shared.plan.reuse {
            session = None;
            lock(&shared.record).closed();
        }
    }
    if session.is_some() {
        lock(&shared.record).closed();
    }
}

async fn open(shared: &Shared) -> Result<Session, CallError> {
    let address = shared.address;
    let patience = shared.plan.call.time_allowed();
    let connect = async {
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .map_err(|error| CallError::Connect { address, error })?;
        Session::open(stream, shared.plan.call.protocol()).await
    };
    tokio::time::timeout(patience, connect)
        .await
        .unwrap_or(Err(CallError::Timeout(patience)))
}

impl Shared {
    /// When the next call is due, or nothing when the plan is fulfilled.
    fn next_turn(&self) -> Option<Instant> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        if self.plan.requests.is_some_and(|requests| turn >= requests) {
            return None;
        }
        let due = match self.plan.per_second {
            #[expect(clippy::cast_precision_loss, reason = "a load of 2^52 calls is beyond us")]
            Some(rate) => self.started + Duration::from_secs_f64(turn as f64 / rate),
            None => Instant::now(),
        };
        let over = self
            .plan
            .duration
            .is_some_and(|duration| due >= self.started + duration);
        (!over).then_some(due)
    }

    fn record(&self, from: Instant, worker: usize, connection: u32, result: Result<Reply, CallError>) {
        let outcome = match result {
            Ok(reply) => Outcome::Answered {
                status: reply.status,
                version: reply.app_version().into(),
            },
            Err(error) => Outcome::Failed(Failure::from(&error)),
        };
        let now = Instant::now();
        let sample = Sample {
            started: from.saturating_duration_since(self.started),
            took: now.saturating_duration_since(from),
            worker,
            connection,
            outcome,
        };
        lock(&self.record).add(sample);
    }
}

fn lock(record: &Mutex<Report>) -> MutexGuard<'_, Report> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

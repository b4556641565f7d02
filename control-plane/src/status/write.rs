//! Writes the status of the user's objects to the API server, and Events about those that are rejected. Only the holder of
//! the lease writes. What is to be said comes from this replica and the others (`replicas`), as what it is said of comes
//! from the world; compared with what the objects say already, only the difference is written, at a bounded rate.
//!
//! Nothing waits for this: it looks at the operator from outside, and what fails is tried again later.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::bucket::Bucket;
use super::desired::desired;
use super::event::event;
use super::ledger::{Ledger, api_resource};
use super::replicas::{self, Answers};
use super::{Local, merge};
use crate::metrics::{WriteMetrics, Written};
use crate::push::ObjectKey;

/// How often it is looked whether something changed.
const TICK: Duration = Duration::from_millis(500);
/// One write of a status every so often, …
const STATUS_EVERY: Duration = Duration::from_millis(50);
/// … after so many at once.
const STATUS_BURST: u32 = 50;
/// The same for Events.
const EVENT_EVERY: Duration = Duration::from_secs(1);
const EVENT_BURST: u32 = 25;
/// Writes under way at once.
const MAX_WRITES: usize = 10;
/// Time for one write.
const ANSWER: Duration = Duration::from_secs(10);
/// Proxies connect within this time after the start; before that, counts would fall and rise again.
const GATHER: Duration = Duration::from_secs(10);
/// Between two warnings that writing fails.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Who owns the fields that are written.
pub(crate) const OWNER: &str = "hauberk-control-plane";

/// What the writer works with.
pub struct Writer {
    /// The API server.
    pub client: Client,
    /// Whether this replica holds the lease.
    pub leader: watch::Receiver<bool>,
    /// This replica's status.
    pub local: Local,
    /// Name of this replica's pod, so that it does not ask itself.
    pub own_pod: String,
    /// Counts.
    pub metrics: WriteMetrics,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("own_pod", &self.own_pod)
            .finish_non_exhaustive()
    }
}

/// Writes while this replica holds the lease, for ever.
///
/// # Errors
/// When the lease is no longer followed.
pub async fn run(mut writer: Writer) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        writer.leader.wait_for(|holds| *holds).await?;
        let mut leader = writer.leader.clone();
        tokio::select! {
            lost = leader.wait_for(|holds| !*holds) => drop(lost?),
            () = hold(&mut writer, started) => {}
        }
        tracing::info!("another replica writes status from now on");
    }
}

/// What has been done, for the ledger.
enum Done {
    Status(ObjectKey, Result<(crds::Status, Option<String>), kube::Error>),
    Event(Result<(), kube::Error>),
}

/// Writes until dropped.
async fn hold(writer: &mut Writer, started: Instant) {
    let (sender, mut answers) = watch::channel(Answers::default());
    // Not detached: it ends with this.
    let mut asking = JoinSet::new();
    asking.spawn(replicas::ask(
        writer.local.clone(),
        writer.own_pod.clone(),
        sender,
    ));
    let mut holder = Holder {
        ledger: observe(writer).await,
        statuses: Bucket::new(STATUS_EVERY, STATUS_BURST, Instant::now()),
        events: Bucket::new(EVENT_EVERY, EVENT_BURST, Instant::now()),
        writes: JoinSet::new(),
        queue: VecDeque::new(),
        seen: None,
        warned: None,
    };
    tracing::info!("this replica writes status from now on");
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                holder.look(writer, &mut answers).await;
                holder.queue = holder.ledger.due(Instant::now(), started.elapsed() >= GATHER);
            }
            Some(done) = holder.writes.join_next() => match done {
                Ok(done) => holder.done(done, &writer.metrics),
                Err(error) => tracing::error!(%error, "a write crashed"),
            },
        }
        holder.start(writer);
    }
}

/// Reads what status the objects have, however often it takes.
async fn observe(writer: &Writer) -> Ledger {
    let mut wait = Duration::from_secs(1);
    loop {
        match timeout(ANSWER * 6, Ledger::read(&writer.client)).await {
            Ok(Ok(ledger)) => return ledger,
            Ok(Err(error)) => tracing::warn!(%error, "cannot read the objects' status; trying again"),
            Err(_) => tracing::warn!("the API server does not give the objects' status; trying again"),
        }
        sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(30));
    }
}

struct Holder {
    ledger: Ledger,
    statuses: Bucket,
    events: Bucket,
    writes: JoinSet<Done>,
    /// What was due at the last tick.
    queue: VecDeque<ObjectKey>,
    seen: Option<u64>,
    warned: Option<Instant>,
}

impl Holder {
    /// Takes in what is to be said, if that may have changed.
    async fn look(&mut self, writer: &mut Writer, answers: &mut watch::Receiver<Answers>) {
        let others_changed = answers.has_changed().unwrap_or(false);
        let changed = writer.local.has_changed(&mut self.seen);
        // Before the source is loaded, every object would seem to be gone; and nothing is to be said until the other
        // replicas had their say.
        if !writer.local.loaded() || !answers.borrow().complete {
            self.seen = None;
            return;
        }
        if !changed && !others_changed {
            return;
        }
        let Some(own) = writer.local.status().await else {
            return;
        };
        let answers = answers.borrow_and_update().clone();
        let others = answers.statuses.iter().map(|status| (**status).clone());
        let all = merge(std::iter::once(own).chain(others).collect());
        self.ledger.want(desired(&all, &answers.silent), Instant::now());
    }

    /// Begins what is due, as far as the rates allow.
    fn start(&mut self, writer: &Writer) {
        let now = Instant::now();
        while self.writes.len() < MAX_WRITES && !self.queue.is_empty() && self.statuses.take(now) {
            let Some(key) = self.queue.pop_front() else { break };
            let Some((desired, observed)) = self.ledger.begin(&key) else {
                continue;
            };
            let status = desired.status(observed, Time(Timestamp::now()));
            self.writes
                .spawn(write_status(writer.client.clone(), key, status));
        }
        while self.writes.len() < MAX_WRITES && self.events.has(now) {
            let Some((key, uid, report)) = self.ledger.report(now) else {
                break;
            };
            self.events.take(now);
            let event = event(&report, &key, &uid, &writer.own_pod, Timestamp::now());
            self.writes.spawn(write_event(writer.client.clone(), event));
        }
    }

    fn done(&mut self, done: Done, metrics: &WriteMetrics) {
        let now = Instant::now();
        match done {
            Done::Status(key, Ok((status, uid))) => {
                metrics.count(Written::status, true);
                self.ledger.written(&key, status, uid, now);
            }
            Done::Status(key, Err(error)) => {
                metrics.count(Written::status, false);
                self.ledger.failed(&key, now);
                let ObjectKey {
                    kind,
                    namespace,
                    name,
                } = &key;
                let gone = matches!(&error, kube::Error::Api(status) if status.code == 404);
                tracing::debug!(kind, namespace, name, %error, "a status could not be written");
                if !gone {
                    self.warn(now, &format!("the status of {kind} {namespace}/{name}"), &error);
                }
            }
            Done::Event(result) => {
                metrics.count(Written::event, result.is_ok());
                if let Err(error) = result {
                    self.warn(now, "an Event", &error);
                }
            }
        }
    }

    /// Now and then: what one write cannot do, hundreds cannot either.
    fn warn(&mut self, now: Instant, what: &str, error: &kube::Error) {
        if self.warned.is_some_and(|at| now - at < WARN_EVERY) {
            return;
        }
        self.warned = Some(now);
        let remedy = match error {
            kube::Error::Api(status) if status.code == 403 => {
                "; the operator's role lacks a right: install the chart's roles again"
            }
            _ => "; it is tried again",
        };
        tracing::warn!(%error, "{what} could not be written{remedy}");
    }
}

async fn write_status(client: Client, key: ObjectKey, status: crds::Status) -> Done {
    let result = async {
        let resource = api_resource(&key.kind).expect("only our kinds are wanted");
        let api: Api<DynamicObject> = Api::namespaced_with(client, &key.namespace, &resource);
        let params = PatchParams {
            field_manager: Some(OWNER.to_owned()),
            ..PatchParams::default()
        };
        let body = json!({ "status": merge_patch(&status) });
        let written = in_time(api.patch_status(&key.name, &params, &Patch::Merge(body))).await?;
        Ok((status, written.metadata.uid))
    };
    let result = result.await;
    Done::Status(key, result)
}

/// The status with a `null` for each field that it has not: a merge patch would leave those as they are.
fn merge_patch(status: &crds::Status) -> Value {
    let mut patch = json!({
        "observedGeneration": null,
        "inForceGeneration": null,
        "conditions": null,
        "applied": null,
        "appliedBy": null,
        "usedBy": null,
    });
    let given = serde_json::to_value(status).expect("a status is JSON");
    if let (Value::Object(patch), Value::Object(given)) = (&mut patch, given) {
        patch.extend(given);
    }
    patch
}

async fn write_event(client: Client, event: Event) -> Done {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client, &namespace);
    let params = PostParams {
        field_manager: Some(OWNER.to_owned()),
        ..PostParams::default()
    };
    match in_time(api.create(&params, &event)).await {
        // Reported already, by whoever held the lease then.
        Err(kube::Error::Api(status)) if status.code == 409 => Done::Event(Ok(())),
        result => Done::Event(result.map(drop)),
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let late = || kube::Error::Service(format!("no answer within {} s", ANSWER.as_secs()).into());
    timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests;

//! Sessions and their subscriptions: what each proxy asked for, was sent, and has applied. Synchronous: `push` owns one
//! table and calls it with each event; results go straight into the sessions' outboxes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use api::{ResourceName, TrustBundle, Version, limits};
use tokio::time::Instant;
use tonic::Status;

use super::entry::{Entries, EntryId, Inputs, Renewed};
use super::message::Outgoing;
use super::outbox::Outbox;
use super::{Compiler, Joining, Request};
use crate::metrics::{Cause, PushMetrics};
use crate::state::{Dependency, Proxy, World};

/// Number of a session.
pub(crate) type SessionId = u64;

/// Names one proxy may be subscribed to. A pod that dials more than this is no workload.
const MAX_PER_SESSION: usize = 4 * limits::MAX_SUBSCRIPTIONS;

/// One proxy on the stream.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) joined: Joining,
    pub(crate) since: SystemTime,
    pub(crate) subscriptions: HashMap<Arc<ResourceName>, Subscription>,
    /// The newest refusal, also after its resource has been replaced.
    pub(crate) last_nack: Option<LastNack>,
    /// The proxy, as it is compiled for.
    proxy: Proxy,
    outbox: Arc<Outbox>,
}

/// A resource that a proxy could not apply.
#[derive(Debug, Clone)]
pub(crate) struct LastNack {
    pub(crate) name: Arc<ResourceName>,
    pub(crate) reason: String,
    pub(crate) at: SystemTime,
}

/// One name a proxy is subscribed to.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) entry: EntryId,
    pub(crate) applied: Option<Version>,
    pub(crate) nack: Option<(Version, String)>,
    /// The version the proxy has or will get.
    sent: Option<Version>,
    /// Since when an acknowledgement is awaited, and why.
    awaited: Option<(Cause, Instant)>,
}

/// Sessions, subscriptions and what they are served from.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) inputs: Inputs,
    pub(crate) entries: Entries,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pods: HashMap<(String, String), SessionId>,
    next: SessionId,
    metrics: PushMetrics,
}

/// Resources on their way to sessions: one outbox call a session, however much changed.
pub(crate) type Batch = HashMap<SessionId, Vec<Arc<Outgoing>>>;

impl Table {
    pub(crate) fn new(
        compiler: Compiler,
        world: Arc<World>,
        bundle: TrustBundle,
        metrics: PushMetrics,
    ) -> Self {
        Self {
            inputs: Inputs { world, bundle },
            entries: Entries::new(compiler, metrics.clone()),
            sessions: BTreeMap::new(),
            pods: HashMap::new(),
            next: 0,
            metrics,
        }
    }

    /// Takes a session in. Another one of the same pod ends: a proxy that reconnects must not wait for its old
    /// connection to be found dead.
    pub(crate) fn join(&mut self, joined: Joining, outbox: Arc<Outbox>) -> SessionId {
        let id = self.next;
        self.next += 1;
        let pod = (joined.namespace.clone(), joined.pod.clone());
        if let Some(old) = self.pods.insert(pod, id) {
            if let Some(session) = self.sessions.get(&old) {
                let text = "a newer connection of the same pod has taken this one's place";
                session.outbox.end(Err(Status::aborted(text)));
            }
            self.remove(old);
        }
        let proxy = self.describe(&joined);
        let session = Session {
            joined,
            since: SystemTime::now(),
            subscriptions: HashMap::new(),
            last_nack: None,
            proxy,
            outbox,
        };
        self.sessions.insert(id, session);
        self.metrics.sessions.inc();
        id
    }

    /// Lets a session go.
    pub(crate) fn leave(&mut self, id: SessionId) {
        let Some(session) = self.remove(id) else {
            return;
        };
        let pod = (session.joined.namespace, session.joined.pod);
        if self.pods.get(&pod) == Some(&id) {
            self.pods.remove(&pod);
        }
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        for (name, subscription) in &session.subscriptions {
            self.entries.detach(subscription.entry, id);
            self.metrics.subscriptions.of(name.kind).dec();
        }
        self.metrics.sessions.dec();
        Some(session)
    }

    /// Ends every session, for the operator stops.
    pub(crate) fn end_all(&mut self) {
        for session in self.sessions.values() {
            let text = "the operator is shutting down; go on with what you have, and connect again";
            session.outbox.end(Err(Status::unavailable(text)));
        }
    }

    /// What a proxy asks or answers. A session that has ended meanwhile is not an error.
    pub(crate) fn request(&mut self, id: SessionId, request: Request) {
        match request {
            Request::Subscribe(names) => self.subscribe(id, names),
            Request::Unsubscribe(names) => {
                for name in &names {
                    self.unsubscribe(id, name);
                }
            }
            Request::Ack(name, version) => self.ack(id, &name, version),
            Request::Nack(name, version, reason) => self.nack(id, &name, version, reason),
        }
    }

    fn subscribe(&mut self, id: SessionId, names: Vec<(ResourceName, Option<Version>)>) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let mut batch = Vec::new();
        for (name, known) in names {
            let entry = self.entries.attach(&self.inputs, &name, &session.proxy, id);
            let entry_ref = self.entries.get(entry);
            let subscription = session
                .subscriptions
                .entry(entry_ref.name.clone())
                .or_insert_with(|| {
                    self.metrics.subscriptions.of(name.kind).inc();
                    Subscription {
                        entry,
                        applied: None,
                        nack: None,
                        sent: None,
                        awaited: None,
                    }
                });
            if known == Some(entry_ref.version) {
                subscription.sent = known;
                subscription.applied = known;
            } else {
                subscription.sent = Some(entry_ref.version);
                subscription.awaited = Some((Cause::subscribe, Instant::now()));
                batch.push(entry_ref.outgoing.clone());
            }
        }
        if session.subscriptions.len() > MAX_PER_SESSION {
            let text = format!("subscribe: a proxy may subscribe to {MAX_PER_SESSION} names at most");
            session.outbox.end(Err(Status::resource_exhausted(text)));
            self.leave(id);
            return;
        }
        if !batch.is_empty() {
            session.outbox.put(batch);
        }
    }

    fn unsubscribe(&mut self, id: SessionId, name: &ResourceName) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let Some((name, subscription)) = session.subscriptions.remove_entry(name) {
            session.outbox.withdraw(&name);
            self.entries.detach(subscription.entry, id);
            self.metrics.subscriptions.of(name.kind).dec();
        }
    }

    fn subscription(&mut self, id: SessionId, name: &ResourceName) -> Option<&mut Subscription> {
        // A name that is not there was given up while the answer was on its way.
        self.sessions.get_mut(&id)?.subscriptions.get_mut(name)
    }

    fn ack(&mut self, id: SessionId, name: &ResourceName, version: Version) {
        let Some(subscription) = self.subscription(id, name) else {
            return;
        };
        subscription.applied = Some(version);
        subscription.nack = None;
        // An older version's answer does not end the wait for the newest.
        if subscription.sent == Some(version)
            && let Some((cause, since)) = subscription.awaited.take()
        {
            let elapsed = since.elapsed().as_secs_f64();
            self.metrics.applied(cause).observe(elapsed);
        }
    }

    fn nack(&mut self, id: SessionId, name: &ResourceName, version: Version, reason: String) {
        self.metrics.nacks.of(name.kind).inc();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        tracing::warn!(
            namespace = %session.joined.namespace, pod = %session.joined.pod, %name, %version, reason,
            "a proxy cannot apply a resource"
        );
        let Some((name, _)) = session.subscriptions.get_key_value(name) else {
            return;
        };
        let name = name.clone();
        session.last_nack = Some(LastNack {
            name: name.clone(),
            reason: reason.clone(),
            at: SystemTime::now(),
        });
        if let Some(subscription) = session.subscriptions.get_mut(&name) {
            subscription.awaited = None;
            subscription.nack = Some((version, reason));
        }
    }

    /// What must be compiled again after a change, once proxies whose pods changed have found what is theirs now.
    pub(crate) fn affected(
        &mut self,
        touched: &BTreeSet<Dependency>,
        since: Instant,
        batch: &mut Batch,
    ) -> BTreeSet<EntryId> {
        for dependency in touched {
            if let Dependency::Pod(namespace, pod) = dependency
                && let Some(id) = self.pods.get(&(namespace.clone(), pod.clone()))
            {
                self.rehome(*id, since, batch);
            }
        }
        self.entries.touched(touched)
    }

    /// Compiles one entry again and addresses it to its subscribers when it has changed.
    pub(crate) fn renew(&mut self, entry: EntryId, since: Instant, batch: &mut Batch) {
        match self.entries.renew(&self.inputs, entry) {
            Renewed::Same => return,
            Renewed::Changed => {}
            Renewed::Split => return self.split(entry, since, batch),
        }
        let entry = self.entries.get(entry);
        for id in &entry.subscribers {
            let session = self.sessions.get_mut(id).expect("subscribers are sessions");
            let subscription = session
                .subscriptions
                .get_mut(&entry.name)
                .expect("subscribers are subscribed");
            offer(subscription, entry.version, since);
            batch.entry(*id).or_default().push(entry.outgoing.clone());
        }
    }

    /// Hands a batch to the outboxes.
    pub(crate) fn send(&self, batch: Batch) {
        for (id, resources) in batch {
            if let Some(session) = self.sessions.get(&id) {
                session.outbox.put(resources);
            }
        }
    }

    /// Has every subscriber of an entry find its own anew. What nobody finds again is gone with the last of them.
    fn split(&mut self, entry: EntryId, since: Instant, batch: &mut Batch) {
        let entry = self.entries.get(entry);
        let name = entry.name.clone();
        let subscribers: Vec<_> = entry.subscribers.iter().copied().collect();
        for id in subscribers {
            let session = self.sessions.get_mut(&id).expect("subscribers are sessions");
            let subscription = session
                .subscriptions
                .get_mut(&name)
                .expect("subscribers are subscribed");
            let moved = (&name, subscription, &session.proxy);
            let outgoing = reattach(&mut self.entries, &self.inputs, moved, id, since);
            if let Some(outgoing) = outgoing {
                batch.entry(id).or_default().push(outgoing);
            }
        }
    }

    fn rehome(&mut self, id: SessionId, since: Instant, batch: &mut Batch) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let proxy = self.describe(&session.joined);
        if session.proxy == proxy {
            return;
        }
        let session = self.sessions.get_mut(&id).expect("looked at above");
        session.proxy = proxy;
        for (name, subscription) in &mut session.subscriptions {
            let moved = (name, subscription, &session.proxy);
            let outgoing = reattach(&mut self.entries, &self.inputs, moved, id, since);
            if let Some(outgoing) = outgoing {
                batch.entry(id).or_default().push(outgoing);
            }
        }
    }

    fn describe(&self, joined: &Joining) -> Proxy {
        let Joining {
            namespace,
            pod,
            service_account,
            proxy_version: _,
            revision: _,
        } = joined;
        (self.entries.compiler().describe)(&self.inputs.world, namespace, pod, service_account)
    }
}

/// Moves a subscription to the entry that is the proxy's now; gives what is to be sent if that has another content.
fn reattach(
    entries: &mut Entries,
    inputs: &Inputs,
    (name, subscription, proxy): (&Arc<ResourceName>, &mut Subscription, &Proxy),
    session: SessionId,
    since: Instant,
) -> Option<Arc<Outgoing>> {
    let old = subscription.entry;
    // First the new one, so that what both share is not dropped in between.
    subscription.entry = entries.attach(inputs, name, proxy, session);
    if old != subscription.entry {
        entries.detach(old, session);
    }
    let entry = entries.get(subscription.entry);
    if subscription.sent == Some(entry.version) {
        return None;
    }
    offer(subscription, entry.version, since);
    Some(entry.outgoing.clone())
}

/// Notes that a version is on its way.
fn offer(subscription: &mut Subscription, version: Version, since: Instant) {
    subscription.sent = Some(version);
    // The first unanswered change counts: a proxy that never answers must not look fast.
    subscription.awaited.get_or_insert((Cause::change, since));
}

//! The client of the configuration stream. It runs on the background thread, owns the store, and keeps a stream to the
//! operator open; while there is none it goes on answering from what it knows.
//!
//! ```text
//!   connect ──▶ Hello, Subscribe with the versions held ──▶ Welcome ──▶ Updates ⇄ Ack, Nack, Subscribe, Unsubscribe
//!      ▲                                                                   │
//!      └──────── full-jitter back-off, 100 ms to 10 s ◀── stream ended ────┘
//! ```
//!
//! Nothing that the operator sends makes it panic or forget: a bad resource is NACKed and the one before it stays, a bad
//! message ends the stream, which is opened again.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::proto::config_client::ConfigClient;
use api::proto::operator_message::Body as FromOperator;
use api::proto::proxy_message::Body as FromProxy;
use api::{ResourceName, Version, limits, names, proto};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::store::{Nack, Outcome, Store};
use super::{Backoff, Command, Current, Link, operator};
use crate::metrics::Metrics;
use crate::settings::Settings;

const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How long a stream may take to come up, its Welcome included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that lasted this long ended for a new reason: the next try comes soon.
const STEADY: Duration = Duration::from_secs(10);
/// Messages that wait to be sent; more than the operator takes in ends the stream.
const OUTGOING: usize = 1 << 16;

/// Keeps the configuration current; see the module.
#[derive(Debug)]
pub struct Client {
    hello: proto::Hello,
    token_file: PathBuf,
    destination_idle: Duration,
    store: Store,
    commands: mpsc::Receiver<Command>,
    told: Told,
    link: Link,
    /// When the operator was asked something it has not answered yet.
    asked: Option<Instant>,
}

/// Whom the client tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) current: Current,
    pub(super) swapped: watch::Sender<u64>,
    pub(super) trust: watch::Sender<Option<Arc<api::TrustBundle>>>,
    pub(super) link: watch::Sender<Link>,
    pub(super) metrics: Arc<Metrics>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Token(#[from] operator::TokenError),
    #[error("no answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("the operator closed the stream")]
    Closed,
    #[error("the operator does not read what it is sent")]
    Stuck,
    #[error("the operator speaks revision {0} of the contract, this proxy up to {max}", max = names::REVISION)]
    Revision(u32),
    #[error("the operator did not begin with Welcome")]
    NoWelcome,
    #[error("the operator sent a message of a kind that this build does not know")]
    Unknown,
}

type Outgoing = mpsc::Sender<proto::ProxyMessage>;

impl Client {
    pub(super) fn new(settings: &Settings, commands: mpsc::Receiver<Command>, told: Told) -> Self {
        Self {
            hello: proto::Hello {
                namespace: settings.namespace.clone(),
                pod: settings.pod.clone(),
                proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
                revision: names::REVISION,
            },
            token_file: settings.token_file.clone(),
            destination_idle: settings.destination_idle,
            store: Store::new(&settings.trust_domain),
            commands,
            told,
            link: Link::default(),
            asked: None,
        }
    }

    /// Runs until every handle is gone. `channel` is from [`operator::channel`].
    pub async fn run(mut self, channel: Channel) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        self.show();
        loop {
            let started = Instant::now();
            let Some(ended) = self.stream(&channel).await else {
                return;
            };
            if self.link.connected && started.elapsed() >= STEADY {
                backoff.reset();
            }
            let delay = backoff.next();
            tracing::warn!(reason = %ended, again_in = ?delay, "no stream to the operator; the last configuration stays");
            self.link.connected = false;
            self.link.last_error = Some(ended.to_string());
            self.asked = None;
            self.show();
            if self.answer_while(tokio::time::sleep(delay)).await.is_none() {
                return;
            }
            self.link.reconnects += 1;
            self.told.metrics.config.reconnects.inc();
        }
    }

    /// Opens one stream and follows it to its end; `None` once every handle is gone.
    async fn stream(&mut self, channel: &Channel) -> Option<Ended> {
        let token = match operator::bearer(&self.token_file) {
            Ok(token) => token,
            Err(e) => return Some(e.into()),
        };
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let hello = FromProxy::Hello(self.hello.clone());
        if send(&outgoing, hello).is_err() {
            return Some(Ended::Stuck);
        }
        let mut request = tonic::Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", token);
        let mut client = ConfigClient::new(channel.clone())
            .max_decoding_message_size(limits::MAX_MESSAGE_SIZE)
            .max_encoding_message_size(limits::MAX_MESSAGE_SIZE);
        let connect = async move {
            let open = async {
                let mut incoming = client.stream(request).await?.into_inner();
                let first = incoming.message().await?.ok_or(Ended::Closed)?;
                Ok((incoming, first))
            };
            let asked = Instant::now();
            let opened = tokio::time::timeout(CONNECT_TIMEOUT, open).await;
            opened
                .unwrap_or(Err(Ended::Timeout))
                .map(|(i, f)| (i, f, asked.elapsed()))
        };
        let (mut incoming, first, latency) = match self.answer_while(connect).await? {
            Ok(opened) => opened,
            Err(ended) => return Some(ended),
        };
        if let Err(ended) = self.welcome(first, latency) {
            return Some(ended);
        }
        if let Err(ended) = self.resubscribe(&outgoing) {
            return Some(ended);
        }
        self.follow(&outgoing, &mut incoming).await
    }

    fn welcome(&mut self, first: proto::OperatorMessage, latency: Duration) -> Result<(), Ended> {
        let Some(FromOperator::Welcome(proto::Welcome {
            operator_version,
            revision,
        })) = first.body
        else {
            return Err(Ended::NoWelcome);
        };
        if revision == 0 || revision > names::REVISION {
            return Err(Ended::Revision(revision));
        }
        tracing::info!(operator = %operator_version, revision, "stream to the operator is up");
        self.link.connected = true;
        self.link.operator_version = Some(operator_version);
        self.link.last_received = Some(SystemTime::now());
        self.link.latency = Some(latency);
        self.show();
        Ok(())
    }

    fn resubscribe(&mut self, outgoing: &Outgoing) -> Result<(), Ended> {
        let all = self.store.subscriptions();
        for some in all.chunks(limits::MAX_SUBSCRIPTIONS) {
            self.subscribe(outgoing, some.iter().cloned())?;
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        outgoing: &Outgoing,
        incoming: &mut tonic::Streaming<proto::OperatorMessage>,
    ) -> Option<Ended> {
        let mut sweep = self.sweep_interval();
        loop {
            let outcome = tokio::select! {
                message = incoming.message() => {
                    let body = match message {
                        Ok(Some(message)) => message.body,
                        Ok(None) => return Some(Ended::Closed),
                        Err(status) => return Some(status.into()),
                    };
                    self.heard();
                    match body {
                        Some(FromOperator::Update(update)) => self.store.apply(update),
                        Some(FromOperator::Welcome(_)) => continue,
                        None => return Some(Ended::Unknown),
                    }
                }
                command = self.commands.recv() => self.commands(command?),
                _ = sweep.tick() => self.store.sweep(Instant::now(), self.destination_idle),
            };
            if let Err(ended) = self.settle(outcome, Some(outgoing)) {
                return Some(ended);
            }
        }
    }

    /// Waits for `future` while answering what is asked here; `None` once every handle is gone.
    async fn answer_while<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut sweep = self.sweep_interval();
        loop {
            let outcome = tokio::select! {
                output = &mut future => return Some(output),
                command = self.commands.recv() => self.commands(command?),
                _ = sweep.tick() => self.store.sweep(Instant::now(), self.destination_idle),
            };
            // Without a stream nothing is sent: the next one begins with everything that is wanted by then.
            let _unsent = self.settle(outcome, None);
        }
    }

    fn sweep_interval(&self) -> tokio::time::Interval {
        let every = (self.destination_idle / 4).clamp(Duration::from_secs(1), Duration::from_secs(60));
        let mut interval = tokio::time::interval_at(Instant::now() + every, every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    }

    /// Takes a command and every other that waits, so that one message to the operator carries them all.
    fn commands(&mut self, first: Command) -> Outcome {
        let mut all = Outcome::default();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Want(address, taken) => {
                    let (outcome, is_taken) = self.store.want(address, Instant::now());
                    all.merge(outcome);
                    let _asker_gone = taken.send(is_taken);
                }
                Command::View(answer) => {
                    let _asker_gone = answer.send(self.store.view());
                }
            }
            next = self.commands.try_recv().ok();
        }
        all
    }

    /// Publishes what has changed and tells the operator.
    fn settle(&mut self, outcome: Outcome, outgoing: Option<&Outgoing>) -> Result<(), Ended> {
        let Outcome {
            acks,
            nacks,
            unsubscribe,
            subscribe,
            snapshot,
            trust,
        } = outcome;
        let changed = snapshot.is_some() || trust.is_some() || !nacks.is_empty() || !subscribe.is_empty();
        if let Some(trust) = trust {
            self.told.trust.send_replace(Some(trust));
        }
        if let Some(snapshot) = snapshot {
            let number = snapshot.number;
            self.told.current.store(snapshot);
            self.told.swapped.send_replace(number);
            self.applied(number);
        }
        for nack in &nacks {
            self.rejected(nack);
        }
        if changed || !unsubscribe.is_empty() {
            for (kind, state, n) in self.store.counts() {
                self.told.metrics.config.set_resources(kind, state.as_str(), n);
            }
        }
        let Some(outgoing) = outgoing else {
            return Ok(());
        };
        for (name, version) in acks {
            let (name, version) = (Some(name.into()), version.get());
            send(outgoing, FromProxy::Ack(proto::Ack { name, version }))?;
        }
        for Nack {
            name,
            version,
            reason,
        } in nacks
        {
            send(
                outgoing,
                FromProxy::Nack(proto::Nack {
                    name,
                    version,
                    reason,
                }),
            )?;
        }
        for some in unsubscribe.chunks(limits::MAX_SUBSCRIPTIONS) {
            let names = some.iter().cloned().map(Into::into).collect();
            send(outgoing, FromProxy::Unsubscribe(proto::Unsubscribe { names }))?;
        }
        for some in subscribe.chunks(limits::MAX_SUBSCRIPTIONS) {
            self.subscribe(outgoing, some.iter().map(|name| (name.clone(), None)))?;
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        outgoing: &Outgoing,
        subscriptions: impl Iterator<Item = (ResourceName, Option<Version>)>,
    ) -> Result<(), Ended> {
        self.asked.get_or_insert_with(Instant::now);
        let subscriptions = subscriptions
            .map(|(name, version)| proto::Subscription {
                name: Some(name.into()),
                known_version: version.map_or(0, Version::get),
            })
            .collect();
        send(outgoing, FromProxy::Subscribe(proto::Subscribe { subscriptions }))
    }

    fn heard(&mut self) {
        self.link.last_received = Some(SystemTime::now());
        if let Some(asked) = self.asked.take() {
            self.link.latency = Some(asked.elapsed());
        }
        self.show();
    }

    fn applied(&self, number: u64) {
        let config = &self.told.metrics.config;
        config.snapshot.set(i64::try_from(number).unwrap_or(i64::MAX));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        config
            .last_applied
            .set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        tracing::debug!(snapshot = number, "configuration applied");
    }

    fn rejected(&self, nack: &Nack) {
        let Nack {
            name,
            version,
            reason,
        } = nack;
        let parsed = ResourceName::try_from(name.clone());
        self.told
            .metrics
            .config
            .nack(parsed.as_ref().ok().map(|n| n.kind));
        let shown = parsed.map_or_else(|e| format!("(name: {e})"), |name| name.to_string());
        tracing::warn!(resource = %shown, version = %format_args!("{version:016x}"), %reason, "rejected");
    }

    fn show(&self) {
        self.told.metrics.config.connected.set(self.link.connected.into());
        self.told.link.send_replace(self.link.clone());
    }
}

/// Never waits: an operator that does not read is given up rather than allowed to hold up the proxy.
fn send(outgoing: &Outgoing, body: FromProxy) -> Result<(), Ended> {
    let message = proto::ProxyMessage { body: Some(body) };
    outgoing.try_send(message).map_err(|e| match e {
        mpsc::error::TrySendError::Full(_) => Ended::Stuck,
        mpsc::error::TrySendError::Closed(_) => Ended::Closed,
    })
}

#[cfg(test)]
mod tests;

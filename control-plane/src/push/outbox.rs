//! What waits for one proxy. The hub puts resources in, the connection takes them out when the network lets it. A slow
//! proxy costs at most one version a name: a newer one takes the older one's place, and the hub never waits.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use api::{Kind, ResourceName, proto};
use tokio_stream::Stream;
use tonic::Status;

use super::message::{Message, Outgoing, Update};
use crate::metrics::PushMetrics;

/// Resources of one update, in encoded bytes; one larger resource travels alone.
const BATCH_BYTES: usize = 1 << 20;

/// Place of a kind within an update: what others refer to comes first, so that a proxy can use a resource when it comes.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::TrustBundle => 0,
        Kind::Endpoints => 1,
        Kind::Cluster => 2,
        Kind::Inbound => 3,
        Kind::Route => 4,
        Kind::Destination => 5,
    }
}

#[derive(Debug)]
struct Inner {
    welcome: Option<proto::Welcome>,
    waiting: BTreeMap<(u8, Arc<ResourceName>), Arc<Outgoing>>,
    end: Option<Result<(), Status>>,
    reader_gone: bool,
    waker: Option<Waker>,
}

/// What waits for one proxy.
#[derive(Debug)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    gone: tokio::sync::Notify,
    metrics: PushMetrics,
}

impl Outbox {
    pub(crate) fn new(metrics: PushMetrics) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                welcome: None,
                waiting: BTreeMap::new(),
                end: None,
                reader_gone: false,
                waker: None,
            }),
            gone: tokio::sync::Notify::new(),
            metrics,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing under this lock panics")
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let waker = {
            let mut inner = self.lock();
            change(&mut inner);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The greeting, sent before anything else.
    pub(crate) fn welcome(&self, welcome: proto::Welcome) {
        self.change(|inner| inner.welcome = Some(welcome));
    }

    /// Resources to send; each replaces an older version that still waits.
    pub(crate) fn put(&self, resources: impl IntoIterator<Item = Arc<Outgoing>>) {
        self.change(|inner| {
            for outgoing in resources {
                let key = (rank(outgoing.name.kind), outgoing.name.clone());
                if inner.waiting.insert(key, outgoing).is_some() {
                    self.metrics.coalesced.inc();
                }
            }
        });
    }

    /// Takes back what waits under a name.
    pub(crate) fn withdraw(&self, name: &Arc<ResourceName>) {
        self.lock().waiting.remove(&(rank(name.kind), name.clone()));
    }

    /// Ends the stream; what waits is not sent any more. The first end counts.
    pub(crate) fn end(&self, end: Result<(), Status>) {
        self.change(|inner| {
            inner.waiting.clear();
            inner.end.get_or_insert(end);
        });
        self.gone.notify_one();
    }

    /// Waits until the stream has ended, from either side.
    pub(crate) async fn ended(&self) {
        loop {
            {
                let inner = self.lock();
                if inner.reader_gone || inner.end.is_some() {
                    return;
                }
            }
            self.gone.notified().await;
        }
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let mut inner = self.lock();
        match &inner.end {
            // Stays ended: only the status is given out once.
            Some(Err(_)) => {
                let status = inner.end.replace(Ok(()));
                return Poll::Ready(status.and_then(Result::err).map(Err));
            }
            Some(Ok(())) => return Poll::Ready(None),
            None => {}
        }
        if let Some(welcome) = inner.welcome.take() {
            return Poll::Ready(Some(Ok(Message::Welcome(welcome))));
        }
        let mut bytes = 0;
        let mut resources = Vec::new();
        while let Some(next) = inner.waiting.first_entry() {
            if bytes > 0 && bytes + next.get().encoded.len() > BATCH_BYTES {
                break;
            }
            let outgoing = next.remove();
            bytes += outgoing.encoded.len();
            self.metrics.sent.of(outgoing.name.kind).inc();
            resources.push(outgoing);
        }
        if resources.is_empty() {
            inner.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.metrics
            .sent_bytes
            .inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        Poll::Ready(Some(Ok(Message::Update(Update(resources)))))
    }
}

/// The reading end: the stream of messages to the proxy.
#[derive(Debug)]
pub struct OutboxStream(pub(crate) Arc<Outbox>);

impl Stream for OutboxStream {
    type Item = Result<Message, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_take(cx)
    }
}

impl Drop for OutboxStream {
    fn drop(&mut self) {
        self.0.lock().reader_gone = true;
        self.0.gone.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use api::{Body, Resource};
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::metrics::Metrics;

    fn outgoing(kind: Kind, name: &str, reason: &str) -> Arc<Outgoing> {
        let name = ResourceName::new(kind, name);
        let resource = Resource::new(name.clone(), Body::Absent(reason.to_owned()));
        Arc::new(Outgoing::new(Arc::new(name), &resource.into()))
    }

    fn names(message: Option<Result<Message, Status>>) -> Vec<String> {
        let Message::Update(Update(resources)) = message.unwrap().unwrap() else {
            panic!("not an update")
        };
        resources
            .iter()
            .map(|resource| resource.name.to_string())
            .collect()
    }

    #[tokio::test]
    async fn one_update_has_what_others_refer_to_first() {
        let outbox = Outbox::new(Metrics::new().push);
        let mut stream = OutboxStream(outbox.clone());
        outbox.put([
            outgoing(Kind::Destination, "d", ""),
            outgoing(Kind::Route, "r", ""),
            outgoing(Kind::Endpoints, "e", ""),
            outgoing(Kind::Cluster, "c", ""),
        ]);
        let order = names(stream.next().await);
        assert_eq!(order, ["endpoints/e", "cluster/c", "route/r", "destination/d"]);
    }

    #[tokio::test]
    async fn a_newer_version_takes_the_place_of_one_that_waits() {
        let metrics = Metrics::new();
        let outbox = Outbox::new(metrics.push.clone());
        let mut stream = OutboxStream(outbox.clone());
        for version in 0..100 {
            outbox.put([outgoing(Kind::Route, "r", &version.to_string())]);
        }
        outbox.put([outgoing(Kind::Route, "gone", "")]);
        outbox.withdraw(&Arc::new(ResourceName::new(Kind::Route, "gone")));
        assert_eq!(names(stream.next().await), ["route/r"]);
        assert!(stream.next().now_or_never().is_none());
        assert_eq!(metrics.push.coalesced.get(), 99);
    }

    #[tokio::test]
    async fn updates_stay_small_however_much_waits() {
        let outbox = Outbox::new(Metrics::new().push);
        let mut stream = OutboxStream(outbox.clone());
        let long = "x".repeat(BATCH_BYTES / 2 - 200);
        outbox.put((0..5).map(|i| outgoing(Kind::Route, &i.to_string(), &long)));
        let mut sizes = Vec::new();
        for _ in 0..3 {
            sizes.push(names(stream.next().await).len());
        }
        assert_eq!(sizes, [2, 2, 1]);
    }

    #[tokio::test]
    async fn the_status_of_the_end_is_given_once_and_stops_what_waits() {
        let outbox = Outbox::new(Metrics::new().push);
        let mut stream = OutboxStream(outbox.clone());
        outbox.put([outgoing(Kind::Route, "r", "")]);
        outbox.end(Err(Status::aborted("first")));
        outbox.end(Err(Status::aborted("second")));
        outbox.ended().await;
        assert_eq!(stream.next().await.unwrap().unwrap_err().message(), "first");
        assert!(stream.next().await.is_none());
    }
}

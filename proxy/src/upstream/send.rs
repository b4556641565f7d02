//! One request to one endpoint: find or open a connection, send, and say exactly what became of it.

use std::cell::Cell;
use std::error::Error as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::Http2Keepalive;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::body::RequestBody;
use super::pool::{Found, Lane, Lease, Sender};
use super::queue::Place;
use super::{Upstream, Wire};
use crate::config::snapshot::{Cluster, Endpoint};
use crate::cork::cork;
use crate::error::Error;
use crate::io::Io;
use crate::limits::{self, Bound, Permit};
use crate::originate::refusal;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_FRAME: u32 = 64 << 10;
const MAX_HEADER_LIST: u32 = 64 << 10;
const MAX_HEADERS: usize = 200;
/// A peer that answers no PING in time is gone, whatever TCP says. Without `http2KeepAlive`, one is asked only while
/// requests are under way: what is idle need not be watched.
const PINGS: Http2Keepalive = Http2Keepalive {
    interval: Duration::from_secs(20),
    timeout: Duration::from_secs(10),
};

/// A try that failed.
#[derive(Debug)]
pub struct Failed {
    /// What happened.
    pub error: Error,
    /// The request, when it was handed back whole.
    pub request: Option<Box<Request<RequestBody>>>,
    /// It was sent on a connection that had carried a request before.
    pub reused: bool,
    /// It may have been sent.
    pub sent: bool,
    /// Its time passed while it waited for one of as many connections as its cluster may have.
    pub queued: bool,
}

impl Failed {
    /// Before anything was sent.
    #[must_use]
    pub fn unsent(error: Error) -> Self {
        Self {
            error,
            request: None,
            reused: false,
            sent: false,
            queued: false,
        }
    }

    /// After it may have been sent.
    #[must_use]
    pub fn sent(error: Error) -> Self {
        Self {
            error,
            request: None,
            reused: false,
            sent: true,
            queued: false,
        }
    }
}

impl Upstream {
    /// Finds or opens a connection to an endpoint. Where the cluster has as many as it may, it waits for one, and `queued`
    /// is set meanwhile.
    ///
    /// # Errors
    /// When no connection comes about, or as many requests wait for one as may.
    pub async fn lease(
        self: &Rc<Self>,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        wire: Wire,
        queued: &Cell<bool>,
    ) -> Result<Lease, Error> {
        let mut lane = self.pool.lane(cluster, endpoint, self.ways.settled(wire));
        let mut pending = None;
        loop {
            match lane.find() {
                Found::Lease(lease) => {
                    if pending.is_some() {
                        lane.wake_next();
                    }
                    return Ok(lease);
                }
                Found::Wait => {
                    pending = pending
                        .map_or_else(|| limits::acquire(cluster, Bound::Pending), Ok)
                        .map(Some)?;
                    queued.set(lane.waiting.get() > 0);
                    let opened = lane.wait().await;
                    queued.set(false);
                    opened?;
                    // The server may have turned down what was offered.
                    let settled = self.ways.settled(wire);
                    if settled != lane.wire() {
                        lane.wake_next();
                        lane = self.pool.lane(cluster, endpoint, settled);
                    }
                }
                Found::Open => {
                    let _pending = pending.map_or_else(|| limits::acquire(cluster, Bound::Pending), Ok)?;
                    // Only shared connections are worth waiting for.
                    let opening = lane.wire().is_http2().then(|| lane.opening());
                    // Boxed, so that requests which find a connection do not carry the room for a handshake.
                    let opened = Box::pin(self.open(&lane, cluster, endpoint, queued)).await;
                    match (&opened, &opening) {
                        (Err(error), Some(opening)) => opening.failed(error.clone()),
                        // Another's stream has ended: with many who wait, all would look for each that ends.
                        (Ok(lease), Some(opening)) => opening.to_one.set(lease.reused),
                        (_, None) => {}
                    }
                    return opened;
                }
            }
        }
    }

    async fn open(
        &self,
        lane: &Rc<Lane>,
        cluster: &Arc<Cluster>,
        endpoint: &Endpoint,
        queued: &Cell<bool>,
    ) -> Result<Lease, Error> {
        let permit = match lane.place(cluster, queued).await {
            Place::Free(permit) => permit,
            Place::Connection(lease) => return Ok(lease),
        };
        let metrics = &cluster.live.metrics;
        let io = self
            .connect(cluster, endpoint, self.over(lane.wire(), endpoint)?)
            .await;
        let io = io.inspect_err(|_| metrics.connect_failures.inc())?;
        metrics.connections_opened.inc();
        let closing = Closing {
            cluster: Arc::clone(cluster),
            _permit: permit,
        };
        let address = endpoint.spec.address;
        let wire = self.ways.agreed(lane.wire(), &io);
        let other;
        let lane = if wire == lane.wire() {
            lane
        } else {
            other = self.pool.lane(cluster, endpoint, wire);
            &other
        };
        if wire.is_http2() {
            let pings = cluster.spec.http2_keepalive;
            Ok(lane.add_http2(open_http2(io, closing, address, pings).await?))
        } else {
            Ok(lane.add_http1(open_http1(io, closing, address).await?))
        }
    }
}

async fn open_http1(
    io: Io,
    closing: Closing,
    endpoint: SocketAddr,
) -> Result<http1::SendRequest<RequestBody>, Error> {
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| Error::Reset {
            endpoint,
            source: Arc::new(e),
        })?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%endpoint, %error, "upstream connection ended");
        }
        drop(closing);
    });
    Ok(sender)
}

async fn open_http2(
    io: Io,
    closing: Closing,
    endpoint: SocketAddr,
    pings: Option<Http2Keepalive>,
) -> Result<http2::SendRequest<RequestBody>, Error> {
    let (corked, cork) = cork(io);
    let Http2Keepalive { interval, timeout } = pings.unwrap_or(PINGS);
    let (sender, connection) = http2::Builder::new(cork)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .keep_alive_while_idle(pings.is_some())
        .handshake(TokioIo::new(corked))
        .await
        .map_err(|e| Error::Reset {
            endpoint,
            source: Arc::new(e),
        })?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%endpoint, %error, "upstream connection ended");
        }
        drop(closing);
    });
    Ok(sender)
}

/// Counts a connection until it has closed.
struct Closing {
    cluster: Arc<Cluster>,
    _permit: Permit,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.cluster.live.metrics.connections_closed.inc();
    }
}

impl Lease {
    /// Sends a request; gives the head of the response.
    ///
    /// # Errors
    /// What became of the request, as exactly as can be known.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
        endpoint: SocketAddr,
    ) -> Result<Response<Incoming>, Failed> {
        let answer = match &mut self.sender {
            Sender::Http1 { sender, .. } => sender.try_send_request(request).await,
            Sender::Http2 { sender, .. } => sender.try_send_request(request).await,
        };
        answer.map_err(|mut e| {
            let request = e.take_message().map(Box::new);
            let https = self.wire().is_https() && !self.reused;
            let error = match &request {
                Some(_) => Error::NotSent { endpoint },
                None => classify(e.into_error(), endpoint, https),
            };
            Failed {
                error,
                sent: request.is_none(),
                request,
                reused: self.reused,
                queued: false,
            }
        })
    }
}

/// Tells a stream that was not processed (RFC 9113, 8.7) from one that may have been.
fn classify(error: hyper::Error, endpoint: SocketAddr, first_of_https: bool) -> Error {
    let h2 = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>());
    if first_of_https {
        let io = match h2 {
            Some(h2) => h2.get_io(),
            None => error.source().and_then(|source| source.downcast_ref()),
        };
        if let Some(refusal) = io.and_then(refusal) {
            let source = Arc::new(refusal);
            return Error::Tls { endpoint, source };
        }
    }
    let unprocessed = h2.is_some_and(|e| {
        let refused = e.is_reset() && e.reason() == Some(h2::Reason::REFUSED_STREAM);
        // A GOAWAY reaches only those streams that its last id says were not processed.
        let left_out = e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR);
        refused || left_out
    });
    if unprocessed {
        return Error::RefusedStream { endpoint };
    }
    if error.is_user() || error.source().is_some_and(|s| s.is::<hyper::Error>()) {
        // Reading the request's own body failed.
        return Error::Downstream {
            source: Arc::new(error),
        };
    }
    Error::Reset {
        endpoint,
        source: Arc::new(error),
    }
}

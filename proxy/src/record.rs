//! One record for each request, or for each connection without visible requests: metrics and access log come from this
//! one value. It is written exactly once: by [`Request::finish`], or when it is dropped without, as *aborted*.

mod body;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::SpiffeId;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, header, request};
use tokio::time::Instant;

use crate::access_log::{AccessLog, Line};
use crate::config::snapshot::{Cluster, Endpoint, Route};
use crate::error::Error;
use crate::fault::Injected;
use crate::metrics::{ByClass, ByGrpcStatus, Count, Histogram, InboundMetrics, Metrics};
use crate::tcp::{Ended as Relay, Relayed};

pub use body::RecordedBody;

/// Which way a request goes through this proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the pod's application.
    Outbound,
    /// To the pod's application.
    Inbound,
}

impl Direction {
    /// As in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Where records go. Each worker has one of its own behind an `Arc`, so that counting references costs no other core.
#[derive(Debug, Clone)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    log: AccessLog,
}

impl Recorder {
    /// A recorder for one worker.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, log: AccessLog) -> Self {
        Self { metrics, log }
    }

    /// The metrics that it counts in.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Begins a record.
    pub fn start(
        self: &Arc<Self>,
        direction: Direction,
        protocol: api::Protocol,
        downstream: SocketAddr,
        dialled: SocketAddr,
    ) -> Request {
        Request {
            recorder: Arc::clone(self),
            ended: Ended::Dropped,
            method: None,
            authority: None,
            path: None,
            direction,
            protocol,
            started: Instant::now(),
            downstream,
            dialled,
            peer: None,
            route: None,
            rule: None,
            cluster: None,
            endpoint: None,
            inbound: None,
            fault: None,
            is_copy: false,
            tries: 0,
            status: 0,
            grpc_status: None,
            error: None,
            bytes_received: 0,
            body: None,
            bytes_sent: 0,
            snapshot: 0,
        }
    }
}

/// What is known of one request or connection. Fields are set as they become known.
#[derive(Debug)]
#[must_use = "a record that is dropped says that the request was aborted"]
pub struct Request {
    recorder: Arc<Recorder>,
    ended: Ended,
    method: Option<Method>,
    authority: Option<HeaderValue>,
    path: Option<PathAndQuery>,
    /// Which way it goes.
    pub direction: Direction,
    /// What it speaks.
    pub protocol: api::Protocol,
    /// When it arrived.
    pub started: Instant,
    /// Who connected: the application, or the caller.
    pub downstream: SocketAddr,
    /// Where to.
    pub dialled: SocketAddr,
    /// The caller's verified identity.
    pub peer: Option<Arc<SpiffeId>>,
    /// The route it followed, for the log.
    route: Option<Arc<Route>>,
    /// Which of the route's rules decided.
    pub rule: Option<usize>,
    /// The cluster it was sent to.
    pub cluster: Option<Arc<Cluster>>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Metrics of the pod's port it came for.
    pub inbound: Option<Arc<InboundMetrics>>,
    /// What its rule did to it on purpose.
    pub fault: Option<Box<Injected>>,
    /// It is a copy for a mirror, of which the application does not know.
    is_copy: bool,
    /// Tries, the first included.
    pub tries: u32,
    /// Status of the answer; 0 for none.
    pub status: u16,
    /// gRPC status of the answer.
    pub grpc_status: Option<u32>,
    /// What kept it from its answer.
    pub error: Option<Error>,
    /// Bytes of body or stream from downstream.
    pub bytes_received: u64,
    /// Those of a request's body, counted where it is read: that may begin after the answer has.
    body: Option<Rc<Cell<u64>>>,
    /// Bytes of body or stream to downstream.
    pub bytes_sent: u64,
    /// The snapshot it ran under.
    pub snapshot: u64,
}

/// How it ended.
#[derive(Debug)]
enum Ended {
    /// Nobody said: it was dropped.
    Dropped,
    /// As it should, or with `error`.
    Finished,
    /// The response broke off after it had begun.
    Broken(String),
}

/// Flag of what was dropped unfinished: the application went away, or the connection under it ended.
const ABORTED: &str = "aborted";
/// Flag of a response that broke off after it had begun.
const BROKEN: &str = "response_broken";

impl Request {
    /// Takes method, authority and path from the request, if anybody is going to read them.
    pub fn describe(&mut self, parts: &request::Parts) {
        if !self.recorder.log.is_on() {
            return;
        }
        self.method = Some(parts.method.clone());
        self.path = parts.uri.path_and_query().cloned();
        let in_uri = parts.uri.authority();
        self.authority = match in_uri {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => parts.headers.get(header::HOST).cloned(),
        };
    }

    /// Begins the record of a copy that goes to `cluster`.
    pub fn of_copy(&self, cluster: &Arc<Cluster>) -> Self {
        let mut copy = self
            .recorder
            .start(self.direction, self.protocol, self.downstream, self.dialled);
        copy.is_copy = true;
        copy.method.clone_from(&self.method);
        copy.authority.clone_from(&self.authority);
        copy.path.clone_from(&self.path);
        copy.route.clone_from(&self.route);
        copy.rule = self.rule;
        copy.cluster = Some(Arc::clone(cluster));
        copy.snapshot = self.snapshot;
        copy
    }

    /// Takes note of the route, if anybody is going to read it.
    pub fn routed(&mut self, route: &Arc<Route>) {
        if self.recorder.log.is_on() {
            self.route = Some(Arc::clone(route));
        }
    }

    /// Whether it went where it was meant to go without a rule or an error.
    fn is_passthrough(&self) -> bool {
        self.direction == Direction::Outbound && self.rule.is_none() && self.error.is_none()
    }

    /// Where the bytes of the request's body are to be counted; `None` when it has none.
    pub fn count_body(&mut self, body: &impl http_body::Body) -> Option<Rc<Cell<u64>>> {
        self.body = (!body.is_end_stream()).then(Rc::default);
        self.body.clone()
    }

    /// Takes the server name of the application's TLS as the authority.
    pub fn named(&mut self, server: &str) {
        if self.recorder.log.is_on() {
            self.authority = HeaderValue::from_str(server).ok();
        }
    }

    /// Ends the record.
    pub fn finish(mut self) {
        self.ended = Ended::Finished;
    }

    /// Ends the record of a relay.
    pub fn relayed(mut self, relayed: Relayed) {
        let Relayed {
            bytes_up,
            bytes_down,
            ended,
        } = relayed;
        self.bytes_received = bytes_up;
        self.bytes_sent = bytes_down;
        self.ended = match ended {
            Relay::Closed => Ended::Finished,
            Relay::IdleTimeout => Ended::Broken("idle for too long".into()),
            Relay::MaxDuration => Ended::Broken("open for as long as a connection may be".into()),
            Relay::DownstreamError(error) => Ended::Broken(format!("downstream: {error}")),
            Relay::UpstreamError(error) => Ended::Broken(format!("upstream: {error}")),
        };
    }

    /// Ends the record with an error.
    pub fn fail(mut self, error: Error) {
        self.error = Some(error);
        self.ended = Ended::Finished;
    }

    /// Ends the record of a response that broke off.
    pub(crate) fn broken(mut self, reason: String) {
        self.ended = Ended::Broken(reason);
    }

    fn flag(&self) -> Option<&'static str> {
        match (&self.error, &self.ended) {
            (Some(error), _) => Some(error.flag()),
            (None, Ended::Finished) => None,
            (None, Ended::Dropped) => Some(ABORTED),
            (None, Ended::Broken(_)) => Some(BROKEN),
        }
    }

    fn count(&self, duration: Duration, flag: Option<&'static str>) {
        let metrics = &self.recorder.metrics;
        match (flag, &self.cluster) {
            // That a mirror failed is no error of the application's.
            (_, Some(cluster)) if self.is_copy => {
                let metrics = &cluster.live.metrics;
                metrics.mirrored.inc();
                metrics.mirror_failures.add(u64::from(flag.is_some()));
            }
            (Some(flag), _) => metrics.error(self.direction, flag),
            (None, _) => {}
        }
        if let Some(inbound) = &self.inbound {
            let InboundMetrics {
                requests,
                latency,
                grpc,
                bytes_received,
                bytes_sent,
                ..
            } = &**inbound;
            self.count_request(duration, requests, latency, grpc);
            self.count_bytes(bytes_received, bytes_sent);
        } else if let Some(cluster) = &self.cluster {
            let metrics = &cluster.live.metrics;
            self.count_request(duration, &metrics.requests, &metrics.latency, &metrics.grpc);
            if let Some(Error::Overflow { limit, .. }) = &self.error {
                metrics.overflow.inc(limit);
            }
            // What comes from downstream is what the cluster is sent.
            self.count_bytes(&metrics.bytes_sent, &metrics.bytes_received);
        } else if self.is_passthrough() {
            let passthrough = &metrics.passthrough;
            passthrough.connections.inc();
            passthrough.bytes_sent.inc_by(self.bytes_received);
            passthrough.bytes_received.inc_by(self.bytes_sent);
        }
    }

    fn count_request(
        &self,
        duration: Duration,
        requests: &ByClass,
        latency: &Histogram,
        grpc: &ByGrpcStatus,
    ) {
        if !self.protocol.is_http() {
            return;
        }
        requests.inc(self.status);
        latency.observe(duration);
        if let Some(status) = self.grpc_status {
            grpc.inc(status);
        }
    }

    fn count_bytes(&self, received: &Count, sent: &Count) {
        if self.bytes_received > 0 {
            received.add(self.bytes_received);
        }
        if self.bytes_sent > 0 {
            sent.add(self.bytes_sent);
        }
    }

    fn line(&mut self, duration: Duration, flag: Option<&'static str>) -> Line {
        Line {
            ended: SystemTime::now(),
            duration,
            direction: self.direction.as_str(),
            protocol: protocol_name(self.protocol),
            downstream: self.downstream,
            dialled: self.dialled,
            peer: self.peer.take(),
            method: self.method.take(),
            authority: self.authority.take(),
            path: self.path.take(),
            route: self.route.take(),
            rule: self.rule,
            cluster: self.cluster.take(),
            endpoint: self.endpoint.take(),
            fault: self.fault.take(),
            is_copy: self.is_copy,
            tries: self.tries,
            status: self.status,
            grpc_status: self.grpc_status,
            flag,
            error: self.error.take(),
            reason: match &mut self.ended {
                Ended::Broken(reason) => Some(std::mem::take(reason)),
                Ended::Dropped | Ended::Finished => None,
            },
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            snapshot: self.snapshot,
        }
    }
}

fn protocol_name(protocol: api::Protocol) -> &'static str {
    match protocol {
        api::Protocol::Http1 => "http1",
        api::Protocol::Http2 => "http2",
        api::Protocol::Grpc => "grpc",
        api::Protocol::Tls => "tls",
        api::Protocol::Tcp => "tcp",
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            self.bytes_received += body.get();
        }
        let (duration, flag) = (self.started.elapsed(), self.flag());
        self.count(duration, flag);
        let recorder = Arc::clone(&self.recorder);
        recorder.log.write(|| self.line(duration, flag));
    }
}

#[cfg(test)]
mod tests;

//! Sending one request until it has an answer: permit, pick, connection, send; and again where the retry policy allows
//! it. Steps 5 to 8 of a request's way; `outbound::http` and `inbound::http` call it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api::{MeshProtocol, Protocol, Retry, TlsMode};
use http::uri::Authority;
use http::{HeaderMap, Request, Response, Version, header, request};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::balancer::{self, Outcome};
use crate::config::snapshot::{Cluster, Endpoint};
use crate::error::Error;
use crate::limits::{self, Bound, Permit};
use crate::message::{self, Tunnel};
use crate::retry::{self, Decision, RequestKind, Verdict, backoff, budget};
use crate::tunnel;
use crate::upstream::Wire;
use crate::upstream::body::{Gate, Keep, Replay, RequestBody};
use crate::upstream::pool::Lease;
use crate::upstream::response::{EndpointBody, Held, ResponseBody};
use crate::upstream::send::Failed;
use crate::worker::Worker;

/// How long a body waits for `100 Continue` (RFC 9110, 10.1.1, asks not to wait for ever).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// What the application speaks: it is carried on as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl App {
    /// What its requests are recorded as.
    #[must_use]
    pub fn protocol(self, headers: &HeaderMap) -> Protocol {
        match self {
            Self::Http1 => Protocol::Http1,
            Self::Http2 if message::is_grpc(headers) => Protocol::Grpc,
            Self::Http2 => Protocol::Http2,
        }
    }
}

/// What to send where.
#[derive(Debug)]
pub struct Sending<'a> {
    /// The cluster that the split fell on.
    pub cluster: &'a Arc<Cluster>,
    /// The rule's retry policy.
    pub retry: &'a Retry,
    /// When the whole request must have ended.
    pub deadline: Option<Instant>,
    /// What the application speaks.
    pub app: App,
    /// Upgrade or CONNECT.
    pub tunnel: Option<&'a Tunnel>,
    /// Takes the place of the request's authority.
    pub authority: Option<Authority>,
    /// The address that was dialled: the authority of requests that name none.
    pub dialled: SocketAddr,
}

/// The answer of an endpoint, with what must be held until its body has ended.
#[derive(Debug)]
pub struct Answer {
    /// Head and body.
    pub response: Response<Incoming>,
    /// The connection it comes on.
    pub lease: Lease,
    /// Counts.
    pub held: Held,
}

/// How it went so far, for the record, whatever the end.
#[derive(Debug, Default)]
pub struct Trace {
    /// Tries begun.
    pub tries: u32,
    /// The endpoint of the last one.
    pub endpoint: Option<Arc<Endpoint>>,
}

/// The retry policy of what no rule speaks of: only what provably was not processed is sent again.
#[must_use]
pub fn unless_told() -> &'static Retry {
    static DEFAULT: LazyLock<Retry> = LazyLock::new(Retry::default);
    &DEFAULT
}

/// Sends a request, as often as its retry policy and budget allow.
///
/// # Errors
/// That of the last try, or of the step that allowed no more.
pub async fn send(
    worker: &Rc<Worker>,
    request: Request<Incoming>,
    sending: Sending<'_>,
    trace: &mut Trace,
) -> Result<Answer, Error> {
    match sending.deadline {
        None => run(worker, request, &sending, trace).await,
        Some(at) => tokio::time::timeout_at(at, run(worker, request, &sending, trace))
            .await
            .unwrap_or(Err(Error::Timeout)),
    }
}

async fn run(
    worker: &Rc<Worker>,
    request: Request<Incoming>,
    sending: &Sending<'_>,
    trace: &mut Trace,
) -> Result<Answer, Error> {
    let cluster = sending.cluster;
    let permit = limits::acquire(cluster, Bound::Requests)?;
    let mut supply = Supply::new(request, sending);
    let mut tried: Vec<u64> = Vec::new();
    // The last retry's place in the budget, kept until its try has an answer.
    let mut retrying: Option<Permit> = None;
    loop {
        let avoid: &[u64] = if sending.retry.avoid_previous { &tried } else { &[] };
        let mut pick = balancer::pick(cluster, avoid, &mut *worker.rng.borrow_mut(), Instant::now())?;
        let endpoint = Arc::clone(&pick.endpoint);
        worker.picked(cluster, &pick);
        trace.tries += 1;
        trace.endpoint = Some(Arc::clone(&endpoint));
        let result = attempt(worker, sending, &endpoint, &mut supply, trace.tries).await;
        worker.settled(cluster, &endpoint, pick.settle(outcome(&result), Instant::now()));
        drop(retrying.take());
        let again = again(sending, &supply, trace.tries - 1, &result);
        let Some((why, place)) = again else {
            let (response, lease) = result.map_err(|failed| failed.error)?;
            return Ok(Answer {
                response,
                lease,
                held: Held {
                    pick: Some(pick),
                    request: Some(permit),
                },
            });
        };
        retrying = Some(place);
        drop((pick, result));
        tried.push(endpoint.live.id);
        if why.backs_off() {
            let wait = backoff::wait(sending.retry, trace.tries - 1, &mut *worker.rng.borrow_mut());
            tokio::time::sleep(wait).await;
        }
    }
}

fn outcome(result: &Tried) -> Outcome {
    match result {
        Ok((response, _)) => Outcome::of_answer(response.status(), retry::grpc_status(response.headers())),
        Err(failed) => Outcome::of_error(&failed.error),
    }
}

/// Why there is another try, with its place in the budget; `None` when the result is final.
fn again(
    sending: &Sending<'_>,
    supply: &Supply,
    retries: u32,
    result: &Tried,
) -> Option<(retry::Why, Permit)> {
    let verdict = match result {
        Ok((response, _)) => Verdict::Answer {
            status: response.status(),
            grpc: retry::grpc_status(response.headers()),
        },
        Err(failed) => Verdict::Failed {
            error: &failed.error,
            pooled: failed.reused,
        },
    };
    let kind = RequestKind {
        idempotent: supply.idempotent,
        replayable: supply.can_repeat(),
    };
    let Decision::Again(why) = retry::decide(sending.retry, retries, verdict, kind) else {
        return None;
    };
    let metrics = &sending.cluster.live.metrics;
    match budget::acquire(sending.cluster) {
        Ok(permit) => {
            metrics.retries.inc();
            tracing::debug!(cluster = %sending.cluster.name, %why, "trying again");
            Some((why, permit))
        }
        Err(exhausted) => {
            metrics.retry_budget_exhausted.inc();
            tracing::debug!(cluster = %sending.cluster.name, field = exhausted.field, "no retry: its budget is used");
            None
        }
    }
}

type Tried = Result<(Response<Incoming>, Lease), Failed>;

async fn attempt(
    worker: &Rc<Worker>,
    sending: &Sending<'_>,
    endpoint: &Arc<Endpoint>,
    supply: &mut Supply,
    number: u32,
) -> Tried {
    let unsent = |error| Failed {
        error,
        request: None,
        reused: false,
    };
    let wire = wire(worker, sending, endpoint, supply.expects_continue).map_err(unsent)?;
    let mut lease = worker
        .upstream
        .lease(sending.cluster, endpoint, wire)
        .await
        .map_err(unsent)?;
    let request = supply.take(sending, wire, number);
    let address = endpoint.spec.address;
    let answer = lease.send(request, address);
    let answer = match sending.retry.per_try_timeout {
        None => answer.await,
        Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(Failed {
                error: Error::TryTimeout { endpoint: address },
                request: None,
                reused: false,
            })
        }),
    };
    match answer {
        Ok(response) => Ok((response, lease)),
        Err(mut failed) => {
            supply.put_back(failed.request.take());
            Err(failed)
        }
    }
}

/// Whether an endpoint is reached by mutual TLS.
///
/// # Errors
/// When it must be, but the endpoint has no identity.
pub fn is_mesh(worker: &Worker, cluster: &Cluster, endpoint: &Endpoint) -> Result<bool, Error> {
    let address = endpoint.spec.address;
    // What leads back into this pod goes over its loopback, where no inbound side takes it; the proxies' own admin port
    // is never redirected either.
    if worker.settings.pod_ips.contains(&address.ip()) || address.port() == api::names::ADMIN_PORT {
        return Ok(false);
    }
    match (cluster.spec.tls, &endpoint.spec.identity) {
        (TlsMode::Disable, _) | (TlsMode::Auto, None) => Ok(false),
        (TlsMode::Auto | TlsMode::Mutual, Some(_)) => Ok(true),
        (TlsMode::Mutual, None) => Err(Error::NotMeshed {
            endpoint: endpoint.spec.address,
        }),
    }
}

/// How a request is carried to an endpoint.
fn wire(
    worker: &Worker,
    sending: &Sending<'_>,
    endpoint: &Endpoint,
    expects_continue: bool,
) -> Result<Wire, Error> {
    let cluster = sending.cluster;
    let mesh = is_mesh(worker, cluster, endpoint)?;
    // Upgrades and `100 Continue` are HTTP/1.1's own; HTTP/2 frames would hide them.
    let plain = sending.tunnel.is_some() || expects_continue || !cluster.spec.upgrade_to_http2;
    Ok(match (sending.app, mesh) {
        (App::Http1, false) => Wire::Http1,
        (App::Http2, false) => Wire::Http2,
        (App::Http1, true) if plain => Wire::Mesh(MeshProtocol::Http1),
        (App::Http1, true) => Wire::Mesh(MeshProtocol::Http1OverHttp2),
        (App::Http2, true) => Wire::Mesh(MeshProtocol::Http2),
    })
}

/// Where the tries of one request get it from: as it came, handed back unsent, or made again from what was kept.
struct Supply {
    next: Option<Request<RequestBody>>,
    kept: Option<Kept>,
    expects_continue: bool,
    idempotent: bool,
}

struct Kept {
    parts: request::Parts,
    body: KeptBody,
}

enum KeptBody {
    Empty,
    Replay(Keep),
}

impl Supply {
    fn new(request: Request<Incoming>, sending: &Sending<'_>) -> Self {
        let (mut parts, body) = request.into_parts();
        parts.extensions.clear();
        let expects_continue = parts.version < Version::HTTP_2
            && parts
                .headers
                .get(header::EXPECT)
                .is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let idempotent = retry::is_idempotent(&parts.method);
        let may_repeat = sending.retry.attempts > 0 && sending.tunnel.is_none();
        let (body, keep) = if sending.tunnel.is_some() || body.is_end_stream() {
            (RequestBody::Empty, KeptBody::Empty)
        } else if may_repeat {
            let replay = Replay::new(body);
            let keep = KeptBody::Replay(replay.keep());
            (RequestBody::Replay(replay), keep)
        } else {
            (RequestBody::Incoming(body), KeptBody::Empty)
        };
        let kept = may_repeat.then(|| Kept {
            parts: parts.clone(),
            body: keep,
        });
        Self {
            next: Some(Request::from_parts(parts, body)),
            kept,
            expects_continue,
            idempotent,
        }
    }

    /// The request, formed for the wire.
    fn take(&mut self, sending: &Sending<'_>, wire: Wire, number: u32) -> Request<RequestBody> {
        let request = self
            .next
            .take()
            .or_else(|| self.again())
            .expect("a retry was decided only with a request left");
        let (mut parts, mut body) = request.into_parts();
        let version = if wire.is_http2() {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        message::set_form(&mut parts, version, sending.authority.clone(), sending.dialled);
        if number > 1 {
            parts.headers.insert(api::names::ATTEMPT_HEADER, number.into());
        }
        if self.expects_continue && !matches!(body, RequestBody::Empty | RequestBody::Gated(..)) {
            body = gate(&mut parts, body);
        }
        Request::from_parts(parts, body)
    }

    fn again(&self) -> Option<Request<RequestBody>> {
        let kept = self.kept.as_ref()?;
        let body = match &kept.body {
            KeptBody::Empty => RequestBody::Empty,
            KeptBody::Replay(keep) => RequestBody::Replay(keep.replay()?),
        };
        Some(Request::from_parts(kept.parts.clone(), body))
    }

    fn put_back(&mut self, request: Option<Box<Request<RequestBody>>>) {
        self.next = request.map(|request| *request);
    }

    fn can_repeat(&self) -> bool {
        self.next.is_some()
            || self.kept.as_ref().is_some_and(|kept| match &kept.body {
                KeptBody::Empty => true,
                KeptBody::Replay(keep) => keep.can_replay(),
            })
    }
}

/// Holds the body back until the endpoint has said `100 Continue`; then the application hears it, for only then is its
/// body read.
fn gate(parts: &mut request::Parts, body: RequestBody) -> RequestBody {
    let gate = Gate::new();
    let mut carrier = Request::new(());
    let opened = gate.clone();
    hyper::ext::on_informational(&mut carrier, move |response| {
        if response.status() == http::StatusCode::CONTINUE {
            opened.open();
        }
    });
    parts.extensions.extend(std::mem::take(carrier.extensions_mut()));
    let late = gate.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(CONTINUE_WAIT).await;
        late.open();
    });
    RequestBody::Gated(Box::new(body), gate)
}

/// Makes the answer ready for the application: what belonged to the endpoint's connection goes; a tunnel that it opened
/// is joined to the application's side.
#[must_use]
pub fn finish(
    answer: Answer,
    tunnel: Option<(&Tunnel, OnUpgrade)>,
    deadline: Option<Instant>,
) -> Response<ResponseBody> {
    let Answer {
        mut response,
        lease,
        held,
    } = answer;
    let announced = message::announced_idle(response.headers());
    message::strip_hop_by_hop(response.headers_mut());
    let Some((tunnel, downstream)) = tunnel.filter(|(tunnel, _)| tunnel::is_open(tunnel, &response)) else {
        let body = |body| EndpointBody::new(body, lease, announced, deadline, held);
        return response.map(|incoming| ResponseBody::Endpoint(Box::new(body(incoming))));
    };
    tunnel.restore(response.headers_mut());
    let upstream = hyper::upgrade::on(&mut response);
    tunnel::join(downstream, upstream, (lease, held));
    response.map(|_| ResponseBody::Own(None))
}

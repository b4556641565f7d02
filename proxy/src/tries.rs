//! Sending one request until it has an answer: permit, pick, connection, send; and again where the retry policy allows
//! it. Steps 5 to 8 of a request's way; `outbound::http` and `inbound::http` call it.

mod attempt;
mod supply;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use api::{Protocol, Retry};
use http::uri::Authority;
use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::balancer::{self, Pick, Wanted};
use crate::config::snapshot::{Cluster, Endpoint};
use crate::error::Error;
use crate::limits::{self, Bound, Permit};
use crate::message::{self, Tunnel};
use crate::retry::{self, Decision, Verdict, backoff, budget};
use crate::tunnel;
use crate::upstream::feed::Feed;
use crate::upstream::pool::Lease;
use crate::upstream::response::{EndpointBody, Held, ResponseBody};
use crate::worker::Worker;
use attempt::{Tried, attempt, outcome};
use supply::Supply;

pub use attempt::{announcement, host_of, is_mesh};

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
    /// Hash of the key that a consistent balancer goes by.
    pub hash: Option<u64>,
    /// When the whole request must have ended.
    pub deadline: Option<Instant>,
    /// Counts the bytes of the request's body.
    pub received: Option<Rc<Cell<u64>>>,
    /// What the application speaks.
    pub app: App,
    /// Upgrade or CONNECT.
    pub tunnel: Option<&'a Tunnel>,
    /// Takes the place of the request's authority.
    pub authority: Option<Authority>,
    /// Who calls.
    pub client: &'a SocketAddr,
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
    request: Request<Feed>,
    sending: Sending<'_>,
    trace: &mut Trace,
) -> Result<Answer, Error> {
    let sending = &sending;
    let cluster = sending.cluster;
    let permit = limits::acquire(cluster, Bound::Requests)?;
    if let Some(interval) = cluster.spec.retry_budget.interval {
        cluster.live.recent.count(interval, Instant::now());
    }
    let mut supply = Supply::new(request, sending);
    let mut tried: Vec<u64> = Vec::new();
    // What the try before came to, and its place in the retry budget: kept until the next has begun, for without
    // another endpoint to try it is the answer.
    let mut before: Option<(Tried, Pick, Permit)> = None;
    loop {
        let wanted = Wanted {
            cluster,
            tried: if sending.retry.avoid_previous { &tried } else { &[] },
            hash: sending.hash,
            elsewhere: if sending.retry.avoid_previous_places {
                &tried
            } else {
                &[]
            },
        };
        let picked = balancer::pick(&wanted, &mut *worker.rng.borrow_mut(), Instant::now());
        let (mut pick, retrying) = match (picked, before.take()) {
            (Ok(pick), before) => (pick, before.map(|(_, _, place)| place)),
            (Err(_), Some((tried, pick, _))) => return answer(tried, pick, permit),
            (Err(error), None) => return Err(error),
        };
        worker.picked(cluster, &pick);
        trace.tries += 1;
        trace.endpoint = Some(Arc::clone(&pick.endpoint));
        let result = attempt(worker, sending, &pick.endpoint, &mut supply, trace.tries).await;
        let (came_to, code) = outcome(&result);
        let settled = pick.settle_answer(came_to, code, Instant::now());
        worker.settled(cluster, &pick.endpoint, settled);
        drop(retrying);
        let Some((why, place)) = again(sending, &supply, trace.tries - 1, &result) else {
            return answer(result, pick, permit);
        };
        tried.push(pick.endpoint.live.id);
        before = Some((result, pick, place));
        if why.backs_off() {
            let wait = backoff::wait(sending.retry, trace.tries - 1, &mut *worker.rng.borrow_mut());
            let wake = Instant::now() + wait;
            if sending.deadline.is_some_and(|deadline| deadline <= wake) {
                return Err(Error::Timeout);
            }
            tokio::time::sleep_until(wake).await;
        }
    }
}

fn answer(tried: Tried, pick: Pick, permit: Permit) -> Result<Answer, Error> {
    let (response, lease) = tried.map_err(|failed| failed.error)?;
    Ok(Answer {
        response,
        lease,
        held: Held {
            pick: Some(pick),
            request: Some(permit),
        },
    })
}

/// Why there is another try, with its place in the budget; `None` when the result is final.
fn again(
    sending: &Sending<'_>,
    supply: &Supply,
    retries: u32,
    result: &Tried,
) -> Option<(retry::Why, Permit)> {
    let verdict = match result {
        Ok((response, _)) => {
            let (status, headers) = (response.status(), response.headers());
            let grpc = retry::grpc_status(headers);
            Verdict::Answer {
                status,
                grpc,
                // Good answers are not looked at.
                limited: retry::is_error(status, grpc) && retry::is_limited(headers),
                named: supply.names_one_of(headers),
            }
        }
        Err(failed) => Verdict::Failed {
            error: &failed.error,
            pooled: failed.reused,
        },
    };
    let Decision::Again(why) = retry::decide(sending.retry, retries, verdict, supply.kind()) else {
        return None;
    };
    let metrics = &sending.cluster.live.metrics;
    match budget::acquire(sending.cluster, Instant::now()) {
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

/// Makes the answer ready for the application: what belonged to the endpoint's connection goes; a tunnel that it opened
/// is joined to the application's side.
#[must_use]
pub fn finish(
    worker: &Worker,
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
    // The version is this proxy's own (RFC 9110, 2.5): an endpoint of HTTP/1.0 must not end the application's connection.
    *response.version_mut() = Version::HTTP_11;
    let Some((tunnel, downstream)) = tunnel.filter(|(tunnel, _)| tunnel::is_open(tunnel, &response)) else {
        let body = |body| EndpointBody::new(body, lease, announced, deadline, held);
        return response.map(|incoming| ResponseBody::Endpoint(Box::new(body(incoming))));
    };
    tunnel.restore(response.headers_mut());
    let upstream = hyper::upgrade::on(&mut response);
    tunnel::join(downstream, upstream, (lease, held, worker.drain.hold()));
    response.map(|_| ResponseBody::Own(None))
}

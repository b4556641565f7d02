//! One request of the application, from its head to the end of its response. `respond` holds the steps in the order of
//! ARCHITECTURE.md; each is a call, and each decision is made elsewhere by a function of data.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use ::http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::time::Instant;

use super::choice::Choice;
use super::{Connection, gone};
use crate::balancer::Key;
use crate::config::snapshot::Destination;
use crate::cors::Verdict;
use crate::error::Error;
use crate::io::Io;
use crate::record::{self, Direction, RecordedBody};
use crate::route::{self, Facts};
use crate::tries::{self, App, Sending, Trace};
use crate::upstream::feed::Feed;
use crate::upstream::response::ResponseBody;
use crate::{cors, fault, message, mirror, serve};

/// Serves HTTP/1.1 on a connection of the application. No bound on the time a head takes: only the pod's own application
/// could keep itself waiting.
pub async fn serve_http1(connection: Rc<Connection>, io: Io) {
    let drain = connection.worker.drain.clone();
    let service = service_fn(move |request| handle(Rc::clone(&connection), App::Http1, request));
    serve::http1(io, service, None, drain.leaving()).await;
}

/// Serves HTTP/2 on a connection of the application.
pub async fn serve_http2(connection: Rc<Connection>, io: Io) {
    let drain = connection.worker.drain.clone();
    let service = service_fn(move |request| handle(Rc::clone(&connection), App::Http2, request));
    serve::http2(io, service, drain.leaving()).await;
}

async fn handle(
    connection: Rc<Connection>,
    app: App,
    request: Request<Incoming>,
) -> Result<Response<RecordedBody<ResponseBody>>, Infallible> {
    let recorder = &connection.worker.recorder;
    let protocol = app.protocol(request.headers());
    let mut record = recorder.start(Direction::Outbound, protocol, connection.peer, connection.dialled);
    let (parts, body) = request.into_parts();
    record.describe(&parts);
    let request = Request::from_parts(parts, body);
    // Boxed: a stream's future is moved several times until it has a task of its own, and this part is nearly all of it.
    let mut granted = None;
    let answer = Box::pin(respond(&connection, app, request, &mut record, &mut granted)).await;
    let mut response = message::told(answer, record);
    if let Some(granted) = granted {
        cors::grant(*granted, response.headers_mut());
    }
    Ok(response)
}

async fn respond(
    connection: &Rc<Connection>,
    app: App,
    mut request: Request<Incoming>,
    record: &mut record::Request,
    granted: &mut Option<Box<HeaderMap>>,
) -> Result<Response<ResponseBody>, Error> {
    let worker = &connection.worker;
    // 1 facts
    message::check(&request)?;
    // Requests on a kept connection follow the newest configuration.
    let snapshot = worker.snapshot();
    record.snapshot = snapshot.number;
    let destination = snapshot
        .destination(connection.dialled)
        .map(|entry| &entry.destination);
    let tunnel = message::wants_tunnel(&request);
    // 2 route
    let choice = match destination {
        Some(Destination::Service(route)) => {
            let decision = route::select(route, &Facts::of(&request), &mut *worker.rng.borrow_mut())?;
            record.routed(route);
            record.rule = Some(decision.rule_index);
            tracing::debug!(dialled = %connection.dialled, why = %decision, "routed");
            if let Some(cors) = &decision.rule.cors {
                match cors::decide(cors, &request) {
                    Verdict::Apart => {}
                    // Whatever the answer is, a browser may read it.
                    Verdict::Granted(headers) => *granted = Some(headers),
                    Verdict::Answered(headers) => {
                        *granted = Some(headers);
                        return Ok(Response::new(ResponseBody::Own(None)));
                    }
                }
            }
            match Choice::of(&decision, &request) {
                Ok(choice) => choice,
                Err(own_answer) => return Ok(own_answer.map(|body| ResponseBody::Own(Some(body)))),
            }
        }
        Some(Destination::Workload(workload)) => Choice::only(&workload.cluster),
        other => return Err(gone(other)),
    };
    record.cluster = Some(Arc::clone(choice.cluster));
    let deadline = choice.timeout.map(|time| Instant::now() + time);
    // 3 policy: nothing yet but what goes wrong on purpose
    if let Some(fault) = choice.fault {
        Box::pin(fault::inject(worker, fault, deadline, record)).await?;
    }
    // 4 filters
    message::strip_hop_by_hop(request.headers_mut());
    choice.change_request(&mut request);
    if let Some(tunnel) = &tunnel {
        tunnel.restore(request.headers_mut());
    }
    let client = connection.peer.ip();
    let key = Key::of(choice.cluster, &request, client, &mut *worker.rng.borrow_mut());
    // 5 to 8: cluster, balance, upstream, send
    let upgrade = tunnel.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let request = if choice.mirrors.is_empty() || tunnel.is_some() {
        request.map(Feed::Application)
    } else {
        mirror::begin(connection, app, &choice, request, record)
    };
    let sending = Sending {
        cluster: choice.cluster,
        retry: choice.retry,
        hash: key.hash,
        deadline,
        received: record.count_body(request.body()),
        app,
        tunnel: tunnel.as_ref(),
        authority: choice.authority.clone(),
        client: &connection.peer,
        dialled: connection.dialled,
    };
    let mut trace = Trace::default();
    let answer = tries::send(worker, request, sending, &mut trace).await;
    record.tries = trace.tries;
    record.endpoint = trace.endpoint;
    // 9 respond
    let mut response = tries::finish(worker, answer?, tunnel.as_ref().zip(upgrade), deadline);
    choice.change_response(response.headers_mut());
    if let Some(injected) = &record.fault {
        injected.tell(response.headers_mut());
    }
    key.tell(response.headers_mut());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F: Future>(_: impl Fn(Rc<Connection>, App, Request<Incoming>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_a_request_carries_stays_small() {
        let size = size_of_future(handle);
        assert!(size <= 1200, "{size} bytes");
    }
}

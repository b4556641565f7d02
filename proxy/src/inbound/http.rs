//! One request for the pod's application: who sends it is told to the application, and it is sent as the application
//! speaks, whatever carried it here.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use ::http::header::HeaderName;
use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;

use super::Connection;
use crate::error::Error;
use crate::io::Io;
use crate::record::{self, Direction, RecordedBody};
use crate::tries::{self, App, Sending, Trace};
use crate::upstream::feed::Feed;
use crate::upstream::response::ResponseBody;
use crate::{message, serve};

const PEER: HeaderName = HeaderName::from_static(api::names::PEER_HEADER);
/// A peer outside the mesh must have sent a whole head within this time; between two requests as well.
pub(super) const HEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(75);

/// Serves HTTP/1.1 of a peer.
pub async fn serve_http1(connection: Rc<Connection>, io: Io) {
    connection.taken();
    let drain = connection.worker.drain.clone();
    let timeout = connection.identity.is_none().then_some(HEAD_TIMEOUT);
    let service = service_fn(move |request| handle(Rc::clone(&connection), App::Http1, request));
    serve::http1(io, service, timeout, drain.closing()).await;
}

/// Serves HTTP/2 of a peer; `app` is what the application at its end and ours speaks.
pub async fn serve_http2(connection: Rc<Connection>, io: Io, app: App) {
    connection.taken();
    let drain = connection.worker.drain.clone();
    let service = service_fn(move |request| handle(Rc::clone(&connection), app, request));
    serve::http2(io, service, drain.closing()).await;
}

async fn handle(
    connection: Rc<Connection>,
    app: App,
    request: Request<Incoming>,
) -> Result<Response<RecordedBody<ResponseBody>>, Infallible> {
    let recorder = &connection.worker.recorder;
    let protocol = app.protocol(request.headers());
    let mut record = recorder.start(Direction::Inbound, protocol, connection.peer, connection.dialled);
    record.peer.clone_from(&connection.identity);
    record.inbound = Some(Arc::clone(&connection.metrics));
    let (parts, body) = request.into_parts();
    record.describe(&parts);
    let request = Request::from_parts(parts, body);
    // Boxed: a stream's future is moved several times until it has a task of its own, and this part is nearly all of it.
    let answer = Box::pin(respond(&connection, app, request, &mut record)).await;
    Ok(message::told(answer, record))
}

async fn respond(
    connection: &Rc<Connection>,
    app: App,
    mut request: Request<Incoming>,
    record: &mut record::Request,
) -> Result<Response<ResponseBody>, Error> {
    let worker = &connection.worker;
    message::check(&request)?;
    let tunnel = message::wants_tunnel(&request);
    let cluster = worker.local(connection.dialled);
    message::strip_hop_by_hop(request.headers_mut());
    if let Some(tunnel) = &tunnel {
        tunnel.restore(request.headers_mut());
    }
    match &connection.told {
        Some(peer) => drop(request.headers_mut().insert(PEER, peer.clone())),
        // Nobody but this proxy says who a peer is.
        None => drop(request.headers_mut().remove(PEER)),
    }
    let upgrade = tunnel.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let sending = Sending {
        cluster: &cluster,
        retry: tries::unless_told(),
        hash: None,
        deadline: None,
        received: record.count_body(request.body()),
        app,
        tunnel: tunnel.as_ref(),
        authority: None,
        client: &connection.peer,
        dialled: connection.dialled,
    };
    let mut trace = Trace::default();
    let answer = tries::send(worker, request.map(Feed::Application), sending, &mut trace).await;
    record.tries = trace.tries;
    record.endpoint = trace.endpoint;
    let mut response = tries::finish(worker, answer?, tunnel.as_ref().zip(upgrade), None);
    // The application must not speak for its proxy: callers act on what proxies say.
    message::silence(response.headers_mut());
    Ok(response)
}

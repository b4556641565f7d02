//! The control port: counters, the last requests, and the switch for failures.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tests::app::Mode;
use tokio::net::TcpListener;

use crate::state::State;

/// Serves control until the process ends.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _peer)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let answer = answer(&state, &request);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn answer(state: &State, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
    match (request.method(), path) {
        (&Method::GET, "/control/counters") => json(&state.counters()),
        (&Method::GET, "/control/requests") => json(&state.seen()),
        (&Method::POST, _) => match Mode::from_path(path, query) {
            Ok(mode) => {
                state.set_mode(mode);
                json(&mode)
            }
            Err(reason) => refuse(StatusCode::BAD_REQUEST, &reason),
        },
        _ => refuse(
            StatusCode::NOT_FOUND,
            "GET /control/counters or /control/requests, POST /control/{ok,fail,slow,hang,reset}",
        ),
    }
}

pub(crate) fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Response::new(Full::from(bytes)),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(crate) fn refuse(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{reason}\n")));
    *response.status_mut() = status;
    response
}

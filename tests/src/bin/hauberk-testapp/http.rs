//! The HTTP paths: each behaves in one way that a mesh may get wrong.
//!
//! Any other path answers with the application's identity and the request as it arrived.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tests::app::{Answer, Mode, POD_HEADER, SERVICE_HEADER, Seen, VERSION_HEADER};

use crate::accept::{Body, Connection};
use crate::state::State;
use crate::upgrade;

/// The trailer of `/trailers`.
const APP_TRAILER: HeaderName = HeaderName::from_static("x-app-trailer");
/// The pause between the pieces of `/chunked`.
const BETWEEN_CHUNKS: Duration = Duration::from_millis(10);
const PIECE: usize = 16 * 1024;
/// What `/close` promises, and what it sends.
const PROMISED: &str = "1000";

/// Answers one request, after the failure mode had its way.
pub(crate) async fn answer(
    state: Arc<State>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    state.request();
    let seen = seen(&request, &connection);
    state.remember(seen.clone());
    let mut response = match obey(&state, &connection).await {
        Some(status) => plain(status, "told to fail\n"),
        None => route(&state, seen, request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (SERVICE_HEADER, &state.service),
        (VERSION_HEADER, &state.version),
        (POD_HEADER, &state.pod),
    ] {
        // A name from the command line that cannot stand in a header is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Carries out the failure mode. Returns the status to fail with, or nothing to go on; may never return.
pub(crate) async fn obey(state: &State, connection: &Connection) -> Option<StatusCode> {
    match state.mode() {
        Mode::Ok => None,
        Mode::Slow(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            None
        }
        Mode::Fail(status) => {
            state.failed();
            Some(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE))
        }
        Mode::Hang => {
            state.failed();
            std::future::pending().await
        }
        Mode::Reset => {
            state.failed();
            connection.reset.notify_one();
            std::future::pending().await
        }
    }
}

async fn route(state: &State, seen: Seen, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts[..] {
        ["status", code] => match code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()) {
            Some(status) => identity(state, seen, status),
            None => plain(StatusCode::BAD_REQUEST, "/status/{code}: expected 100 to 999\n"),
        },
        ["delay", millis] => match millis.parse() {
            Ok(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                identity(state, seen, StatusCode::OK)
            }
            Err(_) => plain(StatusCode::BAD_REQUEST, "/delay/{ms}: expected a number\n"),
        },
        ["flaky", key, failures] => match failures.parse::<u64>() {
            Ok(failures) if state.tries(key) < failures => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "not yet\n")
            }
            Ok(_) => identity(state, seen, StatusCode::OK),
            Err(_) => plain(
                StatusCode::BAD_REQUEST,
                "/flaky/{key}/{failures}: expected a number\n",
            ),
        },
        ["bytes", count] => match count.parse() {
            Ok(count) => bytes(count),
            Err(_) => plain(StatusCode::BAD_REQUEST, "/bytes/{n}: expected a number\n"),
        },
        ["chunked"] => chunked(5),
        ["chunked", count] => match count.parse() {
            Ok(count) => chunked(count),
            Err(_) => plain(StatusCode::BAD_REQUEST, "/chunked/{n}: expected a number\n"),
        },
        ["echo"] => echo(request),
        ["trailers"] => trailers(),
        ["close"] => broken(),
        ["expect"] => measure(request).await,
        ["expect", "refuse"] => plain(StatusCode::EXPECTATION_FAILED, "not wanted\n"),
        ["ws"] => upgrade::websocket(request),
        _ => identity(state, seen, StatusCode::OK),
    }
}

fn seen(request: &Request<Incoming>, connection: &Connection) -> Seen {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let entry = headers.entry(name.as_str().to_owned()).or_default();
        if !entry.is_empty() {
            *entry += ", ";
        }
        *entry += &value;
    }
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned());
    Seen {
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map_or_else(|| "*".to_owned(), ToString::to_string),
        http: format!("{:?}", request.version()),
        host: authority
            .or_else(|| headers.get("host").cloned())
            .unwrap_or_default(),
        peer: connection.peer,
        headers,
    }
}

fn identity(state: &State, request: Seen, status: StatusCode) -> Response<Body> {
    let State {
        service,
        version,
        pod,
        ..
    } = state;
    let answer = Answer {
        service: service.clone(),
        version: version.clone(),
        pod: pod.clone(),
        request,
    };
    let text = serde_json::to_string(&answer).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    let mut response = plain(status, &format!("{text}\n"));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(text.to_owned()));
    // These have no body by definition.
    if status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        response = Response::new(empty());
    }
    *response.status_mut() = status;
    response
}

/// The request's body as it comes, trailers included.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
    for name in [CONTENT_TYPE, TRAILER] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

fn trailers() -> Response<Body> {
    let mut fields = HeaderMap::new();
    fields.insert(APP_TRAILER, HeaderValue::from_static("kept"));
    let frames = [
        Frame::data(Bytes::from_static(b"before the trailers\n")),
        Frame::trailers(fields),
    ];
    let body = StreamBody::new(stream::iter(frames.map(Ok)));
    let mut response = Response::new(body.boxed_unsync());
    response
        .headers_mut()
        .insert(TRAILER, HeaderValue::from_static("x-app-trailer"));
    response
}

/// `count` pieces with a pause before each, so that a proxy that gathers them is found out.
fn chunked(count: u32) -> Response<Body> {
    let pieces = stream::unfold(0, move |number| async move {
        if number == count {
            return None;
        }
        tokio::time::sleep(BETWEEN_CHUNKS).await;
        Some((
            Ok(Frame::data(Bytes::from(format!("chunk {number}\n")))),
            number + 1,
        ))
    });
    Response::new(StreamBody::new(pieces).boxed_unsync())
}

/// `count` bytes of a pattern with a length that does not divide any buffer: byte n is n mod 251.
fn bytes(count: u64) -> Response<Body> {
    let pieces = stream::unfold(0_u64, move |sent| async move {
        let length = (count - sent).min(PIECE as u64);
        if length == 0 {
            return None;
        }
        let piece: Vec<u8> = (sent..sent + length).map(|at| (at % 251) as u8).collect();
        Some((Ok(Frame::data(Bytes::from(piece))), sent + length))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(count));
    response
}

/// Promises more than it sends, then breaks off.
fn broken() -> Response<Body> {
    let pieces = stream::unfold(false, |sent| async move {
        if sent {
            // Long enough that the piece before is on its way, or the error would overtake it.
            tokio::time::sleep(BETWEEN_CHUNKS).await;
            return Some((Err("told to break off".into()), true));
        }
        Some((Ok(Frame::data(Bytes::from_static(b"only this\n"))), true))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from_static(PROMISED));
    response
}

/// Reads the whole body (which makes hyper send `100 Continue` first, where it was asked for) and says how much it was.
async fn measure(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut received = 0_u64;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => received += frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(error) => return plain(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}\n")),
        }
    }
    plain(StatusCode::OK, &format!("{{\"received\":{received}}}\n"))
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(text: String) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

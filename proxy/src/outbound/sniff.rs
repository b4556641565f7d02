//! What the application speaks on a connection: as its Service declares, or as its first bytes say. Where nothing is
//! declared and the client keeps silent, the server may be the one to speak first: a connection to it is opened, and who
//! speaks first decides. Servers that spoke first are remembered, and never waited for again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::Protocol;
use tokio::time::{Instant, timeout};

use super::opaque::{self, Opened};
use super::{Connection, Target};
use crate::detect::tls::{ClientHello, ClientHelloError};
use crate::detect::{self, Detected};
use crate::error::Error;
use crate::io::{Filled, Io};
use crate::record::Direction;
use crate::{message, serve};

/// A client that has something to say says it within this time, as a rule; then the server is tried.
const SILENCE: Duration = Duration::from_millis(50);
/// How long it is remembered that a server speaks first.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long the first bytes are waited for before a connection is refused.
const REFUSE_WAIT: Duration = Duration::from_secs(1);

/// What is spoken, with the connection at its start.
#[derive(Debug)]
pub enum Spoken {
    /// HTTP/1.
    Http1(Io),
    /// HTTP/2 with prior knowledge.
    Http2(Io),
    /// Bytes: TLS with its server name, or anything else.
    Opaque {
        /// The application's side.
        io: Io,
        /// Server name of the application's TLS.
        sni: Option<String>,
        /// Already open, when it had to be to find out.
        upstream: Option<Box<Opened>>,
    },
    /// The application closed without a word.
    Nothing,
}

/// Finds out what is spoken.
///
/// # Errors
/// When the application's side breaks before it is known.
pub async fn spoken(connection: &Rc<Connection>, io: Io, target: &Target) -> std::io::Result<Spoken> {
    let spoken = find_out(connection, io, target).await;
    let counts = &connection.worker.recorder.metrics().detect;
    match &spoken {
        Ok(Spoken::Http1(_)) => &counts.http1,
        Ok(Spoken::Http2(_)) => &counts.http2,
        Ok(Spoken::Opaque { sni: Some(_), .. }) => &counts.tls,
        Ok(Spoken::Opaque { sni: None, .. }) => &counts.opaque,
        Ok(Spoken::Nothing) | Err(_) => &counts.closed,
    }
    .inc();
    spoken
}

async fn find_out(connection: &Rc<Connection>, mut io: Io, target: &Target) -> std::io::Result<Spoken> {
    let patience = connection.worker.settings.detect_timeout;
    match target.protocol() {
        Some(Protocol::Tcp) => Ok(opaque(io, None)),
        Some(Protocol::Http1 | Protocol::Http2 | Protocol::Grpc) => {
            // The time until a first request is the application's own affair, as it is between two.
            let verdict = tokio::select! {
                verdict = verdict(&mut io) => verdict?,
                () = connection.worker.drain.leaving() => return Ok(Spoken::Nothing),
            };
            Ok(match verdict {
                Some(Detected::Http2) => Spoken::Http2(io),
                // A declaration that is wrong in the way that is met most often; the bytes are passed on as they are.
                Some(Detected::Tls) => return by_verdict(connection, io, Some(Detected::Tls), None).await,
                // What is not HTTP gets HTTP's own answer to nonsense: 400.
                Some(_) => Spoken::Http1(io),
                None => Spoken::Nothing,
            })
        }
        Some(Protocol::Tls) => match timeout(patience, verdict(&mut io)).await {
            Ok(verdict) => by_verdict(connection, io, verdict?, None).await,
            Err(_) => Ok(opaque(io, None)),
        },
        None if remembered(connection, target) => Ok(opaque(io, None)),
        None => undeclared(connection, io, target).await,
    }
}

fn opaque(io: Io, upstream: Option<Box<Opened>>) -> Spoken {
    Spoken::Opaque {
        io,
        sni: None,
        upstream,
    }
}

async fn undeclared(connection: &Rc<Connection>, mut io: Io, target: &Target) -> std::io::Result<Spoken> {
    if let Ok(verdict) = timeout(SILENCE, verdict(&mut io)).await {
        return by_verdict(connection, io, verdict?, None).await;
    }
    let patience = connection.worker.settings.detect_timeout;
    let Ok(mut opened) = opaque::open(connection, target, None).await else {
        // Nobody to ask. An HTTP client will hear why when it has sent its request.
        return match timeout(patience, verdict(&mut io)).await {
            Ok(verdict) => by_verdict(connection, io, verdict?, None).await,
            Err(_) => Ok(Spoken::Nothing),
        };
    };
    tokio::select! {
        verdict = timeout(patience, verdict(&mut io)) => match verdict {
            Ok(verdict) => by_verdict(connection, io, verdict?, Some(opened)).await,
            Err(_) => Ok(opaque(io, Some(opened))),
        },
        spoke = opened.io.fill(detect::MOST_BYTES) => {
            if matches!(spoke, Ok(Filled::More)) {
                remember(connection, target);
            }
            Ok(opaque(io, Some(opened)))
        }
    }
}

async fn by_verdict(
    connection: &Rc<Connection>,
    mut io: Io,
    verdict: Option<Detected>,
    upstream: Option<Box<Opened>>,
) -> std::io::Result<Spoken> {
    Ok(match verdict {
        None if upstream.is_none() => Spoken::Nothing,
        Some(Detected::Http1) => Spoken::Http1(io),
        Some(Detected::Http2) => Spoken::Http2(io),
        Some(Detected::Tls) => {
            let hello = timeout(connection.worker.settings.detect_timeout, client_hello(&mut io)).await;
            let sni = hello
                .ok()
                .transpose()?
                .flatten()
                .and_then(|hello| hello.sni)
                .map(|name| name.as_str().to_owned());
            // A route may choose by server name, so a connection opened without one is of no use.
            Spoken::Opaque {
                io,
                sni,
                upstream: None,
            }
        }
        Some(Detected::Opaque | Detected::NeedMore) | None => opaque(io, upstream),
    })
}

/// Reads until the first bytes are enough; `None` when the connection ended before the first.
///
/// # Errors
/// When the connection breaks.
pub async fn verdict(io: &mut Io) -> std::io::Result<Option<Detected>> {
    loop {
        match detect::detect(io.prefix()) {
            Detected::NeedMore => {}
            verdict => return Ok(Some(verdict)),
        }
        if io.fill(detect::MOST_BYTES).await? != Filled::More {
            return Ok(if io.prefix().is_empty() {
                None
            } else {
                Some(Detected::Opaque)
            });
        }
    }
}

/// Reads until the ClientHello is whole; `None` when it is none.
///
/// # Errors
/// When the connection breaks.
pub async fn client_hello(io: &mut Io) -> std::io::Result<Option<ClientHello>> {
    loop {
        match detect::tls::client_hello(io.prefix()) {
            Ok(hello) => return Ok(Some(hello)),
            Err(ClientHelloError::NeedMore) => {}
            Err(ClientHelloError::Invalid(_)) => return Ok(None),
        }
        if io.fill(detect::tls::LONGEST_HELLO).await? != Filled::More {
            return Ok(None);
        }
    }
}

fn remembered(connection: &Connection, target: &Target) -> bool {
    let speaks_first = connection.worker.speaks_first.borrow();
    speaks_first
        .get(&target.name())
        .is_some_and(|seen| seen.elapsed() < REMEMBERED)
}

fn remember(connection: &Connection, target: &Target) {
    let name = target.name();
    let mut speaks_first = connection.worker.speaks_first.borrow_mut();
    if speaks_first.insert(Arc::clone(&name), Instant::now()).is_none() {
        tracing::info!(
            target = %name,
            "the server speaks first: passed on as TCP from now on; name the port `tcp-…` to say so"
        );
    }
    speaks_first.retain(|_, seen| seen.elapsed() < REMEMBERED);
}

/// Ends a connection that cannot be served; an HTTP client is told why.
pub async fn refuse(connection: &Rc<Connection>, mut io: Io, error: Error) {
    tracing::info!(dialled = %connection.dialled, peer = %connection.peer, %error, "connection refused");
    connection
        .worker
        .recorder
        .metrics()
        .error(Direction::Outbound, error.flag());
    let Ok(Ok(Some(verdict))) = timeout(REFUSE_WAIT, verdict(&mut io)).await else {
        return;
    };
    answer_all(io, verdict, error, connection.worker.drain.leaving()).await;
}

/// Answers every request on a connection with an error; closes one that carries none.
pub async fn answer_all(io: Io, verdict: Detected, error: Error, closing: impl Future<Output = ()>) {
    let service = hyper::service::service_fn(move |request: ::http::Request<hyper::body::Incoming>| {
        let response = message::error_response(&error, message::is_grpc(request.headers()));
        std::future::ready(Ok(response.map(http_body_util::Full::new)))
    });
    match verdict {
        Detected::Http1 => serve::http1(io, service, Some(REFUSE_WAIT), closing).await,
        Detected::Http2 => serve::http2(io, service, closing).await,
        Detected::Tls | Detected::Opaque | Detected::NeedMore => {}
    }
}

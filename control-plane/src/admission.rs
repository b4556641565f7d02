//! What the API server asks before it keeps an object: to put a proxy into a pod (`/inject`), and whether one of our own
//! objects is good (`/validate`). HTTPS with the authority's certificate; `ca_bundle` tells the API server its root.
//!
//! Both answers are pure functions of the request and of what is known already, so a request with `dryRun` is like any
//! other. What cannot be answered now gets HTTP 503, and the API server then does as the webhook's failure policy says.

mod ca_bundle;
mod inject;
mod review;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::accept;
use crate::admin::SourceReport;
use crate::authority::ServerIdentity;
use crate::metrics::{AdmissionMetrics, Answered, Asked};
use review::Answer;

pub use ca_bundle::keep_ca_bundle;
pub use inject::{Injector, Outcome};

/// Bytes of one request. The API server takes objects of 3 MiB, and an update has the old one beside the new one.
const MAX_BODY: usize = 8 << 20;
/// Requests that are read or answered at once: what bounds the memory for them.
const MAX_REQUESTS: usize = 32;
/// Connections at once. API servers are few, but each request under way needs a connection.
const MAX_CONNECTIONS: usize = 512;
/// Time for a request to arrive, and for its turn to come.
const ARRIVAL: Duration = Duration::from_secs(5);
/// A connection without a request for so long is closed. API servers close theirs after 90 s, and are to be first.
const IDLE: Duration = Duration::from_secs(120);
/// How long an object that the source has not told of yet is waited for.
const CATCH_UP: Duration = Duration::from_secs(2);

/// What the webhooks answer with.
#[derive(Clone)]
pub struct Admission {
    /// The source.
    pub source: watch::Receiver<SourceReport>,
    /// Puts proxies into pods.
    pub injector: Injector,
    /// Counts.
    pub metrics: AdmissionMetrics,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admission")
    }
}

/// Why there is no answer.
#[derive(Debug)]
enum Failed {
    /// The request is not one that belongs here.
    Malformed(String),
    /// It is too large.
    TooLarge,
    /// It cannot be told now.
    Unavailable(String),
}

impl Admission {
    /// Serves until `stop`; then waits for the requests under way.
    ///
    /// # Errors
    /// When the server cannot go on; what single clients do is no such reason.
    pub async fn serve(
        self,
        listener: TcpListener,
        identity: Arc<ServerIdentity>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let failed = self.metrics.failed_handshakes.clone();
        let tls = identity.tls(&[b"http/1.1"]);
        let mut connections = accept::accept(listener, tls, failed.clone(), |stream| async { Ok(stream) });
        let router = router(self);
        let (tell, told) = watch::channel(false);
        let mut open = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                stream = connections.recv() => match stream {
                    Some(stream) if open.len() < MAX_CONNECTIONS => {
                        open.spawn(connection(stream, router.clone(), told.clone()));
                    }
                    Some(_) => {
                        failed.inc();
                        tracing::warn!("closed a connection to the webhooks: {MAX_CONNECTIONS} are open");
                    }
                    None => anyhow::bail!("webhook: accepting connections has ended"),
                },
                Some(_) = open.join_next() => {}
            }
        }
        // Also closes the listener.
        drop(connections);
        tell.send_replace(true);
        while open.join_next().await.is_some() {}
        Ok(())
    }
}

/// Serves one connection; when told to stop, the request under way is the last.
async fn connection(stream: TlsStream<TcpStream>, router: Router, mut told: watch::Receiver<bool>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let stop = async move { drop(told.wait_for(|told| *told).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the webhooks has ended");
    }
}

#[derive(Clone)]
struct Shared {
    admission: Admission,
    slots: Arc<Semaphore>,
}

fn router(admission: Admission) -> Router {
    Router::new()
        .route("/inject", post(inject))
        .route("/validate", post(validate))
        .with_state(Shared {
            admission,
            slots: Arc::new(Semaphore::new(MAX_REQUESTS)),
        })
}

async fn inject(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let answer = async {
        let (request, _slot) = shared.read(request).await?;
        let answer = inject::answer(&shared.admission, &request).await?;
        Ok((request, answer))
    };
    shared.respond(Asked::inject, answer.await)
}

async fn validate(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let answer = async {
        let (request, _slot) = shared.read(request).await?;
        let source = shared.admission.source.borrow().clone();
        if !source.loaded {
            let text = "the operator has not read all objects yet";
            return Err(Failed::Unavailable(text.to_owned()));
        }
        let answer = validate::judge(&source.world, &request).map_err(Failed::Malformed)?;
        Ok((request, answer))
    };
    shared.respond(Asked::validate, answer.await)
}

impl Shared {
    /// Reads a request when its turn has come; the turn lasts until the second value is dropped.
    async fn read(
        &self,
        request: Request<Body>,
    ) -> Result<(review::Request, tokio::sync::OwnedSemaphorePermit), Failed> {
        let late = |_| Failed::Unavailable("too many requests are under way".to_owned());
        let slot = timeout(ARRIVAL, self.slots.clone().acquire_owned())
            .await
            .map_err(late)?
            .expect("it is never closed");
        let slow = |_| Failed::Malformed(format!("its body has not arrived within {} s", ARRIVAL.as_secs()));
        let body = timeout(ARRIVAL, to_bytes(request.into_body(), MAX_BODY))
            .await
            .map_err(slow)?;
        let body = body.map_err(|error| {
            let too_large = std::error::Error::source(&error)
                .is_some_and(|source| source.to_string().contains("length limit"));
            if too_large {
                Failed::TooLarge
            } else {
                Failed::Malformed(format!("its body has not arrived: {error}"))
            }
        })?;
        let request = review::read(&body).map_err(Failed::Malformed)?;
        Ok((request, slot))
    }

    fn respond(&self, path: Asked, answer: Result<(review::Request, Answer), Failed>) -> Response {
        let count = |outcome| self.admission.metrics.count(path, outcome);
        let refuse = |code, outcome, text: String| {
            count(outcome);
            tracing::warn!(?path, code = %code, problem = text, "a request of the API server was not answered");
            (code, text + "\n").into_response()
        };
        match answer {
            Ok((request, answer)) => {
                count(match &answer {
                    Answer::Allow(warnings) if warnings.is_empty() => Answered::allowed,
                    Answer::Allow(_) => Answered::warned,
                    Answer::Patch(..) => Answered::patched,
                    Answer::Refuse(_) => Answered::refused,
                });
                if let Answer::Refuse(reason) = &answer {
                    let review::Request { namespace, name, .. } = &request;
                    tracing::info!(
                        ?path,
                        kind = request.kind.kind,
                        namespace,
                        name,
                        reason,
                        "refused an object"
                    );
                }
                Json(answer.into_review(&request.uid)).into_response()
            }
            Err(Failed::Malformed(text)) => refuse(StatusCode::BAD_REQUEST, Answered::malformed, text),
            Err(Failed::TooLarge) => refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                Answered::malformed,
                format!("the request has more than {MAX_BODY} bytes"),
            ),
            Err(Failed::Unavailable(text)) => {
                refuse(StatusCode::SERVICE_UNAVAILABLE, Answered::unavailable, text)
            }
        }
    }
}

#[cfg(test)]
mod tests;

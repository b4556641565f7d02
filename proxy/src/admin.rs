//! The admin server: health, metrics, views of the configuration, and the application's probes, on the background
//! thread. It answers from what the other modules publish and changes nothing.

mod explain;
mod health;
mod views;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::names;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::Handle;
use crate::drain::Drain;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::probes::{Outcome, Prober};
use crate::settings::Settings;

/// Connections served at once.
const CONNECTIONS: usize = 64;
/// How long a request's headers may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one connection, with its one request, may take, beside the longest probe.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

const PATHS: &[&str] = &[
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/config",
    "/clusters",
    "/explain?url=<url>",
    "/probe/<container>/<startup|readiness|liveness>",
];

/// The admin server, before it serves.
#[derive(Debug, Clone)]
pub struct Admin {
    config: Handle,
    identity: Identity,
    metrics: Arc<Metrics>,
    operator: Arc<str>,
    /// The pod's, in which short names of Services are looked up.
    namespace: Arc<str>,
    /// The pod's address, if it is known.
    client: Option<IpAddr>,
    drain: Drain,
    prober: Prober,
    started: Instant,
}

impl Admin {
    /// A server that shows these. `drain` says when the proxy is shutting down, and must not be ready any more.
    #[must_use]
    pub fn new(
        config: Handle,
        identity: Identity,
        metrics: Arc<Metrics>,
        settings: &Settings,
        drain: Drain,
    ) -> Self {
        Self {
            config,
            identity,
            metrics,
            operator: settings.operator.as_str().into(),
            namespace: settings.namespace.as_str().into(),
            client: settings.pod_ips.first().copied(),
            drain,
            prober: Prober::new(settings),
            started: Instant::now(),
        }
    }

    /// Listens on `address`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("admin address {address}: {e}"));
        TcpListener::bind(address).await.map_err(named)
    }

    /// Serves for as long as it is polled. Each connection carries one request, so that nobody can hold on to the few
    /// there are and keep the platform's probes out.
    pub async fn serve(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let longest = CONNECTION_TIMEOUT.saturating_add(self.prober.longest());
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("never closed");
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of files, say: accepting at once again would only spin.
                    tracing::warn!(%error, "admin server cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let admin = admin.clone();
                    async move {
                        let (parts, _body) = request.into_parts();
                        Ok::<_, Infallible>(admin.answer(&parts).await)
                    }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                match tokio::time::timeout(longest, connection).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "admin connection ended"),
                    Err(_) => tracing::debug!("admin connection took too long"),
                }
                drop(permit);
            });
        }
    }

    async fn answer(&self, asked: &request::Parts) -> Response<Full<Bytes>> {
        let (method, path, headers) = (&asked.method, asked.uri.path(), &asked.headers);
        if method != Method::GET && method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
        if let Some(name) = path.strip_prefix(names::PROBE_PATH) {
            return self.probe(name, headers).await;
        }
        match path {
            "/health" => json(StatusCode::OK, &self.health()),
            // What answers is alive: the thread that runs configuration and certificates is this one.
            "/health/live" | "/live" => text(StatusCode::OK, "live\n".to_owned()),
            "/health/ready" | "/ready" => self.ready(),
            "/metrics" => self.metrics(),
            "/config" => match self.config.view().await {
                Some(resources) => json(StatusCode::OK, &self.config_view(resources)),
                None => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "configuration has stopped\n".to_owned(),
                ),
            },
            "/clusters" => json(StatusCode::OK, &views::clusters(&self.config.load())),
            "/explain" => self.explain(asked.uri.query()),
            _ => {
                let paths = PATHS.join("\n");
                text(
                    StatusCode::NOT_FOUND,
                    format!("nothing here; there is\n{paths}\n"),
                )
            }
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let missing = self.not_ready();
        if missing.is_empty() {
            return text(StatusCode::OK, "ready\n".to_owned());
        }
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", missing.join("; ")),
        )
    }

    async fn probe(&self, name: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        match self.prober.probe(name, headers.get(header::USER_AGENT)).await {
            Outcome::Passed(seen) => text(StatusCode::OK, format!("{seen}\n")),
            Outcome::Failed(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            Outcome::Unknown(all) => {
                let all = all.join("\n");
                text(
                    StatusCode::NOT_FOUND,
                    format!("no such probe in HAUBERK_PROBES; there is\n{all}\n"),
                )
            }
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.encode() {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                let kind =
                    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(body) {
        Ok(mut body) => {
            body.push(b'\n');
            respond(status, "application/json", body.into())
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;

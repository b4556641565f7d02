//! The operator's view of itself over HTTP: health, metrics, status, and what single proxies have. Read only, and served
//! apart from the proxies' port, so that it answers also while the operator is still starting.

mod client;
mod health;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::authority::Authority;
use crate::metrics::Metrics;
use crate::push::HubHandle;
use crate::source::Feed;
use crate::state::World;
use crate::status::{FileProblem, Local, Status, Unreadable};

pub use client::status as ask_status;
pub use health::{Dependency, Disk, Health, Process, Standing};

/// What the source has to say of itself.
#[derive(Debug, Clone, Default)]
pub struct SourceReport {
    /// Whether everything has been read once.
    pub loaded: bool,
    /// When something changed last.
    pub changed: Option<Instant>,
    /// Files that could not be read as objects.
    pub problems: Vec<FileProblem>,
    /// Objects that the API server holds and nobody can read.
    pub unreadable: Vec<Unreadable>,
    /// How each kind is followed; `None` for a source that has nothing to follow.
    pub feeds: Option<watch::Receiver<Vec<Feed>>>,
    /// Everything that could be read.
    pub world: Arc<World>,
}

/// What the admin server shows.
#[derive(Debug)]
pub struct Admin {
    /// Proxies and what they have.
    pub hub: HubHandle,
    /// The authority.
    pub authority: Arc<Authority>,
    /// Metrics.
    pub metrics: Metrics,
    /// The source.
    pub source: watch::Receiver<SourceReport>,
    /// When the operator started.
    pub started: Instant,
}

impl Admin {
    /// Serves until `stop`.
    ///
    /// # Errors
    /// When the server cannot go on.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        axum::serve(listener, router(Arc::new(self)))
            .with_graceful_shutdown(stop)
            .await
    }

    /// Counted when asked for: a change costs what it changes, and counting costs what there is.
    fn count_objects(&self) {
        let source = self.source.borrow().clone();
        let (mut accepted, mut rejected) = (0, 0);
        for object in source.world.objects() {
            if object.accepted {
                accepted += 1;
            } else {
                rejected += 1;
            }
        }
        let metrics = &self.metrics.source;
        metrics.accepted.set(accepted);
        metrics.rejected.set(rejected);
        let problems = source.problems.len() + source.unreadable.len();
        metrics.problems.set(i64::try_from(problems).unwrap_or(i64::MAX));
        for feed in source.feeds.iter().flat_map(|feeds| feeds.borrow().clone()) {
            let failing = feed
                .failing
                .map_or(0.0, |failing| failing.since.elapsed().as_secs_f64());
            metrics.failing(feed.kind).set(failing);
        }
    }

    async fn status(&self) -> Option<Status> {
        let local = Local {
            hub: self.hub.clone(),
            source: self.source.clone(),
        };
        local.status().await
    }
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(mesh_status))
        .route("/proxies/{namespace}/{pod}", get(proxy))
        .with_state(admin)
}

async fn index() -> &'static str {
    "/health                     how the operator is\n\
     /health/live                200 while it works\n\
     /health/ready               200 once it serves proxies\n\
     /metrics                    OpenMetrics\n\
     /status                     every object and every proxy\n\
     /proxies/<namespace>/<pod>  what one proxy has, in full\n"
}

async fn health(State(admin): State<Arc<Admin>>) -> Json<Health> {
    Json(health::examine(&admin).await)
}

async fn live(State(admin): State<Arc<Admin>>) -> Response {
    let health = health::examine(&admin).await;
    answer(health.live(), health)
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let health = health::examine(&admin).await;
    answer(health.ready(), health)
}

fn answer(good: bool, health: Health) -> Response {
    let code = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(health)).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    admin.count_objects();
    let process = health::process();
    admin.metrics.process.cpu_seconds.set(process.cpu_seconds);
    let resident = i64::try_from(process.resident_bytes).unwrap_or(i64::MAX);
    admin.metrics.process.resident_bytes.set(resident);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.text()).into_response()
}

async fn mesh_status(State(admin): State<Arc<Admin>>) -> Response {
    match admin.status().await {
        Some(status) => Json(status).into_response(),
        None => stopping(),
    }
}

async fn proxy(State(admin): State<Arc<Admin>>, Path((namespace, pod)): Path<(String, String)>) -> Response {
    match admin.hub.proxy(&namespace, &pod).await {
        Some(detail) => Json(detail).into_response(),
        None => {
            let text = format!("no proxy of pod {namespace}/{pod} is connected\n");
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

fn stopping() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the operator is shutting down\n").into_response()
}

#[cfg(test)]
mod tests;

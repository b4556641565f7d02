//! `hauberk-testapp caller`: makes calls and loads when it is asked to, for tests that cannot be in its pod themselves.
//!
//! What is said is in [`tests::caller`]. Loads are kept after their end, so that a test which lost its connection can ask
//! again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tests::caller::{Answered, Ask, Order, Standing, Started};
use tests::client::CallError;
use tests::load::{Load, Report};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::control::{json, refuse};

/// Nothing that is asked is longer than this.
const MAX_BODY: usize = 1 << 20;

/// The loads, by number.
#[derive(Debug, Default)]
struct Loads(Mutex<HashMap<u64, Stage>>);

#[derive(Debug)]
enum Stage {
    Running(Load),
    Over(Arc<Report>),
}

/// Serves until SIGTERM.
pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let loads = Arc::new(Loads::default());
    loop {
        let accepted = tokio::select! {
            _terminated = terminate.recv() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _peer)) = accepted else { continue };
        let loads = Arc::clone(&loads);
        let service = service_fn(move |request| {
            let loads = Arc::clone(&loads);
            async move { Ok::<_, Infallible>(answer(&loads, request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(loads: &Loads, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (&method, path.as_str()) {
        (&Method::GET, "/") => json(&"ready"),
        (&Method::POST, "/calls") => match body(request).await {
            Ok(ask) => json(&make(ask).await),
            Err(reason) => refuse(StatusCode::BAD_REQUEST, &reason),
        },
        (&Method::POST, "/loads") => match body(request).await {
            Ok(order) => or_refuse(loads.start(order).await.map_err(|error| error.to_string())),
            Err(reason) => refuse(StatusCode::BAD_REQUEST, &reason),
        },
        (&Method::GET | &Method::DELETE, _) => {
            let id = path.strip_prefix("/loads/").and_then(|id| id.parse().ok());
            let standing = match (id, method) {
                (None, _) => None,
                (Some(id), Method::DELETE) => loads.stop(id).await,
                (Some(id), _) => loads.standing(id),
            };
            let known = || {
                refuse(
                    StatusCode::NOT_FOUND,
                    "GET or DELETE /loads/ID of a load that was started",
                )
            };
            standing.map_or_else(known, |standing| json(&standing))
        }
        _ => refuse(
            StatusCode::NOT_FOUND,
            "POST /calls or /loads, GET or DELETE /loads/ID",
        ),
    }
}

async fn make(ask: Ask) -> Answered {
    match ask.call() {
        Ok(call) => call.send().await.into(),
        Err(error) => Err(error).into(),
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, String> {
    let collected = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let bytes = collected.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn or_refuse(result: Result<impl Serialize, String>) -> Response<Full<Bytes>> {
    match result {
        Ok(value) => json(&value),
        Err(reason) => refuse(StatusCode::BAD_REQUEST, &reason),
    }
}

impl Loads {
    async fn start(&self, order: Order) -> Result<Started, CallError> {
        let plan = order.plan()?;
        let authority = plan.authority()?;
        let unknown = |error: std::io::Error| CallError::BadCall(format!("{authority}: {error}"));
        let address = tokio::net::lookup_host(&authority).await.map_err(unknown)?.next();
        let address = address.ok_or_else(|| CallError::BadCall(format!("{authority} has no address")))?;
        let mut loads = self.lock();
        let id = u64::try_from(loads.len()).unwrap_or(u64::MAX);
        loads.insert(id, Stage::Running(Load::start(plan, address)));
        Ok(Started { id })
    }

    fn standing(&self, id: u64) -> Option<Standing> {
        match self.lock().get(&id)? {
            Stage::Running(load) => Some(standing(&load.so_far(), load.ended())),
            Stage::Over(report) => Some(standing(report, true)),
        }
    }

    async fn stop(&self, id: u64) -> Option<Standing> {
        let stopping = match self.lock().get_mut(&id)? {
            Stage::Running(load) => load.stopping(),
            Stage::Over(report) => return Some(standing(report, true)),
        };
        // The load stays where others can ask for it until its last call has ended.
        let report = Arc::new(stopping.await);
        let over = standing(&report, true);
        self.lock().insert(id, Stage::Over(report));
        Some(over)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Stage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn standing(report: &Report, ended: bool) -> Standing {
    Standing {
        ended,
        summary: report.summary(),
        windows: report.windows.clone(),
    }
}

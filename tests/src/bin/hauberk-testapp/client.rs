//! `hauberk-testapp client`: a pod that calls others when it is told to, over HTTP on its control port. So a test outside
//! the pod learns what a client inside saw, wherever the pod runs.
//!
//! ```text
//! GET    /call?url=URL                          one call on a connection of its own
//! POST   /load?url=URL&rate=N&connections=N     starts a load; replaces the one that runs
//! GET    /load                                  what it recorded until now
//! DELETE /load                                  ends it, and what it recorded
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tests::app::{Called, Loaded};
use tests::client::Call;
use tests::load::{Load, Plan, Report};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// Where it is told what to call.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Listen here for what to call.
    #[arg(long)]
    control_port: u16,
}

/// Serves until the process ends.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.control_port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let load = Arc::new(Mutex::new(None));
    let mut told = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let (stream, _peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = told.recv() => return Ok(()),
        };
        let load = Arc::clone(&load);
        let service = service_fn(move |request| {
            let load = Arc::clone(&load);
            async move { Ok::<_, Infallible>(answer(&request, &load).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: &Request<Incoming>, load: &Mutex<Option<Load>>) -> Response<Full<Bytes>> {
    let outcome = match (request.method(), request.uri().path()) {
        (&Method::GET, "/call") => call(request.uri().query()).await,
        (&Method::POST, "/load") => start(request.uri().query(), load).await,
        (&Method::GET, "/load") => match &*load.lock().await {
            Some(load) => Ok(json!(loaded(&load.so_far()))),
            None => Err(anyhow::anyhow!("no load runs")),
        },
        (&Method::DELETE, "/load") => match load.lock().await.take() {
            Some(load) => Ok(json!(loaded(&load.stop().await))),
            None => Err(anyhow::anyhow!("no load runs")),
        },
        _ => Err(anyhow::anyhow!("GET /call, POST, GET or DELETE /load")),
    };
    match outcome {
        Ok(value) => Response::new(Full::from(value.to_string())),
        Err(error) => {
            let mut response = Response::new(Full::from(format!("{error:#}\n")));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    }
}

/// Values of a query; the URL comes last and may have anything but `&` in it.
fn value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

async fn target(query: Option<&str>) -> anyhow::Result<(Call, SocketAddr)> {
    let url = value(query, "url").context("url: is missing")?;
    let call = Call::get(url);
    let authority = call.authority()?;
    let mut found = tokio::net::lookup_host(&authority)
        .await
        .with_context(|| authority.clone())?;
    let address = found
        .next()
        .with_context(|| format!("{authority} has no address"))?;
    Ok((call, address))
}

/// What came back; that nothing did is an answer too.
async fn call(query: Option<&str>) -> anyhow::Result<serde_json::Value> {
    let (call, address) = target(query).await?;
    let called = match call.send_to(address).await {
        Ok(reply) => Called {
            status: reply.status,
            headers: reply
                .headers
                .iter()
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.to_string(), value)
                })
                .collect(),
            body: reply.text(),
            error: None,
        },
        Err(error) => Called {
            status: 0,
            headers: BTreeMap::new(),
            body: String::new(),
            error: Some(error.to_string()),
        },
    };
    Ok(json!(called))
}

async fn start(query: Option<&str>, load: &Mutex<Option<Load>>) -> anyhow::Result<serde_json::Value> {
    let number = |name: &str, missing: f64| -> anyhow::Result<f64> {
        let text = value(query, name);
        let number = text.map_or(Ok(missing), str::parse);
        number.with_context(|| format!("{name}: must be a number"))
    };
    let (rate, connections) = (number("rate", 50.0)?, number("connections", 4.0)?);
    if !(rate > 0.0 && (1.0..=1000.0).contains(&connections)) {
        bail!("rate and connections: must be above 0");
    }
    let (call, address) = target(query).await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be between 1 and 1000"
    )]
    let plan = Plan::new(call).rate(rate).connections(connections as usize);
    *load.lock().await = Some(Load::start(plan, address));
    Ok(json!({}))
}

fn loaded(report: &Report) -> Loaded {
    Loaded {
        total: report.total(),
        errors: report.errors(),
        statuses: report.statuses(),
        versions: report.versions(),
        failures: report
            .failures()
            .into_iter()
            .map(|(failure, count)| (format!("{failure:?}").to_lowercase(), count))
            .collect(),
        opened: report.opened,
        longest_ms: report
            .windows
            .iter()
            .map(|window| window.longest.as_secs_f64() * 1000.0)
            .fold(0.0, f64::max),
    }
}

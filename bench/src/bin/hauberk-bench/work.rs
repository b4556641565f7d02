//! What is sent through a way: by h2load where it can, and otherwise from a thread of the client's pod.

pub(crate) mod connections;
mod streams;
mod tcp;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::h2load::{self, Load};
use crate::peer::Protocol;
use crate::place::Way;

/// What became of a piece of work.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// How many requests, messages, MiB or connections went well.
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    /// How long each took, in microseconds, sorted.
    pub(crate) latencies: Vec<u64>,
}

/// A kind of work.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Requests on connections that stay.
    Requests(Requests),
    /// Small messages there and back on gRPC streams, one after another on each.
    Messages,
    /// 128 bytes there and back on TCP connections.
    PingPong,
    /// Bytes without end from the application, in MiB.
    Bulk,
    /// A new connection for each HTTP/1.1 request.
    NewConnections,
    /// A new TCP connection for each ping.
    NewTcpConnections,
}

/// Requests that h2load sends.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    pub(crate) path: String,
    pub(crate) connections: u32,
    /// Requests under way on one connection.
    pub(crate) streams: u32,
    /// Requests a second on each connection; as many as it takes when not set.
    pub(crate) rate: Option<u32>,
    /// The file whose content is sent with each request.
    pub(crate) body: Option<PathBuf>,
}

impl Work {
    /// Sends through `way` for `time`. A file called `log` may be left behind.
    pub(crate) async fn run(
        &self,
        way: &Way,
        protocol: Protocol,
        time: Duration,
        log: &Path,
    ) -> anyhow::Result<Outcome> {
        let target = way.target;
        match self {
            Work::Requests(requests) => {
                let load = Load {
                    url: format!("http://{target}{}", requests.path),
                    authority: way.authority.clone(),
                    http1: protocol == Protocol::Http1,
                    requests: requests.clone(),
                };
                h2load::run(&way.client, &load, time, log).await
            }
            Work::Messages => {
                let authority = way.authority.clone();
                way.client.run(streams::run(target, authority, time)).await
            }
            Work::PingPong => way.client.run(tcp::ping_pong(target, time)).await,
            Work::Bulk => way.client.run(tcp::bulk(target, time)).await,
            Work::NewConnections => {
                let authority = way.authority.clone();
                way.client.run(connections::http(target, authority, time)).await
            }
            Work::NewTcpConnections => way.client.run(connections::tcp(target, time)).await,
        }
    }
}

/// Puts together what the tasks of one piece of work found.
async fn gather(mut tasks: JoinSet<anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    let mut total = Outcome::default();
    while let Some(outcome) = tasks.join_next().await {
        let Outcome {
            succeeded,
            failed,
            latencies,
        } = outcome??;
        total.succeeded += succeeded;
        total.failed += failed;
        total.latencies.extend(latencies);
    }
    total.latencies.sort_unstable();
    Ok(total)
}

fn micros(since: tokio::time::Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

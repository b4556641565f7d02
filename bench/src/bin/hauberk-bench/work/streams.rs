//! gRPC streams: messages of 100 bytes there and back, one after another on each stream.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Outcome, gather, micros};

const CONNECTIONS: usize = 8;
const STREAMS: usize = 8;
/// Five bytes of gRPC's own, and the message.
static MESSAGE: [u8; 105] = {
    let mut message = [b'm'; 105];
    message[0] = 0;
    message[1] = 0;
    message[2] = 0;
    message[3] = 0;
    message[4] = 100;
    message
};

pub(super) async fn run(target: SocketAddr, authority: String, time: Duration) -> anyhow::Result<Outcome> {
    let mut tasks = JoinSet::new();
    let mut drivers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(target).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        drivers.spawn(async move {
            let _ended = connection.await;
        });
        let sender = sender.ready().await?;
        for _ in 0..STREAMS {
            tasks.spawn(stream_of(sender.clone(), authority.clone(), time));
        }
    }
    gather(tasks).await
}

async fn stream_of(sender: SendRequest<Bytes>, authority: String, time: Duration) -> anyhow::Result<Outcome> {
    let mut sender = sender.ready().await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{authority}/bench.Bench/echo"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut sending) = sender.send_request(request, false)?;
    let mut outcome = Outcome::default();
    let end = Instant::now() + time;
    // The head of the answer may come only after the first message.
    let mut begun = Instant::now();
    sending.send_data(Bytes::from_static(&MESSAGE), false)?;
    let response = response.await?;
    ensure!(
        response.status().is_success(),
        "a stream was answered with {}",
        response.status()
    );
    let mut receiving = response.into_body();
    loop {
        let mut missing = MESSAGE.len();
        while missing > 0 {
            let data = receiving.data().await.context("a stream ended early")??;
            receiving.flow_control().release_capacity(data.len())?;
            missing = missing
                .checked_sub(data.len())
                .context("more came back than was sent")?;
        }
        outcome.succeeded += 1;
        outcome.latencies.push(micros(begun));
        if Instant::now() >= end {
            break;
        }
        begun = Instant::now();
        sending.send_data(Bytes::from_static(&MESSAGE), false)?;
    }
    sending.send_data(Bytes::new(), true)?;
    let trailers = receiving.trailers().await?.context("no trailers")?;
    ensure!(
        trailers.get("grpc-status").is_some_and(|status| status == "0"),
        "a stream ended with {trailers:?}"
    );
    Ok(outcome)
}

//! Asking a running operator for its status: what the `status` command does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::status::Status;

/// Time for connection and answer.
const TIME: Duration = Duration::from_secs(10);
/// Bytes of an answer: a mesh of ten thousand proxies stays below.
const MAX_ANSWER: usize = 64 << 20;

/// The status of the operator whose admin server is at `address`.
///
/// # Errors
/// When there is no such server, or it gives no status.
pub async fn status(address: SocketAddr) -> anyhow::Result<Status> {
    // "Any address" is where a server listens; a client means this machine.
    let address = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        ip if ip.is_unspecified() => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    };
    tokio::time::timeout(TIME, get(address))
        .await
        .with_context(|| format!("{address} has not answered within {} s", TIME.as_secs()))?
        .with_context(|| {
            format!("cannot get the status from {address}: is the operator's admin server there?")
        })
}

async fn get(address: SocketAddr) -> anyhow::Result<Status> {
    let tcp = TcpStream::connect(address).await?;
    let (mut send, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    let request = Request::get("/status")
        .header(http::header::HOST, address.to_string())
        .body(Body::empty())?;
    let response = send.send_request(request).await?;
    let code = response.status();
    let body = to_bytes(Body::new(response.into_body()), MAX_ANSWER).await?;
    anyhow::ensure!(
        code == StatusCode::OK,
        "it answers {code}: {}",
        String::from_utf8_lossy(&body).trim()
    );
    serde_json::from_slice(&body).context("its answer is not the status of an operator of this version")
}

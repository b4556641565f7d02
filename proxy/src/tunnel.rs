//! Streams that begin as an HTTP request and go on as bytes: upgrades (WebSocket) and CONNECT.

use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use crate::io::Io;
use crate::message::Tunnel;
use crate::tcp::{self, RelayCounters, RelayOptions, Relayed};

/// Whether the response opens the tunnel that the request asked for.
#[must_use]
pub fn is_open<B>(tunnel: &Tunnel, response: &Response<B>) -> bool {
    match tunnel {
        Tunnel::Connect => response.status().is_success(),
        Tunnel::Upgrade(_) => response.status() == StatusCode::SWITCHING_PROTOCOLS,
    }
}

/// Joins the two sides once both heads are through. `held` is dropped when the tunnel has ended.
pub fn join<H: 'static>(downstream: OnUpgrade, upstream: OnUpgrade, held: H) {
    tokio::task::spawn_local(async move {
        match relay(downstream, upstream).await {
            Ok(Relayed {
                bytes_up,
                bytes_down,
                ended,
            }) => {
                tracing::debug!(bytes_up, bytes_down, ?ended, "tunnel ended");
            }
            Err(error) => tracing::debug!(%error, "tunnel did not come about"),
        }
        drop(held);
    });
}

async fn relay(downstream: OnUpgrade, upstream: OnUpgrade) -> hyper::Result<Relayed> {
    // The upstream side is through first: its head made the answer that the downstream side waits for.
    let upstream = Io::from(upstream.await?);
    let downstream = Io::from(downstream.await?);
    Ok(tcp::relay(
        downstream,
        upstream,
        RelayOptions::default(),
        &RelayCounters::default(),
    )
    .await)
}

//! Flow control from end to end: a reader that stops stops its writer, and no proxy in between fills its memory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use libtest_mimic::Trial;
use tests::lab::Lab;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::group::Group;
use super::super::{SOON, raw, servers};

/// What is offered to a reader that does not read.
const OFFERED: usize = 64 * 1024 * 1024;
/// What one proxy may hold of it: windows, buffers and the allocator's slack, and far from all.
const HELD: u64 = 20 * 1024 * 1024;
/// When nothing more is taken for this long, the writer is stopped.
const STILL: Duration = Duration::from_millis(700);
const PIECE: usize = 64 * 1024;

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial(
            "a slow reader of an HTTP/2 request stops its sender, not the proxies",
            http2_request,
        ),
        group.trial(
            "a slow reader of an HTTP/1.1 request stops its sender, not the proxies",
            http1_request,
        ),
        group.trial(
            "a slow reader of an HTTP/1.1 response stops its sender, not the proxies",
            http1_response,
        ),
        group.trial(
            "a slow reader of a TCP stream stops its sender, not the proxies",
            stream,
        ),
    ]
}

/// Memory of both proxies.
fn memory(lab: &Lab) -> anyhow::Result<[u64; 2]> {
    Ok([
        lab.proxy("web").process()?.rss()?,
        lab.proxy("own-v1-0").process()?.rss()?,
    ])
}

fn check(lab: &Lab, before: [u64; 2], taken: usize) -> anyhow::Result<()> {
    ensure!(taken < OFFERED, "nobody read, and all {taken} bytes were taken");
    let after = memory(lab)?;
    for (before, after) in before.into_iter().zip(after) {
        ensure!(
            after < before + HELD,
            "a proxy grew from {before} to {after} bytes while {taken} were taken"
        );
    }
    Ok(())
}

async fn http2_request(lab: &Lab) -> anyhow::Result<()> {
    let (hold, _held) = mpsc::unbounded_channel();
    servers::each(lab, "own-v1-0", 8001, move |stream| {
        let hold = hold.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await?;
            while let Some(accepted) = connection.accept().await {
                // Kept, and never read.
                hold.send(accepted?)?;
            }
            Ok(())
        }
    })
    .await?;
    let stream = lab.pod("web").connect("own:8001").await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let before = memory(lab)?;
    let request = Request::post("http://own:8001/").body(())?;
    let (_response, mut body) = client.ready().await?.send_request(request, false)?;
    let mut taken = 0;
    while taken < OFFERED {
        body.reserve_capacity(PIECE);
        let Ok(Some(room)) = timeout(STILL, std::future::poll_fn(|cx| body.poll_capacity(cx))).await else {
            break;
        };
        let room = room?.min(PIECE);
        body.send_data(Bytes::from(vec![7; room]), false)?;
        taken += room;
    }
    ensure!(taken > 0, "nothing was taken at all");
    check(lab, before, taken)
}

/// A server that reads as little as it can.
async fn deaf(lab: &Lab, port: u16) -> anyhow::Result<mpsc::UnboundedReceiver<tokio::net::TcpStream>> {
    let (hold, held) = mpsc::unbounded_channel();
    servers::each(lab, "own-v1-0", port, move |stream| {
        let hold = hold.clone();
        async move { Ok(hold.send(stream)?) }
    })
    .await?;
    Ok(held)
}

async fn http1_request(lab: &Lab) -> anyhow::Result<()> {
    let _held = deaf(lab, 8000).await?;
    let mut stream = lab.pod("web").connect("own:8000").await?;
    let before = memory(lab)?;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: own\r\ncontent-length: {}\r\n\r\n",
        OFFERED * 2
    );
    stream.write_all(head.as_bytes()).await?;
    let taken = raw::pour(&mut stream, &[7; PIECE], OFFERED, STILL).await;
    check(lab, before, taken)
}

async fn stream(lab: &Lab) -> anyhow::Result<()> {
    let _held = deaf(lab, 8002).await?;
    let mut stream = lab.pod("web").connect("own:8002").await?;
    let before = memory(lab)?;
    let taken = raw::pour(&mut stream, &[7; PIECE], OFFERED, STILL).await;
    check(lab, before, taken)
}

async fn http1_response(lab: &Lab) -> anyhow::Result<()> {
    let (tell, mut told) = mpsc::unbounded_channel();
    servers::each(lab, "own-v1-0", 8000, move |mut stream| {
        let tell = tell.clone();
        async move {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", OFFERED * 2);
            stream.write_all(head.as_bytes()).await?;
            let written = raw::pour(&mut stream, &[7; PIECE], OFFERED, STILL).await;
            tell.send(written)?;
            Ok(())
        }
    })
    .await?;
    let before = memory(lab)?;
    let mut stream = lab.pod("web").connect("own:8000").await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: own\r\n\r\n").await?;
    let taken = timeout(SOON, told.recv())
        .await
        .context("the server still writes")?
        .context("the server failed")?;
    check(lab, before, taken)
}

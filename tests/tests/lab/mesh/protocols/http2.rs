//! HTTP/2: prior knowledge, resets, refused streams.

use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use libtest_mimic::Trial;
use tests::app::Answer;
use tests::client::{Call, Protocol};
use tests::lab::Lab;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::group::Group;
use super::super::{SOON, servers};

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial("HTTP/2 with prior knowledge passes as HTTP/2", prior_knowledge),
        group.trial("many streams share one connection", many_streams),
        group.trial(
            "a stream that the client resets is reset at the server",
            client_reset,
        ),
        group.trial(
            "a stream that the server resets is reset at the client",
            server_reset,
        ),
    ]
}

async fn prior_knowledge(lab: &Lab) -> anyhow::Result<()> {
    for port in [8080, 8081] {
        let call = Call::get(&format!("http://reviews:{port}/a?b"))
            .http2()
            .header("x-one", "1");
        let reply = lab.pod("web").send(call).await?;
        let answer: Answer = reply.json()?;
        ensure!(
            reply.version == http::Version::HTTP_2 && answer.request.http == "HTTP/2.0",
            "{answer:?}"
        );
        ensure!(
            answer.request.host == format!("reviews:{port}") && answer.request.path == "/a?b",
            "{answer:?}"
        );
        ensure!(answer.request.headers["x-one"] == "1", "{answer:?}");
    }
    Ok(())
}

async fn many_streams(lab: &Lab) -> anyhow::Result<()> {
    let stream = lab.pod("web").connect("reviews:8080").await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..150 {
        let client = client.clone();
        calls.spawn(async move {
            let request = Request::get(format!("http://reviews:8080/delay/{}", 50 + number % 7)).body(())?;
            let (response, _) = client.ready().await?.send_request(request, true)?;
            let status = response.await?.status();
            ensure!(status == 200, "{status}");
            anyhow::Ok(())
        });
    }
    while let Some(done) = timeout(SOON, calls.join_next()).await? {
        done??;
    }
    Ok(())
}

/// A server that reports how each stream ended: the reason of its reset, or nothing.
async fn reporting(lab: &Lab) -> anyhow::Result<mpsc::UnboundedReceiver<Option<h2::Reason>>> {
    let (tell, told) = mpsc::unbounded_channel();
    servers::each(lab, "own-v1-0", 8001, move |stream| {
        let tell = tell.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await?;
            while let Some(accepted) = connection.accept().await {
                let (request, mut respond) = accepted?;
                let tell = tell.clone();
                tokio::spawn(async move {
                    if request.uri().path() == "/reset" {
                        respond.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
                        return;
                    }
                    let head = http::Response::new(());
                    let Ok(mut body) = respond.send_response(head, false) else {
                        return;
                    };
                    let _first = body.send_data(Bytes::from_static(b"and"), false);
                    let reason = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
                    let _test_over = tell.send(reason.ok());
                });
            }
            Ok(())
        }
    })
    .await?;
    Ok(told)
}

async fn client_reset(lab: &Lab) -> anyhow::Result<()> {
    let mut told = reporting(lab).await?;
    let stream = lab.pod("web").connect("own:8001").await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::post("http://own:8001/stream").body(())?;
    let (response, mut sending) = client.ready().await?.send_request(request, false)?;
    let mut body = timeout(SOON, response).await??.into_body();
    let first = timeout(SOON, body.data()).await?.context("no data")??;
    ensure!(first == "and", "{first:?}");
    sending.send_reset(h2::Reason::CANCEL);
    let reason = timeout(SOON, told.recv())
        .await
        .context("the server hears nothing")?;
    ensure!(reason == Some(Some(h2::Reason::CANCEL)), "{reason:?}");

    // The connections under other streams stay as they are.
    let mut session = lab.pod("web").session("reviews:8080", Protocol::Http2).await?;
    let call = Call::get("http://reviews:8080/").http2();
    ensure!(session.send(&call).await?.status == 200);
    Ok(())
}

async fn server_reset(lab: &Lab) -> anyhow::Result<()> {
    let _told = reporting(lab).await?;
    let stream = lab.pod("web").connect("own:8001").await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::post("http://own:8001/reset").body(())?;
    let (response, _sending) = client.ready().await?.send_request(request, false)?;
    // Before a head there is an answer to give, which says more than a reset would.
    let answer = timeout(SOON, response).await?.context("no answer")?;
    ensure!(answer.status() == 502, "{answer:?}");
    ensure!(answer.headers()["x-hauberk-reason"] == "reset", "{answer:?}");
    Ok(())
}

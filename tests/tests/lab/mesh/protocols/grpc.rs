//! gRPC, all kinds of calls.

use std::sync::Arc;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::app::Mode;
use tests::grpc::{ERROR_TRAILER, EchoRequest};
use tests::lab::{GRPC_CONTROL_PORT, Lab, eventually};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::super::SOON;
use super::super::group::Group;

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial("gRPC calls of all four kinds pass", calls),
        group.trial("gRPC errors pass with their status and trailers", errors),
        group.trial(
            "a bidirectional stream is answered message by message",
            bidirectional,
        ),
        group.trial(
            "a gRPC client without a server hears UNAVAILABLE and who says so",
            unavailable,
        ),
        group.trial("a stream that the caller leaves ends at the server", leaves),
    ]
}

fn say(text: &str) -> EchoRequest {
    EchoRequest {
        text: text.to_owned(),
        ..EchoRequest::default()
    }
}

async fn calls(lab: &Lab) -> anyhow::Result<()> {
    let mut echo = lab.echo("web", "ledger:50051").await?;
    let one = echo.unary(say("hi")).await?.into_inner();
    ensure!(
        (one.text.as_str(), one.pod.as_str()) == ("hi", "ledger-v1-0"),
        "{one:?}"
    );
    let mut many = echo
        .server_stream(EchoRequest {
            count: 50,
            ..say("n")
        })
        .await?
        .into_inner();
    for index in 0..50 {
        let answer = timeout(SOON, many.next()).await?.context("too few answers")??;
        ensure!(answer.index == index, "{answer:?}");
    }
    ensure!(timeout(SOON, many.next()).await?.is_none());
    let joined = echo
        .client_stream(tokio_stream::iter([say("a"), say("b"), say("c")]))
        .await?
        .into_inner();
    ensure!(joined.text == "a b c" && joined.index == 3, "{joined:?}");
    Ok(())
}

async fn errors(lab: &Lab) -> anyhow::Result<()> {
    let mut echo = lab.echo("web", "ledger:50051").await?;
    let failing = |count| EchoRequest {
        fail_code: 5,
        count,
        ..say("x")
    };
    let failed = echo.unary(failing(0)).await.err().context("no error")?;
    ensure!(
        failed.code() == tonic::Code::NotFound && failed.message() == "failed as asked: x",
        "{failed:?}"
    );
    ensure!(failed.metadata().get(ERROR_TRAILER).is_some(), "{failed:?}");
    let mut many = echo.server_stream(failing(2)).await?.into_inner();
    for _ in 0..2 {
        timeout(SOON, many.next()).await?.context("too few answers")??;
    }
    let end = timeout(SOON, many.next()).await?.context("no status")?;
    let end = end.err().context("no error")?;
    ensure!(end.code() == tonic::Code::NotFound, "{end:?}");
    ensure!(end.metadata().get(ERROR_TRAILER).is_some(), "{end:?}");
    Ok(())
}

async fn bidirectional(lab: &Lab) -> anyhow::Result<()> {
    let mut echo = lab.echo("web", "ledger:50051").await?;
    let (talk, listen) = mpsc::channel(1);
    let mut answers = timeout(SOON, echo.bidi(ReceiverStream::new(listen)))
        .await
        .context("no head before the first message")??
        .into_inner();
    for text in ["first", "second", "third"] {
        talk.send(say(text)).await?;
        let answer = timeout(SOON, answers.next()).await?.context("no answer")??;
        ensure!(answer.text == text, "{answer:?}");
    }
    drop(talk);
    ensure!(
        timeout(SOON, answers.next()).await?.is_none(),
        "the stream ends with its requests"
    );
    Ok(())
}

async fn unavailable(lab: &Lab) -> anyhow::Result<()> {
    // No server listens on this port of `own`.
    let mut echo = lab.echo("web", "own:8001").await?;
    let failed = timeout(SOON, echo.unary(say("hi")))
        .await?
        .err()
        .context("it answered")?;
    ensure!(failed.code() == tonic::Code::Unavailable, "{failed:?}");
    ensure!(failed.message().starts_with("hauberk: "), "{failed:?}");
    ensure!(failed.metadata().get("x-hauberk-reason").is_some(), "{failed:?}");
    Ok(())
}

async fn leaves(lab: &Lab) -> anyhow::Result<()> {
    let control = lab.control("ledger-v1-0", GRPC_CONTROL_PORT);
    control.mode(Mode::Ok).await?;
    let mut echo = lab.echo("web", "ledger:50051").await?;
    let endless = EchoRequest {
        count: 1_000_000,
        delay_ms: 1,
        ..say("tick")
    };
    let mut ticks = echo.server_stream(endless).await?.into_inner();
    timeout(SOON, ticks.next()).await?.context("no tick")??;
    let proxy = lab.proxy("ledger-v1-0");
    let running = proxy.metric("hauberk_inbound_sent_bytes_total", &[]).await?;
    drop(ticks);
    drop(echo);
    eventually(SOON, "the server's proxy has seen the stream end", async || {
        // The bytes of a stream are counted when it ends.
        let total = proxy.metric("hauberk_inbound_sent_bytes_total", &[]).await?;
        ensure!(total > running, "{total}");
        Ok(())
    })
    .await?;
    Ok(())
}

//! gRPC streams, a WebSocket, and a server that speaks first.

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, stream};
use tests::grpc::{EchoRequest, EchoResponse};
use tests::lab::Lab;
use tests::websocket::{Frame, Kind, Side};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::Instant;

use super::millis;
use crate::shop::GREETING;
use crate::tell::Teller;

pub(crate) async fn tell(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    teller.story("what is no plain request: gRPC streams, a WebSocket, a server that speaks first");
    grpc(lab, teller).await?;
    websocket(lab, teller).await?;
    speaks_first(lab, teller).await
}

async fn grpc(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    let mut echo = lab.echo("web", "ledger:50051").await?;
    let request = |text: &str, count| EchoRequest {
        text: text.into(),
        count,
        ..Default::default()
    };
    let unary = echo.unary(request("one", 1)).await?.into_inner();
    let many: Vec<EchoResponse> = echo
        .server_stream(request("many", 20))
        .await?
        .into_inner()
        .filter_map(async |m| m.ok())
        .collect()
        .await;
    let sum = echo
        .client_stream(stream::iter((0..20).map(move |i| request(&i.to_string(), 1))))
        .await?
        .into_inner();
    let both: Vec<EchoResponse> = echo
        .bidi(stream::iter((0..20).map(move |i| request(&i.to_string(), 1))))
        .await?
        .into_inner()
        .filter_map(async |m| m.ok())
        .collect()
        .await;
    let refused = echo
        .unary(EchoRequest {
            fail_code: 5,
            ..request("none", 1)
        })
        .await;
    let code = refused.err().map(|status| status.code());
    teller.claim(
        unary.text == "one" && many.len() == 20 && !sum.text.is_empty() && both.len() == 20,
        "gRPC: unary, server, client and two-way streams",
        &format!("1, {}, 20 → 1, 20 ↔ {} messages", many.len(), both.len()),
    );
    teller.claim(
        code == Some(tonic::Code::NotFound),
        "and the status of a failed call",
        &format!("{code:?}"),
    );
    Ok(())
}

async fn websocket(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    let mut socket = lab.pod("web").connect("reviews:8080").await?;
    let head = "GET /ws HTTP/1.1\r\nHost: reviews:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.context("the WebSocket's handshake")?);
        ensure!(answer.len() < 4096, "no end of the handshake's answer");
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(
        answer.starts_with("HTTP/1.1 101"),
        "the handshake was answered with {answer}"
    );
    let begun = Instant::now();
    let mut echoed = 0;
    for i in 0..100 {
        let text = format!("message {i}");
        Frame::new(Kind::Text, text.clone())
            .write(&mut socket, Side::Client)
            .await?;
        let frame = Frame::read(&mut socket).await?.context("the WebSocket ended")?;
        echoed += u32::from(frame.payload == text.as_bytes());
    }
    teller.claim(
        echoed == 100,
        "a WebSocket",
        &format!("{echoed} of 100 messages echoed in {}", millis(begun.elapsed())),
    );
    Ok(())
}

async fn speaks_first(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    let mut waits = Vec::new();
    for _ in 0..2 {
        let begun = Instant::now();
        let socket = lab.pod("web").connect("stock:5432").await?;
        let mut socket = BufReader::new(socket);
        let mut line = String::new();
        tokio::time::timeout(super::PATIENCE, socket.read_line(&mut line))
            .await
            .context("no greeting")??;
        waits.push(begun.elapsed());
        ensure!(line.trim() == GREETING, "stock greeted with {line:?}");
        socket.get_mut().write_all(b"select\n").await?;
        line.clear();
        socket.read_line(&mut line).await?;
        ensure!(line.trim() == "SELECT", "stock answered {line:?}");
    }
    teller.claim(
        true,
        "a server that speaks first, declared nowhere",
        &format!(
            "greeting after {}, and {} once that was learned",
            millis(waits[0]),
            millis(waits[1])
        ),
    );
    Ok(())
}

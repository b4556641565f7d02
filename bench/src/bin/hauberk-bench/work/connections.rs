//! New connections: one for each request, and connections that stay without doing anything.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Outcome, gather, micros};

const AT_ONCE: usize = 16;

/// A connection for each HTTP/1.1 request, ended by the server as the client asks.
pub(super) async fn http(target: SocketAddr, authority: String, time: Duration) -> anyhow::Result<Outcome> {
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let request = format!("GET /32 HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            let end = Instant::now() + time;
            let mut answer = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                let mut stream = TcpStream::connect(target)
                    .await
                    .with_context(|| format!("cannot connect to {target}"))?;
                stream.write_all(request.as_bytes()).await?;
                answer.clear();
                stream.read_to_end(&mut answer).await?;
                count(&mut outcome, &answer, begun);
            }
            Ok(outcome)
        });
    }
    gather(tasks).await
}

fn count(outcome: &mut Outcome, answer: &[u8], begun: Instant) {
    if answer.starts_with(b"HTTP/1.1 200") {
        outcome.succeeded += 1;
        outcome.latencies.push(micros(begun));
    } else {
        outcome.failed += 1;
    }
}

/// A TCP connection for each ping.
pub(super) async fn tcp(target: SocketAddr, time: Duration) -> anyhow::Result<Outcome> {
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            let end = Instant::now() + time;
            let mut back = [0; 4];
            while Instant::now() < end {
                let begun = Instant::now();
                let mut stream = TcpStream::connect(target)
                    .await
                    .with_context(|| format!("cannot connect to {target}"))?;
                stream.write_all(b"ping").await?;
                stream.read_exact(&mut back).await?;
                outcome.succeeded += 1;
                outcome.latencies.push(micros(begun));
            }
            Ok(outcome)
        });
    }
    gather(tasks).await
}

/// Opens `count` connections, sends one request on each, and keeps them open.
pub(crate) async fn idle(
    target: SocketAddr,
    authority: String,
    count: usize,
) -> anyhow::Result<Vec<TcpStream>> {
    let request = format!("GET /32 HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let mut kept = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(target)
            .await
            .with_context(|| format!("cannot connect to {target}"))?;
        stream.write_all(request.as_bytes()).await?;
        read_answer(&mut stream).await?;
        kept.push(stream);
    }
    Ok(kept)
}

/// Reads an answer with a body of 32 bytes.
async fn read_answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            bail!("the proxy closed a connection that was to stay");
        }
        answer.extend_from_slice(&buffer[..read]);
        if let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n")
            && answer.len() >= head + 4 + 32
        {
            ensure!(
                answer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
            return Ok(());
        }
    }
}

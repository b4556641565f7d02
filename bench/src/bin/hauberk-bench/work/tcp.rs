//! Opaque TCP: pings on many connections, and bulk on few.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Outcome, gather, micros};

const PINGING: usize = 64;
const BULK: usize = 4;
const MIB: usize = 1024 * 1024;

pub(super) async fn ping_pong(target: SocketAddr, time: Duration) -> anyhow::Result<Outcome> {
    let mut tasks = JoinSet::new();
    for _ in 0..PINGING {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(target)
                .await
                .with_context(|| format!("cannot connect to {target}"))?;
            stream.set_nodelay(true)?;
            let mut outcome = Outcome::default();
            let end = Instant::now() + time;
            let mut back = [0; 128];
            while Instant::now() < end {
                let begun = Instant::now();
                stream.write_all(&[b'p'; 128]).await?;
                stream.read_exact(&mut back).await?;
                outcome.succeeded += 1;
                outcome.latencies.push(micros(begun));
            }
            Ok(outcome)
        });
    }
    gather(tasks).await
}

/// What succeeded is counted in MiB.
pub(super) async fn bulk(target: SocketAddr, time: Duration) -> anyhow::Result<Outcome> {
    let mut tasks = JoinSet::new();
    for _ in 0..BULK {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(target)
                .await
                .with_context(|| format!("cannot connect to {target}"))?;
            let end = Instant::now() + time;
            let mut buffer = vec![0; MIB / 4];
            let mut bytes = 0;
            // At the end nobody needs what is still under way.
            while let Ok(read) = timeout_at(end, stream.read(&mut buffer)).await {
                let read = read?;
                ensure!(
                    read > 0,
                    "the proxy ended a connection that its application goes on with"
                );
                bytes += read;
            }
            Ok(Outcome {
                succeeded: u64::try_from(bytes / MIB)?,
                ..Outcome::default()
            })
        });
    }
    gather(tasks).await
}

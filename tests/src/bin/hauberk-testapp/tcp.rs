//! The line echo: speaks first unless told to be silent, answers each line in upper case, and at the client's end of
//! input sends a summary and closes. It keeps nothing but the line it is reading.

use anyhow::bail;
use tests::app::Mode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::accept::Connection;
use crate::http::obey;
use crate::state::State;

const MAX_LINE: u64 = 1024 * 1024;

/// Serves one connection until the client ends it or the server closes.
pub(crate) async fn serve(
    stream: TcpStream,
    state: &State,
    connection: &Connection,
    greeting: Option<&str>,
    mut closing: watch::Receiver<bool>,
) {
    let result = tokio::select! {
        result = talk(stream, state, connection, greeting) => result,
        _closing = closing.wait_for(|closing| *closing) => Ok(()),
    };
    if let Err(error) = result {
        eprintln!("connection from {}: {error:#}", connection.peer);
    }
}

async fn talk(
    mut stream: TcpStream,
    state: &State,
    connection: &Connection,
    greeting: Option<&str>,
) -> anyhow::Result<()> {
    let (reading, mut writing) = stream.split();
    if state.mode() != Mode::Ok && obey(state, connection).await.is_some() {
        bail!("told to fail");
    }
    if let Some(greeting) = greeting {
        writing.write_all(format!("{greeting}\n").as_bytes()).await?;
    }
    let mut reading = BufReader::new(reading);
    let (mut lines, mut bytes) = (0_u64, 0_u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reading).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if length == 0 {
            break;
        }
        state.request();
        if obey(state, connection).await.is_some() {
            bail!("told to fail");
        }
        lines += 1;
        bytes += length as u64;
        line.make_ascii_uppercase();
        writing.write_all(&line).await?;
    }
    writing
        .write_all(format!("received {bytes} bytes in {lines} lines\n").as_bytes())
        .await?;
    writing.shutdown().await?;
    Ok(())
}

//! A tunnel through an HTTP proxy: the connection to an endpoint becomes one to a server beyond it. `connect` opens it for
//! opaque connections whose cluster asks for one; afterwards it is bytes in both directions.
//!
//! With CONNECT the connection itself turns into bytes. With POST the bytes are the bodies of one request and its answer,
//! which hyper frames; a task of its own carries them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use api::{Tunnel, TunnelMethod};
use bytes::Bytes;
use http::{Request, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{
    AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};

use crate::error::Error;
use crate::io::{Cut, Filled, Io, Near, with_scratch};

/// The most that the head of an answer may have.
const MAX_HEAD: usize = 16 << 10;
/// What is under way between the connection and the task that carries it.
const BUFFER: usize = 64 << 10;

/// Opens the tunnel that a cluster asks for over a connection to one of its endpoints.
///
/// # Errors
/// [`Error::Connect`] when the endpoint refuses, breaks off, or answers what is no HTTP.
pub(super) async fn open(io: Io, tunnel: &Tunnel, endpoint: SocketAddr) -> Result<Io, Error> {
    let opened = match tunnel.method {
        TunnelMethod::Connect => connect(io, tunnel).await,
        TunnelMethod::Post => post(io, tunnel).await,
    };
    opened.map_err(|error| {
        let problem = format!("no tunnel to {}: {error}", authority(tunnel));
        Error::Connect {
            endpoint,
            source: Arc::new(io::Error::new(error.kind(), problem)),
        }
    })
}

/// The server at the far end, as requests name it.
fn authority(
    Tunnel {
        method: _,
        host,
        port,
    }: &Tunnel,
) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn refused(status: u16) -> io::Error {
    let problem = format!("it was refused with status {status}");
    io::Error::new(io::ErrorKind::ConnectionRefused, problem)
}

async fn connect(mut io: Io, tunnel: &Tunnel) -> io::Result<Io> {
    let target = authority(tunnel);
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    loop {
        match head(io.prefix())? {
            Some(Head { length, status }) => {
                // What follows is of the server beyond, and stays.
                io.read_exact(&mut vec![0; length]).await?;
                match status {
                    200..300 => return Ok(io),
                    // Interim: the answer is still to come. No protocol was asked for that 101 could change to.
                    100 | 102..200 => {}
                    other => return Err(refused(other)),
                }
            }
            None => match io.fill(MAX_HEAD).await? {
                Filled::More => {}
                Filled::Eof => return Err(io::ErrorKind::UnexpectedEof.into()),
                Filled::Full => return Err(no_http("has no end within 16 KiB")),
            },
        }
    }
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    length: usize,
    status: u16,
}

/// The head at the beginning of `bytes`; `None` while it has not ended.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    const START: &[u8] = b"HTTP/1.";
    let known = bytes.len().min(START.len());
    if bytes[..known] != START[..known] {
        return Err(no_http("is none"));
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    // `HTTP/1.1 200`, and then a space or the end of the line.
    let status = bytes.get(8..13).and_then(|part| match part {
        [b' ', digits @ .., b' ' | b'\r'] => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    });
    match status {
        Some(status @ 100..600) => Ok(Some(Head {
            length: end + 4,
            status,
        })),
        _ => Err(no_http("has no status")),
    }
}

fn no_http(what: &str) -> io::Error {
    let problem = format!("the answer of HTTP/1.1 {what}");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

async fn post(io: Io, tunnel: &Tunnel) -> io::Result<Io> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "tunnel ended");
        }
    });
    let (near, far) = tokio::io::duplex(BUFFER);
    let (up, down) = tokio::io::split(far);
    let cut = Arc::<Cut>::default();
    let request = Request::post("/")
        .header(header::HOST, authority(tunnel))
        .body(Up(up, Arc::clone(&cut)))
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if !response.status().is_success() {
        return Err(refused(response.status().as_u16()));
    }
    let broken = Arc::clone(&cut);
    tokio::task::spawn_local(async move {
        let mut down = down;
        if let Err(error) = carry_down(response.into_body(), &mut down).await {
            tracing::debug!(%error, "tunnel ended");
            broken.far();
        }
        // Fails only when nobody is there to read it.
        let _ = down.shutdown().await;
        // Only now: without its sender the connection would end.
        drop(sender);
    });
    Ok(Io::from(Near::new(near, cut)))
}

/// What the application says, as the body of the request. Broken off by the application, it is no whole body.
struct Up(ReadHalf<DuplexStream>, Arc<Cut>);

impl Body for Up {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() && self.1.is_near() {
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
            }
            Poll::Ready((!read.is_empty()).then(|| Ok(Frame::data(Bytes::copy_from_slice(read)))))
        })
    }
}

async fn carry_down(mut body: Incoming, down: &mut WriteHalf<DuplexStream>) -> io::Result<()> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            down.write_all(&data).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

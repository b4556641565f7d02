//! What stands behind every proxy that is measured: it answers as cheaply as it can, so that the proxy is what limits.
//!
//! HTTP: `GET /N` gives N bytes, a body that is sent is read and counted, `POST /echo` sends it back as it comes,
//! which is what a gRPC stream looks like. TCP: what comes is sent back, or is swallowed, or bytes come without end.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::forward::Local;
use crate::proxy::{CONNECTION_WINDOW, STREAM_WINDOW};

/// The largest body, and the size of the pieces that TCP gets.
static ZEROS: [u8; 1024 * 1024] = [b'.'; 1024 * 1024];
const PIECE: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
enum Speaks {
    Http1,
    Http2,
    Echo,
    Source,
    Sink,
}

pub(crate) async fn run() -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for (port, speaks) in [
        (8080, Speaks::Http1),
        (8081, Speaks::Http2),
        (9000, Speaks::Echo),
        (9001, Speaks::Source),
        (9002, Speaks::Sink),
    ] {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        listeners.push(spawn_local(accept(listener, speaks)));
    }
    for listener in listeners {
        listener.await??;
    }
    Ok(())
}

async fn accept(listener: TcpListener, speaks: Speaks) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        stream.set_nodelay(true)?;
        spawn_local(async move {
            // A client that goes away ends its connection and nothing else.
            if let Err(error) = serve(stream, speaks).await {
                eprintln!("a connection ended: {error:#}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream, speaks: Speaks) -> anyhow::Result<()> {
    match speaks {
        Speaks::Http1 => {
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await?;
        }
        Speaks::Http2 => {
            http2::Builder::new(Local)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(4096)
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await?;
        }
        Speaks::Echo => {
            let mut buffer = vec![0; PIECE];
            loop {
                let read = stream.read(&mut buffer).await?;
                if read == 0 {
                    break;
                }
                stream.write_all(&buffer[..read]).await?;
            }
        }
        Speaks::Source => loop {
            stream.write_all(&ZEROS).await?;
        },
        Speaks::Sink => {
            let mut buffer = vec![0; 4 * PIECE];
            while stream.read(&mut buffer).await? != 0 {}
        }
    }
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path();
    if path.ends_with("/echo") {
        let body = request.into_body();
        let mut response = Response::new(Answer::Echo(body));
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        return Ok(response);
    }
    let wanted = path.trim_start_matches('/').parse().unwrap_or(0);
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            let mut response = Response::new(Answer::Full(Full::default()));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return Ok(response);
        }
    }
    let bytes = Bytes::from_static(&ZEROS[..ZEROS.len().min(wanted)]);
    Ok(Response::new(Answer::Full(Full::new(bytes))))
}

/// Bytes that are there, or what the client sends, with the trailers of a gRPC call that went well.
#[derive(Debug)]
enum Answer {
    Full(Full<Bytes>),
    Echo(Incoming),
    Ended,
}

impl Answer {
    fn finish(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        *self = Answer::Ended;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Answer::Full(full) => Pin::new(full)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| Ok(frame.unwrap_or_else(|never| match never {})))),
            Answer::Echo(body) => match Pin::new(body).poll_frame(cx) {
                // The end may come as an empty frame; sent back as one that is not the end, proxies take it for an attack.
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {
                    self.finish()
                }
                Poll::Ready(None) => self.finish(),
                other => other,
            },
            Answer::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Full(full) => full.is_end_stream(),
            Answer::Echo(_) => false,
            Answer::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Full(full) => full.size_hint(),
            Answer::Echo(_) | Answer::Ended => SizeHint::default(),
        }
    }
}

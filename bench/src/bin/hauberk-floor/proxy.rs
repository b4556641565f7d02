//! The proxy: accepts, ends and begins TLS where told to, and hands connections to `forward` or `tcp`.

use std::rc::Rc;

use anyhow::Context;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::forward::{self, Local};
use crate::pool::{Dialler, Pool};
use crate::tls::{Io, Tls};
use crate::{Protocol, Proxy, tcp};

/// How much HTTP/2 may have under way on a stream and on a connection, as Hauberk allows.
pub(crate) const STREAM_WINDOW: u32 = 1024 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

pub(crate) async fn run(options: Proxy) -> anyhow::Result<()> {
    let Proxy {
        listen,
        to,
        downstream,
        upstream,
        downstream_tls,
        upstream_tls,
        no_resumption,
        certificates,
    } = options;
    let resume = !no_resumption;
    let accepts = downstream_tls
        .then(|| Tls::server(&certificates, downstream, resume))
        .transpose()?;
    let dials = upstream_tls
        .then(|| Tls::client(&certificates, upstream, resume))
        .transpose()?;
    let pool = Rc::new(Pool::new(Dialler { to, tls: dials }, upstream));
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    let accepts = accepts.map(Rc::new);
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        let (pool, accepts) = (Rc::clone(&pool), accepts.clone());
        spawn_local(async move {
            // A client that goes away ends its connection and nothing else.
            let _gone = serve(stream, accepts.as_deref(), downstream, pool).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<&Tls>,
    downstream: Protocol,
    pool: Rc<Pool>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let io = match tls {
        Some(tls) => tls.accept(stream).await?,
        None => Io::Plain(stream),
    };
    match downstream {
        Protocol::Tcp => tcp::relay(io, pool.dial().await?).await,
        Protocol::Http1 => {
            let service = service_fn(move |request| forward::forward(request, Rc::clone(&pool)));
            http1::Builder::new()
                .serve_connection(TokioIo::new(io), service)
                .await?;
            Ok(())
        }
        Protocol::Http2 => {
            let service = service_fn(move |request| forward::forward(request, Rc::clone(&pool)));
            http2::Builder::new(Local)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(1024)
                .serve_connection(TokioIo::new(io), service)
                .await?;
            Ok(())
        }
    }
}

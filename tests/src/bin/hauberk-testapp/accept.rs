//! Accepts connections, speaks what the port is for, and ends politely after SIGTERM.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::state::State;
use crate::{grpc, http, tcp};

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// After SIGTERM, nobody must have been connected for this long before the process ends.
const QUIET: Duration = Duration::from_millis(250);
/// After the grace, requests under way get this long.
const LAST_CALL: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(25);

/// What is spoken on a port.
#[derive(Clone, Debug)]
pub(crate) enum Speaks {
    Http,
    Grpc,
    Lines { greeting: Option<String> },
}

/// One connection, as its requests see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// Resets the connection at once.
    pub(crate) reset: Notify,
}

/// A server on one or more ports.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    state: Arc<State>,
    speaks: Arc<Speaks>,
    closing: watch::Receiver<bool>,
    close: watch::Sender<bool>,
}

impl Server {
    pub(crate) fn new(state: Arc<State>, speaks: Speaks) -> Server {
        let (close, closing) = watch::channel(false);
        Server {
            state,
            speaks: Arc::new(speaks),
            closing,
            close,
        }
    }

    /// Serves until SIGTERM, then as long as somebody is connected, at most `grace`.
    pub(crate) async fn run(self, listeners: Vec<TcpListener>, grace: Duration) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        for listener in listeners {
            tokio::spawn(accept(listener, self.clone()));
        }
        terminate.recv().await;
        self.quiet(grace).await;
        self.close.send_replace(true);
        self.quiet(LAST_CALL).await;
        Ok(())
    }

    /// Returns when nobody has been connected for a while, at the latest after `limit`.
    async fn quiet(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut since = Instant::now();
        while Instant::now() < end && since.elapsed() < QUIET {
            tokio::time::sleep(LOOK).await;
            if self.state.open() > 0 {
                since = Instant::now();
            }
        }
    }
}

async fn accept(listener: TcpListener, server: Server) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, peer, server.clone()));
            }
            Err(error) => {
                eprintln!("cannot accept: {error}");
                // Out of descriptors, most likely: they come back when connections end.
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, server: Server) {
    let state = Arc::clone(&server.state);
    let _open = state.connection();
    let _not_fatal = stream.set_nodelay(true);
    // A second descriptor of the socket, to make its close a reset while hyper holds the first.
    let Ok((stream, twin)) = split(stream) else { return };
    let connection = Arc::new(Connection {
        peer: canonical(peer),
        reset: Notify::new(),
    });
    let served = async {
        match &*server.speaks {
            Speaks::Http | Speaks::Grpc => serve_http(stream, &server, &connection).await,
            Speaks::Lines { greeting } => {
                tcp::serve(
                    stream,
                    &state,
                    &connection,
                    greeting.as_deref(),
                    server.closing.clone(),
                )
                .await
            }
        }
    };
    tokio::select! {
        () = served => {}
        () = connection.reset.notified() => {
            let _not_fatal = socket2::SockRef::from(&twin).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn serve_http(stream: TcpStream, server: &Server, connection: &Arc<Connection>) {
    let service = service_fn(|request| {
        let (state, connection) = (Arc::clone(&server.state), Arc::clone(connection));
        let grpc = matches!(*server.speaks, Speaks::Grpc);
        async move {
            let response = if grpc {
                grpc::answer(state, connection, request).await
            } else {
                http::answer(state, connection, request).await
            };
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut closing = server.closing.clone();
    let closing = async move { closing.wait_for(|closing| *closing).await.is_ok() };
    let result = tokio::select! {
        result = serving.as_mut() => result,
        _closing = closing => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        eprintln!("connection from {}: {error}", connection.peer);
    }
}

fn split(stream: TcpStream) -> std::io::Result<(TcpStream, std::net::TcpStream)> {
    let stream = stream.into_std()?;
    let twin = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, twin))
}

/// IPv4 peers of an IPv6 socket, as IPv4.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

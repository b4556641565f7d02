//! From the listener to connections that speak HTTP/2 over TLS 1.3. Each handshake runs by itself and has bounded time,
//! so a silent or broken client holds up nobody; what does not get through is counted and closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::authority::ServerIdentity;
use crate::metrics::SessionMetrics;

/// Time for TLS and the HTTP/2 preface together.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way; beyond this a new connection is closed at once.
const MAX_HANDSHAKES: usize = 1024;
/// What every HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection on which the client has begun to speak HTTP/2.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Bytes of the preface that the HTTP/2 side has not read yet.
    preface: &'static [u8],
    stream: TlsStream<TcpStream>,
}

/// TLS 1.3 with the operator's certificate, HTTP/2 only.
pub(crate) fn tls(identity: Arc<ServerIdentity>) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has suites for TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Accepts connections for as long as the stream is held.
pub(crate) fn accept(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    metrics: SessionMetrics,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(tls);
        let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others will close.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                metrics.failed_handshakes.inc();
                tracing::warn!(%peer, "closed a connection: too many handshakes are under way");
                continue;
            };
            let (acceptor, ready, metrics) = (acceptor.clone(), ready.clone(), metrics.clone());
            tokio::spawn(async move {
                let done = tokio::time::timeout(HANDSHAKE, handshake(&acceptor, tcp)).await;
                drop(slot);
                match done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    // Nobody takes it when the server is stopping.
                    Ok(connection) => drop(ready.send(Ok(connection)).await),
                    Err(error) => {
                        metrics.failed_handshakes.inc();
                        tracing::debug!(%peer, %error, "a connection did not get through its handshake");
                    }
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn handshake(acceptor: &TlsAcceptor, tcp: TcpStream) -> io::Result<Connection> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    // Past this point no timer of the HTTP/2 side runs until the preface is there; so it is read here.
    let mut first = [0; PREFACE.len()];
    stream.read_exact(&mut first).await?;
    if first != *PREFACE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the client does not speak HTTP/2",
        ));
    }
    Ok(Connection {
        preface: PREFACE,
        stream,
    })
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let (now, later) = self.preface.split_at(self.preface.len().min(buf.remaining()));
        buf.put_slice(now);
        self.preface = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

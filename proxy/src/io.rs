//! The byte stream of a connection, whatever it is made of.
//!
//! Made by the listener (accepted) and the upstream side (dialled), wrapped in TLS by [`crate::identity`], handed to
//! hyper inside `hyper_util::rt::TokioIo` or to [`crate::tcp::relay`]. One concrete type, so that nothing above it is
//! generic over streams.
//!
//! Bytes may be looked at before they are consumed: [`Io::fill`] reads into the prefix, and whoever reads the stream
//! afterwards gets the prefix first. An idle stream holds no buffer. Nothing here decides how long to wait.

mod scratch;
mod tls;
mod tunnel;
#[cfg(test)]
mod weight;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

pub(crate) use scratch::{SCRATCH, with_scratch};
pub use tls::TlsStream;
pub(crate) use tunnel::{Cut, Near};

use crate::serve::Watched;

/// Up to this many bytes a copy is cheaper than what it saves.
const GATHER: usize = 4096;

/// A byte stream with bytes that were read ahead.
#[derive(Debug)]
pub struct Io {
    /// Received, and not consumed by anybody yet.
    prefix: BytesMut,
    stream: Stream,
}

/// TLS is boxed: its state is a hundred times the size of a socket.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
    /// What an HTTP connection became after an upgrade, if it is not a stream of ours: a stream of HTTP/2.
    Upgraded(Box<TokioIo<Upgraded>>),
    /// Two ends in one process: for tests and the admin side.
    Memory(DuplexStream),
    /// A tunnel whose bytes are bodies.
    Tunnel(Near),
}

/// The same call on whichever stream it is.
macro_rules! each {
    ($stream:expr, $it:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($it) => $call,
            Stream::Tls($it) => $call,
            Stream::Upgraded($it) => $call,
            Stream::Memory($it) => $call,
            Stream::Tunnel($it) => $call,
        }
    };
}

/// How [`Io::fill`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The prefix is longer than before.
    More,
    /// The peer has sent its last byte; the prefix is what it is.
    Eof,
    /// The prefix is as long as was allowed.
    Full,
}

impl Io {
    /// Reads once, into the prefix, which grows to at most `most` bytes. May be cancelled without losing bytes.
    pub async fn fill(&mut self, most: usize) -> io::Result<Filled> {
        std::future::poll_fn(|context| self.poll_fill(context, most)).await
    }

    /// What was read ahead.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Puts back what somebody read ahead of everything that is still to be read.
    pub(crate) fn with_first(mut self, bytes: &[u8]) -> Self {
        if !bytes.is_empty() {
            let mut prefix = BytesMut::from(bytes);
            prefix.extend_from_slice(&self.prefix);
            self.prefix = prefix;
        }
        self
    }

    /// The socket underneath, under however many layers of TLS.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(stream) => Some(stream),
            Stream::Tls(stream) => stream.inner().tcp(),
            Stream::Upgraded(_) | Stream::Memory(_) | Stream::Tunnel(_) => None,
        }
    }

    /// The socket, when its bytes are the stream's own and none of them was read ahead.
    pub(crate) fn bare(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(stream) if self.prefix.is_empty() => Some(stream),
            Stream::Tcp(_) | Stream::Tls(_) | Stream::Upgraded(_) | Stream::Memory(_) | Stream::Tunnel(_) => {
                None
            }
        }
    }

    /// The protocol that was agreed inside TLS; `None` also where there is no TLS.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match &self.stream {
            Stream::Tls(stream) => stream.connection().alpn_protocol(),
            Stream::Tcp(_) | Stream::Upgraded(_) | Stream::Memory(_) | Stream::Tunnel(_) => None,
        }
    }

    /// Makes the coming drop a reset instead of an orderly end, so that the peer does not take a stream that was cut
    /// for one that was complete. Other streams without a socket of their own end as their kind does when dropped.
    pub fn abort(&self) {
        if let Stream::Tunnel(near) = &self.stream {
            near.abort();
        }
        if let Some(stream) = self.tcp() {
            // Fails only on a socket that is dead already.
            let _ = stream.set_zero_linger();
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<Filled>> {
        let room = most.saturating_sub(self.prefix.len()).min(SCRATCH);
        if room == 0 {
            return Poll::Ready(Ok(Filled::Full));
        }
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch[..room]);
            ready!(each!(&mut self.stream, stream => Pin::new(stream).poll_read(context, &mut buffer)))?;
            self.prefix.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(if buffer.filled().is_empty() {
                Filled::Eof
            } else {
                Filled::More
            }))
        })
    }
}

impl From<Stream> for Io {
    fn from(stream: Stream) -> Self {
        Self {
            prefix: BytesMut::new(),
            stream,
        }
    }
}

impl From<Box<TlsStream>> for Io {
    fn from(stream: Box<TlsStream>) -> Self {
        Stream::Tls(stream).into()
    }
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Stream::Tcp(stream).into()
    }
}

impl From<DuplexStream> for Io {
    fn from(stream: DuplexStream) -> Self {
        Stream::Memory(stream).into()
    }
}

impl From<Near> for Io {
    fn from(near: Near) -> Self {
        Stream::Tunnel(near).into()
    }
}

/// An upgraded HTTP/1 connection is the very [`Io`] that hyper was given, with what hyper read ahead put back.
impl From<Upgraded> for Io {
    fn from(upgraded: Upgraded) -> Self {
        let upgraded = match upgraded.downcast::<TokioIo<Watched>>() {
            Ok(parts) => return parts.io.into_inner().into_inner().with_first(&parts.read_buf),
            Err(upgraded) => upgraded,
        };
        match upgraded.downcast::<TokioIo<Io>>() {
            Ok(parts) => parts.io.into_inner().with_first(&parts.read_buf),
            Err(upgraded) => Stream::Upgraded(Box::new(TokioIo::new(upgraded))).into(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        #[cfg(test)]
        calls::READS.set(calls::READS.get() + 1);
        if self.prefix.is_empty() {
            return each!(&mut self.stream, stream => Pin::new(stream).poll_read(context, buffer));
        }
        let now = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..now]);
        self.prefix.advance(now);
        if self.prefix.is_empty() {
            // Gives the memory back: most connections live much longer than their first bytes.
            self.prefix = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        #[cfg(test)]
        calls::WRITES.set(calls::WRITES.get() + 1);
        each!(&mut self.stream, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Stream::Tcp(stream) = &mut self.stream {
            return poll_write_gathered(Pin::new(stream), context, slices);
        }
        each!(&mut self.stream, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.stream, stream => stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.stream, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.stream, stream => Pin::new(stream).poll_shutdown(context))
    }
}

/// Small pieces are copied together first: one plain send costs the kernel less than a vectored one.
fn poll_write_gathered(
    stream: Pin<&mut TcpStream>,
    context: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let all: usize = slices.iter().map(|slice| slice.len()).sum();
    match slices {
        [single] => stream.poll_write(context, single),
        _ if all <= GATHER => with_scratch(|scratch| {
            let mut filled = 0;
            for slice in slices {
                scratch[filled..filled + slice.len()].copy_from_slice(slice);
                filled += slice.len();
            }
            stream.poll_write(context, &scratch[..filled])
        }),
        _ => stream.poll_write_vectored(context, slices),
    }
}

/// How often the thread read and wrote, at every layer.
#[cfg(test)]
pub(crate) mod calls {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static READS: Cell<u64> = const { Cell::new(0) };
        pub(crate) static WRITES: Cell<u64> = const { Cell::new(0) };
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use http_body_util::Empty;
    use hyper::{Response, body::Bytes, service::service_fn};
    use rustls::{ClientConfig, ServerConfig};
    use rustls_pki_types::ServerName;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    impl Io {
        async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<Self> {
            Ok(TlsStream::accept(config, self).await?.into())
        }

        async fn connect_tls(self, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
            let alpn = config.alpn_protocols.clone();
            Ok(TlsStream::connect(config, name, alpn, self).await?.into())
        }
    }

    /// The two configurations of a TLS connection to `server.test`, which agree on `hauberk/tcp`.
    pub(crate) fn tls_configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let signed = rcgen::generate_simple_self_signed(["server.test".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(signed.cert.der().clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        server.alpn_protocols = vec![b"hauberk/tcp".to_vec()];
        client.alpn_protocols = vec![b"hauberk/tcp".to_vec()];
        (Arc::new(server), Arc::new(client))
    }

    /// Both ends of a TLS connection over `stream`s.
    pub(crate) async fn tls_pair(client: impl Into<Io>, server: impl Into<Io>) -> (Io, Io) {
        let (server_config, client_config) = tls_configs();
        let name = ServerName::try_from("server.test").unwrap();
        let (client, server) = tokio::join!(
            client.into().connect_tls(client_config, name),
            server.into().accept_tls(server_config),
        );
        (client.unwrap(), server.unwrap())
    }

    #[tokio::test]
    async fn what_was_looked_at_is_read_again() {
        let (mut peer, ours) = duplex(64);
        let mut io = Io::from(ours);
        peer.write_all(b"first ").await.unwrap();
        assert_eq!(io.fill(100).await.unwrap(), Filled::More);
        assert_eq!(io.prefix(), b"first ");
        peer.write_all(b"second").await.unwrap();
        assert_eq!(io.fill(8).await.unwrap(), Filled::More);
        assert_eq!(io.prefix(), b"first se");
        assert_eq!(io.fill(8).await.unwrap(), Filled::Full);
        drop(peer);
        let mut read = String::new();
        io.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "first second");
        assert_eq!(io.fill(8).await.unwrap(), Filled::Eof);
        assert_eq!(io.prefix.capacity(), 0, "memory of the prefix is given back");
    }

    #[tokio::test]
    async fn a_prefix_is_read_in_pieces_too() {
        let (mut peer, ours) = duplex(64);
        let mut io = Io::from(ours);
        peer.write_all(b"abcdef").await.unwrap();
        io.fill(100).await.unwrap();
        let mut piece = [0; 4];
        assert_eq!(io.read(&mut piece).await.unwrap(), 4);
        assert_eq!((&piece, io.prefix()), (b"abcd", &b"ef"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn filling_may_be_given_up_without_losing_bytes() {
        let (mut peer, ours) = duplex(64);
        let mut io = Io::from(ours);
        let limit = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(limit, io.fill(10)).await.is_err());
        peer.write_all(b"late").await.unwrap();
        assert_eq!(io.fill(10).await.unwrap(), Filled::More);
        assert_eq!(io.prefix(), b"late");
    }

    #[tokio::test]
    async fn a_hello_that_was_looked_at_still_completes_the_handshake() {
        let (server_config, client_config) = tls_configs();
        let (client, server) = duplex(4096);
        let name = ServerName::try_from("server.test").unwrap();
        let serve = async {
            let mut io = Io::from(server);
            let hello = loop {
                match crate::detect::tls::client_hello(io.prefix()) {
                    Ok(hello) => break hello,
                    Err(_) => {
                        let more = io.prefix().len() + 50;
                        assert_eq!(io.fill(more).await.unwrap(), Filled::More);
                    }
                }
            };
            assert_eq!(hello.sni.unwrap().as_str(), "server.test");
            io.accept_tls(server_config).await.unwrap()
        };
        let (mut server, client) = tokio::join!(serve, Io::from(client).connect_tls(client_config, name));
        let mut client = client.unwrap();

        client.write_all(b"inside").await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.fill(100).await.unwrap(), Filled::More);
        let mut read = [0; 6];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"inside");
    }

    #[tokio::test]
    async fn an_upgraded_connection_is_the_stream_it_was_with_nothing_lost() {
        let (mut peer, ours) = duplex(1024);
        let upgraded = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = Io::from(upgrade.await.unwrap());
                assert!(matches!(io.stream, Stream::Memory(_)));
                let mut read = [0; 5];
                io.read_exact(&mut read).await.unwrap();
                io.write_all(&read).await.unwrap();
            });
            let response = Response::builder().status(101).header("upgrade", "echo");
            Ok::<_, std::convert::Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(Io::from(ours)), upgraded)
                .with_upgrades(),
        );
        // The first bytes of the new protocol come together with the request.
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhe";
        peer.write_all(request).await.unwrap();
        peer.write_all(b"llo").await.unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 101") && answer.ends_with("\r\n\r\nhello"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn the_socket_is_found_under_tls() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (client, _) = tls_pair(client.unwrap(), server.unwrap().0).await;
        assert_eq!(client.tcp().unwrap().peer_addr().unwrap(), address);
        let (memory, _other) = duplex(1);
        assert!(Io::from(memory).tcp().is_none());
    }

    #[tokio::test]
    async fn pieces_arrive_in_their_order_whether_or_not_they_are_copied_together() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut client, mut server) = (Io::from(client.unwrap()), server.unwrap().0);
        for length in [0, 1, GATHER / 2, GATHER / 2 + 1, GATHER] {
            let (first, second) = (vec![1; length], vec![2; length]);
            let slices = [IoSlice::new(&first), IoSlice::new(b""), IoSlice::new(&second)];
            assert_eq!(client.write_vectored(&slices).await.unwrap(), 2 * length);
            let mut read = vec![0; 2 * length];
            server.read_exact(&mut read).await.unwrap();
            assert_eq!(read, [first, second].concat());
        }
    }

    #[test]
    fn a_stream_stays_small() {
        assert!(size_of::<Io>() <= 72, "{}", size_of::<Io>());
    }
}

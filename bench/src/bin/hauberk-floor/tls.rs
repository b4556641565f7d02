//! Mutual TLS 1.3 with the certificates of the bench, and a stream that may have it or not.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::Protocol;

/// The name in the certificates of the bench.
const NAME: &str = "bench.local";

#[derive(Debug)]
pub(crate) enum Tls {
    Server(Arc<ServerConfig>),
    Client(Arc<ClientConfig>),
}

/// A stream, with TLS or without.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Tls {
    pub(crate) fn server(folder: &Path, protocol: Protocol, resume: bool) -> anyhow::Result<Tls> {
        let (roots, chain, key) = read(folder)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
        let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = alpn(protocol);
        if !resume {
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Tls::Server(Arc::new(config)))
    }

    pub(crate) fn client(folder: &Path, protocol: Protocol, resume: bool) -> anyhow::Result<Tls> {
        let (roots, chain, key) = read(folder)?;
        let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = alpn(protocol);
        if !resume {
            config.resumption = rustls::client::Resumption::disabled();
        }
        Ok(Tls::Client(Arc::new(config)))
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> anyhow::Result<Io> {
        let Tls::Server(config) = self else {
            anyhow::bail!("a client's configuration cannot accept")
        };
        let stream = TlsAcceptor::from(Arc::clone(config)).accept(stream).await?;
        Ok(Io::Tls(Box::new(stream.into())))
    }

    pub(crate) async fn connect(&self, stream: TcpStream) -> anyhow::Result<Io> {
        let Tls::Client(config) = self else {
            anyhow::bail!("a server's configuration cannot connect")
        };
        let name = ServerName::try_from(NAME)?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await?;
        Ok(Io::Tls(Box::new(stream.into())))
    }
}

type Files = (
    RootCertStore,
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
);

fn read(folder: &Path) -> anyhow::Result<Files> {
    let at = |file: &str| folder.join(file);
    let certificates = |file: &str| -> anyhow::Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(at(file))
            .and_then(Iterator::collect)
            .with_context(|| format!("cannot read {}", at(file).display()))
    };
    let mut roots = RootCertStore::empty();
    for root in certificates("root.pem")? {
        roots.add(root)?;
    }
    let key = PrivateKeyDer::from_pem_file(at("key.pem"))
        .with_context(|| format!("cannot read {}", at("key.pem").display()))?;
    Ok((roots, certificates("cert.pem")?, key))
}

fn alpn(protocol: Protocol) -> Vec<Vec<u8>> {
    match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
        Protocol::Tcp => Vec::new(),
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

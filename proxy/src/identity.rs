//! This proxy's identity: the certificate that the operator signed, and mutual TLS with it.
//!
//! [`new`] makes an [`Identity`] that workers clone, and a [`Renewal`] that runs on the background thread. A handshake
//! succeeds only when the other side is who it must be; no byte of an application is sent before. Nothing here is ever
//! written to a file.

mod renewal;
mod request;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
pub(crate) mod verify;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::{Invalid, MeshProtocol, SpiffeId, TrustBundle};
use arc_swap::ArcSwapOption;
use rustls::{CommonState, HandshakeKind};
use tokio::sync::watch;

use crate::error::Error;
use crate::io::{Io, TlsStream};
use crate::metrics::{Handshakes, Metrics};
use crate::settings::Settings;

use request::{Certificate, SignError, roots_of};
use verify::{BadPeer, Explained, Leaf, Roots};

pub use renewal::Renewal;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// This proxy's identity. Cheap to clone; usable from every thread.
#[derive(Debug, Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: ArcSwapOption<tls::Settings>,
    status: watch::Sender<Status>,
    metrics: Arc<Metrics>,
}

/// How things stand with the certificate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) expires: Option<SystemTime>,
    /// How long the operator took to sign, or to fail to.
    pub(crate) latency: Option<Duration>,
    /// Why the last try failed; `None` when it did not.
    pub(crate) last_error: Option<String>,
}

/// Makes the identity that `settings` name. `trust` is from [`crate::config::Handle::trust`].
///
/// # Errors
/// When trust domain, namespace and service account make no SPIFFE identity.
pub fn new(
    settings: &Settings,
    trust: watch::Receiver<Option<Arc<TrustBundle>>>,
    metrics: Arc<Metrics>,
) -> Result<(Identity, Renewal), Invalid> {
    let id = SpiffeId::new(
        &settings.trust_domain,
        &settings.namespace,
        &settings.service_account,
    )?;
    let identity = Identity::empty(metrics);
    let renewal = Renewal {
        identity: identity.clone(),
        id,
        token_file: settings.token_file.clone(),
        trust,
    };
    Ok((identity, renewal))
}

/// Whether the roots of a bundle can be used, for the configuration store.
pub(crate) fn check_roots(bundle: &TrustBundle) -> Result<(), Invalid> {
    roots_of(bundle)
        .map(|_| ())
        .map_err(|e| Invalid::new("roots", e.to_string()))
}

impl Identity {
    fn empty(metrics: Arc<Metrics>) -> Self {
        Self {
            shared: Arc::new(Shared {
                current: ArcSwapOption::empty(),
                status: watch::Sender::new(Status::default()),
                metrics,
            }),
        }
    }

    /// Mutual TLS over `io`, which leads to `endpoint`. The peer must be `expected`; the one protocol offered is
    /// `protocol`.
    ///
    /// # Errors
    /// [`Error::NoCertificate`] while this proxy holds none that is valid, [`Error::Tls`] when the handshake fails, takes
    /// too long, or the peer is not who is expected.
    pub async fn connect(
        &self,
        io: Io,
        expected: &SpiffeId,
        endpoint: SocketAddr,
        protocol: MeshProtocol,
    ) -> Result<Box<TlsStream>, Error> {
        let settings = self.usable()?;
        let config = settings.client(expected).map_err(|e| tls_error(endpoint, &e))?;
        let handshake = async {
            let alpn = vec![protocol.alpn().to_vec()];
            let stream = TlsStream::connect(config, tls::session_name(endpoint), alpn, io).await?;
            let connection = stream.connection();
            let leaf = peer(connection)?;
            // A resumed session does not pass the verifier again.
            leaf.must_be(expected).map_err(io::Error::other)?;
            if connection.alpn_protocol() != Some(protocol.alpn()) {
                return Err(io::Error::other(format!("the peer does not speak {protocol:?}")));
            }
            Ok(stream)
        };
        let done = bounded(handshake).await;
        let counts = &self.shared.metrics.identity.client;
        count(counts, done.as_ref().ok().map(|stream| stream.connection()));
        done.map_err(|e| io_error(endpoint, e))
    }

    /// Mutual TLS with a caller at `peer`, who must be a workload of this trust domain: the stream, who the caller is,
    /// and what it speaks.
    ///
    /// # Errors
    /// As [`Identity::connect`].
    pub async fn accept(
        &self,
        io: Io,
        peer_address: SocketAddr,
    ) -> Result<(Box<TlsStream>, Arc<SpiffeId>, MeshProtocol), Error> {
        let settings = self.usable()?;
        let handshake = async {
            let stream = TlsStream::accept(Arc::clone(&settings.server), io).await?;
            let connection = stream.connection();
            let leaf = peer(connection)?;
            leaf.must_be_of(settings.roots.trust_domain())
                .map_err(io::Error::other)?;
            let protocol = connection.alpn_protocol().and_then(MeshProtocol::from_alpn);
            let protocol = protocol.ok_or_else(|| io::Error::other("the caller names no mesh protocol"))?;
            Ok((stream, Arc::new(leaf.id), protocol))
        };
        let done = bounded(handshake).await;
        let counts = &self.shared.metrics.identity.server;
        count(counts, done.as_ref().ok().map(|(stream, ..)| stream.connection()));
        done.map_err(|e| io_error(peer_address, e))
    }

    /// Whether a valid certificate is held.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.usable().is_ok()
    }

    /// Waits for the first certificate.
    pub async fn ready(&self) {
        let mut status = self.shared.status.subscribe();
        while !self.is_ready() {
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// When the certificate expires; `None` while there is none.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.shared.current.load().as_ref().map(|s| s.expires)
    }

    pub(crate) fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    fn usable(&self) -> Result<Arc<tls::Settings>, Error> {
        let settings = self.shared.current.load_full().ok_or(Error::NoCertificate)?;
        if settings.expires <= SystemTime::now() {
            return Err(Error::NoCertificate);
        }
        Ok(settings)
    }

    fn install(&self, certificate: &Certificate, roots: Roots) -> Result<(), rustls::Error> {
        let settings = tls::Settings::new(certificate, roots)?;
        let expires = settings.expires;
        self.shared.current.store(Some(Arc::new(settings)));
        self.shared.status.send_modify(|s| s.expires = Some(expires));
        Ok(())
    }

    fn answered(&self, latency: Duration, error: Option<&SignError>) {
        self.shared.status.send_modify(|s| {
            s.latency = Some(latency);
            s.last_error = error.map(ToString::to_string);
        });
    }
}

/// The verified certificate of the other side. That of a resumed session may have expired since.
fn peer(connection: &CommonState) -> io::Result<Leaf> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let first = chain
        .first()
        .ok_or_else(|| io::Error::other(BadPeer::NoCertificate))?;
    let leaf = Leaf::parse(first).map_err(io::Error::other)?;
    if leaf.not_after <= SystemTime::now() {
        return Err(io::Error::other(BadPeer::Expired));
    }
    Ok(leaf)
}

async fn bounded<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no handshake within {HANDSHAKE_TIMEOUT:?}"),
        )),
    }
}

fn count(counts: &Handshakes, done: Option<&CommonState>) {
    match done.map(CommonState::handshake_kind) {
        Some(Some(HandshakeKind::Resumed)) => counts.resumed.inc(),
        Some(_) => counts.full.inc(),
        None => counts.failed.inc(),
    };
}

fn tls_error(endpoint: SocketAddr, error: &rustls::Error) -> Error {
    Error::Tls {
        endpoint,
        source: Arc::new(io::Error::other(Explained(error).to_string())),
    }
}

fn io_error(endpoint: SocketAddr, error: io::Error) -> Error {
    Error::Tls {
        endpoint,
        source: Arc::new(verify::explain(error)),
    }
}

#[cfg(test)]
mod tests;

//! TLS settings made of one certificate and one set of roots. They are made once for each change and shared by every
//! connection after it; with a change the sessions of the ones before can no longer be resumed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use api::{MeshProtocol, SpiffeId};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use super::request::Certificate;
use super::verify::{AnyPeer, ExpectedPeer, Roots, provider};

/// Peers whose sessions are kept for resumption.
const SESSIONS: usize = 256;
/// Identities whose settings are kept; beyond it they are made anew, which costs microseconds.
const IDENTITIES: usize = 1024;

/// Everything handshakes need.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) expires: SystemTime,
    pub(super) roots: Arc<Roots>,
    pub(super) server: Arc<ServerConfig>,
    certificate: Arc<SingleCertAndKey>,
    sessions: Resumption,
    /// One for each identity dialled: the verifier knows whom it expects, and rustls resumes a session only under the
    /// verifier that made it. Locked for one look-up a handshake, never on the way of a request.
    clients: Mutex<HashMap<SpiffeId, Arc<ClientConfig>>>,
}

impl Settings {
    pub(super) fn new(certificate: &Certificate, roots: Roots) -> Result<Self, rustls::Error> {
        let roots = Arc::new(roots);
        let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&certificate.key)));
        let verifier = AnyPeer {
            roots: Arc::clone(&roots),
        };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&resolver) as _);
        server.alpn_protocols = MeshProtocol::ALL.iter().map(|p| p.alpn().to_vec()).collect();
        server.ticketer = Ticketer::new()?;
        server.send_tls13_tickets = 1;
        Ok(Self {
            expires: certificate.leaf.not_after,
            roots,
            server: Arc::new(server),
            certificate: resolver,
            sessions: Resumption::in_memory_sessions(SESSIONS),
            clients: Mutex::default(),
        })
    }

    /// The settings for dialling `expected`.
    pub(super) fn client(&self, expected: &SpiffeId) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(expected) {
            return Ok(Arc::clone(config));
        }
        let verifier = ExpectedPeer {
            roots: Arc::clone(&self.roots),
            expected: expected.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.certificate) as _);
        config.enable_sni = false;
        config.resumption = self.sessions.clone();
        if clients.len() >= IDENTITIES {
            clients.clear();
        }
        let config = Arc::new(config);
        clients.insert(expected.clone(), Arc::clone(&config));
        Ok(config)
    }
}

/// The name under which sessions with an endpoint are kept.
pub(super) fn session_name(endpoint: SocketAddr) -> ServerName<'static> {
    ServerName::IpAddress(endpoint.ip().into())
}

//! Who the other side is. Chains are verified by webpki against the roots of the mesh; names are not DNS names but the one
//! SPIFFE URI of the certificate. TLS 1.3 only, on both sides. Used by [`super::Identity`] and by the dialler of the
//! operator.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use api::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;

/// Trust anchors of one trust domain.
#[derive(Debug)]
pub(crate) struct Roots {
    trust_domain: String,
    anchors: Vec<TrustAnchor<'static>>,
}

/// A certificate whose holder is not who it should be, or that says too little about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPeer {
    #[error("the certificate cannot be parsed")]
    Malformed,
    #[error("the certificate holds {0} URI names, not one SPIFFE identity")]
    Names(usize),
    #[error("the certificate's name is no SPIFFE identity: {0}")]
    NotSpiffe(String),
    #[error("the peer is {found}, but {expected} is expected there")]
    Other { found: SpiffeId, expected: SpiffeId },
    #[error("the peer is {found}, which is not of the trust domain {trust_domain}")]
    Foreign { found: SpiffeId, trust_domain: String },
    #[error("the peer sent no certificate")]
    NoCertificate,
    #[error("the peer's certificate has expired")]
    Expired,
}

/// Certificates that are no roots.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRoots {
    #[error("there is none")]
    None,
    #[error("certificate {index} cannot be used: {problem}")]
    Certificate { index: usize, problem: webpki::Error },
}

/// What a leaf certificate says.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Leaf {
    /// Reads a certificate; its chain is verified elsewhere.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, BadPeer> {
        let (rest, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| BadPeer::Malformed)?;
        if !rest.is_empty() {
            return Err(BadPeer::Malformed);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| BadPeer::Malformed)?;
        let names = names.iter().flat_map(|n| &n.value.general_names);
        let uris: Vec<&str> = names
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris[..] else {
            return Err(BadPeer::Names(uris.len()));
        };
        let validity = certificate.validity();
        Ok(Self {
            id: uri
                .parse()
                .map_err(|e: api::Invalid| BadPeer::NotSpiffe(e.problem))?,
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }

    /// Fails when the peer is not `expected`.
    pub(crate) fn must_be(&self, expected: &SpiffeId) -> Result<(), BadPeer> {
        if self.id == *expected {
            return Ok(());
        }
        Err(BadPeer::Other {
            found: self.id.clone(),
            expected: expected.clone(),
        })
    }

    /// Fails when the peer is of another trust domain.
    pub(crate) fn must_be_of(&self, trust_domain: &str) -> Result<(), BadPeer> {
        if self.id.trust_domain() == trust_domain {
            return Ok(());
        }
        Err(BadPeer::Foreign {
            found: self.id.clone(),
            trust_domain: trust_domain.to_owned(),
        })
    }
}

fn at(timestamp: i64) -> SystemTime {
    let since = Duration::from_secs(timestamp.unsigned_abs());
    let time = if timestamp < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Roots {
    pub(crate) fn new(trust_domain: &str, certificates: &[CertificateDer<'_>]) -> Result<Self, BadRoots> {
        if certificates.is_empty() {
            return Err(BadRoots::None);
        }
        let anchors = certificates.iter().enumerate().map(|(index, der)| {
            webpki::anchor_from_trusted_cert(der)
                .map(|anchor| anchor.to_owned())
                .map_err(|problem| BadRoots::Certificate { index, problem })
        });
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            anchors: anchors.collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Verifies a chain up to one of the roots.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        let algorithms = provider().signature_verification_algorithms.all;
        let parsed = EndEntityCert::try_from(leaf).map_err(chain_error)?;
        parsed
            .verify_for_usage(algorithms, &self.anchors, intermediates, now, usage, None, None)
            .map_err(chain_error)?;
        Ok(())
    }
}

/// The one provider of cryptography.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Certificates of a PEM file.
pub(crate) fn pem_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("is no PEM: {e}"))
}

/// The TLS settings for the operator: it must be `identity`; this side shows no certificate.
pub(crate) fn operator_config(roots: Roots, identity: &SpiffeId) -> Result<ClientConfig, rustls::Error> {
    let verifier = ExpectedPeer {
        roots: Arc::new(roots),
        expected: identity.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.enable_sni = false;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Verifies that a server is one certain peer.
#[derive(Debug)]
pub(crate) struct ExpectedPeer {
    pub(crate) roots: Arc<Roots>,
    pub(crate) expected: SpiffeId,
}

impl ServerCertVerifier for ExpectedPeer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.roots
            .verify(leaf, intermediates, now, KeyUsage::server_auth())?;
        let leaf = Leaf::parse(leaf).map_err(peer_error)?;
        leaf.must_be(&self.expected).map_err(peer_error)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies that a client is a workload of the mesh.
#[derive(Debug)]
pub(crate) struct AnyPeer {
    pub(crate) roots: Arc<Roots>,
}

impl ClientCertVerifier for AnyPeer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.roots
            .verify(leaf, intermediates, now, KeyUsage::client_auth())?;
        let leaf = Leaf::parse(leaf).map_err(peer_error)?;
        leaf.must_be_of(self.roots.trust_domain()).map_err(peer_error)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}

fn no_tls12() -> rustls::Error {
    rustls::PeerIncompatible::Tls13RequiredForQuic.into()
}

/// An error of the chain, with the alert that fits it.
fn chain_error(error: webpki::Error) -> rustls::Error {
    let error = match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        // A root of the same name but another key: the mesh of another cluster, or one from before it was set up anew.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            CertificateError::UnknownIssuer
        }
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    rustls::Error::InvalidCertificate(error)
}

pub(crate) fn peer_error(error: BadPeer) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// An error of a handshake in words, where it is one of TLS.
pub(crate) fn explain(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(tls) => io::Error::new(error.kind(), Explained(tls).to_string()),
        None => error,
    }
}

/// What a handshake said, in words for whoever reads the access log.
pub(crate) struct Explained<'a>(pub(crate) &'a rustls::Error);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rustls::Error as Tls;
        match self.0 {
            Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                f.write_str("the peer's certificate has expired")
            }
            Tls::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => f.write_str("the peer's certificate is not valid yet: compare the clocks"),
            Tls::InvalidCertificate(CertificateError::UnknownIssuer) => {
                f.write_str("the peer's certificate comes from no root that this mesh trusts")
            }
            Tls::InvalidCertificate(CertificateError::Other(OtherError(inner))) => write!(f, "{inner}"),
            Tls::NoCertificatesPresented => write!(f, "{}", BadPeer::NoCertificate),
            Tls::InvalidMessage(_) => write!(f, "the peer does not speak TLS ({})", self.0),
            Tls::AlertReceived(alert) => write!(f, "the peer refused: {alert:?}"),
            other => write!(f, "{other}"),
        }
    }
}

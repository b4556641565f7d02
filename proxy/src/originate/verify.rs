//! Whether a server outside the mesh is who it should be, and what to say when it is not. Chains and names are checked by
//! webpki, against the roots and revocation lists of one block.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder};
use x509_parser::extensions::GeneralName;

use crate::identity::verify::provider;

/// Verifies servers as one block says.
#[derive(Debug)]
pub(super) struct Server {
    /// `None`: whoever answers is trusted.
    pub(super) roots: Option<Vec<TrustAnchor<'static>>>,
    /// None: nothing is taken for revoked. Otherwise each certificate of a chain needs a list that covers it.
    pub(super) lists: Vec<CertRevocationList<'static>>,
    /// One of them must be the server's; none: the name that it was asked for by.
    pub(super) names: Vec<Name>,
}

/// A name that a server may have.
#[derive(Debug)]
pub(super) enum Name {
    /// A DNS name or an address. What a certificate has may be a wildcard that covers it.
    Server(ServerName<'static>),
    /// A URI, such as a SPIFFE identity, letter by letter.
    Uri(String),
}

/// A certificate that is for others.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate is for {found}, not for {expected}: see subjectAltNames and sni")]
struct OtherName {
    expected: String,
    found: String,
    /// `expected` is the name that it was asked for by.
    is_asked: bool,
}

/// Reads `subjectAltNames`.
pub(super) fn names(given: &[String]) -> io::Result<Vec<Name>> {
    let name = |given: &String| {
        if given.contains("://") {
            return Ok(Name::Uri(given.clone()));
        }
        let bad = |_| {
            let problem =
                format!("subjectAltNames: `{given}` is neither a DNS name nor a URI nor an address");
            io::Error::new(io::ErrorKind::InvalidInput, problem)
        };
        ServerName::try_from(given.clone()).map(Name::Server).map_err(bad)
    };
    given.iter().map(name).collect()
}

impl Server {
    fn has_name(
        &self,
        parsed: &EndEntityCert<'_>,
        leaf: &CertificateDer<'_>,
        asked: &ServerName<'_>,
    ) -> bool {
        let is = |name: &ServerName<'_>| parsed.verify_is_valid_for_subject_name(name).is_ok();
        if self.names.is_empty() {
            return is(asked);
        }
        self.names.iter().any(|name| match name {
            Name::Server(name) => is(name),
            Name::Uri(uri) => has_uri(leaf, uri),
        })
    }

    fn expected(&self, asked: &ServerName<'_>) -> String {
        let given = self.names.iter().map(|name| match name {
            Name::Server(name) => name.to_str().into_owned(),
            Name::Uri(uri) => uri.clone(),
        });
        let all: Vec<String> = given.collect();
        if all.is_empty() {
            return asked.to_str().into_owned();
        }
        all.join(" or ")
    }
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else {
            return Ok(ServerCertVerified::assertion());
        };
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        // Without a list there is nothing to look into.
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce).build());
        let parsed = EndEntityCert::try_from(leaf).map_err(chain_error)?;
        let algorithms = provider().signature_verification_algorithms.all;
        parsed
            .verify_for_usage(
                algorithms,
                roots,
                intermediates,
                now,
                KeyUsage::server_auth(),
                revocation,
                None,
            )
            .map_err(chain_error)?;
        if !self.has_name(&parsed, leaf, asked) {
            let mut found = alternatives(leaf).join(", ");
            if found.is_empty() {
                found.push_str("nobody by name");
            }
            return Err(other(OtherName {
                expected: self.expected(asked),
                found,
                is_asked: self.names.is_empty(),
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate has this URI, and as a URI: an authority that checks DNS names checks nothing else of them.
fn has_uri(leaf: &[u8], uri: &str) -> bool {
    let is = |name: &GeneralName<'_>| matches!(name, GeneralName::URI(has) if *has == uri);
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else {
        return false;
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    names.is_some_and(|names| names.value.general_names.iter().any(is))
}

/// The names in a certificate, each with its kind, in words: for messages only.
fn alternatives(leaf: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::URI(uri) => Some(format!("URI {uri}")),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|b| std::net::IpAddr::from(b).to_string());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| std::net::IpAddr::from(b).to_string()))
        .ok()
}

/// Fails when the certificate of a resumed session has expired since.
pub(super) fn still_valid(chain: &[CertificateDer<'_>]) -> io::Result<()> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_secs());
    let ends = chain
        .first()
        .and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok())
        .map(|(_, leaf)| leaf.validity().not_after.timestamp());
    match ends {
        Some(ends) if i64::try_from(seconds).is_ok_and(|now| now < ends) => Ok(()),
        _ => Err(io::Error::other(rustls::Error::InvalidCertificate(
            CertificateError::Expired,
        ))),
    }
}

/// An error of the chain, with the alert that fits it.
fn chain_error(error: webpki::Error) -> rustls::Error {
    let error = match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        // A root of the same name but another key.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            CertificateError::UnknownIssuer
        }
        webpki::Error::CertRevoked => CertificateError::Revoked,
        // One of an authority of the same name but another key covers nothing.
        webpki::Error::UnknownRevocationStatus | webpki::Error::InvalidCrlSignatureForPublicKey => {
            CertificateError::UnknownRevocationStatus
        }
        webpki::Error::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        error => return other(error),
    };
    rustls::Error::InvalidCertificate(error)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Whether a handshake failed for no other reason than the name that the server was asked for by.
pub(super) fn is_of_name_asked(error: &io::Error) -> bool {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) => inner
            .downcast_ref::<OtherName>()
            .is_some_and(|name| name.is_asked),
        Some(rustls::Error::AlertReceived(alert)) => *alert == AlertDescription::UnrecognisedName,
        _ => false,
    }
}

/// What errors are told with.
#[derive(Debug)]
pub(super) struct Words {
    /// Where the roots come from.
    pub(super) roots: String,
    /// Where the revocation lists come from.
    pub(super) lists: Option<String>,
    /// The proxy shows a certificate.
    pub(super) certified: bool,
    /// Servers are verified at all.
    pub(super) verifies: bool,
}

impl Words {
    /// An error of a handshake, in words where it is one of TLS.
    pub(super) fn explain(&self, error: io::Error) -> io::Error {
        match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(tls) => io::Error::new(error.kind(), self.of(tls)),
            None => error,
        }
    }

    fn of(&self, error: &rustls::Error) -> String {
        use rustls::Error as Tls;
        let lists = self.lists.as_deref().unwrap_or("caCrl");
        match error {
            Tls::InvalidCertificate(CertificateError::Expired) => {
                "the server's certificate has expired".to_owned()
            }
            Tls::InvalidCertificate(CertificateError::NotValidYet) => {
                "the server's certificate is not valid yet: compare the clocks".to_owned()
            }
            Tls::InvalidCertificate(CertificateError::UnknownIssuer) => {
                format!("the server's certificate comes from no root of {}", self.roots)
            }
            Tls::InvalidCertificate(CertificateError::Revoked) => {
                format!("the server's certificate, or one above it, is revoked by {lists}")
            }
            Tls::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
                format!("no list in {lists} covers the server's certificate and those above it")
            }
            Tls::InvalidCertificate(CertificateError::ExpiredRevocationList) => {
                format!("a revocation list in {lists} has expired")
            }
            Tls::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.to_string(),
            Tls::InvalidMessage(_) => format!("the server does not speak TLS ({error})"),
            Tls::AlertReceived(alert) => refused(*alert, self.certified),
            other => other.to_string(),
        }
    }
}

fn refused(alert: AlertDescription, certified: bool) -> String {
    match alert {
        AlertDescription::NoApplicationProtocol => {
            "the server speaks none of the protocols offered (ALPN)".to_owned()
        }
        AlertDescription::UnrecognisedName => "the server has no such name: see sni".to_owned(),
        _ if is_about_us(alert) && !certified => {
            format!("the server refused ({alert:?}): it may ask for a certificate, which mode MUTUAL has")
        }
        _ => format!("the server refused: {alert:?}"),
    }
}

/// Alerts that end a handshake because of the client.
fn is_about_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure
            // A certificate of an authority that has the name of a trusted one, but not its key.
            | AlertDescription::DecryptError
    )
}

/// Why a server ended the handshake after this side took it for done: with TLS 1.3 it looks at the client's certificate
/// last. Until then it reads no request, so none was processed.
pub(crate) fn refusal(error: &io::Error) -> Option<io::Error> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match tls {
        rustls::Error::AlertReceived(alert) if is_about_us(*alert) => {
            let problem =
                format!("the server refused this proxy's certificate, or that it has none: {alert:?}");
            Some(io::Error::other(problem))
        }
        _ => None,
    }
}

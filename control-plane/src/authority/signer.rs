//! What signs certificates: a key with the certificate that vouches for it, whether a root made here (`root`) or an
//! intermediate of the user (`issuer`). Called by `authority`, which decides what may be signed. Pure: time is given.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::SpiffeId;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;

/// How far certificates are dated back, for peers whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(300);

/// A key that signs, with its certificate.
#[derive(Debug)]
pub(crate) struct Signer {
    /// The certificate of the key.
    pub(crate) der: CertificateDer<'static>,
    /// What stands between a certificate and its root, in the order that TLS wants; empty when a root signs.
    pub(crate) intermediates: Vec<CertificateDer<'static>>,
    /// When the first of the certificates above ends.
    pub(crate) not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate just issued.
#[derive(Debug)]
pub(crate) struct Issued {
    /// The certificate, and what stands between it and its root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) not_after: SystemTime,
}

impl Signer {
    /// A signer of a certificate and the key that must belong to it.
    pub(crate) fn new(der: CertificateDer<'static>, key_pem: &str) -> Result<Self, String> {
        let unreadable = |e: String| format!("the key cannot be read: {e}");
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
        let key = KeyPair::try_from(&key).map_err(|e| unreadable(e.to_string()))?;
        let parsed = parse(&der)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("the key does not belong to the certificate".to_owned());
        }
        let not_after = not_after(&parsed);
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .map_err(|e| format!("the certificate cannot be used to sign: {e}"))?;
        Ok(Self {
            der,
            intermediates: Vec::new(),
            not_after,
            issuer,
        })
    }

    /// Issues a certificate with one URI name (and DNS names, for the operator itself), for client and server use. It
    /// ends when its lifetime or a certificate above it does, whichever is first.
    pub(crate) fn issue(
        &self,
        identity: &SpiffeId,
        dns_names: &[&str],
        key: &impl PublicKeyData,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Issued, rcgen::Error> {
        let not_after = (now + lifetime).min(self.not_after);
        // The subject stays empty, which makes the alternative name critical: it is the only name there is.
        let mut params = dated(now, not_after);
        params
            .subject_alt_names
            .push(SanType::URI(identity.as_str().try_into()?));
        for name in dns_names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let mut chain = vec![params.signed_by(key, &self.issuer)?.into()];
        chain.extend(self.intermediates.iter().cloned());
        Ok(Issued { chain, not_after })
    }
}

/// Reads a certificate.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("the certificate cannot be read: bytes follow it".to_owned()),
        Err(e) => Err(format!("the certificate cannot be read: {e}")),
    }
}

/// When a certificate ends.
pub(crate) fn not_after(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What every certificate made here begins with: a serial number of its own, and its time.
pub(crate) fn dated(now: SystemTime, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - BACKDATE).into();
    params.not_after = not_after.into();
    let mut serial: [u8; 16] = rand::random();
    // A serial number is a positive integer.
    serial[0] &= 0x7f;
    serial[15] |= 1;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

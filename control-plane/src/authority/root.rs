//! One root of the mesh: a self-made certificate authority, and the certificates it issues. Called by `store`, which
//! keeps roots, and by `authority`, which decides what may be signed. Pure: time and files are the callers'.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// How long a root lives.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far certificates are dated back, for peers whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(300);

/// A root with its key.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A root as kept in files.
pub(crate) struct RootPem {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A certificate just issued.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) not_after: SystemTime,
}

/// Makes a new root for a trust domain.
pub(crate) fn create(trust_domain: &str, now: SystemTime) -> Result<RootPem, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = dated(now, now + ROOT_LIFETIME);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Hauberk");
    // The serial in the name keeps the roots of a rotation apart where only names are compared.
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Root of {trust_domain}, {:016x}", rand::random::<u64>()),
    );
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(RootPem {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

impl Root {
    /// Reads a root, and checks that it is one: for this trust domain, and with the key that belongs to it.
    pub(crate) fn parse(pem: &RootPem, trust_domain: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(&pem.key).map_err(|e| format!("the key cannot be read: {e}"))?;
        let der = certificate(&pem.certificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|e| format!("the certificate cannot be read: {e}"))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("the key does not belong to the certificate".to_owned());
        }
        let wanted = format!("spiffe://{trust_domain}");
        let names = parsed.subject_alternative_name().ok().flatten();
        let named = names.is_some_and(|san| {
            san.value
                .general_names
                .iter()
                .any(|name| matches!(name, GeneralName::URI(uri) if *uri == wanted))
        });
        if !named {
            return Err(format!(
                "the certificate is not a root of the trust domain {trust_domain}: start with the trust domain that it \
                 was made for, or with an empty state directory"
            ));
        }
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = UNIX_EPOCH + Duration::from_secs(not_after);
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .map_err(|e| format!("the certificate cannot be used as a root: {e}"))?;
        Ok(Self {
            der,
            not_after,
            issuer,
        })
    }

    /// Issues a certificate with one URI name (and DNS names, for the operator itself), for client and server use. It
    /// ends when its lifetime or the root does, whichever is first.
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
        let der = params.signed_by(key, &self.issuer)?.into();
        Ok(Issued { der, not_after })
    }
}

/// The first certificate of a PEM text.
fn certificate(pem: &str) -> Result<CertificateDer<'static>, String> {
    use rustls_pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("the certificate cannot be read: {e}"))
}

fn dated(now: SystemTime, not_after: SystemTime) -> CertificateParams {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_root_is_read_back_only_for_its_trust_domain_and_with_its_key() {
        let pem = create("cluster.local", now()).unwrap();
        let root = Root::parse(&pem, "cluster.local").unwrap();
        assert_eq!(root.not_after, now() + ROOT_LIFETIME);
        assert!(
            Root::parse(&pem, "other.example")
                .unwrap_err()
                .contains("trust domain other.example")
        );
        let mixed = RootPem {
            certificate: pem.certificate,
            key: create("cluster.local", now()).unwrap().key,
        };
        assert!(
            Root::parse(&mixed, "cluster.local")
                .unwrap_err()
                .contains("does not belong")
        );
    }

    #[test]
    fn a_certificate_has_one_critical_name_and_never_outlives_its_root() {
        let root = Root::parse(&create("cluster.local", now()).unwrap(), "cluster.local").unwrap();
        let identity = SpiffeId::new("cluster.local", "shop", "reviews").unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = root
            .issue(&identity, &[], &key, now(), Duration::from_secs(30))
            .unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&issued.der).unwrap();
        let san = cert.subject_alternative_name().unwrap().unwrap();
        assert!(san.critical);
        assert_eq!(
            san.value.general_names,
            vec![GeneralName::URI("spiffe://cluster.local/ns/shop/sa/reviews")]
        );
        let eku = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(eku.server_auth && eku.client_auth && !eku.any);
        let validity = cert.validity();
        assert_eq!(
            validity.not_after.timestamp() - validity.not_before.timestamp(),
            330
        );
        let late = root.not_after - Duration::from_secs(10);
        let issued = root
            .issue(&identity, &[], &key, late, Duration::from_secs(30))
            .unwrap();
        assert_eq!(issued.not_after, root.not_after);
    }
}

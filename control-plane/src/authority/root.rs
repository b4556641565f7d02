//! A root of the mesh that is made here. Called by `store`, which keeps roots. Pure: time and files are the callers'.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;

use super::signer::{self, Signer};

/// How long a root lives.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A root as it is kept.
#[derive(Debug)]
pub(crate) struct RootPem {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Makes a new root for a trust domain.
pub(crate) fn create(trust_domain: &str, now: SystemTime) -> Result<RootPem, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = signer::dated(now, now + ROOT_LIFETIME);
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

/// Reads a root, and checks that it is one: for this trust domain, and with the key that belongs to it.
pub(crate) fn parse(pem: &RootPem, trust_domain: &str) -> Result<Signer, String> {
    let der = CertificateDer::from_pem_slice(pem.certificate.as_bytes())
        .map_err(|e| format!("the certificate cannot be read: {e}"))?;
    let root = Signer::new(der, &pem.key)?;
    let wanted = format!("spiffe://{trust_domain}");
    let parsed = signer::parse(&root.der)?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let named = names.is_some_and(|san| {
        san.value
            .general_names
            .iter()
            .any(|name| matches!(name, GeneralName::URI(uri) if *uri == wanted))
    });
    if !named {
        return Err(format!(
            "the certificate is not a root of the trust domain {trust_domain}: start with the trust domain that it was \
             made for, or with nothing kept, which makes a new authority"
        ));
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use api::SpiffeId;

    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_root_is_read_back_only_for_its_trust_domain_and_with_its_key() {
        let pem = create("cluster.local", now()).unwrap();
        let root = parse(&pem, "cluster.local").unwrap();
        assert_eq!(root.not_after, now() + ROOT_LIFETIME);
        assert!(
            parse(&pem, "other.example")
                .unwrap_err()
                .contains("trust domain other.example")
        );
        let mixed = RootPem {
            certificate: pem.certificate,
            key: create("cluster.local", now()).unwrap().key,
        };
        assert!(
            parse(&mixed, "cluster.local")
                .unwrap_err()
                .contains("does not belong")
        );
    }

    #[test]
    fn a_certificate_has_one_critical_name_and_never_outlives_its_root() {
        let root = parse(&create("cluster.local", now()).unwrap(), "cluster.local").unwrap();
        let identity = SpiffeId::new("cluster.local", "shop", "reviews").unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = root
            .issue(&identity, &[], &key, now(), Duration::from_secs(30))
            .unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
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

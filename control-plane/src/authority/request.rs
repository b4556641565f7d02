//! What may be signed: a decision over the bytes of a certificate request and the identity that its sender proved.
//! Called by `authority` for each request; nothing here signs, and no byte makes it panic.

use api::SpiffeId;
use rcgen::{CertificateSigningRequestParams, PublicKeyData, SanType, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

/// Bytes of a request; a request with the largest RSA key in use stays far below.
const MAX_LEN: usize = 16 << 10;

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are no certificate request this build can read.
    #[error("csr: is not a PKCS#10 request in DER that can be read: {0}")]
    Unreadable(String),
    /// The request is not signed with the key it is for.
    #[error("csr: its signature does not verify with its own key")]
    Signature,
    /// The request does not name exactly what the token stands for.
    #[error("csr: must name {wanted} as its one URI name and no other name, but names {found}")]
    Names {
        /// What the token stands for.
        wanted: String,
        /// What the request names.
        found: String,
    },
    /// The token's names do not form an identity.
    #[error("token: {0}")]
    Identity(String),
    /// The root that signs has expired.
    #[error(
        "the certificate that signs has expired: rotate it with `hauberk-control-plane rotate-root`, or replace the \
         intermediate if you brought one"
    )]
    RootExpired,
    /// The signing itself failed.
    #[error("the certificate could not be made: {0}")]
    Signing(String),
}

/// Checks a request for `identity`; gives the key to certify.
///
/// # Errors
/// When the request cannot be read, is not signed with its own key, or names anything but `identity`.
pub(crate) fn check(csr: &[u8], identity: &SpiffeId) -> Result<SubjectPublicKeyInfo, Refused> {
    if csr.len() > MAX_LEN {
        return Err(Refused::Unreadable(format!("it is longer than {MAX_LEN} bytes")));
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
        .map_err(|e| match e {
            rcgen::Error::InvalidCertificationRequestSignature => Refused::Signature,
            other => Refused::Unreadable(other.to_string()),
        })?;
    let names = &request.params.subject_alt_names;
    match names.as_slice() {
        [SanType::URI(uri)] if uri.as_str() == identity.as_str() => {}
        _ => {
            return Err(Refused::Names {
                wanted: identity.to_string(),
                found: shown(names),
            });
        }
    }
    // The key as it stands in the request: rebuilding it from the signature's algorithm could change its curve.
    let (rest, parsed) =
        X509CertificationRequest::from_der(csr).map_err(|e| Refused::Unreadable(e.to_string()))?;
    if !rest.is_empty() {
        return Err(Refused::Unreadable(format!("{} bytes follow it", rest.len())));
    }
    let key = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw)
        .map_err(|e| Refused::Unreadable(format!("its key: {e}")))?;
    if key.der_bytes().is_empty() {
        return Err(Refused::Unreadable("its key is empty".to_owned()));
    }
    Ok(key)
}

fn shown(names: &[SanType]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let one = |name: &SanType| match name {
        SanType::URI(uri) => format!("{:?}", uri.as_str()),
        SanType::DnsName(dns) => format!("DNS {:?}", dns.as_str()),
        SanType::IpAddress(ip) => format!("IP {ip}"),
        SanType::Rfc822Name(mail) => format!("mail {:?}", mail.as_str()),
        _ => "a name of another type".to_owned(),
    };
    let mut text = names.iter().take(4).map(one).collect::<Vec<_>>().join(", ");
    if names.len() > 4 {
        text.push_str(", …");
    }
    text.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn identity() -> SpiffeId {
        SpiffeId::new("cluster.local", "shop", "reviews").unwrap()
    }

    fn csr(key: &KeyPair, uris: &[&str], dns: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|u| SanType::URI((*u).try_into().unwrap()))
            .chain(dns.iter().map(|d| SanType::DnsName((*d).try_into().unwrap())))
            .collect();
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_request_for_the_proven_identity_gives_its_own_key() {
        for key in [
            KeyPair::generate().unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        ] {
            let found = check(&csr(&key, &[identity().as_str()], &[]), &identity()).unwrap();
            assert_eq!(found.subject_public_key_info(), key.subject_public_key_info());
        }
    }

    #[test]
    fn any_other_set_of_names_is_refused_by_name() {
        let key = KeyPair::generate().unwrap();
        let own = identity();
        for (uris, dns, says) in [
            (vec![], vec![], "nothing"),
            (
                vec!["spiffe://cluster.local/ns/shop/sa/payment"],
                vec![],
                "payment",
            ),
            (
                vec![own.as_str(), "spiffe://cluster.local/ns/shop/sa/payment"],
                vec![],
                "payment",
            ),
            (vec![own.as_str()], vec!["reviews.shop.svc"], "reviews.shop.svc"),
            (vec!["https://example.com"], vec![], "example.com"),
        ] {
            let error = check(&csr(&key, &uris, &dns), &own).unwrap_err();
            assert!(matches!(error, Refused::Names { .. }), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_request_with_a_changed_byte_in_its_signature_is_refused() {
        let mut bytes = csr(&KeyPair::generate().unwrap(), &[identity().as_str()], &[]);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(check(&bytes, &identity()).unwrap_err(), Refused::Signature);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(check(&bytes, &identity()).is_err());
        }

        #[test]
        fn a_changed_byte_never_gets_another_key_signed(at in any::<prop::sample::Index>(), flip in 1u8..) {
            static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());
            let mut bytes = csr(&KEY, &[identity().as_str()], &[]);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            // A few bits around the signature mean nothing; all that is certified is under it.
            if let Ok(key) = check(&bytes, &identity()) {
                prop_assert_eq!(key.subject_public_key_info(), KEY.subject_public_key_info());
            }
        }
    }
}

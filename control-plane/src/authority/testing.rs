//! A user's own authority, for the tests of what signs.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::issuer::IssuerPem;

/// A certificate of an authority, and what signs with it.
pub(crate) struct Ca {
    pub(crate) pem: String,
    pub(crate) key: String,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str, length: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(length);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(365 * 86400)).into();
    params
}

impl Ca {
    pub(crate) fn root(name: &str) -> Self {
        Self::of_key(name, KeyPair::generate().unwrap())
    }

    pub(crate) fn of_key(name: &str, key: KeyPair) -> Self {
        let params = params(name, BasicConstraints::Unconstrained);
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// An authority below this one.
    pub(crate) fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, BasicConstraints::Constrained(0));
        change(&mut params);
        Self {
            pem: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        }
    }
}

/// What a user brings: an intermediate below a root.
pub(crate) fn brought() -> IssuerPem {
    let root = Ca::root("root of the company");
    let intermediate = root.below("for the mesh", |_| {});
    IssuerPem {
        certificate: intermediate.pem,
        key: intermediate.key,
        roots: root.pem,
    }
}

/// Puts it where the directory has it.
pub(crate) fn put(state_dir: &std::path::Path, pem: &IssuerPem) {
    let dir = state_dir.join("issuer");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("tls.crt"), &pem.certificate).unwrap();
    std::fs::write(dir.join("tls.key"), &pem.key).unwrap();
    std::fs::write(dir.join("ca.crt"), &pem.roots).unwrap();
}

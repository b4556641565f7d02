//! A certificate authority for tests.

use std::sync::Arc;

use api::{SpiffeId, TrustBundle};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData, SanType};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::request::Certificate;
use super::verify::{Leaf, provider};
use super::{Identity, roots_of};
use crate::config::Current;
use crate::metrics::Metrics;

pub(crate) const TRUST_DOMAIN: &str = "cluster.local";

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    pem: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root");
        Self {
            pem: root.pem(),
            root: root.der().clone(),
            intermediates: Vec::new(),
            issuer: Issuer::new(params, key),
        }
    }

    /// An authority below this one: what it signs is trusted by whoever trusts this one, and is shown the way.
    pub(crate) fn below(&self) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "an intermediate");
        let certificate = params.signed_by(&key, &self.issuer).expect("an intermediate");
        Self {
            pem: self.pem.clone(),
            root: self.root.clone(),
            intermediates: vec![certificate.der().clone()],
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        Self::bundle_of(&[self])
    }

    pub(crate) fn bundle_of(all: &[&Self]) -> TrustBundle {
        TrustBundle {
            trust_domain: TRUST_DOMAIN.to_owned(),
            roots: all.iter().map(|ca| ca.root.to_vec().into()).collect(),
        }
    }

    pub(crate) fn root_pem(&self) -> &str {
        &self.pem
    }

    /// Signs a public key, as the operator does.
    pub(crate) fn sign(
        &self,
        key: &impl PublicKeyData,
        id: &SpiffeId,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(id.as_str())];
        change(&mut params);
        params
            .signed_by(key, &self.issuer)
            .expect("a certificate")
            .der()
            .clone()
    }

    pub(crate) fn certificate(&self, id: &SpiffeId) -> Certificate {
        self.certificate_with(id, |_| {})
    }

    pub(crate) fn certificate_with(
        &self,
        id: &SpiffeId,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let der = self.sign(&key, id, change);
        let leaf = Leaf::parse(&der).unwrap_or(Leaf {
            id: id.clone(),
            not_before: std::time::UNIX_EPOCH,
            not_after: std::time::SystemTime::now() + std::time::Duration::from_secs(3600),
        });
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = std::iter::once(der).chain(self.intermediates.iter().cloned());
        let key = CertifiedKey::from_der(chain.collect(), key, provider()).expect("key and certificate fit");
        Certificate {
            key: Arc::new(key),
            leaf,
        }
    }

    /// An identity that holds a certificate of this authority and trusts it.
    pub(crate) fn identity(&self, id: &SpiffeId) -> Identity {
        identity(&self.certificate(id), &self.bundle())
    }
}

/// An identity with this certificate that trusts this bundle.
pub(crate) fn identity(certificate: &Certificate, bundle: &TrustBundle) -> Identity {
    let identity = Identity::empty(metrics());
    install(&identity, certificate, bundle);
    identity
}

pub(crate) fn install(identity: &Identity, certificate: &Certificate, bundle: &TrustBundle) {
    let roots = roots_of(bundle).expect("usable roots");
    identity.install(certificate, roots).expect("installs");
}

pub(crate) fn empty() -> Identity {
    Identity::empty(metrics())
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(Current::default()))
}

pub(crate) fn id(account: &str) -> SpiffeId {
    SpiffeId::new(TRUST_DOMAIN, "shop", account).expect("an identity")
}

pub(crate) fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}

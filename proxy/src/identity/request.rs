//! Asking for a certificate: a new key, a request signed with it, and the checks on what comes back. The key is made
//! here, lives in memory only, and is used for one certificate.

use std::sync::Arc;
use std::time::SystemTime;

use api::proto::identity_client::IdentityClient;
use api::{SpiffeId, TrustBundle, proto};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tonic::transport::Channel;
use webpki::KeyUsage;

use super::verify::{BadPeer, BadRoots, Explained, Leaf, Roots, provider};
use crate::config::operator::TokenError;

/// A certificate with its key.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) leaf: Leaf,
}

/// Why no certificate came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the operator did not sign: {}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("the operator did not answer in time")]
    Timeout,
    #[error("making a key failed: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the operator's answer has no certificate")]
    Empty,
    #[error("the operator's trust bundle: {0}")]
    Bundle(String),
    #[error("the operator's trust bundle: {0}")]
    Roots(#[from] BadRoots),
    #[error("the signed certificate: {0}")]
    Leaf(#[from] BadPeer),
    #[error("the signed certificate does not fit: {0}")]
    Chain(String),
    #[error("the signed certificate has expired already: compare the clocks of node and operator")]
    Expired,
}

/// A key and the request for its certificate, DER.
pub(crate) fn key_and_request(id: &SpiffeId) -> Result<(KeyPair, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    let request = params.serialize_request(&key)?;
    Ok((key, request.der().to_vec()))
}

/// Has a new key signed.
pub(crate) async fn sign(
    channel: &Channel,
    token_file: &std::path::Path,
    id: &SpiffeId,
) -> Result<(Certificate, TrustBundle), SignError> {
    let (key, csr) = key_and_request(id)?;
    let mut request = tonic::Request::new(proto::SignRequest { csr });
    let token = crate::config::operator::bearer(token_file)?;
    request.metadata_mut().insert("authorization", token);
    let mut client = IdentityClient::new(channel.clone());
    let proto::SignResponse { chain, trust_bundle } = client.sign(request).await?.into_inner();
    let bundle = trust_bundle.ok_or_else(|| SignError::Bundle("is missing".to_owned()))?;
    let bundle = TrustBundle::try_from(bundle).map_err(|e| SignError::Bundle(e.to_string()))?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let certificate = check(&key, chain, &bundle, id)?;
    Ok((certificate, bundle))
}

/// Takes a chain only if it is for this key and this identity, valid now, and from a root of its bundle: a certificate
/// that peers refuse is worse than the one it would replace.
pub(crate) fn check(
    key: &KeyPair,
    chain: Vec<CertificateDer<'static>>,
    bundle: &TrustBundle,
    id: &SpiffeId,
) -> Result<Certificate, SignError> {
    let [first, intermediates @ ..] = &chain[..] else {
        return Err(SignError::Empty);
    };
    let leaf = Leaf::parse(first)?;
    leaf.must_be(id)?;
    leaf.must_be_of(&bundle.trust_domain)?;
    if leaf.not_after <= SystemTime::now() {
        return Err(SignError::Expired);
    }
    let chain_error = |e: rustls::Error| SignError::Chain(Explained(&e).to_string());
    let roots = super::roots_of(bundle)?;
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        roots
            .verify(first, intermediates, UnixTime::now(), usage)
            .map_err(chain_error)?;
    }
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = CertifiedKey::from_der(chain.clone(), der, provider()).map_err(chain_error)?;
    Ok(Certificate {
        key: Arc::new(key),
        leaf,
    })
}

/// Roots to verify peers against.
pub(super) fn roots_of(bundle: &TrustBundle) -> Result<Roots, BadRoots> {
    let roots: Vec<_> = bundle
        .roots
        .iter()
        .map(|der| CertificateDer::from(&der[..]))
        .collect();
    Roots::new(&bundle.trust_domain, &roots)
}

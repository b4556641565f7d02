//! The operator's own certificate: issued by its authority, renewed at half of its life or when another root signs, and
//! swapped under the running TLS servers: `session` serves with it, and so does the webhook.

use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Authority, AuthorityError, SERVER_NAME, unix};

/// Answers TLS handshakes with the newest certificate.
#[derive(Debug)]
pub struct ServerIdentity {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl ServerIdentity {
    /// Issues the first certificate.
    ///
    /// # Errors
    /// When the authority cannot issue one.
    pub fn new(authority: &Authority) -> Result<Arc<Self>, AuthorityError> {
        let (key, _) = issue(authority).map_err(AuthorityError::Server)?;
        Ok(Arc::new(Self {
            current: RwLock::new(key),
        }))
    }

    /// TLS 1.3 with the newest certificate, for these protocols (ALPN). Clients show no certificate.
    #[must_use]
    pub fn tls(self: &Arc<Self>, protocols: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has suites for TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as _);
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    pub(crate) fn get(&self) -> Arc<CertifiedKey> {
        self.current
            .read()
            .expect("the lock is held only to copy or set a pointer")
            .clone()
    }

    /// Renews the certificate, for ever: at half of its life, and at once when another root signs.
    pub async fn renew(&self, authority: &Authority) {
        let mut roots = authority.trust.subscribe();
        loop {
            let wait = match issue(authority) {
                Ok((key, half_life)) => {
                    *self
                        .current
                        .write()
                        .expect("the lock is held only to copy or set a pointer") = key;
                    half_life
                }
                Err(error) => {
                    tracing::error!(%error, "the operator's own certificate could not be renewed; trying again");
                    std::time::Duration::from_secs(10)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = roots.changed() => if changed.is_err() { return },
            }
        }
    }
}

fn issue(authority: &Authority) -> Result<(Arc<CertifiedKey>, std::time::Duration), String> {
    let trust = authority.trust.borrow().clone();
    let key = KeyPair::generate().map_err(|e| e.to_string())?;
    let now = SystemTime::now();
    let issued = trust
        .signer()
        .issue(
            &authority.identity,
            &[SERVER_NAME],
            &key,
            now,
            authority.settings.lifetime,
        )
        .map_err(|e| e.to_string())?;
    authority.metrics.server_expiry.set(unix(issued.not_after));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = any_ecdsa_type(&key).map_err(|e| e.to_string())?;
    let half_life = issued.not_after.duration_since(now).unwrap_or_default() / 2;
    // At least a second, so that an expired root does not make this spin.
    let half_life = half_life.max(std::time::Duration::from_secs(1));
    Ok((Arc::new(CertifiedKey::new(issued.chain, key)), half_life))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::{AuthoritySettings, Store};
    use crate::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn the_certificate_is_swapped_at_half_of_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let settings = AuthoritySettings {
            trust_domain: "cluster.local".to_owned(),
            lifetime: Duration::from_secs(3600),
        };
        let authority = Authority::open(settings, Store::directory(dir.path()), Metrics::new().authority)
            .await
            .unwrap();
        let server = ServerIdentity::new(&authority).unwrap();
        let renewing = {
            let (server, authority) = (server.clone(), authority.clone());
            tokio::spawn(async move { server.renew(&authority).await })
        };
        tokio::time::sleep(Duration::from_secs(10)).await;
        let first = server.get();
        tokio::time::sleep(Duration::from_secs(1780)).await;
        assert_eq!(first.cert, server.get().cert, "not before half of its life");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_ne!(first.cert, server.get().cert);
        renewing.abort();
    }
}

//! The certificate authority of the mesh: verifies join tokens, signs workloads' certificates, and issues the operator's
//! own. `session` calls it for each request; `push` follows its trust bundle. Only the state directory decides which roots
//! there are: a change there (a rotation) is seen within seconds and needs no restart.

mod request;
mod root;
mod rotate;
mod server;
mod store;
mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::{SpiffeId, TrustBundle};
use tokio::sync::watch;

pub use request::Refused;
pub use rotate::{RotateError, Step, rotate};
pub use server::ServerIdentity;
pub use store::StoreError;
pub use token::{Claims, TokenError, TokenKey};

use crate::metrics::AuthorityMetrics;
use store::Roots;

/// How often the state directory is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Service account of the operator, in the mesh's root namespace.
pub const SERVICE_ACCOUNT: &str = "hauberk-control-plane";
/// DNS name of the operator's Service, for clients that verify by address.
pub const SERVER_NAME: &str = "hauberk-control-plane.hauberk-system.svc";

/// What an authority needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthoritySettings {
    /// Where roots and keys are kept.
    pub state_dir: PathBuf,
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// Lifetime of certificates.
    pub lifetime: Duration,
}

/// Why an authority cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The trust domain cannot stand in an identity.
    #[error("trust-domain: {0}")]
    TrustDomain(api::Invalid),
    /// See [`StoreError`].
    #[error("state-dir: {0}")]
    Store(#[from] StoreError),
    /// The operator's own certificate could not be made.
    #[error("the operator's own certificate could not be made: {0}")]
    Server(String),
}

/// The authority. Cheap to share; one for the process.
#[derive(Debug)]
pub struct Authority {
    settings: AuthoritySettings,
    identity: SpiffeId,
    tokens: TokenKey,
    trust: watch::Sender<Arc<Trust>>,
    metrics: AuthorityMetrics,
}

/// The roots of one moment, and the bundle made of them.
#[derive(Debug)]
struct Trust {
    roots: Roots,
    bundle: TrustBundle,
}

impl Trust {
    fn new(roots: Roots, trust_domain: &str) -> Arc<Self> {
        let bundle = TrustBundle {
            trust_domain: trust_domain.to_owned(),
            roots: roots.roots.iter().map(|(_, r)| r.der.to_vec().into()).collect(),
        };
        Arc::new(Self { roots, bundle })
    }

    fn signer(&self) -> &root::Root {
        &self.roots.roots[self.roots.signer].1
    }
}

/// The changes of the trust bundle.
#[derive(Debug)]
pub struct Bundles(watch::Receiver<Arc<Trust>>);

impl Bundles {
    /// Waits for the next bundle; changes that come meanwhile count as one. `None` when the authority is gone.
    pub async fn next(&mut self) -> Option<TrustBundle> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().bundle.clone())
    }
}

/// A workload's new certificate.
#[derive(Debug, Clone)]
pub struct Signed {
    /// X.509, DER: the workload's certificate; roots sign directly, so there are no intermediates.
    pub chain: Vec<Vec<u8>>,
    /// Roots to verify peers with.
    pub bundle: TrustBundle,
}

/// How an authority is, for the health view.
#[derive(Debug, Clone)]
pub struct AuthorityHealth {
    /// Roots in the bundle.
    pub roots: usize,
    /// When the root that signs expires.
    pub expires: SystemTime,
    /// Whether the root that signs has expired.
    pub expired: bool,
}

impl Authority {
    /// Opens the state directory; an empty one becomes a new authority.
    ///
    /// # Errors
    /// When the state directory cannot be used as it is, with what to do about it.
    pub fn open(settings: AuthoritySettings, metrics: AuthorityMetrics) -> Result<Arc<Self>, AuthorityError> {
        let identity = SpiffeId::new(
            &settings.trust_domain,
            api::names::ROOT_NAMESPACE,
            SERVICE_ACCOUNT,
        )
        .map_err(AuthorityError::TrustDomain)?;
        let tokens = store::token_key(&settings.state_dir)?;
        let roots = store::open(&settings.state_dir, &settings.trust_domain, SystemTime::now())?;
        let trust = Trust::new(roots, &settings.trust_domain);
        metrics.root_expiry.set(unix(trust.signer().not_after));
        Ok(Arc::new(Self {
            settings,
            identity,
            tokens,
            trust: watch::Sender::new(trust),
            metrics,
        }))
    }

    /// Who the bearer of a token is.
    ///
    /// # Errors
    /// When the token is malformed, of another key, or over.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.tokens.verify(token, SystemTime::now())
    }

    /// Signs a certificate request for the bearer of `claims`, and for nobody else.
    ///
    /// # Errors
    /// When the request is not for that identity, not signed with its own key, or cannot be read.
    pub fn sign(&self, claims: &Claims, csr: &[u8]) -> Result<Signed, Refused> {
        let signed = self.sign_inner(claims, csr);
        match &signed {
            Ok(_) => self.metrics.signed.inc(),
            Err(_) => self.metrics.refused.inc(),
        };
        signed
    }

    fn sign_inner(&self, claims: &Claims, csr: &[u8]) -> Result<Signed, Refused> {
        let identity = self
            .identity_of(claims)
            .map_err(|e| Refused::Identity(e.to_string()))?;
        let key = request::check(csr, &identity)?;
        let trust = self.trust.borrow().clone();
        let now = SystemTime::now();
        if trust.signer().not_after <= now {
            return Err(Refused::RootExpired);
        }
        let issued = trust
            .signer()
            .issue(&identity, &[], &key, now, self.settings.lifetime)
            .map_err(|e| Refused::Signing(e.to_string()))?;
        Ok(Signed {
            chain: vec![issued.der.to_vec()],
            bundle: trust.bundle.clone(),
        })
    }

    /// The identity that claims stand for.
    ///
    /// # Errors
    /// When namespace or service account is not a Kubernetes name.
    pub fn identity_of(&self, claims: &Claims) -> Result<SpiffeId, api::Invalid> {
        SpiffeId::new(
            &self.settings.trust_domain,
            &claims.namespace,
            &claims.service_account,
        )
    }

    /// The roots that peers are verified against now.
    #[must_use]
    pub fn bundle(&self) -> TrustBundle {
        self.trust.borrow().bundle.clone()
    }

    /// The changes of the bundle from now on.
    #[must_use]
    pub fn bundles(&self) -> Bundles {
        Bundles(self.trust.subscribe())
    }

    /// How the authority is.
    #[must_use]
    pub fn health(&self) -> AuthorityHealth {
        let trust = self.trust.borrow();
        let expires = trust.signer().not_after;
        AuthorityHealth {
            roots: trust.roots.roots.len(),
            expires,
            expired: expires <= SystemTime::now(),
        }
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.settings.state_dir
    }

    /// Looks for changes of the state directory, for ever.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look();
        }
    }

    /// Takes over the roots as they are in the state directory; what cannot be read leaves them as they were.
    fn look(&self) {
        let roots = match store::load(&self.settings.state_dir, &self.settings.trust_domain) {
            Ok(roots) => roots,
            Err(error) => {
                tracing::error!(%error, "the state directory cannot be read; the last known roots stay in use");
                return;
            }
        };
        let next = Trust::new(roots, &self.settings.trust_domain);
        let changed = self.trust.send_if_modified(|trust| {
            let same = trust.bundle == next.bundle && trust.signer().der == next.signer().der;
            if !same {
                *trust = next;
            }
            !same
        });
        if changed {
            let health = self.health();
            self.metrics.root_expiry.set(unix(health.expires));
            tracing::info!(roots = health.roots, "the roots of the mesh have changed");
        }
    }
}

fn unix(time: SystemTime) -> i64 {
    i64::try_from(token::unix(time)).unwrap_or(i64::MAX)
}

/// Makes a join token with the key of a state directory, which is made where there is none yet.
///
/// # Errors
/// When a name is not a Kubernetes name, or the key cannot be read or made.
pub fn mint(
    state_dir: &Path,
    namespace: &str,
    service_account: &str,
    pod: &str,
    lifetime: Duration,
) -> anyhow::Result<String> {
    // Checked here, where the user can mend it, rather than when the proxy asks for its certificate.
    SpiffeId::new(api::names::TRUST_DOMAIN, namespace, service_account)?;
    anyhow::ensure!(
        !pod.is_empty() && pod.len() <= 253,
        "pod: must have 1 to 253 bytes"
    );
    let key = store::token_key(state_dir)?;
    Ok(key.mint(namespace, service_account, pod, SystemTime::now(), lifetime))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn settings(dir: &Path) -> AuthoritySettings {
        AuthoritySettings {
            state_dir: dir.to_owned(),
            trust_domain: "cluster.local".to_owned(),
            lifetime: Duration::from_secs(3600),
        }
    }

    #[tokio::test]
    async fn a_rotation_in_the_state_directory_changes_bundle_and_signer_without_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(settings(dir.path()), Metrics::new().authority).unwrap();
        let step = || rotate(dir.path(), "cluster.local", Duration::ZERO, SystemTime::now()).unwrap();
        let old = authority.bundle();
        let mut changes = authority.trust.subscribe();

        step();
        authority.look();
        assert!(changes.has_changed().unwrap());
        let both = authority.bundle();
        assert_eq!((both.roots.len(), &both.roots[0]), (2, &old.roots[0]));

        step();
        authority.look();
        assert_eq!(
            authority.trust.borrow().signer().der.as_ref(),
            both.roots[1].as_ref()
        );
        step();
        authority.look();
        assert_eq!(authority.bundle().roots, both.roots[1..]);
        changes.borrow_and_update();
        authority.look();
        assert!(!changes.has_changed().unwrap(), "nothing changed this time");
    }

    #[tokio::test]
    async fn a_broken_state_directory_leaves_the_known_roots_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(settings(dir.path()), Metrics::new().authority).unwrap();
        let before = authority.bundle();
        std::fs::remove_dir_all(dir.path().join("roots")).unwrap();
        authority.look();
        assert_eq!(authority.bundle(), before);
    }

    #[test]
    fn a_token_is_made_only_for_names_that_can_form_an_identity() {
        let dir = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(86400);
        assert!(mint(dir.path(), "shop", "reviews", "r-0", day).is_ok());
        for (ns, sa, pod) in [
            ("Shop", "reviews", "r"),
            ("shop", "", "r"),
            ("shop", "a/b", "r"),
            ("shop", "r", ""),
        ] {
            assert!(mint(dir.path(), ns, sa, pod, day).is_err(), "{ns} {sa} {pod}");
        }
    }
}

//! The certificate authority of the mesh: verifies who calls, signs workloads' certificates, and issues the operator's own.
//! `session` calls it for each request; `push` and `kubernetes::trust_bundle` follow its trust bundle. Only the store
//! (a directory, or a Secret) decides which roots there are and what signs: a change there (a rotation, a new
//! intermediate) is seen within seconds and needs no restart.

mod issuer;
mod keys;
mod request;
mod review;
mod root;
mod rotate;
mod server;
mod signer;
mod store;
mod token;
mod verify;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use api::{SpiffeId, TrustBundle};
use tokio::sync::watch;

pub use keys::Signs;
pub use request::Refused;
pub use rotate::{RotateError, Step, rotate};
pub use server::ServerIdentity;
pub use store::secret::{AUTHORITY_SECRET, ISSUER_SECRET};
pub use store::{Store, StoreError};
pub use token::{TokenError, TokenKey};
pub use verify::{Claims, Unverified, Verifier};

use crate::metrics::AuthorityMetrics;
use keys::Keys;

/// Service account of the operator, in the mesh's root namespace.
pub const SERVICE_ACCOUNT: &str = "hauberk-control-plane";
/// DNS name of the operator's Service, for clients that verify by address.
pub const SERVER_NAME: &str = "hauberk-control-plane.hauberk-system.svc";

/// What an authority needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthoritySettings {
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
    #[error("the authority's keys: {0}")]
    Store(#[from] StoreError),
    /// The operator's own certificate could not be made.
    #[error("the operator's own certificate could not be made: {0}")]
    Server(String),
}

/// The authority. Cheap to share; one for the process.
#[derive(Debug)]
pub struct Authority {
    settings: AuthoritySettings,
    store: Store,
    identity: SpiffeId,
    verifier: Verifier,
    trust: watch::Sender<Arc<Trust>>,
    /// Why the last look at the store failed, or what is wrong there.
    problem: Mutex<Option<String>>,
    metrics: AuthorityMetrics,
}

/// What is held at one moment, and the bundle made of it.
#[derive(Debug)]
struct Trust {
    keys: Keys,
    bundle: TrustBundle,
}

impl Trust {
    fn new(keys: Keys, trust_domain: &str) -> Arc<Self> {
        let bundle = TrustBundle {
            trust_domain: trust_domain.to_owned(),
            roots: keys.trusted().iter().map(|r| r.to_vec().into()).collect(),
        };
        Arc::new(Self { keys, bundle })
    }

    fn signer(&self) -> &signer::Signer {
        self.keys.signer()
    }

    fn same(&self, other: &Self) -> bool {
        let (one, two) = (self.signer(), other.signer());
        self.bundle == other.bundle && one.der == two.der && one.intermediates == two.intermediates
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
    /// X.509, DER: the workload's certificate, and the intermediates between it and a root, if there are any.
    pub chain: Vec<Vec<u8>>,
    /// Roots to verify peers with.
    pub bundle: TrustBundle,
}

/// How an authority is, for the health view.
#[derive(Debug, Clone)]
pub struct AuthorityHealth {
    /// Roots in the bundle.
    pub roots: usize,
    /// What signs.
    pub signs: Signs,
    /// When what signs, or a certificate above it, expires.
    pub expires: SystemTime,
    /// Whether that is over.
    pub expired: bool,
    /// Why the keys cannot be read as they are now; those known before stay in use.
    pub problem: Option<String>,
}

/// The operator's own identity in a trust domain.
pub(crate) fn operator(trust_domain: &str) -> Result<SpiffeId, api::Invalid> {
    SpiffeId::new(trust_domain, api::names::ROOT_NAMESPACE, SERVICE_ACCOUNT)
}

impl Authority {
    /// Opens a store; an empty one becomes a new authority. The store decides how callers prove who they are: with join
    /// tokens where it is a directory, with their service accounts' tokens where it is in Kubernetes.
    ///
    /// # Errors
    /// When the store cannot be used as it is, with what to do about it.
    pub async fn open(
        settings: AuthoritySettings,
        store: Store,
        metrics: AuthorityMetrics,
    ) -> Result<Arc<Self>, AuthorityError> {
        let identity = operator(&settings.trust_domain).map_err(AuthorityError::TrustDomain)?;
        let keys = store.open(&settings.trust_domain, SystemTime::now()).await?;
        let verifier = store.verifier(&metrics.reviews)?;
        let problem = keys.problem.clone();
        if let Some(problem) = &problem {
            tracing::error!(problem, "{UNUSABLE}");
        }
        let trust = Trust::new(keys, &settings.trust_domain);
        metrics.root_expiry.set(unix(trust.signer().not_after));
        Ok(Arc::new(Self {
            settings,
            store,
            identity,
            verifier,
            trust: watch::Sender::new(trust),
            problem: Mutex::new(problem),
            metrics,
        }))
    }

    /// Who the bearer of a token is.
    ///
    /// # Errors
    /// When the token is not accepted, or whoever knows cannot be asked now.
    pub async fn verify(&self, token: &str) -> Result<Claims, Unverified> {
        self.verifier.verify(token).await
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
            chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
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

    /// The same roots as PEM, one after another: what a proxy starts from, and what a webhook's `caBundle` holds.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        keys::pem(self.trust.borrow().bundle.roots.iter().map(|root| &root[..]))
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
            roots: trust.bundle.roots.len(),
            signs: trust.keys.signs,
            expires,
            expired: expires <= SystemTime::now(),
            problem: self
                .problem
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    /// The state directory, where there is one.
    #[must_use]
    pub fn state_dir(&self) -> Option<&Path> {
        self.store.path()
    }

    /// Looks for changes of the store, for ever.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(self.store.look_every());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look().await;
        }
    }

    /// Takes over the keys as they are in the store; what cannot be read leaves them as they were.
    async fn look(&self) {
        let trust_domain = &self.settings.trust_domain;
        let keys = match self.store.load(trust_domain, SystemTime::now()).await {
            Ok(keys) => keys,
            Err(error) => {
                self.note(Some(error.to_string()), KEPT);
                return;
            }
        };
        self.note(keys.problem.clone(), UNUSABLE);
        let next = Trust::new(keys, trust_domain);
        let changed = self.trust.send_if_modified(|trust| {
            let same = trust.same(&next);
            if !same {
                *trust = next;
            }
            !same
        });
        if changed {
            let health = self.health();
            self.metrics.root_expiry.set(unix(health.expires));
            let signs = self.trust.borrow().keys.signs;
            tracing::info!(roots = health.roots, signer = %signs, "the keys of the authority have changed");
        }
    }

    /// Remembers what is wrong; says so when it is new, and when it is over.
    fn note(&self, problem: Option<String>, meaning: &str) {
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == problem {
            return;
        }
        match &problem {
            Some(problem) => tracing::error!(problem, "{meaning}"),
            None => tracing::info!("the authority's keys can be read again, and are fit"),
        }
        *known = problem;
    }
}

const KEPT: &str = "the authority's keys cannot be read; those known before stay in use";
const UNUSABLE: &str = "the intermediate cannot be used, and does not sign";

fn unix(time: SystemTime) -> i64 {
    i64::try_from(token::unix(time)).unwrap_or(i64::MAX)
}

/// Makes a join token with the key of a state directory, which is made where there is none yet. (There are none in
/// Kubernetes: pods have tokens of their own there.)
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
    let key = store::directory::token_key(state_dir)?;
    Ok(key.mint(namespace, service_account, pod, SystemTime::now(), lifetime))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

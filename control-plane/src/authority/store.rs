//! Where an authority keeps its roots and keys: a directory, or a Secret in Kubernetes. Used by `authority` at start and
//! on each look for changes, and by the commands `token` and `rotate-root`. Neither home ever replaces a key that it
//! cannot read: what is missing or does not fit is an error that names it.

pub(crate) mod directory;
pub(crate) mod secret;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::AuthorityError;
use super::keys::Keys;
use super::rotate::{self, RotateError, Step};
use super::verify::Verifier;
use secret::SecretStore;

/// Where an authority keeps its roots and keys.
#[derive(Debug, Clone)]
pub struct Store(Home);

#[derive(Debug, Clone)]
enum Home {
    Directory(PathBuf),
    Secret(Box<SecretStore>),
}

/// What is wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The content is incomplete or does not fit together.
    #[error("{place}: {problem}")]
    Broken {
        /// The file, or the Secret and its key.
        place: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// The API server refused, or did not answer.
    #[error("{place}: {problem}")]
    Api {
        /// The object that was asked for.
        place: String,
        /// What the API server said.
        problem: String,
        /// Whether asking again may help.
        passing: bool,
    },
    /// A key could not be made.
    #[error("a root could not be made: {0}")]
    Create(#[from] rcgen::Error),
}

impl Store {
    /// A directory; made when it is opened.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        Self(Home::Directory(path.to_owned()))
    }

    /// The Secret `hauberk-authority` in the mesh's root namespace; made when it is opened.
    #[must_use]
    pub fn secret(client: kube::Client) -> Self {
        Self(Home::Secret(Box::new(SecretStore::new(client))))
    }

    /// The directory, where it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Home::Directory(path) => Some(path),
            Home::Secret(_) => None,
        }
    }

    /// How often to look for changes.
    pub(crate) fn look_every(&self) -> Duration {
        match &self.0 {
            Home::Directory(_) => Duration::from_secs(2),
            Home::Secret(_) => Duration::from_secs(5),
        }
    }

    /// Reads the keys; an empty store becomes a new authority.
    pub(crate) async fn open(&self, trust_domain: &str, now: SystemTime) -> Result<Keys, StoreError> {
        match &self.0 {
            Home::Directory(path) => directory::open(path, trust_domain, now),
            Home::Secret(secret) => secret.open(trust_domain, now).await,
        }
    }

    /// Reads the keys as they are; none is an error.
    pub(crate) async fn load(&self, trust_domain: &str, now: SystemTime) -> Result<Keys, StoreError> {
        match &self.0 {
            Home::Directory(path) => directory::load(path, trust_domain, now),
            Home::Secret(secret) => secret.load(trust_domain, now).await,
        }
    }

    /// How callers prove who they are: by join tokens of the directory's key, or by what Kubernetes says of their tokens.
    pub(crate) fn verifier(
        &self,
        reviews: &crate::metrics::ReviewMetrics,
    ) -> Result<Verifier, AuthorityError> {
        Ok(match &self.0 {
            Home::Directory(path) => Verifier::join_tokens(directory::token_key(path)?),
            Home::Secret(secret) => Verifier::token_review(secret.client(), reviews.clone()),
        })
    }

    /// Takes the next step of a rotation.
    pub(crate) async fn rotate(
        &self,
        trust_domain: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Step, RotateError> {
        match &self.0 {
            Home::Directory(path) => {
                // Not opened, which would make a root: an empty directory here is a wrong path.
                let keys = directory::load(path, trust_domain, now)?;
                let step = rotate::next(&keys, lifetime, now)?;
                directory::take(path, &step, trust_domain, now)?;
                Ok(step)
            }
            Home::Secret(secret) => secret.rotate(trust_domain, lifetime, now).await,
        }
    }
}

//! Replacing what signs without a peer that cannot verify another: one step a call, the next one following from what the
//! store holds. Called by the `rotate-root` command; a running operator sees the change and pushes the bundle.
//!
//! ```text
//! one root ──add──▶ two, the old one signs ──sign──▶ two, the new one signs ──drop──▶ one root
//! one root ──(the user brings an intermediate)──▶ the root signs ──sign──▶ the intermediate signs ──drop──▶ no root
//! ```
//!
//! Before `sign` every proxy must have learned the new root; before `drop` every certificate of the old one must have been
//! replaced. The second wait is held here by time; the first is the caller's, who sees in the status how many proxies
//! have applied the bundle.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::keys::{Keys, Signs};
use super::store::{Store, StoreError};

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A new root was added; the old one still signs.
    Added {
        /// Number of the new root.
        root: u32,
    },
    /// Another one signs.
    Signs {
        /// Which one.
        signer: Signs,
    },
    /// The roots that signed before are gone.
    Dropped {
        /// Their numbers.
        roots: Vec<u32>,
    },
}

/// For the person who took the step: what is so now, and what comes next.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = "Call again when every certificate issued before has been replaced; that takes as long as \
                    certificates live, and a call that comes too soon is refused.";
        match self {
            Self::Added { root } => write!(
                f,
                "root {root} is trusted from now on, and does not sign yet. Call again when every proxy has applied the \
                 new trust bundle (command `status`: nothing is waiting)."
            ),
            Self::Signs {
                signer: Signs::Root(root),
            } => write!(
                f,
                "root {root} signs from now on; the old one stays trusted. {next}"
            ),
            Self::Signs {
                signer: Signs::Issuer,
            } => write!(
                f,
                "your intermediate signs from now on; the roots made here stay trusted. {next}"
            ),
            Self::Dropped { roots } => {
                let numbers: Vec<_> = roots.iter().map(u32::to_string).collect();
                let verb = if roots.len() == 1 { "is" } else { "are" };
                write!(
                    f,
                    "root {} {verb} no longer trusted. The rotation is complete.",
                    numbers.join(", ")
                )
            }
        }
    }
}

/// Why no step was taken.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificates of the old root may still be in use.
    #[error(
        "the new one signs since {since} s, and certificates of the old one live up to {lifetime} s: call again in {wait} s"
    )]
    TooSoon {
        /// Seconds since the new one signs.
        since: u64,
        /// Lifetime of certificates, in seconds.
        lifetime: u64,
        /// Seconds to wait.
        wait: u64,
    },
    /// It is not known since when the new one signs.
    #[error(
        "signer-since: is missing, so it is not known whether certificates of the old root are still in use: set it \
             to the time, in Unix seconds, from which the new one signs at the latest"
    )]
    UnknownSince,
    /// The user's intermediate signs, and there is no other root.
    #[error(
        "the intermediate that you brought signs, and no other root is trusted, so there is nothing to rotate here: \
             replace it where you put it"
    )]
    Brought,
    /// The user's intermediate is there and cannot be used.
    #[error("the intermediate that you brought cannot be used, so it cannot sign: {0}")]
    Unusable(String),
    /// Another call took a step at the same time.
    #[error(
        "another call took a step at the same time, so nothing was done: look how things stand before the next one"
    )]
    Overtaken,
}

/// The step that follows from what a store holds.
pub(crate) fn next(keys: &Keys, lifetime: Duration, now: SystemTime) -> Result<Step, RotateError> {
    if let Some(problem) = &keys.problem {
        return Err(RotateError::Unusable(problem.clone()));
    }
    let newest = keys.roots.last().map(|(number, _)| *number);
    let wanted = match (&keys.issuer, newest) {
        (Some(_), _) | (None, None) => Signs::Issuer,
        (None, Some(newest)) => Signs::Root(newest),
    };
    if keys.signs != wanted {
        return Ok(Step::Signs { signer: wanted });
    }
    let others = keys.roots.iter().map(|(number, _)| *number);
    let old: Vec<u32> = others.filter(|n| wanted != Signs::Root(*n)).collect();
    match (old.is_empty(), wanted) {
        (true, Signs::Issuer) => Err(RotateError::Brought),
        (true, Signs::Root(number)) => Ok(Step::Added { root: number + 1 }),
        (false, _) => {
            let since = keys.since.ok_or(RotateError::UnknownSince)?;
            let since = now.duration_since(since).unwrap_or_default();
            if since < lifetime {
                return Err(RotateError::TooSoon {
                    since: since.as_secs(),
                    lifetime: lifetime.as_secs(),
                    wait: (lifetime - since).as_secs() + 1,
                });
            }
            Ok(Step::Dropped { roots: old })
        }
    }
}

/// Takes the next step of a rotation.
///
/// # Errors
/// When the store is broken, or the next step would leave peers that cannot verify each other.
pub async fn rotate(
    store: &Store,
    trust_domain: &str,
    certificate_lifetime: Duration,
    now: SystemTime,
) -> Result<Step, RotateError> {
    store.rotate(trust_domain, certificate_lifetime, now).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::store::directory;

    #[tokio::test]
    async fn a_rotation_takes_three_steps_and_does_not_drop_too_soon() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        let store = Store::directory(dir.path());
        let step = async |at| rotate(&store, "cluster.local", day, at).await;
        let keys = || directory::load(dir.path(), "cluster.local", now).unwrap();
        assert!(step(now).await.is_err(), "there is nothing to rotate");
        directory::open(dir.path(), "cluster.local", now).unwrap();
        assert_eq!(step(now).await.unwrap(), Step::Added { root: 2 });
        assert_eq!((keys().roots.len(), keys().signs), (2, Signs::Root(1)));
        let signer = Signs::Root(2);
        assert_eq!(step(now).await.unwrap(), Step::Signs { signer });
        assert!(matches!(
            step(now).await.unwrap_err(),
            RotateError::TooSoon { lifetime: 86400, .. }
        ));
        let dropped = step(now + 2 * day).await.unwrap();
        assert_eq!(dropped, Step::Dropped { roots: vec![1] });
        assert_eq!((keys().roots[0].0, keys().signs), (2, Signs::Root(2)));
    }
}

//! Replacing the root without a peer that cannot verify another: one step a call, the next one following from what the
//! state directory holds. Called by the `rotate-root` command; a running operator sees the change and pushes the bundle.
//!
//! ```text
//! one root ──add──▶ two, the old one signs ──sign──▶ two, the new one signs ──drop──▶ one root
//! ```
//!
//! Between `add` and `sign` every proxy must have learned the new root; between `sign` and `drop` every certificate of the
//! old one must have been replaced. The second wait is held here by time; the first is the caller's, who sees in the
//! status how many proxies have applied the bundle.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::store::{self, StoreError};

/// A step that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new root was added; the old one still signs.
    Added {
        /// Number of the new root.
        root: u32,
    },
    /// The new root signs.
    Signs {
        /// Number of the new root.
        root: u32,
    },
    /// The old root is gone.
    Dropped {
        /// Number of the old root.
        root: u32,
    },
}

/// Why no step was taken.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificates of the old root may still be in use.
    #[error(
        "the new root signs since {since} s, and certificates of the old one live up to {lifetime} s: call again in {wait} s"
    )]
    TooSoon {
        /// Seconds since the new root signs.
        since: u64,
        /// Lifetime of certificates, in seconds.
        lifetime: u64,
        /// Seconds to wait.
        wait: u64,
    },
}

/// Takes the next step of a rotation.
///
/// # Errors
/// When the state directory is broken, or the next step would leave peers that cannot verify each other.
pub fn rotate(
    dir: &Path,
    trust_domain: &str,
    certificate_lifetime: Duration,
    now: SystemTime,
) -> Result<Step, RotateError> {
    // Not opened, which would make a root: an empty directory here is a wrong path.
    let roots = store::load(dir, trust_domain)?;
    let newest = roots.roots.len() - 1;
    let step = if newest == 0 {
        Step::Added {
            root: store::add(dir, trust_domain, now)?,
        }
    } else if roots.signer != newest {
        let root = roots.roots[newest].0;
        store::set_signer(dir, root)?;
        Step::Signs { root }
    } else {
        let since = now.duration_since(store::signer_since(dir)?).unwrap_or_default();
        if since < certificate_lifetime {
            return Err(RotateError::TooSoon {
                since: since.as_secs(),
                lifetime: certificate_lifetime.as_secs(),
                wait: (certificate_lifetime - since).as_secs() + 1,
            });
        }
        let root = roots.roots[0].0;
        store::remove(dir, root)?;
        Step::Dropped { root }
    };
    store::write_bundle(dir, &store::load(dir, trust_domain)?)?;
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_takes_three_steps_and_does_not_drop_too_soon() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        assert!(
            rotate(dir.path(), "cluster.local", Duration::ZERO, now).is_err(),
            "there is nothing to rotate"
        );
        store::open(dir.path(), "cluster.local", now).unwrap();
        let step = |at| rotate(dir.path(), "cluster.local", day, at);
        assert_eq!(step(now).unwrap(), Step::Added { root: 2 });
        let roots = store::load(dir.path(), "cluster.local").unwrap();
        assert_eq!((roots.roots.len(), roots.signer), (2, 0));
        assert_eq!(step(now).unwrap(), Step::Signs { root: 2 });
        assert!(matches!(
            step(now).unwrap_err(),
            RotateError::TooSoon { lifetime: 86400, .. }
        ));
        assert_eq!(step(now + 2 * day).unwrap(), Step::Dropped { root: 1 });
        let roots = store::load(dir.path(), "cluster.local").unwrap();
        assert_eq!((roots.roots[0].0, roots.signer), (2, 0));
    }
}

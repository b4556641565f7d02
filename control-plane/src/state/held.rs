//! One of the user's objects: its newest version, what was found about it, and the version that is in force.
//!
//! ```text
//!            good, and all it names is there
//!  newest ──────────────────────────────────▶ in force
//!         └─ bad, or names what is not there ▶ the version in force before stays, if there was one
//! ```

use std::sync::Arc;

use api::Invalid;
use crds::check::{Finding, Severity};

use super::age::Age;

/// One of the user's objects (`O`) and what it becomes when made ready (`R`).
#[derive(Debug, Clone)]
pub(crate) struct Held<O, R> {
    /// The newest version.
    pub(crate) object: Arc<O>,
    /// Its `metadata.generation`.
    pub(crate) generation: i64,
    pub(crate) age: Age,
    /// What is to say about the newest version on its own.
    pub(crate) findings: Vec<Finding>,
    /// The newest version made ready; `None` when the findings refuse it.
    pub(crate) ready: Option<Arc<R>>,
    /// What the newest version names that is not there.
    pub(crate) unresolved: Vec<Finding>,
    effective: Option<(i64, Arc<R>)>,
}

impl<O, R: PartialEq> Held<O, R> {
    /// The newest version, checked and made ready; what `before` had in force stays until [`Self::enforce`].
    pub(crate) fn new(
        object: O,
        generation: i64,
        age: Age,
        mut findings: Vec<Finding>,
        make_ready: impl FnOnce(&O) -> Result<R, Vec<Invalid>>,
        before: Option<&Self>,
    ) -> Self {
        let refused = findings.iter().any(|finding| finding.severity.refuses());
        let mut ready = None;
        if !refused {
            match make_ready(&object) {
                Ok(made) => ready = Some(Arc::new(made)),
                Err(problems) => findings.extend(problems.into_iter().map(error)),
            }
        }
        Self {
            object: Arc::new(object),
            generation,
            age,
            findings,
            ready,
            unresolved: Vec::new(),
            effective: before.and_then(|held| held.effective.clone()),
        }
    }

    /// Whether the newest version is in force.
    pub(crate) fn accepted(&self) -> bool {
        self.ready.is_some() && self.unresolved.is_empty()
    }

    /// The version in force and its generation.
    pub(crate) fn in_force(&self) -> Option<(i64, &R)> {
        self.effective
            .as_ref()
            .map(|(generation, ready)| (*generation, &**ready))
    }

    /// Puts the newest version into force if it is accepted. Says whether that changed anything.
    pub(crate) fn enforce(&mut self) -> bool {
        let Some(ready) = self.ready.as_ref().filter(|_| self.unresolved.is_empty()) else {
            return false;
        };
        let same = self.in_force() == Some((self.generation, &**ready));
        self.effective = Some((self.generation, Arc::clone(ready)));
        !same
    }
}

/// What the contract cannot carry, as a finding.
fn error(Invalid { field, problem }: Invalid) -> Finding {
    Finding {
        field,
        severity: Severity::Error,
        message: problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(version: i64, good: bool, before: Option<&Held<i64, i64>>) -> Held<i64, i64> {
        let ready = |n: &i64| {
            if good {
                Ok(*n)
            } else {
                Err(vec![Invalid::new("spec", "is bad")])
            }
        };
        Held::new(
            version,
            version,
            Age::of(&Default::default()),
            Vec::new(),
            ready,
            before,
        )
    }

    #[test]
    fn the_last_good_version_stays_in_force() {
        let mut one = held(1, true, None);
        assert_eq!(one.in_force(), None);
        assert!(one.enforce() && !one.enforce());
        let mut two = held(2, false, Some(&one));
        assert!(!two.enforce() && !two.accepted());
        assert_eq!((two.in_force(), two.findings.len()), (Some((1, &1)), 1));
        let mut three = held(3, true, Some(&two));
        three
            .unresolved
            .push(error(Invalid::new("spec.host", "is not there")));
        assert!(!three.enforce() && !three.accepted());
        assert_eq!(three.in_force(), Some((1, &1)));
        three.unresolved.clear();
        assert!(three.enforce() && three.accepted());
        assert_eq!(three.in_force(), Some((3, &3)));
    }
}

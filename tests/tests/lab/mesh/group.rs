//! Trials that share one lab, because none disturbs another: starting a lab for each would take longer than the tests.
//!
//! The lab starts with the first trial that needs it and ends with the last. A trial that fails takes the lab with it,
//! so that its logs are shown and the next one finds a fresh one.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::Trial;
use tests::lab::{Builder, Lab, trial};

use super::rules;

/// Trials on one lab.
pub(crate) struct Group {
    build: fn() -> Builder,
    kept: Mutex<Option<Lab>>,
}

impl Group {
    /// Trials on the lab that `build` describes.
    pub(crate) fn new(build: fn() -> Builder) -> Arc<Group> {
        Arc::new(Group {
            build,
            kept: Mutex::new(None),
        })
    }

    /// A trial of this group. The last one to be dropped, run or not, ends the lab.
    pub(crate) fn trial<F>(self: &Arc<Group>, name: &str, check: F) -> Trial
    where
        F: AsyncFnOnce(&Lab) -> anyhow::Result<()> + Send + 'static,
    {
        let group = Arc::clone(self);
        trial(&format!("mesh: {name}"), async move || {
            let lab = match group.take() {
                Some(lab) => lab,
                None => start(group.build).await?,
            };
            check(&lab).await?;
            group.keep(lab);
            Ok(())
        })
    }

    fn take(&self) -> Option<Lab> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, lab: Lab) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(lab);
    }
}

async fn start(build: fn() -> Builder) -> anyhow::Result<Lab> {
    let lab = build().start().await?;
    rules::settled(&lab).await?;
    Ok(lab)
}

/// A trial with a lab of its own.
pub(crate) fn alone<F>(name: &str, build: fn() -> Builder, check: F) -> Trial
where
    F: AsyncFnOnce(&Lab) -> anyhow::Result<()> + Send + 'static,
{
    Group::new(build).trial(name, check)
}

//! Where objects come from. A source says what changed, batch by batch; [`follow`] takes that to the world and from there
//! to the hub, whichever source it was.

pub mod directory;
pub mod folder;
pub mod kubernetes;

use std::sync::Arc;

use crds::{Kind, Object, ObjectKey};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::admin::SourceReport;
use crate::metrics::SourceMetrics;
use crate::push::HubHandle;
use crate::status::{self, FileProblem};

/// One object that is new or different, or is gone.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The object is now so.
    Set(Object),
    /// The object is gone.
    Remove(ObjectKey),
}

/// What changed at once, whichever source says it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The objects that changed.
    pub changes: Vec<Change>,
    /// Every file that cannot be taken as of now, not only what is new.
    pub files: Vec<FileProblem>,
    /// Every object that cannot be read as of now, not only what is new. The version before stays.
    pub unreadable: Vec<Unreadable>,
    /// Whether everything has been read once. Before that, what is missing only has not come yet.
    pub complete: bool,
}

/// An object that Kubernetes has and that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The object.
    pub key: ObjectKey,
    /// Its `metadata.uid`; may be empty.
    pub uid: String,
    /// Its `metadata.generation`; 0 when it has none.
    pub generation: i64,
    /// The field; `None` where it is the object as a whole.
    pub field: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How the watch of one kind is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// The kind.
    pub kind: Kind,
    /// Whether all objects of the kind have been read once.
    pub listed: bool,
    /// When the server said something last, if only that nothing is new.
    pub heard: Option<Instant>,
    /// Since when nothing more is heard, and why; `None` while it is followed.
    pub failing: Option<Failing>,
}

/// Why a kind is not followed at the moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Failing {
    /// Since when.
    pub since: Instant,
    /// The last problem, and the remedy where there is one.
    pub problem: String,
}

impl From<directory::Batch> for Batch {
    fn from(batch: directory::Batch) -> Self {
        let directory::Batch { changes, problems } = batch;
        Self {
            changes,
            files: problems.into_iter().map(Into::into).collect(),
            unreadable: Vec::new(),
            complete: true,
        }
    }
}

impl From<Unreadable> for status::Unreadable {
    fn from(unreadable: Unreadable) -> Self {
        let Unreadable {
            key,
            uid: _,
            generation,
            field,
            message,
        } = unreadable;
        Self {
            kind: key.kind.name().to_owned(),
            namespace: key.namespace,
            name: key.name,
            generation,
            problem: match field {
                Some(field) => format!("{field}: {message}"),
                None => message,
            },
        }
    }
}

/// Takes batches to the world, and each new world to the hub; `report` tells everyone else. Returns when the source ends.
pub async fn follow<B: Into<Batch>>(
    first: Option<B>,
    mut batches: mpsc::Receiver<B>,
    report: watch::Sender<SourceReport>,
    hub: HubHandle,
    metrics: SourceMetrics,
) {
    let mut next = match first {
        Some(batch) => Some(batch),
        None => batches.recv().await,
    };
    while let Some(batch) = next {
        let Batch {
            changes,
            files,
            unreadable,
            complete,
        } = batch.into();
        let world = Arc::clone(&report.borrow().world);
        let (world, touched) = world.apply(changes);
        let unreadable: Vec<_> = unreadable.into_iter().map(status::Unreadable::from).collect();
        say_new(&report.borrow(), &files, &unreadable);
        tracing::debug!(
            touched = touched.len(),
            problems = files.len() + unreadable.len(),
            "the source has changed"
        );
        metrics.count_change();
        hub.world_changed(Arc::clone(&world), touched).await;
        if complete && !report.borrow().loaded {
            tracing::info!("the source is loaded");
        }
        report.send_modify(|report| {
            report.loaded |= complete;
            report.changed = Some(Instant::now());
            report.problems = files;
            report.unreadable = unreadable;
            report.world = world;
        });
        next = batches.recv().await;
    }
}

/// Logs the problems that were not there before.
fn say_new(before: &SourceReport, files: &[FileProblem], unreadable: &[status::Unreadable]) {
    for problem in files.iter().filter(|problem| !before.problems.contains(problem)) {
        let FileProblem { file, problem } = problem;
        tracing::warn!(file, problem, "cannot be read, so it counts as it was before");
    }
    for object in unreadable
        .iter()
        .filter(|object| !before.unreadable.contains(object))
    {
        let status::Unreadable {
            kind,
            namespace,
            name,
            generation: _,
            problem,
        } = object;
        tracing::warn!(
            kind,
            namespace,
            name,
            problem,
            "cannot be read, so it counts as it was before"
        );
    }
}

//! The source `directory`: watches a folder of manifests, the same YAML that a cluster takes. `main` starts it with
//! [`watch`]; everything the files mean is decided in [`super::folder`], here is only the disk.
//!
//! ```text
//! notify ──▶ inbox ──(quiet for `debounce`)──▶ read those files ─┐
//! every `rescan` ────────────────────────────▶ look at all files ┴▶ Folder::apply ──▶ Batch
//! ```
//!
//! It reads `*.yaml`, `*.yml` and `*.json` below the folder, through links as well, and passes over names that begin with
//! a dot. It never writes.

mod inbox;
mod scan;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Change;
use super::folder::{FileProblem, Folder};
use inbox::{Inbox, Pending};
use scan::Scanner;

/// Looking at all files takes at most one part in so many of the time, however many there are …
const LOOKING_SHARE: u32 = 200;
/// … but they are looked at this often.
const LOOK_AT_LEAST: Duration = Duration::from_secs(60);

/// How the folder is watched.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Files are read when nothing has happened for so long.
    pub debounce: Duration,
    /// All files are looked at so often, in case an event was lost; less often where that takes long.
    pub rescan: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(20),
            rescan: Duration::from_secs(5),
        }
    }
}

/// What changed at once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The objects that changed.
    pub changes: Vec<Change>,
    /// Everything that cannot be taken as of now, not only what is new.
    pub problems: Vec<FileProblem>,
}

/// Why a folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not there, or not a folder, or may not be read.
    #[error("{} cannot be read: {error}; name a folder with manifests that this user may read", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The system refuses to watch it.
    #[error("{} cannot be watched: {error}", path.display())]
    Unwatchable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: notify::Error,
    },
}

/// Reads a folder and watches it from then on. The first batch is what is there now; each one received is what changed
/// since the one before. Changes that come while the receiver is busy arrive as one batch. Watching ends when the
/// receiver is dropped.
///
/// # Errors
/// When the folder cannot be read or watched.
pub async fn watch(root: &Path, options: Options) -> Result<(Batch, mpsc::Receiver<Batch>), OpenError> {
    let mut directory = Directory::open(root, options).await?;
    let first = directory.read(Pending::everything()).await.unwrap_or_default();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        // With a place in the channel taken first, what happens while the receiver is busy is read once.
        while let Ok(place) = sender.reserve().await {
            tokio::select! {
                batch = directory.next() => place.send(batch),
                () = sender.closed() => return,
            }
        }
    });
    Ok((first, receiver))
}

/// A watched folder.
struct Directory {
    options: Options,
    folder: Folder,
    /// Taken out while it works on a thread of its own.
    scanner: Option<Scanner>,
    inbox: Arc<Inbox>,
    watcher: RecommendedWatcher,
    rescan: Interval,
    /// As last told.
    problems: Vec<FileProblem>,
}

impl Directory {
    async fn open(root: &Path, options: Options) -> Result<Self, OpenError> {
        let path = || root.to_owned();
        let readable = tokio::fs::read_dir(root).await;
        let _ = readable.map_err(|error| OpenError::Unreadable { path: path(), error })?;
        let inbox = Arc::new(Inbox::default());
        let unwatchable = |error| OpenError::Unwatchable { path: path(), error };
        let to = Arc::clone(&inbox);
        let mut watcher = notify::recommended_watcher(move |event| to.take_in(event)).map_err(unwatchable)?;
        watcher
            .watch(root, RecursiveMode::Recursive)
            .map_err(unwatchable)?;
        let mut rescan = tokio::time::interval(options.rescan);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rescan.reset();
        Ok(Self {
            options,
            folder: Folder::default(),
            scanner: Some(Scanner::new(root)),
            inbox,
            watcher,
            rescan,
            problems: Vec::new(),
        })
    }

    /// Waits until something changed.
    async fn next(&mut self) -> Batch {
        loop {
            let pending = tokio::select! {
                () = self.inbox.stirred() => {
                    self.inbox.quiet(self.options.debounce).await;
                    self.inbox.empty()
                }
                _ = self.rescan.tick() => Pending::everything(),
            };
            if let Some(batch) = self.read(pending).await {
                return batch;
            }
        }
    }

    /// Reads what is pending; `None` when nothing is different.
    async fn read(&mut self, pending: Pending) -> Option<Batch> {
        let mut scanner = self
            .scanner
            .take()
            .expect("a scanner comes back before the next reading");
        let root = scanner.root().to_owned();
        let (everything, began) = (pending.everything, Instant::now());
        let work = move || {
            let found = scanner.read(&pending);
            (scanner, found)
        };
        let (scanner, found) = tokio::task::spawn_blocking(work)
            .await
            .expect("reading files does not panic");
        self.scanner = Some(scanner);
        if everything {
            self.rescan
                .reset_after(until_next_look(self.options.rescan, began.elapsed()));
        }
        if found.root_changed {
            // The folder was moved or made anew under its name: what was watched is not it any more. When this fails,
            // as while it is gone, the next rescan finds it changed again.
            let _ = self.watcher.unwatch(&root);
            if let Err(error) = self.watcher.watch(&root, RecursiveMode::Recursive) {
                tracing::debug!(%error, "the folder cannot be watched; it is looked at now and then");
            }
        }
        let changes = self.folder.apply(found.updates);
        let problems = self.folder.problems();
        if changes.is_empty() && problems == self.problems {
            return None;
        }
        self.problems.clone_from(&problems);
        Some(Batch { changes, problems })
    }
}

/// The time from one look at all files to the next, by how long it took.
fn until_next_look(least: Duration, took: Duration) -> Duration {
    least.max((took * LOOKING_SHARE).min(LOOK_AT_LEAST))
}

#[cfg(test)]
mod tests;

//! Where events about files wait to be dealt with. Filled from notify's own thread; what it holds is bounded: beyond a
//! number of files it only says that all are to be looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use tokio::sync::Notify;

/// Beyond so many files at once, looking at all of them is no more work.
const MAX_PATHS: usize = 4096;

/// However busy the folder is, files are read after so many times the debounce.
const MAX_ROUNDS: u32 = 10;

/// Where events wait.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pending: Mutex<Pending>,
    stirred: Notify,
}

/// What is to be looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    /// These files, as the events name them.
    pub(super) paths: BTreeSet<PathBuf>,
    /// And all others, too.
    pub(super) everything: bool,
}

impl Pending {
    pub(super) fn everything() -> Self {
        Self {
            paths: BTreeSet::new(),
            everything: true,
        }
    }
}

impl Inbox {
    /// Takes an event in. Called from notify's thread.
    pub(super) fn take_in(&self, event: notify::Result<notify::Event>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            // An overflow, or a watch that could not be added: anything may have happened.
            Err(_) => pending.everything = true,
            Ok(event) if event.need_rescan() => pending.everything = true,
            Ok(event) if is_reading(event.kind) => return,
            Ok(event) => {
                for path in event.paths {
                    match kind_of(&path) {
                        Name::Manifest => {
                            pending.paths.insert(path);
                        }
                        Name::Hidden => {}
                        Name::Other => pending.everything = true,
                    }
                }
            }
        }
        if pending.paths.len() > MAX_PATHS {
            *pending = Pending::everything();
        }
        let nothing = *pending == Pending::default();
        drop(pending);
        if !nothing {
            self.stirred.notify_one();
        }
    }

    /// Waits until something is pending.
    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Waits until nothing more came for `debounce`, within bounds.
    pub(super) async fn quiet(&self, debounce: Duration) {
        for _ in 0..MAX_ROUNDS {
            if tokio::time::timeout(debounce, self.stirred()).await.is_err() {
                return;
            }
        }
    }

    /// Takes out what is pending.
    pub(super) fn empty(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a name says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A manifest, to be read.
    Manifest,
    /// Hidden, or an editor's own: passed over.
    Hidden,
    /// A folder, perhaps, or a link to one.
    Other,
}

/// What the last part of a path says about the file.
pub(super) fn kind_of(path: &Path) -> Name {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A mounted ConfigMap is swapped by a link of this name; all its files are new then.
    if name == "..data" {
        return Name::Other;
    }
    if name.starts_with('.') || name.ends_with('~') || name.starts_with('#') {
        return Name::Hidden;
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("yaml" | "yml" | "json") => Name::Manifest,
        Some(_) | None => Name::Other,
    }
}

/// Reading a file is an event too, and ours would never end.
fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use notify::Event;
    use notify::event::ModifyKind;

    use super::*;

    fn modified(path: &str) -> notify::Result<Event> {
        Ok(Event::new(EventKind::Modify(ModifyKind::Any)).add_path(path.into()))
    }

    #[test]
    fn names_say_what_is_read_and_what_is_passed_over() {
        for (path, expected) in [
            ("a/b.yaml", Name::Manifest),
            ("b.yml", Name::Manifest),
            ("b.json", Name::Manifest),
            ("a/.b.yaml", Name::Hidden),
            (".b.yaml.swp", Name::Hidden),
            ("b.yaml~", Name::Hidden),
            ("#b.yaml#", Name::Hidden),
            (".git", Name::Hidden),
            ("..data", Name::Other),
            ("folder", Name::Other),
            ("b.yaml.tmp", Name::Other),
        ] {
            assert_eq!(kind_of(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_waits_is_bounded_and_reading_does_not_count() {
        let inbox = Inbox::default();
        inbox.take_in(Ok(Event::new(EventKind::Access(AccessKind::Open(
            AccessMode::Any,
        )))
        .add_path("a.yaml".into())));
        inbox.take_in(modified(".a.yaml"));
        assert_eq!(inbox.empty(), Pending::default());
        inbox.take_in(modified("a.yaml"));
        assert_eq!(inbox.empty().paths, BTreeSet::from([PathBuf::from("a.yaml")]));
        for n in 0..=MAX_PATHS {
            inbox.take_in(modified(&format!("{n}.yaml")));
        }
        assert_eq!(inbox.empty(), Pending::everything());
        inbox.take_in(Err(notify::Error::generic("overflow")));
        assert_eq!(inbox.empty(), Pending::everything());
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_never_quiet_is_read_all_the_same() {
        let inbox = Inbox::default();
        let stir = async {
            loop {
                inbox.take_in(modified("a.yaml"));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let quiet = inbox.quiet(Duration::from_millis(20));
        tokio::select! {
            () = stir => unreachable!("stirring has no end"),
            () = quiet => {}
        }
    }
}

//! Looks at files and reads those that are different. Blocking: it runs on a thread for such work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::inbox::{Name, Pending, kind_of};
use crate::source::folder::Content;

/// Knows the files as they were last seen.
#[derive(Debug)]
pub(super) struct Scanner {
    root: PathBuf,
    root_id: Option<(u64, u64)>,
    seen: BTreeMap<PathBuf, Stamp>,
}

/// What became of files since the last look.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Paths relative to the root.
    pub(super) updates: Vec<(PathBuf, Content)>,
    /// Whether the root itself is another folder than before.
    pub(super) root_changed: bool,
}

/// Tells whether a file may be different without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    File {
        id: (u64, u64),
        size: u64,
        modified: Option<SystemTime>,
    },
    /// It was there and could not be read: look again each time.
    Unreadable(String),
}

impl Scanner {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            root_id: fs::metadata(root).ok().map(|m| id(&m)),
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Looks at what is pending.
    pub(super) fn read(&mut self, pending: &Pending) -> Found {
        let mut found = Found::default();
        let mut everything = pending.everything;
        for path in &pending.paths {
            // What the event says was a file may be a folder by now, or a path we never asked for.
            let relative = path.strip_prefix(&self.root).ok().map(Path::to_owned);
            match (relative, fs::metadata(path)) {
                (Some(relative), Ok(metadata)) if metadata.is_file() => {
                    if !is_hidden(&relative) {
                        self.seen.insert(relative.clone(), stamp(&metadata));
                        let content = self.content(&relative, &metadata);
                        found.updates.push((relative, content));
                    }
                }
                (Some(relative), Err(error)) if error.kind() == ErrorKind::NotFound => {
                    if self.seen.remove(&relative).is_some() {
                        found.updates.push((relative, Content::Gone));
                    }
                }
                _ => everything = true,
            }
        }
        if everything {
            self.read_all(&mut found);
        }
        found
    }

    fn read_all(&mut self, found: &mut Found) {
        let root_id = fs::metadata(&self.root).ok().map(|m| id(&m));
        found.root_changed = root_id != self.root_id;
        self.root_id = root_id;
        let mut walk = Walk::default();
        walk.folder(&self.root, Path::new(""));
        let Walk {
            files,
            unlisted,
            folders: _,
        } = walk;
        let gone = |path: &&PathBuf| {
            let known = files.contains_key(*path) || unlisted.contains_key(*path);
            !known && !unlisted.keys().any(|folder| path.starts_with(folder))
        };
        let gone: Vec<_> = self.seen.keys().filter(gone).cloned().collect();
        for path in gone {
            self.seen.remove(&path);
            found.updates.push((path, Content::Gone));
        }
        for (path, metadata) in files {
            let stamp = stamp(&metadata);
            if self.seen.get(&path) != Some(&stamp) {
                self.seen.insert(path.clone(), stamp);
                let content = self.content(&path, &metadata);
                found.updates.push((path, content));
            }
        }
        for (path, reason) in unlisted {
            let stamp = Stamp::Unreadable(reason.clone());
            if self.seen.insert(path.clone(), stamp.clone()) != Some(stamp) {
                found.updates.push((path, Content::Unreadable(reason)));
            }
        }
    }

    fn content(&mut self, relative: &Path, metadata: &Metadata) -> Content {
        let most = u64::try_from(crds::parse::MAX_BYTES).unwrap_or(u64::MAX);
        if metadata.len() > most {
            let size = metadata.len();
            return Content::Unreadable(format!("it has {size} bytes, and {most} is the most; split it"));
        }
        match fs::read(self.root.join(relative)).map(String::from_utf8) {
            Ok(Ok(text)) => Content::Text(text),
            Ok(Err(error)) => {
                let at = error.utf8_error().valid_up_to();
                Content::Unreadable(format!("it is not UTF-8 from byte {at} on; save it as UTF-8"))
            }
            Err(error) => {
                let reason = error.to_string();
                self.seen
                    .insert(relative.to_owned(), Stamp::Unreadable(reason.clone()));
                match error.kind() {
                    ErrorKind::NotFound => Content::Gone,
                    _ => Content::Unreadable(reason),
                }
            }
        }
    }
}

/// One walk over the folder.
#[derive(Default)]
struct Walk {
    files: BTreeMap<PathBuf, Metadata>,
    /// Folders that are there and cannot be listed: their files count as they were.
    unlisted: BTreeMap<PathBuf, String>,
    /// Links may lead in circles.
    folders: BTreeSet<(u64, u64)>,
}

impl Walk {
    fn folder(&mut self, path: &Path, relative: &Path) {
        if let Err(error) = self.entries(path, relative)
            // A folder that is gone has no files; only the root may come back, as a mount does.
            && (error.kind() != ErrorKind::NotFound || relative.as_os_str().is_empty())
        {
            self.unlisted.insert(relative.to_owned(), error.to_string());
        }
    }

    fn entries(&mut self, path: &Path, relative: &Path) -> io::Result<()> {
        if !self.folders.insert(id(&fs::metadata(path)?)) {
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let (path, relative) = (entry.path(), relative.join(entry.file_name()));
            let name = kind_of(&path);
            // Also `..data`: the files it leads to have links of their own beside it.
            if name == Name::Hidden || entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // A link to nowhere, or gone since it was listed.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                self.folder(&path, &relative);
            } else if name == Name::Manifest && metadata.is_file() {
                self.files.insert(relative, metadata);
            } else if name == Name::Manifest {
                self.unlisted
                    .insert(relative, "it is neither a file nor a folder".to_owned());
            }
        }
        Ok(())
    }
}

fn is_hidden(relative: &Path) -> bool {
    relative.ancestors().any(|part| kind_of(part) == Name::Hidden)
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp::File {
        id: id(metadata),
        size: metadata.len(),
        modified: metadata.modified().ok(),
    }
}

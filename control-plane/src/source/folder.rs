//! The objects in a folder of files: a pure core that `source::directory` feeds with texts, and that says what changed.
//!
//! A file is read whole each time. What it says wins over what it said; but what is broken takes nothing away:
//! - while a document of a file cannot be read, every object the file gave before and does not give now stays;
//! - an empty file, as an editor leaves for a moment, gives what it gave before;
//! - a file that is gone takes its objects with it.
//!
//! An object in two files is that of the first path; the other is reported. `metadata.generation` of our own kinds
//! counts here as an API server would: it goes up when the spec changes. Without `creationTimestamp` there is no age,
//! and where the older object wins, it is the one that comes first by namespace and name.

mod kept;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crds::{Object, ObjectKey, ParseError};

use super::Change;
use kept::Kept;

/// The objects of a folder.
#[derive(Debug, Default)]
pub struct Folder {
    files: BTreeMap<PathBuf, File>,
    claims: BTreeMap<ObjectKey, BTreeSet<PathBuf>>,
    /// What the last changes made of it. Mostly the very objects of the files, which are the bulk of what is held here.
    shown: BTreeMap<ObjectKey, Kept>,
    /// Files that have problems, and objects that are in several files: apart, so that asking for the problems after each
    /// change costs what there is to say, and not what there is.
    broken: BTreeSet<PathBuf>,
    disputed: BTreeSet<ObjectKey>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// This is in it.
    Text(String),
    /// It is gone.
    Gone,
    /// It is there and cannot be read, for this reason.
    Unreadable(String),
}

/// Something in a file that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file, relative to the folder.
    pub file: PathBuf,
    /// The document in the file, counted from 1.
    pub document: Option<usize>,
    /// The line in the file, counted from 1.
    pub line: Option<u64>,
    /// The column in the line, counted from 1.
    pub column: Option<u64>,
    /// The field.
    pub field: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectKey, Kept>,
    problems: Vec<FileProblem>,
}

impl Folder {
    /// Takes in what became of some files, and says which objects that changes.
    pub fn apply(&mut self, updates: impl IntoIterator<Item = (PathBuf, Content)>) -> Vec<Change> {
        let mut keys = BTreeSet::new();
        for (path, content) in updates {
            let before = self.files.remove(&path).unwrap_or_default();
            self.broken.remove(&path);
            for key in before.objects.keys() {
                keys.insert(key.clone());
                self.unclaim(key, &path);
            }
            let Some(after) = before.after(&path, content) else {
                continue;
            };
            for key in after.objects.keys() {
                keys.insert(key.clone());
                let claims = self.claims.entry(key.clone()).or_default();
                claims.insert(path.clone());
                if claims.len() > 1 {
                    self.disputed.insert(key.clone());
                }
            }
            if !after.problems.is_empty() {
                self.broken.insert(path.clone());
            }
            self.files.insert(path, after);
        }
        keys.into_iter().filter_map(|key| self.show(key)).collect()
    }

    /// What could not be taken, by file.
    #[must_use]
    pub fn problems(&self) -> Vec<FileProblem> {
        let mut problems: Vec<_> = self
            .broken
            .iter()
            .filter_map(|path| self.files.get(path))
            .flat_map(|file| file.problems.clone())
            .collect();
        for key in &self.disputed {
            let mut paths = self.claims.get(key).into_iter().flatten();
            let Some(first) = paths.next() else { continue };
            problems.extend(paths.map(|path| {
                let first = first.display();
                problem(
                    path,
                    format!("{key} is in {first} too, which comes first and wins: remove one of the two"),
                )
            }));
        }
        problems.sort_by(|a, b| (&a.file, a.document, a.line).cmp(&(&b.file, b.document, b.line)));
        problems
    }

    fn unclaim(&mut self, key: &ObjectKey, path: &Path) {
        if let Some(paths) = self.claims.get_mut(key) {
            paths.remove(path);
            if paths.len() < 2 {
                self.disputed.remove(key);
            }
            if paths.is_empty() {
                self.claims.remove(key);
            }
        }
    }

    /// Brings what is shown of one object up to date.
    fn show(&mut self, key: ObjectKey) -> Option<Change> {
        let first = self.claims.get(&key).and_then(BTreeSet::first);
        let object = first.and_then(|path| self.files.get(path)?.objects.get(&key));
        let Some(object) = object else {
            return self.shown.remove(&key).map(|_| Change::Remove(key));
        };
        let before = self.shown.get(&key);
        let kept = with_generation(object, before);
        if before == Some(&kept) {
            return None;
        }
        let change = Change::Set(kept.object());
        self.shown.insert(key, kept);
        Some(change)
    }
}

impl File {
    /// The file with its new content; `None` when there is no file any more.
    fn after(self, path: &Path, content: Content) -> Option<Self> {
        let text = match content {
            Content::Gone => return None,
            Content::Unreadable(reason) => {
                let problems = vec![problem(
                    path,
                    format!("cannot be read, so it counts as it was before: {reason}"),
                )];
                return Some(Self { problems, ..self });
            }
            Content::Text(text) => text,
        };
        let mut next = Self::default();
        let mut broken = false;
        for result in crds::parse(&text) {
            match result {
                Ok(object) => next.add(object, path),
                Err(error) => {
                    broken = true;
                    next.problems.push(FileProblem::new(path, error));
                }
            }
        }
        if next.objects.is_empty() && !broken && !self.objects.is_empty() {
            let message = "has no objects any more, so those it had stay: remove the file to remove them";
            next.problems.push(problem(path, message.to_owned()));
            broken = true;
        }
        if broken {
            for (key, object) in self.objects {
                next.objects.entry(key).or_insert(object);
            }
        }
        Some(next)
    }

    fn add(&mut self, object: Object, path: &Path) {
        match self.objects.entry(object.key()) {
            Entry::Vacant(place) => {
                place.insert(object.into());
            }
            Entry::Occupied(first) => {
                let key = first.key();
                let message =
                    format!("{key} is in this file twice, and the first wins: remove one of the two");
                self.problems.push(problem(path, message));
            }
        }
    }
}

impl FileProblem {
    fn new(path: &Path, error: ParseError) -> Self {
        let ParseError {
            document,
            line,
            column,
            field,
            message,
        } = error;
        Self {
            file: path.to_owned(),
            document: Some(document),
            line,
            column,
            field,
            message,
        }
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            document: _,
            line,
            column,
            field,
            message,
        } = self;
        write!(f, "{}", file.display())?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
            if let Some(column) = column {
                write!(f, ":{column}")?;
            }
        }
        if let Some(field) = field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {message}")
    }
}

fn problem(path: &Path, message: String) -> FileProblem {
    FileProblem {
        file: path.to_owned(),
        document: None,
        line: None,
        column: None,
        field: None,
        message,
    }
}

/// The object with the generation that an API server would give it: the one before while the spec is the same, one more
/// when it differs, and 1 at first. What the file itself says counts where it is higher.
fn with_generation(kept: &Kept, before: Option<&Kept>) -> Kept {
    // Kubernetes' own kinds have none, or one that nobody looks at.
    let Kept::Ours(object) = kept else {
        return kept.clone();
    };
    let mut changed = Object::clone(object);
    let before = before.and_then(|before| match before {
        Kept::Ours(object) => Some(&**object),
        _ => None,
    });
    let (metadata, same) = match (&mut changed, before) {
        (Object::VirtualService(new), Some(Object::VirtualService(old))) => {
            let same = new.spec == old.spec;
            (&mut new.metadata, Some((same, old.metadata.generation)))
        }
        (Object::DestinationRule(new), Some(Object::DestinationRule(old))) => {
            let same = new.spec == old.spec;
            (&mut new.metadata, Some((same, old.metadata.generation)))
        }
        (Object::PeerAuthentication(new), Some(Object::PeerAuthentication(old))) => {
            let same = new.spec == old.spec;
            (&mut new.metadata, Some((same, old.metadata.generation)))
        }
        (Object::VirtualService(new), _) => (&mut new.metadata, None),
        (Object::DestinationRule(new), _) => (&mut new.metadata, None),
        (Object::PeerAuthentication(new), _) => (&mut new.metadata, None),
        (Object::Service(_) | Object::Pod(_) | Object::Namespace(_) | Object::EndpointSlice(_), _) => {
            return kept.clone();
        }
    };
    let counted = match same {
        Some((true, generation)) => generation.unwrap_or(1),
        Some((false, generation)) => generation.unwrap_or(0).saturating_add(1),
        None => 1,
    };
    metadata.generation = Some(metadata.generation.unwrap_or(1).max(counted));
    Kept::Ours(Arc::new(changed))
}

#[cfg(test)]
mod tests;

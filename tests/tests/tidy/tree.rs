//! The files of this tree as the other modules read them: text with its path from the root.

use std::path::{Path, PathBuf};

/// A text file.
pub(crate) struct Text {
    /// From the root of the tree, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl Text {
    /// The lines before the file's unit tests, numbered from 1. A file that is nothing but tests has none.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let only_tests = self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        let lines = self.text.lines().enumerate().map(|(i, line)| (i + 1, line));
        lines.take_while(move |(_, line)| !only_tests && line.trim() != "#[cfg(test)]")
    }

    /// `path:line`.
    pub(crate) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path)
    }
}

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ stands in the root")
        .to_owned()
}

/// One file of the tree.
pub(crate) fn read(path: &str) -> Text {
    let text =
        std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path} must be there: {e}"));
    Text {
        path: path.to_owned(),
        text,
    }
}

/// Every file whose name ends so, in order of path. Build output and what begins with a dot is left out.
pub(crate) fn files(ending: &str) -> Vec<Text> {
    let mut found = Vec::new();
    walk(&root(), ending, &mut found);
    found.sort();
    found
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(root()).expect("was found under the root");
            read(&relative.to_string_lossy().replace('\\', "/"))
        })
        .collect()
}

/// The Rust sources that people write.
pub(crate) fn sources() -> Vec<Text> {
    let mut all = files(".rs");
    all.retain(|file| !file.path.contains("/generated/"));
    all
}

fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("the folder is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name == "target" || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            walk(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

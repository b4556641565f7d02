//! Tar archives that depend on nothing but names, modes and contents. Used for the layer and for what holds it.
//!
//! Owners are root, times are 1970, entries are in order of their paths: what the machine happens to say of a file does
//! not get in.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};

const BLOCK: usize = 512;

/// An archive under way.
#[derive(Debug, Default)]
pub(crate) struct Archive(Vec<u8>);

/// What stands under a path.
enum Entry<'a> {
    File(&'a [u8]),
    Folder,
    Link(&'a str),
}

impl Archive {
    /// Adds a file that everybody may read.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.add(path, 0o644, &Entry::File(bytes))
    }

    /// The archive's bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    fn add(&mut self, path: &str, mode: u32, entry: &Entry<'_>) -> anyhow::Result<()> {
        let (kind, bytes, target) = match entry {
            Entry::File(bytes) => (b'0', *bytes, ""),
            Entry::Folder => (b'5', &[][..], ""),
            Entry::Link(target) => (b'2', &[][..], *target),
        };
        let (prefix, name) =
            split(path).with_context(|| format!("{path}: the path is too long for an archive"))?;
        if target.len() > 100 {
            bail!("{path}: the link's target is too long for an archive");
        }
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", bytes.len()).as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        put(345, prefix.as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }
}

/// Everything below `root` as one archive.
pub(crate) fn of_folder(root: &Path) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    walk(&mut archive, root, "")?;
    Ok(archive.finish())
}

fn walk(archive: &mut Archive, folder: &Path, below: &str) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read {}", folder.display());
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).with_context(unreadable)?.collect();
    let mut entries = entries.with_context(unreadable)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (place, name) = (entry.path(), entry.file_name());
        let name = name
            .to_str()
            .with_context(|| format!("{}: the name is not UTF-8", place.display()))?;
        let path = format!("{below}{name}");
        let unreadable = || format!("cannot read {}", place.display());
        let facts = place.symlink_metadata().with_context(unreadable)?;
        if facts.is_dir() {
            // Anybody's folder for temporary files, or an ordinary one, whatever the umask was.
            let mode = if facts.permissions().mode() & 0o1000 == 0 {
                0o755
            } else {
                0o1777
            };
            archive.add(&format!("{path}/"), mode, &Entry::Folder)?;
            walk(archive, &place, &format!("{path}/"))?;
        } else if facts.is_symlink() {
            let target = std::fs::read_link(&place).with_context(unreadable)?;
            let target = target
                .to_str()
                .with_context(|| format!("{}: the link's target is not UTF-8", place.display()))?;
            archive.add(&path, 0o777, &Entry::Link(target))?;
        } else if facts.is_file() {
            let mode = if facts.permissions().mode() & 0o111 == 0 {
                0o644
            } else {
                0o755
            };
            let bytes = std::fs::read(&place).with_context(unreadable)?;
            archive.add(&path, mode, &Entry::File(&bytes))?;
        } else {
            bail!("{}: neither file, folder nor link", place.display());
        }
    }
    Ok(())
}

/// The two fields that hold a path: at most 155 bytes of folders, at most 100 of the rest.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    let slashes = path.char_indices().filter(|(_, c)| *c == '/');
    slashes
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| prefix.len() <= 155 && (1..=100).contains(&name.len()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn listing(archive: &Path) -> String {
        let output = Command::new("tar")
            .arg("--numeric-owner")
            .arg("-tvf")
            .arg(archive)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn tar_reads_what_was_written_with_fixed_times_owners_and_order() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        let deep = format!("{}/{}", "a".repeat(90), "b".repeat(90));
        std::fs::create_dir_all(root.join(&deep)).unwrap();
        std::fs::write(root.join(&deep).join("deep"), "x").unwrap();
        std::fs::write(root.join("run"), "#!").unwrap();
        std::fs::set_permissions(root.join("run"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir(root.join("tmp")).unwrap();
        std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        std::os::unix::fs::symlink("run", root.join("link")).unwrap();
        let file = temp.path().join("out.tar");
        let bytes = of_folder(&root).unwrap();
        std::fs::write(&file, &bytes).unwrap();
        let listing = listing(&file);
        let lines: Vec<&str> = listing.lines().collect();
        assert!(
            lines
                .iter()
                .all(|line| line.contains(" 0/0 ") && line.contains("1970-01-01")),
            "{listing}"
        );
        let starts: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(
            starts,
            [
                "drwxr-xr-x",
                "drwxr-xr-x",
                "-rw-r--r--",
                "lrwxrwxrwx",
                "-rwxr-xr-x",
                "drwxrwxrwt"
            ],
            "{listing}"
        );
        assert!(lines[2].ends_with(&format!("{deep}/deep")), "{listing}");
        assert!(lines[3].ends_with("link -> run"), "{listing}");
        assert_eq!(bytes, of_folder(&root).unwrap());
    }

    #[test]
    fn a_path_that_no_header_holds_is_refused() {
        let mut archive = Archive::default();
        let error = archive.file(&"x".repeat(101), b"").unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
        assert!(split(&format!("{}/{}", "a".repeat(155), "b".repeat(100))).is_some());
        assert!(split(&format!("{}/{}", "a".repeat(156), "b".repeat(100))).is_none());
    }
}

//! Files in. `hauberk inject`: a file in, the file with proxies out, and a note on each pod beside it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use inject::Config;

/// Prints the file with proxies in its pods, and on the standard error what became of each.
///
/// # Errors
/// When a file cannot be read, or the config cannot be used.
pub(crate) fn inject(file: &Path, config: &Config) -> anyhow::Result<ExitCode> {
    match inject::manifest(&read(file)?, config) {
        Ok((text, notes)) => {
            for note in notes {
                eprintln!("{note}");
            }
            print!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        // Half a file would be taken for a whole one, so nothing is printed.
        Err(errors) => {
            for error in errors {
                eprintln!("hauberk: {}: {error}", file.display());
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What proxies are like: the chart's defaults, or what the file says, with what the flags say instead.
///
/// # Errors
/// When the file cannot be read, or says something that cannot be used.
pub(crate) fn config(file: Option<&Path>, image: Option<String>, native: bool) -> anyhow::Result<Config> {
    let mut config = match file {
        Some(path) => {
            let text = read(path)?;
            serde_saphyr::from_str(&text).with_context(|| format!("--config {}", path.display()))?
        }
        None => Config::default(),
    };
    if let Some(image) = image {
        config.image = image;
    }
    config.native |= native;
    Ok(config)
}

/// The text of a file, or of the standard input for `-`.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("the standard input")?;
        Ok(text)
    } else {
        std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))
    }
}

/// The file itself, or those of the folder that hold manifests, as the operator's `directory` source finds them.
///
/// # Errors
/// When the folder cannot be read, or has none.
pub(crate) fn manifests(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut folders) = (Vec::new(), vec![path.to_owned()]);
    // Links may lead in circles.
    let mut seen = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        let metadata = std::fs::metadata(&folder).with_context(|| format!("{}", folder.display()))?;
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let entries = std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("{}", folder.display()))?.path();
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let manifest = path
                .extension()
                .is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
            match (hidden, path.is_dir(), manifest) {
                (true, ..) => {}
                (false, true, _) => folders.push(path),
                (false, false, true) => found.push(path),
                (false, false, false) => {}
            }
        }
    }
    found.sort();
    anyhow::ensure!(
        !found.is_empty(),
        "{} has no file that ends in .yaml, .yml or .json",
        path.display()
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn links_that_lead_in_circles_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), "").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        assert_eq!(manifests(dir.path()).unwrap(), [dir.path().join("a.yaml")]);
    }

    #[test]
    fn flags_go_before_the_config_and_the_config_before_defaults() {
        let written = file("image: registry.example.com/proxy:1\naccessLog: json\n");
        let read = config(Some(written.path()), None, false).unwrap();
        assert_eq!(read.image, "registry.example.com/proxy:1");
        assert_eq!(read.access_log, inject::AccessLog::Json);
        assert!(!read.native);
        let read = config(Some(written.path()), Some("here:2".to_owned()), true).unwrap();
        assert_eq!((read.image.as_str(), read.native), ("here:2", true));
        assert_eq!(config(None, None, false).unwrap(), Config::default());
    }

    #[test]
    fn a_config_that_cannot_be_used_names_file_and_field() {
        let written = file("colour: red\n");
        let error = format!("{:#}", config(Some(written.path()), None, false).unwrap_err());
        let name = written.path().display().to_string();
        assert!(error.contains(&name) && error.contains("colour"), "{error}");
        let error = format!("{:#}", config(Some(Path::new("/none")), None, false).unwrap_err());
        assert!(error.contains("/none"), "{error}");
    }
}

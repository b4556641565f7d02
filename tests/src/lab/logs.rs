//! The ends of a lab's logs, for whoever has to explain a failure.
//!
//! A lab that is dropped leaves them here, since its test's error is reported only after the lab is gone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::process::tail;

/// No more than this is read from the end of one log.
const READ: u64 = 32 * 1024;

static KEPT: Mutex<String> = Mutex::new(String::new());

/// The last `lines` lines of every log in `folder`, each under its program's name.
pub(crate) fn ends(folder: &Path, lines: usize) -> String {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    logs.retain(|log| log.is_file());
    logs.sort();
    let mut text = String::new();
    for log in logs {
        let end = tail(
            &read_end(&log).unwrap_or_else(|error| format!("(unreadable: {error})")),
            lines,
        );
        if !end.trim().is_empty() {
            let name = log.file_stem().unwrap_or_default().to_string_lossy();
            text += &format!("--- {name}\n{end}\n");
        }
    }
    text
}

/// Keeps `text` until the next lab is dropped.
pub(super) fn keep(text: String) {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

/// What the lab dropped last has left.
pub(super) fn kept() -> String {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn read_end(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ)))?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_shown_and_empty_logs_are_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let long: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
        std::fs::write(temp.path().join("web-proxy.log"), long).unwrap();
        std::fs::write(temp.path().join("silent.log"), "").unwrap();
        assert_eq!(ends(temp.path(), 2), "--- web-proxy\nline 19998\nline 19999\n");
    }
}

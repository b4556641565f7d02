//! `hauberk convert`: manifests written for Istio in, the same for Hauberk out, and what differs beside it.

use std::path::Path;
use std::process::ExitCode;

use crds::convert::{Becomes, Converter};

use crate::file;

/// Prints the manifests with our objects, and on the standard error what does not move over as it stands.
///
/// # Errors
/// When a file cannot be read, or is not YAML; then nothing is printed.
pub(crate) fn convert(path: &Path) -> anyhow::Result<ExitCode> {
    let files = file::manifests(path)?;
    let alone = !path.is_dir();
    let mut converter = Converter::default();
    let (mut out, mut notes, mut broken) = (String::new(), Vec::new(), Vec::new());
    for file in &files {
        let name = file.display();
        match converter.convert(&file::read(file)?) {
            Ok(converted) => {
                notes.extend(converted.notes.into_iter().map(|note| (name.to_string(), note)));
                // A mark of the encoding, or a directive, is only good where a stream begins.
                let mut text = converted.text.as_str();
                if !alone {
                    text = text.strip_prefix('\u{feff}').unwrap_or(text);
                    let start = if has_directive(text) { "..." } else { "---" };
                    out.push_str(&format!("{start}\n# {name}\n"));
                }
                out.push_str(text);
                if !alone && !out.ends_with('\n') {
                    out.push('\n');
                }
            }
            Err(errors) => broken.extend(errors.into_iter().map(|error| format!("{name}: {error}"))),
        }
    }
    // Half of the files would be taken for all of them.
    anyhow::ensure!(broken.is_empty(), "nothing is converted:\n{}", broken.join("\n"));
    for (name, note) in &notes {
        eprintln!("{name}: {note}");
    }
    print!("{out}");
    let worst = notes.iter().map(|(_, note)| note.becomes).max();
    Ok(match worst {
        Some(Becomes::Refused) => ExitCode::FAILURE,
        Some(Becomes::Absent | Becomes::Different) => ExitCode::from(3),
        Some(Becomes::Doubtful) | None => ExitCode::SUCCESS,
    })
}

/// Whether a text begins with directives, which belong to the document that starts behind them.
fn has_directive(text: &str) -> bool {
    let mut lines = text.lines();
    let first = lines.find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.starts_with('%'))
}

#[cfg(test)]
mod tests {
    /// The names that notes give exist: injection reads them, or the operator does.
    #[test]
    fn what_says_the_same_here_is_an_annotation_of_ours() {
        for name in crds::convert::counterparts() {
            assert!(
                inject::ANNOTATIONS.iter().any(|known| known.name == name),
                "{name}"
            );
        }
    }
}

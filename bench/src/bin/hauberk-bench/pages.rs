//! Puts the figures of a run into a document, between two marks, so that nobody types figures.

use std::path::Path;

use anyhow::{Context, bail};

use crate::results::Results;
use crate::{goals, plot, table};

const BEGIN: &str = "<!-- figures of the last run: written by `make bench`, not by hand -->";
const END: &str = "<!-- end of the figures -->";

/// Replaces what stands between the marks of `document`, and the plot beside it.
pub(crate) fn write(document: &Path, results: &Results) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let text = replace(&text, &figures(results)).with_context(|| document.display().to_string())?;
    let svg = document.with_extension("svg");
    for (path, text) in [(document, text), (&svg, plot::of(results))] {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn replace(text: &str, figures: &str) -> anyhow::Result<String> {
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("there is no line {BEGIN}"))?;
    let Some((_, after)) = rest.split_once(END) else {
        bail!("there is no line {END} after {BEGIN}");
    };
    Ok(format!("{before}{BEGIN}\n\n{figures}\n{END}{after}"))
}

fn figures(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "Measured on {} processors ({}), Linux {}, {} rounds of {} s for each proxy and case. Figures are medians, with the \
         least and the most of the rounds in brackets.\n\n",
        machine.processors, machine.processor, machine.kernel, results.rounds, results.seconds
    );
    text += &goals::table(results).markdown();
    for found in &results.scenarios {
        text.push('\n');
        text += &table::of(found.scenario, &found.rows).markdown();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replace(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(replace(&new, "new\n").unwrap(), new);
    }

    #[test]
    fn a_document_without_marks_is_left_alone() {
        assert!(replace("a", "new").is_err());
        assert!(replace(&format!("{END} {BEGIN}"), "new").is_err());
    }
}

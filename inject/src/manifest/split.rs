//! A text of several YAML documents, taken apart at its `---` lines so that documents which stay can be copied as they are.

/// One document of a text.
pub(super) struct Document<'a> {
    /// The line that begins it, if it has one.
    pub(super) marker: &'a str,
    /// Everything up to the next such line.
    pub(super) text: &'a str,
    /// The line of the whole text on which `text` begins, counted from 1.
    pub(super) first_line: usize,
}

/// The documents, in order; put together again they are the text.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut begin, mut marker, mut first_line, mut at) = (0, "", 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let end = at + line.len();
        // What stands behind the hyphens, as in `--- {a: 1}`, is content: such a line stays with its document.
        if is_marker(line) {
            documents.push(Document {
                marker,
                text: &text[begin..at],
                first_line,
            });
            (begin, marker, first_line) = (end, line, index + 2);
        } else if line.starts_with("--- ") && at > begin {
            documents.push(Document {
                marker,
                text: &text[begin..at],
                first_line,
            });
            (begin, marker, first_line) = (at, "", index + 1);
        }
        at = end;
    }
    documents.push(Document {
        marker,
        text: &text[begin..],
        first_line,
    });
    // What stands before the first marker is no document when it is empty.
    documents.retain(|d| !(d.marker.is_empty() && d.text.is_empty()));
    documents
}

/// Hyphens, and at most a comment behind them.
fn is_marker(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("---") else {
        return false;
    };
    let rest = rest.trim_end_matches(['\n', '\r']);
    let behind = rest.trim_start();
    behind.is_empty() || (behind.len() < rest.len() && behind.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> Vec<(&str, &str, usize)> {
        documents(text)
            .into_iter()
            .map(|d| (d.marker, d.text, d.first_line))
            .collect()
    }

    #[test]
    fn documents_begin_at_lines_of_three_hyphens() {
        assert_eq!(parts(""), []);
        assert_eq!(parts("a: 1\n"), [("", "a: 1\n", 1)]);
        assert_eq!(
            parts("# c\n---\na: 1\n--- # two\r\nb: |\n  --- no\n---more\n"),
            [
                ("", "# c\n", 1),
                ("---\n", "a: 1\n", 3),
                ("--- # two\r\n", "b: |\n  --- no\n---more\n", 5),
            ]
        );
        assert_eq!(
            parts("a: 1\n--- {b: 2}\n"),
            [("", "a: 1\n", 1), ("", "--- {b: 2}\n", 2)]
        );
        assert_eq!(parts("---\n---\n"), [("---\n", "", 2), ("---\n", "", 3)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(lines in prop::collection::vec("(---|--- x|--- #c|a: 1|  b|)(\r\n|\n)", 0..8), end in "(|---|a: 1)") {
            let text = lines.concat() + &end;
            let together: String = documents(&text).iter().map(|d| [d.marker, d.text].concat()).collect();
            prop_assert_eq!(together, text);
        }
    }
}

//! Splits a text into its documents before any of them is parsed, so that one with broken syntax cannot hide
//! those after it. A line that starts with `---` or `...` ends a document wherever it stands: YAML allows
//! neither within a scalar.

/// The text of one document, with the marker line it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) text: &'a str,
    /// The byte of the whole text at which it begins.
    pub(super) offset: usize,
    /// The line of the whole text on which it begins, counted from 1.
    pub(super) first_line: u64,
}

/// The documents of a text, in order, without those that hold nothing but comments.
pub(super) fn documents(text: &str) -> Chunks<'_> {
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    Chunks {
        rest,
        offset: text.len() - rest.len(),
        line: 1,
    }
}

pub(super) struct Chunks<'a> {
    rest: &'a str,
    offset: usize,
    line: u64,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        while !self.rest.is_empty() {
            let (mut end, mut lines, mut has_content) = (0, 0, false);
            for line in self.rest.split_inclusive('\n') {
                let marker = marker(line);
                if marker == Some("---") && end > 0 {
                    break;
                }
                has_content |= holds_content(line, marker);
                end += line.len();
                lines += 1;
                if marker == Some("...") {
                    break;
                }
            }
            let (text, rest) = self.rest.split_at(end);
            let chunk = Chunk {
                text,
                offset: self.offset,
                first_line: self.line,
            };
            (self.rest, self.offset, self.line) = (rest, self.offset + end, self.line + lines);
            if has_content {
                return Some(chunk);
            }
        }
        None
    }
}

fn marker(line: &str) -> Option<&str> {
    let (marker, after) = line.split_at_checked(3)?;
    let ends = after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']);
    (ends && (marker == "---" || marker == "...")).then_some(marker)
}

fn holds_content(line: &str, marker: Option<&str>) -> bool {
    let line = match marker {
        Some(marker) => line[marker.len()..].trim(),
        None if line.starts_with('%') => return false,
        None => line.trim(),
    };
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(u64, &str)> {
        documents(text)
            .map(|chunk| (chunk.first_line, chunk.text))
            .collect()
    }

    #[test]
    fn documents_keep_their_first_line() {
        let text = "# head\n---\na: 1\n--- # second\nb: 2\n...\n\n---\n# nothing\n---\nc: 3";
        let expected = [
            (2, "---\na: 1\n"),
            (4, "--- # second\nb: 2\n...\n"),
            (10, "---\nc: 3"),
        ];
        assert_eq!(split(text), expected);
    }

    #[test]
    fn only_whole_markers_at_the_start_of_a_line_split() {
        let text = "a: |\n  ---\n  ...\n---b: 1\n----\n";
        assert_eq!(split(text), [(1, text)]);
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_are_fine() {
        assert_eq!(
            split("\u{feff}a: 1\r\n---\r\nb: 2\r\n"),
            [(1, "a: 1\r\n"), (2, "---\r\nb: 2\r\n")]
        );
    }

    #[test]
    fn a_marker_may_carry_the_document_itself() {
        assert_eq!(
            split("--- {a: 1}\n--- {b: 2}"),
            [(1, "--- {a: 1}\n"), (2, "--- {b: 2}")]
        );
    }

    #[test]
    fn nothing_is_no_document() {
        for text in ["", "\n", "# c\n", "---\n---\n", "...\n", "%YAML 1.2\n---\n"] {
            assert_eq!(split(text), [], "{text:?}");
        }
    }
}

//! Finds where in the text of a document a field stands. Only called once there is something to say about
//! that field, so that reading good documents does not pay for it.

use std::ops::Range;

use serde_saphyr::granit_parser::{self, Event, Parser, Span, StrInput};

use crate::path::Step;

/// A place in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// The place of a field's key, or of a list's element; of the nearest one above it if it is not there.
pub(super) fn find(text: &str, path: &[Step]) -> Option<Place> {
    let options = granit_parser::options! { emit_comments: false };
    let mut nodes = Nodes {
        parser: Parser::new_from_str_with_options(text, options),
    };
    let (mut node, span) = nodes.next()?;
    let mut place = at(&span);
    for step in path {
        // What comes from an alias stands elsewhere, so the way ends at the alias.
        let found = match (step, &node) {
            (Step::Field(name), Event::MappingStart(..)) => nodes.enter_field(name),
            (Step::Index(index), Event::SequenceStart(..)) => nodes.enter_element(*index),
            (Step::Field(_) | Step::Index(_), _) => None,
        };
        let Some((below, span)) = found else { break };
        place = at(&span);
        node = below;
    }
    Some(place)
}

/// The bytes of the plain value at a path, with its quotes; `None` where there is none, or an alias.
pub(super) fn scalar(text: &str, path: &[Step]) -> Option<Range<usize>> {
    let options = granit_parser::options! { emit_comments: false };
    let mut nodes = Nodes {
        parser: Parser::new_from_str_with_options(text, options),
    };
    let (mut node, mut span) = nodes.next()?;
    for step in path {
        (node, span) = match (step, &node) {
            (Step::Field(name), Event::MappingStart(..)) => nodes.enter_value(name)?,
            (Step::Index(index), Event::SequenceStart(..)) => nodes.enter_element(*index)?,
            (Step::Field(_) | Step::Index(_), _) => return None,
        };
    }
    matches!(node, Event::Scalar(..)).then(|| span.byte_range())?
}

fn at(span: &Span) -> Place {
    let (line, column) = (span.start.line(), span.start.col());
    Place {
        line: line as u64,
        column: column as u64 + 1,
    }
}

/// The nodes of one document, in the order of the text.
struct Nodes<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Nodes<'a> {
    /// The next node, or the end of the collection it would have been in. `None` at the end of the text or
    /// where it is no YAML.
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        loop {
            let (event, span) = self.parser.next_event()?.ok()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd | Event::DocumentEnd => return None,
                event => return Some((event, span)),
            }
        }
    }

    /// Goes to the value of a key of the mapping just begun; the span is that of the key.
    fn enter_field(&mut self, name: &str) -> Option<(Event<'a>, Span)> {
        let key = self.reach(name)?;
        Some((self.next()?.0, key))
    }

    /// Goes to the value of a key of the mapping just begun; the span is that of the value.
    fn enter_value(&mut self, name: &str) -> Option<(Event<'a>, Span)> {
        self.reach(name)?;
        self.next()
    }

    /// Reads a key of the mapping just begun, and what stands before it.
    fn reach(&mut self, name: &str) -> Option<Span> {
        loop {
            let (key, span) = self.next()?;
            if matches!(&key, Event::Scalar(text, ..) if text == name) {
                return Some(span);
            }
            if key == Event::MappingEnd {
                return None;
            }
            self.skip_rest(&key)?;
            let (value, _) = self.next()?;
            self.skip_rest(&value)?;
        }
    }

    /// Goes to an element of the sequence just begun.
    fn enter_element(&mut self, index: usize) -> Option<(Event<'a>, Span)> {
        for _ in 0..index {
            let (element, _) = self.next()?;
            if element == Event::SequenceEnd {
                return None;
            }
            self.skip_rest(&element)?;
        }
        self.next().filter(|(element, _)| *element != Event::SequenceEnd)
    }

    /// Skips what belongs to a node whose first event was just read.
    fn skip_rest(&mut self, first: &Event<'_>) -> Option<()> {
        let mut depth = opens(first);
        while depth > 0 {
            let (event, _) = self.next()?;
            depth += opens(&event);
            if matches!(event, Event::MappingEnd | Event::SequenceEnd) {
                depth -= 1;
            }
        }
        Some(())
    }
}

fn opens(event: &Event<'_>) -> u32 {
    u32::from(matches!(
        event,
        Event::MappingStart(..) | Event::SequenceStart(..)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "---\n# first\na:\n  - {b: 1, c: [2, 3]}\n  - b: 4\n    \"x y\": 5\nz: *none\n";

    fn place(path: &[Step]) -> Option<(u64, u64)> {
        find(TEXT, path).map(|place| (place.line, place.column))
    }

    fn field(name: &str) -> Step {
        Step::Field(name.to_owned())
    }

    #[test]
    fn fields_and_elements_are_found_by_their_path() {
        use Step::Index;
        for (path, expected) in [
            (vec![], (3, 1)),
            (vec![field("a")], (3, 1)),
            (vec![field("a"), Index(0), field("b")], (4, 6)),
            (vec![field("a"), Index(0), field("c"), Index(1)], (4, 19)),
            (vec![field("a"), Index(1)], (5, 5)),
            (vec![field("a"), Index(1), field("x y")], (6, 5)),
        ] {
            assert_eq!(place(&path), Some(expected), "{path:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_placed_at_what_is_above_it() {
        use Step::Index;
        assert_eq!(place(&[field("a"), Index(1), field("missing")]), Some((5, 5)));
        assert_eq!(place(&[field("a"), Index(7)]), Some((3, 1)));
        assert_eq!(place(&[field("a"), field("b")]), Some((3, 1)));
        assert_eq!(find("", &[]), None);
    }
}

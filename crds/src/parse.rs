//! Reads objects from YAML text: the files of the operator's `directory` source, and whatever the command
//! line is given. One bad document never hides the others, and every error says where it is and what to do.
//!
//! YAML is first read into JSON and that into the typed object, as `kubectl` does, so that a file means here
//! what it means to a cluster. What the objects *say* is not judged here; that is [`crate::check`].

pub mod convert;
mod decode;
mod explain;
mod locate;
mod split;

use std::fmt;

use serde_json::Value;
use serde_saphyr::{MessageFormatter, UserMessageFormatter};

use crate::{
    object::Object,
    path::{Step, display},
    words::printable,
};
use decode::Problem;
use split::Chunk;

/// The most bytes one text may have.
pub const MAX_BYTES: usize = 4 << 20;

/// The most documents one text may have.
pub const MAX_DOCUMENTS: usize = 50_000;

/// How many errors of one document are looked up in its text. Each look-up reads the document from its
/// start, and a `List` may hold any number of broken items.
const MAX_LOCATED: usize = 64;

/// Why a document, or an item of a `List`, could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The document in the text, counted from 1.
    pub document: usize,
    /// The line in the text, counted from 1.
    pub line: Option<u64>,
    /// The column in that line, counted from 1.
    pub column: Option<u64>,
    /// The field, such as `spec.http[0].route[1].weight`.
    pub field: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl std::error::Error for ParseError {}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            document,
            line,
            column,
            field,
            message,
        } = self;
        write!(f, "document {document}")?;
        if let Some(line) = line {
            write!(f, ", line {line}")?;
        }
        if let Some(column) = column {
            write!(f, ", column {column}")?;
        }
        if let Some(field) = field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {message}")
    }
}

/// Why an object that an API server serves could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, such as `spec.http[0].route[1].weight`; `None` where it is the object as a whole.
    pub field: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Reads one object of a known kind from JSON, as an API server serves it: with the same checks as a document of a
/// text. The items of a list come without `apiVersion` and `kind`, so those are taken as given.
///
/// # Errors
/// When it is no such object, with the first field that does not fit.
pub fn served(kind: crate::Kind, mut value: Value) -> Result<Object, FieldError> {
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".to_owned(), kind.api_version().into());
        map.insert("kind".to_owned(), kind.name().into());
    }
    let error = |Problem { path, message }| FieldError {
        field: (!path.is_empty()).then(|| display(&path)),
        message,
    };
    let read = decode::object(value).map_err(error)?;
    // Only a ServiceAccount is read as nothing, and that is no kind of ours.
    read.ok_or_else(|| error(Problem::new(vec![], "is of no kind that is known here")))
}

/// Reads every document of a text: one result for each object, in order. Documents without content and
/// ServiceAccounts give none.
pub fn parse(text: &str) -> Vec<Result<Object, ParseError>> {
    let refuse = |message| {
        vec![Err(ParseError {
            document: 1,
            line: None,
            column: None,
            field: None,
            message,
        })]
    };
    if text.len() > MAX_BYTES {
        let (len, max) = (text.len(), MAX_BYTES);
        return refuse(format!(
            "the text has {len} bytes, and {max} is the most; split it over several files"
        ));
    }
    let mut chunks = split::documents(text);
    let mut results = Vec::new();
    for (n, chunk) in chunks.by_ref().take(MAX_DOCUMENTS).enumerate() {
        Document {
            number: n + 1,
            chunk,
            located: 0,
        }
        .read(&mut results);
    }
    if chunks.next().is_some() {
        return refuse(format!(
            "the text has more than {MAX_DOCUMENTS} documents; split it over several files"
        ));
    }
    results
}

struct Document<'a> {
    number: usize,
    chunk: Chunk<'a>,
    located: usize,
}

impl Document<'_> {
    fn read(mut self, results: &mut Vec<Result<Object, ParseError>>) {
        let value = match yaml(self.chunk.text) {
            Ok(Value::Null) => return,
            Ok(value) => value,
            Err(error) => return results.push(Err(self.yaml_error(&error))),
        };
        for item in decode::items(value) {
            let result = item.and_then(|(prefix, value)| {
                decode::object(value).map_err(|mut problem| {
                    problem.path.splice(0..0, prefix);
                    problem
                })
            });
            match result {
                Ok(None) => {}
                Ok(Some(object)) => results.push(Ok(object)),
                Err(problem) => results.push(Err(self.problem(problem))),
            }
        }
    }

    fn yaml_error(&self, error: &serde_saphyr::Error) -> ParseError {
        let location = error.location();
        let first = self.chunk.first_line;
        ParseError {
            document: self.number,
            // Lines of the chunk are counted from 1 as well.
            line: location.map(|at| first + at.line().saturating_sub(1)),
            column: location.map(|at| at.column()),
            field: None,
            message: printable(&UserMessageFormatter.format_message(error.without_snippet()), 500),
        }
    }

    fn problem(&mut self, problem: Problem) -> ParseError {
        let Problem { path, message } = problem;
        let place = if self.located < MAX_LOCATED {
            locate::find(self.chunk.text, &path)
        } else {
            None
        };
        self.located += 1;
        ParseError {
            document: self.number,
            line: place.map(|place| self.chunk.first_line + place.line - 1),
            column: place.map(|place| place.column),
            field: (!path.is_empty()).then(|| display(&path)),
            message,
        }
    }
}

/// Reads one document. Anchors and aliases are allowed as far as people use them; what multiplies its text
/// with them is refused.
fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    let mut options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_nodes: 1_000_000,
            max_events: 3_000_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: MAX_BYTES,
            max_total_scalar_bytes: MAX_BYTES,
            max_documents: 1,
        },
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = 100_000;
    serde_saphyr::from_str_with_options(text, options)
}

impl Problem {
    fn new(path: Vec<Step>, message: impl Into<String>) -> Self {
        Self {
            path,
            message: message.into(),
        }
    }

    fn at(field: &str, message: impl Into<String>) -> Self {
        Self::new(
            field
                .split('.')
                .map(|step| Step::Field(step.to_owned()))
                .collect(),
            message,
        )
    }
}

//! A text with objects written for Istio becomes the same text with ours: only the `apiVersion` of what we have changes,
//! byte for byte, so that the difference between the two texts is what was converted and nothing else. Beside it stand
//! notes on everything that is refused here, means something else, or has no counterpart.
//!
//! Called by the command line. Nothing is taken out: what we do not have stays as it is written and is named, for an API
//! server without Istio's definitions refuses it by name as well.

mod differs;
mod foreign;
mod marks;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde_json::Value;

pub use self::marks::counterparts;
use super::{Document, MAX_BYTES, MAX_DOCUMENTS, ParseError, decode, locate, split, yaml};
use crate::check::{self, Severity};
use crate::path::{Step, display};
use crate::words::printable;
use crate::{API_VERSION, Kind, Object};

/// A converted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The whole text, other documents and comments included.
    pub text: String,
    /// How many objects are ours now.
    pub objects: usize,
    /// What there is to know, in the order of the text.
    pub notes: Vec<Note>,
}

/// Something that does not move over as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The line in the text, counted from 1.
    pub line: Option<u64>,
    /// The object, as in `VirtualService shop/reviews`.
    pub object: String,
    /// The field, such as `spec.http[0].delegate`; empty for the object as a whole.
    pub field: String,
    /// What becomes of it.
    pub becomes: Becomes,
    /// Why, and what to do.
    pub message: String,
}

/// What becomes of something that was written for Istio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Becomes {
    /// It works, but probably not as meant, here as there.
    Doubtful,
    /// It works, and does something else.
    Different,
    /// There is no such thing here, and nobody reads it.
    Absent,
    /// The object is refused with it.
    Refused,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            object,
            field,
            becomes,
            message,
        } = self;
        if let Some(line) = line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{object}: ")?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        let becomes = match becomes {
            Becomes::Doubtful => "doubtful",
            Becomes::Different => "differs",
            Becomes::Absent => "not here",
            Becomes::Refused => "refused",
        };
        write!(f, "{becomes}: {message}")
    }
}

/// Converts texts that belong together, and remembers what each host has been claimed by.
#[derive(Debug, Default)]
pub struct Converter {
    claimed: BTreeMap<String, String>,
}

impl Converter {
    /// The text with our objects in place of Istio's.
    ///
    /// # Errors
    /// When the text, or one of its documents, is not YAML: half a text would be taken for a whole one.
    pub fn convert(&mut self, text: &str) -> Result<Converted, Vec<ParseError>> {
        too_much(text)?;
        let (mut notes, mut edits, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (n, chunk) in split::documents(text).enumerate() {
            let document = Document {
                number: n + 1,
                chunk,
                located: 0,
            };
            let value = match yaml(chunk.text) {
                Ok(value) => value,
                Err(error) => {
                    errors.push(document.yaml_error(&error));
                    continue;
                }
            };
            for item in decode::items(value) {
                // A List without items is for the API server to refuse.
                let Ok((place, value)) = item else { continue };
                Item {
                    chunk,
                    place,
                    object: name(&value),
                    notes: &mut notes,
                }
                .convert(value, self, &mut edits);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let objects = edits.len();
        Ok(Converted {
            text: edited(text, edits),
            objects,
            notes,
        })
    }
}

fn too_much(text: &str) -> Result<(), Vec<ParseError>> {
    let documents = split::documents(text).take(MAX_DOCUMENTS + 1).count();
    if text.len() <= MAX_BYTES && documents <= MAX_DOCUMENTS {
        return Ok(());
    }
    Err(vec![ParseError {
        document: 1,
        line: None,
        column: None,
        field: None,
        message: format!(
            "the text has more than {MAX_BYTES} bytes or {MAX_DOCUMENTS} documents; split it over several files"
        ),
    }])
}

/// The text with other words at some places.
fn edited(text: &str, mut edits: Vec<Range<usize>>) -> String {
    edits.sort_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for Range { start, end } in edits {
        out.push_str(&text[done..start]);
        out.push_str(API_VERSION);
        done = end;
    }
    out.push_str(&text[done..]);
    out
}

/// An object's kind, namespace and name, as far as they are there.
fn name(value: &Value) -> String {
    let text = |value: &Value| value.as_str().map(|text| printable(text, 253));
    let (kind, metadata) = (text(&value["kind"]), &value["metadata"]);
    let name = text(&metadata["name"]).or_else(|| text(&metadata["generateName"]));
    let (kind, name) = (kind.unwrap_or_default(), name.unwrap_or_default());
    match text(&metadata["namespace"]) {
        Some(namespace) if !namespace.is_empty() => format!("{kind} {namespace}/{name}"),
        _ => format!("{kind} {name}"),
    }
}

/// One object of a text.
struct Item<'a> {
    chunk: split::Chunk<'a>,
    place: Vec<Step>,
    object: String,
    notes: &'a mut Vec<Note>,
}

impl Item<'_> {
    fn convert(mut self, mut value: Value, converter: &mut Converter, edits: &mut Vec<Range<usize>>) {
        for (path, becomes, message) in marks::of(&value) {
            self.note(&path, becomes, message);
        }
        let word = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        let kind = match foreign::meaning(&api_version, &kind) {
            foreign::Meaning::Ours(kind) => kind,
            foreign::Meaning::Absent(message) => return self.note(&[], Becomes::Absent, message),
            foreign::Meaning::Other => return,
        };
        let step = Step::Field("apiVersion".to_owned());
        match self.written(&step, &api_version) {
            Some(range) => edits.push(range),
            None => {
                let message =
                    "is not written at its place, perhaps an alias; write it out, and convert again";
                return self.note(&[step], Becomes::Refused, message);
            }
        }
        value["apiVersion"] = API_VERSION.into();
        match decode::object(value) {
            Ok(Some(object)) => self.judge(kind, &object, converter),
            Ok(None) => {}
            Err(problem) => self.note(&problem.path, Becomes::Refused, problem.message),
        }
    }

    /// Where in the whole text the value of a field stands.
    fn written(&self, field: &Step, value: &str) -> Option<Range<usize>> {
        let path = [self.place.as_slice(), std::slice::from_ref(field)].concat();
        let scalar = locate::scalar(self.chunk.text, &path)?;
        // With its quotes, perhaps.
        let start = scalar.start + self.chunk.text.get(scalar)?.find(value)?;
        let start = self.chunk.offset + start;
        Some(start..start + value.len())
    }

    /// Everything there is to say of an object that is ours now.
    fn judge(&mut self, kind: Kind, object: &Object, converter: &mut Converter) {
        let findings = match object {
            Object::VirtualService(object) => check::virtual_service(object),
            Object::DestinationRule(object) => check::destination_rule(object),
            Object::PeerAuthentication(object) => check::peer_authentication(object),
            Object::Service(_) | Object::Pod(_) | Object::Namespace(_) | Object::EndpointSlice(_) => vec![],
        };
        for finding in findings {
            let becomes = match finding.severity {
                Severity::Warning => Becomes::Doubtful,
                Severity::Unsupported | Severity::Error => Becomes::Refused,
            };
            self.push(finding.field, None, becomes, finding.message);
        }
        for (field, message) in differs::of(object) {
            self.push(field, None, Becomes::Different, message);
        }
        if let Object::VirtualService(service) = object {
            self.claims(kind, service, converter);
        }
    }

    /// Of two objects with the same host one wins here.
    fn claims(&mut self, kind: Kind, service: &crate::VirtualService, converter: &mut Converter) {
        let namespace = service.metadata.namespace.as_deref().unwrap_or("default");
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = format!("{kind} {namespace}/{name}");
        for (n, host) in service.spec.hosts.iter().enumerate() {
            let full = match host.contains('.') {
                true => host.strip_suffix(".svc.cluster.local").unwrap_or(host).to_owned(),
                false => format!("{host}.{namespace}"),
            };
            let first = converter.claimed.entry(full).or_insert_with(|| own.clone());
            if *first != own {
                let message = format!(
                    "{first} has the same host; the rules of the older of the two go first, and those of the other follow them"
                );
                self.push(format!("spec.hosts[{n}]"), None, Becomes::Different, message);
            }
        }
    }

    fn note(&mut self, path: &[Step], becomes: Becomes, message: impl Into<String>) {
        self.push(display(path), Some(path), becomes, message.into());
    }

    fn push(&mut self, field: String, path: Option<&[Step]>, becomes: Becomes, message: String) {
        let whole = [self.place.as_slice(), path.unwrap_or_default()].concat();
        let place = locate::find(self.chunk.text, &whole);
        self.notes.push(Note {
            line: place.map(|place| self.chunk.first_line + place.line - 1),
            object: self.object.clone(),
            field,
            becomes,
            message,
        });
    }
}

#[cfg(test)]
mod tests;

//! JSON into a typed object: which kind it is, every field of ours accounted for, a name at least. Yields one
//! problem for each object, the first one found.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::explain;
use crate::{
    API_VERSION,
    object::{Kind, Object},
    path::{Step, display},
    status::Status,
    words::quote,
};

/// What is wrong with an object, before its place in the text is looked up.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) path: Vec<Step>,
    pub(super) message: String,
}

/// The objects of a document, each with the path to it: itself, or the items of a `List`.
pub(super) fn items(value: Value) -> Vec<Result<(Vec<Step>, Value), Problem>> {
    let is_list = value["kind"] == "List" && value["apiVersion"] == "v1";
    match value {
        Value::Object(mut list) if is_list => match list.remove("items") {
            Some(Value::Array(items)) => {
                let path = |n| vec![Step::Field("items".to_owned()), Step::Index(n)];
                items
                    .into_iter()
                    .enumerate()
                    .map(|(n, item)| Ok((path(n), item)))
                    .collect()
            }
            Some(_) => vec![Err(Problem::at("items", "must be a list of objects"))],
            None => vec![Err(Problem::at(
                "items",
                "is required in a List; write [] for an empty one",
            ))],
        },
        value => vec![Ok((Vec::new(), value))],
    }
}

/// Reads one object. `None` for kinds that mean nothing to the mesh, but belong beside what does.
pub(super) fn object(value: Value) -> Result<Option<Object>, Problem> {
    let Value::Object(mut map) = value else {
        return Err(Problem::new(
            vec![],
            "is not an object; it must have apiVersion, kind and metadata",
        ));
    };
    let Some(kind) = kind(&map)? else { return Ok(None) };
    let name = metadata(&mut map, kind)?;
    if crate::definitions::schema(kind).is_some() {
        if let Some(path) = map.get("spec").and_then(empty_value) {
            let path = [vec![Step::Field("spec".to_owned())], path].concat();
            return Err(Problem::new(
                path,
                "has no value; give it one, or remove the field ({} is an empty block)",
            ));
        }
        // Written by an operator, perhaps one of another version; it decides nothing, so it is in nobody's way.
        if let Some(status) = map.remove("status").and_then(own_status) {
            map.insert("status".to_owned(), status);
        }
    }
    let value = Value::Object(map);
    Ok(Some(match kind {
        Kind::Service => Object::Service(typed(value, kind, &name)?),
        Kind::Pod => Object::Pod(typed(value, kind, &name)?),
        Kind::Namespace => Object::Namespace(typed(value, kind, &name)?),
        Kind::EndpointSlice => Object::EndpointSlice(typed(value, kind, &name)?),
        Kind::VirtualService => Object::VirtualService(typed(value, kind, &name)?),
        Kind::DestinationRule => Object::DestinationRule(typed(value, kind, &name)?),
        Kind::PeerAuthentication => Object::PeerAuthentication(typed(value, kind, &name)?),
    }))
}

/// A status as far as this version knows it.
fn own_status(status: Value) -> Option<Value> {
    let status: Status = serde_json::from_value(status).ok()?;
    serde_json::to_value(status).ok()
}

fn kind(map: &Map<String, Value>) -> Result<Option<Kind>, Problem> {
    let text = |field: &str| match map.get(field) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(Problem::at(field, "must be a string")),
        None => Err(Problem::at(field, "is required")),
    };
    let (kind, api_version) = (text("kind")?, text("apiVersion")?);
    if (kind, api_version) == ("ServiceAccount", "v1") {
        return Ok(None);
    }
    let Some(known) = Kind::ALL.into_iter().find(|known| known.name() == kind) else {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let hint = explain::did_you_mean(kind, names.iter().copied());
        let (kind, names) = (quote(kind), names.join(", "));
        return Err(Problem::at(
            "kind",
            format!("the kind {kind} is not known here; known are {names} and List{hint}"),
        ));
    };
    if known.api_version() == api_version {
        return Ok(Some(known));
    }
    let (expected, found) = (known.api_version(), quote(api_version));
    let hint = if expected == API_VERSION && api_version.ends_with(".istio.io/v1") {
        "; the fields may stay as they are"
    } else {
        ""
    };
    Err(Problem::at(
        "apiVersion",
        format!("{known} is read at `{expected}`, not at {found}; change it{hint}"),
    ))
}

/// Sees to name and namespace; returns the name for messages.
fn metadata(map: &mut Map<String, Value>, kind: Kind) -> Result<String, Problem> {
    let metadata = match map.get_mut("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err(Problem::at("metadata", "must be an object with a name")),
        None => {
            return Err(Problem::at(
                "metadata.name",
                "is required; give the object a name",
            ));
        }
    };
    let name = match metadata.get("name") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Null) | None => {
            return Err(Problem::at(
                "metadata.name",
                "is required; give the object a name",
            ));
        }
        Some(_) => return Err(Problem::at("metadata.name", "must be a string; put it in quotes")),
    };
    if !is_dns_name(&name, 253, true) {
        return Err(Problem::at(
            "metadata.name",
            format!("{} {NAME_RULE}", quote(&name)),
        ));
    }
    match metadata.get("namespace") {
        _ if !kind.is_namespaced() => {
            metadata.remove("namespace");
        }
        Some(Value::String(namespace)) if is_dns_name(namespace, 63, false) => {}
        Some(Value::String(namespace)) if !namespace.is_empty() => {
            let problem = format!("{} {NAMESPACE_RULE}", quote(namespace));
            return Err(Problem::at("metadata.namespace", problem));
        }
        Some(Value::String(_) | Value::Null) | None => {
            metadata.insert("namespace".to_owned(), Value::String("default".to_owned()));
        }
        Some(_) => {
            return Err(Problem::at(
                "metadata.namespace",
                "must be a string; put it in quotes",
            ));
        }
    }
    Ok(name)
}

const NAME_RULE: &str =
    "is no name; use lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit";
const NAMESPACE_RULE: &str = "is no namespace; use up to 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit";

fn is_dns_name(name: &str, max: usize, dots: bool) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= max
        && if dots {
            name.split('.').all(label)
        } else {
            label(name)
        }
}

/// The path of the first field that was written down without a value.
fn empty_value(value: &Value) -> Option<Vec<Step>> {
    let below = |step: Step, value: &Value| {
        let path = empty_value(value)?;
        Some([vec![step], path].concat())
    };
    match value {
        Value::Null => Some(Vec::new()),
        Value::Object(map) => map
            .iter()
            .find_map(|(key, value)| below(Step::Field(key.clone()), value)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .find_map(|(n, value)| below(Step::Index(n), value)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Into the type, with the path of what does not fit. Fields the type does not know are errors in our own
/// kinds; Kubernetes' kinds grow fields with every release, and those are left alone.
fn typed<T: DeserializeOwned>(value: Value, kind: Kind, name: &str) -> Result<Box<T>, Problem> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = serde_ignored::deserialize(tracked, |path| unknown.push(unknown_path(&path)));
    let object = result.map_err(|error: serde_json::Error| {
        let path = track.path().iter().filter_map(step).collect();
        explain::mismatch(path, &error.to_string())
    })?;
    // The generated types read these two by other means.
    let header = |path: &Vec<Step>| matches!(&path[..], [Step::Field(f)] if f == "apiVersion" || f == "kind");
    unknown.retain(|path| !header(path));
    match unknown.as_slice() {
        [first, more @ ..] if crate::definitions::schema(kind).is_some() => {
            let mut problem = explain::unknown_field(kind, first);
            if !more.is_empty() {
                let paths: Vec<_> = more.iter().take(5).map(|path| display(path)).collect();
                let rest = if more.len() > paths.len() { ", …" } else { "" };
                problem.message += &format!(
                    " ({} more in {kind} {name}: {}{rest})",
                    more.len(),
                    paths.join(", ")
                );
            }
            Err(problem)
        }
        [] | [_, ..] => Ok(Box::new(object)),
    }
}

fn step(segment: &serde_path_to_error::Segment) -> Option<Step> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Field(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn unknown_path(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    let (parent, step) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Step::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Step::Field(key.clone()))),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            (parent, None)
        }
    };
    let mut steps = unknown_path(parent);
    steps.extend(step);
    steps
}

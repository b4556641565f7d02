//! Injection into the text of a file, as `hauberk inject -f` does it: pods and whatever makes pods get a proxy, everything
//! else passes through, byte for byte.
//!
//! Documents that change are written anew. Their keys stay in order and fields that we do not know stay, but comments and
//! the way texts are quoted are lost.

mod ordered;
mod split;

use std::fmt;

use api::Invalid;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use self::ordered::Node;
use crate::config::Config;
use crate::decide::{Decision, decide_alone};
use crate::{inject, patch, warnings};

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The object, as in `Deployment shop/web`.
    pub object: String,
    /// Whether it gets a proxy, and if not, why.
    pub decision: Decision,
    /// What may not do what its author expects, each with its field.
    pub warnings: Vec<Invalid>,
}

/// Why a document cannot be injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("document {document} (line {line}){object}: {problem}", object = Named(object.as_deref()))]
pub struct ManifestError {
    /// Which document, counted from 1.
    pub document: usize,
    /// Where it begins, counted from 1; for text that is not YAML, the line of the mistake.
    pub line: usize,
    /// The object, as in `Deployment shop/web`, where it could be read.
    pub object: Option<String>,
    /// The field, where it is known, and the remedy.
    pub problem: String,
}

/// The object in a message, behind a comma.
struct Named<'a>(Option<&'a str>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, ", {name}"))
    }
}

impl fmt::Display for Note {
    /// A line, and one more for each warning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.decision {
            Decision::Inject => write!(f, "{}: gets a proxy.", self.object)?,
            Decision::Skip(reason) => write!(f, "{}: no proxy. {reason}", self.object)?,
        }
        self.warnings
            .iter()
            .try_for_each(|warning| write!(f, "\n{}: {warning}", self.object))
    }
}

/// The text with a proxy in every pod that does not object, and a note on each pod or maker of pods. Namespaces are not
/// asked, because a file does not say what their labels are.
///
/// # Errors
/// With everything that is wrong in any document; then nothing is written.
pub fn manifest(text: &str, config: &Config) -> Result<(String, Vec<Note>), Vec<ManifestError>> {
    let mut out = String::with_capacity(text.len());
    let mut notes = Vec::new();
    let mut errors = Vec::new();
    for (index, document) in split::documents(text).into_iter().enumerate() {
        match whole(document.text, config, &mut notes) {
            Ok(Some(changed)) => {
                out.push_str(document.marker);
                out.push_str(&changed);
            }
            Ok(None) => {
                out.push_str(document.marker);
                out.push_str(document.text);
            }
            Err(failures) => errors.extend(failures.into_iter().map(|failure| ManifestError {
                document: index + 1,
                line: document.first_line + failure.line,
                object: failure.object,
                problem: failure.problem,
            })),
        }
    }
    if errors.is_empty() {
        Ok((out, notes))
    } else {
        Err(errors)
    }
}

/// What is wrong with an object; `line` counts from the document's first.
struct Failure {
    line: usize,
    object: Option<String>,
    problem: String,
}

/// The document as it is to be; `None` when it stays as it is.
fn whole(text: &str, config: &Config, notes: &mut Vec<Note>) -> Result<Option<String>, Vec<Failure>> {
    let node = read(text).map_err(|failure| vec![failure])?;
    let mut value = node.to_value();
    let before = value.clone();
    objects(&mut value, config, notes)?;
    if value == before {
        return Ok(None);
    }
    let written = serde_saphyr::to_string(&node.in_order(value)).map_err(|error| {
        vec![Failure {
            line: 0,
            object: None,
            problem: format!("cannot be written as YAML: {error}"),
        }]
    })?;
    Ok(Some(written))
}

fn read(text: &str) -> Result<Node, Failure> {
    // As kubectl reads it: 0644 is an octal number there.
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options::<Option<Node>>(text, options)
        .map(|node| node.unwrap_or(Node::Leaf(Value::Null)))
        .map_err(|error| Failure {
            line: error
                .location()
                .and_then(|at| usize::try_from(at.line()).ok())
                .map_or(0, |line| line.saturating_sub(1)),
            object: None,
            problem: format!("is not YAML: {error}"),
        })
}

/// An object, or the objects of a List.
fn objects(value: &mut Value, config: &Config, notes: &mut Vec<Note>) -> Result<(), Vec<Failure>> {
    let Some(object) = value.as_object_mut() else {
        return Ok(());
    };
    let is_list = object
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|k| k.ends_with("List"));
    match object.get_mut("items") {
        Some(Value::Array(items)) if is_list => {
            let mut failures = Vec::new();
            for item in items {
                failures.extend(objects(item, config, notes).err().into_iter().flatten());
            }
            if failures.is_empty() {
                Ok(())
            } else {
                Err(failures)
            }
        }
        _ => one(object, config, notes),
    }
}

fn one(object: &mut Map<String, Value>, config: &Config, notes: &mut Vec<Note>) -> Result<(), Vec<Failure>> {
    let Some(path) = path_of_pod(object) else {
        return Ok(());
    };
    let name = name_of(object);
    let namespace = text_at(object, &["metadata", "namespace"])
        .unwrap_or("default")
        .to_owned();
    let failed = |problem: String| Failure {
        line: 0,
        object: Some(name.clone()),
        problem,
    };
    let prefix = path.join(".");
    let mut place = Some(&mut *object);
    for step in path {
        place = place
            .and_then(|place| place.get_mut(*step))
            .and_then(Value::as_object_mut);
    }
    let Some(place) = place else {
        return Err(vec![failed(format!(
            "{prefix} is missing: write what the pods are to run"
        ))]);
    };
    let under = |problem: Invalid| {
        if prefix.is_empty() {
            problem
        } else {
            problem.under(&prefix)
        }
    };
    let refused = |problem: Invalid| failed(under(problem).to_string());
    let pod = typed(place).map_err(|error| {
        vec![failed(match prefix.as_str() {
            "" => format!("is not a pod: {error}"),
            prefix => format!("{prefix}: is not a pod: {error}"),
        })]
    })?;
    let decision = decide_alone(&namespace, &pod).map_err(|problem| vec![refused(problem)])?;
    let mut warned = Vec::new();
    if decision == Decision::Inject {
        let injected = inject(&pod, &namespace, config)
            .map_err(|problems| problems.into_iter().map(refused).collect::<Vec<_>>())?;
        warned.extend(warnings(&pod, config).into_iter().map(under));
        apply(place, &patch(&pod, &injected)).map_err(|problem| vec![failed(problem)])?;
    }
    notes.push(Note {
        object: name,
        decision,
        warnings: warned,
    });
    Ok(())
}

/// Where an object holds a pod; `None` when it makes none that we know of.
fn path_of_pod(object: &Map<String, Value>) -> Option<&'static [&'static str]> {
    let version = object.get("apiVersion")?.as_str()?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, object.get("kind")?.as_str()?) {
        ("", "Pod") => Some(&[]),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// The pod's own part of an object. A template has no kind and may lack metadata.
fn typed(place: &mut Map<String, Value>) -> serde_json::Result<Pod> {
    // A list of nothing, as templates write it, counts as no list.
    if let Some(spec) = place.get_mut("spec").and_then(Value::as_object_mut) {
        for list in ["initContainers", "volumes", "imagePullSecrets"] {
            if spec.get(list).is_some_and(Value::is_null) {
                spec.remove(list);
            }
        }
    }
    let part = |name: &str| place.get(name).cloned();
    let metadata = part("metadata")
        .filter(|m| !m.is_null())
        .unwrap_or_else(|| json!({}));
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": part("spec"),
    }))
}

/// The patch is made from the fields that we know and applied to all there are.
fn apply(place: &mut Map<String, Value>, patch: &json_patch::Patch) -> Result<(), String> {
    let metadata = place.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let mut value = Value::Object(std::mem::take(place));
    json_patch::patch(&mut value, patch)
        .map_err(|error| format!("has fields in a form that we do not know: {error}"))?;
    if let Value::Object(changed) = value {
        *place = changed;
    }
    Ok(())
}

/// `Deployment shop/web`.
fn name_of(object: &Map<String, Value>) -> String {
    let kind = text_at(object, &["kind"]).unwrap_or_default();
    let generated = || Some(format!("{}…", text_at(object, &["metadata", "generateName"])?));
    let name = text_at(object, &["metadata", "name"])
        .map(str::to_owned)
        .or_else(generated);
    let name = name.unwrap_or_else(|| "without a name".to_owned());
    match text_at(object, &["metadata", "namespace"]) {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

fn text_at<'a>(object: &'a Map<String, Value>, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    let value = rest
        .iter()
        .try_fold(object.get(*first)?, |value, step| value.get(step))?;
    value.as_str()
}

#[cfg(test)]
mod tests;

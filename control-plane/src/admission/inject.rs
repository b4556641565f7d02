//! `/inject`: hands a pod that is about to be created to the injector, together with the labels of its namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use json_patch::Patch;
use serde_json::Value;
use tokio::time::timeout;

use super::review::{Answer, GroupKind, Operation, Request};
use super::{Admission, CATCH_UP, Failed};

/// Puts a proxy into a pod: from the namespace's name and labels, and the pod as JSON, to what is to be done. The pod's
/// own metadata has no namespace yet.
pub type Injector = Arc<dyn Fn(&str, &BTreeMap<String, String>, &Value) -> Outcome + Send + Sync>;

/// What an injector makes of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It stays as it is, and why.
    Unchanged(String),
    /// It gets a proxy: the change, and what is odd about it.
    Patch(Patch, Vec<String>),
    /// It cannot get a proxy as it is written: the fields, what is wrong with them, and the remedy.
    Refuse(Vec<String>),
}

/// The answer for a pod.
pub(super) async fn answer(admission: &Admission, request: &Request) -> Result<Answer, Failed> {
    let GroupKind { group, kind } = &request.kind;
    if (group.as_str(), kind.as_str()) != ("", "Pod") {
        return Err(Failed::Malformed(format!(
            "request.kind: is {kind} of group {group:?}, and this path is for pods: register the webhook for them alone"
        )));
    }
    let sub_resource = request.sub_resource.as_deref().unwrap_or_default();
    if request.operation != Operation::Create || !sub_resource.is_empty() {
        return Ok(Answer::Allow(Vec::new()));
    }
    if !request.object.is_object() {
        return Err(Failed::Malformed("request.object: is missing".to_owned()));
    }
    let namespace = &request.namespace;
    let labels = labels(admission, namespace).await?;
    let name = || {
        let metadata = &request.object["metadata"];
        let given = metadata["name"].as_str().or(metadata["generateName"].as_str());
        given.unwrap_or("a pod without a name").to_owned()
    };
    Ok(match (admission.injector)(namespace, &labels, &request.object) {
        Outcome::Unchanged(why) => {
            tracing::debug!(namespace, pod = name(), why, "a pod gets no proxy");
            Answer::Allow(Vec::new())
        }
        Outcome::Patch(patch, warnings) => {
            tracing::debug!(namespace, pod = name(), "a pod gets a proxy");
            Answer::Patch(patch, warnings)
        }
        Outcome::Refuse(problems) => Answer::Refuse(format!(
            "pod {namespace}/{} cannot get a proxy: {}",
            name(),
            problems.join("; ")
        )),
    })
}

/// The labels of a namespace. One that was made this moment may not have arrived here; a pod without a proxy because of
/// that would be worse than a pod that is created a second later.
async fn labels(admission: &Admission, namespace: &str) -> Result<BTreeMap<String, String>, Failed> {
    let mut source = admission.source.clone();
    let known = source.wait_for(|report| report.loaded && report.world.namespace(namespace).is_some());
    if let Ok(Ok(report)) = timeout(CATCH_UP, known).await {
        return Ok(report.world.namespace(namespace).cloned().unwrap_or_default());
    }
    Err(Failed::Unavailable(format!(
        "request.namespace: {namespace:?} is not known to the operator yet; create the pod again in a moment"
    )))
}

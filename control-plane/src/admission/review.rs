//! `AdmissionReview` of `admission.k8s.io/v1`, as far as it is needed: what is asked, and what is answered.

use base64::Engine as _;
use json_patch::Patch;
use serde::Deserialize;
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";

/// Warnings of one answer; the API server takes 4 KiB of them in all.
const MAX_WARNINGS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

/// What is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    /// Goes back with the answer.
    pub(super) uid: String,
    /// Of the object.
    pub(super) kind: GroupKind,
    /// Empty, or such as `status`.
    #[serde(default)]
    pub(super) sub_resource: Option<String>,
    /// Empty while the API server has not made it up yet.
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) operation: Operation,
    /// Absent when it is deleted.
    #[serde(default)]
    pub(super) object: Value,
    /// Absent when it is created.
    #[serde(default)]
    pub(super) old_object: Value,
}

/// Group and kind of an object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct GroupKind {
    #[serde(default)]
    pub(super) group: String,
    pub(super) kind: String,
}

/// What is to happen to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// Reads a review.
pub(super) fn read(body: &[u8]) -> Result<Request, String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("not an AdmissionReview: {error}"))?;
    let Review {
        api_version,
        kind,
        request,
    } = review;
    if (api_version.as_str(), kind.as_str()) != (API_VERSION, "AdmissionReview") {
        return Err(format!(
            "not an AdmissionReview of {API_VERSION}, but {kind:?} of {api_version:?}: register the webhook with \
             admissionReviewVersions [\"v1\"]"
        ));
    }
    let request = request.ok_or("request: is missing")?;
    if request.uid.is_empty() {
        return Err("request.uid: is empty".to_owned());
    }
    Ok(request)
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// Taken as it is, with warnings.
    Allow(Vec<String>),
    /// Taken with a change, and warnings.
    Patch(Patch, Vec<String>),
    /// Not taken, and why.
    Refuse(String),
}

impl Answer {
    /// The review that goes back.
    pub(super) fn into_review(self, uid: &str) -> Value {
        let mut response = json!({ "uid": uid, "allowed": !matches!(self, Self::Refuse(_)) });
        let warnings = match self {
            Self::Allow(warnings) => warnings,
            Self::Patch(patch, warnings) => {
                let patch = serde_json::to_vec(&patch).expect("a patch is JSON");
                response["patchType"] = "JSONPatch".into();
                response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch).into();
                warnings
            }
            Self::Refuse(message) => {
                response["status"] = json!({
                    "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422, "message": message,
                });
                Vec::new()
            }
        };
        if !warnings.is_empty() {
            response["warnings"] = bounded(warnings).into();
        }
        json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response })
    }
}

fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    if warnings.len() > MAX_WARNINGS {
        let more = warnings.len() - MAX_WARNINGS + 1;
        warnings.truncate(MAX_WARNINGS - 1);
        warnings.push(format!("and {more} more warnings; the object's status has them"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_review_is_refused_with_the_reason() {
        let good = json!({
            "apiVersion": API_VERSION, "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
                "subResource": null, "dryRun": true,
            },
        });
        let with = |path: &str, value: Value| {
            let mut review = good.clone();
            *review.pointer_mut(path).unwrap() = value;
            review.to_string()
        };
        assert!(read(good.to_string().as_bytes()).is_ok());
        for (text, says) in [
            ("{".to_owned(), "not an AdmissionReview: "),
            (
                with("/apiVersion", "admission.k8s.io/v1beta1".into()),
                "admissionReviewVersions",
            ),
            (with("/kind", "Pod".into()), "\"Pod\""),
            (with("/request", Value::Null), "request: is missing"),
            (with("/request/uid", "".into()), "request.uid: is empty"),
            (with("/request/operation", "PATCH".into()), "unknown variant"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn many_warnings_are_cut_and_counted() {
        let warnings = (0..20).map(|n| n.to_string()).collect();
        let review = Answer::Allow(warnings).into_review("u");
        let warnings = review["response"]["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), MAX_WARNINGS);
        assert_eq!(warnings[15], "and 5 more warnings; the object's status has them");
    }
}

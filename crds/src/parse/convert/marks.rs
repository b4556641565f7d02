//! Labels and annotations by which Istio is told something, and what says the same here. They are named and not changed:
//! whoever moves over decides when which mesh gets a pod.

use serde_json::Value;

use super::Becomes;
use crate::path::Step;

/// What says the same here, for each label and annotation that has a counterpart.
const COUNTERPARTS: [(&str, &str); 16] = [
    ("istio-injection", "hauberk.dev/inject"),
    ("sidecar.istio.io/inject", "hauberk.dev/inject"),
    (
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "hauberk.dev/skip-inbound-ports",
    ),
    (
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "hauberk.dev/skip-outbound-ports",
    ),
    (
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "hauberk.dev/skip-outbound-cidrs",
    ),
    ("sidecar.istio.io/proxyCPU", "hauberk.dev/proxy-cpu-request"),
    ("sidecar.istio.io/proxyCPULimit", "hauberk.dev/proxy-cpu-limit"),
    ("sidecar.istio.io/proxyMemory", "hauberk.dev/proxy-memory-request"),
    (
        "sidecar.istio.io/proxyMemoryLimit",
        "hauberk.dev/proxy-memory-limit",
    ),
    ("sidecar.istio.io/logLevel", "hauberk.dev/log-level"),
    ("sidecar.istio.io/proxyImage", "hauberk.dev/proxy-image"),
    ("networking.istio.io/exportTo", ""),
    ("istio.io/rev", ""),
    ("proxy.istio.io/config", ""),
    ("sidecar.istio.io/rewriteAppHTTPProbers", ""),
    ("istio.io/dataplane-mode", ""),
];

/// What to say of each label and annotation of Istio's, wherever in the object metadata stand.
pub(super) fn of(value: &Value) -> Vec<(Vec<Step>, Becomes, String)> {
    let mut found = Vec::new();
    walk(value, &mut Vec::new(), &mut found);
    found
}

fn walk(value: &Value, path: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, Becomes, String)>) {
    let Value::Object(map) = value else { return };
    for (key, below) in map {
        path.push(Step::Field(key.clone()));
        match key.as_str() {
            "metadata" => {
                for marks in ["labels", "annotations"] {
                    for name in below[marks]
                        .as_object()
                        .into_iter()
                        .flat_map(|marks| marks.keys())
                    {
                        if let Some((becomes, message)) = meaning(name) {
                            let rest = [marks, name].map(|step| Step::Field(step.to_owned()));
                            found.push(([path.as_slice(), &rest].concat(), becomes, message));
                        }
                    }
                }
            }
            // The ways to the metadata of pods; maps of the user's own are not searched.
            "spec" | "template" | "jobTemplate" => walk(below, path, found),
            _ => {}
        }
        path.pop();
    }
}

fn meaning(name: &str) -> Option<(Becomes, String)> {
    let is_istio = |domain: &str| domain == "istio.io" || domain.ends_with(".istio.io");
    let counterpart = COUNTERPARTS.iter().find(|(known, _)| *known == name);
    match counterpart {
        Some((_, "")) => {}
        Some((_, ours)) => {
            let message = format!("stays as it is; what says it here is `{ours}`");
            return Some((Becomes::Different, message));
        }
        None if name.split_once('/').is_some_and(|(domain, _)| is_istio(domain)) => {}
        None => return None,
    }
    Some((
        Becomes::Absent,
        "stays as it is, and nothing here reads it".to_owned(),
    ))
}

/// Each name of ours that a note gives, so that whoever knows which there are can hold the list to them.
pub fn counterparts() -> impl Iterator<Item = &'static str> {
    COUNTERPARTS
        .iter()
        .map(|(_, ours)| *ours)
        .filter(|ours| !ours.is_empty())
}

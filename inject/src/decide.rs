//! Whether a pod gets a proxy: the pod's own word, then the namespace's. Pods of the platform, of the mesh itself and of
//! the host's network never get one.

use std::collections::BTreeMap;
use std::fmt;

use api::Invalid;
use api::names::{INJECT_SWITCH, INJECTED_LABEL, PLATFORM_NAMESPACES, ROOT_NAMESPACE};
use k8s_openapi::api::core::v1::Pod;

use crate::annotations::field;
use crate::parts;

/// Whether a pod gets a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It does.
    Inject,
    /// It does not.
    Skip(Reason),
}

/// Why a pod gets no proxy. Prints as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its namespace belongs to the platform or to the mesh.
    Namespace(String),
    /// It says so itself.
    PodSaysNo,
    /// Its namespace says so, and it does not object.
    NamespaceSaysNo,
    /// Nothing asks for one.
    NotAsked,
    /// It is on the host's network, where a redirect would catch the whole node.
    HostNetwork,
    /// It runs on Windows.
    Windows,
    /// The kubelet runs it from a file, and what the API server holds is only its image in a mirror.
    Mirror,
}

impl Reason {
    /// Whether somebody asked for a proxy and does not get one: worth a warning.
    #[must_use]
    pub const fn is_a_surprise(&self) -> bool {
        matches!(self, Self::HostNetwork | Self::Windows | Self::Mirror)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "Pods in {name} never get a proxy."),
            Self::PodSaysNo => write!(f, "The pod says {INJECT_SWITCH}: \"false\"."),
            Self::NamespaceSaysNo => write!(f, "The namespace says {INJECT_SWITCH}: disabled."),
            Self::NotAsked => write!(
                f,
                "Neither the pod nor its namespace asks for a proxy: label the namespace {INJECT_SWITCH}=enabled, or the pod {INJECT_SWITCH}=true."
            ),
            Self::HostNetwork => f.write_str(
                "The pod is on the host's network (spec.hostNetwork), where a redirect would catch the whole node.",
            ),
            Self::Windows => f.write_str("The pod runs on Windows, for which there is no proxy."),
            Self::Mirror => f.write_str(
                "The pod is run by a kubelet from a file of the node: inject into that file with `hauberk inject`.",
            ),
        }
    }
}

/// Whether `pod` gets a proxy in `namespace`, which has these labels.
///
/// # Errors
/// When a switch is set to something that is neither yes nor no, when label and annotation of the pod contradict each
/// other, and when a pod without a proxy claims to have one.
pub fn decide(
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    pod: &Pod,
) -> Result<Decision, Invalid> {
    with_default(namespace, pod, || {
        let value = namespace_labels.get(INJECT_SWITCH);
        let place = format!("namespace {namespace}: metadata.labels[{INJECT_SWITCH}]");
        Ok(match value.map(|v| switch(&place, v)).transpose()? {
            Some(true) => None,
            Some(false) => Some(Reason::NamespaceSaysNo),
            None => Some(Reason::NotAsked),
        })
    })
}

/// The same where no namespace is known to ask: a pod gets a proxy unless something is against it.
pub(crate) fn decide_alone(namespace: &str, pod: &Pod) -> Result<Decision, Invalid> {
    with_default(namespace, pod, || Ok(None))
}

/// Whether pods of the namespace never get a proxy.
pub(crate) fn is_closed(namespace: &str) -> bool {
    namespace == ROOT_NAMESPACE || PLATFORM_NAMESPACES.contains(&namespace)
}

/// `otherwise` says why not when the pod itself says nothing.
fn with_default(
    namespace: &str,
    pod: &Pod,
    otherwise: impl FnOnce() -> Result<Option<Reason>, Invalid>,
) -> Result<Decision, Invalid> {
    if is_closed(namespace) {
        return Ok(Decision::Skip(Reason::Namespace(namespace.to_owned())));
    }
    let against = match of_pod(pod)? {
        Some(true) => None,
        Some(false) => Some(Reason::PodSaysNo),
        None => otherwise()?,
    };
    match against.or_else(|| obstacle(pod)) {
        None => Ok(Decision::Inject),
        Some(reason) => {
            claims_truly(pod)?;
            Ok(Decision::Skip(reason))
        }
    }
}

/// What the pod's label and annotation say.
fn of_pod(pod: &Pod) -> Result<Option<bool>, Invalid> {
    let label = pod.metadata.labels.as_ref().and_then(|l| l.get(INJECT_SWITCH));
    let annotation = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(INJECT_SWITCH));
    let label = label
        .map(|v| switch(&format!("metadata.labels[{INJECT_SWITCH}]"), v))
        .transpose()?;
    let annotation = annotation.map(|v| switch(&field(INJECT_SWITCH), v)).transpose()?;
    match (label, annotation) {
        (Some(label), Some(annotation)) if label != annotation => Err(Invalid::new(
            field(INJECT_SWITCH),
            "contradicts the label of the same name: remove one of them",
        )),
        (label, annotation) => Ok(annotation.or(label)),
    }
}

fn switch(place: &str, value: &str) -> Result<bool, Invalid> {
    match value {
        "true" | "enabled" => Ok(true),
        "false" | "disabled" => Ok(false),
        _ => Err(Invalid::new(
            place,
            format!(
                "{value:?} is neither yes nor no: write true or false on a pod, enabled or disabled on a namespace"
            ),
        )),
    }
}

fn obstacle(pod: &Pod) -> Option<Reason> {
    let spec = pod.spec.as_ref()?;
    let on_windows = spec.os.as_ref().is_some_and(|os| os.name == "windows")
        || ["kubernetes.io/os", "beta.kubernetes.io/os"].iter().any(|label| {
            let selected = spec.node_selector.as_ref().and_then(|s| s.get(*label));
            selected.is_some_and(|os| os == "windows")
        });
    let annotations = pod.metadata.annotations.as_ref();
    if spec.host_network == Some(true) {
        Some(Reason::HostNetwork)
    } else if on_windows {
        Some(Reason::Windows)
    } else if annotations.is_some_and(|a| a.contains_key("kubernetes.io/config.mirror")) {
        Some(Reason::Mirror)
    } else {
        None
    }
}

/// Who believes the label calls the pod with mutual TLS, which nobody there would answer.
fn claims_truly(pod: &Pod) -> Result<(), Invalid> {
    let claims = pod
        .metadata
        .labels
        .as_ref()
        .is_some_and(|l| l.contains_key(INJECTED_LABEL));
    if claims && !parts::has_proxy(pod) {
        return Err(Invalid::new(
            format!("metadata.labels[{INJECTED_LABEL}]"),
            "the pod has no proxy, and only injection sets this label: remove it",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: &str) -> Pod {
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn decided(namespace: &str, label: Option<&str>, pod: &Pod) -> Result<Decision, Invalid> {
        let labels = label.map(|l| (INJECT_SWITCH.to_owned(), l.to_owned()));
        decide(namespace, &labels.into_iter().collect(), pod)
    }

    const PLAIN: &str = "{spec: {containers: []}}";

    fn saying(label: Option<&str>, annotation: Option<&str>) -> Pod {
        let mut pod = pod(PLAIN);
        pod.metadata.labels = label.map(|v| BTreeMap::from([(INJECT_SWITCH.to_owned(), v.to_owned())]));
        pod.metadata.annotations =
            annotation.map(|v| BTreeMap::from([(INJECT_SWITCH.to_owned(), v.to_owned())]));
        pod
    }

    #[test]
    fn the_pods_word_goes_before_that_of_its_namespace() {
        use Decision::{Inject, Skip};
        use Reason::{NamespaceSaysNo, NotAsked, PodSaysNo};
        for (namespace, label, annotation, expected) in [
            (None, None, None, Skip(NotAsked)),
            (Some("enabled"), None, None, Inject),
            (Some("disabled"), None, None, Skip(NamespaceSaysNo)),
            (None, Some("true"), None, Inject),
            (None, None, Some("true"), Inject),
            (Some("disabled"), None, Some("enabled"), Inject),
            (Some("enabled"), Some("false"), None, Skip(PodSaysNo)),
            (Some("enabled"), None, Some("disabled"), Skip(PodSaysNo)),
            (Some("enabled"), Some("true"), Some("enabled"), Inject),
        ] {
            let found = decided("shop", namespace, &saying(label, annotation)).unwrap();
            assert_eq!(found, expected, "{namespace:?} {label:?} {annotation:?}");
        }
    }

    #[test]
    fn namespaces_of_the_platform_and_of_the_mesh_are_left_alone() {
        for namespace in ["kube-system", "kube-public", "kube-node-lease", "hauberk-system"] {
            let found = decided(namespace, Some("enabled"), &saying(Some("nonsense"), None));
            let reason = Reason::Namespace(namespace.to_owned());
            assert_eq!(found, Ok(Decision::Skip(reason.clone())));
            assert!(reason.to_string().contains(namespace));
        }
    }

    #[test]
    fn what_has_no_network_of_its_own_gets_no_proxy() {
        for (yaml, expected) in [
            ("{spec: {containers: [], hostNetwork: true}}", Reason::HostNetwork),
            ("{spec: {containers: [], os: {name: windows}}}", Reason::Windows),
            (
                "{spec: {containers: [], nodeSelector: {kubernetes.io/os: windows}}}",
                Reason::Windows,
            ),
            (
                "{metadata: {annotations: {kubernetes.io/config.mirror: x}}, spec: {containers: []}}",
                Reason::Mirror,
            ),
        ] {
            let found = decided("shop", Some("enabled"), &pod(yaml)).unwrap();
            assert_eq!(found, Decision::Skip(expected.clone()));
            assert!(expected.is_a_surprise());
        }
        let linux =
            pod("{spec: {containers: [], nodeSelector: {kubernetes.io/os: linux}, hostNetwork: false}}");
        assert_eq!(decided("shop", Some("enabled"), &linux), Ok(Decision::Inject));
    }

    #[test]
    fn what_is_neither_yes_nor_no_is_refused() {
        for (namespace, label, annotation, named) in [
            (
                Some("on"),
                None,
                None,
                "namespace shop: metadata.labels[hauberk.dev/inject]",
            ),
            (None, Some("yes"), None, "metadata.labels[hauberk.dev/inject]"),
            (None, None, Some(""), "metadata.annotations[hauberk.dev/inject]"),
            (
                None,
                Some("true"),
                Some("false"),
                "metadata.annotations[hauberk.dev/inject]",
            ),
        ] {
            let problem = decided("shop", namespace, &saying(label, annotation)).unwrap_err();
            assert_eq!(problem.field, named);
        }
        // A pod that decides for itself does not depend on what its namespace says.
        assert_eq!(
            decided("shop", Some("on"), &saying(Some("true"), None)),
            Ok(Decision::Inject)
        );
    }

    #[test]
    fn a_pod_without_a_proxy_must_not_claim_to_have_one() {
        let mut claiming = saying(None, None);
        claiming.metadata.labels = Some(BTreeMap::from([(INJECTED_LABEL.to_owned(), "true".to_owned())]));
        let problem = decided("shop", None, &claiming).unwrap_err();
        assert_eq!(problem.field, "metadata.labels[hauberk.dev/injected]");
        assert_eq!(decided("shop", Some("enabled"), &claiming), Ok(Decision::Inject));
    }
}

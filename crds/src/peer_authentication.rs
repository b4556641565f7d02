//! `PeerAuthentication`: whether connections to a pod must come with the mesh's mutual TLS; and the rule
//! that picks the mode for one port of one pod. Pure data and a pure decision, nothing is enforced here.

use std::{cmp::Ordering, collections::BTreeMap};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ROOT_NAMESPACE,
    object::{Kind, ObjectKey},
    selector::WorkloadSelector,
    status::Status,
};

/// Whether connections to pods must come with mutual TLS.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "hauberk.dev",
    version = "v1alpha1",
    kind = "PeerAuthentication",
    plural = "peerauthentications",
    shortname = "pa",
    category = "hauberk",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    doc = "Whether connections to pods must come with mutual TLS.",
    printcolumn = r#"{"name": "Mode", "type": "string", "jsonPath": ".spec.mtls.mode"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name": "Applied", "type": "string", "jsonPath": ".status.applied"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "priority": 1, "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].message"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) \
                 && size(self.selector.matchLabels) > 0)",
        "message": "portLevelMtls needs a selector with matchLabels",
    },
    {
        "rule": "!has(self.portLevelMtls) || self.portLevelMtls.all(p, size(p) <= 5 && int(p) >= 1 \
                 && int(p) <= 65535)",
        "message": "the keys of portLevelMtls are port numbers from 1 to 65535",
    },
]))]
pub struct PeerAuthenticationSpec {
    /// Pods of this namespace the policy is for; absent means all of them, and in the root namespace
    /// the whole mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// The mode for all ports; absent inherits from the namespace, then from the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
    /// Modes for single ports of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub port_level_mtls: BTreeMap<String, Mtls>,
}

/// A mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mtls {
    /// The mode; absent inherits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<MtlsMode>,
}

/// Which connections are let in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MtlsMode {
    /// Plain ones; mutual TLS is not terminated.
    Disable,
    /// Plain ones and those with mutual TLS. The mode of a mesh without any policy.
    #[default]
    Permissive,
    /// Those with mutual TLS only.
    Strict,
}

/// The mode for one port of one pod, and what decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The mode.
    pub mode: MtlsMode,
    /// Where it comes from.
    pub because: Because,
}

/// What decided a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// `portLevelMtls` of a policy that selects the pod.
    Port(ObjectKey),
    /// A policy that selects the pod.
    Workload(ObjectKey),
    /// The policy of the pod's namespace.
    Namespace(ObjectKey),
    /// The policy of the root namespace.
    Mesh(ObjectKey),
    /// No policy says anything.
    Default,
}

/// The mode for `port` of a pod in `namespace` with these labels: the policy that selects the pod goes
/// before its namespace's, and that before the mesh's; among equals the oldest wins, then the first by name.
pub fn mode_for<'a>(
    policies: impl IntoIterator<Item = &'a PeerAuthentication>,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    port: u16,
) -> Decision {
    let (mut workload, mut own, mut mesh) = (None, None, None);
    for policy in policies {
        let (here, selector) = (policy.metadata.namespace.as_deref(), selector_of(policy));
        match selector {
            Some(selector) if here == Some(namespace) && selector.selects(labels) => {
                keep_older(&mut workload, policy);
            }
            Some(_) => {}
            None => {
                if here == Some(namespace) {
                    keep_older(&mut own, policy);
                }
                if here == Some(ROOT_NAMESPACE) {
                    keep_older(&mut mesh, policy);
                }
            }
        }
    }
    let port_mode = |policy: &PeerAuthentication| {
        policy
            .spec
            .port_level_mtls
            .get(&port.to_string())
            .and_then(|mtls| mtls.mode)
    };
    let mode = |policy: &PeerAuthentication| policy.spec.mtls.and_then(|mtls| mtls.mode);
    let because = |mode: Option<MtlsMode>, from: fn(ObjectKey) -> Because, policy: &PeerAuthentication| {
        mode.map(|mode| Decision {
            mode,
            because: from(ObjectKey::of(Kind::PeerAuthentication, policy)),
        })
    };
    None.or_else(|| workload.and_then(|p| because(port_mode(p), Because::Port, p)))
        .or_else(|| workload.and_then(|p| because(mode(p), Because::Workload, p)))
        .or_else(|| own.and_then(|p| because(mode(p), Because::Namespace, p)))
        .or_else(|| mesh.and_then(|p| because(mode(p), Because::Mesh, p)))
        .unwrap_or(Decision {
            mode: MtlsMode::default(),
            because: Because::Default,
        })
}

/// A selector without labels is none.
fn selector_of(policy: &PeerAuthentication) -> Option<&WorkloadSelector> {
    policy
        .spec
        .selector
        .as_ref()
        .filter(|selector| !selector.match_labels.is_empty())
}

fn keep_older<'a>(kept: &mut Option<&'a PeerAuthentication>, policy: &'a PeerAuthentication) {
    if kept.is_none_or(|kept| age(policy, kept) == Ordering::Less) {
        *kept = Some(policy);
    }
}

/// Older first. What has no creation time yet, as objects from a folder, counts as younger.
fn age(a: &PeerAuthentication, b: &PeerAuthentication) -> Ordering {
    let created = |p: &PeerAuthentication| p.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let by_time = match (created(a), created(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    by_time.then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    fn policy(
        namespace: &str,
        name: &str,
        labels: &[(&str, &str)],
        mode: Option<MtlsMode>,
    ) -> PeerAuthentication {
        let match_labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let mut policy = PeerAuthentication::new(
            name,
            PeerAuthenticationSpec {
                selector: Some(WorkloadSelector { match_labels }),
                mtls: Some(Mtls { mode }),
                port_level_mtls: BTreeMap::new(),
            },
        );
        policy.metadata.namespace = Some(namespace.to_owned());
        policy
    }

    fn decide(policies: &[PeerAuthentication]) -> (MtlsMode, String) {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let Decision { mode, because } = mode_for(policies, "shop", &labels, 8080);
        let because = match because {
            Because::Port(key) => format!("port {}", key.name),
            Because::Workload(key) => format!("workload {}", key.name),
            Because::Namespace(key) => format!("namespace {}", key.name),
            Because::Mesh(key) => format!("mesh {}", key.name),
            Because::Default => "default".to_owned(),
        };
        (mode, because)
    }

    #[test]
    fn the_narrower_policy_wins_and_says_so() {
        use MtlsMode::{Disable, Permissive, Strict};
        let mesh = policy(ROOT_NAMESPACE, "all", &[], Some(Strict));
        let namespace = policy("shop", "shop", &[], Some(Permissive));
        let mut workload = policy("shop", "web", &[("app", "web")], Some(Disable));
        let elsewhere = policy("other", "x", &[], Some(Disable));
        let not_ours = policy("shop", "db", &[("app", "db")], Some(Disable));
        let others = [elsewhere, not_ours];
        let with = |more: &[&PeerAuthentication]| {
            let all: Vec<_> = others.iter().chain(more.iter().copied()).cloned().collect();
            decide(&all)
        };
        assert_eq!(with(&[]), (Permissive, "default".into()));
        assert_eq!(with(&[&mesh]), (Strict, "mesh all".into()));
        assert_eq!(with(&[&mesh, &namespace]), (Permissive, "namespace shop".into()));
        assert_eq!(
            with(&[&mesh, &namespace, &workload]),
            (Disable, "workload web".into())
        );
        workload
            .spec
            .port_level_mtls
            .insert("8080".into(), Mtls { mode: Some(Strict) });
        assert_eq!(with(&[&mesh, &namespace, &workload]), (Strict, "port web".into()));
    }

    #[test]
    fn a_policy_without_a_mode_inherits() {
        let mesh = policy(ROOT_NAMESPACE, "all", &[], Some(MtlsMode::Strict));
        let namespace = policy("shop", "shop", &[], None);
        let workload = policy("shop", "web", &[("app", "web")], None);
        assert_eq!(
            decide(&[workload, namespace, mesh]),
            (MtlsMode::Strict, "mesh all".into())
        );
    }

    #[test]
    fn among_equals_the_oldest_wins_and_then_the_first_by_name() {
        let mut young = policy("shop", "a", &[], Some(MtlsMode::Disable));
        let mut old = policy("shop", "b", &[], Some(MtlsMode::Strict));
        let unborn = policy("shop", "0", &[], Some(MtlsMode::Permissive));
        young.metadata.creation_timestamp = Some(Time(Timestamp::from_second(200).unwrap()));
        old.metadata.creation_timestamp = Some(Time(Timestamp::from_second(100).unwrap()));
        assert_eq!(
            decide(&[unborn, young.clone(), old.clone()]),
            (MtlsMode::Strict, "namespace b".into())
        );
        old.metadata.creation_timestamp = young.metadata.creation_timestamp.clone();
        assert_eq!(decide(&[old, young]), (MtlsMode::Disable, "namespace a".into()));
    }
}

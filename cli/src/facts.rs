//! What is known of a cluster and of the installation in it: plain data. `ask` collects it, `check` and `status` make
//! sense of it. What could not be found out stays an error here, with its reason.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// Something found out, or why it could not be.
pub(crate) type Known<T> = Result<T, String>;

/// The API server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    /// As it calls itself, such as `v1.33.1`.
    pub(crate) version: String,
    /// Major and minor.
    pub(crate) number: (u32, u32),
    /// What it serves, as `group/version`.
    pub(crate) apis: BTreeSet<String>,
}

/// A right to do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    /// API group; the core group's name is empty.
    pub(crate) group: &'static str,
    /// The resource.
    pub(crate) resource: &'static str,
    /// Where; everywhere where there is none.
    pub(crate) namespace: Option<&'static str>,
}

/// A custom resource definition, of which there is to be one.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// Its name.
    pub(crate) name: String,
    /// What this program knows.
    pub(crate) ours: Value,
    /// What the cluster has.
    pub(crate) theirs: Known<Option<Value>>,
}

/// What is known before an installation.
#[derive(Debug, Clone)]
pub(crate) struct Before {
    pub(crate) server: Known<Server>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) rights: Vec<(Right, Known<bool>)>,
    pub(crate) deployment: Known<Option<Deployment>>,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) secret: Known<bool>,
}

/// What is known of an installation.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) server: Known<Server>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) deployment: Known<Option<Deployment>>,
    /// Ready addresses of the operator's Service; `None` without the Service.
    pub(crate) endpoints: Known<Option<usize>>,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) lease: Known<Option<Lease>>,
    pub(crate) secret: Known<bool>,
    pub(crate) replicas: Known<Vec<Replica>>,
    /// The roots that pods verify the operator against, by namespace.
    pub(crate) bundles: Known<BTreeMap<String, String>>,
    /// Namespaces whose label asks for proxies.
    pub(crate) namespaces: Known<BTreeSet<String>>,
    /// Pods of those namespaces, and every pod with a proxy.
    pub(crate) pods: Known<Vec<Pod>>,
}

/// The operator's Deployment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deployment {
    pub(crate) wanted: i32,
    pub(crate) ready: i32,
    /// Pods of the newest template.
    pub(crate) updated: i32,
}

/// A webhook configuration, of which there is one unless its value in the chart is off.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    /// `mutating` or `validating`.
    pub(crate) kind: &'static str,
    /// The roots in each of its webhooks, as PEM.
    pub(crate) bundles: Known<Option<Vec<String>>>,
}

/// The lease of those who write.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// Who has it.
    pub(crate) holder: Option<String>,
    /// How long ago it was renewed.
    pub(crate) renewed_seconds_ago: Option<i64>,
    /// How long a renewal holds.
    pub(crate) duration_seconds: i64,
}

/// A pod that the mesh should know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Has a proxy.
    pub(crate) injected: bool,
    /// Has declined to have one, or cannot have one.
    pub(crate) exempt: bool,
    /// Its containers run.
    pub(crate) running: bool,
}

/// One operator.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    /// Its pod.
    pub(crate) pod: String,
    pub(crate) health: Known<Health>,
    pub(crate) status: Known<Status>,
}

/// What an operator says of itself. Here and below only what is made use of: an operator of another version may say more,
/// or less.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    pub(crate) status: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A part of an operator.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) detail: String,
}

/// What an operator says of objects, and of the proxies that are connected to it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) objects: Vec<Object>,
    pub(crate) unreadable: Vec<Unreadable>,
    pub(crate) unsendable: Vec<Unsendable>,
    pub(crate) proxies: Vec<Proxy>,
}

/// What an operator says of one object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Object {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) generation: i64,
    pub(crate) accepted: bool,
    pub(crate) in_force: Option<i64>,
    pub(crate) findings: Vec<String>,
    pub(crate) conflicts: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) used_by: usize,
    pub(crate) applied_by: usize,
    pub(crate) refused_by: Vec<Refusal>,
}

/// A proxy that could not apply something.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub(crate) struct Refusal {
    pub(crate) proxy: String,
    pub(crate) reason: String,
}

/// An object that the API server holds and the operator cannot read.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(default)]
pub(crate) struct Unreadable {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) problem: String,
}

/// A resource whose newest state cannot be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
#[serde(default)]
pub(crate) struct Unsendable {
    pub(crate) resource: String,
    pub(crate) problem: String,
}

/// What an operator says of one proxy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Proxy {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) service_account: String,
    pub(crate) proxy_version: String,
    pub(crate) connected_seconds: u64,
    pub(crate) subscriptions: BTreeMap<String, usize>,
    pub(crate) applied: usize,
    pub(crate) waiting: usize,
    pub(crate) refused: usize,
    pub(crate) last_nack: Option<Nack>,
}

/// A proxy's last refusal.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Nack {
    pub(crate) resource: String,
    pub(crate) reason: String,
    pub(crate) seconds_ago: u64,
}

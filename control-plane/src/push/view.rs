//! What the hub shows of itself: proxies with what they have applied, and for each of the user's objects which proxies
//! use it and how far they are. Plain data, taken at one moment; `status` joins it with the objects, `admin` shows it.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use api::{Kind, proto};
use serde::{Deserialize, Serialize};

use super::table::{Session, SessionId, Subscription, Table};
use crate::state::SourceObject;

/// An object without its generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Kubernetes kind.
    pub kind: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
}

impl From<&SourceObject> for ObjectKey {
    fn from(object: &SourceObject) -> Self {
        Self {
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        }
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HubView {
    /// Connected proxies.
    pub proxies: Vec<ProxyView>,
    /// For each object that shaped something a proxy is subscribed to: those proxies.
    pub objects: BTreeMap<ObjectKey, Vec<AppliedBy>>,
    /// Resources whose newest state cannot be sent.
    pub unsendable: Vec<Unsendable>,
}

/// How far one proxy is with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedBy {
    /// Index into `proxies`.
    pub proxy: usize,
    /// The generation that the proxy's resources were made from; the oldest where they differ.
    pub generation: i64,
    /// Whether the proxy has acknowledged the newest version of all of them.
    pub applied: bool,
    /// Why the proxy could not apply one of them.
    pub refused: Option<String>,
}

/// A proxy in the status view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyView {
    /// Its namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its service account.
    pub service_account: String,
    /// Its build, as it says.
    pub proxy_version: String,
    /// The contract revision that both sides speak.
    pub revision: u32,
    /// For how long it is connected.
    pub connected_seconds: u64,
    /// Names it is subscribed to, by kind.
    pub subscriptions: BTreeMap<String, usize>,
    /// Subscriptions whose newest version it has acknowledged.
    pub applied: usize,
    /// Subscriptions whose newest version it has not answered yet.
    pub waiting: usize,
    /// Subscriptions whose newest version it could not apply.
    pub refused: usize,
    /// Its last refusal.
    pub last_nack: Option<NackView>,
}

/// A refusal in the status view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NackView {
    /// Kind and name of the resource.
    pub resource: String,
    /// Why it could not be applied.
    pub reason: String,
    /// How long ago.
    pub seconds_ago: u64,
}

/// A resource whose newest state cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unsendable {
    /// Kind and name of the resource.
    pub resource: String,
    /// Why, and the remedy.
    pub problem: String,
}

/// A proxy in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProxyDetail {
    /// As in the status view.
    pub proxy: ProxyView,
    /// What it is subscribed to, by name.
    pub resources: Vec<ResourceDetail>,
}

/// One resource of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceDetail {
    /// Kind and name.
    pub resource: String,
    /// The newest version.
    pub version: String,
    /// The version that the proxy has acknowledged.
    pub applied: Option<String>,
    /// Why the proxy could not apply a version.
    pub refused: Option<String>,
    /// Why the newest state cannot be sent.
    pub problem: Option<String>,
    /// The objects it was made from, with their generations.
    pub sources: Vec<String>,
    /// Its content.
    pub content: String,
}

/// Where a subscription stands.
enum Standing<'a> {
    Applied,
    Waiting,
    Refused(&'a str),
}

fn standing<'a>(table: &Table, subscription: &'a Subscription) -> Standing<'a> {
    let newest = table.entries.get(subscription.entry).version;
    match &subscription.nack {
        Some((version, reason)) if *version == newest => Standing::Refused(reason),
        _ if subscription.applied == Some(newest) => Standing::Applied,
        _ => Standing::Waiting,
    }
}

pub(crate) fn view(table: &Table) -> HubView {
    let mut view = HubView::default();
    let mut problems = BTreeMap::new();
    for (index, (id, session)) in table.sessions.iter().enumerate() {
        view.proxies.push(proxy_view(table, session));
        let mut uses: HashMap<ObjectKey, AppliedBy> = HashMap::new();
        for (name, subscription) in &session.subscriptions {
            let entry = table.entries.get(subscription.entry);
            let (applied, refused) = match standing(table, subscription) {
                Standing::Applied => (true, None),
                Standing::Waiting => (false, None),
                Standing::Refused(reason) => (false, Some(format!("{name}: {reason}"))),
            };
            for source in &entry.sources {
                let so_far = uses.entry(ObjectKey::from(source)).or_insert(AppliedBy {
                    proxy: index,
                    generation: source.generation,
                    applied: true,
                    refused: None,
                });
                so_far.generation = so_far.generation.min(source.generation);
                so_far.applied &= applied;
                if so_far.refused.is_none() {
                    so_far.refused = refused.clone();
                }
            }
            if let Some(problem) = &entry.problem {
                problems.insert((name.to_string(), *id), problem);
            }
        }
        for (object, by) in uses {
            view.objects.entry(object).or_default().push(by);
        }
    }
    view.unsendable = unsendable(&problems);
    view
}

fn unsendable(problems: &BTreeMap<(String, SessionId), &String>) -> Vec<Unsendable> {
    let mut list: Vec<_> = problems
        .iter()
        .map(|((resource, _), problem)| Unsendable {
            resource: resource.clone(),
            problem: (*problem).clone(),
        })
        .collect();
    // One line a resource, however many proxies are subscribed.
    list.dedup();
    list
}

fn proxy_view(table: &Table, session: &Session) -> ProxyView {
    let mut view = ProxyView {
        namespace: session.joined.namespace.clone(),
        pod: session.joined.pod.clone(),
        service_account: session.joined.service_account.clone(),
        proxy_version: session.joined.proxy_version.clone(),
        revision: session.joined.revision,
        connected_seconds: age(session.since),
        subscriptions: BTreeMap::new(),
        applied: 0,
        waiting: 0,
        refused: 0,
        last_nack: session.last_nack.as_ref().map(|nack| NackView {
            resource: nack.name.to_string(),
            reason: nack.reason.clone(),
            seconds_ago: age(nack.at),
        }),
    };
    let mut kinds = [0; Kind::ALL.len()];
    for (name, subscription) in &session.subscriptions {
        kinds[name.kind as usize] += 1;
        match standing(table, subscription) {
            Standing::Applied => view.applied += 1,
            Standing::Waiting => view.waiting += 1,
            Standing::Refused(_) => view.refused += 1,
        }
    }
    view.subscriptions = Kind::ALL
        .iter()
        .filter(|kind| kinds[**kind as usize] > 0)
        .map(|kind| (kind.as_str().to_owned(), kinds[*kind as usize]))
        .collect();
    view
}

pub(crate) fn proxy(table: &Table, namespace: &str, pod: &str) -> Option<ProxyDetail> {
    let session = table
        .sessions
        .values()
        .find(|s| s.joined.namespace == namespace && s.joined.pod == pod)?;
    let mut resources: Vec<_> = session
        .subscriptions
        .iter()
        .map(|(name, subscription)| {
            let entry = table.entries.get(subscription.entry);
            ResourceDetail {
                resource: name.to_string(),
                version: entry.version.to_string(),
                applied: subscription.applied.map(|v| v.to_string()),
                refused: subscription
                    .nack
                    .as_ref()
                    .map(|(version, reason)| format!("{version}: {reason}")),
                problem: entry.problem.clone(),
                sources: entry
                    .sources
                    .iter()
                    .map(|s| format!("{s} (generation {})", s.generation))
                    .collect(),
                content: content(&entry.outgoing.decoded()),
            }
        })
        .collect();
    resources.sort_by(|a, b| a.resource.cmp(&b.resource));
    Some(ProxyDetail {
        proxy: proxy_view(table, session),
        resources,
    })
}

/// The content in a form to read; roots are large and opaque, so of them only the number is shown.
fn content(message: &proto::Resource) -> String {
    match &message.body {
        Some(proto::resource::Body::TrustBundle(bundle)) => {
            format!("{} roots of {}", bundle.roots.len(), bundle.trust_domain)
        }
        Some(body) => format!("{body:#?}"),
        None => String::new(),
    }
}

fn age(since: SystemTime) -> u64 {
    since.elapsed().map_or(0, |d| d.as_secs())
}

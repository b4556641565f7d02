//! What the writer knows of each object: the status it has, when it may be written again, and which Event is due. Plain
//! data and decisions; `write` does what is due and tells how that went.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crds::status::ACCEPTED;
use crds::{DestinationRule, PeerAuthentication, VirtualService};
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, Resource as _};
use tokio::time::Instant;

use super::desired::Desired;
use super::event::{Report, report};
use crate::push::ObjectKey;

/// Between two writes of one object: what happens meanwhile is written together.
const BETWEEN: Duration = Duration::from_secs(1);
/// After a failed write, doubled each time …
const BACK_OFF: Duration = Duration::from_secs(1);
/// … up to this.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// What names something that is not there may only be applied in another order, and what a proxy refuses may be replaced:
/// reported when it lasts.
const LASTING: Duration = Duration::from_secs(5);
/// Objects of one answer when all are read.
const PAGE: u32 = 500;

/// Our kinds as the API server calls them; `None` for others.
pub(super) fn api_resource(kind: &str) -> Option<ApiResource> {
    let all = [
        ApiResource::erase::<VirtualService>(&()),
        ApiResource::erase::<DestinationRule>(&()),
        ApiResource::erase::<PeerAuthentication>(&()),
    ];
    all.into_iter().find(|resource| resource.kind == kind)
}

/// How what an object says differs from what it is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// In what became of it.
    Standing,
    /// In counts and messages only.
    Counts,
}

/// What is known of one object.
#[derive(Debug)]
struct Entry {
    /// The status it has.
    observed: Option<crds::Status>,
    uid: Option<String>,
    difference: Option<Difference>,
    /// Not written before.
    next: Instant,
    failures: u32,
    /// A write is under way.
    writing: bool,
    /// What was reported last: generation and reason.
    reported: Option<(i64, String)>,
    /// What is to be reported, and when.
    due: Option<(Instant, Report)>,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            observed: None,
            uid: None,
            difference: None,
            next: now,
            failures: 0,
            writing: false,
            reported: None,
            due: None,
        }
    }

    /// An object that has this status already.
    fn of(object: DynamicObject, now: Instant) -> Self {
        // A status that cannot be read, of another version perhaps, is written anew.
        let observed: Option<crds::Status> = object
            .data
            .get("status")
            .and_then(|status| serde_json::from_value(status.clone()).ok());
        // Whoever wrote that it is not accepted reported it, too.
        let reported = observed.as_ref().and_then(|status| {
            let accepted = status.condition(ACCEPTED).filter(|c| c.status == "False")?;
            Some((status.observed_generation?, accepted.reason.clone()))
        });
        Self {
            observed,
            uid: object.metadata.uid,
            reported,
            ..Self::new(now)
        }
    }

    /// Compares what the object says with what it is to say.
    fn compare(&mut self, desired: &Desired, now: Instant) {
        self.difference = match &self.observed {
            Some(observed) if desired.is_said_by(observed) => None,
            Some(observed) if desired.differs_in_counts_only(observed) => Some(Difference::Counts),
            Some(_) | None => Some(Difference::Standing),
        };
        let report = report(desired).filter(|report| {
            let reported = self.reported.as_ref();
            reported.is_none_or(|(generation, because)| {
                (*generation, because.as_str()) != (report.generation, report.because)
            })
        });
        // The same report goes on waiting; its note may have changed.
        let waiting = self.due.take();
        self.due = report.map(|report| {
            let same = waiting.filter(|(_, before)| {
                (before.generation, before.because) == (report.generation, report.because)
            });
            let wait = if report.because == "Invalid" {
                Duration::ZERO
            } else {
                LASTING
            };
            (same.map_or(now + wait, |(at, _)| at), report)
        });
    }
}

/// What is known of every object.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<ObjectKey, Entry>,
    desired: BTreeMap<ObjectKey, Desired>,
}

impl Ledger {
    /// Reads what status the objects have.
    pub(super) async fn read(client: &Client) -> Result<Self, kube::Error> {
        let mut ledger = Self::default();
        for kind in [
            VirtualService::kind(&()),
            DestinationRule::kind(&()),
            PeerAuthentication::kind(&()),
        ] {
            let resource = api_resource(&kind).expect("is one of ours");
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let mut params = ListParams::default().limit(PAGE);
            loop {
                let page = match api.list(&params).await {
                    Ok(page) => page,
                    // The definition is not there (yet), so neither are objects.
                    Err(kube::Error::Api(status)) if status.code == 404 => break,
                    Err(error) => return Err(error),
                };
                let now = Instant::now();
                for object in page.items {
                    let key = ObjectKey {
                        kind: kind.to_string(),
                        namespace: object.metadata.namespace.clone().unwrap_or_default(),
                        name: object.metadata.name.clone().unwrap_or_default(),
                    };
                    ledger.entries.insert(key, Entry::of(object, now));
                }
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params.continue_token = Some(token),
                    None => break,
                }
            }
        }
        Ok(ledger)
    }

    /// Takes in what the objects are to say now; forgets those that are gone.
    pub(super) fn want(&mut self, desired: BTreeMap<ObjectKey, Desired>, now: Instant) {
        self.entries
            .retain(|key, entry| entry.writing || desired.contains_key(key));
        for (key, desired) in &desired {
            let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry::new(now));
            entry.compare(desired, now);
        }
        self.desired = desired;
    }

    /// The objects to write now, what became of an object first, then counts. Those are left out until `counted`: before
    /// the proxies have connected, every count would fall and rise again.
    pub(super) fn due(&self, now: Instant, counted: bool) -> VecDeque<ObjectKey> {
        let ready = |entry: &&Entry| !entry.writing && entry.next <= now;
        let mut due: Vec<_> = self
            .desired
            .keys()
            .filter_map(|key| {
                let entry = self.entries.get(key).filter(ready)?;
                let difference = entry.difference.filter(|d| counted || *d != Difference::Counts)?;
                Some((difference, entry.next, key))
            })
            .collect();
        due.sort();
        due.into_iter().map(|(_, _, key)| key.clone()).collect()
    }

    /// The write of an object begins: what it is to say, and what it says.
    pub(super) fn begin(&mut self, key: &ObjectKey) -> Option<(&Desired, Option<&crds::Status>)> {
        let desired = self.desired.get(key)?;
        let entry = self.entries.get_mut(key)?;
        entry.writing = true;
        Some((desired, entry.observed.as_ref()))
    }

    /// The object was written, and the API server gave its UID.
    pub(super) fn written(
        &mut self,
        key: &ObjectKey,
        status: crds::Status,
        uid: Option<String>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.writing = false;
        entry.failures = 0;
        entry.next = now + BETWEEN;
        entry.observed = Some(status);
        if entry.uid != uid {
            // Another object of the same name; nothing was said of it.
            entry.reported = None;
            entry.uid = uid;
        }
        if let Some(desired) = self.desired.get(key) {
            entry.compare(desired, now);
        }
    }

    /// The object could not be written.
    pub(super) fn failed(&mut self, key: &ObjectKey, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.writing = false;
        entry.next = now + (BACK_OFF * 2_u32.pow(entry.failures.min(16))).min(MAX_BACK_OFF);
        entry.failures += 1;
    }

    /// A report that is due of an object whose UID is known; it counts as made.
    pub(super) fn report(&mut self, now: Instant) -> Option<(ObjectKey, String, Report)> {
        let (key, entry) = self
            .entries
            .iter_mut()
            .find(|(_, entry)| entry.uid.is_some() && entry.due.as_ref().is_some_and(|(at, _)| *at <= now))?;
        let (_, report) = entry.due.take()?;
        entry.reported = Some((report.generation, report.because.to_owned()));
        Some((key.clone(), entry.uid.clone()?, report))
    }
}

//! Follows one kind on the API server: lists it page by page, then watches from there, and tells what changed. Started
//! by `source::kubernetes`, one task a kind.
//!
//! ```text
//!        ┌──────────── 410 Gone, an event lost, five failures in a row ───────────┐
//!        ▼                                                                        │
//! list (pages) ──all read: what was not in it is gone──▶ watch from its version ──┤
//!   ▲      │                                               ▲        │             │
//!   └──────┘ failed: wait, longer each time                └────────┘ ended, or failed: from the newest version
//! ```
//!
//! Not by `kube::runtime::watcher`, for it does not tell when a watch is established again, and waits without bound for
//! the head of an answer. Here every wait has an end, so that a connection that died in silence is noticed.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use crds::{Kind, Object, ObjectKey};
use futures_util::TryStreamExt as _;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::place::{Place, is_core, places};
use super::reduce::{reduce, slice_to_v1};
use crate::kubernetes::capabilities::EndpointSlices;
use crate::kubernetes::{Backoff, code, reason};
use crate::source::{Change, Failing, Feed, Unreadable};

/// Objects in one page of a list: what is held as text and as objects at once.
const PAGE: u32 = 250;
/// How long a page may take, to its last byte.
const PAGE_WITHIN: Duration = Duration::from_secs(60);
/// How long the server may take to begin a watch.
const WATCH_WITHIN: Duration = Duration::from_secs(30);
/// The server ends a watch after so many seconds, and it is begun again where it ended: a connection that died in silence
/// is noticed by then.
const WATCH_FOR: u32 = 120;
/// A watch without a sign for so long is dead.
const QUIET: Duration = Duration::from_secs(WATCH_FOR as u64 + 15);
/// A watch that goes on for so long, or brings something, is established.
const LASTS: Duration = Duration::from_secs(2);
/// Waits between tries.
const LEAST: Duration = Duration::from_millis(500);
/// See [`LEAST`].
const MOST: Duration = Duration::from_secs(20);
/// A kind that is not installed is looked for at least so often: it appears while somebody waits for it.
const MOST_UNKNOWN: Duration = Duration::from_secs(5);
/// After so many failures of a watch in a row everything is listed anew.
const PATIENCE: u32 = 5;

/// What a feed has to say.
#[derive(Debug)]
pub(super) enum Told {
    /// An object is new, different or gone.
    Change(Change),
    /// An object cannot be read.
    Unreadable(Unreadable),
    /// Everything there is of this kind has been told once.
    Listed(Kind),
}

/// Follows one kind.
pub(super) struct Follower {
    client: Client,
    kind: Kind,
    /// Where the kind may be served; the first at which it is.
    places: Vec<Place>,
    out: mpsc::Sender<Told>,
    health: watch::Sender<Vec<Feed>>,
    /// Hashes of what is there, by namespace and name.
    known: HashMap<(String, String), u64>,
    /// The version up to which everything is known; `None` before a list and when that is too old.
    version: Option<String>,
    backoff: Backoff,
    /// Failed tries since the server was last heard.
    failures: u32,
}

/// What came to its end as it should.
enum Done {
    Listed,
    Watched,
}

/// Why following stopped.
enum Trouble {
    /// Nobody listens any more.
    Closed,
    /// The version to go on from is too old: list again.
    Gone,
    /// An event could not be understood, so it may have been any: list again.
    Lost(String),
    /// The server says no, or nothing.
    Kube(kube::Error),
    /// It did not answer in time.
    Late(&'static str),
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    resource_version: String,
    r#continue: String,
}

impl Follower {
    pub(super) fn new(
        client: Client,
        kind: Kind,
        slices: EndpointSlices,
        out: mpsc::Sender<Told>,
        health: watch::Sender<Vec<Feed>>,
    ) -> Self {
        Self {
            client,
            kind,
            places: places(kind, slices),
            out,
            health,
            known: HashMap::new(),
            version: None,
            backoff: Backoff::new(LEAST, MOST),
            failures: 0,
        }
    }

    /// Follows until nobody listens.
    pub(super) async fn run(mut self) {
        let out = self.out.clone();
        tokio::select! {
            () = self.follow() => {}
            () = out.closed() => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            let start = Instant::now();
            let result = match self.version.clone() {
                None => self.list().await,
                Some(version) => self.watch(&version).await,
            };
            let trouble = match result {
                Ok(Done::Listed) => continue,
                Ok(Done::Watched) => {
                    // One that ends at once, again and again, is not to become a busy loop.
                    if start.elapsed() < LASTS {
                        sleep(LEAST).await;
                    }
                    continue;
                }
                Err(Trouble::Closed) => return,
                Err(trouble) => trouble,
            };
            let pause = self.deal_with(trouble);
            sleep(pause).await;
        }
    }

    /// Decides what follows from a failure, says it once, and for how long to wait.
    fn deal_with(&mut self, trouble: Trouble) -> Duration {
        self.failures += 1;
        if self.failures.is_multiple_of(PATIENCE) {
            self.version = None;
        }
        let pause = self.backoff.next();
        let (kind, problem) = (self.kind, self.describe(&trouble));
        match trouble {
            // It happens to every watch that was away for long; only when it goes on something is wrong.
            Trouble::Gone if self.failures == 1 => {
                tracing::debug!(%kind, "kubernetes: the watch was away for too long; listing again");
                self.version = None;
                return pause;
            }
            Trouble::Gone | Trouble::Lost(_) => self.version = None,
            Trouble::Kube(_) | Trouble::Late(_) | Trouble::Closed => {}
        }
        let mut first = false;
        self.report(|feed| {
            first = feed
                .failing
                .as_ref()
                .is_none_or(|failing| failing.problem != problem);
            let since = feed
                .failing
                .as_ref()
                .map_or_else(Instant::now, |failing| failing.since);
            feed.failing = Some(Failing {
                since,
                problem: problem.clone(),
            });
        });
        if first {
            tracing::warn!(%kind, problem, "kubernetes: not followed; what is known stays, trying again");
        }
        if problem.ends_with(NOT_INSTALLED) {
            return pause.min(MOST_UNKNOWN);
        }
        pause
    }

    fn describe(&mut self, trouble: &Trouble) -> String {
        let kind = self.kind;
        match trouble {
            Trouble::Closed => String::new(),
            Trouble::Gone => {
                "410 Gone: the server does not keep versions for long enough to follow".to_owned()
            }
            Trouble::Lost(problem) => problem.clone(),
            Trouble::Late(what) => format!("the API server did not {what} in time"),
            Trouble::Kube(error) => match code(error) {
                Some(404) if !is_core(kind) => {
                    // A server that was upgraded may have dropped the older version.
                    self.places.rotate_left(1);
                    self.version = None;
                    let url = self.places[0].url;
                    let remedy = if kind == Kind::EndpointSlice {
                        ""
                    } else {
                        NOT_INSTALLED
                    };
                    format!("the API server has no {kind}s at {url}{remedy}")
                }
                Some(403) => format!(
                    "{}: let the operator's service account get, list and watch {kind}s in all namespaces (the \
                     ClusterRole of the chart does)",
                    reason(error)
                ),
                _ => reason(error),
            },
        }
    }

    /// Reads everything there is, page by page.
    async fn list(&mut self) -> Result<Done, Trouble> {
        let mut seen = HashSet::with_capacity(self.known.len());
        let mut next: Option<String> = None;
        let version = loop {
            let params = ListParams {
                limit: Some(PAGE),
                continue_token: next.take(),
                ..ListParams::default()
            };
            let page = self.page(&params).await?;
            for object in page.items.into_iter().flatten() {
                seen.extend(self.set(object).await?);
            }
            self.heard();
            if page.metadata.r#continue.is_empty() {
                break page.metadata.resource_version;
            }
            next = Some(page.metadata.r#continue);
        };
        if version.is_empty() {
            return Err(Trouble::Lost("the list has no version to watch from".to_owned()));
        }
        let gone: Vec<_> = self
            .known
            .keys()
            .filter(|name| !seen.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.remove(name).await?;
        }
        self.version = Some(version);
        self.tell(Told::Listed(self.kind)).await?;
        self.report(|feed| feed.listed = true);
        Ok(Done::Listed)
    }

    async fn page(&self, params: &ListParams) -> Result<Page, Trouble> {
        let request = Request::new(self.places[0].url)
            .list(params)
            .map_err(|error| Trouble::Kube(kube::Error::BuildRequest(error)))?;
        let text = timeout(PAGE_WITHIN, self.client.request_text(request)).await;
        let text = text.map_err(|_| Trouble::Late("finish a page of the list"))?;
        match text {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| Trouble::Lost(format!("the list cannot be read as JSON: {error}"))),
            // A page that took so long that its version is gone: from the start.
            Err(error) if code(&error) == Some(410) => Err(Trouble::Gone),
            Err(error) => Err(Trouble::Kube(error)),
        }
    }

    /// Follows from a version until the watch ends; what is new by then is in `self.version`.
    async fn watch(&mut self, version: &str) -> Result<Done, Trouble> {
        let params = WatchParams::default().timeout(WATCH_FOR);
        let request = Request::new(self.places[0].url)
            .watch(&params, version)
            .map_err(|error| Trouble::Kube(kube::Error::BuildRequest(error)))?;
        let started = timeout(WATCH_WITHIN, self.client.request_events::<Value>(request)).await;
        let events = match started.map_err(|_| Trouble::Late("begin a watch"))? {
            Ok(events) => events,
            Err(error) if code(&error) == Some(410) => return Err(Trouble::Gone),
            Err(error) => return Err(Trouble::Kube(error)),
        };
        let mut events = std::pin::pin!(events);
        // A server may take a watch and break it off at once, again and again: it counts when it lasts.
        let mut lasts = false;
        loop {
            let wait = if lasts { QUIET } else { LASTS };
            let Ok(event) = timeout(wait, events.try_next()).await else {
                if std::mem::replace(&mut lasts, true) {
                    return Err(Trouble::Late("say anything on a watch"));
                }
                self.followed();
                continue;
            };
            match event {
                Ok(Some(event)) => self.event(event).await?,
                Ok(None) => return Ok(Done::Watched),
                Err(kube::Error::SerdeError(error)) => {
                    return Err(Trouble::Lost(format!("an event cannot be read as JSON: {error}")));
                }
                Err(error) if code(&error) == Some(410) => return Err(Trouble::Gone),
                Err(error) => return Err(Trouble::Kube(error)),
            }
        }
    }

    async fn event(&mut self, event: WatchEvent<Value>) -> Result<(), Trouble> {
        let object = match event {
            WatchEvent::Error(status) if status.code == 410 => return Err(Trouble::Gone),
            WatchEvent::Error(status) => return Err(Trouble::Kube(kube::Error::Api(status))),
            WatchEvent::Bookmark(bookmark) => {
                self.version = Some(bookmark.metadata.resource_version);
                self.followed();
                return Ok(());
            }
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = version(&object)?;
                self.set(object).await?;
                version
            }
            WatchEvent::Deleted(object) => {
                let version = version(&object)?;
                if let Some(name) = name(&object) {
                    self.remove(name).await?;
                }
                version
            }
        };
        self.version = Some(object);
        self.followed();
        Ok(())
    }

    /// Tells of an object if it is new or says something new; gives its name.
    async fn set(&mut self, mut value: Value) -> Result<Option<(String, String)>, Trouble> {
        let Some(name) = name(&value) else {
            tracing::debug!(kind = %self.kind, "kubernetes: an object without a name is left alone");
            return Ok(None);
        };
        if self.places[0].old_slices {
            slice_to_v1(&mut value);
        }
        reduce(self.kind, &mut value);
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&value);
        if self.known.get(&name) != Some(&hash) {
            let told = read(self.kind, &name, value);
            // Together with telling: a list that breaks off is no reason to tell it again, or not to tell what follows.
            self.known.insert(name.clone(), hash);
            self.tell(told).await?;
        }
        Ok(Some(name))
    }

    async fn remove(&mut self, at: (String, String)) -> Result<(), Trouble> {
        if self.known.remove(&at).is_none() {
            return Ok(());
        }
        let (kind, (namespace, name)) = (self.kind, at);
        let key = ObjectKey {
            kind,
            namespace,
            name,
        };
        self.tell(Told::Change(Change::Remove(key))).await
    }

    async fn tell(&self, told: Told) -> Result<(), Trouble> {
        self.out.send(told).await.map_err(|_| Trouble::Closed)
    }

    fn heard(&self) {
        let now = Instant::now();
        let kind = self.kind;
        self.health.send_if_modified(|feeds| {
            if let Some(feed) = feeds.iter_mut().find(|feed| feed.kind == kind) {
                feed.heard = Some(now);
            }
            // Nobody waits for this.
            false
        });
    }

    /// The kind is followed: failures are over.
    fn followed(&mut self) {
        self.failures = 0;
        self.backoff.reset();
        self.heard();
        let failing = |feeds: &Vec<Feed>| feeds.iter().any(|f| f.kind == self.kind && f.failing.is_some());
        if !failing(&self.health.borrow()) {
            return;
        }
        let mut was = None;
        self.report(|feed| was = feed.failing.take());
        if let Some(failing) = was {
            let seconds = failing.since.elapsed().as_secs();
            tracing::info!(kind = %self.kind, seconds, "kubernetes: followed again");
        }
    }

    fn report(&self, change: impl FnOnce(&mut Feed)) {
        let kind = self.kind;
        self.health.send_modify(|feeds| {
            if let Some(feed) = feeds.iter_mut().find(|feed| feed.kind == kind) {
                change(feed);
            }
        });
    }
}

const NOT_INSTALLED: &str =
    ": install the custom resources (chart hauberk-crds, or `kubectl apply -f crds/yaml`)";

fn read(kind: Kind, (namespace, name): &(String, String), value: Value) -> Told {
    let metadata = &value["metadata"];
    let generation = metadata["generation"].as_i64().unwrap_or(0);
    let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
    let read: Result<Object, _> = crds::parse::served(kind, value);
    match read {
        Ok(object) => Told::Change(Change::Set(object)),
        Err(error) => Told::Unreadable(Unreadable {
            key: ObjectKey {
                kind,
                namespace: namespace.clone(),
                name: name.clone(),
            },
            uid,
            generation,
            field: error.field,
            message: error.message,
        }),
    }
}

fn name(object: &Value) -> Option<(String, String)> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    Some((namespace.to_owned(), metadata["name"].as_str()?.to_owned()))
}

/// The version of the collection at which this object was written.
fn version(object: &Value) -> Result<String, Trouble> {
    let version = object["metadata"]["resourceVersion"].as_str();
    version
        .map(str::to_owned)
        .ok_or_else(|| Trouble::Lost("an event has no version to go on from".to_owned()))
}

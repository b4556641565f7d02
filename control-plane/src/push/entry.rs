//! Compiled resources, shared by the proxies that get the same: found by name and by the aspects of a proxy that decide
//! about it, or by what they depend on. Owned by `table`; knows nothing of sessions but their numbers.
//!
//! Most names are the same for every proxy, and have one entry however large the mesh is. Which aspects decide is told by
//! the compiler, each time; when that changes with the world, the name is *split*: every subscriber finds its entry anew.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use api::{Body, Kind, Resource, ResourceName, TrustBundle, Version, limits, names};
use tokio::time::Instant;

use super::Compiler;
use super::message::Outgoing;
use super::table::SessionId;
use crate::compile::{Aspects, Compiled};
use crate::metrics::PushMetrics;
use crate::state::SourceObject;
use crate::state::{Dependency, Proxy, World};

/// Room for the message around one resource.
const ENVELOPE: usize = 1024;

/// Number of an entry.
pub(crate) type EntryId = u64;

/// One compiled resource.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<ResourceName>,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) version: Version,
    pub(crate) sources: Vec<SourceObject>,
    /// Why the newest state could not be compiled into something to send; the version stays the last good one.
    pub(crate) problem: Option<String>,
    pub(crate) subscribers: HashSet<SessionId>,
    audience: Arc<Audience>,
    depends: Vec<Dependency>,
}

/// Who gets an entry: the proxies that agree with `proxy` in these aspects, and `proxy` has no others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Audience {
    aspects: Aspects,
    proxy: Proxy,
}

impl Audience {
    fn of(aspects: Aspects, proxy: &Proxy) -> Self {
        Self {
            aspects,
            proxy: aspects.of(proxy),
        }
    }
}

/// The entries of one name.
#[derive(Debug, Default)]
struct Named {
    /// What decides about it, as the compiler said last.
    aspects: Aspects,
    entries: HashMap<Arc<Audience>, EntryId>,
}

/// What became of an entry that was compiled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// The content is as it was, or could not be made.
    Same,
    /// It has a new version.
    Changed,
    /// Other aspects decide now: each subscriber is to be attached anew.
    Split,
}

/// All entries, with their indexes.
#[derive(Debug)]
pub(crate) struct Entries {
    compiler: Compiler,
    metrics: PushMetrics,
    all: HashMap<EntryId, Entry>,
    by_name: HashMap<Arc<ResourceName>, Named>,
    by_dependency: HashMap<Dependency, HashSet<EntryId>>,
    bundles: HashSet<EntryId>,
    failed: HashSet<EntryId>,
    next: EntryId,
}

/// What entries are compiled from.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) world: Arc<World>,
    pub(crate) bundle: TrustBundle,
}

impl Entries {
    pub(crate) fn new(compiler: Compiler, metrics: PushMetrics) -> Self {
        Self {
            compiler,
            metrics,
            all: HashMap::new(),
            by_name: HashMap::new(),
            by_dependency: HashMap::new(),
            bundles: HashSet::new(),
            failed: HashSet::new(),
            next: 0,
        }
    }

    pub(crate) fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    pub(crate) fn get(&self, id: EntryId) -> &Entry {
        &self.all[&id]
    }

    /// The entry of a name for a proxy, compiled where there is none yet, with one more subscriber.
    pub(crate) fn attach(
        &mut self,
        inputs: &Inputs,
        name: &ResourceName,
        proxy: &Proxy,
        session: SessionId,
    ) -> EntryId {
        if let Some(named) = self.by_name.get(name) {
            let audience = Audience::of(named.aspects, proxy);
            if let Some(id) = named.entries.get(&audience) {
                return self.join(*id, session);
            }
        }
        let shared = self.by_name.get_key_value(name).map(|(name, _)| name.clone());
        let name = shared.unwrap_or_else(|| Arc::new(name.clone()));
        let (fresh, problem) = match self.compile(inputs, proxy, &name) {
            Ok(fresh) => (fresh, None),
            Err(problem) => (Fresh::absent(&name, &problem), Some(problem)),
        };
        let known = self.by_name.get(&name).map(|named| named.aspects);
        let aspects = match &problem {
            None => fresh.aspects,
            // Nothing is known of what decides: nobody is to share it who need not.
            Some(_) => known.unwrap_or(Aspects::ALL),
        };
        let named = self.by_name.entry(name.clone()).or_default();
        named.aspects = aspects;
        let audience = Audience::of(aspects, proxy);
        if let Some(id) = named.entries.get(&audience) {
            // It was known under these aspects before they changed, and is compiled again with the change that is pending.
            let id = *id;
            return self.join(id, session);
        }
        let audience = Arc::new(audience);
        let id = self.next;
        self.next += 1;
        named.entries.insert(audience.clone(), id);
        if problem.is_some() {
            self.failed.insert(id);
        }
        self.index(id, &fresh.depends);
        if name.kind == Kind::TrustBundle {
            self.bundles.insert(id);
        }
        let entry = Entry {
            name,
            outgoing: fresh.outgoing,
            version: fresh.version,
            sources: fresh.sources,
            problem,
            subscribers: HashSet::from([session]),
            audience,
            depends: fresh.depends,
        };
        self.all.insert(id, entry);
        self.metrics.entries.inc();
        id
    }

    fn join(&mut self, id: EntryId, session: SessionId) -> EntryId {
        let entry = self
            .all
            .get_mut(&id)
            .expect("indexes name only entries that are there");
        entry.subscribers.insert(session);
        id
    }

    /// Takes a subscriber away; the last one takes the entry along.
    pub(crate) fn detach(&mut self, id: EntryId, session: SessionId) {
        let entry = self
            .all
            .get_mut(&id)
            .expect("subscriptions name only entries that are there");
        entry.subscribers.remove(&session);
        if !entry.subscribers.is_empty() {
            return;
        }
        let entry = self.all.remove(&id).expect("it was there a line ago");
        self.unindex(id, &entry.depends);
        self.bundles.remove(&id);
        self.failed.remove(&id);
        if let Some(named) = self.by_name.get_mut(&entry.name) {
            named.entries.remove(&entry.audience);
            if named.entries.is_empty() {
                self.by_name.remove(&entry.name);
            }
        }
        self.metrics.entries.dec();
    }

    /// The entries made from what was touched, and those that could not be made before.
    pub(crate) fn touched<'a>(&self, touched: impl IntoIterator<Item = &'a Dependency>) -> BTreeSet<EntryId> {
        let ids = touched.into_iter().filter_map(|d| self.by_dependency.get(d));
        ids.flatten().chain(&self.failed).copied().collect()
    }

    /// The entries made from the trust bundle.
    pub(crate) fn of_bundle(&self) -> BTreeSet<EntryId> {
        self.bundles.iter().copied().collect()
    }

    /// Compiles an entry again, and says what became of it.
    pub(crate) fn renew(&mut self, inputs: &Inputs, id: EntryId) -> Renewed {
        let Some(entry) = self.all.get(&id) else {
            // Its subscribers have found another when the name was split.
            return Renewed::Same;
        };
        let named = self.by_name.get(&entry.name);
        if named.is_some_and(|named| named.aspects != entry.audience.aspects) {
            return Renewed::Split;
        }
        let fresh = match self.compile(inputs, &entry.audience.proxy, &entry.name) {
            Ok(fresh) => fresh,
            Err(problem) => {
                // What proxies have goes on working; the next change tries again.
                self.failed.insert(id);
                self.all.get_mut(&id).expect("looked at above").problem = Some(problem);
                return Renewed::Same;
            }
        };
        self.failed.remove(&id);
        if fresh.aspects != entry.audience.aspects {
            if let Some(named) = self.by_name.get_mut(&entry.name) {
                named.aspects = fresh.aspects;
            }
            return Renewed::Split;
        }
        if entry.depends != fresh.depends {
            let old = entry.depends.clone();
            self.unindex(id, &old);
            self.index(id, &fresh.depends);
        }
        let entry = self.all.get_mut(&id).expect("looked at above");
        let changed = entry.version != fresh.version;
        if changed {
            entry.outgoing = fresh.outgoing;
            entry.version = fresh.version;
        }
        entry.depends = fresh.depends;
        // The sources' generations may have moved although the content has not.
        entry.sources = fresh.sources;
        entry.problem = None;
        if changed { Renewed::Changed } else { Renewed::Same }
    }

    fn compile(&self, inputs: &Inputs, proxy: &Proxy, name: &Arc<ResourceName>) -> Result<Fresh, String> {
        if name.kind == Kind::TrustBundle {
            return Ok(Fresh::bundle(inputs, name));
        }
        let start = Instant::now();
        // One object that the compiler cannot bear must not take all proxies' configuration with it.
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            (self.compiler.compile)(&inputs.world, proxy, name)
        }));
        self.metrics
            .compile_seconds
            .of(name.kind)
            .observe(start.elapsed().as_secs_f64());
        let Ok(Compiled {
            resource,
            aspects,
            depends,
            sources,
        }) = compiled
        else {
            tracing::error!(%name, namespace = %proxy.namespace, "an internal error stopped the compilation");
            return Err(
                "an internal error stopped its compilation; the operator's log has the details".to_owned(),
            );
        };
        let version = resource.version;
        let outgoing = self.equal(name, version);
        let outgoing = outgoing.unwrap_or_else(|| Arc::new(Outgoing::new(name.clone(), &resource.into())));
        if outgoing.encoded.len() > limits::MAX_MESSAGE_SIZE - ENVELOPE {
            return Err(format!(
                "it has {} bytes encoded, more than the {} that one message can carry: split the objects it is made of",
                outgoing.encoded.len(),
                limits::MAX_MESSAGE_SIZE - ENVELOPE
            ));
        }
        Ok(Fresh {
            outgoing,
            version,
            aspects,
            depends,
            sources,
        })
    }

    /// The same message, made for other proxies before. One look is enough: the entries of a name are renewed together, so
    /// an equal one is mostly the first met.
    fn equal(&self, name: &ResourceName, version: Version) -> Option<Arc<Outgoing>> {
        let sibling = self.by_name.get(name)?.entries.values().next()?;
        let sibling = self.all.get(sibling)?;
        (sibling.version == version).then(|| sibling.outgoing.clone())
    }

    fn index(&mut self, id: EntryId, depends: &[Dependency]) {
        for dependency in depends {
            self.by_dependency
                .entry(dependency.clone())
                .or_default()
                .insert(id);
        }
    }

    fn unindex(&mut self, id: EntryId, depends: &[Dependency]) {
        for dependency in depends {
            if let Some(ids) = self.by_dependency.get_mut(dependency) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_dependency.remove(dependency);
                }
            }
        }
    }
}

/// A result of compiling, ready to be sent.
#[derive(Debug)]
struct Fresh {
    outgoing: Arc<Outgoing>,
    version: Version,
    aspects: Aspects,
    depends: Vec<Dependency>,
    sources: Vec<SourceObject>,
}

impl Fresh {
    fn of(name: &Arc<ResourceName>, body: Body) -> Self {
        let resource = Resource::new(ResourceName::clone(name), body);
        Self {
            version: resource.version,
            outgoing: Arc::new(Outgoing::new(name.clone(), &resource.into())),
            aspects: Aspects::NONE,
            depends: Vec::new(),
            sources: Vec::new(),
        }
    }

    fn absent(name: &Arc<ResourceName>, reason: &str) -> Self {
        Self::of(name, Body::Absent(reason.to_owned()))
    }

    fn bundle(inputs: &Inputs, name: &Arc<ResourceName>) -> Self {
        if name.name == names::TRUST_BUNDLE_MESH {
            Self::of(name, Body::TrustBundle(inputs.bundle.clone()))
        } else {
            Self::absent(
                name,
                &format!("the one trust bundle is named {:?}", names::TRUST_BUNDLE_MESH),
            )
        }
    }
}

//! Compiled resources, shared by the proxies that get the same: found by name and class, or by what they depend on.
//! Owned by `table`; knows nothing of sessions but their numbers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use api::{Body, Kind, Resource, ResourceName, TrustBundle, Version, limits, names};
use tokio::time::Instant;

use super::Compiler;
use super::outbox::Outgoing;
use super::table::SessionId;
use crate::compile::Compiled;
use crate::metrics::PushMetrics;
use crate::state::SourceObject;
use crate::state::{Dependency, Proxy, World};

/// Room for the message around one resource.
const ENVELOPE: usize = 1024;

/// Proxies of one class get the same under one name: those whose `Proxy`, as the compiler is given it, is equal.
pub(crate) type Class = Arc<str>;

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
    class: Class,
    proxy: Arc<Proxy>,
    depends: Vec<Dependency>,
}

/// All entries, with their indexes.
#[derive(Debug)]
pub(crate) struct Entries {
    compiler: Compiler,
    metrics: PushMetrics,
    all: HashMap<EntryId, Entry>,
    by_name: HashMap<Arc<ResourceName>, HashMap<Class, EntryId>>,
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

    /// The entry of a name for a class, compiled where there is none yet, with one more subscriber.
    pub(crate) fn attach(
        &mut self,
        inputs: &Inputs,
        name: &ResourceName,
        class: &Class,
        proxy: &Arc<Proxy>,
        session: SessionId,
    ) -> EntryId {
        if let Some(id) = self.by_name.get(name).and_then(|classes| classes.get(class)) {
            let entry = self
                .all
                .get_mut(id)
                .expect("indexes name only entries that are there");
            entry.subscribers.insert(session);
            return *id;
        }
        let shared = self.by_name.get_key_value(name).map(|(name, _)| name.clone());
        let name = shared.unwrap_or_else(|| Arc::new(name.clone()));
        let id = self.next;
        self.next += 1;
        let (fresh, problem) = match self.compile(inputs, proxy, &name) {
            Ok(fresh) => (fresh, None),
            Err(problem) => {
                self.failed.insert(id);
                (Fresh::absent(&name, &problem), Some(problem))
            }
        };
        self.index(id, &fresh.depends);
        if name.kind == Kind::TrustBundle {
            self.bundles.insert(id);
        }
        self.by_name
            .entry(name.clone())
            .or_default()
            .insert(class.clone(), id);
        let entry = Entry {
            name,
            outgoing: fresh.outgoing,
            version: fresh.version,
            sources: fresh.sources,
            problem,
            subscribers: HashSet::from([session]),
            class: class.clone(),
            proxy: proxy.clone(),
            depends: fresh.depends,
        };
        self.all.insert(id, entry);
        self.metrics.entries.inc();
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
        if let Some(classes) = self.by_name.get_mut(&entry.name) {
            classes.remove(&entry.class);
            if classes.is_empty() {
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

    /// Compiles an entry again; tells whether it has a new version.
    pub(crate) fn renew(&mut self, inputs: &Inputs, id: EntryId) -> bool {
        let entry = &self.all[&id];
        let fresh = self.compile(inputs, &entry.proxy, &entry.name);
        let fresh = match fresh {
            Ok(fresh) => fresh,
            Err(problem) => {
                // What proxies have goes on working; the next change tries again.
                self.failed.insert(id);
                self.all.get_mut(&id).expect("looked at above").problem = Some(problem);
                return false;
            }
        };
        self.failed.remove(&id);
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
        changed
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
        let outgoing = outgoing.unwrap_or_else(|| Arc::new(Outgoing::new(name.clone(), resource.into())));
        if outgoing.bytes > limits::MAX_MESSAGE_SIZE - ENVELOPE {
            return Err(format!(
                "it has {} bytes encoded, more than the {} that one message can carry: split the objects it is made of",
                outgoing.bytes,
                limits::MAX_MESSAGE_SIZE - ENVELOPE
            ));
        }
        Ok(Fresh {
            outgoing,
            version,
            depends,
            sources,
        })
    }

    /// The same message, made for another class before. One look is enough: classes are renewed together, so an equal
    /// one is mostly the first met.
    fn equal(&self, name: &ResourceName, version: Version) -> Option<Arc<Outgoing>> {
        let sibling = self.by_name.get(name)?.values().next()?;
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
    depends: Vec<Dependency>,
    sources: Vec<SourceObject>,
}

impl Fresh {
    fn of(name: &Arc<ResourceName>, body: Body) -> Self {
        let resource = Resource::new(ResourceName::clone(name), body);
        Self {
            version: resource.version,
            outgoing: Arc::new(Outgoing::new(name.clone(), resource.into())),
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

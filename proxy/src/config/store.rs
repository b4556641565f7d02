//! The store: every resource received, what it waits for, and which of it is active. The client feeds it and publishes
//! the snapshots it makes. Pure: no I/O, no task; time is given.
//!
//! ```text
//!   wanted ──▶ requested ──received──▶ parked ──all it names is active──▶ active
//!                  │                      ▲                                  │
//!                  └──invalid──▶ rejected └────────newer version─────────────┘   (the older stays active until then)
//! ```
//!
//! - A resource names others: Destination → Route → Clusters → Endpoints; Destination → Cluster for one pod. What is
//!   named by something received or active is subscribed, what nothing names any more is unsubscribed.
//! - A version becomes active, and is **ACKed**, when everything it names is active. Until then the version before it
//!   serves. A version replaced or unsubscribed while it waits is neither ACKed nor NACKed. A version that arrives again
//!   is ACKed again once it is active.
//! - An invalid version is **NACKed** with the field and the reason; the version before it serves. With none before it,
//!   a destination that leads to it is refused with that reason, rather than left to time out.
//! - *Absent* counts as arrived. A destination without route is refused with the reason, a cluster without content or
//!   endpoints has none and says why. An absence waits while something that names the resource has a newer version
//!   parked that no longer does, so that traffic moves before its old target goes. A proxy cannot do without its Inbound
//!   and its TrustBundle: their absence is NACKed and the last one stays.
//! - What was not asked for, or no longer is, is ignored.

mod build;
mod content;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::{Kind, Resource, ResourceName, Version, limits, names, proto};
use tokio::time::Instant;

use crate::config::snapshot::{Snapshot, canonical};
use crate::config::usage::Usage;

use build::Built;
use content::{Content, Held, Rejected, Versioned, rank};

pub(crate) use view::ResourceView;

/// Everything the proxy knows of the configuration.
#[derive(Debug)]
pub(crate) struct Store {
    trust_domain: String,
    held: BTreeMap<ResourceName, Held>,
    usage: HashMap<SocketAddr, Arc<Usage>>,
    /// Given up, but a connection may have taken hold of it in that moment; looked at once more.
    leaving: Vec<(SocketAddr, Arc<Usage>)>,
    built: Built,
}

/// What follows from a change: messages for the operator, and the new snapshot if requests see a difference.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) acks: Vec<(ResourceName, Version)>,
    pub(crate) nacks: Vec<Nack>,
    /// To be sent before `subscribe`: a name in both starts anew.
    pub(crate) unsubscribe: Vec<ResourceName>,
    pub(crate) subscribe: Vec<ResourceName>,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) trust: Option<Arc<api::TrustBundle>>,
}

/// A resource that is not taken. The name is as it came, for it may be what is wrong.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Nack {
    pub(crate) name: Option<proto::ResourceName>,
    pub(crate) version: u64,
    pub(crate) reason: String,
}

impl Outcome {
    /// Adds what follows from a later change.
    pub(crate) fn merge(&mut self, later: Self) {
        let Self {
            acks,
            nacks,
            unsubscribe,
            subscribe,
            snapshot,
            trust,
        } = later;
        self.acks.extend(acks);
        self.nacks.extend(nacks);
        self.unsubscribe.extend(unsubscribe);
        self.subscribe.extend(subscribe);
        self.snapshot = snapshot.or(self.snapshot.take());
        self.trust = trust.or(self.trust.take());
    }
}

impl Store {
    /// A store that wants what every proxy needs.
    pub(crate) fn new(trust_domain: &str) -> Self {
        let root = || Held {
            root: true,
            ..Held::default()
        };
        Self {
            trust_domain: trust_domain.to_owned(),
            held: BTreeMap::from([
                (ResourceName::new(Kind::Inbound, names::INBOUND_SELF), root()),
                (
                    ResourceName::new(Kind::TrustBundle, names::TRUST_BUNDLE_MESH),
                    root(),
                ),
            ]),
            usage: HashMap::new(),
            leaving: Vec::new(),
            built: Built::default(),
        }
    }

    /// Every subscription with the version held, for a new stream.
    pub(crate) fn subscriptions(&self) -> Vec<(ResourceName, Option<Version>)> {
        self.held
            .iter()
            .map(|(name, held)| (name.clone(), held.known()))
            .collect()
    }

    /// Takes what the operator sent.
    pub(crate) fn apply(&mut self, update: proto::Update) -> Outcome {
        let mut change = Change::default();
        let proto::Update { resources } = update;
        for resource in resources {
            self.receive(resource, &mut change);
        }
        self.settle(change)
    }

    /// Wants to know what stands behind an address. When too many are wanted, the one idle for longest makes room; with
    /// none idle the new one is not taken, which is told with `false`.
    pub(crate) fn want(&mut self, address: SocketAddr, now: Instant) -> (Outcome, bool) {
        let address = canonical(address);
        if self.usage.contains_key(&address) {
            return (Outcome::default(), true);
        }
        let mut change = Change::default();
        if self.usage.len() >= limits::MAX_SUBSCRIPTIONS && !self.make_room(now, &mut change) {
            return (Outcome::default(), false);
        }
        let left = self.leaving.iter().position(|(a, _)| *a == address);
        let usage = left.map_or_else(|| Usage::new(now), |i| self.leaving.swap_remove(i).1);
        self.take(address, usage, &mut change);
        (self.settle(change), true)
    }

    /// Gives up the destinations that no connection has held for `idle`. One in use is never given up: a connection that
    /// took hold of it while it was being given up is seen at the next call, and the destination is wanted again.
    pub(crate) fn sweep(&mut self, now: Instant, idle: Duration) -> Outcome {
        let mut change = Change::default();
        for (address, usage) in std::mem::take(&mut self.leaving) {
            if usage.open() > 0 && !self.usage.contains_key(&address) {
                self.take(address, usage, &mut change);
            }
        }
        let unused = |usage: &Usage| usage.idle(now).is_some_and(|t| t >= idle);
        let given_up: Vec<_> = self
            .usage
            .iter()
            .filter(|(_, usage)| unused(usage))
            .map(|(address, _)| *address)
            .collect();
        for address in given_up {
            self.give_up(address, &mut change);
        }
        self.settle(change)
    }

    fn make_room(&mut self, now: Instant, change: &mut Change) -> bool {
        let oldest = self
            .usage
            .iter()
            .filter_map(|(address, usage)| Some((usage.idle(now)?, *address)))
            .max();
        match oldest {
            Some((_, address)) => {
                self.give_up(address, change);
                true
            }
            None => false,
        }
    }

    fn take(&mut self, address: SocketAddr, usage: Arc<Usage>, change: &mut Change) {
        self.usage.insert(address, usage);
        let name = ResourceName::new(Kind::Destination, address.to_string());
        let held = self.held.entry(name.clone()).or_default();
        held.root = true;
        change.subscribe.insert(name);
    }

    fn give_up(&mut self, address: SocketAddr, change: &mut Change) {
        let Some(usage) = self.usage.remove(&address) else {
            return;
        };
        self.leaving.push((address, usage));
        let name = ResourceName::new(Kind::Destination, address.to_string());
        if let Some(held) = self.held.get_mut(&name) {
            held.root = false;
        }
        change.loose.insert(name);
    }

    /// Parses one resource and parks it; whether it becomes active is settled once all of the update is here.
    fn receive(&mut self, pb: proto::Resource, change: &mut Change) {
        let (wire_name, wire_version) = (pb.name.clone(), pb.version);
        let parsed = match wire_name.clone().map(ResourceName::try_from) {
            Some(Ok(name)) if !self.held.contains_key(&name) => {
                tracing::debug!(%name, "ignored: not subscribed, or no longer");
                return;
            }
            _ => Resource::try_from(pb),
        };
        let checked = parsed.map_err(|e| e.to_string()).and_then(|r| self.check(r));
        match checked {
            Ok(Resource { name, version, body }) => {
                let held = self.held.entry(name.clone()).or_default();
                held.rejected = None;
                if held.active.as_ref().is_some_and(|a| a.version == version) {
                    held.parked = None;
                    change.outcome.acks.push((name.clone(), version));
                } else {
                    let content = Content::from(body);
                    held.parked = Some(Versioned { version, content });
                }
                self.relink(&name, change);
                change.touch(name);
            }
            Err(reason) => {
                if let Some(Ok(name)) = wire_name.clone().map(ResourceName::try_from) {
                    let held = self.held.entry(name.clone()).or_default();
                    held.rejected = Some(Rejected {
                        version: wire_version,
                        reason: reason.as_str().into(),
                    });
                    change.touch(name);
                }
                change.outcome.nacks.push(Nack {
                    name: wire_name,
                    version: wire_version,
                    reason,
                });
            }
        }
    }

    /// What the message alone cannot show to be wrong.
    fn check(&self, resource: Resource) -> Result<Resource, String> {
        match (&resource.body, resource.name.kind) {
            (api::Body::Absent(reason), Kind::Inbound | Kind::TrustBundle) => Err(format!(
                "absent: a proxy cannot do without it, the last one stays ({reason})"
            )),
            (api::Body::TrustBundle(bundle), _) => {
                if bundle.trust_domain != self.trust_domain {
                    return Err(format!(
                        "trust_bundle.trust_domain: {:?} is not {:?}, the trust domain of this proxy",
                        bundle.trust_domain, self.trust_domain
                    ));
                }
                crate::identity::check_roots(bundle).map_err(|e| e.under("trust_bundle").to_string())?;
                Ok(resource)
            }
            _ => Ok(resource),
        }
    }

    /// Brings the links from `name` to what it names up to date.
    fn relink(&mut self, name: &ResourceName, change: &mut Change) {
        let Some(held) = self.held.get_mut(name) else {
            return;
        };
        let named = held.named();
        let before = std::mem::replace(&mut held.needs, named.clone());
        for gone in before.difference(&named) {
            if let Some(other) = self.held.get_mut(gone) {
                other.dependents.remove(name);
                change.loose.insert(gone.clone());
                // Its absence may have waited for this.
                change.touch(gone.clone());
            }
        }
        for added in named.difference(&before) {
            if !self.held.contains_key(added) {
                change.subscribe.insert(added.clone());
            }
            let other = self.held.entry(added.clone()).or_default();
            other.dependents.insert(name.clone());
        }
    }

    /// Makes active what can be, from what is named up to what names it, builds what requests see of it, and lets go of
    /// what nothing names any more.
    fn settle(&mut self, mut change: Change) -> Outcome {
        loop {
            while let Some((_, name)) = change.touched.pop_first() {
                self.visit(&name, &mut change);
            }
            self.release(&mut change);
            if change.touched.is_empty() {
                break;
            }
        }
        let Change {
            mut outcome,
            subscribe,
            unsubscribe,
            ..
        } = change;
        outcome.subscribe = subscribe
            .into_iter()
            .filter(|n| self.held.contains_key(n))
            .collect();
        outcome.unsubscribe = unsubscribe.into_iter().collect();
        outcome.snapshot = self.built.publish(&self.held);
        outcome
    }

    fn visit(&mut self, name: &ResourceName, change: &mut Change) {
        if self.can_activate(name) {
            self.activate(name, change);
        }
        let Some(held) = self.held.get(name) else {
            return;
        };
        for dependent in &held.dependents {
            change.touch(dependent.clone());
        }
        self.built.rebuild(name, &self.held, &self.usage);
    }

    fn can_activate(&self, name: &ResourceName) -> bool {
        let Some(held) = self.held.get(name) else {
            return false;
        };
        let Some(parked) = &held.parked else {
            return false;
        };
        let is_active = |n: &ResourceName| self.held.get(n).is_some_and(|h| h.active.is_some());
        if !parked.content.needs().iter().all(is_active) {
            return false;
        }
        let serves = held.active.as_ref().is_some_and(|a| !a.content.is_absent());
        let leaves = |dependent: &ResourceName| {
            let parked = self.held.get(dependent).and_then(|d| d.parked.as_ref());
            parked.is_some_and(|p| !p.content.needs().contains(name))
        };
        !(parked.content.is_absent() && serves && held.dependents.iter().any(leaves))
    }

    fn activate(&mut self, name: &ResourceName, change: &mut Change) {
        let Some(held) = self.held.get_mut(name) else {
            return;
        };
        let Some(parked) = held.parked.take() else {
            return;
        };
        change.outcome.acks.push((name.clone(), parked.version));
        match &parked.content {
            Content::TrustBundle(bundle) => change.outcome.trust = Some(Arc::clone(bundle)),
            Content::Absent(_)
            | Content::Destination(_)
            | Content::Route(_)
            | Content::Cluster(_)
            | Content::Endpoints(_)
            | Content::Inbound(_) => {}
        }
        held.active = Some(parked);
        held.applied = Some(SystemTime::now());
        self.relink(name, change);
    }

    fn release(&mut self, change: &mut Change) {
        while let Some(name) = change.loose.pop_first() {
            if self.held.get(&name).is_none_or(Held::is_wanted) {
                continue;
            }
            if let Some(held) = self.held.remove(&name) {
                for needed in held.needs {
                    if let Some(other) = self.held.get_mut(&needed) {
                        other.dependents.remove(&name);
                        change.touch(needed.clone());
                        change.loose.insert(needed);
                    }
                }
            }
            self.built.remove(&name);
            // What was asked for and let go in one step was never told to the operator.
            if !change.subscribe.remove(&name) {
                change.unsubscribe.insert(name);
            }
        }
    }
}

/// One change under way.
#[derive(Debug, Default)]
struct Change {
    outcome: Outcome,
    /// To be looked at, lowest rank first.
    touched: BTreeSet<(u8, ResourceName)>,
    /// Has lost something that named it.
    loose: BTreeSet<ResourceName>,
    subscribe: BTreeSet<ResourceName>,
    unsubscribe: BTreeSet<ResourceName>,
}

impl Change {
    fn touch(&mut self, name: ResourceName) {
        self.touched.insert((rank(name.kind), name));
    }
}

#[cfg(test)]
mod tests;

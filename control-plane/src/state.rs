//! Every object the operator knows, typed and indexed. A `World` never changes; a change makes the next one.
//!
//! ```text
//! Change ─▶ apply ─▶ check (crds::check) ─▶ make ready (rules, policy) ─▶ are the things it names there?
//!                                                                          yes ─▶ in force
//!                                                                          no  ─▶ what was in force before stays
//! ```
//!
//! `compile` reads a world through the queries here and says on what it depends; `World::apply` says what it touched.
//! What decides a compiled resource must be in both: that is the invariant of this module.

mod age;
mod apply;
mod conflicts;
mod held;
mod host;
mod joined;
mod lints;
mod lookup;
mod object_state;
mod pod;
mod references;
mod service;
mod slice;
mod table;
mod zone;

pub(crate) mod place;
pub(crate) mod policy;
pub(crate) mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use api::names;
use crds::{DestinationRule, Kind, PeerAuthentication, VirtualService};

use age::Age;
use held::Held;
use policy::Policy;
use rules::Rules;
use table::{Namespaced, Table};

pub(crate) use host::Host;
pub use host::{ObjectName, ServiceName};
pub(crate) use joined::Joint;
pub(crate) use lookup::Deciding;
pub use object_state::{ObjectState, Verdict};
pub use pod::{MAX_WEIGHT, Pod, WEIGHT_ANNOTATION};
pub use service::{Service, ServicePort, TargetPort};
pub use slice::{Slice, SliceEntry};

/// A version of one of the user's objects. What proxies get names the object alone ([`api::ObjectRef`]), for a new
/// generation that changes nothing for them is not to be sent again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceObject {
    /// Kubernetes kind.
    pub kind: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
    /// `metadata.generation`.
    pub generation: i64,
}

impl From<&SourceObject> for api::ObjectRef {
    fn from(source: &SourceObject) -> Self {
        let SourceObject {
            kind,
            namespace,
            name,
            generation: _,
        } = source;
        Self {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
        }
    }
}

impl fmt::Display for SourceObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What a compiled resource was made from, and what a change touches. Where the two meet, it is compiled again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// A Service, and every object that names it as a host (`namespace`, `name`).
    Service(String, String),
    /// The endpoints of a Service and the pods behind them (`namespace`, `name`). Apart from the Service, so that a pod
    /// that comes or goes does not have routes compiled again.
    Endpoints(String, String),
    /// An address that may belong to a Service or a pod, whichever port.
    Address(IpAddr),
    /// The pod a proxy runs in (`namespace`, `name`), and the policies that select it.
    Pod(String, String),
    /// PeerAuthentication objects of a namespace (the root namespace counts for all).
    Policies(String),
}

impl Dependency {
    pub(crate) fn service(name: &ServiceName) -> Self {
        Self::Service(name.namespace.clone(), name.name.clone())
    }

    pub(crate) fn endpoints(name: &ServiceName) -> Self {
        Self::Endpoints(name.namespace.clone(), name.name.clone())
    }

    pub(crate) fn pod(name: &ObjectName) -> Self {
        Self::Pod(name.namespace.clone(), name.name.clone())
    }
}

/// The dependencies that a change of the world touched.
pub type Touched = BTreeSet<Dependency>;

/// A proxy, as the compiler sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Proxy {
    /// Its namespace.
    pub namespace: String,
    /// Its pod's name.
    pub pod: String,
    /// Its service account.
    pub service_account: String,
    /// Its pod's labels; empty when the pod is not known (yet).
    pub labels: BTreeMap<String, String>,
    /// The zone of its pod; empty when it is not known.
    pub zone: String,
}

/// Every object the operator knows.
#[derive(Debug, Clone)]
pub struct World {
    trust_domain: Arc<str>,
    namespaces: Table<String, Arc<BTreeMap<String, String>>>,
    services: Namespaced<Arc<Service>>,
    /// Services that are a name in the DNS (`ExternalName`), with that name: known only to be told apart.
    external: Namespaced<Arc<str>>,
    slices: Namespaced<Arc<Slice>>,
    pods: Namespaced<Arc<Pod>>,
    virtual_services: Namespaced<Held<VirtualService, Rules>>,
    destination_rules: Namespaced<Held<DestinationRule, Policy>>,
    peer_authentications: Namespaced<Held<PeerAuthentication, PeerAuthentication>>,
    index: Index,
}

/// Who belongs to whom. Sets of [`Age`] have the oldest first.
#[derive(Debug, Clone, Default)]
struct Index {
    services_at: Table<IpAddr, BTreeSet<(Age, ServiceName)>>,
    /// Services by namespace and the first label that they select on. Looking at every Service for every proxy would make
    /// the first load quadratic.
    selecting: Table<(String, String, String), BTreeSet<ServiceName>>,
    pods_at: Table<IpAddr, BTreeSet<(Age, ObjectName)>>,
    slices_of: Table<ServiceName, BTreeSet<ObjectName>>,
    slices_at: Table<IpAddr, BTreeSet<ObjectName>>,
    slices_with: Table<ObjectName, BTreeSet<ObjectName>>,
    /// What slices say of the zones of nodes.
    node_zones: Table<String, BTreeSet<(String, ObjectName)>>,
    /// A node may have very many, so its pods are a tree of their own, not copied as a whole at each change.
    pods_on: Table<String, Table<ObjectName, ()>>,
    /// VirtualServices in force, by the host they steer.
    steering: Table<Host, BTreeSet<Age>>,
    /// DestinationRules in force, by their host.
    governing: Table<Host, BTreeSet<Age>>,
    /// VirtualServices whose newest version names a Service, as host or target.
    naming: Table<ServiceName, BTreeSet<ObjectName>>,
    /// VirtualServices that delegate to another, in their newest version or the one in force, by that other.
    delegating: Table<ObjectName, BTreeSet<ObjectName>>,
}

impl Default for World {
    fn default() -> Self {
        Self::new(names::TRUST_DOMAIN)
    }
}

impl World {
    /// A world without objects; identities in it are of this trust domain.
    #[must_use]
    pub fn new(trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespaces: Table::default(),
            services: Namespaced::default(),
            external: Namespaced::default(),
            slices: Namespaced::default(),
            pods: Namespaced::default(),
            virtual_services: Namespaced::default(),
            destination_rules: Namespaced::default(),
            peer_authentications: Namespaced::default(),
            index: Index::default(),
        }
    }

    /// The trust domain of its identities.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The labels of a namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(&name.to_owned()).map(|labels| &**labels)
    }

    /// Every namespace with its labels, in no order that means anything.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>)> {
        self.namespaces
            .iter()
            .map(|(name, labels)| (name.as_str(), &**labels))
    }

    /// Every pod, in no order that means anything.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().map(|pod| &**pod)
    }

    /// A Service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services
            .get(&name.namespace, &name.name)
            .map(|service| &**service)
    }

    /// The name in the DNS that a Service stands for, when it is only that (`ExternalName`).
    #[must_use]
    pub fn external_name(&self, name: &ServiceName) -> Option<&str> {
        self.external.get(&name.namespace, &name.name).map(|dns| &**dns)
    }

    /// The Services of a namespace that select pods with these labels, in no order that means anything.
    pub fn services_selecting(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &Service> {
        let first = labels
            .iter()
            .map(|(key, value)| (namespace.to_owned(), key.clone(), value.clone()));
        first
            .flat_map(|first| self.index.selecting.linked(&first))
            .filter_map(|name| self.service(name))
            .filter(move |service| service.selects(namespace, labels))
    }

    /// The Service that has this cluster address; of several the oldest.
    #[must_use]
    pub fn service_at(&self, address: IpAddr) -> Option<&Service> {
        let (_, name) = self.index.services_at.linked(&address).next()?;
        self.service(name)
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<&Pod> {
        self.pods.get(&name.namespace, &name.name).map(|pod| &**pod)
    }

    /// The pods of a namespace, in no order that means anything.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        self.pods.within(namespace).map(|pod| &**pod)
    }

    /// The VirtualServices whose newest version names a Service, as host or as target.
    pub fn naming(&self, service: &ServiceName) -> impl Iterator<Item = &ObjectName> {
        self.index.naming.linked(service)
    }

    /// The VirtualServices that delegate to this one.
    pub(crate) fn delegating(&self, to: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        self.index.delegating.linked(to)
    }

    /// The pod that has this address; of several the youngest, as the others are about to go.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        let (_, name) = self.index.pods_at.linked(&address).next_back()?;
        self.pod(name)
    }

    /// The slices of a Service, by name.
    pub fn slices_of(&self, service: &ServiceName) -> impl Iterator<Item = &Slice> {
        self.slices_named(self.index.slices_of.linked(service))
    }

    /// The slices that have this address, by name.
    pub fn slices_at(&self, address: IpAddr) -> impl Iterator<Item = &Slice> {
        self.slices_named(self.index.slices_at.linked(&address))
    }

    /// The slices that name this pod, by name.
    pub fn slices_with(&self, pod: &ObjectName) -> impl Iterator<Item = &Slice> {
        self.slices_named(self.index.slices_with.linked(pod))
    }

    /// A proxy of a pod, with the labels that are known of it.
    #[must_use]
    pub fn proxy(&self, namespace: &str, pod: &str, service_account: &str) -> Proxy {
        let name = ObjectName::new(namespace, pod);
        let known = self.pod(&name);
        Proxy {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            service_account: service_account.to_owned(),
            labels: known.map(|pod| pod.labels.clone()).unwrap_or_default(),
            zone: self.zone_of(&name).to_owned(),
        }
    }

    /// The PeerAuthentication objects in force that can decide for pods of a namespace: its own and the root's.
    pub(crate) fn policies_for(&self, namespace: &str) -> Vec<(i64, &PeerAuthentication)> {
        let root = (namespace != names::ROOT_NAMESPACE).then_some(names::ROOT_NAMESPACE);
        [Some(namespace), root]
            .into_iter()
            .flatten()
            .flat_map(|ns| self.peer_authentications.within(ns))
            .filter_map(Held::in_force)
            .collect()
    }

    fn slices_named<'a>(
        &'a self,
        names: impl Iterator<Item = &'a ObjectName>,
    ) -> impl Iterator<Item = &'a Slice> {
        names.filter_map(|name| self.slices.get(&name.namespace, &name.name).map(|slice| &**slice))
    }
}

fn object_ref(kind: Kind, age: &Age, generation: i64) -> SourceObject {
    SourceObject {
        kind: kind.name().to_owned(),
        namespace: age.namespace.clone(),
        name: age.name.clone(),
        generation,
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

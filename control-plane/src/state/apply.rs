//! From one world to the next: takes changes in, keeps the indexes, and notes what was touched.

mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crds::{Kind, Object, ObjectKey};

use super::host::{ObjectName, ServiceName};
use super::{Dependency, Index, Pod, Service, Slice, SliceEntry, Touched, World};
use crate::source::Change;

impl World {
    /// The world after these changes, and what they touched. Objects that did not really change touch nothing.
    #[must_use]
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) -> (Arc<World>, Touched) {
        let mut revision = Revision {
            world: self.clone(),
            touched: Touched::new(),
            recheck: BTreeSet::new(),
            selecting: BTreeMap::new(),
        };
        for change in changes {
            match change {
                Change::Set(object) => revision.set(object),
                Change::Remove(key) => revision.remove(&key),
            }
        }
        // Once for all changes, so that their order does not matter.
        revision.settle();
        revision.touch_selected();
        (Arc::new(revision.world), revision.touched)
    }
}

/// A world under change.
pub(super) struct Revision {
    pub(super) world: World,
    pub(super) touched: Touched,
    /// VirtualServices whose references are to be looked up again.
    recheck: BTreeSet<ObjectName>,
    /// Services that changed, as they were and as they are, by namespace.
    selecting: BTreeMap<String, Vec<Arc<Service>>>,
}

impl Revision {
    fn set(&mut self, object: Object) {
        let ObjectKey {
            kind: _,
            namespace,
            name,
        } = object.key();
        let at = ObjectName::new(namespace, name);
        match object {
            Object::Namespace(object) => {
                let labels = object.metadata.labels.unwrap_or_default();
                if self.world.namespace(&at.name) != Some(&labels) {
                    self.world.namespaces.insert(at.name, Arc::new(labels));
                }
            }
            Object::Service(object) => {
                self.external_name(&at, Service::external_name(&object));
                self.service(&at, Service::from_object(&object));
            }
            Object::EndpointSlice(object) => self.slice(&at, Slice::from_object(&object)),
            Object::Pod(object) => self.pod(&at, Some(Pod::from_object(&object))),
            Object::VirtualService(object) => self.set_virtual_service(*object),
            Object::DestinationRule(object) => self.set_destination_rule(*object),
            Object::PeerAuthentication(object) => self.set_peer_authentication(*object),
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        let at = ObjectName::new(&key.namespace, &key.name);
        match key.kind {
            Kind::Namespace => {
                self.world.namespaces.remove(&at.name);
            }
            Kind::Service => {
                self.external_name(&at, None);
                self.service(&at, None);
            }
            Kind::EndpointSlice => self.slice(&at, None),
            Kind::Pod => self.pod(&at, None),
            Kind::VirtualService => self.remove_virtual_service(&at),
            Kind::DestinationRule => self.remove_destination_rule(&at),
            Kind::PeerAuthentication => self.remove_peer_authentication(&at),
        }
    }

    fn external_name(&mut self, at: &ObjectName, new: Option<Arc<str>>) {
        let old = self.world.external.set(&at.namespace, &at.name, new.clone());
        if old != new {
            self.touch_service(&ServiceName::new(&at.namespace, &at.name));
        }
    }

    fn service(&mut self, at: &ObjectName, new: Option<Service>) {
        let name = ServiceName::new(&at.namespace, &at.name);
        let new = new.map(Arc::new);
        let old = self.world.services.set(&at.namespace, &at.name, new.clone());
        if old == new {
            return;
        }
        let Index {
            services_at,
            selecting,
            ..
        } = &mut self.world.index;
        for first in old.iter().filter_map(|service| service.first_label()) {
            selecting.unlink(&first, &name);
        }
        for first in new.iter().filter_map(|service| service.first_label()) {
            selecting.link(&first, name.clone());
        }
        for service in old.iter() {
            for address in &service.addresses {
                services_at.unlink(address, &(service.age.clone(), name.clone()));
                self.touched.insert(Dependency::Address(*address));
            }
        }
        for service in new.iter() {
            for address in &service.addresses {
                services_at.link(address, (service.age.clone(), name.clone()));
                self.touched.insert(Dependency::Address(*address));
            }
        }
        self.touch_service(&name);
        // Pods that it selects know it by its ports. Those that its slices name depend on it by name.
        let changed = self.selecting.entry(at.namespace.clone()).or_default();
        changed.extend(old.into_iter().chain(new));
    }

    /// Touches the pods that changed Services select. Once for all Services of a namespace, each found by one of the
    /// labels it selects on: looking at every pod for every Service would make the first load quadratic.
    fn touch_selected(&mut self) {
        for (namespace, services) in std::mem::take(&mut self.selecting) {
            let mut by_label: BTreeMap<(&String, &String), Vec<&Service>> = BTreeMap::new();
            for service in &services {
                if let Some(label) = service.selector.as_ref().and_then(BTreeMap::first_key_value) {
                    by_label.entry(label).or_default().push(service);
                }
            }
            let selects = |pod: &Pod| {
                let mut found = pod
                    .labels
                    .iter()
                    .filter_map(|label| by_label.get(&label))
                    .flatten();
                found.any(|service| service.selects(&namespace, &pod.labels))
            };
            let pods = self.world.pods.within(&namespace).filter(|pod| selects(pod));
            self.touched.extend(pods.map(|pod| Dependency::pod(&pod.name)));
        }
    }

    fn slice(&mut self, at: &ObjectName, new: Option<Slice>) {
        let new = new.map(Arc::new);
        let old = self.world.slices.set(&at.namespace, &at.name, new.clone());
        if old == new {
            return;
        }
        self.zones_of_slice(at, old.as_deref(), new.as_deref());
        let index = &mut self.world.index;
        for slice in old.iter() {
            index.slices_of.unlink(&slice.service, at);
            for entry in &slice.entries {
                index.slices_at.unlink(&entry.address, at);
                entry.pod.iter().for_each(|pod| index.slices_with.unlink(pod, at));
            }
        }
        for slice in new.iter() {
            index.slices_of.link(&slice.service, at.clone());
            for entry in &slice.entries {
                index.slices_at.link(&entry.address, at.clone());
                entry
                    .pod
                    .iter()
                    .for_each(|pod| index.slices_with.link(pod, at.clone()));
            }
        }
        let changed: Vec<SliceEntry> = match (&old, &new) {
            (Some(old), Some(new)) => old.difference(new).into_iter().cloned().collect(),
            (Some(one), None) | (None, Some(one)) => one.entries.clone(),
            (None, None) => Vec::new(),
        };
        for slice in old.iter().chain(&new) {
            self.touched.insert(Dependency::endpoints(&slice.service));
        }
        self.touch_entries(&changed);
    }

    fn pod(&mut self, at: &ObjectName, new: Option<Pod>) {
        let new = new.map(Arc::new);
        let old = self.world.pods.set(&at.namespace, &at.name, new.clone());
        if old == new {
            return;
        }
        self.node_of_pod(at, old.as_deref(), new.as_deref());
        let pods_at = &mut self.world.index.pods_at;
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for pod in old.iter() {
            for address in &pod.addresses {
                pods_at.unlink(address, &(pod.age.clone(), at.clone()));
                addresses.insert(*address);
            }
        }
        for pod in new.iter() {
            for address in &pod.addresses {
                pods_at.link(address, (pod.age.clone(), at.clone()));
                addresses.insert(*address);
            }
        }
        self.touched.insert(Dependency::pod(at));
        let by_name = self.world.slices_with(at);
        let by_address = addresses
            .iter()
            .flat_map(|address| self.world.slices_at(*address));
        let services: Vec<_> = by_name
            .chain(by_address)
            .map(|slice| Dependency::endpoints(&slice.service))
            .collect();
        self.touched.extend(services);
        self.touched
            .extend(addresses.into_iter().map(Dependency::Address));
    }

    /// A Service, or an object that names it as its host, changed.
    fn touch_service(&mut self, name: &ServiceName) {
        self.touched.insert(Dependency::service(name));
        self.touched.insert(Dependency::endpoints(name));
        self.recheck.extend(self.world.index.naming.linked(name).cloned());
    }

    /// These addresses stand differently in a Service: what is dialled there, and the pods that have them.
    fn touch_entries(&mut self, entries: &[SliceEntry]) {
        for entry in entries {
            self.touched.insert(Dependency::Address(entry.address));
            self.touched.extend(entry.pod.as_ref().map(Dependency::pod));
            let pods = self.world.index.pods_at.linked(&entry.address);
            self.touched.extend(pods.map(|(_, pod)| Dependency::pod(pod)));
        }
    }
}

//! The user's own objects on their way into the next world: checked, made ready, and put into force once what they name
//! is there.

use crds::{DestinationRule, PeerAuthentication, VirtualService, check};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Revision;
use crate::state::Dependency;
use crate::state::age::Age;
use crate::state::held::Held;
use crate::state::host::{Host, ObjectName};
use crate::state::policy::Policy;
use crate::state::references::unresolved;
use crate::state::rules::Rules;

/// What decides whether an object is a new version: nothing else of its metadata counts.
fn version(metadata: &ObjectMeta) -> (i64, Age) {
    (metadata.generation.unwrap_or(0), Age::of(metadata))
}

impl Revision {
    pub(super) fn set_virtual_service(&mut self, object: VirtualService) {
        let (generation, age) = version(&object.metadata);
        let at = ObjectName::new(&age.namespace, &age.name);
        let before = self.world.virtual_services.get(&at.namespace, &at.name).cloned();
        if let Some(before) = &before {
            if (before.generation, &before.age, &before.object.spec) == (generation, &age, &object.spec) {
                return;
            }
            self.unlink_virtual_service(&at, before);
        }
        let findings = check::virtual_service(&object);
        let ready = |object: &VirtualService| Rules::new(&object.spec, &at.namespace);
        let held = Held::new(object, generation, age, findings, ready, before.as_ref());
        for service in held.ready.iter().flat_map(|rules| rules.services()) {
            self.world.index.naming.link(service, at.clone());
        }
        for (_, delegation) in held.ready.iter().flat_map(|rules| rules.delegations()) {
            self.world.index.delegating.link(&delegation.to, at.clone());
        }
        self.link_in_force(&held);
        self.world
            .virtual_services
            .set(&at.namespace, &at.name, Some(held));
        self.recheck.insert(at);
    }

    pub(super) fn remove_virtual_service(&mut self, at: &ObjectName) {
        let before = self.world.virtual_services.set(&at.namespace, &at.name, None);
        if let Some(before) = before {
            self.unlink_virtual_service(at, &before);
        }
    }

    fn unlink_virtual_service(&mut self, at: &ObjectName, held: &Held<VirtualService, Rules>) {
        for service in held.ready.iter().flat_map(|rules| rules.services()) {
            self.world.index.naming.unlink(service, at);
        }
        for (_, delegation) in held.ready.iter().flat_map(|rules| rules.delegations()) {
            self.world.index.delegating.unlink(&delegation.to, at);
        }
        self.unlink_in_force(held);
    }

    fn link_in_force(&mut self, held: &Held<VirtualService, Rules>) {
        for (_, host) in held.in_force().iter().flat_map(|(_, rules)| &rules.hosts) {
            self.world.index.steering.link(host, held.age.clone());
            self.touch_meant(host);
        }
        let at = held.age.object();
        for (_, delegation) in held.in_force().iter().flat_map(|(_, rules)| rules.delegations()) {
            self.world.index.delegating.link(&delegation.to, at.clone());
        }
        self.touch_delegating(&at);
    }

    fn touch_meant(&mut self, host: &Host) {
        let services = self.world.meant(host);
        self.touched.extend(services.iter().map(Dependency::service));
    }

    /// What the objects that delegate to this one steer is different, and so may be whether they are accepted.
    fn touch_delegating(&mut self, at: &ObjectName) {
        let objects: Vec<_> = self.world.index.delegating.linked(at).cloned().collect();
        for object in &objects {
            let rules = self.world.in_force(object).map(|(_, rules)| rules.hosts.clone());
            for (_, host) in rules.unwrap_or_default() {
                self.touch_meant(&host);
            }
        }
        self.recheck.extend(objects);
    }

    fn unlink_in_force(&mut self, held: &Held<VirtualService, Rules>) {
        for (_, host) in held.in_force().iter().flat_map(|(_, rules)| &rules.hosts) {
            self.world.index.steering.unlink(host, &held.age);
            self.touch_meant(host);
        }
        let at = held.age.object();
        for (_, delegation) in held.in_force().iter().flat_map(|(_, rules)| rules.delegations()) {
            self.world.index.delegating.unlink(&delegation.to, &at);
        }
        self.touch_delegating(&at);
    }

    pub(super) fn set_destination_rule(&mut self, object: DestinationRule) {
        let (generation, age) = version(&object.metadata);
        let at = ObjectName::new(&age.namespace, &age.name);
        let before = self.world.destination_rules.get(&at.namespace, &at.name).cloned();
        if let Some(before) = &before
            && (before.generation, &before.age, &before.object.spec) == (generation, &age, &object.spec)
        {
            return;
        }
        let findings = check::destination_rule(&object);
        let ready = |object: &DestinationRule| Policy::new(&object.spec, &at.namespace);
        let mut held = Held::new(object, generation, age, findings, ready, before.as_ref());
        held.enforce();
        self.destination_rule(&at, before.as_ref(), Some(held));
    }

    pub(super) fn remove_destination_rule(&mut self, at: &ObjectName) {
        let before = self.world.destination_rules.get(&at.namespace, &at.name).cloned();
        self.destination_rule(at, before.as_ref(), None);
    }

    fn destination_rule(
        &mut self,
        at: &ObjectName,
        before: Option<&Held<DestinationRule, Policy>>,
        new: Option<Held<DestinationRule, Policy>>,
    ) {
        let governed = |held: &Held<DestinationRule, Policy>| {
            let (_, policy) = held.in_force()?;
            Some((policy.target.clone(), held.age.clone()))
        };
        let (old_link, new_link) = (before.and_then(governed), new.as_ref().and_then(governed));
        if let Some((host, age)) = &old_link {
            self.world.index.governing.unlink(host, age);
        }
        if let Some((host, age)) = &new_link {
            self.world.index.governing.link(host, age.clone());
        }
        // A bad version leaves the one in force as it is, and so touches nothing.
        let in_force = |held: Option<&Held<DestinationRule, Policy>>| {
            held.and_then(|h| h.in_force().map(|(g, p)| (g, h.age.clone(), p.clone())))
        };
        let changed = in_force(before) != in_force(new.as_ref());
        self.world.destination_rules.set(&at.namespace, &at.name, new);
        if changed {
            for (host, _) in old_link.iter().chain(&new_link) {
                for service in self.world.meant(host) {
                    self.touch_service(&service);
                }
            }
        }
    }

    pub(super) fn set_peer_authentication(&mut self, object: PeerAuthentication) {
        let (generation, age) = version(&object.metadata);
        let at = ObjectName::new(&age.namespace, &age.name);
        let before = self.world.peer_authentications.get(&at.namespace, &at.name);
        if let Some(before) = before
            && (before.generation, &before.age, &before.object.spec) == (generation, &age, &object.spec)
        {
            return;
        }
        let findings = check::peer_authentication(&object);
        let ready = |object: &PeerAuthentication| Ok(object.clone());
        let mut held = Held::new(object, generation, age, findings, ready, before);
        held.enforce();
        self.world
            .peer_authentications
            .set(&at.namespace, &at.name, Some(held));
        self.touched.insert(Dependency::Policies(at.namespace));
    }

    pub(super) fn remove_peer_authentication(&mut self, at: &ObjectName) {
        if self
            .world
            .peer_authentications
            .set(&at.namespace, &at.name, None)
            .is_some()
        {
            self.touched.insert(Dependency::Policies(at.namespace.clone()));
        }
    }

    /// Looks up again what VirtualServices name, and puts those into force that are complete now.
    pub(super) fn settle(&mut self) {
        // One that comes into force may let others come into force that delegate to it. Each does so once at most.
        while let Some(at) = self.recheck.pop_first() {
            let Some(held) = self.world.virtual_services.get(&at.namespace, &at.name) else {
                continue;
            };
            let Some(ready) = &held.ready else { continue };
            let unresolved = unresolved(&self.world, &at.namespace, ready);
            let mut next = held.clone();
            next.unresolved = unresolved;
            let before = held.clone();
            let enforce = next.accepted() && next.in_force() != Some((next.generation, &**ready));
            if enforce {
                next.enforce();
            }
            self.world
                .virtual_services
                .set(&at.namespace, &at.name, Some(next.clone()));
            if enforce {
                self.unlink_in_force(&before);
                self.link_in_force(&next);
            }
        }
    }
}

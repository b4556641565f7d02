//! Which of the user's objects decide for a Service, as one client sees it: who may see an object, whose host is the most
//! specific, which namespace goes first, and which object is the older.

use std::collections::BTreeMap;

use api::names;
use crds::Kind;

use super::host::{Host, ObjectName, ServiceName};
use super::policy::Policy;
use super::rules::Rules;
use super::{Proxy, SourceObject, World, object_ref};

/// Objects that decide, the oldest first.
#[derive(Debug)]
pub(crate) struct Deciding<'a, T> {
    pub(crate) objects: Vec<(SourceObject, &'a T)>,
    /// Clients of another namespace may have others.
    pub(crate) by_namespace: bool,
    /// Clients with other labels may have others.
    pub(crate) by_labels: bool,
}

impl World {
    /// The VirtualServices that steer a Service for clients of `namespace`: of those they see, the ones with the most
    /// specific host.
    pub(crate) fn steering(&self, service: &ServiceName, namespace: &str) -> Deciding<'_, Rules> {
        let mut deciding = Deciding {
            objects: Vec::new(),
            by_namespace: false,
            by_labels: false,
        };
        for host in Host::of(service) {
            let mut seen = self.steering_host(&host);
            for (_, rules) in &seen {
                deciding.by_namespace |= rules.export.is_limited();
                let delegates = rules
                    .delegations()
                    .filter_map(|(_, d)| Some(self.in_force(&d.to)?.1));
                for rules in delegates.chain([*rules]) {
                    deciding.by_namespace |= rules.looks_at_namespaces();
                    deciding.by_labels |= rules.looks_at_labels();
                }
            }
            if deciding.objects.is_empty() {
                seen.retain(|(_, rules)| rules.export.sees(namespace));
                deciding.objects = self.fitting(seen);
            }
        }
        deciding
    }

    /// The Services that a host means. One that is named need not be there; one that comes below a wildcard later is
    /// touched by its coming.
    pub(crate) fn meant(&self, host: &Host) -> Vec<ServiceName> {
        match host {
            Host::Service(name) => vec![name.clone()],
            Host::Below(_) => self.below(host).cloned().collect(),
            Host::Outside(_) => Vec::new(),
        }
    }

    /// The Services that there are below a wildcard. Where it is that of a namespace, no other one is looked at.
    pub(super) fn below<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a ServiceName> {
        let namespace = host.of_namespace();
        let own = namespace
            .into_iter()
            .flat_map(|namespace| self.services.within(namespace));
        let all = namespace.is_none().then(|| self.services.values());
        own.chain(all.into_iter().flatten())
            .map(|service| &service.name)
            .filter(|name| host.covers(name))
    }

    /// A VirtualService in force.
    pub(crate) fn in_force(&self, name: &ObjectName) -> Option<(SourceObject, &Rules)> {
        let held = self.virtual_services.get(&name.namespace, &name.name)?;
        let (generation, rules) = held.in_force()?;
        Some((object_ref(Kind::VirtualService, &held.age, generation), rules))
    }

    /// The VirtualServices in force for one host, the oldest first.
    pub(super) fn steering_host(&self, host: &Host) -> Vec<(SourceObject, &Rules)> {
        let ages = self.index.steering.linked(host);
        let objects = ages.filter_map(|age| {
            let held = self.virtual_services.get(&age.namespace, &age.name)?;
            let (generation, rules) = held.in_force()?;
            Some((object_ref(Kind::VirtualService, age, generation), rules))
        });
        objects.collect()
    }

    /// The DestinationRules in force for a Service, whoever sees them: those with the most specific host first, and then the
    /// oldest.
    pub(crate) fn governing(&self, service: &ServiceName) -> impl Iterator<Item = (SourceObject, &Policy)> {
        Host::of(service).flat_map(|host| self.governing_host(&host))
    }

    pub(super) fn governing_host(&self, host: &Host) -> Vec<(SourceObject, &Policy)> {
        let ages = self.index.governing.linked(host);
        let objects = ages.filter_map(|age| {
            let held = self.destination_rules.get(&age.namespace, &age.name)?;
            let (generation, policy) = held.in_force()?;
            Some((object_ref(Kind::DestinationRule, age, generation), policy))
        });
        objects.collect()
    }

    /// The DestinationRules in force for a Service as one client has them: of those it sees, the ones of the first namespace
    /// that has any, out of the client's, the Service's and the root; of these the ones with the most specific host; of
    /// these the ones that select the client, where any does.
    pub(crate) fn governing_from(&self, client: &Proxy, service: &ServiceName) -> Deciding<'_, Policy> {
        let all: Vec<_> = self.governing(service).collect();
        // Objects of the Service's namespace and of the root are for all clients, but those of the root have them the other
        // way round.
        let has = |namespace: &str| all.iter().any(|(object, _)| object.namespace == namespace);
        let both = service.namespace != names::ROOT_NAMESPACE
            && has(&service.namespace)
            && has(names::ROOT_NAMESPACE);
        let by_namespace = both
            || all.iter().any(|(object, policy)| {
                let elsewhere =
                    ![&*service.namespace, names::ROOT_NAMESPACE].contains(&object.namespace.as_str());
                elsewhere || policy.export.is_limited() || policy.selector.is_some()
            });
        let by_labels = all.iter().any(|(_, policy)| policy.selector.is_some());
        let order = [&*client.namespace, &*service.namespace, names::ROOT_NAMESPACE];
        let rank = |object: &SourceObject| order.iter().position(|namespace| *namespace == object.namespace);
        let mut seen: Vec<_> = all
            .into_iter()
            .filter(|(object, policy)| {
                policy.export.sees(&client.namespace)
                    && policy.selector.as_ref().is_none_or(|selector| {
                        object.namespace == client.namespace && selects(selector, &client.labels)
                    })
            })
            .filter_map(|(object, policy)| Some((rank(&object)?, object, policy)))
            .collect();
        let first = seen.iter().map(|(rank, ..)| *rank).min();
        seen.retain(|(rank, ..)| Some(*rank) == first);
        if let Some((.., most_specific)) = seen.first() {
            let host = &most_specific.target;
            seen.retain(|(.., policy)| policy.target == *host);
        }
        let selecting = seen.iter().find_map(|(.., policy)| policy.selector.as_ref());
        seen.retain(|(.., policy)| policy.selector.as_ref() == selecting);
        Deciding {
            objects: seen
                .into_iter()
                .map(|(_, object, policy)| (object, policy))
                .collect(),
            by_namespace,
            by_labels,
        }
    }
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

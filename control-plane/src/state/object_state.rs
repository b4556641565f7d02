//! What the operator thinks of each of the user's objects: for `.status`, `explain` and the admin view. Made from a world
//! on demand; it decides nothing.

use crds::check::Finding;
use crds::{Kind, PeerAuthentication};
use serde::{Deserialize, Serialize};

use super::age::Age;
use super::held::Held;
use super::host::Host;
use super::references::external;
use super::{World, conflicts, lints, object_ref};
use crate::state::SourceObject;

/// Whether the newest version of an object is in force, and if not, why in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Verdict {
    /// It is in force.
    #[default]
    Accepted,
    /// Something in it is wrong.
    Invalid,
    /// It names something that is not there (yet).
    ReferenceMissing,
}

/// What the operator thinks of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectState {
    /// The object, with its newest generation.
    pub reference: SourceObject,
    /// What is wrong with the newest version or with what it names, and what is only odd.
    pub findings: Vec<Finding>,
    /// Whether the newest version is in force.
    pub accepted: bool,
    /// The same, with the reason.
    pub verdict: Verdict,
    /// The generation in force; an older one when the newest was not accepted; `None` when none ever was.
    pub in_force: Option<i64>,
    /// Where an older object has what this one claims, and which it is.
    pub conflicts: Vec<String>,
    /// What works but has no effect, or not the one that was meant.
    pub warnings: Vec<String>,
}

impl World {
    /// Every VirtualService, DestinationRule and PeerAuthentication, and every pod whose annotations are wrong; by kind,
    /// namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = ObjectState> + '_ {
        let rules = self
            .virtual_services
            .values()
            .map(|held| self.virtual_service_state(held));
        let policies = self
            .destination_rules
            .values()
            .map(|held| self.destination_rule_state(held));
        let peers = self
            .peer_authentications
            .values()
            .map(|held| self.peer_authentication_state(held));
        let pods = self.pods.values().filter_map(|pod| {
            let problem = pod.problem.as_ref()?;
            Some(ObjectState {
                reference: object_ref(Kind::Pod, &pod.age, 0),
                findings: Vec::new(),
                accepted: true,
                verdict: Verdict::Accepted,
                in_force: Some(0),
                conflicts: Vec::new(),
                warnings: vec![problem.to_string()],
            })
        });
        let mut all: Vec<_> = rules.chain(policies).chain(peers).chain(pods).collect();
        all.sort_by(|a, b| a.reference.cmp(&b.reference));
        all.into_iter()
    }

    /// One VirtualService, DestinationRule or PeerAuthentication.
    #[must_use]
    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<ObjectState> {
        match kind {
            Kind::VirtualService => self
                .virtual_services
                .get(namespace, name)
                .map(|held| self.virtual_service_state(held)),
            Kind::DestinationRule => self
                .destination_rules
                .get(namespace, name)
                .map(|held| self.destination_rule_state(held)),
            Kind::PeerAuthentication => self
                .peer_authentications
                .get(namespace, name)
                .map(|held| self.peer_authentication_state(held)),
            Kind::Service | Kind::Pod | Kind::Namespace | Kind::EndpointSlice => None,
        }
    }

    fn virtual_service_state(&self, held: &Held<crds::VirtualService, super::Rules>) -> ObjectState {
        let mut state = start(Kind::VirtualService, held);
        if let Some((generation, rules)) = held.in_force() {
            let object = object_ref(Kind::VirtualService, &held.age, generation);
            state.conflicts = conflicts::of_rules(self, &object, rules);
        }
        for (i, (host, target)) in held.ready.iter().flat_map(|rules| &rules.hosts).enumerate() {
            let field = format!("spec.hosts[{i}]");
            let odd = self.no_effect(&field, host, target);
            let odd = odd.or_else(|| lints::chosen_before(self, &field, host, target.service()?));
            state.warnings.extend(odd);
        }
        if let Some(rules) = &held.ready {
            state.warnings.extend(lints::protocols(self, rules));
            state.warnings.extend(lints::limited_subsets(self, rules));
            state
                .warnings
                .extend(lints::delegations(self, &held.age.object(), rules));
        }
        state
    }

    fn destination_rule_state(&self, held: &Held<crds::DestinationRule, super::Policy>) -> ObjectState {
        let mut state = start(Kind::DestinationRule, held);
        if let Some(policy) = &held.ready {
            state
                .warnings
                .extend(self.no_effect("spec.host", &policy.host, &policy.target));
            state.warnings.extend(lints::subsets(self, policy));
        }
        if let Some((generation, policy)) = held.in_force() {
            let object = object_ref(Kind::DestinationRule, &held.age, generation);
            state.conflicts = conflicts::of_policy(self, &object, policy);
        }
        state
    }

    fn peer_authentication_state(&self, held: &Held<PeerAuthentication, PeerAuthentication>) -> ObjectState {
        let mut state = start(Kind::PeerAuthentication, held);
        if let Some(policy) = &held.ready {
            state
                .warnings
                .extend(lints::reach(self, &held.age.namespace, policy));
        }
        let Some((_, policy)) = held.in_force() else {
            return state;
        };
        let labels = |p: &PeerAuthentication| {
            p.spec
                .selector
                .as_ref()
                .map(|s| s.match_labels.clone())
                .unwrap_or_default()
        };
        for other in self.peer_authentications.within(&held.age.namespace) {
            let same = other.in_force().is_some_and(|(_, p)| labels(p) == labels(policy));
            if same && other.age < held.age {
                state.conflicts.push(format!(
                    "the same pods: PeerAuthentication {}/{} is older and decides for them",
                    other.age.namespace, other.age.name
                ));
            }
        }
        state.conflicts.sort();
        state
    }

    /// Why an object for this host has no effect.
    fn no_effect(&self, field: &str, host: &str, target: &Host) -> Option<String> {
        match target {
            Host::Outside(_) => Some(format!(
                "{field}: `{host}` is not a Service of this cluster, so nothing is steered by it"
            )),
            Host::Below(_) => {
                let none = self.below(target).next().is_none();
                none.then(|| {
                    format!("{field}: there is no Service below `{host}` (yet), so it has no effect")
                })
            }
            Host::Service(name) if self.external_name(name).is_some() => {
                let dns = self.external_name(name).unwrap_or_default();
                Some(format!("{field}: {}", external(name, dns)))
            }
            Host::Service(name) if self.service(name).is_none() => Some(format!(
                "{field}: there is no Service `{}` in namespace `{}` (yet), so it has no effect there",
                name.name, name.namespace
            )),
            Host::Service(_) => None,
        }
    }
}

fn start<O, R: PartialEq>(kind: Kind, held: &Held<O, R>) -> ObjectState {
    let Held {
        age,
        generation,
        findings,
        unresolved,
        ..
    } = held;
    let age: &Age = age;
    ObjectState {
        reference: object_ref(kind, age, *generation),
        findings: findings.iter().chain(unresolved).cloned().collect(),
        accepted: held.accepted(),
        verdict: match held {
            held if held.accepted() => Verdict::Accepted,
            // What is refused for itself is not looked up further.
            Held { ready: None, .. } => Verdict::Invalid,
            Held { ready: Some(_), .. } => Verdict::ReferenceMissing,
        },
        in_force: held.in_force().map(|(generation, _)| generation),
        conflicts: Vec::new(),
        warnings: Vec::new(),
    }
}

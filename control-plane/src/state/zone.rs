//! The zone of a pod, so that its proxy can prefer endpoints nearby. A label of the pod says it, which Kubernetes writes from
//! 1.35 on. Nodes are not watched for the others: slices say of each
//! endpoint on which node and in which zone it is, and so of each node that runs one. A node that runs no endpoint of any
//! Service has no zone here, and its pods prefer nothing.

use std::collections::BTreeSet;

use super::apply::Revision;
use super::host::ObjectName;
use super::place::ZONE;
use super::table::Table;
use super::{Dependency, Pod, Slice, World};

impl World {
    /// The zone of a pod: that of its label, which newer clusters copy from the node, else that of its node, else what slices say of the pod itself; empty when it is not known.
    #[must_use]
    pub fn zone_of(&self, pod: &ObjectName) -> &str {
        let Some(known) = self.pod(pod) else { return "" };
        if let Some(label) = known.labels.get(ZONE).filter(|zone| !zone.is_empty()) {
            return label;
        }
        let of_node = self.zone_of_node(&known.node);
        if !of_node.is_empty() {
            return of_node;
        }
        let entries = self.slices_with(pod).flat_map(|slice| &slice.entries);
        let zones = entries
            .filter(|entry| entry.pod.as_ref() == Some(pod))
            .map(|entry| entry.zone.as_str());
        zones.filter(|zone| !zone.is_empty()).min().unwrap_or_default()
    }

    /// Of a node that is said to be in several zones, which only mistakes bring about, the first by name.
    fn zone_of_node(&self, node: &str) -> &str {
        let mut zones = self.index.node_zones.linked(&node.to_owned());
        zones.next().map(|(zone, _)| zone.as_str()).unwrap_or_default()
    }
}

impl Revision {
    /// Takes in what a slice says of nodes, and touches the pods on those whose zone that changes.
    pub(super) fn zones_of_slice(&mut self, at: &ObjectName, old: Option<&Slice>, new: Option<&Slice>) {
        let (old, new) = (said(old), said(new));
        let mut changed = Vec::new();
        for (node, zone) in old.symmetric_difference(&new) {
            let before = self.world.zone_of_node(node).to_owned();
            let said = ((*zone).to_owned(), at.clone());
            let zones = &mut self.world.index.node_zones;
            match new.contains(&(*node, *zone)) {
                true => zones.link(&(*node).to_owned(), said),
                false => zones.unlink(&(*node).to_owned(), &said),
            }
            if self.world.zone_of_node(node) != before {
                changed.push((*node).to_owned());
            }
        }
        for node in changed {
            let pods = self
                .world
                .index
                .pods_on
                .get(&node)
                .into_iter()
                .flat_map(Table::iter);
            self.touched.extend(pods.map(|(pod, ())| Dependency::pod(pod)));
        }
    }

    /// Keeps which pods are on which node.
    pub(super) fn node_of_pod(&mut self, at: &ObjectName, old: Option<&Pod>, new: Option<&Pod>) {
        let node = |pod: Option<&Pod>| pod.map(|pod| pod.node.clone()).filter(|node| !node.is_empty());
        let (old, new) = (node(old), node(new));
        if old == new {
            return;
        }
        let pods_on = &mut self.world.index.pods_on;
        if let Some(node) = old {
            if let Some(pods) = pods_on.get_mut(&node) {
                pods.remove(at);
            }
            if pods_on.get(&node).is_some_and(|pods| pods.len() == 0) {
                pods_on.remove(&node);
            }
        }
        if let Some(node) = new {
            if !pods_on.contains(&node) {
                pods_on.insert(node.clone(), Table::default());
            }
            if let Some(pods) = pods_on.get_mut(&node) {
                pods.insert(at.clone(), ());
            }
        }
    }
}

/// The nodes of a slice with their zones.
fn said(slice: Option<&Slice>) -> BTreeSet<(&str, &str)> {
    let entries = slice.into_iter().flat_map(|slice| &slice.entries);
    entries
        .filter(|entry| !entry.node.is_empty() && !entry.zone.is_empty())
        .map(|entry| (entry.node.as_str(), entry.zone.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::state::testing::*;
    use crate::state::{Dependency, ObjectName, World};

    fn zone(world: &World) -> String {
        world.proxy("shop", "web", "web").zone
    }

    fn entry(name: &str, node: &str, zone: &str) -> String {
        let slice = slice("reviews", &[("http", 8080)], &[]).replace("reviews-1,", &format!("{name},"));
        slice.replace(
            "endpoints: []",
            &format!("endpoints: [{{addresses: [10.1.7.1]{node}{zone}}}]"),
        )
    }

    #[test]
    fn the_zone_of_a_pod_is_that_of_its_node_as_any_slice_says() {
        let pod =
            pod("web", "web", "v1", "10.1.0.9").replace("containers: []", "containers: [], nodeName: n1");
        let web = Dependency::pod(&ObjectName::new("shop", "web"));
        let (bare, _) = with(&world(""), &pod);
        assert_eq!(zone(&bare), "");
        let (near, touched) = with(&bare, &entry("s1", ", nodeName: n1", ", zone: z1"));
        assert_eq!(zone(&near), "z1");
        assert!(touched.contains(&web), "{touched:?}");
        let (same, touched) = with(&near, &entry("s2", ", nodeName: n1", ", zone: z1"));
        assert!(
            !touched.contains(&web),
            "what is known already touches nobody: {touched:?}"
        );
        let (same, _) = without(&same, &entry("s1", "", ""));
        assert_eq!(zone(&same), "z1");
        let (far, touched) = without(&same, &entry("s2", "", ""));
        assert_eq!(zone(&far), "");
        assert!(touched.contains(&web), "{touched:?}");
        let (other, _) = with(&bare, &entry("s1", ", nodeName: n2", ", zone: z1"));
        assert_eq!(zone(&other), "");
    }

    #[test]
    fn the_pods_own_label_goes_before_what_slices_say() {
        let label = "injected: 'true', topology.kubernetes.io/zone: z7";
        let labelled = pod("web", "web", "v1", "10.1.0.9").replace("injected: 'true'", label);
        let own = slice("web", &[("http", 8080)], &[("web", "10.1.0.9")]);
        let (bare, _) = with(&world(&own), &pod("web", "web", "v1", "10.1.0.9"));
        assert_eq!(zone(&bare), "z1");
        let (near, touched) = with(&bare, &labelled);
        assert_eq!(zone(&near), "z7");
        assert!(touched.contains(&Dependency::pod(&ObjectName::new("shop", "web"))));
    }

    #[test]
    fn without_nodes_the_pods_own_slices_say_its_zone() {
        let own = slice("web", &[("http", 8080)], &[("web", "10.1.0.9")]);
        let (near, touched) = with(&world(&pod("web", "web", "v1", "10.1.0.9")), &own);
        assert_eq!(zone(&near), "z1");
        assert!(touched.contains(&Dependency::pod(&ObjectName::new("shop", "web"))));
        assert_eq!(zone(&without(&near, &own).0), "");
    }
}

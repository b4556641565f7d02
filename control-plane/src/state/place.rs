//! Where a pod is, as labels, for the rules that go by it. Kubernetes (1.35) copies region and zone of the node to the
//! labels of its pods, and anyone may write them there; a subzone is only ever a label of the pod. Without a label, the zone
//! is what slices say of node and endpoint, see `zone`, and region and subzone are not known: nodes are not watched.

use std::collections::BTreeMap;

/// Label with the region.
pub(crate) const REGION: &str = "topology.kubernetes.io/region";
/// Label with the zone.
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
/// Label with the part of the zone.
pub(crate) const SUBZONE: &str = "topology.istio.io/subzone";
/// Label with the node.
pub(crate) const HOSTNAME: &str = "kubernetes.io/hostname";

/// What of a pod the rules with these keys go by; nothing is held of what is not known.
pub(crate) fn topology<'a>(
    keys: impl IntoIterator<Item = &'a str>,
    labels: Option<&BTreeMap<String, String>>,
    zone: &str,
    node: &str,
) -> BTreeMap<String, String> {
    let value = |key: &str| {
        let told = match key {
            ZONE => zone,
            HOSTNAME => node,
            _ => "",
        };
        let label = labels.and_then(|labels| labels.get(key)).map(String::as_str);
        Some(label.unwrap_or(told).to_owned()).filter(|value| !value.is_empty())
    };
    keys.into_iter()
        .filter_map(|key| Some((key.to_owned(), value(key)?)))
        .collect()
}

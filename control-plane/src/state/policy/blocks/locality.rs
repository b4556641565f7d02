//! `localityLbSetting`: which endpoints go before others by where they are. What it means for a proxy depends on where that
//! is, so the rule is kept as the object has it, and made into the contract's terms for each place.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use api::{Invalid, Locality, Place};
use crds::destination_rule::load_balancer as crd;

use crate::state::place::{REGION, SUBZONE, ZONE};

/// Labels of a locality, the largest first.
const PARTS: [&str; 3] = [REGION, ZONE, SUBZONE];

/// A rule by where endpoints are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// None, and no other preference either.
    Off,
    /// Shares for the traffic of places; the first that the client is in counts.
    Distribute(Vec<(Place, Vec<(Place, NonZeroU32)>)>),
    /// The nearest first, and after the own region the one that is named for it.
    Failover(BTreeMap<String, String>),
    /// Endpoints that have more of the labels in common, from the first on, go first. A label may come with a value, which
    /// then is wanted instead of the client's.
    Labels(Vec<(String, Option<String>)>),
}

impl Rule {
    pub(super) fn new(block: &crd::LocalitySetting) -> Result<Self, Invalid> {
        let crd::LocalitySetting {
            distribute,
            failover,
            failover_priority,
            enabled,
        } = block;
        let given = [
            !distribute.is_empty(),
            !failover.is_empty(),
            !failover_priority.is_empty(),
        ];
        if given.into_iter().filter(|given| *given).count() > 1 {
            return Err(Invalid::new(
                "",
                "has more than one of distribute, failover and failoverPriority: keep one",
            ));
        }
        Ok(if *enabled == Some(false) {
            Self::Off
        } else if !distribute.is_empty() {
            let entry = |entry: &crd::Distribute| {
                let share = |(to, share): (&String, &u32)| Some((place(to), NonZeroU32::new(*share)?));
                let from = entry.from.as_deref().unwrap_or("*");
                (place(from), entry.to.iter().filter_map(share).collect())
            };
            Self::Distribute(distribute.iter().map(entry).collect())
        } else if !failover_priority.is_empty() {
            let label = |text: &String| match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (text.clone(), None),
            };
            Self::Labels(failover_priority.iter().map(label).collect())
        } else {
            let pair = |entry: &crd::Failover| Some((entry.from.clone()?, entry.to.clone()?));
            Self::Failover(failover.iter().filter_map(pair).collect())
        })
    }

    /// The labels it goes by.
    pub(crate) fn keys(&self) -> BTreeSet<&str> {
        match self {
            Self::Off => BTreeSet::new(),
            Self::Distribute(_) | Self::Failover(_) => PARTS.into(),
            Self::Labels(labels) => labels.iter().map(|(key, _)| key.as_str()).collect(),
        }
    }

    /// What it means for a client with this topology; `None` when nothing. Without outlier detection nothing would say that
    /// an endpoint is not well, and levels mean nothing then.
    pub(crate) fn seen_from(&self, own: &Place, has_outlier_detection: bool) -> Option<Locality> {
        let levels: Vec<Place> = match self {
            Self::Off => return None,
            Self::Distribute(entries) => {
                let is_own = |from: &Place| from.iter().all(|(key, value)| own.get(key) == Some(value));
                let (_, shares) = entries.iter().find(|(from, _)| is_own(from))?;
                return Some(Locality::Shares(shares.clone()));
            }
            Self::Failover(_) | Self::Labels(_) if !has_outlier_detection => return None,
            Self::Failover(heirs) => nearest(own, heirs),
            Self::Labels(labels) => {
                let wanted: Vec<(String, String)> = labels
                    .iter()
                    .map(|(key, value)| {
                        let own = || own.get(key).cloned().unwrap_or_default();
                        (key.clone(), value.clone().unwrap_or_else(own))
                    })
                    .collect();
                let first = |n| wanted[..n].iter().cloned().collect();
                (1..=wanted.len()).rev().map(first).collect()
            }
        };
        (!levels.is_empty()).then_some(Locality::Levels(levels))
    }
}

/// The places from the own one outwards, of what is known of it, and then the region that takes over.
fn nearest(own: &Place, heirs: &BTreeMap<String, String>) -> Vec<Place> {
    let known: Vec<_> = PARTS.iter().filter_map(|key| own.get_key_value(*key)).collect();
    let part = |(key, value): &(&String, &String)| ((*key).clone(), (*value).clone());
    let first = |n| known[..n].iter().map(part).collect();
    let mut levels: Vec<Place> = (1..=known.len()).rev().map(first).collect();
    let heir = own.get(REGION).and_then(|region| heirs.get(region));
    levels.extend(heir.map(|to| Place::from([(REGION.to_owned(), to.clone())])));
    levels
}

/// `region/zone/subzone`, of which the last parts may be left out or `*`.
fn place(text: &str) -> Place {
    let parts = text.split('/').zip(PARTS);
    parts
        .filter(|(part, _)| *part != "*")
        .map(|(part, key)| (key.to_owned(), part.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> Rule {
        Rule::new(&serde_saphyr::from_str(yaml).unwrap()).unwrap()
    }

    fn at(parts: &[&str]) -> Place {
        let parts = PARTS.iter().zip(parts).filter(|(_, part)| !part.is_empty());
        parts
            .map(|(key, part)| ((*key).to_owned(), (*part).to_owned()))
            .collect()
    }

    fn labels(of: &[(&str, &str)]) -> Place {
        of.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_first_entry_that_the_client_is_in_shares_its_traffic() {
        let rule = rule(
            "distribute:
             - {from: r1/z1/*, to: {r1/z1/*: 80, r2/*: 20}}
             - {from: r1/z2, to: {'*': 100}}",
        );
        let shares = |of: &[(Place, u32)]| {
            let share = |(place, n): &(Place, u32)| (place.clone(), NonZeroU32::new(*n).unwrap());
            Some(Locality::Shares(of.iter().map(share).collect()))
        };
        let near = shares(&[(at(&["r1", "z1"]), 80), (at(&["r2"]), 20)]);
        for (own, expected) in [
            (at(&["r1", "z1", "s"]), near.clone()),
            (at(&["r1", "z1"]), near),
            (at(&["r1", "z2"]), shares(&[(at(&[]), 100)])),
            (at(&["r1", "z3"]), None),
            (at(&["r2", "z1"]), None),
            (at(&["", "z1"]), None),
            (at(&[]), None),
        ] {
            assert_eq!(rule.seen_from(&own, false), expected, "{own:?}");
        }
        assert_eq!(rule.keys(), PARTS.into());
    }

    #[test]
    fn the_nearest_goes_first_and_then_the_region_that_takes_over() {
        let rule = rule("failover: [{from: r1, to: r2}, {from: r2, to: r3}]");
        let levels = |places: &[Place]| Some(Locality::Levels(places.to_vec()));
        for (own, expected) in [
            (
                at(&["r1", "z1", "s1"]),
                levels(&[
                    at(&["r1", "z1", "s1"]),
                    at(&["r1", "z1"]),
                    at(&["r1"]),
                    at(&["r2"]),
                ]),
            ),
            (at(&["r3", "z1"]), levels(&[at(&["r3", "z1"]), at(&["r3"])])),
            // An older cluster tells zones alone.
            (at(&["", "z1"]), levels(&[at(&["", "z1"])])),
            (at(&[]), None),
        ] {
            assert_eq!(rule.seen_from(&own, true), expected, "{own:?}");
            assert_eq!(rule.seen_from(&own, false), None, "nothing is ejected");
        }
        let by_default = super::Rule::new(&crd::LocalitySetting::default()).unwrap();
        assert_eq!(by_default.seen_from(&at(&["r1"]), true), levels(&[at(&["r1"])]));
    }

    #[test]
    fn labels_count_from_the_first_on() {
        let rule = rule("failoverPriority: [a, b=2, c]");
        let own = labels(&[("a", "1"), ("b", "other")]);
        let expected = [
            labels(&[("a", "1"), ("b", "2"), ("c", "")]),
            labels(&[("a", "1"), ("b", "2")]),
            labels(&[("a", "1")]),
        ];
        assert_eq!(
            rule.seen_from(&own, true),
            Some(Locality::Levels(expected.to_vec()))
        );
        assert_eq!(rule.seen_from(&own, false), None);
        assert_eq!(rule.keys(), BTreeSet::from(["a", "b", "c"]));
    }

    #[test]
    fn what_is_off_prefers_nothing_and_two_rules_are_too_many() {
        let off = rule("{enabled: false, failover: [{from: r1, to: r2}]}");
        assert_eq!(off.seen_from(&at(&["r1"]), true), None);
        let two = serde_saphyr::from_str("{failover: [{from: a, to: b}], failoverPriority: [c]}").unwrap();
        assert!(Rule::new(&two).is_err());
    }
}

//! How many rules the objects for one host make together, and what a delegating rule finds at the other end. The lookup,
//! the compiler and the status ask here, so that they say the same. Decides by counts alone; nothing is joined here.

use std::fmt;

use api::limits::MAX_HTTP_RULES;

use super::rules::{Delegation, HttpTemplate, Rules};
use super::{ObjectName, SourceObject, World};

/// Blocks of one rule that is joined from two: those of the one times those of the other.
pub(super) const MAX_JOINED_BLOCKS: usize = 1000;

/// Why a rule cannot leave its requests to another object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unjoined {
    Missing,
    /// From this namespace.
    Hidden(String),
    HasHosts,
    Delegates,
    /// This many rules.
    Rules(usize),
    /// This many blocks in the rule of this number.
    Blocks(usize, usize),
}

impl fmt::Display for Unjoined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not there, or not in force (yet): create it, or see its status"),
            Self::Hidden(namespace) => {
                write!(
                    f,
                    "is not exported to namespace `{namespace}`: add that to its exportTo"
                )
            }
            Self::HasHosts => {
                f.write_str("has hosts of its own: only one without spec.hosts can be delegated to")
            }
            Self::Delegates => f.write_str("delegates in turn: only one level is possible"),
            Self::Rules(rules) => write!(
                f,
                "makes {rules} rules for requests together with the ones here, and {MAX_HTTP_RULES} is the most: delegate from \
                 fewer rules, or to objects with fewer"
            ),
            Self::Blocks(rule, blocks) => write!(
                f,
                "has a spec.http[{rule}] whose match makes {blocks} blocks together with the one here, and \
                 {MAX_JOINED_BLOCKS} is the most: split one of the rules"
            ),
        }
    }
}

/// A rule that delegates: its number, and the object at the other end or why it cannot be.
pub(crate) struct Joint<'a> {
    pub(crate) rule: usize,
    pub(crate) delegation: &'a Delegation,
    pub(crate) leaf: Result<(SourceObject, &'a Rules), Unjoined>,
}

impl World {
    /// What the rules of an object in `namespace` delegate to. Together with its other rules, what can be joined fits into
    /// a route.
    pub(crate) fn joints<'a>(&'a self, namespace: &str, rules: &'a Rules) -> Vec<Joint<'a>> {
        let mut made = rules.http.len();
        let joint = |(rule, delegation): (usize, &'a Delegation)| {
            let leaf = self.leaf(namespace, &rules.http[rule], delegation);
            let leaf = leaf.and_then(|(object, leaf)| {
                let with = made + leaf.http.len().saturating_sub(1);
                if with > MAX_HTTP_RULES {
                    return Err(Unjoined::Rules(with));
                }
                made = with;
                Ok((object, leaf))
            });
            Joint {
                rule,
                delegation,
                leaf,
            }
        };
        rules.delegations().map(joint).collect()
    }

    /// Of an object in force, the rules that cannot leave their requests to another one, and why.
    pub(crate) fn unjoined(&self, name: &ObjectName, to: &ObjectName) -> Vec<(usize, Unjoined)> {
        let Some((_, rules)) = self.in_force(name) else {
            return Vec::new();
        };
        let joints = self.joints(&name.namespace, rules).into_iter();
        let of = joints.filter(|joint| joint.delegation.to == *to);
        of.filter_map(|joint| Some((joint.rule, joint.leaf.err()?)))
            .collect()
    }

    fn leaf(
        &self,
        namespace: &str,
        rule: &HttpTemplate,
        delegation: &Delegation,
    ) -> Result<(SourceObject, &Rules), Unjoined> {
        let (object, rules) = self.in_force(&delegation.to).ok_or(Unjoined::Missing)?;
        if !rules.export.sees(namespace) {
            return Err(Unjoined::Hidden(namespace.to_owned()));
        }
        if !rules.hosts.is_empty() {
            return Err(Unjoined::HasHosts);
        }
        if rules.delegations().next().is_some() {
            return Err(Unjoined::Delegates);
        }
        let blocks = |leaf: &HttpTemplate| rule.blocks.len() * leaf.blocks.len();
        let too_many = |leaf: &HttpTemplate| blocks(leaf) > MAX_JOINED_BLOCKS;
        match rules.http.iter().position(too_many) {
            Some(leaf) => Err(Unjoined::Blocks(leaf, blocks(&rules.http[leaf]))),
            None => Ok((object, rules)),
        }
    }

    /// Of objects for one host, the oldest first, those whose rules for requests fit into one route. One that does not is
    /// left out as a whole: some of its rules without the others would decide otherwise than it says.
    pub(super) fn fitting<'a>(
        &self,
        objects: impl IntoIterator<Item = (SourceObject, &'a Rules)>,
    ) -> Vec<(SourceObject, &'a Rules)> {
        let mut left = MAX_HTTP_RULES;
        let fits = |(object, rules): &(SourceObject, &'a Rules)| {
            let rest = left.checked_sub(self.made(&object.namespace, rules));
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        objects.into_iter().filter(fits).collect()
    }

    /// How many rules for requests an object makes at most, for one client and port.
    fn made(&self, namespace: &str, rules: &Rules) -> usize {
        let more = |joint: Joint<'_>| Some(joint.leaf.ok()?.1.http.len().saturating_sub(1));
        let joints = self.joints(namespace, rules).into_iter();
        rules.http.len() + joints.filter_map(more).sum::<usize>()
    }
}

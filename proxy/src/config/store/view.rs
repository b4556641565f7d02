//! What `/config` and the metrics show of the store.

use std::collections::BTreeMap;

use api::{Kind, ResourceName};

use super::Store;
use super::content::Held;

/// Where a resource stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Asked for; nothing has arrived.
    Requested,
    /// Arrived; something it names has not.
    Waiting,
    /// In use as it arrived last.
    Active,
    /// The last version was refused; the one before it, if any, is in use.
    Rejected,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Requested, Self::Waiting, Self::Active, Self::Rejected];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Rejected => "rejected",
        }
    }
}

/// One resource, as shown.
#[derive(Debug, serde::Serialize)]
pub(crate) struct ResourceView {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) state: State,
    /// The version in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// What it waits for, why it was rejected, or why it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// When the version in use was applied, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) applied: Option<String>,
    /// Connections open to a destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<u32>,
}

impl Store {
    /// Every resource, in the order of kinds and names.
    pub(crate) fn view(&self) -> Vec<ResourceView> {
        self.held
            .iter()
            .map(|(name, held)| {
                let (state, detail) = self.state(held);
                let usage = (name.kind == Kind::Destination)
                    .then(|| name.name.parse().ok())
                    .flatten()
                    .and_then(|address| self.usage.get(&address));
                ResourceView {
                    kind: name.kind.as_str(),
                    name: name.name.clone(),
                    state,
                    version: held.active.as_ref().map(|a| a.version.to_string()),
                    detail,
                    applied: held.applied.map(crate::access_log::rfc3339),
                    connections: usage.map(|u| u.open()),
                }
            })
            .collect()
    }

    /// Number of resources by kind and state.
    pub(crate) fn counts(&self) -> Vec<(Kind, State, usize)> {
        let every = Kind::ALL
            .into_iter()
            .flat_map(|kind| State::ALL.map(|state| (kind, state)));
        let mut counts: BTreeMap<(Kind, State), usize> = every.map(|key| (key, 0)).collect();
        for (name, held) in &self.held {
            *counts.entry((name.kind, self.state(held).0)).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|((kind, state), n)| (kind, state, n))
            .collect()
    }

    fn state(&self, held: &Held) -> (State, Option<String>) {
        if let Some(rejected) = &held.rejected {
            let detail = format!("version {:016x}: {}", rejected.version, rejected.reason);
            return (State::Rejected, Some(detail));
        }
        if let Some(parked) = &held.parked {
            let is_missing = |n: &&ResourceName| self.held.get(*n).is_none_or(|h| h.active.is_none());
            let needs = parked.content.needs();
            let missing: Vec<String> = needs.iter().filter(is_missing).map(ToString::to_string).collect();
            let detail = if missing.is_empty() {
                format!(
                    "version {} waits until nothing uses the one before it",
                    parked.version
                )
            } else {
                format!("version {} waits for {}", parked.version, missing.join(", "))
            };
            return (State::Waiting, Some(detail));
        }
        match &held.active {
            Some(active) => match &active.content {
                super::content::Content::Absent(reason) => (State::Active, Some(format!("absent: {reason}"))),
                _ => (State::Active, None),
            },
            None => (State::Requested, None),
        }
    }
}

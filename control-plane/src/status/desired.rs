//! What the status of one object is to say: a pure function of the merged status. `write` compares it with what the
//! object has, and writes the difference.

use std::collections::BTreeMap;

use crds::status::{ACCEPTED, PROGRAMMED};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::{ObjectStatus, Refusal, Status, Unreadable};
use crate::push::ObjectKey;
use crate::state::Verdict;

/// Findings, conflicts and warnings that one message has; those beyond them are counted.
const MAX_NOTES: usize = 10;
/// Bytes of one note.
const MAX_NOTE: usize = 1000;
/// Refusals of proxies that one message has.
const MAX_REFUSALS: usize = 3;

/// What a status is to say, but for times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Desired {
    pub(super) generation: i64,
    in_force: Option<i64>,
    pub(super) accepted: Said,
    pub(super) programmed: Said,
    applied_by: u32,
    used_by: u32,
}

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    /// Why, in one word.
    pub(super) reason: &'static str,
    /// Why, in full.
    pub(super) message: String,
}

/// What each of our objects is to say. `silent` are replicas whose proxies are not counted.
pub(super) fn desired(status: &Status, silent: &[String]) -> BTreeMap<ObjectKey, Desired> {
    let ours = status
        .objects
        .iter()
        .filter(|object| super::ledger::api_resource(&object.kind).is_some());
    let mut all: BTreeMap<_, _> = ours.map(|object| (object.key(), of(object, silent))).collect();
    for object in &status.unreadable {
        let Unreadable {
            kind,
            namespace,
            name,
            generation,
            problem,
        } = object;
        let key = ObjectKey {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let said = |in_force| Said {
            status: "False",
            reason: "Invalid",
            message: notes([problem.as_str()]) + &stays(in_force),
        };
        let entry = all.entry(key).or_insert_with(|| Desired {
            generation: *generation,
            in_force: None,
            accepted: said(None),
            programmed: not_in_force(None, ""),
            applied_by: 0,
            used_by: 0,
        });
        // An older version that could be read is what the proxies have.
        if entry.generation != *generation || entry.in_force.is_some() {
            entry.generation = *generation;
            entry.accepted = said(entry.in_force);
            let counts = format!(", {}", counts(entry.applied_by, entry.used_by));
            entry.programmed = not_in_force(entry.in_force, &counts);
        }
    }
    all
}

fn of(object: &ObjectStatus, silent: &[String]) -> Desired {
    let applied_by = u32::try_from(object.applied_by).unwrap_or(u32::MAX);
    let used_by = u32::try_from(object.used_by).unwrap_or(u32::MAX);
    let mut programmed = programmed(object, applied_by, used_by);
    if !silent.is_empty() && object.in_force.is_some() {
        programmed.message += &format!(
            "; the proxies of {} are not counted, because {} not answered",
            silent.join(" and "),
            if silent.len() == 1 { "it has" } else { "they have" }
        );
    }
    Desired {
        generation: object.generation,
        in_force: object.in_force,
        accepted: accepted(object),
        programmed,
        applied_by,
        used_by,
    }
}

fn accepted(object: &ObjectStatus) -> Said {
    let (status, reason) = match object.verdict {
        Verdict::Accepted if !object.conflicts.is_empty() => ("True", "Conflict"),
        Verdict::Accepted if !object.warnings.is_empty() || !object.findings.is_empty() => {
            ("True", "Warning")
        }
        Verdict::Accepted => ("True", "Accepted"),
        Verdict::Invalid => ("False", "Invalid"),
        Verdict::ReferenceMissing => ("False", "ReferenceMissing"),
    };
    let said = [&object.conflicts, &object.findings, &object.warnings];
    let mut message = notes(said.into_iter().flatten().map(String::as_str));
    if object.verdict != Verdict::Accepted {
        message += &stays(object.in_force);
    } else if message.is_empty() {
        message = "in force".to_owned();
    }
    Said {
        status,
        reason,
        message,
    }
}

fn programmed(object: &ObjectStatus, applied_by: u32, used_by: u32) -> Said {
    let counts = counts(applied_by, used_by);
    if object.in_force.is_none() || object.verdict != Verdict::Accepted {
        return not_in_force(object.in_force, &format!(", {counts}"));
    }
    let (status, reason, message) = if !object.refused_by.is_empty() {
        let text = format!("{counts}; {}", refusals(&object.refused_by));
        ("False", "Refused", text)
    } else if used_by == 0 {
        // Neither shown to work nor in anybody's way.
        ("Unknown", "NotUsed", "no connected proxy uses it".to_owned())
    } else if applied_by < used_by {
        ("False", "Waiting", counts)
    } else {
        ("True", "Applied", counts)
    };
    Said {
        status,
        reason,
        message,
    }
}

fn not_in_force(in_force: Option<i64>, counts: &str) -> Said {
    let message = match in_force {
        None => "no generation of it is in force".to_owned(),
        Some(generation) => format!("generation {generation} stays in force{counts}"),
    };
    Said {
        status: "False",
        reason: "NotInForce",
        message,
    }
}

fn stays(in_force: Option<i64>) -> String {
    in_force.map_or(String::new(), |generation| {
        format!("; generation {generation} stays in force")
    })
}

fn counts(applied: u32, used: u32) -> String {
    let proxies = if used == 1 { "proxy" } else { "proxies" };
    format!("applied by {applied} of {used} {proxies}")
}

fn refusals(refused: &[Refusal]) -> String {
    let each = refused.iter().take(MAX_REFUSALS);
    let text: Vec<_> = each
        .map(|r| format!("refused by {}: {}", r.proxy, cut(&r.reason, MAX_NOTE)))
        .collect();
    let more = refused.len().saturating_sub(MAX_REFUSALS);
    text.join("; ")
        + &(if more > 0 {
            format!("; and by {more} more")
        } else {
            String::new()
        })
}

fn notes<'a>(notes: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<&str> = notes.into_iter().collect();
    let each = all.iter().take(MAX_NOTES).map(|note| cut(note, MAX_NOTE));
    let text = each.collect::<Vec<_>>().join("; ");
    match all.len().saturating_sub(MAX_NOTES) {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}

/// At most so many bytes of a text, at the border of a character.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

impl Desired {
    /// Whether an object with this status says it already.
    pub(super) fn is_said_by(&self, observed: &crds::Status) -> bool {
        // With its own times, only what it says is compared.
        self.status(Some(observed), Time(Timestamp::UNIX_EPOCH)) == *observed
    }

    /// Whether only counts differ from what is observed, and not what became of the object.
    pub(super) fn differs_in_counts_only(&self, observed: &crds::Status) -> bool {
        let accepted = observed.condition(ACCEPTED);
        observed.observed_generation == Some(self.generation)
            && accepted.is_some_and(|c| c.status == self.accepted.status && c.reason == self.accepted.reason)
    }

    /// The status to write; a condition whose status stays keeps its time.
    pub(super) fn status(&self, observed: Option<&crds::Status>, now: Time) -> crds::Status {
        let condition = |type_: &str, said: &Said| {
            let before = observed
                .and_then(|status| status.condition(type_))
                .filter(|before| before.status == said.status);
            Condition {
                type_: type_.to_owned(),
                status: said.status.to_owned(),
                reason: said.reason.to_owned(),
                message: said.message.clone(),
                observed_generation: Some(self.generation),
                last_transition_time: before
                    .map_or(now.clone(), |before| before.last_transition_time.clone()),
            }
        };
        crds::Status {
            observed_generation: Some(self.generation),
            in_force_generation: self.in_force,
            conditions: vec![
                condition(ACCEPTED, &self.accepted),
                condition(PROGRAMMED, &self.programmed),
            ],
            applied: Some(format!("{}/{}", self.applied_by, self.used_by)),
            applied_by: Some(self.applied_by),
            used_by: Some(self.used_by),
        }
    }
}

#[cfg(test)]
mod tests;

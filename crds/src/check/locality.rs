//! `localityLbSetting`: which endpoints go before others by where they are.

use super::{Report, shape::labels};
use crate::{
    destination_rule::load_balancer::{Distribute, Failover, LocalitySetting},
    path::At,
};

/// More entries than a mesh has places; each client is compared with all of them.
const MAX_ENTRIES: usize = 256;
/// A client has a level of endpoints for each label.
const MAX_LABELS: usize = 32;

/// `ejects`: there is outlier detection for the same endpoints.
pub(super) fn locality(report: &mut Report, at: At<'_>, setting: &LocalitySetting, ejects: bool) {
    let LocalitySetting {
        distribute,
        failover,
        failover_priority,
        enabled,
    } = setting;
    for (field, set, beside) in [
        ("failover", !failover.is_empty(), "distribute"),
        ("failoverPriority", !failover_priority.is_empty(), "distribute"),
    ] {
        if set && !distribute.is_empty() {
            report.error(at.field(field), format!("cannot stand beside {beside}; keep one"));
        }
    }
    if !failover.is_empty() && !failover_priority.is_empty() {
        report.error(
            at.field("failoverPriority"),
            "cannot stand beside failover; keep one, or name the region among the labels",
        );
    }
    for (field, len, most) in [
        ("distribute", distribute.len(), MAX_ENTRIES),
        ("failover", failover.len(), MAX_ENTRIES),
        ("failoverPriority", failover_priority.len(), MAX_LABELS),
    ] {
        if len > most {
            return report.error(
                at.field(field),
                format!("has {len} entries, and {most} is the most"),
            );
        }
    }
    self::distribute(report, at.field("distribute"), distribute);
    self::failover(report, at.field("failover"), failover);
    priority(report, at.field("failoverPriority"), failover_priority);
    if distribute.is_empty() && *enabled != Some(false) && !ejects {
        report.warning(
            at,
            "does nothing without outlierDetection beside it, which finds out what has failed; add it",
        );
    }
}

fn distribute(report: &mut Report, at: At<'_>, entries: &[Distribute]) {
    let mut before: Vec<&str> = Vec::new();
    for (n, Distribute { from, to }) in entries.iter().enumerate() {
        let at = at.index(n);
        match from {
            Some(from) => place(report, at.field("from"), from, &mut before),
            None => report.error(at.field("from"), "is missing; write a place, or \"*\" for all"),
        }
        let at = at.field("to");
        let mut before: Vec<&str> = Vec::new();
        for (to, share) in to {
            place(report, at.field(to), to, &mut before);
            if !(1..=100).contains(share) {
                report.error(at.field(to), format!("{share} is not a share; use 1 to 100"));
            }
        }
        let sum: u64 = to.values().map(|share| u64::from(*share)).sum();
        if sum != 100 {
            report.error(at, format!("has shares of {sum} in sum; they must be 100"));
        }
    }
}

/// `region/zone/subzone`, of which the last parts may be left out, or be one `*`. Two that have something in common would
/// leave it to their order which counts.
fn place<'a>(report: &mut Report, at: At<'_>, text: &'a str, before: &mut Vec<&'a str>) {
    let parts: Vec<_> = text.split('/').collect();
    let stars = parts.iter().filter(|part| part.contains('*')).count();
    let star_ends = stars == 0 || (stars == 1 && parts.last() == Some(&"*"));
    if parts.len() > 3 || parts.contains(&"") || !star_ends {
        report.error(
            at,
            format!("`{text}` is not a place; use region/zone/subzone, of which the last may be *"),
        );
        return;
    }
    if let Some(other) = before.iter().find(|other| overlap(other, text)) {
        report.error(
            at,
            format!("`{text}` and `{other}` have places in common; make them differ"),
        );
    }
    before.push(text);
}

fn overlap(a: &str, b: &str) -> bool {
    let mut parts = a.split('/').zip(b.split('/'));
    parts.all(|(a, b)| a == b || a == "*" || b == "*")
}

fn failover(report: &mut Report, at: At<'_>, entries: &[Failover]) {
    let mut seen: Vec<&str> = Vec::new();
    for (n, Failover { from, to }) in entries.iter().enumerate() {
        let at = at.index(n);
        for (field, region) in [("from", from), ("to", to)] {
            match region.as_deref() {
                None | Some("") => report.error(at.field(field), "is missing; write a region"),
                Some(region) if region.contains(['/', '*']) => {
                    report.error(
                        at.field(field),
                        format!("`{region}` is not a region alone; write its name"),
                    );
                }
                Some(_) => {}
            }
        }
        if from.is_some() && from == to {
            report.error(at.field("to"), "is the region that fails; write another");
        }
        if let Some(from) = from {
            if seen.contains(&from.as_str()) {
                report.error(
                    at.field("from"),
                    format!("`{from}` is in an earlier entry; keep one"),
                );
            }
            seen.push(from);
        }
    }
}

fn priority(report: &mut Report, at: At<'_>, given: &[String]) {
    let mut seen: Vec<&str> = Vec::new();
    for (n, text) in given.iter().enumerate() {
        let at = at.index(n);
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        labels(report, at, &[(key.to_owned(), value.to_owned())].into());
        if seen.contains(&key) {
            report.error(at, format!("`{key}` is an earlier entry; keep one"));
        }
        seen.push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(yaml: &str, ejects: bool) -> Vec<String> {
        let mut report = Report::default();
        let setting = serde_saphyr::from_str(yaml).unwrap();
        locality(&mut report, At::root("lls"), &setting, ejects);
        let findings = report.finish().into_iter();
        findings
            .map(|finding| format!("{:?} {}", finding.severity, finding.field))
            .collect()
    }

    #[test]
    fn what_no_traffic_could_follow_is_named() {
        for (yaml, expected) in [
            ("{}", &[][..]),
            ("{enabled: false}", &[]),
            (
                "{distribute: [{from: r/z/*, to: {r/z/*: 80, r2: 20}}, {from: r/y, to: {'*': 100}}]}",
                &[],
            ),
            (
                "{distribute: [{from: r, to: {r: 80}}]}",
                &["Error lls.distribute[0].to"],
            ),
            (
                "{distribute: [{from: r, to: {}}]}",
                &["Error lls.distribute[0].to"],
            ),
            (
                "{distribute: [{to: {r: 100}}]}",
                &["Error lls.distribute[0].from"],
            ),
            (
                "{distribute: [{from: '*/z', to: {r: 100}}]}",
                &["Error lls.distribute[0].from"],
            ),
            (
                "{distribute: [{from: r/z/s/x, to: {r: 100}}]}",
                &["Error lls.distribute[0].from"],
            ),
            (
                "{distribute: [{from: r/, to: {r: 100}}]}",
                &["Error lls.distribute[0].from"],
            ),
            (
                "{distribute: [{from: r, to: {r: 100}}, {from: r/z, to: {r: 100}}]}",
                &["Error lls.distribute[1].from"],
            ),
            (
                "{distribute: [{from: r, to: {a: 100, b: 0}}]}",
                &["Error lls.distribute[0].to.b"],
            ),
            (
                "{distribute: [{from: r, to: {a: 50, a/b: 50}}]}",
                &["Error lls.distribute[0].to[\"a/b\"]"],
            ),
            ("{failover: [{from: a, to: b}, {from: b, to: a}]}", &[]),
            ("{failover: [{from: a, to: a}]}", &["Error lls.failover[0].to"]),
            ("{failover: [{from: a}]}", &["Error lls.failover[0].to"]),
            (
                "{failover: [{from: a/b, to: c}]}",
                &["Error lls.failover[0].from"],
            ),
            (
                "{failover: [{from: a, to: b}, {from: a, to: c}]}",
                &["Error lls.failover[1].from"],
            ),
            (
                "{failoverPriority: [topology.kubernetes.io/region, version=v1]}",
                &[],
            ),
            ("{failoverPriority: [a, a=b]}", &["Error lls.failoverPriority[1]"]),
            (
                "{failover: [{from: a, to: b}], failoverPriority: [c]}",
                &["Error lls.failoverPriority"],
            ),
            (
                "{failover: [{from: a, to: b}], distribute: [{from: r, to: {r: 100}}]}",
                &["Error lls.failover"],
            ),
        ] {
            assert_eq!(said(yaml, true), expected, "{yaml}");
        }
        assert_eq!(said("{failoverPriority: [a b]}", true).len(), 1);
    }

    #[test]
    fn failover_without_anything_that_finds_failures_is_warned_of() {
        for (yaml, warned) in [
            ("{}", true),
            ("{enabled: true}", true),
            ("{failover: [{from: a, to: b}]}", true),
            ("{failoverPriority: [a]}", true),
            ("{enabled: false}", false),
            ("{distribute: [{from: r, to: {r: 100}}]}", false),
        ] {
            assert_eq!(said(yaml, false) == ["Warning lls"], warned, "{yaml}");
            assert!(said(yaml, true).is_empty(), "{yaml}");
        }
    }
}

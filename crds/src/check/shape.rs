//! Checks of single values that many fields share: hosts, ports, labels, durations, weights.

use std::{collections::BTreeMap, net::IpAddr};

use super::Report;
use crate::{duration::Duration, path::At, virtual_service::MAX_DESTINATIONS};

/// A service: a short name, or a full one.
pub(super) fn host(report: &mut Report, at: At<'_>, host: &str) {
    if host.contains('*') {
        report.error(
            at,
            "is a wildcard, which can only be a host that rules or policies are for; name one service",
        );
    } else if host.parse::<IpAddr>().is_ok() {
        report.error(at, "is an address; use the name of a service");
    } else if let Some(problem) = dns_problem(host) {
        report.error(at, problem);
    }
}

/// A service, or every one below a name: `*.shop.svc.cluster.local`, `*`.
pub(super) fn host_or_wildcard(report: &mut Report, at: At<'_>, name: &str) {
    match name.strip_prefix("*.") {
        _ if name == "*" => {}
        Some(below) if !below.contains('*') => {
            if let Some(problem) = dns_problem(below) {
                report.error(at, format!("behind the `*.`, it {problem}"));
            }
        }
        _ if name.contains('*') => report.error(
            at,
            "has a `*` that is not a whole part; write `*.` before the names that are meant, or `*` for all",
        ),
        _ => host(report, at, name),
    }
}

/// A name as DNS allows it, or what is wrong with it.
pub(super) fn dns_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty; write a name".to_owned());
    }
    if name.len() > 253 {
        return Some(format!("has {} characters; a name has 253 at most", name.len()));
    }
    if name.ends_with('.') {
        return Some("ends with a dot; leave the dot out".to_owned());
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some("has upper-case letters; write it in lower case".to_owned());
    }
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match name.split('.').all(label) {
        true => None,
        false => Some(
            "is not a name; use letters, digits and `-`, in parts of up to 63 characters joined by dots, \
             without a port"
                .to_owned(),
        ),
    }
}

/// One part of a name: a subset, a namespace.
pub(super) fn label(report: &mut Report, at: At<'_>, name: &str) {
    if let Some(problem) = dns_problem(name) {
        report.error(at, problem);
    } else if name.contains('.') {
        report.error(at, "has a dot; use letters, digits and `-` only");
    }
}

pub(super) fn port(report: &mut Report, at: At<'_>, port: u32) {
    if !(1..=65535).contains(&port) {
        report.error(at, format!("{port} is not a port; use 1 to 65535"));
    }
}

/// Labels as pods carry them. One that no pod can carry would select nothing.
pub(super) fn labels(report: &mut Report, at: At<'_>, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key.as_str()),
        };
        if prefix.is_some_and(|prefix| dns_problem(prefix).is_some()) || !is_label_text(name) {
            report.error(at.field(key), "is not the key of a label; no pod can carry it");
        }
        if !value.is_empty() && !is_label_text(value) {
            report.error(
                at.field(key),
                "has a value that is not one of a label; no pod can carry it",
            );
        }
    }
}

fn is_label_text(text: &str) -> bool {
    let ends = |b: &u8| b.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.first().is_some_and(ends)
        && bytes.last().is_some_and(ends)
        && bytes.iter().all(|b| ends(b) || matches!(b, b'-' | b'_' | b'.'))
}

/// A duration of at least a millisecond.
pub(super) fn at_least_a_millisecond(report: &mut Report, at: At<'_>, duration: Option<Duration>) {
    if duration.is_some_and(|duration| duration < Duration::from_millis(1)) {
        report.error(at, "must be at least 1ms");
    }
}

/// A duration of at least a millisecond, or none at all.
pub(super) fn zero_or_a_millisecond(report: &mut Report, at: At<'_>, duration: Option<Duration>) {
    if duration.is_some_and(|duration| !duration.is_zero() && duration < Duration::from_millis(1)) {
        report.error(at, "must be at least 1ms, or 0s to turn it off");
    }
}

pub(super) fn percent(report: &mut Report, at: At<'_>, percent: Option<f64>) {
    if let Some(percent) = percent
        && !(0.0..=100.0).contains(&percent)
    {
        report.error(at, format!("{percent} is not a percentage; use 0 to 100"));
    }
}

/// A limit for which 0 would leave nothing. Elsewhere 0 means no limit, so it is not taken either way.
pub(super) fn not_zero(report: &mut Report, at: At<'_>, limit: Option<u32>, remedy: &str) {
    if limit == Some(0) {
        report.error(at, format!("must be at least 1; {remedy}"));
    }
}

/// The shares of a rule's destinations.
pub(super) fn weights(report: &mut Report, at: At<'_>, weights: &[Option<i32>]) {
    if weights.len() > MAX_DESTINATIONS {
        let len = weights.len();
        report.error(
            at,
            format!("has {len} destinations; {MAX_DESTINATIONS} is the most"),
        );
    }
    for (n, weight) in weights.iter().enumerate() {
        if let Some(weight) = weight
            && *weight < 0
        {
            report.error(
                at.index(n).field("weight"),
                format!("{weight} is negative; use 0 or more"),
            );
        }
    }
    let sum: i64 = weights.iter().flatten().map(|weight| i64::from(*weight)).sum();
    if weights.len() < 2 {
        return;
    }
    if sum == 0 {
        report.error(
            at,
            "has several destinations whose weights sum up to 0, so that none would get anything; \
             give at least one a weight above 0",
        );
    } else if let Some(n) = weights.iter().position(Option::is_none) {
        report.warning(
            at.index(n).field("weight"),
            "is missing, and counts as 0 beside the others",
        );
    } else if LOOKS_LIKE_PERCENT.contains(&sum) && sum != 100 {
        report.warning(
            at,
            format!(
                "has weights that sum up to {sum}; they are shares of their sum, so make that 100 if \
                 they are meant as percent"
            ),
        );
    }
}

/// A sum of weights by which they are probably meant as percent.
const LOOKS_LIKE_PERCENT: std::ops::RangeInclusive<i64> = 90..=110;

/// Namespaces whose clients an object is for.
pub(super) fn export_to(report: &mut Report, at: At<'_>, export_to: &[String]) {
    for (n, to) in export_to.iter().enumerate() {
        match to.as_str() {
            "*" | "~" if export_to.len() > 1 => {
                let meaning = if to == "*" {
                    "every namespace"
                } else {
                    "no namespace"
                };
                let message =
                    format!("means {meaning}, so nothing can stand beside it; keep one of the entries");
                report.error(at.index(n), message);
            }
            "*" | "~" | "." => {}
            namespace => label(report, at.index(n), namespace),
        }
        if export_to[..n].contains(to) {
            report.error(at.index(n), "is named twice; remove one");
        }
    }
}

/// `gateways`, of which only the default works yet.
pub(super) fn gateways(report: &mut Report, at: At<'_>, gateways: &[String]) {
    let default = gateways.is_empty() || gateways == ["mesh"];
    report.unsupported_if(
        !default,
        at,
        "rules are for the mesh; remove it, or write [\"mesh\"]",
    );
}

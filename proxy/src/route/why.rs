//! Says why a request or a connection was routed as it was: one line for logs and views, written only when somebody
//! reads it. Values come from the configuration, never from the request.

use std::fmt::{self, Display, Formatter};

use api::{Action, HttpMatch, HttpRule, ObjectRef, Split, StringMatch, WeightedCluster};

use super::{Chosen, Decision, Facts, matching};
use crate::config::snapshot::Route;

impl Display for Decision<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            route,
            rule_index,
            rule,
            matched,
            chosen,
        } = *self;
        rule_of(f, &route.name, rule_index, &rule.name, rule.source.as_ref())?;
        f.write_str(": ")?;
        because(f, matched)?;
        match chosen {
            Chosen::Forward { forward, share, .. } => split_of(f, &forward.split, share),
            Chosen::Redirect(redirect) => write!(f, "; redirects with {}", redirect.status.as_u16()),
            Chosen::Direct(direct) => write!(f, "; answers {}", direct.status.as_u16()),
        }
    }
}

/// ``rule `name` (#1) of Kind namespace/name``.
pub(super) fn rule_of(
    f: &mut Formatter<'_>,
    route: &str,
    index: usize,
    name: &str,
    source: Option<&ObjectRef>,
) -> fmt::Result {
    match name {
        "" => write!(f, "rule #{}", index + 1)?,
        name => write!(f, "rule `{name}` (#{})", index + 1)?,
    }
    match source {
        Some(source) => write!(f, " of {source}"),
        None => write!(f, " of the default route of {route}"),
    }
}

fn because(f: &mut Formatter<'_>, matched: Option<&HttpMatch>) -> fmt::Result {
    match matched {
        Some(matched) => conditions(f, matched),
        None => f.write_str("takes every request"),
    }
}

/// `; split 90/10 fell on CLUSTER`.
pub(super) fn split_of(f: &mut Formatter<'_>, split: &Split, fell_on: &WeightedCluster) -> fmt::Result {
    let shares = split.clusters();
    let cluster = &fell_on.cluster;
    if shares.len() == 1 {
        return write!(f, "; goes to {cluster}");
    }
    f.write_str("; split ")?;
    for (i, share) in shares.iter().enumerate() {
        let slash = if i == 0 { "" } else { "/" };
        write!(f, "{slash}{}", share.weight)?;
    }
    write!(f, " fell on {cluster}")
}

fn conditions(f: &mut Formatter<'_>, matched: &HttpMatch) -> fmt::Result {
    let HttpMatch {
        name,
        uri,
        method,
        authority,
        scheme,
        headers,
        without_headers,
        query,
        ignore_uri_case,
    } = matched;
    if !name.is_empty() {
        write!(f, "match `{name}`: ")?;
    }
    let mut first = true;
    let mut condition = |what: &str, name: &str, value: &StringMatch| {
        let comma = if std::mem::take(&mut first) { "" } else { ", " };
        let space = if name.is_empty() { "" } else { " " };
        write!(f, "{comma}{what}{space}{name} {}", Words(value))
    };
    let path = if *ignore_uri_case {
        "path (any case)"
    } else {
        "path"
    };
    for (what, value) in [
        (path, uri),
        ("method", method),
        ("authority", authority),
        ("scheme", scheme),
    ] {
        if let Some(value) = value {
            condition(what, "", value)?;
        }
    }
    for header in headers {
        condition("header", header.name.as_str(), &header.value)?;
    }
    for header in without_headers {
        condition("no header", header.name.as_str(), &header.value)?;
    }
    for parameter in query {
        condition("query parameter", &parameter.name, &parameter.value)?;
    }
    if first {
        f.write_str("a match without conditions")
    } else {
        Ok(())
    }
}

/// The name of a route's rule, with its place and its object.
#[must_use]
pub fn name_of(route: &Route, index: usize) -> String {
    let rule = &route.spec.http[index];
    Told(|f: &mut Formatter<'_>| rule_of(f, &route.name, index, &rule.name, rule.source.as_ref())).to_string()
}

/// Why a rule does not match: for each of its matches, the conditions that do not hold, with what the request has instead.
/// Unlike other words here they show values of the request, so they are for those who made it up.
#[must_use]
pub fn unmet(rule: &HttpRule, facts: &Facts<'_>) -> Vec<String> {
    let matches = rule.matches.iter();
    matches
        .map(|wanted| {
            let name = match wanted.name.as_str() {
                "" => String::new(),
                name => format!("match `{name}`: "),
            };
            let fails = each_alone(wanted)
                .into_iter()
                .filter(|one| !matching::holds(one, facts));
            let told: Vec<_> = fails.map(|one| not_met(&one, facts)).collect();
            name + &told.join(", ")
        })
        .collect()
}

/// The conditions of a match, each as a match of its own.
fn each_alone(wanted: &HttpMatch) -> Vec<HttpMatch> {
    let HttpMatch {
        name: _,
        uri,
        method,
        authority,
        scheme,
        headers,
        without_headers,
        query,
        ignore_uri_case,
    } = wanted;
    let mut alone = Vec::new();
    let mut one = |change: &dyn Fn(&mut HttpMatch)| {
        let mut only = HttpMatch {
            ignore_uri_case: *ignore_uri_case,
            ..HttpMatch::default()
        };
        change(&mut only);
        alone.push(only);
    };
    if uri.is_some() {
        one(&|only| only.uri.clone_from(uri));
    }
    if method.is_some() {
        one(&|only| only.method.clone_from(method));
    }
    if authority.is_some() {
        one(&|only| only.authority.clone_from(authority));
    }
    if scheme.is_some() {
        one(&|only| only.scheme.clone_from(scheme));
    }
    for header in headers {
        one(&|only| only.headers.push(header.clone()));
    }
    for header in without_headers {
        one(&|only| only.without_headers.push(header.clone()));
    }
    for parameter in query {
        one(&|only| only.query.push(parameter.clone()));
    }
    alone
}

/// A single condition that does not hold, and what the request has.
fn not_met(one: &HttpMatch, facts: &Facts<'_>) -> String {
    let has = match one {
        one if one.uri.is_some() => Some(facts.path.to_owned()),
        one if one.method.is_some() => Some(facts.method.to_string()),
        one if one.authority.is_some() => facts.authority.map(str::to_owned),
        one if one.scheme.is_some() => Some(facts.scheme.to_owned()),
        one if !one.query.is_empty() => facts.query.map(str::to_owned),
        one => {
            let header = one.headers.iter().chain(&one.without_headers).next();
            let values = header.map(|wanted| facts.headers.get_all(&wanted.name).iter());
            let values: Vec<_> = values
                .into_iter()
                .flatten()
                .map(|v| String::from_utf8_lossy(v.as_bytes()))
                .collect();
            (!values.is_empty()).then(|| values.join(", "))
        }
    };
    let wanted = Told(|f: &mut Formatter<'_>| conditions(f, one));
    match has {
        Some(has) => format!("{wanted} is not met by {has:?}"),
        None => format!("{wanted} is not met, there is none"),
    }
}

impl<'r> Decision<'r> {
    /// Why the rule matches.
    #[must_use]
    pub fn because(&self) -> String {
        Told(|f: &mut Formatter<'_>| because(f, self.matched)).to_string()
    }

    /// The decision as it would be had chance fallen on each of the shares that get something, with the share of each in
    /// percent.
    pub fn shares(&self) -> impl Iterator<Item = (Decision<'r>, f64)> + use<'r> {
        let decision = *self;
        let split = match &decision.rule.action {
            Action::Forward(_) => decision.route.split(decision.rule_index),
            Action::Redirect(_) | Action::Direct(_) => None,
        };
        split.into_iter().flat_map(move |(split, clusters)| {
            let all = split.clusters().iter().zip(clusters);
            let some = all.filter(|(share, _)| share.weight > 0 || split.clusters().len() == 1);
            some.filter_map(move |(share, cluster)| {
                let Chosen::Forward { forward, .. } = decision.chosen else {
                    return None;
                };
                let chosen = Chosen::Forward {
                    forward,
                    share,
                    cluster,
                };
                let percent = match split.clusters().len() {
                    1 => 100.0,
                    _ => f64::from(share.weight) * 100.0 / f64::from(split.total()),
                };
                Some((Decision { chosen, ..decision }, percent))
            })
        })
    }
}

/// What a function writes.
struct Told<F>(F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Told<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

struct Words<'a>(&'a StringMatch);

impl Display for Words<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            StringMatch::Exact(text) => write!(f, "is {text:?}"),
            StringMatch::Prefix(text) => write!(f, "begins with {text:?}"),
            StringMatch::Regex(pattern) => write!(f, "matches {:?}", pattern.as_str()),
            StringMatch::Present => f.write_str("is present"),
        }
    }
}

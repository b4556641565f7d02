//! Says why a request or a connection was routed as it was: one line for logs and views, written only when somebody
//! reads it. Values come from the configuration, never from the request.

use std::fmt::{self, Display, Formatter};

use api::{HttpMatch, ObjectRef, Split, StringMatch, WeightedCluster};

use super::{Chosen, Decision};

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
        match matched {
            Some(matched) => conditions(f, matched)?,
            None => f.write_str("takes every request")?,
        }
        match chosen {
            Chosen::Forward { forward, share, .. } => split_of(f, &forward.split, share),
            Chosen::Redirect(redirect) => write!(f, "; redirects with {}", redirect.status.as_u16()),
            Chosen::Direct(direct) => write!(f, "; answers {}", direct.status.as_u16()),
        }
    }
}

/// ``rule `name` (#1) of Kind namespace/name: ``.
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
        Some(source) => write!(f, " of {source}: "),
        None => write!(f, " of the default route of {route}: "),
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

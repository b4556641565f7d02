//! Routes requests and connections: the first rule that matches decides, and where it splits, chance decides by weight.
//! The outbound path calls [`select`] for each request and [`select_tcp`] for each opaque connection, then acts on the
//! decision; [`rewritten`] and [`location`] work out the new URIs. Nothing is changed, sent or allocated on the way to a
//! decision: it borrows from the route, and says why only when somebody reads it.
//!
//! Meaning of the conditions (see [`api::HttpMatch`] for the fields):
//!
//! - The **path** is compared as it came, without normalising or decoding it, and without the query. A prefix is a text
//!   prefix: `/api` covers `/apix`.
//! - The **authority** is compared without regard to case, with its port if it has one.
//! - A **header** condition holds when one of the values of that name meets it. Values that are not UTF-8 are only
//!   *present*. `host` finds the authority where HTTP/2 has no such header.
//! - A **query parameter** condition holds when one of the values of that name meets it, as written or percent-decoded.
//! - What a request does not have meets no condition, not even *present*.

use std::sync::Arc;

use api::{Action, DirectResponse, Forward, HttpMatch, HttpRule, Redirect, Split, WeightedCluster};
use http::{HeaderMap, Method, Request};
use rand::{Rng, RngExt};

use crate::config::snapshot::{Cluster, Route};
use crate::error::Error;
use crate::message;
use index::Entry;

mod index;
mod matching;
mod redirect;
mod rewrite;
mod tcp;
#[cfg(test)]
pub(crate) mod testing;
mod why;

pub use index::Index;
pub(crate) use matching::decoded;
pub use redirect::location;
pub use rewrite::rewritten;
pub use tcp::{TcpDecision, select_tcp};
pub use why::{name_of, unmet};

/// What rules look at in a request.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path as it came, without the query.
    pub path: &'a str,
    /// Its query, without the `?`.
    pub query: Option<&'a str>,
    /// `:authority` or `Host`.
    pub authority: Option<&'a str>,
    /// Its scheme, in lower case.
    pub scheme: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

impl<'a> Facts<'a> {
    /// Those of a request.
    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            authority: message::authority(request),
            // What reaches a proxy as HTTP is in the clear; the application's own TLS is not opened.
            scheme: "http",
            headers: request.headers(),
        }
    }
}

/// The rule that a request falls under, and what it does with the request. `Display` says why.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'r> {
    route: &'r Route,
    /// Position of the rule in the route.
    pub rule_index: usize,
    /// The rule.
    pub rule: &'r HttpRule,
    /// Which of the rule's matches it was; `None` for a rule that takes every request.
    pub matched: Option<&'r HttpMatch>,
    /// What it does.
    pub chosen: Chosen<'r>,
}

/// What a rule does with a request, with the split decided.
#[derive(Debug, Clone, Copy)]
pub enum Chosen<'r> {
    /// Send it to an endpoint of a cluster.
    Forward {
        /// The rule's settings.
        forward: &'r Forward,
        /// The share of the split that chance fell on.
        share: &'r WeightedCluster,
        /// Its cluster.
        cluster: &'r Arc<Cluster>,
    },
    /// Answer with a redirect.
    Redirect(&'r Redirect),
    /// Answer with a fixed response.
    Direct(&'r DirectResponse),
}

impl<'r> Decision<'r> {
    /// The clusters of the rule's mirrors, in their order.
    #[must_use]
    pub fn mirror_clusters(&self) -> &'r [Arc<Cluster>] {
        match self.chosen {
            Chosen::Forward { forward, .. } if !forward.mirrors.is_empty() => {
                let clusters = self.route.http.get(self.rule_index);
                let behind = clusters.and_then(|all| all.get(forward.split.clusters().len()..));
                behind.unwrap_or_default()
            }
            Chosen::Forward { .. } | Chosen::Redirect(_) | Chosen::Direct(_) => &[],
        }
    }
}

/// The rule that a request falls under.
///
/// # Errors
/// [`Error::NoRoute`] when no rule matches.
pub fn select<'r>(route: &'r Route, facts: &Facts<'_>, rng: &mut impl Rng) -> Result<Decision<'r>, Error> {
    let Some((rule_index, rule, matched)) = first_match(route, facts) else {
        return Err(Error::NoRoute {
            route: Arc::clone(&route.name),
        });
    };
    let chosen = match &rule.action {
        Action::Forward(forward) => {
            let clusters = route.http.get(rule_index).map_or(&[][..], Vec::as_slice);
            let (share, cluster) = roll(&forward.split, clusters, rng)?;
            Chosen::Forward {
                forward,
                share,
                cluster,
            }
        }
        Action::Redirect(redirect) => Chosen::Redirect(redirect),
        Action::Direct(direct) => Chosen::Direct(direct),
    };
    Ok(Decision {
        route,
        rule_index,
        rule,
        matched,
        chosen,
    })
}

/// Where a route has many matches, its index says which are worth a look; otherwise they are looked at one after the
/// other. The answer is the same.
fn first_match<'r>(
    route: &'r Route,
    facts: &Facts<'_>,
) -> Option<(usize, &'r HttpRule, Option<&'r HttpMatch>)> {
    match &route.index {
        Some(index) => indexed(index, &route.spec.http, facts),
        None => one_by_one(&route.spec.http, facts),
    }
}

fn one_by_one<'r>(
    rules: &'r [HttpRule],
    facts: &Facts<'_>,
) -> Option<(usize, &'r HttpRule, Option<&'r HttpMatch>)> {
    rules.iter().enumerate().find_map(|(index, rule)| {
        if rule.matches.is_empty() {
            return Some((index, rule, None));
        }
        let matched = rule.matches.iter().find(|m| matching::holds(m, facts))?;
        Some((index, rule, Some(matched)))
    })
}

fn indexed<'r>(
    index: &Index,
    rules: &'r [HttpRule],
    facts: &Facts<'_>,
) -> Option<(usize, &'r HttpRule, Option<&'r HttpMatch>)> {
    let of = |Entry { rule, matched }| {
        let index = rule as usize;
        let rule = &rules[index];
        (
            index,
            rule,
            matched.map(|matched| &rule.matches[matched as usize]),
        )
    };
    let holds = |entry| of(entry).2.is_none_or(|wanted| matching::holds(wanted, facts));
    index.first(facts, holds).map(of)
}

/// Lets chance decide between the clusters of a split, where there is a choice.
fn roll<'r>(
    split: &'r Split,
    clusters: &'r [Arc<Cluster>],
    rng: &mut impl Rng,
) -> Result<(&'r WeightedCluster, &'r Arc<Cluster>), Error> {
    let shares = split.clusters();
    let index = if shares.len() == 1 {
        0
    } else {
        split.index_of(rng.random_range(0..split.total()))
    };
    let share = &shares[index];
    match clusters.get(index) {
        Some(cluster) => Ok((share, cluster)),
        // A snapshot resolves every cluster of its routes. Should one be missing all the same, its name is worth more
        // to an operator than a dead worker.
        None => Err(Error::NoEndpoint {
            cluster: share.cluster.as_str().into(),
            absent: None,
        }),
    }
}

#[cfg(test)]
mod tests;

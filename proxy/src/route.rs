//! Which rule a request or a connection follows: the first that matches, and the share of its split that chance falls on.
//! Called once a request by `outbound::http` and once a connection by `outbound::opaque`. Pure functions of the route and
//! the facts; they return why together with what, and allocate nothing.

mod matching;
mod rewrite;

use std::fmt;
use std::sync::Arc;

use api::{Action, DirectResponse, Forward, HttpMatch, HttpRule, Redirect, TcpRule, WeightedCluster};
use http::{HeaderMap, Method, Request};
use rand::{Rng, RngExt as _};

use crate::config::snapshot::{Cluster, Route};
use crate::error::Error;
use crate::message;

pub use rewrite::{location, rewritten};

/// What rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path, without the query.
    pub path: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
    /// Host, with its port if it has one.
    pub authority: Option<&'a str>,
    /// `http`, or `https`.
    pub scheme: &'a str,
    /// Headers.
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

/// What a rule does with a request.
#[derive(Debug, Clone, Copy)]
pub enum Chosen<'a> {
    /// Send it.
    Forward {
        /// The rule's settings.
        forward: &'a Forward,
        /// The share of the split that chance fell on.
        share: &'a WeightedCluster,
        /// Its cluster.
        cluster: &'a Arc<Cluster>,
    },
    /// Answer with a redirect.
    Redirect(&'a Redirect),
    /// Answer with a fixed response.
    Direct(&'a DirectResponse),
}

/// What was decided, and why (`Display`).
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// Position of the rule in its route.
    pub rule_index: usize,
    /// The rule.
    pub rule: &'a HttpRule,
    /// The match that held; `None` for a rule that takes every request.
    pub matched: Option<&'a HttpMatch>,
    /// What it does.
    pub chosen: Chosen<'a>,
}

/// Decides what happens to a request.
///
/// # Errors
/// When no rule matches.
pub fn select<'a>(route: &'a Route, facts: &Facts<'_>, rng: &mut impl Rng) -> Result<Decision<'a>, Error> {
    for (rule_index, rule) in route.spec.http.iter().enumerate() {
        let matched = if rule.matches.is_empty() {
            None
        } else {
            match rule.matches.iter().find(|m| matching::holds(m, facts)) {
                Some(matched) => Some(matched),
                None => continue,
            }
        };
        let chosen = match &rule.action {
            Action::Forward(forward) => {
                let index = roll(forward.split.total(), rng, |roll| forward.split.index_of(roll));
                let share = &forward.split.clusters()[index];
                let cluster = route
                    .http
                    .get(rule_index)
                    .and_then(|clusters| clusters.get(index));
                let cluster = cluster.ok_or_else(|| Error::NoRoute {
                    route: Arc::clone(&route.name),
                })?;
                Chosen::Forward {
                    forward,
                    share,
                    cluster,
                }
            }
            Action::Redirect(redirect) => Chosen::Redirect(redirect),
            Action::Direct(direct) => Chosen::Direct(direct),
        };
        return Ok(Decision {
            rule_index,
            rule,
            matched,
            chosen,
        });
    }
    Err(Error::NoRoute {
        route: Arc::clone(&route.name),
    })
}

/// Chance is asked only where there is a choice.
fn roll(total: u32, rng: &mut impl Rng, index_of: impl FnOnce(u32) -> usize) -> usize {
    if total == 1 {
        index_of(0)
    } else {
        index_of(rng.random_range(0..total))
    }
}

/// What was decided for a connection.
#[derive(Debug, Clone, Copy)]
pub struct TcpDecision<'a> {
    /// Position of the rule in its route.
    pub rule_index: usize,
    /// The rule.
    pub rule: &'a TcpRule,
    /// Where it goes.
    pub cluster: &'a Arc<Cluster>,
}

/// Decides where a connection without visible requests goes. `sni` is the server name of its TLS, in lower case.
///
/// # Errors
/// When no rule takes it.
pub fn select_tcp<'a>(
    route: &'a Route,
    sni: Option<&str>,
    rng: &mut impl Rng,
) -> Result<TcpDecision<'a>, Error> {
    let no_route = || Error::NoRoute {
        route: Arc::clone(&route.name),
    };
    let takes = |rule: &TcpRule| {
        rule.sni.is_empty() || sni.is_some_and(|name| rule.sni.iter().any(|s| is_sni(s, name)))
    };
    let (rule_index, rule) = route
        .spec
        .tcp
        .iter()
        .enumerate()
        .find(|(_, rule)| takes(rule))
        .ok_or_else(no_route)?;
    let index = roll(rule.split.total(), rng, |roll| rule.split.index_of(roll));
    let cluster = route
        .tcp
        .get(rule_index)
        .and_then(|clusters| clusters.get(index))
        .ok_or_else(no_route)?;
    Ok(TcpDecision {
        rule_index,
        rule,
        cluster,
    })
}

/// `*.suffix` stands for one or more labels before the suffix.
fn is_sni(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => pattern == name,
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule #{}", self.rule_index + 1)?;
        if !self.rule.name.is_empty() {
            write!(f, " `{}`", self.rule.name)?;
        }
        match &self.rule.source {
            Some(source) => write!(f, " of {source}")?,
            None => f.write_str(" that every Service has")?,
        }
        match self.matched {
            Some(matched) => write!(f, ": {}", matching::Why(matched))?,
            None => f.write_str(": takes every request")?,
        }
        match self.chosen {
            Chosen::Forward {
                forward,
                share,
                cluster,
            } if forward.split.clusters().len() > 1 => {
                write!(
                    f,
                    "; the split fell on {} ({} of {})",
                    cluster.name,
                    share.weight,
                    forward.split.total()
                )
            }
            Chosen::Forward { cluster, .. } => write!(f, "; to {}", cluster.name),
            Chosen::Redirect(_) => f.write_str("; redirected"),
            Chosen::Direct(direct) => write!(f, "; answered with {}", direct.status),
        }
    }
}

#[cfg(test)]
mod tests;

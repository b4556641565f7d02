//! What would become of a request, and why, without sending it. The admin server asks it of the live snapshot, the command
//! line of a snapshot that it compiled from a folder.
//!
//! It decides nothing by itself: the rule comes from `route::select`, changes and own answers from `outbound::choice`, keys
//! and gates from `balancer`. Chance is left open where it decides: a split is told with all of its shares.

mod policies;
mod text;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use rand::Rng;
use serde::Serialize;
use tokio::time::Instant;

use crate::balancer::{self, Key, Standing};
use crate::breaker;
use crate::config::snapshot::{Cluster, Destination, Endpoint, Route, Snapshot};
use crate::cors::{self, Verdict};
use crate::message;
use crate::outbound::choice::Choice;
use crate::route::{self, Chosen, Decision, Facts};

/// Rules that did not match are told one by one up to so many.
const SHOWN_RULES: usize = 50;

/// What would become of a request.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The request, as in `GET http://reviews:8080/`.
    request: String,
    /// The address that is dialled.
    dialled: String,
    /// What stands there.
    destination: String,
    /// Rules before the one that decides, and why they do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<Rule>,
    /// More of those.
    #[serde(skip_serializing_if = "is_zero")]
    passed_over_more: usize,
    /// The rule that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule>,
    /// What becomes of the request.
    outcome: String,
    /// Where it may go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clusters: Vec<Target>,
}

/// A rule.
#[derive(Debug, Serialize)]
struct Rule {
    /// Its name, place and object.
    name: String,
    /// Why it matches, or each condition that is not met.
    because: Vec<String>,
    /// What it asks for beside a destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<String>,
}

/// A cluster that the request may go to.
#[derive(Debug, Serialize)]
struct Target {
    name: String,
    /// Its share of the requests, in percent.
    share: f64,
    /// It gets copies, and its answers are dropped.
    mirror: bool,
    /// The objects that shaped it.
    sources: Vec<String>,
    policies: Vec<String>,
    /// There is no such cluster, or no endpoints of it, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<String>,
    endpoints: Vec<Candidate>,
}

/// An endpoint of it.
#[derive(Debug, Serialize)]
struct Candidate {
    address: String,
    pod: String,
    zone: String,
    weight: u32,
    /// The identity it must prove in mutual TLS.
    identity: Option<String>,
    breaker: &'static str,
    ejected: bool,
    active: u32,
    /// Whether it may be chosen now, and why not.
    standing: String,
    /// A key of the request leads to it.
    key: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What would become of a request of `client` that dials `address`, as things stand now.
#[must_use]
pub fn now(snapshot: &Snapshot, address: SocketAddr, request: &Request<()>, client: IpAddr) -> Explanation {
    explain(
        snapshot,
        address,
        request,
        client,
        &mut rand::rng(),
        Instant::now(),
    )
}

fn explain(
    snapshot: &Snapshot,
    address: SocketAddr,
    request: &Request<()>,
    client: IpAddr,
    rng: &mut impl Rng,
    now: Instant,
) -> Explanation {
    let mut told = Explanation {
        request: format!(
            "{} http://{}{}",
            request.method(),
            message::authority(request).unwrap_or_default(),
            request.uri()
        ),
        dialled: address.to_string(),
        destination: String::new(),
        passed_over: Vec::new(),
        passed_over_more: 0,
        rule: None,
        outcome: String::new(),
        clusters: Vec::new(),
    };
    let asked = Asked { request, client, now };
    match snapshot.destination(address).map(|entry| &entry.destination) {
        Some(Destination::Service(route)) => asked.route(route, rng, &mut told),
        Some(Destination::Workload(workload)) => {
            told.destination = "a pod, dialled by its own address: no rules apply".to_owned();
            "is sent to it".clone_into(&mut told.outcome);
            let choice = Choice::only(&workload.cluster);
            told.clusters
                .push(asked.target(choice.cluster, None, 100.0, false, rng));
        }
        Some(Destination::Passthrough) => {
            "outside the mesh".clone_into(&mut told.destination);
            "is passed on to the dialled address as it is".clone_into(&mut told.outcome);
        }
        Some(Destination::Refuse(reason)) => {
            "an address that may not be dialled".clone_into(&mut told.destination);
            told.outcome = format!("is refused: {reason}");
        }
        None => {
            "not known: nothing has dialled it yet, or not for a while".clone_into(&mut told.destination);
            "waits until the operator has said what stands there".clone_into(&mut told.outcome);
        }
    }
    told
}

/// The request as an application would send it: the host of `url` in a header, unless one is there.
///
/// # Errors
/// When `url` is none.
pub fn request(method: Method, url: &Uri, headers: HeaderMap) -> Result<Request<()>, http::Error> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).body(())?;
    *request.headers_mut() = headers;
    if let (None, Some(authority)) = (request.headers().get(header::HOST), url.authority()) {
        let host = HeaderValue::try_from(authority.as_str())?;
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(request)
}

/// The address behind which a snapshot has the Service of a host, as a pod of `namespace` would name it.
#[must_use]
pub fn address_of(snapshot: &Snapshot, host: &str, port: u16, namespace: &str) -> Option<SocketAddr> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Some(SocketAddr::new(address, port));
    }
    let full = [
        host.trim_end_matches('.').to_ascii_lowercase(),
        format!("{host}.{namespace}.{}", api::names::SERVICE_SUFFIX),
        format!("{host}.{}", api::names::SERVICE_SUFFIX),
        format!("{host}.cluster.local"),
    ]
    .map(|host| format!("{host}:{port}").to_ascii_lowercase());
    let found = snapshot.destinations.iter().filter_map(|(address, entry)| {
        let Destination::Service(route) = &entry.destination else {
            return None;
        };
        let rank = full.iter().position(|name| **name == *route.name)?;
        Some((rank, *address))
    });
    found.min().map(|(_, address)| address)
}

/// A request that somebody asks about.
#[derive(Clone, Copy)]
struct Asked<'a> {
    request: &'a Request<()>,
    client: IpAddr,
    now: Instant,
}

impl Asked<'_> {
    fn route(self, route: &Route, rng: &mut impl Rng, told: &mut Explanation) {
        told.destination = format!("route {}", route.name);
        let facts = Facts::of(self.request);
        let decision = match route::select(route, &facts, rng) {
            Ok(decision) => decision,
            Err(error) => {
                told.pass_over(route, route.spec.http.len(), &facts);
                told.outcome = format!("is answered with {}: {error}", error.status());
                return;
            }
        };
        told.pass_over(route, decision.rule_index, &facts);
        told.rule = Some(Rule {
            name: route::name_of(route, decision.rule_index),
            because: vec![decision.because()],
            policies: policies::of_rule(decision.rule),
        });
        if let Some(cors) = &decision.rule.cors
            && matches!(cors::decide(cors, self.request), Verdict::Answered(_))
        {
            "is a preflight, and answered by the proxy".clone_into(&mut told.outcome);
            return;
        }
        match Choice::of(&decision, self.request) {
            Ok(_) => {
                self.targets(&decision, rng, told);
                told.outcome = match told.clusters.iter().filter(|c| !c.mirror).count() {
                    1 => "is sent to an endpoint of the cluster".to_owned(),
                    _ => "is sent to an endpoint of one of the clusters, by chance".to_owned(),
                };
            }
            Err(own) => told.outcome = answer(&own),
        }
    }

    /// Each share of the split, and the mirrors.
    fn targets(self, decision: &Decision<'_>, rng: &mut impl Rng, told: &mut Explanation) {
        for (decision, share) in decision.shares() {
            // The rule's own answers were dealt with.
            let Ok(choice) = Choice::of(&decision, self.request) else {
                continue;
            };
            told.clusters
                .push(self.target(choice.cluster, Some(&choice), share, false, rng));
        }
        let Chosen::Forward { forward, .. } = decision.chosen else {
            return;
        };
        for (cluster, mirror) in decision.mirror_clusters().iter().zip(&forward.mirrors) {
            let share = mirror.share.percent();
            told.clusters.push(self.target(cluster, None, share, true, rng));
        }
    }

    fn target(
        self,
        cluster: &Arc<Cluster>,
        choice: Option<&Choice<'_>>,
        share: f64,
        mirror: bool,
        rng: &mut impl Rng,
    ) -> Target {
        let mut changed = self.request.clone();
        if let Some(choice) = choice {
            choice.change_request(&mut changed);
        }
        let hash = Key::of(cluster, &changed, self.client, rng).brought();
        let key = hash.and_then(|hash| balancer::leads_to(cluster, hash, rng, self.now));
        let standings = balancer::standings(cluster, self.now);
        let endpoints = cluster.endpoints.iter().zip(standings).enumerate();
        Target {
            name: cluster.name.to_string(),
            share,
            mirror,
            sources: cluster.spec.sources.iter().map(ToString::to_string).collect(),
            policies: policies::of_cluster(&cluster.spec),
            absent: cluster.absent.as_ref().map(ToString::to_string),
            endpoints: endpoints
                .map(|(i, (endpoint, standing))| self.candidate(endpoint, standing, key == Some(i)))
                .collect(),
        }
    }

    fn candidate(self, endpoint: &Endpoint, standing: Standing, key: bool) -> Candidate {
        let (spec, live) = (&endpoint.spec, &endpoint.live);
        Candidate {
            address: spec.address.to_string(),
            pod: spec.pod.clone(),
            zone: spec.zone.clone(),
            weight: spec.weight,
            identity: spec.identity.as_ref().map(ToString::to_string),
            breaker: match live.breaker.state(self.now) {
                breaker::State::Closed { .. } => "closed",
                breaker::State::HalfOpen { .. } => "half_open",
                breaker::State::Open { .. } => "open",
            },
            ejected: live.outlier.is_ejected(self.now),
            active: live.active.load(std::sync::atomic::Ordering::Relaxed),
            standing: standing.to_string(),
            key,
        }
    }
}

impl Explanation {
    /// Tells of the first `count` rules of a route, none of which matches.
    fn pass_over(&mut self, route: &Route, count: usize, facts: &Facts<'_>) {
        self.passed_over_more = count.saturating_sub(SHOWN_RULES);
        self.passed_over = (0..count.min(SHOWN_RULES))
            .map(|index| Rule {
                name: route::name_of(route, index),
                because: route::unmet(&route.spec.http[index], facts),
                policies: Vec::new(),
            })
            .collect();
    }
}

fn answer(own: &Response<bytes::Bytes>) -> String {
    let status = own.status().as_u16();
    let location = own
        .headers()
        .get(header::LOCATION)
        .map(|location| location.to_str());
    match location {
        Some(Ok(location)) => format!("is answered by the proxy with {status}, to {location}"),
        Some(Err(_)) | None => format!("is answered by the proxy with {status}"),
    }
}

#[cfg(test)]
mod tests;

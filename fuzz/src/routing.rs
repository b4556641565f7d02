//! The router's check: for any route that the proxy would take and any request that it would read, the decision is the
//! first rule that matches, and can be said and carried out.

use std::sync::Arc;

use api::{Action, Resource, ResourceName, Split, proto};
use http::Request;
use prost::Message as _;
use proxy::balancer::Weights;
use proxy::config::snapshot::{Cluster, Route};
use proxy::live::ClusterLive;
use proxy::route::{Chosen, Facts, Index, location, rewritten, select, select_tcp};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

/// Two bytes with the length of a `Route` message, the message, then a request as text: a line `METHOD target`, and lines
/// `name: value`.
pub(crate) fn input(route: &proto::Route, request: &str) -> Vec<u8> {
    let route = route.encode_to_vec();
    let length = u16::try_from(route.len()).expect("a seed is small").to_be_bytes();
    [&length, &route[..], request.as_bytes()].concat()
}

/// The route and the request of the input, where it has both.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Route, Request<()>)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (route, text) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let spec = api::Route::try_from(proto::Route::decode(route).ok()?).ok()?;
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        request = request.header(name, value);
    }
    Some((resolved(spec), request.body(()).ok()?))
}

/// The route with the clusters it names, as the store makes it.
fn resolved(spec: api::Route) -> Route {
    let clusters = |split: &Split| {
        let named = split.clusters().iter().map(|share| {
            let name = share.cluster.as_str();
            Arc::new(Cluster {
                name: name.into(),
                spec: Arc::new(api::Cluster::of(name)),
                endpoints: Vec::new(),
                weights: Weights::default(),
                live: Arc::new(ClusterLive::new(name)),
                absent: None,
            })
        });
        named.collect::<Vec<_>>()
    };
    let name = ResourceName::new(api::Kind::Route, "reviews.shop:80");
    let version = Resource::new(name.clone(), api::Body::Route(Box::new(spec.clone()))).version;
    Route {
        name: name.name.as_str().into(),
        version,
        http: spec
            .http
            .iter()
            .map(|rule| match &rule.action {
                Action::Forward(forward) => clusters(&forward.split),
                Action::Redirect(_) | Action::Direct(_) => Vec::new(),
            })
            .collect(),
        tcp: spec.tcp.iter().map(|rule| clusters(&rule.split)).collect(),
        index: Index::of(&spec.http),
        spec: Arc::new(spec),
    }
}

/// The first rule that matches decides, chance falls only on clusters with a share, and what was decided can be told and
/// carried out.
///
/// # Panics
/// When that does not hold.
pub fn route_select(bytes: &[u8]) {
    let Some((route, request)) = parse(bytes) else {
        return;
    };
    let facts = Facts::of(&request);
    let rng = || SmallRng::seed_from_u64(bytes.len() as u64);
    let takes_all = |rule: &api::HttpRule| rule.matches.is_empty();
    match select(&route, &facts, &mut rng()) {
        Ok(decision) => {
            let before = &route.spec.http[..decision.rule_index];
            assert!(
                !before.iter().any(takes_all),
                "an earlier rule takes every request"
            );
            let same = |m: &api::HttpMatch| decision.matched.is_some_and(|matched| std::ptr::eq(m, matched));
            assert!(takes_all(decision.rule) || decision.rule.matches.iter().any(same));
            check_action(&decision.chosen, decision.matched, &facts);
            let again = select(&route, &facts, &mut rng()).expect("the same input, the same decision");
            assert_eq!(decision.to_string(), again.to_string());
        }
        Err(error) => {
            assert!(
                !route.spec.http.iter().any(takes_all),
                "a rule takes every request, and yet: {error}"
            );
        }
    }
    for sni in [None, facts.authority] {
        if let Ok(decision) = select_tcp(&route, sni, &mut rng()) {
            assert!(
                sni.is_some() || decision.rule.sni.is_empty(),
                "no name matched a rule that asks for one"
            );
            let names =
                |share: &api::WeightedCluster| share.weight > 0 && *share.cluster == *decision.cluster.name;
            assert!(decision.rule.split.clusters().iter().any(names));
        }
    }
}

fn check_action(chosen: &Chosen<'_>, matched: Option<&api::HttpMatch>, facts: &Facts<'_>) {
    match chosen {
        Chosen::Forward {
            forward,
            share,
            cluster,
        } => {
            assert!(share.weight > 0, "a cluster without a share was chosen");
            assert_eq!(*share.cluster, *cluster.name);
            let rewritten = |r| rewritten(r, matched, facts.path, facts.query).ok().flatten();
            if let Some(path) = forward.rewrite.as_ref().and_then(rewritten) {
                assert!(path.as_str().starts_with('/'), "{path}");
                assert_eq!(path.query().is_some(), path.as_str().contains('?'));
            }
        }
        Chosen::Redirect(redirect) => {
            let location = location(redirect, matched, facts).expect("what was read can be sent");
            assert!(location.to_str().is_ok(), "{location:?}");
        }
        Chosen::Direct(direct) => assert!(direct.status.as_u16() >= 200),
    }
}

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use api::{Action, HttpMatch, NamedMatch, Redirect, StringMatch};
use http::StatusCode;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::balancer::Outcome;
use crate::balancer::{Wanted, pick};
use crate::config::snapshot::Destination;
use crate::route::testing;
use crate::testing::{SERVICE, cluster, destination, forward};

fn request(method: &str, path: &str) -> Request<()> {
    let url = format!("http://reviews.shop{path}").parse().unwrap();
    super::request(method.parse().unwrap(), &url, HeaderMap::new()).unwrap()
}

fn told(snapshot: &Snapshot, request: &Request<()>) -> Explanation {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut rng = SmallRng::seed_from_u64(1);
    explain(snapshot, SERVICE, request, client, &mut rng, Instant::now())
}

fn endpoints() -> [SocketAddr; 2] {
    ["10.0.0.1:80", "10.0.0.2:80"].map(|address| address.parse().unwrap())
}

/// A rule for a path and a header, one for a method, and one that splits the rest.
fn several() -> Snapshot {
    let header = NamedMatch {
        name: http::HeaderName::from_static("x-user"),
        value: StringMatch::Exact("alice".to_owned()),
    };
    let path_and_header = HttpMatch {
        name: "testers".to_owned(),
        uri: Some(StringMatch::Prefix("/api".to_owned())),
        headers: vec![header],
        ..HttpMatch::default()
    };
    let method = HttpMatch {
        method: Some(StringMatch::Exact("POST".to_owned())),
        ..HttpMatch::default()
    };
    let redirect = Action::Redirect(Redirect {
        uri: Some("/elsewhere".to_owned()),
        prefix_rewrite: None,
        authority: None,
        scheme: None,
        port: None,
        status: StatusCode::FOUND,
    });
    let mut named = testing::rule(vec![path_and_header], &[("v3", 1)]);
    named.name = "first".to_owned();
    let rules = vec![
        named,
        testing::acting(vec![method], redirect),
        testing::rule(vec![], &[("v1", 90), ("v2", 10), ("off", 0)]),
    ];
    destination(Destination::Service(Arc::new(testing::route(rules, vec![]))))
}

#[test]
fn rules_before_the_one_that_decides_say_which_condition_is_not_met() {
    let mut asked = request("GET", "/api/x");
    asked
        .headers_mut()
        .insert("x-user", http::HeaderValue::from_static("bob"));
    let text = told(&several(), &asked).to_string();
    assert_eq!(
        text,
        "  request  GET http://reviews.shop/api/x\n    \
         dials  10.96.0.1:80: route reviews.shop:80\n      \
         not  rule `first` (#1) of the default route of reviews.shop:80: match `testers`: header x-user is \"alice\" is not met by \"bob\"\n      \
         not  rule #2 of the default route of reviews.shop:80: method is \"POST\" is not met by \"GET\"\n     \
         rule  rule #3 of the default route of reviews.shop:80: takes every request\n           \
         no timeout\n           \
         up to 2 retries on connect-failure,refused-stream, within the retry budget\n    \
         so it  is sent to an endpoint of one of the clusters, by chance\n\n     \
         90 %  v1\n           \
         no DestinationRule: every policy is the default\n           \
         balancer: least request\n           \
         mutual TLS where the endpoint has an identity\n           \
         connects within 10s\n           \
         retry budget: 20 % of the requests under way, and at least 3\n           \
         nothing to send it to: it has no endpoints\n\n     \
         10 %  v2\n           \
         no DestinationRule: every policy is the default\n           \
         balancer: least request\n           \
         mutual TLS where the endpoint has an identity\n           \
         connects within 10s\n           \
         retry budget: 20 % of the requests under way, and at least 3\n           \
         nothing to send it to: it has no endpoints\n"
            .replace("10.96.0.1:80", &SERVICE.to_string())
    );
}

#[test]
fn the_rule_is_the_one_that_a_request_would_fall_under() {
    let snapshot = several();
    for (method, path, user, rule, outcome) in [
        (
            "GET",
            "/api",
            Some("alice"),
            Some("`first`"),
            "is sent to an endpoint of the cluster",
        ),
        ("POST", "/", None, Some("#2"), "is answered by the proxy with 302"),
        ("GET", "/", Some("alice"), Some("#3"), "by chance"),
    ] {
        let mut asked = request(method, path);
        if let Some(user) = user {
            asked
                .headers_mut()
                .insert("x-user", http::HeaderValue::from_static(user));
        }
        let told = told(&snapshot, &asked);
        let name = told.rule.as_ref().map(|rule| rule.name.clone());
        assert!(name.is_some_and(|name| name.contains(rule.unwrap())), "{told:#?}");
        assert!(told.outcome.contains(outcome), "{told:#?}");
        let shares: f64 = told.clusters.iter().map(|cluster| cluster.share).sum();
        assert!(
            told.clusters.is_empty() || (shares - 100.0).abs() < 1e-9,
            "{told:#?}"
        );
    }
}

#[test]
fn no_rule_and_each_kind_of_destination_have_their_words() {
    let only = HttpMatch {
        uri: Some(StringMatch::Exact("/a".to_owned())),
        ..HttpMatch::default()
    };
    let route = testing::route(vec![testing::rule(vec![only], &[("v1", 1)])], vec![]);
    let none = told(
        &destination(Destination::Service(Arc::new(route))),
        &request("GET", "/b"),
    );
    assert!(none.outcome.starts_with("is answered with 404"), "{none:?}");
    assert_eq!(
        none.passed_over[0].because,
        ["path is \"/a\" is not met by \"/b\""]
    );
    for (stands, says) in [
        (destination(Destination::Passthrough), "passed on"),
        (destination(Destination::Refuse("why".into())), "is refused: why"),
        (Snapshot::default(), "until the operator"),
    ] {
        let told = told(&stands, &request("GET", "/"));
        assert!(told.outcome.contains(says), "{told:?}");
        assert!(told.rule.is_none() && told.clusters.is_empty());
    }
}

#[test]
fn endpoints_say_whether_they_may_be_chosen_and_where_a_key_leads() {
    let broken = cluster(&endpoints(), |spec| {
        spec.breaker = Some(api::Breaker {
            failure_threshold: NonZeroU32::MIN,
            recovery: Duration::from_secs(30),
            half_open_requests: NonZeroU32::MIN,
        });
    });
    let mut rng = SmallRng::seed_from_u64(1);
    let picked = pick(&Wanted::of(&broken), &mut rng, Instant::now()).unwrap();
    let sick = picked.endpoint.spec.address.to_string();
    picked.finish(Outcome::ServerError, Instant::now());
    let told_of = told(&forward(None, &broken, |_| {}), &request("GET", "/"));
    let [target] = told_of.clusters.as_slice() else {
        panic!("{told_of:?}")
    };
    for candidate in &target.endpoints {
        let shut = candidate.address == sick;
        assert_eq!(candidate.breaker, if shut { "open" } else { "closed" });
        assert_eq!(candidate.standing.contains("gets nothing"), shut, "{candidate:?}");
        assert!(!candidate.key);
    }

    let hashed = cluster(&endpoints(), |spec| {
        spec.balancer = api::Balancer::ConsistentHash(Box::new(api::ConsistentHash {
            key: api::HashKey::Header(http::HeaderName::from_static("x-user")),
            table: api::HashTable::Maglev(NonZeroU32::new(65_537).unwrap()),
        }));
    });
    let snapshot = forward(None, &hashed, |_| {});
    let mut asked = request("GET", "/");
    let led = |asked: &Request<()>| {
        let told = told(&snapshot, asked);
        let endpoints = told.clusters[0].endpoints.iter().filter(|e| e.key);
        endpoints.map(|e| e.address.clone()).collect::<Vec<_>>()
    };
    assert_eq!(led(&asked), Vec::<String>::new(), "it has no key");
    asked
        .headers_mut()
        .insert("x-user", http::HeaderValue::from_static("alice"));
    let key = Key::of(&hashed, &asked, IpAddr::V4(Ipv4Addr::LOCALHOST), &mut rng);
    let wanted = Wanted {
        hash: key.hash,
        ..Wanted::of(&hashed)
    };
    let real = pick(&wanted, &mut rng, Instant::now()).unwrap();
    assert_eq!(led(&asked), [real.endpoint.spec.address.to_string()]);
}

#[test]
fn asking_changes_nothing() {
    let cluster = cluster(&endpoints(), |_| {});
    let snapshot = forward(None, &cluster, |_| {});
    for _ in 0..10 {
        told(&snapshot, &request("GET", "/"));
    }
    use std::sync::atomic::Ordering::Relaxed;
    assert_eq!(cluster.live.cursor.load(Relaxed), 0);
    assert!(cluster.endpoints.iter().all(|e| e.live.active.load(Relaxed) == 0));
}

#[test]
fn a_service_is_found_by_the_names_that_a_pod_may_use() {
    let mut route = testing::route(vec![], vec![]);
    route.name = "reviews.shop.svc.cluster.local:80".into();
    let snapshot = destination(Destination::Service(Arc::new(route)));
    for (host, port, namespace, found) in [
        ("reviews", 80, "shop", true),
        ("reviews.shop", 80, "bank", true),
        ("Reviews.shop.svc", 80, "bank", true),
        ("reviews.shop.svc.cluster.local", 80, "bank", true),
        ("reviews", 80, "bank", false),
        ("reviews", 81, "shop", false),
        ("example.com", 80, "shop", false),
    ] {
        let address = address_of(&snapshot, host, port, namespace);
        assert_eq!(
            address,
            found.then_some(SERVICE),
            "{host}:{port} from {namespace}"
        );
    }
    let address = address_of(&Snapshot::default(), "[2001:db8::1]", 80, "shop");
    assert_eq!(address, Some("[2001:db8::1]:80".parse().unwrap()));
}

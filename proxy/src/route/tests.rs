use std::collections::BTreeMap;

use api::{HeaderChanges, NamedMatch, Pattern, Retry, Rewrite, Split, StringMatch, Version};
use http::StatusCode;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;
use crate::live::ClusterLive;

fn cluster(name: &str) -> Arc<Cluster> {
    Arc::new(Cluster {
        name: name.into(),
        spec: Arc::new(api::Cluster::of(name)),
        endpoints: Vec::new(),
        weights: crate::balancer::Weights::default(),
        live: Arc::new(ClusterLive::new(name)),
        absent: None,
    })
}

fn share(name: &str, weight: u32) -> WeightedCluster {
    WeightedCluster {
        weight,
        ..Split::to(name).clusters()[0].clone()
    }
}

fn rule(matches: Vec<HttpMatch>, shares: &[(&str, u32)]) -> HttpRule {
    let split = Split::new(shares.iter().map(|(name, weight)| share(name, *weight)).collect()).unwrap();
    HttpRule {
        name: String::new(),
        source: None,
        matches,
        action: Action::Forward(Box::new(Forward {
            split,
            timeout: None,
            retry: Retry::default(),
            rewrite: None,
        })),
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
    }
}

fn route(http: Vec<HttpRule>) -> Route {
    let clusters = http
        .iter()
        .map(|rule| match &rule.action {
            Action::Forward(f) => f.split.clusters().iter().map(|c| cluster(&c.cluster)).collect(),
            _ => Vec::new(),
        })
        .collect();
    let spec = api::Route {
        host: "reviews".into(),
        port: 80,
        protocol: None,
        http,
        tcp: Vec::new(),
    };
    Route {
        name: "reviews:80".into(),
        version: Version::from_wire(1).unwrap(),
        spec: Arc::new(spec),
        http: clusters,
        tcp: Vec::new(),
    }
}

fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut builder = Request::builder().uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(7)
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

#[test]
fn every_condition_of_a_match_must_hold() {
    let header = |name: &'static str, value| NamedMatch {
        name: http::HeaderName::from_static(name),
        value,
    };
    let uri = |value| HttpMatch {
        uri: Some(value),
        ..HttpMatch::default()
    };
    let any = HttpMatch::default;
    let table = [
        (uri(exact("/a")), "/a?x", &[][..], true),
        (uri(exact("/a")), "/a/", &[], false),
        (uri(StringMatch::Prefix("/a".into())), "/ab", &[], true),
        (
            uri(StringMatch::Regex(Pattern::new("/[0-9]+").unwrap())),
            "/12",
            &[],
            true,
        ),
        (
            uri(StringMatch::Regex(Pattern::new("/[0-9]+").unwrap())),
            "/12a",
            &[],
            false,
        ),
        (
            HttpMatch {
                ignore_uri_case: true,
                ..uri(exact("/Ab"))
            },
            "/aB",
            &[],
            true,
        ),
        (
            HttpMatch {
                method: Some(exact("POST")),
                ..any()
            },
            "/",
            &[],
            false,
        ),
        (
            HttpMatch {
                scheme: Some(exact("https")),
                ..any()
            },
            "/",
            &[],
            false,
        ),
        (
            HttpMatch {
                authority: Some(exact("shop:80")),
                ..any()
            },
            "/",
            &[("host", "Shop:80")],
            true,
        ),
        (
            HttpMatch {
                authority: Some(exact("shop")),
                ..any()
            },
            "/",
            &[],
            false,
        ),
        (
            HttpMatch {
                headers: vec![header("x-user", exact("a"))],
                ..any()
            },
            "/",
            &[("x-user", "b"), ("x-user", "a")],
            true,
        ),
        (
            HttpMatch {
                headers: vec![header("x-user", StringMatch::Present)],
                ..any()
            },
            "/",
            &[],
            false,
        ),
        (
            HttpMatch {
                without_headers: vec![header("x-user", StringMatch::Present)],
                ..any()
            },
            "/",
            &[],
            true,
        ),
        (
            HttpMatch {
                without_headers: vec![header("x-user", exact("a"))],
                ..any()
            },
            "/",
            &[("x-user", "a")],
            false,
        ),
    ];
    for (m, uri, headers, expected) in table {
        let request = request(uri, headers);
        assert_eq!(
            matching::holds(&m, &Facts::of(&request)),
            expected,
            "{m:?} {uri} {headers:?}"
        );
    }
}

#[test]
fn parameters_are_decoded_before_they_are_compared() {
    let table = [
        ("/?user=a%20b", exact("a b"), true),
        ("/?x=1&user=a+b", exact("a b"), true),
        ("/?user", StringMatch::Present, true),
        ("/?user=%zz", exact("%zz"), true),
        ("/?users=a", StringMatch::Present, false),
        ("/", StringMatch::Present, false),
    ];
    for (uri, value, expected) in table {
        let m = HttpMatch {
            query: vec![NamedMatch {
                name: "user".into(),
                value,
            }],
            ..HttpMatch::default()
        };
        let request = request(uri, &[]);
        assert_eq!(matching::holds(&m, &Facts::of(&request)), expected, "{uri}");
    }
}

#[test]
fn the_first_rule_that_matches_decides_and_says_why() {
    let canary = HttpMatch {
        uri: Some(StringMatch::Prefix("/new".into())),
        ..HttpMatch::default()
    };
    let mut first = rule(vec![canary], &[("v1", 90), ("v2", 10)]);
    first.name = "canary".into();
    let route = route(vec![first, rule(vec![], &[("v1", 1)])]);
    let request_new = request("/new/x", &[]);
    let decision = select(&route, &Facts::of(&request_new), &mut rng()).unwrap();
    assert_eq!(decision.rule_index, 0);
    let why = decision.to_string();
    assert!(
        why.starts_with(
            "rule #1 `canary` that every Service has: uri begins with \"/new\"; the split fell on v"
        ),
        "{why}"
    );
    let request_old = request("/old", &[]);
    assert_eq!(
        select(&route, &Facts::of(&request_old), &mut rng())
            .unwrap()
            .rule_index,
        1
    );
}

#[test]
fn no_rule_that_matches_is_an_error_with_the_routes_name() {
    let route = route(vec![rule(
        vec![HttpMatch {
            uri: Some(exact("/a")),
            ..HttpMatch::default()
        }],
        &[("v1", 1)],
    )]);
    let request = request("/b", &[]);
    let error = select(&route, &Facts::of(&request), &mut rng()).unwrap_err();
    assert!(error.to_string().contains("reviews:80"), "{error}");
}

#[test]
fn shares_get_what_their_weights_say() {
    let route = route(vec![rule(vec![], &[("v1", 90), ("off", 0), ("v2", 10)])]);
    let (request, mut rng) = (request("/", &[]), rng());
    let mut counts = BTreeMap::new();
    for _ in 0..20_000 {
        let Chosen::Forward { cluster, .. } = select(&route, &Facts::of(&request), &mut rng).unwrap().chosen
        else {
            panic!("the rule forwards");
        };
        *counts.entry(cluster.name.to_string()).or_insert(0) += 1;
    }
    assert!(!counts.contains_key("off"));
    assert!((1_800..2_200).contains(&counts["v2"]), "{counts:?}");
}

#[test]
fn connections_follow_their_server_name() {
    let tcp = |sni: &[&str], to: &str| TcpRule {
        name: String::new(),
        source: None,
        sni: sni.iter().map(|s| (*s).to_owned()).collect(),
        split: Split::to(to),
    };
    let mut route = route(vec![]);
    let rules = vec![tcp(&["a.shop"], "a"), tcp(&["*.shop"], "any"), tcp(&[], "rest")];
    route.tcp = rules
        .iter()
        .map(|r| vec![cluster(&r.split.clusters()[0].cluster)])
        .collect();
    Arc::get_mut(&mut route.spec).unwrap().tcp = rules;
    for (sni, expected) in [
        (Some("a.shop"), "a"),
        (Some("b.shop"), "any"),
        (Some("x.b.shop"), "any"),
        (Some("shop"), "rest"),
        (None, "rest"),
    ] {
        assert_eq!(
            &*select_tcp(&route, sni, &mut rng()).unwrap().cluster.name,
            expected,
            "{sni:?}"
        );
    }
}

#[test]
fn a_rewrite_replaces_the_matched_prefix_or_the_whole_path() {
    let prefix = |p: &str| HttpMatch {
        uri: Some(StringMatch::Prefix(p.into())),
        ..HttpMatch::default()
    };
    let table = [
        (
            Some(prefix("/api")),
            "/v2",
            "/api/users",
            Some("q=1"),
            "/v2/users?q=1",
        ),
        (Some(prefix("/api/")), "/v2", "/api/users", None, "/v2/users"),
        (Some(prefix("/api")), "/", "/api/users", None, "/users"),
        (Some(prefix("/api")), "/", "/api", None, "/"),
        (Some(prefix("/")), "/v2", "/users", None, "/v2/users"),
        (
            Some(HttpMatch {
                uri: Some(exact("/a")),
                ..HttpMatch::default()
            }),
            "/b",
            "/a",
            Some("x"),
            "/b?x",
        ),
        (None, "/v2", "/users", None, "/v2/users"),
        (None, "/v2", "/", None, "/v2"),
    ];
    for (matched, new, path, query, expected) in table {
        let rewrite = Rewrite {
            uri: Some(new.into()),
            authority: None,
        };
        let made = rewritten(&rewrite, matched.as_ref(), path, query).unwrap();
        assert_eq!(made.as_str(), expected, "{matched:?} {new}");
    }
}

#[test]
fn a_redirect_keeps_what_it_does_not_name() {
    let none = Redirect {
        uri: None,
        authority: None,
        scheme: None,
        port: None,
        status: StatusCode::FOUND,
    };
    let https = Some(http::uri::Scheme::HTTPS);
    let table = [
        (none.clone(), "http://shop:8080/a?b"),
        (
            Redirect {
                uri: Some("/new".into()),
                ..none.clone()
            },
            "http://shop:8080/new",
        ),
        (
            Redirect {
                scheme: https.clone(),
                ..none.clone()
            },
            "https://shop/a?b",
        ),
        (
            Redirect {
                scheme: https,
                port: Some(8443),
                ..none.clone()
            },
            "https://shop:8443/a?b",
        ),
        (
            Redirect {
                authority: Some("other:81".parse().unwrap()),
                ..none.clone()
            },
            "http://other:81/a?b",
        ),
        (
            Redirect {
                port: Some(80),
                ..none
            },
            "http://shop/a?b",
        ),
    ];
    for (redirect, expected) in table {
        assert_eq!(location(&redirect, Some("shop:8080"), "/a?b"), expected);
    }
}

proptest! {
    #[test]
    fn no_text_makes_selection_panic(path in "/\\PC{0,40}", query in "\\PC{0,40}", host in "\\PC{0,20}", pattern in "\\PC{0,10}") {
        let matches = [StringMatch::Prefix(pattern.clone()), StringMatch::Exact(pattern.clone())].map(|uri| HttpMatch {
            uri: Some(uri),
            authority: Some(StringMatch::Prefix(pattern.clone())),
            query: vec![NamedMatch { name: pattern.clone(), value: StringMatch::Present }],
            ignore_uri_case: true,
            ..HttpMatch::default()
        });
        let facts = Facts {
            method: &Method::GET,
            path: &path,
            query: Some(&query),
            authority: Some(&host),
            scheme: "http",
            headers: &HeaderMap::new(),
        };
        let _ = select(&route(vec![rule(matches.to_vec(), &[("v1", 1)])]), &facts, &mut rng());
        let rewrite = Rewrite { uri: Some("/x".into()), authority: None };
        let _ = rewritten(&rewrite, Some(&matches[0]), &path, Some(&query));
    }
}

//! Tests of routing requests: each condition, the order of rules, splits, and the words.

use api::{NamedMatch, ObjectRef, Pattern, StringMatch};
use http::{HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::testing::{acting, route, rule};
use super::*;

mod index;

/// A request, with the parts of [`Facts`] owned.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    path: String,
    query: Option<String>,
    authority: Option<String>,
    headers: HeaderMap,
}

fn get(target: &str) -> Request {
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    Request {
        method: Method::GET,
        path: path.to_owned(),
        query: query.map(str::to_owned),
        authority: Some("reviews.shop".to_owned()),
        headers: HeaderMap::new(),
    }
}

impl Request {
    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn authority(mut self, authority: Option<&str>) -> Self {
        self.authority = authority.map(str::to_owned);
        self
    }

    fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.append(name, HeaderValue::from_bytes(value).unwrap());
        self
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            authority: self.authority.as_deref(),
            scheme: "http",
            headers: &self.headers,
        }
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.to_owned())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.to_owned())
}

fn regex(text: &str) -> StringMatch {
    StringMatch::Regex(Pattern::new(text).unwrap())
}

fn named<N>(name: N, value: StringMatch) -> Vec<NamedMatch<N>> {
    vec![NamedMatch { name, value }]
}

fn header(name: &'static str, value: StringMatch) -> Vec<NamedMatch> {
    named(HeaderName::from_static(name), value)
}

fn wanted(change: impl FnOnce(&mut HttpMatch)) -> HttpMatch {
    let mut wanted = HttpMatch::default();
    change(&mut wanted);
    wanted
}

fn check(table: impl IntoIterator<Item = (HttpMatch, Request, bool)>) {
    for (wanted, request, expected) in table {
        assert_eq!(
            matching::holds(&wanted, &request.facts()),
            expected,
            "{wanted:?} {request:?}"
        );
    }
}

#[test]
fn paths_are_compared_as_they_came() {
    let uri = |value: StringMatch| wanted(|m| m.uri = Some(value));
    let any_case = |value: StringMatch| wanted(|m| (m.uri, m.ignore_uri_case) = (Some(value), true));
    check([
        (uri(exact("/a")), get("/a"), true),
        (uri(exact("/a")), get("/a?q=1"), true),
        (uri(exact("/a")), get("/a/"), false),
        (uri(exact("/a")), get("/A"), false),
        (uri(exact("/a")), get("/%61"), false),
        (uri(exact("/a")), get("//a"), false),
        (uri(prefix("/a")), get("/ab/c"), true),
        (uri(prefix("/a/")), get("/a"), false),
        (uri(prefix("/")), get("*"), false),
        (uri(prefix("/a/../b")), get("/a/../b"), true),
        (uri(regex("/a[0-9]+")), get("/a12"), true),
        (uri(regex("/a[0-9]+")), get("/a12/x"), false),
        (uri(StringMatch::Present), get("/"), true),
        (any_case(exact("/Abc")), get("/aBC"), true),
        (any_case(prefix("/Abc")), get("/aBCd"), true),
        (any_case(prefix("/Abc")), get("/aé"), false),
        (any_case(regex("/abc")), get("/ABC"), false),
    ]);
}

#[test]
fn methods_and_schemes_are_compared_with_their_case() {
    let method = |value: StringMatch| wanted(|m| m.method = Some(value));
    let scheme = |value: StringMatch| wanted(|m| m.scheme = Some(value));
    check([
        (method(exact("GET")), get("/"), true),
        (method(exact("get")), get("/"), false),
        (method(exact("GET")), get("/").method(Method::POST), false),
        (method(regex("GET|HEAD")), get("/").method(Method::HEAD), true),
        (scheme(exact("http")), get("/"), true),
        (scheme(exact("https")), get("/"), false),
    ]);
}

#[test]
fn authorities_have_no_case_and_keep_their_port() {
    let authority = |value: StringMatch| wanted(|m| m.authority = Some(value));
    let to = |authority: &str| get("/").authority(Some(authority));
    check([
        (authority(exact("shop.example")), to("shop.example"), true),
        (authority(exact("shop.example")), to("Shop.EXAMPLE"), true),
        (authority(exact("shop.example")), to("shop.example:80"), false),
        (authority(exact("shop.example:80")), to("shop.example:80"), true),
        (authority(prefix("shop.")), to("SHOP.example:80"), true),
        (authority(regex("[a-z.]+(:[0-9]+)?")), to("SHOP.example:80"), true),
        (authority(StringMatch::Present), get("/").authority(None), false),
        (authority(exact("")), get("/").authority(None), false),
    ]);
}

#[test]
fn one_of_several_values_of_a_header_is_enough() {
    let with = |value: StringMatch| wanted(|m| m.headers = header("x-user", value));
    let without = |value: StringMatch| wanted(|m| m.without_headers = header("x-user", value));
    let host = |value: StringMatch| wanted(|m| m.headers = header("host", value));
    let two = || get("/").header("x-user", b"anna").header("x-user", b"jason");
    check([
        (with(exact("jason")), two(), true),
        (with(exact("JASON")), two(), false),
        (with(exact("anna, jason")), two(), false),
        (with(exact("jason")), get("/"), false),
        (with(StringMatch::Present), get("/").header("x-user", b""), true),
        (with(StringMatch::Present), get("/"), false),
        (
            with(StringMatch::Present),
            get("/").header("x-user", b"\xff"),
            true,
        ),
        (with(regex(".*")), get("/").header("x-user", b"\xff"), false),
        (with(exact("é")), get("/").header("x-user", "é".as_bytes()), true),
        (without(exact("jason")), two(), false),
        (without(exact("jason")), get("/").header("x-user", b"anna"), true),
        (without(StringMatch::Present), get("/"), true),
        (
            without(StringMatch::Present),
            get("/").header("x-user", b"\xff"),
            false,
        ),
        // HTTP/2 has no `host`.
        (host(exact("reviews.shop")), get("/"), true),
        (
            host(exact("reviews.shop")),
            get("/").header("host", b"other"),
            false,
        ),
    ]);
}

#[test]
fn all_conditions_of_a_match_hold_together() {
    let all = wanted(|m| {
        m.uri = Some(prefix("/api"));
        m.method = Some(exact("GET"));
        m.headers = header("x-user", exact("jason"));
        m.without_headers = header("x-bot", StringMatch::Present);
        m.query = named("page".to_owned(), exact("1"));
    });
    let good = || get("/api?page=1").header("x-user", b"jason");
    check([
        (all.clone(), good(), true),
        (all.clone(), good().header("x-bot", b"1"), false),
        (all.clone(), good().method(Method::POST), false),
        (all.clone(), get("/api?page=2").header("x-user", b"jason"), false),
        (all.clone(), get("/api").header("x-user", b"jason"), false),
        (all, get("/other?page=1").header("x-user", b"jason"), false),
        (HttpMatch::default(), get("*"), true),
    ]);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let on = |path: &str| vec![wanted(|m| m.uri = Some(prefix(path)))];
    let route = route(
        vec![
            rule([on("/a/b"), on("/c")].concat(), &[("first", 1)]),
            rule(on("/a"), &[("second", 1)]),
            rule(on("/a/b/c"), &[("shadowed", 1)]),
        ],
        vec![],
    );
    let mut rng = SmallRng::seed_from_u64(1);
    let mut chosen = |path| match select(&route, &get(path).facts(), &mut rng).map(|d| d.chosen) {
        Ok(Chosen::Forward { cluster, .. }) => cluster.name.to_string(),
        Ok(_) => unreachable!("all rules forward"),
        Err(e) => e.to_string(),
    };
    assert_eq!(chosen("/a/b/c"), "first");
    assert_eq!(chosen("/c"), "first");
    assert_eq!(chosen("/a"), "second");
    assert_eq!(
        chosen("/d"),
        "no rule of route reviews.shop:80 matches the request"
    );
}

#[test]
fn a_split_gives_each_cluster_its_share() {
    let route = route(vec![rule(vec![], &[("v1", 90), ("off", 0), ("v2", 10)])], vec![]);
    let mut rng = SmallRng::seed_from_u64(11);
    let mut counts = [0u32; 3];
    for _ in 0..10_000 {
        match select(&route, &get("/").facts(), &mut rng).unwrap().chosen {
            Chosen::Forward { share, cluster, .. } => {
                assert_eq!(*cluster.name, share.cluster);
                counts[["v1", "off", "v2"]
                    .iter()
                    .position(|name| *name == share.cluster)
                    .unwrap()] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts[1], 0);
    assert!(counts[2].abs_diff(1000) < 100, "{counts:?}");
}

#[test]
fn a_decision_says_why() {
    let mut canary = rule(
        vec![
            wanted(|m| m.uri = Some(exact("/never"))),
            wanted(|m| {
                m.name = "insiders".to_owned();
                m.uri = Some(prefix("/"));
                m.headers = header("x-user", exact("jason"));
                m.without_headers = header("x-bot", StringMatch::Present);
                m.query = named("page".to_owned(), regex("[0-9]+"));
            }),
        ],
        &[("reviews.shop:80|v1", 0), ("reviews.shop:80|v2", 10)],
    );
    canary.name = "canary".to_owned();
    canary.source = Some(ObjectRef {
        kind: "VirtualService".to_owned(),
        namespace: "shop".to_owned(),
        name: "reviews".to_owned(),
    });
    let teapot = Action::Direct(DirectResponse {
        status: StatusCode::IM_A_TEAPOT,
        body: Default::default(),
    });
    let open = vec![HttpMatch::default()];
    let route = route(
        vec![
            canary,
            acting(open, teapot),
            rule(vec![], &[("reviews.shop:80", 1)]),
        ],
        vec![],
    );
    let mut rng = SmallRng::seed_from_u64(1);
    let mut why = |request: Request| select(&route, &request.facts(), &mut rng).unwrap().to_string();
    assert_eq!(
        why(get("/?page=1").header("x-user", b"jason")),
        "rule `canary` (#1) of VirtualService shop/reviews: match `insiders`: path begins with \"/\", header x-user \
         is \"jason\", no header x-bot is present, query parameter page matches \"[0-9]+\"; split 0/10 fell on \
         reviews.shop:80|v2"
    );
    assert_eq!(
        why(get("/")),
        "rule #2 of the default route of reviews.shop:80: a match without conditions; answers 418"
    );
}

#[test]
fn a_cluster_that_is_not_resolved_is_named() {
    let mut broken = route(vec![rule(vec![], &[("v1", 1)])], vec![]);
    broken.http.clear();
    let refused = select(&broken, &get("/").facts(), &mut SmallRng::seed_from_u64(1)).unwrap_err();
    assert!(matches!(refused, Error::NoEndpoint { cluster, .. } if &*cluster == "v1"));
}

fn words() -> impl Strategy<Value = String> {
    prop::sample::select(&["/", "/a", "/ab", "/b", "/b/c"][..]).prop_map(str::to_owned)
}

fn conditions() -> impl Strategy<Value = (bool, String, Option<Method>)> {
    let method = prop::option::of(prop::sample::select(vec![Method::GET, Method::POST]));
    (any::<bool>(), words(), method)
}

proptest! {
    #[test]
    fn no_rule_before_the_chosen_one_matches_and_the_chosen_one_does(
        rules in prop::collection::vec(prop::collection::vec(conditions(), 0..3), 0..6),
        path in words(),
        post: bool,
        seed: u64,
    ) {
        let to_match = |(whole, path, method): &(bool, String, Option<Method>)| wanted(|m| {
            m.uri = Some(if *whole { exact(path) } else { prefix(path) });
            m.method = method.as_ref().map(|method| exact(method.as_str()));
        });
        let route = route(
            rules.iter().map(|matches| rule(matches.iter().map(to_match).collect(), &[("a", 1), ("b", 2)])).collect(),
            vec![],
        );
        let request = get(&path).method(if post { Method::POST } else { Method::GET });
        // The same question, asked in the words of the test's own data.
        let holds = |(whole, text, method): &(bool, String, Option<Method>)| {
            (if *whole { path == *text } else { path.starts_with(text.as_str()) })
                && method.as_ref().is_none_or(|method| *method == request.method)
        };
        let expected = rules.iter().position(|matches| matches.is_empty() || matches.iter().any(holds));
        let got = select(&route, &request.facts(), &mut SmallRng::seed_from_u64(seed));
        prop_assert_eq!(got.map(|decision| decision.rule_index).ok(), expected);
    }
}

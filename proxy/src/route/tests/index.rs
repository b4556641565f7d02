//! Whatever the rules, the index gives the answer that looking at one after the other gives.

use super::*;

/// Few words, so that texts are equal, begin each other, and differ in case alone.
fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "/", "/a", "/A", "/ab", "/aB", "/abc", "/ab/c", "/b", "/é", "/éa", "a", "A", "b", "*", "",
    ])
    .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        4 => text().prop_map(StringMatch::Exact),
        3 => text().prop_map(StringMatch::Prefix),
        1 => prop::sample::select(vec!["/a.*", "a|b", ".*", "/A"]).prop_map(regex),
        1 => Just(StringMatch::Present),
    ]
}

fn name() -> impl Strategy<Value = HeaderName> {
    prop::sample::select(vec!["host", "x-user", "x-version"]).prop_map(HeaderName::from_static)
}

fn headers() -> impl Strategy<Value = Vec<NamedMatch>> {
    let one = (name(), value()).prop_map(|(name, value)| NamedMatch { name, value });
    prop::collection::vec(one, 0..3)
}

fn one_match() -> impl Strategy<Value = HttpMatch> {
    let some = |strategy| prop::option::weighted(0.5, strategy);
    let query = (prop::sample::select(vec!["a", "b"]), value()).prop_map(|(name, value)| NamedMatch {
        name: name.to_owned(),
        value,
    });
    (
        some(value().boxed()),
        any::<bool>(),
        prop::option::weighted(0.2, prop::sample::select(vec!["GET", "POST"])),
        prop::option::weighted(0.3, value()),
        headers(),
        prop::collection::vec((name(), value()), 0..2),
        prop::collection::vec(query, 0..2),
    )
        .prop_map(
            |(uri, ignore_uri_case, method, authority, headers, without, query)| HttpMatch {
                uri,
                ignore_uri_case,
                method: method.map(exact),
                authority,
                headers,
                without_headers: without
                    .into_iter()
                    .map(|(name, value)| NamedMatch { name, value })
                    .collect(),
                query,
                ..HttpMatch::default()
            },
        )
}

fn a_request() -> impl Strategy<Value = Request> {
    let bytes = prop_oneof![
        5 => text().prop_map(String::into_bytes),
        1 => Just(b"\xff".to_vec()),
    ];
    (
        text(),
        prop::option::of(prop::sample::select(vec!["a=1", "a=/a&b", "b=A"])),
        prop::option::weighted(0.8, text()),
        prop::collection::vec((name(), bytes), 0..4),
        any::<bool>(),
    )
        .prop_map(|(path, query, authority, headers, post)| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, HeaderValue::from_bytes(&value).unwrap());
            }
            Request {
                method: if post { Method::POST } else { Method::GET },
                path,
                query: query.map(str::to_owned),
                authority,
                headers: map,
            }
        })
}

fn places(found: Option<(usize, &HttpRule, Option<&HttpMatch>)>) -> Option<(usize, Option<HttpMatch>)> {
    found.map(|(rule, _, matched)| (rule, matched.cloned()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_index_gives_the_answer_of_one_after_the_other(
        matches in prop::collection::vec(prop::collection::vec(one_match(), 0..4), 0..20),
        // A rule that takes everything hides the rest; most tables have none but perhaps the last.
        open in prop::option::weighted(0.1, 0_usize..20),
        requests in prop::collection::vec(a_request(), 1..8),
    ) {
        let mut rules = Vec::new();
        for (number, mut matches) in matches.into_iter().enumerate() {
            if matches.is_empty() && open != Some(number) {
                matches.push(wanted(|m| m.uri = Some(exact("/nowhere"))));
            }
            rules.push(rule(matches, &[("a", 1)]));
        }
        let index = Index::whole(&rules);
        for request in requests {
            let facts = request.facts();
            let expected = one_by_one(&rules, &facts);
            let got = indexed(&index, &rules, &facts);
            prop_assert_eq!(places(got), places(expected), "{:?}", request);
        }
    }
}

#[test]
fn only_what_shares_a_text_with_the_request_is_looked_at() {
    let paths = (0..10_000).map(|i| wanted(|m| m.uri = Some(exact(&format!("/{i}")))));
    let prefixes = (0..10_000).map(|i| wanted(|m| m.uri = Some(prefix(&format!("/p/{i}/")))));
    // All of one path: the header tells them apart.
    let users = (0..10_000).map(|i| {
        wanted(|m| {
            m.uri = Some(prefix("/"));
            m.headers = header("x-user", exact(&format!("u{i}")));
        })
    });
    let hosts = (0..10_000).map(|i| {
        wanted(|m| {
            m.uri = Some(exact("/host"));
            m.authority = Some(exact(&format!("h{i}.shop")));
        })
    });
    let matches = paths.chain(prefixes).chain(users).chain(hosts);
    let rules: Vec<_> = matches.map(|m| rule(vec![m], &[("a", 1)])).collect();
    let index = Index::of(&rules).unwrap();
    let table = [
        (get("/9999"), Some(9_999)),
        (get("/p/9999/x"), Some(19_999)),
        (get("/p/9999"), None),
        (get("/x").header("x-user", b"u9999"), Some(29_999)),
        (get("/host").authority(Some("H9999.shop")), Some(39_999)),
        (get("/none"), None),
    ];
    for (request, expected) in table {
        let facts = request.facts();
        let mut looked = 0;
        let found = index.first(&facts, |entry| {
            looked += 1;
            matching::holds(&rules[entry.rule as usize].matches[0], &facts)
        });
        assert_eq!(found.map(|entry| entry.rule), expected, "{request:?}");
        assert!(looked <= 1, "{looked} matches looked at for {request:?}");
    }
}

#[test]
fn prefixes_within_prefixes_are_all_found() {
    let texts = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/c", "/ab", "/b"];
    let rules: Vec<_> = texts
        .iter()
        .map(|text| {
            // None holds, so that each that is a candidate is looked at.
            let never = wanted(|m| (m.uri, m.method) = (Some(prefix(text)), Some(exact("NONE"))));
            rule(vec![never], &[("a", 1)])
        })
        .collect();
    let index = Index::whole(&rules);
    for path in [
        "/", "/a", "/a/", "/a/b", "/a/b/cd", "/a/c/d", "/a/bc", "/abc", "/c", "", "x", "/a/a", "/zz",
    ] {
        let request = get(path);
        let mut looked = Vec::new();
        let _none = index.first(&request.facts(), |entry| {
            looked.push(texts[entry.rule as usize]);
            false
        });
        looked.sort_unstable();
        let expected: Vec<_> = texts
            .iter()
            .copied()
            .filter(|text| path.starts_with(text))
            .collect();
        assert_eq!(looked, expected, "{path}");
    }
}

#[test]
fn a_small_route_has_no_index() {
    let of = |n: usize| Index::of(&vec![rule(vec![wanted(|_| {})], &[("a", 1)]); n]);
    assert!(of(8).is_none() && of(9).is_some());
}

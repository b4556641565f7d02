//! Rules that leave their requests to another object.

use std::time::Duration;

use api::{Action, HttpRule, StringMatch};

use super::*;
use crate::state::testing::*;

fn rules(world: &World) -> Vec<HttpRule> {
    let name = "reviews.shop.svc.cluster.local:9080";
    match compiled(world, &web(world), Kind::Route, name).resource.body {
        Body::Route(route) => route.http,
        other => panic!("{other:?}"),
    }
}

fn root(rules: &str) -> String {
    virtual_service("root", &format!("  hosts: [reviews]\n  http:\n{rules}"))
}

fn leaf(rules: &str) -> String {
    virtual_service("leaf", &format!("  http:\n{rules}"))
}

fn of(objects: &[&str]) -> std::sync::Arc<World> {
    world(&(shop() + &objects.concat()))
}

/// The path conditions of each rule.
fn paths(rules: &[HttpRule]) -> Vec<Vec<Option<StringMatch>>> {
    let uris = |rule: &HttpRule| rule.matches.iter().map(|m| m.uri.clone()).collect();
    rules.iter().map(uris).collect()
}

const DELEGATE: &str = "  - name: root
    match: [{uri: {prefix: /shop}, headers: {x-team: {exact: a}}}]
    timeout: 3s
    rewrite: {authority: root.test}
    headers: {request: {set: {x-root: '1'}}}
    delegate: {name: leaf}
  - directResponse: {status: 404}
";

#[test]
fn conditions_of_both_hold_and_what_is_left_out_is_as_the_root_says() {
    let leaf = leaf(
        "  - name: cart
    match: [{uri: {exact: /shop/cart}}, {uri: {prefix: /}, method: {exact: PUT}}, {uri: {prefix: /elsewhere}}]
    timeout: 1s
    headers: {response: {set: {x-leaf: '1'}}}
    route: [{destination: {host: ratings}}]
  - retries: {attempts: 0}
    timeout: 0s
    route: [{destination: {host: reviews}}]
",
    );
    let world = of(&[&root(DELEGATE), &leaf]);
    assert!(state(&world, "root").accepted && state(&world, "leaf").accepted);
    let [cart, rest, last] = &rules(&world)[..] else {
        panic!("{:?}", rules(&world))
    };
    let prefix = |text: &str| Some(StringMatch::Prefix(text.to_owned()));
    let exact = Some(StringMatch::Exact("/shop/cart".to_owned()));
    assert_eq!(
        paths(&[cart.clone(), rest.clone(), last.clone()]),
        [vec![exact, prefix("/shop")], vec![prefix("/shop")], vec![]]
    );
    assert!(cart.matches.iter().all(|m| m.headers.len() == 1));
    assert_eq!((cart.name.as_str(), rest.name.as_str()), ("root-cart", "root"));
    let (Action::Forward(first), Action::Forward(second)) = (&cart.action, &rest.action) else {
        panic!("{cart:?}")
    };
    assert_eq!(
        first.split.clusters()[0].cluster,
        "ratings.shop.svc.cluster.local:80"
    );
    assert_eq!(first.timeout, Some(Duration::from_secs(1)));
    assert_eq!(second.timeout, None, "none is said there, and that counts");
    assert_eq!(
        (first.retry.clone(), second.retry.attempts),
        (api::Retry::default(), 0)
    );
    for forward in [first, second] {
        assert!(forward.rewrite.as_ref().is_some_and(|r| r.authority.is_some()));
    }
    assert_eq!(
        (cart.request_headers.set.len(), cart.response_headers.set.len()),
        (0, 1)
    );
    assert_eq!(rest.request_headers.set.len(), 1);
    let source = cart.source.as_ref().unwrap();
    assert_eq!(source.name, "leaf", "the object that decides");
}

#[test]
fn an_object_that_is_not_there_is_waited_for_and_one_that_goes_leaves_its_requests_to_nobody() {
    let other = leaf("  - route: [{destination: {host: ratings}}]\n");
    let early = of(&[&root(DELEGATE)]);
    let found = state(&early, "root");
    assert!(!found.accepted && found.in_force.is_none());
    assert_eq!(found.findings[0].field, "spec.http[0].delegate");
    assert!(
        found.findings[0]
            .message
            .contains("VirtualService `leaf` of namespace `shop`")
    );
    let (there, _) = with(&early, &other);
    assert!(state(&there, "root").accepted);
    assert_eq!(rules(&there).len(), 2);
    let (gone, touched) = without(&there, &other);
    assert!(touched.contains(&crate::state::Dependency::Service(
        "shop".into(),
        "reviews".into()
    )));
    let [missing, _] = &rules(&gone)[..] else {
        panic!("{:?}", rules(&gone))
    };
    assert!(
        matches!(&missing.action, Action::Direct(direct) if direct.status == 503),
        "{missing:?}"
    );
    assert_eq!(missing.matches.len(), 1);
}

#[test]
fn what_cannot_be_delegated_to_is_told() {
    let hosts = virtual_service(
        "leaf",
        "  hosts: [ratings]\n  http: [{route: [{destination: {host: ratings}}]}]",
    );
    let hidden = leaf("  - route: [{destination: {host: ratings}}]\n")
        .replace("  http:", "  exportTo: [other]\n  http:");
    for (leaf, says) in [
        (hosts, "which has hosts of its own"),
        (hidden, "which is not exported to namespace `shop`"),
    ] {
        let found = state(&of(&[&root(DELEGATE), &leaf]), "root");
        assert!(
            !found.accepted && found.findings[0].message.contains(says),
            "{:?}",
            found.findings
        );
    }
    let apart = leaf(
        "  - match: [{uri: {prefix: /other}}]
    route: [{destination: {host: ratings}}]
  - match: [{uri: {regex: '/s.*'}}]
    route: [{destination: {host: ratings}}]
  - match: [{headers: {x-team: {exact: b}}}]
    route: [{destination: {host: ratings}}]
",
    );
    let world = of(&[&root(DELEGATE), &apart]);
    let found = state(&world, "root");
    assert!(found.accepted);
    let fields = found.warnings.iter().map(|text| text.rsplit(' ').next().unwrap());
    assert_eq!(
        fields.collect::<Vec<_>>(),
        ["uri", "uri", "headers"],
        "{:?}",
        found.warnings
    );
    assert_eq!(rules(&world).len(), 1, "what no request can reach is left out");
    let lone = state(&of(&[&apart]), "leaf");
    assert!(
        lone.warnings[0].starts_with("spec.hosts: is empty, and no VirtualService delegates"),
        "{lone:?}"
    );
}

/// This many rules of one line each.
fn many(n: usize, rule: impl Fn(usize) -> String) -> String {
    (0..n).map(|i| rule(i) + "\n").collect()
}

fn item(i: usize) -> String {
    format!("  - {{match: [{{uri: {{exact: /{i}}}}}], directResponse: {{status: 200}}}}")
}

#[test]
fn an_object_that_no_longer_fits_is_left_out_as_a_whole_and_told() {
    let steering = |name: &str, rules: usize| {
        virtual_service(
            name,
            &format!("  hosts: [reviews]\n  http:\n{}", many(rules, item)),
        )
    };
    let world = of(&[&steering("a", 6000), &steering("b", 6000), &steering("c", 4000)]);
    let made = rules(&world);
    assert_eq!(made.len(), api::limits::MAX_HTTP_RULES);
    let of = |name: &str| {
        made.iter()
            .filter(|r| r.source.as_ref().is_some_and(|s| s.name == name))
            .count()
    };
    assert_eq!((of("a"), of("b"), of("c")), (6000, 0, 4000));
    let told = state(&world, "b").conflicts;
    assert!(
        told.len() == 1 && told[0].contains("more than 10000 rules"),
        "{told:?}"
    );
    assert!(state(&world, "b").accepted);
    assert_eq!(state(&world, "a").conflicts, [""; 0]);
}

#[test]
fn what_is_joined_has_a_bound_and_the_rest_is_answered_here() {
    let to_leaf = |i: usize| format!("  - {{match: [{{uri: {{prefix: /{i}}}}}], delegate: {{name: leaf}}}}");
    let large = leaf(&many(300, item));
    let early = of(&[&root(&many(300, to_leaf)), &large]);
    let found = state(&early, "root");
    assert!(!found.accepted && found.in_force.is_none());
    let first = &found.findings[0];
    assert!(
        first.field == "spec.http[32].delegate" && first.message.contains("10000 is the most"),
        "{first:?}"
    );
    // It was in force when the other grew: the route keeps to the limit, and nobody else gets the requests.
    let grown = with(&of(&[&root(&many(300, to_leaf)), &leaf(&many(2, item))]), &large).0;
    let made = rules(&grown);
    assert!(made.len() <= api::limits::MAX_HTTP_RULES);
    let last = made.last().unwrap();
    assert!(
        matches!(&last.action, Action::Direct(direct) if direct.status == 503),
        "{last:?}"
    );
}

#[test]
fn a_joined_rule_of_too_many_blocks_is_refused() {
    let blocks = |n: usize| {
        (0..n)
            .map(|i| format!("{{uri: {{prefix: /{i}}}}}, "))
            .collect::<String>()
    };
    let root = root(&format!(
        "  - {{match: [{}], delegate: {{name: leaf}}}}\n",
        blocks(40)
    ));
    for (n, accepted) in [(25, true), (26, false)] {
        let leaf = leaf(&format!(
            "  - {{match: [{}], directResponse: {{status: 200}}}}\n",
            blocks(n)
        ));
        let found = state(&of(&[&root, &leaf]), "root");
        assert_eq!(found.accepted, accepted, "{:?}", found.findings);
        assert!(accepted || found.findings[0].message.contains("1000 is the most: split"));
    }
}

#[test]
fn nothing_that_is_said_counts_and_what_answers_ignores_is_told() {
    let root = root(
        "  - fault: {abort: {httpStatus: 500, percentage: {value: 100}}}
    mirror: {host: ratings}
    delegate: {name: leaf}
",
    );
    let leaf = leaf(
        "  - match: [{uri: {exact: /calm}}]
    fault: {abort: {httpStatus: 500, percentage: {value: 0}}}
    mirrors: [{destination: {host: ratings}, percentage: {value: 0}}]
    route: [{destination: {host: reviews}}]
  - match: [{uri: {exact: /ping}}]
    directResponse: {status: 200}
  - route: [{destination: {host: reviews}}]
",
    );
    let world = of(&[&root, &leaf]);
    let made = rules(&world);
    let [Action::Forward(calm), Action::Direct(_), Action::Forward(rest)] =
        &made.iter().map(|rule| rule.action.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("{made:?}")
    };
    assert_eq!((calm.fault.clone(), calm.mirrors.len()), (None, 0));
    assert!(rest.fault.is_some() && rest.mirrors.len() == 1);
    assert_eq!(
        state(&world, "root").warnings,
        [
            "spec.http[0]: fault, mirrors here has no effect on the requests of spec.http[1] of VirtualService shop/leaf, \
             because directResponse answers them"
        ]
    );
}

#[test]
fn a_rule_that_replaces_its_prefix_is_not_joined_with_a_narrower_path() {
    let under = |uri: &str| {
        root(&format!(
            "  - {{match: [{{uri: {uri}}}], delegate: {{name: leaf}}}}\n"
        ))
    };
    let rewrite = "rewrite: {uri: /new}, route: [{destination: {host: reviews}}]";
    for (uri, field, there, made) in [
        ("{prefix: /api/v1}", "rewrite.uri", rewrite, 0),
        ("{exact: /api/v1}", "rewrite.uri", rewrite, 0),
        (
            "{prefix: /api/v1}",
            "redirect.prefixRewrite",
            "redirect: {prefixRewrite: /new}",
            0,
        ),
        ("{prefix: /api}", "", rewrite, 1),
        ("{prefix: /}", "", rewrite, 1),
        (
            "{prefix: /api/v1}",
            "",
            "rewrite: {authority: a.test}, route: [{destination: {host: reviews}}]",
            1,
        ),
    ] {
        let leaf = leaf(&format!("  - {{match: [{{uri: {{prefix: /api}}}}], {there}}}\n"));
        let world = of(&[&under(uri), &leaf]);
        assert_eq!(rules(&world).len(), made, "{uri} {there}");
        let told = state(&world, "root").warnings;
        assert_eq!(told.len(), 1 - made, "{told:?}");
        assert!(told.iter().all(|text| text.contains(field)), "{told:?}");
    }
}

use std::time::Duration;

use api::{Action, HttpRule, Protocol, Route};

use super::*;
use crate::state::testing::*;

fn route_for(world: &World, proxy: &Proxy, port: u16) -> Route {
    let name = format!("reviews.shop.svc.cluster.local:{port}");
    match compiled(world, proxy, Kind::Route, &name).resource.body {
        Body::Route(route) => *route,
        other => panic!("{other:?}"),
    }
}

fn route(rules: &str, port: u16) -> Route {
    let world = world(
        &[
            shop(),
            reviews_subsets(),
            virtual_service("v", &format!("  hosts: [reviews]\n{rules}")),
        ]
        .concat(),
    );
    let state = state(&world, "v");
    assert!(state.accepted, "{:?}", state.findings);
    route_for(&world, &web(&world), port)
}

fn shares(rule: &HttpRule) -> Vec<(String, u32)> {
    let Action::Forward(forward) = &rule.action else {
        panic!("{rule:?}")
    };
    let short = |name: &str| name.replace(".shop.svc.cluster.local", "");
    forward
        .split
        .clusters()
        .iter()
        .map(|c| (short(&c.cluster), c.weight))
        .collect()
}

#[test]
fn without_rules_everything_goes_to_all_endpoints() {
    let world = world(&shop());
    let compiled = compiled(
        &world,
        &web(&world),
        Kind::Route,
        "reviews.shop.svc.cluster.local:9090",
    );
    assert_eq!(compiled.sources, []);
    let route = route_for(&world, &web(&world), 9090);
    assert_eq!((route.protocol, route.port), (Some(Protocol::Grpc), 9090));
    assert_eq!(shares(&route.http[0]), [("reviews:9090".to_owned(), 1)]);
    assert_eq!(route.clusters(), ["reviews.shop.svc.cluster.local:9090"]);
    assert_eq!(
        (route.http.len(), route.tcp.len(), route.http[0].source.clone()),
        (1, 1, None)
    );
}

#[test]
fn traffic_is_shared_out_by_weight() {
    let route = route(
        "  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
    timeout: 3s",
        9080,
    );
    assert_eq!(
        shares(&route.http[0]),
        [
            ("reviews:9080|v1".to_owned(), 90),
            ("reviews:9080|v2".to_owned(), 10)
        ]
    );
    let Action::Forward(forward) = &route.http[0].action else {
        panic!()
    };
    assert_eq!(
        (forward.timeout, forward.split.total()),
        (Some(Duration::from_secs(3)), 100)
    );
    let source = route.http[0].source.as_ref().unwrap();
    assert_eq!(source.to_string(), "VirtualService shop/v");
}

#[test]
fn a_port_left_out_is_the_only_one_or_the_one_dialled() {
    let rules = "  http:
  - match: [{uri: {prefix: /own}}]
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /named}}]
    route: [{destination: {host: reviews, port: {number: 9080}}}]
  - route: [{destination: {host: ratings}}]";
    let clusters = |port| {
        route(rules, port)
            .http
            .iter()
            .map(|r| shares(r)[0].0.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(clusters(9080), ["reviews:9080", "reviews:9080", "ratings:80"]);
    assert_eq!(clusters(9090), ["reviews:9090", "reviews:9080", "ratings:80"]);
}

#[test]
fn a_redirect_may_keep_to_the_port_that_was_dialled() {
    let rules = "  http:
  - {match: [{uri: {prefix: /a}}], redirect: {uri: /b, derivePort: FROM_REQUEST_PORT}}
  - {redirect: {uri: /c, derivePort: FROM_PROTOCOL_DEFAULT}}";
    for number in [9080, 9090] {
        let ports = route(rules, number)
            .http
            .into_iter()
            .map(|rule| match rule.action {
                Action::Redirect(redirect) => redirect.port,
                other => panic!("{other:?}"),
            });
        assert_eq!(ports.collect::<Vec<_>>(), [Some(number), None]);
    }
}

#[test]
fn mirrors_are_clusters_of_the_route_with_their_shares() {
    let mirrors = |rules: &str| {
        let route = route(
            &format!("  http:\n  - {{route: [{{destination: {{host: reviews}}}}], {rules}}}"),
            9080,
        );
        let Action::Forward(forward) = &route.http[0].action else {
            panic!("{route:?}")
        };
        assert_eq!(route.clusters().len(), 1 + forward.mirrors.len());
        let short = |name: &str| name.replace(".shop.svc.cluster.local", "");
        let mirrors = forward.mirrors.iter().map(|m| (short(&m.cluster), m.share));
        mirrors.collect::<Vec<_>>()
    };
    let percent = |percent| api::Fraction::of_percent(percent).unwrap();
    let ratings = || "ratings:80".to_owned();
    assert_eq!(mirrors("mirror: {host: ratings}"), [(ratings(), percent(100.0))]);
    assert_eq!(
        mirrors("mirror: {host: ratings}, mirrorPercent: 7"),
        [(ratings(), percent(7.0))]
    );
    assert_eq!(
        mirrors("mirror: {host: ratings}, mirrorPercentage: {value: 0.5}"),
        [(ratings(), percent(0.5))]
    );
    assert_eq!(
        mirrors("mirror: {host: ratings}, mirrorPercentage: {value: 0}"),
        []
    );
    assert_eq!(
        mirrors(
            "mirrors: [{destination: {host: ratings}, percentage: {value: 1}}, {destination: {host: reviews, subset: v2}}]"
        ),
        [
            (ratings(), percent(1.0)),
            ("reviews:9080|v2".to_owned(), percent(100.0))
        ]
    );
}

#[test]
fn rules_for_other_clients_and_ports_are_left_out() {
    let rules = "  http:
  - {name: port, match: [{port: 9090}], directResponse: {status: 201}}
  - {name: label, match: [{sourceLabels: {app: web}}, {sourceLabels: {app: db}, uri: {exact: /x}}], directResponse: {status: 202}}
  - {name: other, match: [{sourceLabels: {app: db}}], directResponse: {status: 203}}
  - {name: namespace, match: [{sourceNamespace: elsewhere}], directResponse: {status: 204}}";
    let names = |port| {
        route(rules, port)
            .http
            .iter()
            .map(|r| r.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(9080), ["label"]);
    assert_eq!(names(9090), ["port", "label"]);
    let web = route(rules, 9080);
    assert_eq!(
        web.http[0].matches.len(),
        1,
        "a block for others goes, one without conditions stays"
    );
}

#[test]
fn when_no_rule_is_for_this_client_nothing_matches() {
    let rules = "  http:\n  - {match: [{sourceNamespace: elsewhere}], directResponse: {status: 200}}";
    let route = route(rules, 9080);
    assert!(route.http.is_empty(), "which the proxy answers with 404");
    assert_eq!(
        route.tcp.len(),
        1,
        "connections are not spoken of, so they go where they went"
    );
}

#[test]
fn connections_have_rules_of_their_own() {
    let rules = "  tls:
  - match: [{sniHosts: [a.example.com], port: 9080}, {sniHosts: [b.example.com]}]
    route: [{destination: {host: reviews, subset: v1}}]
  tcp:
  - match: [{port: 9090}]
    route: [{destination: {host: ratings}}]
  - route: [{destination: {host: reviews, subset: v2}}]";
    let seen = |port| {
        let route = route(rules, port);
        assert_eq!(route.http.len(), 1, "requests are not spoken of");
        let rule = |r: &api::TcpRule| format!("{} {}", r.sni.join(" "), r.split.clusters()[0].cluster);
        route
            .tcp
            .iter()
            .map(|r| rule(r).replace(".shop.svc.cluster.local", ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        seen(9080),
        [
            "a.example.com b.example.com reviews:9080|v1",
            " reviews:9080|v2",
            " reviews:9080"
        ]
    );
    assert_eq!(
        seen(9090),
        [
            "b.example.com reviews:9090|v1",
            " ratings:80",
            " reviews:9090|v2",
            " reviews:9090"
        ]
    );
}

#[test]
fn a_connection_that_no_rule_takes_goes_to_its_service() {
    let destinations = |rules: &str, port| {
        let route = route(rules, port);
        let cluster = |r: &api::TcpRule| {
            r.split.clusters()[0]
                .cluster
                .replace(".shop.svc.cluster.local", "")
        };
        route.tcp.iter().map(cluster).collect::<Vec<_>>()
    };
    let one_port = "  tcp:\n  - match: [{port: 9090}]\n    route: [{destination: {host: ratings}}]";
    assert_eq!(destinations(one_port, 9090), ["ratings:80", "reviews:9090"]);
    assert_eq!(destinations(one_port, 9080), ["reviews:9080"]);
    let one_client = "  tcp:\n  - match: [{sourceLabels: {app: web}}, {sourceNamespace: elsewhere}]\n    route: [{destination: {host: ratings}}]";
    assert_eq!(destinations(one_client, 9080), ["ratings:80", "reviews:9080"]);
    let others = one_client.replace("app: web", "app: other");
    assert_eq!(destinations(&others, 9080), ["reviews:9080"]);
    let by_name =
        "  tls:\n  - match: [{sniHosts: ['*.example.com']}]\n    route: [{destination: {host: ratings}}]";
    assert_eq!(destinations(by_name, 9080), ["ratings:80", "reviews:9080"]);
}

#[test]
fn rules_that_look_at_labels_are_made_again_with_the_pod() {
    let depends = |rules: &str| {
        let world = world(&[shop(), virtual_service("v", rules)].concat());
        compiled(
            &world,
            &web(&world),
            Kind::Route,
            "reviews.shop.svc.cluster.local:9080",
        )
        .depends
    };
    let pod = crate::state::Dependency::Pod("shop".into(), "web".into());
    let labels =
        "  hosts: [reviews]\n  http:\n  - {match: [{sourceLabels: {a: b}}], directResponse: {status: 200}}";
    assert!(depends(labels).contains(&pod));
    assert!(!depends("  hosts: [reviews]\n  http:\n  - {directResponse: {status: 200}}").contains(&pod));
}

#[test]
fn ten_thousand_rules_compile_in_order() {
    let mut spec = String::from("  hosts: [reviews]\n  http:\n");
    for n in 0..10_000 {
        spec += &format!(
            "  - {{match: [{{uri: {{prefix: /{n}/}}}}], route: [{{destination: {{host: reviews}}}}]}}\n"
        );
    }
    let started = tokio::time::Instant::now();
    let world = world(&[shop(), virtual_service("v", &spec)].concat());
    let route = route_for(&world, &web(&world), 9080);
    assert_eq!(route.http.len(), 10_000);
    for (n, rule) in route.http.iter().enumerate().step_by(1_111) {
        assert_eq!(
            rule.matches[0].uri,
            Some(api::StringMatch::Prefix(format!("/{n}/")))
        );
    }
    // Unoptimised and on a busy machine; anything quadratic takes minutes.
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    let (after, touched) = with(&world, &pod("reviews-1", "reviews", "v2", "10.1.0.1"));
    let depends = compiled(
        &after,
        &web(&after),
        Kind::Route,
        "reviews.shop.svc.cluster.local:9080",
    )
    .depends;
    assert!(
        !depends.iter().any(|d| touched.contains(d)),
        "a pod does not have the rules compiled again"
    );
}

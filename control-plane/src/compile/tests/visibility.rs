//! Which objects decide for whom: wildcard hosts, `exportTo`, `workloadSelector`, and several objects for one host.

use api::{Action, Balancer};

use super::*;
use crate::state::testing::*;

const REVIEWS: &str = "reviews.shop.svc.cluster.local:9080";

/// The bodies of the rules for requests that a client of `namespace` gets, in order; "" for what is sent on.
fn answers(world: &World, namespace: &str) -> Vec<String> {
    let proxy = world.proxy(namespace, "p", "p");
    let Body::Route(route) = compiled(world, &proxy, Kind::Route, REVIEWS).resource.body else {
        panic!("no route")
    };
    let body = |rule: &api::HttpRule| match &rule.action {
        Action::Direct(direct) => String::from_utf8(direct.body.to_vec()).unwrap(),
        Action::Forward(_) | Action::Redirect(_) => String::new(),
    };
    route.http.iter().map(body).collect()
}

/// A VirtualService that answers with its own name, created at this second.
fn answering(name: &str, second: u32, rest: &str) -> String {
    let spec = format!("{rest}\n  http: [{{directResponse: {{status: 200, body: {{string: {name}}}}}}}]");
    aged(&virtual_service(name, &spec), second)
}

fn aged(object: &str, second: u32) -> String {
    let created = format!("generation: 1, creationTimestamp: '2026-01-01T00:00:{second:02}Z'");
    object.replace("generation: 1", &created)
}

fn of(objects: &[String]) -> std::sync::Arc<World> {
    world(&(shop() + &objects.concat()))
}

#[test]
fn the_most_specific_host_decides_however_old_the_others_are() {
    let all = answering("all", 1, "  hosts: ['*']");
    let namespace = answering("namespace", 2, "  hosts: ['*.shop.svc.cluster.local']");
    let own = answering("own", 3, "  hosts: [reviews]");
    let elsewhere = answering("elsewhere", 0, "  hosts: ['*.other.svc.cluster.local']");
    for (objects, expected) in [
        (vec![], ""),
        (vec![all.clone(), elsewhere.clone()], "all"),
        (
            vec![all.clone(), namespace.clone(), elsewhere.clone()],
            "namespace",
        ),
        (vec![all, namespace, own, elsewhere], "own"),
    ] {
        assert_eq!(answers(&of(&objects), "client"), [expected], "{objects:?}");
    }
}

#[test]
fn an_object_decides_only_where_it_is_exported_to() {
    let everywhere = answering("everywhere", 1, "  hosts: ['*']");
    let private = answering("private", 2, "  hosts: [reviews]\n  exportTo: [.]");
    let lent = answering("lent", 3, "  hosts: [reviews]\n  exportTo: [client]");
    let nobody = answering("nobody", 0, "  hosts: [reviews]\n  exportTo: ['~']");
    let world = of(&[everywhere, private, lent, nobody]);
    for (namespace, expected) in [("shop", "private"), ("client", "lent"), ("other", "everywhere")] {
        assert_eq!(answers(&world, namespace), [expected], "{namespace}");
    }
}

#[test]
fn the_rules_of_several_objects_for_one_host_follow_each_other() {
    let part = |name: &str, second, path: &str| {
        let spec = format!(
            "  hosts: [reviews]
  http:
  - match: [{{uri: {{prefix: {path}}}}}]
    directResponse: {{status: 200, body: {{string: {name}}}}}"
        );
        aged(&virtual_service(name, &spec), second)
    };
    let first = part("first", 1, "/a");
    let second = part("second", 2, "/b");
    let third = part("third", 3, "/a");
    let rest = answering("rest", 4, "  hosts: [reviews]");
    let late = answering("late", 5, "  hosts: [reviews, ratings]");
    let world = of(&[late, rest, third, second, first]);
    assert_eq!(
        answers(&world, "shop"),
        ["first", "second", "third", "rest", "late"]
    );
    let conflicts = |name| state(&world, name).conflicts;
    assert_eq!(conflicts("second"), [""; 0]);
    assert_eq!(conflicts("rest"), [""; 0]);
    let says = |name: &str, winner: &str| {
        format!(
            "host `{name}`: VirtualService shop/{winner} is older and has it; the rules here have no effect on it"
        )
    };
    assert_eq!(conflicts("third"), [says("reviews", "first")]);
    assert_eq!(conflicts("late"), [says("reviews", "rest")]);
}

#[test]
fn a_conflict_names_the_rules_that_nothing_is_left_to() {
    let older = aged(
        &virtual_service(
            "older",
            "  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}]
    directResponse: {status: 200}
  tls:
  - match: [{sniHosts: [x.test]}]
    route: [{destination: {host: ratings}}]",
        ),
        1,
    );
    let younger = aged(
        &virtual_service(
            "younger",
            "  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /c}}]
    directResponse: {status: 200}
  - match: [{uri: {prefix: /b}}]
    directResponse: {status: 200}
  tls:
  - match: [{sniHosts: [x.test]}]
    route: [{destination: {host: ratings}}]
  tcp:
  - route: [{destination: {host: ratings}}]",
        ),
        2,
    );
    let says = |field| {
        format!("host `reviews`: VirtualService shop/older is older and takes all that {field} is for")
    };
    let found = state(&of(&[younger.clone(), older.clone()]), "younger").conflicts;
    assert_eq!(found, [says("spec.http[1]"), says("spec.tls[0]")]);
    let delegates = older.replace("directResponse: {status: 200}", "delegate: {name: leaf}");
    let leaf = virtual_service("leaf", "  http:\n  - directResponse: {status: 200}");
    let world = of(&[younger.clone(), delegates, leaf]);
    assert!(state(&world, "older").accepted);
    let found = state(&world, "younger").conflicts;
    assert_eq!(found, [says("spec.tls[0]")], "the leaf leaves the rest");
    for (to, told) in [("[a, shop]", 0), ("['*']", 2)] {
        let narrow = older.replace("hosts:", &format!("exportTo: {to}\n  hosts:"));
        let found = state(&of(&[younger.clone(), narrow]), "younger").conflicts;
        assert_eq!(found.len(), told, "other clients have it: {found:?}");
    }
    let apart = of(&[
        younger.replace("hosts:", "exportTo: [a]\n  hosts:"),
        older.replace("hosts:", "exportTo: [b]\n  hosts:"),
    ]);
    assert_eq!(
        state(&apart, "younger").conflicts,
        [""; 0],
        "nobody sees both of them"
    );
}

fn balancer(world: &World, namespace: &str, pod: &str) -> Balancer {
    let proxy = world.proxy(namespace, pod, "p");
    match compiled(world, &proxy, Kind::Cluster, REVIEWS).resource.body {
        Body::Cluster(cluster) => cluster.balancer,
        other => panic!("{other:?}"),
    }
}

fn balanced(name: &str, simple: &str, rest: &str) -> String {
    let spec = format!("{rest}\n  trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}");
    destination_rule(name, &spec)
}

#[test]
fn policies_have_wildcards_exports_and_selectors_too() {
    let all = balanced("all", "RANDOM", "  host: '*.shop.svc.cluster.local'");
    let own = balanced("own", "ROUND_ROBIN", "  host: reviews\n  exportTo: [.]");
    let web = "  host: reviews\n  workloadSelector: {matchLabels: {app: web}}";
    let selected = balanced("selected", "PEAK_EWMA", web);
    let world = of(&[all.clone(), own.clone(), selected.clone()]);
    for (namespace, pod, expected) in [
        ("shop", "web", Balancer::PeakEwma),
        ("shop", "other", Balancer::RoundRobin),
        ("client", "p", Balancer::Random),
    ] {
        assert_eq!(balancer(&world, namespace, pod), expected, "{namespace}/{pod}");
    }
    let elsewhere = selected.replace("namespace: shop", "namespace: client");
    let elsewhere = elsewhere.replace("host: reviews", "host: reviews.shop");
    let world = of(&[all, elsewhere]);
    assert_eq!(
        balancer(&world, "shop", "web"),
        Balancer::Random,
        "a selector is for pods of its own namespace"
    );
}

#[test]
fn a_wildcard_without_a_service_below_it_is_told() {
    let lost = answering("lost", 1, "  hosts: ['*.nobody.svc.cluster.local']");
    let found = state(&of(&[lost]), "lost").warnings;
    assert_eq!(
        found,
        ["spec.hosts[0]: there is no Service below `*.nobody.svc.cluster.local` (yet), so it has no effect"]
    );
}

#[test]
fn a_policy_of_the_root_alone_is_the_same_for_every_namespace() {
    let root = object(
        "DestinationRule",
        "hauberk-system",
        "all",
        "  host: '*'\n  trafficPolicy: {loadBalancer: {simple: RANDOM}}",
    );
    let own = balanced("own", "ROUND_ROBIN", "  host: reviews");
    let elsewhere = root.replace("namespace: hauberk-system", "namespace: other");
    for (objects, differs) in [
        (vec![root.clone()], false),
        (vec![own.clone()], false),
        // For clients in the root namespace, its own goes first.
        (vec![root.clone(), own], true),
        (vec![elsewhere], true),
        (vec![root.replace("  host:", "  exportTo: [shop]\n  host:")], true),
    ] {
        let world = of(&objects);
        let reviews = crate::state::ServiceName::new("shop", "reviews");
        let deciding = world.governing_from(&web(&world), &reviews);
        assert_eq!(deciding.by_namespace, differs, "{objects:?}");
    }
}

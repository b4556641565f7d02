use api::Endpoint;

use crate::state::Dependency;

use super::*;
use crate::state::testing::*;

const NAME: &str = "reviews.shop.svc.cluster.local:9080";

fn endpoints(world: &World) -> Vec<Endpoint> {
    match compiled(world, &web(world), Kind::Endpoints, NAME).resource.body {
        Body::Endpoints(endpoints) => endpoints.endpoints,
        other => panic!("{other:?}"),
    }
}

fn addresses(world: &World) -> Vec<String> {
    endpoints(world).iter().map(|e| e.address.to_string()).collect()
}

fn reviews(entries: &str) -> String {
    let slice = slice("reviews", &[("http", 8080), ("grpc-admin", 8081)], &[]);
    slice.replace("endpoints: []", &format!("endpoints: {entries}"))
}

#[test]
fn each_port_has_the_addresses_of_its_name() {
    let world = world(&shop());
    assert_eq!(addresses(&world), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    let first = &endpoints(&world)[0];
    assert_eq!(
        (first.pod.as_str(), first.zone.as_str(), first.weight),
        ("reviews-1", "z1", 1)
    );
    assert_eq!(first.identity.as_ref().unwrap().service_account(), "reviews");
}

#[test]
fn only_what_is_ready_and_stays_takes_traffic_unless_published_anyway() {
    let entries = "[{addresses: [10.1.0.1], conditions: {ready: true}},
      {addresses: [10.1.0.2], conditions: {ready: false}},
      {addresses: [10.1.0.3], conditions: {ready: true, terminating: true}},
      {addresses: [10.1.0.4]}, {addresses: [10.1.0.1]}]";
    let (some, _) = with(&world(&shop()), &reviews(entries));
    assert_eq!(addresses(&some), ["10.1.0.1:8080", "10.1.0.4:8080"]);
    let service = service("reviews", "10.0.0.1", &[("http", 9080)]);
    let (all, _) = with(
        &some,
        &service.replace("spec:\n", "spec:\n  publishNotReadyAddresses: true\n"),
    );
    assert_eq!(addresses(&all).len(), 4);
}

#[test]
fn what_is_going_away_takes_traffic_only_where_nothing_else_does() {
    let entry = |n: u8, ready: bool, serving: bool, terminating: bool| {
        format!(
            "{{addresses: [10.1.0.{n}], conditions: {{ready: {ready}, serving: {serving}, terminating: {terminating}}}}}"
        )
    };
    let staying = entry(1, true, true, false);
    let leaving = entry(2, false, true, true);
    let gone = entry(3, false, false, true);
    let starting = entry(4, false, false, false);
    for (entries, expected) in [
        (vec![&staying, &leaving, &gone], vec!["10.1.0.1:8080"]),
        (vec![&leaving, &gone, &starting], vec!["10.1.0.2:8080"]),
        (vec![&gone, &starting], vec![]),
    ] {
        let entries: Vec<_> = entries.into_iter().map(String::as_str).collect();
        let (world, _) = with(&world(&shop()), &reviews(&format!("[{}]", entries.join(", "))));
        assert_eq!(addresses(&world), expected, "{entries:?}");
    }
}

fn reviews_service(more: &str) -> String {
    service("reviews", "10.0.0.1", &[("http", 9080), ("grpc-admin", 9090)])
        .replace("spec:\n", &format!("spec:\n{more}"))
}

/// Entries `address/own zone/zones hinted at`, seen from a client in zone z1 or z2 or nowhere.
fn near(service: &str, entries: &[(&str, &str, &[&str])], more: &str) -> [Vec<String>; 3] {
    let entry = |(n, zone, hints): &(&str, &str, &[&str])| {
        let hints: Vec<_> = hints.iter().map(|h| format!("{{name: {h}}}")).collect();
        let hints = match hints.is_empty() {
            true => String::new(),
            false => format!(", hints: {{forZones: [{}]}}", hints.join(", ")),
        };
        format!(
            "{{addresses: [10.1.0.{n}], zone: '{zone}', targetRef: {{kind: Pod, name: reviews-{n}}}{hints}}}"
        )
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    let base = [
        shop(),
        reviews(&format!("[{}]", entries.join(", "))),
        more.to_owned(),
    ]
    .concat();
    let service = reviews_service(service);
    let (world, _) = with(&world(&base), &service);
    ["z1", "z2", ""].map(|zone| {
        let proxy = Proxy {
            zone: zone.to_owned(),
            ..web(&world)
        };
        match compiled(&world, &proxy, Kind::Endpoints, NAME).resource.body {
            Body::Endpoints(e) => e.endpoints.iter().map(|e| e.address.ip().to_string()).collect(),
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn endpoints_of_the_clients_zone_are_preferred_where_the_cluster_or_the_service_says_so() {
    let (plain, close) = ("", "  trafficDistribution: PreferClose\n");
    let [one, two, both] = [&["10.1.0.1"][..], &["10.1.0.2"], &["10.1.0.1", "10.1.0.2"]];
    for (service, entries, expected) in [
        (
            plain,
            [("1", "z1", &["z1"][..]), ("2", "z2", &["z2"])],
            [one, two, both],
        ),
        (
            plain,
            [("1", "z1", &["z2"]), ("2", "z2", &["z1", "z2"])],
            [two, both, both],
        ),
        // No hint for this zone, or hints of some only: all.
        (
            plain,
            [("1", "z1", &["z3"]), ("2", "z2", &["z2"])],
            [both, two, both],
        ),
        (
            plain,
            [("1", "z1", &["z1"]), ("2", "z2", &[])],
            [both, both, both],
        ),
        (plain, [("1", "z1", &[]), ("2", "z2", &[])], [both, both, both]),
        (close, [("1", "z1", &[]), ("2", "z2", &[])], [one, two, both]),
        (close, [("1", "", &[]), ("2", "z2", &[])], [both, both, both]),
    ] {
        assert_eq!(near(service, &entries, ""), expected, "{service:?} {entries:?}");
    }
}

#[test]
fn a_zone_does_not_empty_a_subset() {
    let entries = [("1", "z1", &["z1"][..]), ("2", "z2", &["z2"])];
    let subsets = reviews_subsets();
    let [z1, ..] = near("", &entries, &subsets);
    assert_eq!(z1, ["10.1.0.1", "10.1.0.2"], "v1 and v2 each have one");
}

#[test]
fn a_rule_by_place_takes_the_place_of_hints_and_says_where_endpoints_are() {
    let entries = [("1", "z1", &["z1"][..]), ("2", "z2", &["z2"])];
    let rule = |setting: &str| {
        let spec = format!(
            "  host: reviews\n  trafficPolicy: {{loadBalancer: {{localityLbSetting: {setting}}}, outlierDetection: {{}}}}"
        );
        destination_rule("reviews", &spec)
    };
    for setting in ["{enabled: true}", "{enabled: false}"] {
        let seen = near("", &entries, &rule(setting));
        assert!(
            seen.iter().all(|seen| *seen == ["10.1.0.1", "10.1.0.2"]),
            "{setting}: {seen:?}"
        );
    }
    let topology = |more: &str| {
        let (world, _) = with(&world(&shop()), more);
        endpoints(&world)
            .into_iter()
            .map(|e| e.topology)
            .collect::<Vec<_>>()
    };
    assert!(
        topology("").iter().all(|topology| topology.is_empty()),
        "nobody asks"
    );
    let region = pod("reviews-1", "reviews", "v1", "10.1.0.1").replace(
        "injected: 'true'",
        "injected: 'true', topology.kubernetes.io/region: r1",
    );
    let map = |of: &[(&str, &str)]| {
        of.iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    let seen = topology(&(region + &rule("{enabled: true}")));
    let zone = ("topology.kubernetes.io/zone", "z1");
    assert_eq!(
        seen,
        [
            map(&[("topology.kubernetes.io/region", "r1"), zone]),
            map(&[zone])
        ] as [std::collections::BTreeMap<_, _>; 2]
    );
    let seen = topology(&rule("{failoverPriority: [version]}"));
    assert_eq!(
        seen,
        [map(&[("version", "v1")]), map(&[("version", "v2")])] as [std::collections::BTreeMap<_, _>; 2]
    );
}

#[test]
fn endpoints_by_zone_follow_the_pod_of_the_proxy() {
    let close = "[{addresses: [10.1.0.1], zone: z1}, {addresses: [10.1.0.2], zone: z2}]";
    let (world, _) = with(&world(&shop()), &reviews(close));
    let web_pod = Dependency::Pod("shop".into(), "web".into());
    let depends = |world: &World| compiled(world, &web(world), Kind::Endpoints, NAME).depends;
    assert!(!depends(&world).contains(&web_pod));
    let (world, _) = with(
        &world,
        &reviews_service("  trafficDistribution: PreferSameZone\n"),
    );
    assert!(depends(&world).contains(&web_pod));
}

#[test]
fn identity_needs_a_proxy_and_a_policy_that_takes_mutual_tls() {
    let identities = |more: &str| {
        let (world, _) = with(&world(&shop()), more);
        endpoints(&world)
            .iter()
            .map(|e| e.identity.is_some())
            .collect::<Vec<_>>()
    };
    let plain = pod("reviews-1", "reviews", "v1", "10.1.0.1").replace("'true'", "'false'");
    assert_eq!(identities(&plain), [false, true]);
    assert_eq!(
        identities(&object(
            "PeerAuthentication",
            "shop",
            "p",
            "  mtls: {mode: DISABLE}"
        )),
        [false, false]
    );
    assert_eq!(
        identities(&object(
            "PeerAuthentication",
            "hauberk-system",
            "p",
            "  mtls: {mode: DISABLE}"
        )),
        [false, false]
    );
    assert_eq!(
        identities(&object(
            "PeerAuthentication",
            "other",
            "p",
            "  mtls: {mode: DISABLE}"
        )),
        [true, true]
    );
    let port = |number: u16| {
        let spec = format!(
            "  selector: {{matchLabels: {{version: v2}}}}\n  portLevelMtls: {{{number}: {{mode: DISABLE}}}}"
        );
        object("PeerAuthentication", "shop", "p", &spec)
    };
    assert_eq!(identities(&port(8080)), [true, false], "the pod's port counts");
    assert_eq!(identities(&port(9080)), [true, true], "and not the Service's");
}

#[test]
fn an_endpoint_carries_the_labels_that_subsets_select_on_and_its_weight() {
    let heavy = pod("reviews-1", "reviews", "v1", "10.1.0.1")
        .replace("  labels:", "  annotations: {hauberk.dev/weight: '7'}\n  labels:");
    let (plain, _) = with(&world(&shop()), &heavy);
    assert!(endpoints(&plain)[0].labels.is_empty());
    assert_eq!(
        endpoints(&plain).iter().map(|e| e.weight).collect::<Vec<_>>(),
        [7, 1]
    );
    let (subsets, _) = with(&plain, &reviews_subsets());
    let labels: Vec<_> = endpoints(&subsets)
        .iter()
        .map(|e| format!("{:?}", e.labels))
        .collect();
    assert_eq!(labels, [r#"{"version": "v1"}"#, r#"{"version": "v2"}"#]);
}

#[test]
fn of_two_families_the_primary_one_is_dialled() {
    let v6 = reviews("[{addresses: ['fd00::1']}]")
        .replace("IPv4", "IPv6")
        .replace("reviews-1,", "reviews-6,");
    let (both, _) = with(&world(&shop()), &v6);
    assert_eq!(addresses(&both), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    let (only, _) = without(&both, &reviews("[]"));
    assert_eq!(addresses(&only), ["[fd00::1]:8080"]);
}

#[test]
fn more_endpoints_than_a_proxy_takes_are_refused_by_count() {
    let entries: Vec<_> = (0..=10_000)
        .map(|n| format!("{{addresses: ['10.2.{}.{}']}}", n / 250, n % 250))
        .collect();
    let (world, _) = with(&world(&shop()), &reviews(&format!("[{}]", entries.join(", "))));
    let reason = absent(&world, Kind::Endpoints, NAME);
    assert!(
        reason.contains("10001 endpoints") && reason.contains("10000"),
        "{reason}"
    );
}

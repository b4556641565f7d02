use api::Endpoint;

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

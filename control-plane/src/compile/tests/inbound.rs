use api::{Inbound, InboundPort, Protocol, TlsPolicy};

use super::*;
use crate::state::testing::*;

fn inbound(world: &World, pod: &str) -> Inbound {
    let proxy = world.proxy("shop", pod, "sa");
    match compiled(world, &proxy, Kind::Inbound, "self").resource.body {
        Body::Inbound(inbound) => inbound,
        other => panic!("{other:?}"),
    }
}

fn peers(namespace: &str, name: &str, spec: &str) -> String {
    object("PeerAuthentication", namespace, name, spec)
}

#[test]
fn without_a_policy_both_kinds_of_connection_are_taken() {
    let inbound = inbound(&world(&shop()), "reviews-1");
    assert_eq!(
        (inbound.policy, inbound.sources.len()),
        (TlsPolicy::Permissive, 0)
    );
}

#[test]
fn ports_are_known_by_the_services_that_lead_to_them() {
    let inbound = inbound(&world(&shop()), "reviews-1");
    let port = |port, protocol| InboundPort {
        port,
        policy: None,
        protocol: Some(protocol),
        service: "reviews.shop.svc.cluster.local".into(),
    };
    assert_eq!(
        inbound.ports,
        [port(8080, Protocol::Http1), port(8081, Protocol::Grpc)]
    );
}

#[test]
fn a_service_is_found_by_its_selector_where_no_slice_is() {
    let yaml = service("reviews", "10.0.0.1", &[("http", 80)]).replace("targetPort: 8080", "targetPort: web")
        + &pod("reviews-1", "reviews", "v1", "10.1.0.1").replace(
            "containers: []",
            "containers: [{name: a, ports: [{name: web, containerPort: 3000}]}]",
        );
    let inbound = inbound(&world(&yaml), "reviews-1");
    assert_eq!(inbound.ports.len(), 1);
    assert_eq!(
        (inbound.ports[0].port, inbound.ports[0].protocol),
        (3000, Some(Protocol::Http1))
    );
}

#[test]
fn the_narrower_policy_decides_and_is_named() {
    let mesh = peers("hauberk-system", "mesh", "  mtls: {mode: STRICT}");
    let namespace = peers("shop", "shop", "  mtls: {mode: DISABLE}");
    let workload = peers(
        "shop",
        "v1",
        "  selector: {matchLabels: {version: v1}}
  mtls: {mode: STRICT}
  portLevelMtls: {8080: {mode: PERMISSIVE}, 9999: {mode: DISABLE}}",
    );
    let decided = |objects: &[&String], pod: &str| {
        let rules: String = objects.iter().map(|o| o.as_str()).collect();
        let inbound = inbound(&world(&(shop() + &rules)), pod);
        let sources: Vec<_> = inbound.sources.iter().map(|s| s.name.clone()).collect();
        (
            inbound.policy,
            inbound.policy_of(8080),
            inbound.policy_of(9999),
            sources.join(" "),
        )
    };
    use TlsPolicy::{Disable, Permissive, Strict};
    assert_eq!(
        decided(&[&mesh], "reviews-1"),
        (Strict, Strict, Strict, "mesh".into())
    );
    assert_eq!(
        decided(&[&mesh, &namespace], "reviews-1"),
        (Disable, Disable, Disable, "shop".into())
    );
    let all = [&mesh, &namespace, &workload];
    assert_eq!(
        decided(&all, "reviews-1"),
        (Strict, Permissive, Disable, "v1".into())
    );
    assert_eq!(
        decided(&all, "reviews-2"),
        (Disable, Disable, Disable, "shop".into())
    );
}

#[test]
fn a_policy_that_was_good_stays_when_its_new_version_is_bad() {
    let strict = peers("shop", "p", "  mtls: {mode: STRICT}");
    let bad =
        peers("shop", "p", "  portLevelMtls: {80: {mode: STRICT}}").replace("generation: 1", "generation: 2");
    let (world, _) = with(&world(&(shop() + &strict)), &bad);
    assert_eq!(inbound(&world, "reviews-1").policy, TlsPolicy::Strict);
    let state = state(&world, "p");
    assert_eq!((state.accepted, state.in_force), (false, Some(1)));
}

#[test]
fn a_pod_that_has_done_its_work_tells_its_proxy_to_end_and_no_other() {
    let job = |state: &str| {
        let status = format!(
            "status: {{podIP: 10.1.0.7, containerStatuses: [{{name: app, image: a, imageID: a, ready: false, \
             restartCount: 0, state: {{{state}}}}}]}}"
        );
        pod("job-1", "job", "v1", "10.1.0.7")
            .replace("status: {podIP: 10.1.0.7}", &status)
            .replace(
                "containers: []",
                "restartPolicy: Never, containers: [{name: hauberk-proxy}, {name: app}]",
            )
    };
    let before = world(&(shop() + &job("running: {}")));
    assert!(!inbound(&before, "job-1").finished);
    let (after, touched) = with(&before, &job("terminated: {exitCode: 0}"));
    assert!(inbound(&after, "job-1").finished);
    assert!(!inbound(&after, "reviews-1").finished);
    let depends = |pod: &str| {
        let proxy = after.proxy("shop", pod, "sa");
        let compiled = compiled(&after, &proxy, Kind::Inbound, "self");
        compiled.depends.iter().any(|d| touched.contains(d))
    };
    assert!(depends("job-1") && !depends("reviews-1"));
}

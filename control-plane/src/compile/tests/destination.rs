use api::{Destination, Protocol, Workload};

use super::*;
use crate::state::Dependency;
use crate::state::testing::*;

fn dial(world: &World, address: &str) -> (Destination, Vec<Dependency>) {
    let compiled = compiled(world, &web(world), Kind::Destination, address);
    match compiled.resource.body {
        Body::Destination(destination) => (destination, compiled.depends),
        other => panic!("{other:?}"),
    }
}

fn pod_dialled(world: &World, address: &str) -> Workload {
    match dial(world, address).0 {
        Destination::Workload(workload) => *workload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_address_leads_to_its_route_and_a_wrong_port_is_refused() {
    let world = world(&shop());
    let (target, depends) = dial(&world, "10.0.0.1:9080");
    assert_eq!(
        target,
        Destination::Route("reviews.shop.svc.cluster.local:9080".into())
    );
    let expected = [
        Dependency::Service("shop".into(), "reviews".into()),
        Dependency::Address("10.0.0.1".parse().unwrap()),
    ];
    assert_eq!(depends, expected);
    let mapped = dial(&world, "[::ffff:10.0.0.1]:9080").0;
    assert_eq!(mapped, target);
    let Destination::Refuse(reason) = dial(&world, "10.0.0.1:81").0 else {
        panic!()
    };
    assert!(
        reason.contains("port 81") && reason.contains("9080, 9090"),
        "{reason}"
    );
}

#[test]
fn an_unknown_address_passes_through_and_waits_for_who_takes_it() {
    let before = world("");
    let (target, depends) = dial(&before, "10.0.0.1:9080");
    assert_eq!(target, Destination::Passthrough);
    let (_, touched) = with(&before, &shop());
    assert!(depends.iter().any(|d| touched.contains(d)));
}

#[test]
fn a_pod_address_reaches_that_pod_with_the_settings_of_its_service() {
    let world = world(&shop());
    let workload = pod_dialled(&world, "10.1.0.2:8081");
    assert_eq!(workload.cluster, "reviews.shop.svc.cluster.local:9090");
    assert_eq!(workload.protocol, Some(Protocol::Grpc));
    let endpoint = workload.endpoint;
    assert_eq!(
        (endpoint.pod.as_str(), endpoint.zone.as_str()),
        ("reviews-2", "z1")
    );
    assert_eq!(endpoint.address.to_string(), "10.1.0.2:8081");
    let identity = endpoint.identity.unwrap();
    assert_eq!(identity.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
}

#[test]
fn a_pod_port_of_no_service_has_every_default() {
    let world = world(&shop());
    let workload = pod_dialled(&world, "10.1.0.2:7777");
    assert_eq!(
        (workload.cluster.as_str(), workload.protocol),
        (super::super::WORKLOAD_CLUSTER, None)
    );
    assert!(workload.endpoint.identity.is_some());
    let cluster = compiled(&world, &web(&world), Kind::Cluster, &workload.cluster)
        .resource
        .body;
    let Body::Cluster(cluster) = cluster else {
        panic!("{cluster:?}")
    };
    assert_eq!(*cluster, api::Cluster::of("workload"));
    let endpoints = compiled(&world, &web(&world), Kind::Endpoints, &cluster.endpoints)
        .resource
        .body;
    assert_eq!(endpoints, Body::Endpoints(api::Endpoints::default()));
}

#[test]
fn headless_pods_are_reached_by_their_addresses() {
    let headless = shop().replace("clusterIP: 10.0.0.1", "clusterIP: None");
    let world = world(&headless);
    assert_eq!(
        pod_dialled(&world, "10.1.0.1:8080").cluster,
        "reviews.shop.svc.cluster.local:9080"
    );
    assert_eq!(dial(&world, "10.0.0.1:9080").0, Destination::Passthrough);
}

#[test]
fn each_pod_is_reached_at_the_number_that_its_own_slice_gives_a_named_port() {
    let old = slice("reviews", &[("http", 8080)], &[("reviews-1", "10.1.0.1")]);
    let new =
        slice("reviews", &[("http", 9999)], &[("reviews-2", "10.1.0.2")]).replace("reviews-1,", "reviews-2,");
    let (world, _) = with(&world(&shop()), &[old, new].concat());
    let name = "reviews.shop.svc.cluster.local:9080";
    let Body::Endpoints(endpoints) = compiled(&world, &web(&world), Kind::Endpoints, name)
        .resource
        .body
    else {
        panic!()
    };
    let addresses: Vec<_> = endpoints
        .endpoints
        .iter()
        .map(|e| e.address.to_string())
        .collect();
    assert_eq!(addresses, ["10.1.0.1:8080", "10.1.0.2:9999"]);
    for dialled in ["10.1.0.1:8080", "10.1.0.2:9999"] {
        assert_eq!(pod_dialled(&world, dialled).cluster, name);
    }
    assert_eq!(
        pod_dialled(&world, "10.1.0.2:8080").cluster,
        super::super::WORKLOAD_CLUSTER
    );
}

#[test]
fn both_families_of_a_service_and_of_a_pod_lead_to_the_same() {
    let both = shop()
        .replace(
            "clusterIP: 10.0.0.1",
            "clusterIP: 10.0.0.1\n  clusterIPs: [10.0.0.1, 'fd00::1']",
        )
        .replace(
            "{podIP: 10.1.0.1}",
            "{podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::a'}]}",
        );
    let world = world(&both);
    assert_eq!(dial(&world, "[fd00::1]:9080").0, dial(&world, "10.0.0.1:9080").0);
    assert_eq!(pod_dialled(&world, "[fd00::a]:7777").endpoint.pod, "reviews-1");
}

#[test]
fn what_an_external_name_resolves_to_passes_through() {
    let yaml = "{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop},
      spec: {type: ExternalName, externalName: api.example.com, ports: [{port: 443}]}}";
    assert_eq!(dial(&world(yaml), "192.0.2.7:443").0, Destination::Passthrough);
}

#[test]
fn an_address_given_again_is_the_younger_pods() {
    let dated = |name: &str, day: u8| {
        let date = format!("\n  creationTimestamp: '2026-01-0{day}T00:00:00Z'\n  labels");
        pod(name, "reviews", "v1", "10.1.0.1").replace("\n  labels", &date)
    };
    let world = world(&[dated("a-young", 2), dated("b-old", 1)].concat());
    assert_eq!(pod_dialled(&world, "10.1.0.1:1").endpoint.pod, "a-young");
}

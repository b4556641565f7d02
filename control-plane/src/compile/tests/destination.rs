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
fn an_address_given_again_is_the_younger_pods() {
    let dated = |name: &str, day: u8| {
        let date = format!("\n  creationTimestamp: '2026-01-0{day}T00:00:00Z'\n  labels");
        pod(name, "reviews", "v1", "10.1.0.1").replace("\n  labels", &date)
    };
    let world = world(&[dated("a-young", 2), dated("b-old", 1)].concat());
    assert_eq!(pod_dialled(&world, "10.1.0.1:1").endpoint.pod, "a-young");
}

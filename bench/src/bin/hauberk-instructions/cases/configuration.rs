//! Configuration: what a proxy does with an update, and what the operator does to make one.

use std::hint::black_box;
use std::net::SocketAddr;

use api::{Body, Kind, ResourceName, proto};
use control_plane::compile::compile;
use control_plane::source::Change;
use control_plane::state::World;
use proxy::config::Current;
use proxy::config::direct::Direct;

use super::{Case, case};
use crate::pod::{resource, service, settings};

const DESTINATIONS: u16 = 100;
const SERVICES: u16 = 1000;

pub(super) const CASES: [Case; 3] = [
    case("apply/first_of_100_destinations", 10, |n| {
        (0..n).for_each(|_| drop(applied()));
    }),
    case("apply/one_endpoint_of_100_destinations", 100, one_endpoint),
    case("compile/service_of_1000", 100, compiled),
];

fn vip(i: u16) -> SocketAddr {
    let [high, low] = i.to_be_bytes();
    ([10, 96, high, low], 80).into()
}

fn name(i: u16) -> String {
    format!("s{i}.shop.svc.cluster.local:80")
}

fn endpoint(i: u16, replica: u8) -> SocketAddr {
    let [high, low] = i.to_be_bytes();
    ([10, replica, high, low], 8080).into()
}

/// A proxy that has got all of its configuration in one update.
fn applied() -> Direct {
    let mut direct = Direct::new(&settings().trust_domain, Current::default());
    (0..DESTINATIONS).for_each(|i| direct.want(vip(i)));
    let resources = (0..DESTINATIONS).flat_map(|i| {
        let endpoints = [1, 2, 3].map(|replica| endpoint(i, replica));
        service(vip(i), &name(i), &endpoints)
    });
    let update = proto::Update {
        resources: resources.collect(),
    };
    let active = direct.apply(update).expect("valid resources");
    assert_eq!(active, usize::from(DESTINATIONS) * 4);
    direct
}

/// One service gets another endpoint in place of an old one, and gets that back.
fn one_endpoint(iterations: u32) {
    let mut direct = applied();
    let updates = [4, 3].map(|replica| {
        let endpoints = [1, 2, replica].map(|replica| endpoint(DESTINATIONS / 2, replica));
        let body = Body::Endpoints(bench::endpoints(&endpoints));
        proto::Update {
            resources: vec![resource(Kind::Endpoints, &name(DESTINATIONS / 2), body)],
        }
    });
    for update in updates.iter().cycle().take(iterations as usize) {
        assert_eq!(direct.apply(update.clone()), Ok(1));
    }
}

/// All that a proxy gets for one service after the other.
fn compiled(iterations: u32) {
    let changes = crds::parse(&bench::manifests(SERVICES))
        .into_iter()
        .map(|object| Change::Set(object.expect("a valid manifest")));
    let (world, _) = World::new("cluster.local").apply(changes.collect::<Vec<_>>());
    let proxy = world.proxy("shop", "web", "web");
    for i in (0..SERVICES).cycle().take(iterations as usize) {
        let resources = [
            (Kind::Destination, vip(i).to_string()),
            (Kind::Route, name(i)),
            (Kind::Cluster, name(i)),
            (Kind::Endpoints, name(i)),
        ];
        for (kind, name) in resources {
            let compiled = compile(black_box(&world), &proxy, &ResourceName::new(kind, name));
            assert!(!matches!(compiled.resource.body, Body::Absent(_)), "{compiled:?}");
        }
    }
}

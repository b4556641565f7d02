mod cluster;
mod delegation;
mod destination;
mod endpoints;
mod inbound;
mod invariant;
mod route;
mod universe;
mod visibility;

use api::{Body, Kind, ResourceName};

use super::{Compiled, compile};
use crate::state::{Proxy, World};

fn web(world: &World) -> Proxy {
    world.proxy("shop", "web", "web")
}

fn compiled(world: &World, proxy: &Proxy, kind: Kind, name: &str) -> Compiled {
    compile(world, proxy, &ResourceName::new(kind, name))
}

/// Why there is no such resource.
fn absent(world: &World, kind: Kind, name: &str) -> String {
    match compiled(world, &web(world), kind, name).resource.body {
        Body::Absent(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_there_is_absent_with_the_reason() {
    let world = crate::state::testing::world(&crate::state::testing::shop());
    for (kind, name, reason) in [
        (Kind::Destination, "10.0.0.1", "not of the form ip:port"),
        (
            Kind::Route,
            "nobody.shop.svc.cluster.local:80",
            "there is no Service nobody.shop",
        ),
        (
            Kind::Route,
            "reviews.shop.svc.cluster.local:81",
            "81 is not a port of reviews.shop",
        ),
        (Kind::Route, "reviews:80", "not of the form"),
        (
            Kind::Cluster,
            "reviews.shop.svc.cluster.local:81",
            "it has 9080, 9090",
        ),
        (
            Kind::Cluster,
            "reviews.shop.svc.cluster.local:9080|v1",
            "subset `v1`",
        ),
        (
            Kind::Endpoints,
            "reviews.shop.svc.cluster.local:81",
            "it has 9080, 9090",
        ),
        (Kind::Inbound, "other", "`self`"),
        (Kind::TrustBundle, "mesh", "certificate authority"),
    ] {
        let said = absent(&world, kind, name);
        assert!(said.contains(reason), "{kind:?} {name}: {said}");
    }
}

//! What a decision costs, by the size of what it decides about. `make bench` runs it. Compare runs of one machine, and
//! ratios of one run: the figures of two machines say nothing about each other.

use std::hint::black_box;

use api::{Balancer, Kind, ResourceName};
use control_plane::compile::compile;
use control_plane::source::Change;
use control_plane::state::World;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Request;
use proxy::balancer::{Outcome, Wanted, pick};
use proxy::detect::detect;
use proxy::route::{Facts, select};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::time::Instant;

fn detection(c: &mut Criterion) {
    let get = b"GET /reviews/1?full=yes HTTP/1.1\r\nHost: reviews:8080\r\n\r\n";
    let startup = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
    c.bench_function("detect/http1", |b| b.iter(|| detect(black_box(get))));
    c.bench_function("detect/postgresql", |b| b.iter(|| detect(black_box(&startup))));
}

fn route_selection(c: &mut Criterion) {
    let mut rng = SmallRng::seed_from_u64(1);
    for rules in [1, 100, 10_000] {
        let route = bench::route(rules);
        let request = Request::builder()
            .uri(format!("/{}", rules - 1))
            .body(())
            .expect("a request");
        c.bench_with_input(BenchmarkId::new("route/last_of", rules), &rules, |b, _| {
            b.iter(|| select(black_box(&route), &Facts::of(black_box(&request)), &mut rng).is_ok());
        });
    }
}

fn balancing(c: &mut Criterion) {
    let mut rng = SmallRng::seed_from_u64(1);
    let now = Instant::now();
    let balancers = [
        ("round_robin", Balancer::RoundRobin),
        ("random", Balancer::Random),
        ("least_request", Balancer::LeastRequest),
        ("peak_ewma", Balancer::PeakEwma),
    ];
    for (name, balancer) in balancers {
        for endpoints in [1, 10, 1000] {
            let cluster = bench::cluster(endpoints, balancer.clone());
            c.bench_with_input(
                BenchmarkId::new(format!("pick/{name}"), endpoints),
                &endpoints,
                |b, _| {
                    b.iter(|| {
                        let picked =
                            pick(&Wanted::of(black_box(&cluster)), &mut rng, now).expect("an endpoint");
                        picked.finish(Outcome::Success, now)
                    });
                },
            );
        }
    }
}

fn compiling(c: &mut Criterion) {
    let changes = crds::parse(&bench::manifests(1000))
        .into_iter()
        .map(|object| Change::Set(object.expect("a valid manifest")));
    let (world, _) = World::new("cluster.local").apply(changes.collect::<Vec<_>>());
    let proxy = world.proxy("shop", "web", "web");
    for (kind, name) in [
        (Kind::Route, "s500.shop.svc.cluster.local:80"),
        (Kind::Cluster, "s500.shop.svc.cluster.local:80"),
        (Kind::Endpoints, "s500.shop.svc.cluster.local:80"),
        (Kind::Destination, "10.96.1.244:80"),
    ] {
        let resource = ResourceName::new(kind, name);
        c.bench_function(&format!("compile/{}_of_1000_services", kind.as_str()), |b| {
            b.iter(|| compile(black_box(&world), &proxy, &resource));
        });
    }
}

criterion_group!(decisions, detection, route_selection, balancing, compiling);
criterion_main!(decisions);

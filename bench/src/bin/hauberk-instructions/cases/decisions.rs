//! Decisions alone: what is spoken, which rule, which endpoint.

use std::hint::black_box;

use api::Balancer;
use http::Request;
use proxy::balancer::{Outcome, Wanted, pick};
use proxy::detect::{Detected, detect, tls};
use proxy::route::{Facts, select};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::{Case, case};

const MANY: u32 = 2000;

pub(super) const CASES: [Case; 18] = [
    case("detect/http1", MANY, |n| {
        let bytes = b"GET /reviews/1?full=yes HTTP/1.1\r\nHost: reviews:8080\r\n\r\n";
        (0..n).for_each(|_| assert_eq!(detect(black_box(bytes)), Detected::Http1));
    }),
    case("detect/postgresql", MANY, |n| {
        let startup = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
        (0..n).for_each(|_| assert_eq!(detect(black_box(&startup)), Detected::Opaque));
    }),
    case("detect/tls", MANY, |n| {
        let hello = client_hello();
        (0..n).for_each(|_| {
            assert_eq!(detect(black_box(&hello)), Detected::Tls);
            assert!(tls::client_hello(black_box(&hello)).is_ok_and(|hello| hello.sni.is_some()));
        });
    }),
    case("route/1_rule", MANY, |n| route(n, 1)),
    case("route/8_rules", MANY, |n| route(n, 8)),
    case("route/100_rules", 200, |n| route(n, 100)),
    case("route/10000_rules", 100, |n| route(n, 10_000)),
    case("pick/round_robin/1", MANY, |n| {
        balance(n, Balancer::RoundRobin, 1)
    }),
    case("pick/round_robin/10", MANY, |n| {
        balance(n, Balancer::RoundRobin, 10)
    }),
    case("pick/round_robin/1000", 500, |n| {
        balance(n, Balancer::RoundRobin, 1000)
    }),
    case("pick/random/10", MANY, |n| balance(n, Balancer::Random, 10)),
    case("pick/random/1000", 500, |n| balance(n, Balancer::Random, 1000)),
    case("pick/least_request/1", MANY, |n| {
        balance(n, Balancer::LeastRequest, 1)
    }),
    case("pick/least_request/10", MANY, |n| {
        balance(n, Balancer::LeastRequest, 10)
    }),
    case("pick/least_request/1000", 500, |n| {
        balance(n, Balancer::LeastRequest, 1000)
    }),
    case("pick/peak_ewma/1", MANY, |n| balance(n, Balancer::PeakEwma, 1)),
    case("pick/peak_ewma/10", MANY, |n| balance(n, Balancer::PeakEwma, 10)),
    case("pick/peak_ewma/1000", 500, |n| {
        balance(n, Balancer::PeakEwma, 1000)
    }),
];

/// The last rule decides.
fn route(iterations: u32, rules: usize) {
    let mut rng = SmallRng::seed_from_u64(1);
    let route = bench::route(rules);
    let request = Request::builder().uri(format!("/{}", rules - 1)).body(());
    let request = request.expect("a request");
    for _ in 0..iterations {
        let decision = select(black_box(&route), &Facts::of(black_box(&request)), &mut rng);
        assert_eq!(decision.expect("a rule matches").rule_index, rules - 1);
    }
}

fn balance(iterations: u32, balancer: Balancer, endpoints: u16) {
    let mut rng = SmallRng::seed_from_u64(1);
    let now = Instant::now();
    let cluster = bench::cluster(endpoints, balancer);
    for _ in 0..iterations {
        let picked = pick(&Wanted::of(black_box(&cluster)), &mut rng, now).expect("an endpoint");
        black_box(picked.finish(Outcome::Success, now));
    }
}

/// What a client of TLS 1.3 sends first, always the same: a library would shuffle it.
fn client_hello() -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat();
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes(), &*sized(body)].concat();
    let name = [&[0], &*sized(b"reviews.shop.svc.cluster.local")].concat();
    let key_share = [&[0x11, 0xec], &*sized(&[7; 1216])].concat();
    let extensions = [
        extension(0x2b, &[2, 3, 4]),
        extension(0x0a, &sized(&[0x11, 0xec, 0, 0x1d])),
        extension(0x0d, &sized(&[4, 3, 8, 4])),
        extension(0x33, &sized(&key_share)),
        extension(0, &sized(&name)),
        extension(0x10, &sized(b"\x02h2\x08http/1.1")),
    ];
    let mut hello = vec![3, 3];
    hello.extend_from_slice(&[9; 32]);
    hello.push(32);
    hello.extend_from_slice(&[8; 32]);
    hello.extend_from_slice(&sized(&[0x13, 1, 0x13, 2, 0x13, 3]));
    hello.extend_from_slice(&[1, 0]);
    hello.extend_from_slice(&sized(&extensions.concat()));
    // A handshake message's length has three bytes; this one needs two.
    let message = [&[1, 0], &*sized(&hello)].concat();
    [&[0x16, 3, 1], &*sized(&message)].concat()
}

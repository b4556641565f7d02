//! Copies for mirrors: what they hold, and that the original neither waits for them nor hears of them.

use std::num::NonZeroU32;
use std::sync::Arc;

use api::{Action, Fraction, HttpRule, Mirror, Rewrite};
use http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::config::snapshot::{Cluster, Destination, Route, Snapshot};
use crate::route::testing::rule;
use crate::testing::{
    Reply, SERVICE, Server, World, ask, cluster, destination, eventually, ok, request, run,
};

/// A rule to the first cluster, with all others as mirrors that get every request.
fn mirrored(clusters: Vec<Arc<Cluster>>, change: impl FnOnce(&mut HttpRule)) -> Snapshot {
    let mut rule = rule(Vec::new(), &[("reviews", 1)]);
    if let Action::Forward(forward) = &mut rule.action {
        let mirror = |cluster: &Arc<Cluster>| Mirror {
            cluster: cluster.name.to_string(),
            share: Fraction::ALL,
        };
        forward.mirrors = clusters[1..].iter().map(mirror).collect();
    }
    change(&mut rule);
    let route = Route {
        name: "reviews.shop:80".into(),
        version: api::Version::from_wire(1).unwrap(),
        spec: Arc::new(api::Route {
            host: "reviews.shop".to_owned(),
            port: 80,
            protocol: None,
            http: vec![rule],
            tcp: Vec::new(),
        }),
        http: vec![clusters],
        tcp: Vec::new(),
        index: None,
    };
    destination(Destination::Service(Arc::new(route)))
}

fn to(server: &Server) -> Arc<Cluster> {
    cluster(&[server.address], |_| {})
}

#[test]
fn a_copy_is_the_request_as_it_is_sent_under_an_authority_of_its_own() {
    run(async {
        let server = Server::start(|_, _| ok("original")).await;
        let (one, two) = (
            Server::start(|_, _| ok("copy")).await,
            Server::start(|_, _| ok("copy")).await,
        );
        let mirror = to(&one);
        let snapshot = mirrored(vec![to(&server), Arc::clone(&mirror), to(&two)], |rule| {
            let set = (
                http::HeaderName::from_static("x-set"),
                HeaderValue::from_static("1"),
            );
            rule.request_headers.set.push(set);
            if let Action::Forward(forward) = &mut rule.action {
                forward.rewrite = Some(Rewrite {
                    uri: Some("/v2".to_owned()),
                    authority: Some("other:8080".parse().unwrap()),
                    uri_regex: None,
                });
            }
        });
        let world = World::new(snapshot);
        let mut app = world.http1().await;
        for (n, body) in ["", "some body"].into_iter().enumerate() {
            let got = ask(&mut app, request("POST", "/item", body)).await;
            assert_eq!((got.status, got.body.as_str()), (200, "original"));
            for copied in [&one, &two] {
                eventually("the copy arrives", || copied.seen().len() == n + 1).await;
                let (seen, copy) = (&server.seen()[n], &copied.seen()[n]);
                assert_eq!((copy.line(), &copy.body), (seen.line(), &seen.body));
                assert_eq!(copy.line(), "POST /v2/item HTTP/1.1");
                assert_eq!(copy.header("x-set"), Some("1"));
                assert_eq!(seen.header("host"), Some("other:8080"));
                assert_eq!(copy.header("host"), Some("other-shadow:8080"));
            }
            let counted = || mirror.live.metrics.mirrored.get() == n as u64 + 1;
            eventually("the copy is counted", counted).await;
        }
        assert_eq!(mirror.live.metrics.requests.get(200), 2);
        assert_eq!(mirror.live.metrics.mirror_failures.get(), 0);
        assert_eq!((one.connections(), server.connections()), (1, 1), "they are kept");
    });
}

#[test]
fn a_mirror_that_hangs_fails_or_is_gone_is_not_heard_of() {
    run(async {
        let server = Server::start(|_, _| ok("original")).await;
        let hangs = Server::start(|_, _| Reply::Hang).await;
        let fails = Server::start(|_, _| Reply::Last(String::new())).await;
        let none = cluster(&[], |_| {});
        let failing = to(&fails);
        let clusters = vec![to(&server), to(&hangs), Arc::clone(&failing), Arc::clone(&none)];
        let world = World::new(mirrored(clusters, |_| {}));
        let mut app = world.http1().await;
        for _ in 0..3 {
            let got = ask(&mut app, request("POST", "/", "body")).await;
            assert_eq!((got.told(), got.body.as_str()), ((200, ""), "original"));
        }
        for mirror in [&failing, &none] {
            let metrics = &mirror.live.metrics;
            eventually("the failures are counted", || metrics.mirror_failures.get() == 3).await;
            assert_eq!(metrics.mirrored.get(), 3);
        }
        for flag in ["reset", "no_endpoint", "aborted"] {
            assert_eq!(world.errors(flag), 0, "{flag} is no error of the application's");
        }
    });
}

#[test]
fn copies_are_bounded_by_the_limits_of_their_own_cluster() {
    run(async {
        let server = Server::start(|_, _| ok("original")).await;
        let hangs = Server::start(|_, _| Reply::Hang).await;
        let mirror = cluster(&[hangs.address], |spec| {
            spec.limits.max_requests = NonZeroU32::new(2)
        });
        let world = World::new(mirrored(vec![to(&server), Arc::clone(&mirror)], |_| {}));
        let mut app = world.http1().await;
        for _ in 0..5 {
            assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);
        }
        let metrics = &mirror.live.metrics;
        eventually("the others are refused", || metrics.mirror_failures.get() == 3).await;
        eventually("two are under way", || hangs.seen().len() == 2).await;
    });
}

#[test]
fn a_copy_that_falls_behind_is_ended_and_the_original_goes_on() {
    run(async {
        const SIZE: usize = 16 << 20;
        let server = Server::start(|_, seen| ok(&seen.body.len().to_string())).await;
        // Takes the connection and never reads from it.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let deaf = cluster(&[listener.local_addr().unwrap()], |_| {});
        let world = World::new(mirrored(vec![to(&server), Arc::clone(&deaf)], |_| {}));
        let mut app = world.http1().await;
        let got = ask(&mut app, request("POST", "/", &"x".repeat(SIZE))).await;
        assert_eq!((got.status, got.body), (200, SIZE.to_string()));
        let metrics = &deaf.live.metrics;
        eventually("the copy is ended", || metrics.mirror_failures.get() == 1).await;
    });
}

#[test]
fn a_share_of_nothing_and_tunnels_are_not_copied() {
    run(async {
        let server = Server::start(|_, _| ok("original")).await;
        let mirror = Server::start(|_, _| ok("copy")).await;
        let (original, copies) = (to(&server), to(&mirror));
        let none = mirrored(vec![original.clone(), copies.clone()], |rule| {
            if let Action::Forward(forward) = &mut rule.action {
                forward.mirrors[0].share = Fraction::NONE;
            }
        });
        let world = World::new(none);
        assert_eq!(
            ask(&mut world.http1().await, request("GET", "/", ""))
                .await
                .status,
            200
        );
        world.push(mirrored(vec![original, copies], |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .await
            .unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"original") {
            assert!(app.read_buf(&mut got).await.unwrap() > 0);
        }
        assert_eq!(
            ask(&mut world.http1().await, request("GET", "/last", ""))
                .await
                .status,
            200
        );
        eventually("the last one is copied", || !mirror.seen().is_empty()).await;
        let lines: Vec<_> = mirror.seen().iter().map(|seen| seen.line().to_owned()).collect();
        assert_eq!(lines, ["GET /last HTTP/1.1"]);
    });
}

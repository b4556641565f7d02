//! What a request becomes by its rule, and what the proxy answers itself.

use std::time::Duration;

use api::{Action, DirectResponse, HttpMatch, Redirect, Rewrite, StringMatch};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::config::snapshot::{Destination, Snapshot};
use crate::identity::testing::empty;
use crate::route::testing::{acting, rule};
use crate::settings::OnDiscoveryTimeout;
use crate::testing::{
    SERVICE, Server, World, ask, cluster, destination, forward, ok, request, route, run, run_paused,
};

fn prefix(prefix: &str) -> Vec<HttpMatch> {
    vec![HttpMatch {
        uri: Some(StringMatch::Prefix(prefix.to_owned())),
        ..HttpMatch::default()
    }]
}

fn header(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

#[test]
fn a_request_is_rewritten_and_its_headers_changed_both_ways() {
    run(async {
        let server = Server::start(|_, _| ok("hello")).await;
        let mut rule = rule(prefix("/shop"), &[("reviews", 1)]);
        rule.request_headers.set.push(header("x-set", "1"));
        rule.request_headers
            .remove
            .push(HeaderName::from_static("x-secret"));
        rule.response_headers.add.push(header("x-by", "rule"));
        if let Action::Forward(forward) = &mut rule.action {
            forward.rewrite = Some(Rewrite {
                uri: Some("/v2".to_owned()),
                authority: Some("other.shop:8080".parse().unwrap()),
                uri_regex: None,
            });
        }
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(route(None, vec![(rule, cluster)], Vec::new()));
        let mut app = world.http1().await;
        let mut asked = request("GET", "/shop/item?q=1", "");
        asked
            .headers_mut()
            .insert("x-secret", HeaderValue::from_static("s"));
        asked
            .headers_mut()
            .insert("connection", HeaderValue::from_static("x-mine"));
        asked
            .headers_mut()
            .insert("x-mine", HeaderValue::from_static("s"));
        let got = ask(&mut app, asked).await;
        assert_eq!(
            (got.status, got.body.as_str(), got.header("x-by")),
            (200, "hello", "rule")
        );
        let seen = &server.seen()[0];
        assert_eq!(seen.line(), "GET /v2/item?q=1 HTTP/1.1");
        assert_eq!(seen.header("host"), Some("other.shop:8080"));
        assert_eq!(seen.header("x-set"), Some("1"));
        for gone in ["x-secret", "x-mine", "connection"] {
            assert_eq!(seen.header(gone), None, "{gone}");
        }
    });
}

#[test]
fn rules_that_answer_themselves_do_and_a_request_without_a_rule_hears_why() {
    run(async {
        let redirect = Action::Redirect(Redirect {
            uri: Some("/new".to_owned()),
            prefix_rewrite: None,
            authority: Some("shop.example".parse().unwrap()),
            scheme: None,
            port: None,
            status: StatusCode::FOUND,
        });
        let direct = Action::Direct(DirectResponse {
            status: StatusCode::IM_A_TEAPOT,
            body: "short and stout".into(),
        });
        let mut direct = acting(prefix("/tea"), direct);
        direct.response_headers.set.push(header("x-by", "rule"));
        let none = cluster(&[], |_| {});
        let rules = vec![
            (acting(prefix("/old"), redirect), none.clone()),
            (direct, none.clone()),
            (rule(prefix("/empty"), &[("reviews", 1)]), none),
        ];
        let world = World::new(route(None, rules, Vec::new()));
        let mut app = world.http1().await;
        let got = ask(&mut app, request("GET", "/old", "")).await;
        assert_eq!(
            (got.status, got.header("location")),
            (302, "http://shop.example/new")
        );
        let got = ask(&mut app, request("GET", "/tea", "")).await;
        assert_eq!((got.status, got.body.as_str()), (418, "short and stout"));
        assert_eq!(got.header("x-by"), "rule");
        let got = ask(&mut app, request("GET", "/elsewhere", "")).await;
        assert_eq!(got.told(), (404, "no_route"));
        let got = ask(&mut app, request("GET", "/empty", "")).await;
        assert_eq!(
            (got.told(), got.header("retry-after")),
            ((503, "no_endpoint"), "1")
        );
        let mut grpc = request("POST", "/elsewhere", "");
        grpc.headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        let got = ask(&mut app, grpc).await;
        assert_eq!(
            (got.status, got.header("grpc-status")),
            (404, ""),
            "gRPC is HTTP/2 only"
        );
        let mut app = world.http2().await;
        let mut grpc = request("POST", "http://reviews/elsewhere", "");
        grpc.headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        let got = crate::testing::Got::of(app.send_request(grpc).await.unwrap()).await;
        assert_eq!((got.status, got.header("grpc-status")), (200, "12"));
        assert_eq!(world.errors("no_route"), 3);
    });
}

#[test]
fn a_kept_connection_follows_the_newest_configuration() {
    run(async {
        let (one, two) = (
            Server::start(|_, _| ok("one")).await,
            Server::start(|_, _| ok("two")).await,
        );
        let world = World::new(forward(None, &cluster(&[one.address], |_| {}), |_| {}));
        let mut app = world.http1().await;
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.body, "one");
        world.push(forward(None, &cluster(&[two.address], |_| {}), |_| {}));
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.body, "two");
        world.push(Snapshot::default());
        assert_eq!(
            ask(&mut app, request("GET", "/", "")).await.told(),
            (403, "refused")
        );
    });
}

#[test]
fn an_http10_endpoint_does_not_make_the_application_speak_http10() {
    run(async {
        let server = Server::start(|_, _| {
            crate::testing::Reply::Last("HTTP/1.0 200 OK\r\n\r\nold but whole".to_owned())
        })
        .await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        for _ in 0..2 {
            app.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n")
                .await
                .unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"0\r\n\r\n") {
                assert!(
                    app.read_buf(&mut got).await.unwrap() > 0,
                    "{}",
                    String::from_utf8_lossy(&got)
                );
            }
            let got = String::from_utf8(got).unwrap();
            assert!(
                got.starts_with("HTTP/1.1 200") && got.contains("old but whole"),
                "{got}"
            );
        }
    });
}

#[test]
fn a_refused_destination_tells_http_why_and_closes_on_anything_else() {
    run_paused(async {
        let world = World::new(destination(Destination::Refuse("the pod is gone".into())));
        let mut app = world.http1().await;
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!(got.told(), (403, "refused"));
        assert!(got.body.contains("the pod is gone"), "{}", got.body);
        let mut app = world.http2().await;
        let got = app
            .send_request(request("GET", "http://reviews/", ""))
            .await
            .unwrap();
        assert_eq!(got.status(), 403);

        let mut opaque = world.dial(SERVICE);
        opaque.write_all(b"\x00\x01\x02 not HTTP").await.unwrap();
        assert_eq!(opaque.read(&mut [0; 16]).await.unwrap_or(0), 0);
        let mut silent = world.dial(SERVICE);
        assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
        assert_eq!(world.errors("refused"), 4);
    });
}

#[test]
fn without_an_answer_of_the_operator_a_connection_is_refused_in_time() {
    run_paused(async {
        let world = World::new(Snapshot::default());
        let before = tokio::time::Instant::now();
        let mut app = world.http1().await;
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!(got.told(), (503, "discovery_timeout"));
        assert_eq!(
            before.elapsed().as_secs(),
            crate::config::testing::DISCOVERY_TIMEOUT.as_secs()
        );
    });
}

#[test]
fn or_passed_on_as_it_is_when_so_set() {
    run(async {
        let server = Server::start(|_, _| ok("outside")).await;
        let world = World::with(Snapshot::default(), empty(), |settings| {
            settings.discovery_timeout = Duration::from_millis(20);
            settings.on_discovery_timeout = OnDiscoveryTimeout::Passthrough;
        });
        let mut app = crate::testing::client1(world.dial(server.address)).await;
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.body, "outside");
    });
}

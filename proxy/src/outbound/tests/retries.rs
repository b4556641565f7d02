//! Another try after a failure: when, with what body, and until when.

use std::num::NonZeroU32;
use std::time::Duration;

use api::{Retry, RetryCondition};
use tokio::time::Instant;

use crate::testing::{Reply, Server, World, answer, ask, cluster, eventually, forward, ok, request, run};

fn gateway_errors(attempts: u32) -> Retry {
    Retry {
        attempts,
        conditions: vec![RetryCondition::GatewayError],
        backoff: Duration::from_millis(1),
        ..Retry::default()
    }
}

#[test]
fn a_gateway_error_is_tried_again_elsewhere_with_the_same_body() {
    run(async {
        let bad = Server::start(|_, _| answer("503 Service Unavailable", "bad")).await;
        let good = Server::start(|_, _| ok("good")).await;
        let cluster = cluster(&[bad.address, good.address], |_| {});
        let world = World::new(forward(None, &cluster, |f| f.retry = gateway_errors(2)));
        let mut app = world.http1().await;
        let body = "x".repeat(60 << 10);
        let got = ask(&mut app, request("POST", "/", &body)).await;
        assert_eq!((got.status, got.body.as_str()), (200, "good"));
        assert_eq!(bad.seen()[0].body, body);
        assert_eq!(good.seen()[0].body, body);
        assert_eq!(good.seen()[0].header("x-hauberk-attempt"), Some("2"));
        assert_eq!(cluster.live.metrics.retries.get(), 1);
    });
}

#[test]
fn a_body_longer_than_is_kept_is_sent_once() {
    run(async {
        let bad = Server::start(|_, _| answer("503 Service Unavailable", "bad")).await;
        let good = Server::start(|_, _| ok("good")).await;
        let cluster = cluster(&[bad.address, good.address], |_| {});
        let world = World::new(forward(None, &cluster, |f| f.retry = gateway_errors(2)));
        let mut app = world.http1().await;
        let body = "x".repeat(80 << 10);
        let got = ask(&mut app, request("POST", "/", &body)).await;
        assert_eq!((got.status, got.body.as_str()), (503, "bad"));
        assert_eq!(bad.seen()[0].body, body);
        assert_eq!(good.seen().len(), 0);
    });
}

#[test]
fn with_one_endpoint_it_is_tried_again_there_and_the_last_answer_is_the_answer() {
    run(async {
        let server = Server::start(|n, _| answer("502 Bad Gateway", &n.to_string())).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |f| f.retry = gateway_errors(2)));
        let mut app = world.http1().await;
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!((got.status, got.body.as_str()), (502, "2"));
        assert_eq!(
            got.header(api::names::REASON_HEADER),
            "",
            "the endpoint's own answer"
        );
    });
}

#[test]
fn when_no_endpoint_is_left_to_try_the_first_answer_is_returned() {
    run(async {
        let server = Server::start(|n, _| answer("503 Service Unavailable", &n.to_string())).await;
        let cluster = cluster(&[server.address], |spec| spec.breaker = Some(breaker(1)));
        let world = World::new(forward(None, &cluster, |f| f.retry = gateway_errors(3)));
        let mut app = world.http1().await;
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!((got.told(), got.body.as_str()), ((503, ""), "0"));
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!(got.told(), (503, "breaker_open"));
        assert_eq!(server.seen().len(), 1);
    });
}

fn breaker(failures: u32) -> api::Breaker {
    api::Breaker {
        failure_threshold: NonZeroU32::new(failures).unwrap(),
        recovery: Duration::from_secs(60),
        half_open_requests: NonZeroU32::MIN,
    }
}

#[test]
fn a_budget_without_room_makes_the_failure_final() {
    run(async {
        let server = Server::start(|_, _| answer("503 Service Unavailable", "")).await;
        let cluster = cluster(&[server.address], |spec| {
            spec.retry_budget.percent = 0.0;
            spec.retry_budget.min_concurrency = 0;
        });
        let world = World::new(forward(None, &cluster, |f| f.retry = gateway_errors(2)));
        let mut app = world.http1().await;
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.told(), (503, ""));
        assert_eq!(server.seen().len(), 1);
        assert_eq!(cluster.live.metrics.retry_budget_exhausted.get(), 1);
        assert_eq!(cluster.live.retries.load(std::sync::atomic::Ordering::Relaxed), 0);
    });
}

#[test]
fn a_try_that_takes_too_long_is_cancelled_and_made_elsewhere() {
    run(async {
        let slow = Server::start(|_, _| Reply::Hang).await;
        let good = Server::start(|_, _| ok("good")).await;
        let cluster = cluster(&[slow.address, good.address], |_| {});
        let world = World::new(forward(None, &cluster, |f| {
            f.retry = gateway_errors(2);
            f.retry.per_try_timeout = Some(Duration::from_millis(400));
        }));
        let mut app = world.http1().await;
        assert_eq!(ask(&mut app, request("POST", "/", "x")).await.body, "good");
        eventually("the slow endpoint hears that nobody waits", || slow.open() == 0).await;
    });
}

#[test]
fn the_timeout_of_a_route_is_the_last_word_and_the_breaker_learns_of_it() {
    run(async {
        let server = Server::start(|_, _| Reply::Hang).await;
        let cluster = cluster(&[server.address], |spec| spec.breaker = Some(breaker(1)));
        let world = World::new(forward(None, &cluster, |f| {
            f.retry = gateway_errors(2);
            f.timeout = Some(Duration::from_millis(60));
        }));
        let mut app = world.http1().await;
        let before = Instant::now();
        assert_eq!(
            ask(&mut app, request("GET", "/", "")).await.told(),
            (504, "timeout")
        );
        assert!(before.elapsed() >= Duration::from_millis(60));
        eventually("the request is cancelled", || server.open() == 0).await;
        assert_eq!(
            ask(&mut app, request("GET", "/", "")).await.told(),
            (503, "breaker_open")
        );
        assert_eq!(server.seen().len(), 1);
    });
}

#[test]
fn a_response_that_does_not_end_within_the_timeout_is_cut_and_not_taken_for_whole() {
    run(async {
        let server =
            Server::start(|_, _| Reply::Send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart".to_owned()))
                .await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |f| {
            f.timeout = Some(Duration::from_millis(400))
        }));
        let mut app = world.http1().await;
        let response = app.send_request(request("GET", "/", "")).await.unwrap();
        let body = http_body_util::BodyExt::collect(response.into_body()).await;
        assert!(body.is_err(), "{body:?}");
        eventually("it is recorded", || world.errors("response_broken") == 1).await;
        eventually("the endpoint's connection is given up", || server.open() == 0).await;
    });
}

#[test]
fn an_endpoint_that_refuses_connections_is_passed_over_whatever_the_method() {
    run(async {
        let gone = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let good = Server::start(|_, _| ok("good")).await;
        let cluster = cluster(&[gone, good.address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.http1().await;
        let got = ask(&mut app, request("POST", "/", "body")).await;
        assert_eq!(
            (got.body.as_str(), good.seen()[0].body.as_str()),
            ("good", "body")
        );
        assert_eq!(cluster.live.metrics.connect_failures.get(), 1);

        let alone = crate::testing::cluster(&[gone], |_| {});
        world.push(forward(None, &alone, |f| {
            f.retry.backoff = Duration::from_millis(1)
        }));
        assert_eq!(
            ask(&mut app, request("GET", "/", "")).await.told(),
            (503, "connect_failure")
        );
    });
}

#[test]
fn an_answer_with_a_header_that_the_request_named_is_tried_again() {
    run(async {
        let again = || Reply::Send("HTTP/1.1 200 OK\r\nx-busy: yes\r\ncontent-length: 0\r\n\r\n".to_owned());
        let server = Server::start(move |n, _| if n % 2 == 0 { again() } else { ok("taken") }).await;
        let cluster = cluster(&[server.address], |_| {});
        for (conditions, named, body, seen) in [
            (vec![RetryCondition::RetriableHeaders], true, "taken", 2),
            (vec![RetryCondition::RetriableHeaders], false, "", 3),
            (vec![RetryCondition::ServerError], true, "taken", 4),
        ] {
            let world = World::new(forward(None, &cluster, |f| {
                f.retry = Retry {
                    conditions,
                    ..gateway_errors(1)
                };
            }));
            let mut asked = request("GET", "/", "");
            if named {
                let names = http::HeaderValue::from_static("x-overload, x-busy");
                asked
                    .headers_mut()
                    .insert("x-envoy-retriable-header-names", names);
            }
            let got = ask(&mut world.http1().await, asked).await;
            assert_eq!((got.body.as_str(), server.seen().len()), (body, seen));
        }
        let passed_on = |n: usize| {
            server.seen()[n]
                .header("x-envoy-retriable-header-names")
                .is_some()
        };
        assert!(!passed_on(0) && !passed_on(1), "it is for the proxy");
        assert!(passed_on(3), "of no meaning here: left as it is");
    });
}

#[test]
fn what_a_rate_limiter_answers_is_tried_again_only_where_that_is_named() {
    run(async {
        let limited = "HTTP/1.1 503 Full\r\nx-envoy-ratelimited: true\r\ncontent-length: 0\r\n\r\n";
        let server = Server::start(move |_, _| Reply::Send(limited.to_owned())).await;
        let cluster = cluster(&[server.address], |_| {});
        for (condition, seen) in [(RetryCondition::ServerError, 1), (RetryCondition::RateLimited, 3)] {
            let world = World::new(forward(None, &cluster, |f| {
                f.retry = Retry {
                    conditions: vec![condition],
                    ..gateway_errors(1)
                };
            }));
            let got = ask(&mut world.http1().await, request("GET", "/", "")).await;
            assert_eq!((got.status, server.seen().len()), (503, seen));
        }
    });
}

//! HTTP/1.1 connections to endpoints: kept, used again, and given up in time.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::testing::{Reply, Server, World, ask, cluster, eventually, forward, ok, request, run};

#[test]
fn requests_one_after_the_other_share_a_connection_to_the_endpoint() {
    run(async {
        let server = Server::start(|n, _| ok(&n.to_string())).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        // Two connections of the application, one after the other.
        for first in [0, 3] {
            let mut app = world.http1().await;
            for n in first..first + 3 {
                assert_eq!(ask(&mut app, request("POST", "/", "x")).await.body, n.to_string());
            }
        }
        assert_eq!((server.connections(), server.open()), (1, 1));
        assert_eq!(cluster.live.metrics.connections_opened.get(), 1);
        assert_eq!(cluster.live.requests.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn requests_at_once_have_a_connection_each() {
    run(async {
        let server = Server::start(|n, _| if n < 2 { Reply::Hang } else { ok("third") }).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let (mut one, mut two, mut three) = (world.http1().await, world.http1().await, world.http1().await);
        let _one = tokio::task::spawn_local(async move { one.send_request(request("GET", "/", "")).await });
        let _two = tokio::task::spawn_local(async move { two.send_request(request("GET", "/", "")).await });
        eventually("two requests arrive", || server.seen().len() == 2).await;
        assert_eq!(ask(&mut three, request("GET", "/", "")).await.body, "third");
        assert_eq!(server.connections(), 3);
    });
}

#[test]
fn what_an_endpoint_announces_as_its_keep_alive_is_honoured_with_a_margin() {
    run(async {
        let server = Server::start(|_, _| {
            Reply::Send("HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 0\r\n\r\n".to_owned())
        })
        .await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http1().await;
        for _ in 0..2 {
            let got = ask(&mut app, request("GET", "/", "")).await;
            assert_eq!(
                got.header("keep-alive"),
                "",
                "belongs to the endpoint's connection"
            );
        }
        assert_eq!(
            server.connections(),
            2,
            "a second less than one is no time at all"
        );
    });
}

#[test]
fn a_get_that_met_a_closing_connection_is_sent_again() {
    run(async {
        // The first connection ends with the second request on it, unanswered.
        let server = Server::start(|n, _| match n {
            1 => Reply::Last(String::new()),
            n => ok(&n.to_string()),
        })
        .await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http1().await;
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.body, "0");
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.body, "2");
        let seen = server.seen();
        assert_eq!(seen[1].header("x-hauberk-attempt"), None);
        assert_eq!(seen[2].header("x-hauberk-attempt"), Some("2"));
    });
}

#[test]
fn a_post_that_met_a_closing_connection_is_sent_once_only() {
    run(async {
        let server = Server::start(|n, _| match n {
            1 => Reply::Last(String::new()),
            _ => ok(""),
        })
        .await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http1().await;
        ask(&mut app, request("GET", "/", "")).await;
        let got = ask(&mut app, request("POST", "/pay", "1 pound")).await;
        assert_eq!(got.told(), (502, "reset"));
        assert_eq!(server.seen().len(), 2);
    });
}

#[test]
fn a_post_meets_no_connection_that_the_endpoint_closed_before() {
    run(async {
        let server = Server::start(|n, _| match n {
            0 => Reply::Last("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()),
            _ => ok("taken"),
        })
        .await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http1().await;
        ask(&mut app, request("GET", "/", "")).await;
        eventually("the endpoint closes", || server.open() == 0).await;
        let got = ask(&mut app, request("POST", "/pay", "1 pound")).await;
        assert_eq!((got.status, got.body.as_str()), (200, "taken"));
        assert_eq!(server.seen()[1].body, "1 pound");
    });
}

#[test]
fn a_connection_carries_as_many_requests_as_it_may() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let cluster = cluster(&[server.address], |spec| {
            spec.limits.max_requests_per_connection = NonZeroU32::new(2);
        });
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.http1().await;
        for _ in 0..5 {
            ask(&mut app, request("GET", "/", "")).await;
        }
        assert_eq!(server.connections(), 3);
        eventually("the spent ones close", || server.open() == 1).await;
    });
}

#[test]
fn idle_connections_are_swept_and_those_of_a_retired_endpoint_at_once() {
    run(async {
        let (idle, retired) = (
            Server::start(|_, _| ok("")).await,
            Server::start(|_, _| ok("")).await,
        );
        let short = cluster(&[idle.address], |spec| {
            spec.timeouts.http_idle = Some(Duration::from_millis(400));
        });
        let long = cluster(&[retired.address], |_| {});
        let world = World::new(forward(None, &short, |_| {}));
        let mut app = world.http1().await;
        ask(&mut app, request("GET", "/", "")).await;
        world.push(forward(None, &long, |_| {}));
        ask(&mut app, request("GET", "/", "")).await;
        world.worker.upstream.sweep();
        assert_eq!(
            (idle.open(), retired.open()),
            (1, 1),
            "not idle for long enough yet"
        );
        eventually("the idle one is swept", || {
            world.worker.upstream.sweep();
            idle.open() == 0
        })
        .await;
        assert_eq!(retired.open(), 1);
        long.endpoints[0].live.retired.store(true, Ordering::Relaxed);
        world.worker.upstream.sweep();
        eventually("the retired one closes", || retired.open() == 0).await;
        assert_eq!(short.live.metrics.connections_closed.get(), 1);
        assert_eq!(long.live.metrics.connections_closed.get(), 1);
    });
}

#[test]
fn a_request_under_way_outlives_its_endpoints_retirement() {
    run(async {
        let server =
            Server::start(|_, _| Reply::Send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n".to_owned()))
                .await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.http1().await;
        let response = app.send_request(request("GET", "/", "")).await.unwrap();
        cluster.endpoints[0].live.retired.store(true, Ordering::Relaxed);
        world.worker.upstream.sweep();
        tokio::task::yield_now().await;
        assert_eq!((response.status(), server.open()), (http::StatusCode::OK, 1));
        drop((response, app));
        eventually("it closes with the request", || server.open() == 0).await;
    });
}

//! Faults injected on purpose: what the application hears, what is counted, and that no endpoint hears of them.

use std::time::Duration;

use api::{Fault, FaultAbort, FaultDelay, Fraction};
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::testing::{Got, Server, World, ask, cluster, forward, ok, request, run, run_paused};

fn abort(status: u16, grpc: u8) -> Option<FaultAbort> {
    Some(FaultAbort {
        grpc,
        status: StatusCode::from_u16(status).unwrap(),
        share: Fraction::ALL,
    })
}

fn delay(ms: u64) -> Option<FaultDelay> {
    Some(FaultDelay {
        delay: Duration::from_millis(ms),
        share: Fraction::ALL,
    })
}

fn faults(world: &World) -> [u64; 2] {
    let faults = &world.worker.recorder.metrics().faults;
    [faults.delay.get(), faults.abort.get()]
}

#[test]
fn an_aborted_request_reaches_no_endpoint_and_is_answered_in_its_protocol() {
    run(async {
        let server = Server::start(|_, _| ok("hello")).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |forward| {
            forward.fault = Some(Fault {
                delay: None,
                abort: abort(503, 8),
            });
        }));
        let mut app = world.http1().await;
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!(got.told(), (503, "fault_abort"));
        assert!(got.body.contains("on purpose"), "{}", got.body);
        let mut app = world.http2().await;
        let mut grpc = request("POST", "http://reviews/", "");
        grpc.headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        let got = Got::of(app.send_request(grpc).await.unwrap()).await;
        assert_eq!(
            (got.told(), got.header("grpc-status")),
            ((200, "fault_abort"), "8")
        );
        assert_eq!((server.connections(), world.errors("fault_abort")), (0, 2));
        assert_eq!(faults(&world), [0, 2]);
        assert_eq!(
            cluster.live.metrics.requests.get(503),
            1,
            "it counts as the cluster's, by its status"
        );
    });
}

#[test]
fn a_status_without_a_body_is_sent_without_one() {
    run_paused(async {
        let world = World::new(forward(None, &cluster(&[], |_| {}), |forward| {
            forward.fault = Some(Fault {
                delay: None,
                abort: abort(204, 2),
            });
        }));
        let mut app = world.http1().await;
        for _ in 0..2 {
            let got = ask(&mut app, request("GET", "/", "")).await;
            assert_eq!((got.told(), got.body.as_str()), ((204, "fault_abort"), ""));
        }
    });
}

#[test]
fn a_delayed_request_comes_late_and_says_why() {
    run(async {
        let server = Server::start(|_, _| ok("hello")).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |forward| {
            forward.fault = Some(Fault {
                delay: delay(30),
                abort: None,
            });
        }));
        let before = Instant::now();
        let got = ask(&mut world.http1().await, request("GET", "/", "")).await;
        assert_eq!((got.told(), got.body.as_str()), ((200, "fault_delay"), "hello"));
        assert!(before.elapsed() >= Duration::from_millis(30));
        assert_eq!((faults(&world), world.errors("fault_delay")), ([1, 0], 0));
    });
}

#[test]
fn the_delay_comes_before_the_abort_and_counts_into_the_timeout() {
    run_paused(async {
        for (timeout, took, told) in [
            (None, 5000, (418, "fault_abort")),
            (Some(5001), 5000, (418, "fault_abort")),
            (Some(2000), 2000, (504, "timeout")),
        ] {
            let world = World::new(forward(None, &cluster(&[], |_| {}), |forward| {
                forward.timeout = timeout.map(Duration::from_millis);
                forward.fault = Some(Fault {
                    delay: delay(5000),
                    abort: abort(418, 2),
                });
            }));
            let before = Instant::now();
            let got = ask(&mut world.http1().await, request("GET", "/", "")).await;
            assert_eq!(got.told(), told);
            assert_eq!(before.elapsed().as_millis() / 10, took / 10, "{timeout:?}");
        }
    });
}

#[test]
fn a_share_of_nothing_changes_nothing() {
    run(async {
        let server = Server::start(|_, _| ok("hello")).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |forward| {
            let (mut delay, mut abort) = (delay(60_000), abort(503, 14));
            delay.as_mut().unwrap().share = Fraction::NONE;
            abort.as_mut().unwrap().share = Fraction::NONE;
            forward.fault = Some(Fault { delay, abort });
        }));
        let got = ask(&mut world.http1().await, request("GET", "/", "")).await;
        assert_eq!((got.told(), faults(&world)), ((200, ""), [0, 0]));
    });
}

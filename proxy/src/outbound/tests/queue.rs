//! Requests that wait because their cluster has as many connections as it may: in turn, within their time, and never for
//! connections that nobody uses.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use super::shared::{Server2, Then};
use crate::breaker;
use crate::config::snapshot::Cluster;
use crate::testing::{
    Got, Reply, SERVICE, Server, World, ask, cluster, eventually, forward, ok, request, run,
};

fn bounded(servers: &[&Server], connections: u32, change: impl FnOnce(&mut api::Cluster)) -> Arc<Cluster> {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    cluster(&addresses, |spec| {
        spec.limits.max_connections = NonZeroU32::new(connections);
        change(spec);
    })
}

/// A request that keeps its connection until its second byte is written.
async fn halfway(world: &World, cluster: &Cluster) -> DuplexStream {
    let mut app = world.dial(SERVICE);
    app.write_all(b"POST /slow HTTP/1.1\r\nhost: reviews\r\ncontent-length: 2\r\n\r\na")
        .await
        .unwrap();
    eventually("it has a connection", || {
        cluster.live.connections.load(Ordering::Relaxed) == 1
            && cluster.live.pending.load(Ordering::Relaxed) == 0
    })
    .await;
    app
}

fn pending(cluster: &Cluster) -> u32 {
    cluster.live.pending.load(Ordering::Relaxed)
}

/// Asks in the background, and waits until the request waits.
async fn waiting(world: &World, cluster: &Cluster, path: &'static str) -> tokio::task::JoinHandle<Got> {
    let before = pending(cluster);
    let mut app = world.http1().await;
    let asking = tokio::task::spawn_local(async move { ask(&mut app, request("GET", path, "")).await });
    eventually("it waits", || pending(cluster) > before).await;
    asking
}

#[test]
fn requests_beyond_the_connections_wait_in_turn_and_share_what_comes_back() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let cluster = bounded(&[&server], 1, |spec| {
            spec.limits.max_pending_requests = NonZeroU32::new(3);
        });
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut slow = halfway(&world, &cluster).await;
        let mut asking = Vec::new();
        for path in ["/1", "/2", "/3"] {
            asking.push(waiting(&world, &cluster, path).await);
        }
        let refused = ask(&mut world.http1().await, request("GET", "/4", "")).await;
        assert_eq!(refused.told(), (503, "overflow"));
        assert!(
            refused.body.contains("http1MaxPendingRequests"),
            "{}",
            refused.body
        );
        slow.write_all(b"b").await.unwrap();
        for asking in asking {
            assert_eq!(asking.await.unwrap().status, 200);
        }
        let paths: Vec<_> = server.seen().iter().map(|seen| seen.line().to_owned()).collect();
        assert_eq!(
            paths[1..],
            ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /3 HTTP/1.1"]
        );
        assert_eq!(server.connections(), 1, "nothing else needed one");
        assert_eq!((pending(&cluster), cluster.live.queue.len()), (0, 0));
    });
}

#[test]
fn a_connection_that_ends_leaves_its_place_to_who_waits() {
    run(async {
        let server = Server::start(|n, _| if n == 0 { Reply::Hang } else { ok("second") }).await;
        let cluster = bounded(&[&server], 1, |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut one = world.http1().await;
        let hanging =
            tokio::task::spawn_local(async move { one.send_request(request("GET", "/", "")).await });
        eventually("one request arrives", || server.seen().len() == 1).await;
        let asking = waiting(&world, &cluster, "/").await;
        hanging.abort();
        assert_eq!(asking.await.unwrap().body, "second");
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn who_waits_does_so_within_its_time_and_speaks_against_no_endpoint() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let cluster = bounded(&[&server], 1, |spec| {
            spec.breaker = Some(api::Breaker {
                failure_threshold: NonZeroU32::MIN,
                recovery: Duration::from_secs(60),
                half_open_requests: NonZeroU32::MIN,
            });
        });
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut slow = halfway(&world, &cluster).await;
        for (change, told) in [
            (Some(Duration::from_millis(50)), (504, "timeout")),
            (None, (504, "try_timeout")),
        ] {
            world.push(forward(None, &cluster, |f| {
                f.timeout = change;
                f.retry.attempts = 0;
                f.retry.per_try_timeout = change.is_none().then_some(Duration::from_millis(50));
            }));
            let got = ask(&mut world.http1().await, request("GET", "/", "")).await;
            assert_eq!(got.told(), told);
        }
        let state = cluster.endpoints[0].live.breaker.state(Instant::now());
        assert!(matches!(state, breaker::State::Closed { .. }), "{state:?}");
        assert_eq!((pending(&cluster), cluster.live.queue.len()), (0, 0));
        slow.write_all(b"b").await.unwrap();
        eventually("the slow one is answered", || server.seen().len() == 1).await;
    });
}

#[test]
fn an_idle_connection_to_another_endpoint_gives_way() {
    run(async {
        let (one, two) = (
            Server::start(|_, _| ok("1")).await,
            Server::start(|_, _| ok("2")).await,
        );
        let cluster = bounded(&[&one, &two], 1, |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.http1().await;
        let mut bodies = Vec::new();
        for _ in 0..4 {
            bodies.push(ask(&mut app, request("GET", "/", "")).await.body);
        }
        assert_eq!(bodies, ["1", "2", "1", "2"]);
        eventually("no more than one stays", || one.open() + two.open() == 1).await;
    });
}

#[test]
fn an_idle_connection_of_another_worker_gives_way() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let cluster = bounded(&[&server], 1, |_| {});
        // Two workers share the live state of their cluster, and nothing else.
        let workers = [(); 2].map(|()| World::new(forward(None, &cluster, |_| {})));
        for world in [&workers[0], &workers[1], &workers[0]] {
            let got = ask(&mut world.http1().await, request("GET", "/", "")).await;
            assert_eq!(got.status, 200);
        }
        assert_eq!(server.connections(), 3);
    });
}

#[test]
fn a_shared_connection_of_another_worker_gives_way_when_its_requests_have_ended() {
    run(async {
        let server = Server2::start(|n| if n == 0 { Then::Hang } else { Then::Answer }).await;
        let cluster = cluster(&[server.address], |spec| {
            spec.limits.max_connections = NonZeroU32::new(1);
        });
        let workers = [(); 2].map(|()| World::new(forward(None, &cluster, |_| {})));
        let (mut one, mut two) = (workers[0].http2().await, workers[1].http2().await);
        let hanging = tokio::task::spawn_local(async move {
            let _ = one.send_request(request("GET", "http://reviews/", "")).await;
        });
        eventually("one request arrives", || server.requests() == 1).await;
        let asking = tokio::task::spawn_local(async move {
            Got::of(
                two.send_request(request("GET", "http://reviews/", ""))
                    .await
                    .unwrap(),
            )
            .await
        });
        eventually("the other waits", || cluster.live.queue.len() == 1).await;
        // For longer than a connection may stay where it is.
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!((server.requests(), server.connections()), (1, 1));
        hanging.abort();
        assert_eq!(asking.await.unwrap().status, 200);
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn a_bound_that_is_lifted_lets_those_go_who_wait() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let narrow = bounded(&[&server], 1, |_| {});
        let world = World::new(forward(None, &narrow, |_| {}));
        let mut slow = halfway(&world, &narrow).await;
        let asking = waiting(&world, &narrow, "/").await;
        let mut spec = (*narrow.spec).clone();
        spec.limits.max_connections = None;
        let wide = Arc::new(Cluster {
            name: Arc::clone(&narrow.name),
            weights: crate::balancer::Weights::prepared(&spec, &narrow.endpoints, None),
            spec: Arc::new(spec),
            endpoints: narrow.endpoints.clone(),
            live: Arc::clone(&narrow.live),
            absent: None,
        });
        world.push(forward(None, &wide, |_| {}));
        assert_eq!(
            ask(&mut world.http1().await, request("GET", "/", ""))
                .await
                .status,
            200
        );
        assert_eq!(asking.await.unwrap().status, 200);
        slow.write_all(b"b").await.unwrap();
    });
}

#[test]
fn everyone_is_served_where_workers_and_endpoints_compete_for_few_connections() {
    run(async {
        let servers = [
            Server::start(|_, _| ok("")).await,
            Server::start(|_, _| ok("")).await,
        ];
        let cluster = bounded(&[&servers[0], &servers[1]], 2, |_| {});
        let workers = [(); 2].map(|()| World::new(forward(None, &cluster, |_| {})));
        let most = Rc::new(RefCell::new(0));
        let mut clients = tokio::task::JoinSet::new();
        for n in 0..16 {
            let mut app = workers[n % 2].http1().await;
            let (cluster, most) = (Arc::clone(&cluster), Rc::clone(&most));
            clients.spawn_local(async move {
                for _ in 0..20 {
                    assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);
                    let open = cluster.live.connections.load(Ordering::Relaxed);
                    most.replace_with(|most| open.max(*most));
                }
            });
        }
        clients.join_all().await;
        assert_eq!(servers[0].seen().len() + servers[1].seen().len(), 320);
        assert!(*most.borrow() <= 2);
        assert_eq!((pending(&cluster), cluster.live.queue.len()), (0, 0));
    });
}

#[test]
fn a_request_beyond_the_streams_of_the_only_connection_waits_for_the_end_of_one() {
    run(async {
        let server = Server2::start(|n| if n < 2 { Then::Hang } else { Then::Answer }).await;
        let cluster = cluster(&[server.address], |spec| {
            spec.limits.max_connections = NonZeroU32::new(1);
            spec.limits.max_concurrent_streams = NonZeroU32::new(2);
        });
        let world = World::new(forward(None, &cluster, |_| {}));
        let app = world.http2().await;
        let asking = |mut app: hyper::client::conn::http2::SendRequest<_>| {
            tokio::task::spawn_local(async move {
                Got::of(
                    app.send_request(request("GET", "http://reviews/", ""))
                        .await
                        .unwrap(),
                )
                .await
            })
        };
        let hanging = [asking(app.clone()), asking(app.clone())];
        eventually("two requests arrive", || server.requests() == 2).await;
        let more = [asking(app.clone()), asking(app.clone()), asking(app)];
        eventually("three wait", || pending(&cluster) == 3).await;
        hanging[0].abort();
        for asking in more {
            assert_eq!(asking.await.unwrap().status, 200);
        }
        assert_eq!(server.connections(), 1);
    });
}

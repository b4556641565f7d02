//! Lanes that compete for the connections of their cluster, over in-memory streams and with paused time.

use std::cell::Cell;

use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::timeout;

use super::super::Wire;
use super::super::body::Source;
use super::super::feed::Feed;
use super::super::pool::Pool;
use super::*;
use crate::testing::{cluster, run_paused};

/// Nobody who may have a place waits for so long.
const PATIENCE: Duration = Duration::from_secs(5);

fn bounded(max: u32) -> Arc<Cluster> {
    let addresses = [1, 2, 3].map(|port| ([10, 0, 0, 1], port).into());
    cluster(&addresses, |spec| {
        spec.limits.max_connections = std::num::NonZeroU32::new(max);
    })
}

fn lane(pool: &Pool, cluster: &Cluster, endpoint: usize, wire: Wire) -> Rc<Lane> {
    pool.lane(cluster, &cluster.endpoints[endpoint], wire)
}

fn permit(cluster: &Cluster) -> Permit {
    limits::acquire_below(&cluster.live, Bound::Connections, u32::MAX).unwrap()
}

/// A connection that counts until it has closed, and the server's end of it.
async fn open_http1(lane: &Rc<Lane>, cluster: &Cluster) -> (Lease, DuplexStream) {
    let (permit, (ours, theirs)) = (permit(cluster), tokio::io::duplex(4096));
    let (sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
        drop(permit);
    });
    (lane.add_http1(sender), theirs)
}

async fn open_http2(lane: &Rc<Lane>, cluster: &Cluster) -> (Lease, DuplexStream) {
    let (permit, (ours, theirs)) = (permit(cluster), tokio::io::duplex(4096));
    let builder = http2::Builder::new(crate::worker::Local);
    let (sender, connection) = builder.handshake(TokioIo::new(ours)).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
        drop(permit);
    });
    (lane.add_http2(sender), theirs)
}

async fn place(lane: &Rc<Lane>, cluster: &Cluster) -> Option<Place> {
    timeout(PATIENCE, lane.place(cluster, &Cell::new(false)))
        .await
        .ok()
}

#[test]
fn an_unused_connection_gives_way_before_one_in_use() {
    run_paused(async {
        let (cluster, pool) = (bounded(2), Pool::default());
        let one = lane(&pool, &cluster, 0, Wire::Http2);
        let (_busy, _server) = open_http2(&one, &cluster).await;
        // It is in use for long enough, and its lane the first to be told.
        tokio::time::sleep(2 * TURN).await;
        let two = lane(&pool, &cluster, 1, Wire::Http1);
        let (idle, _server) = open_http1(&two, &cluster).await;
        tokio::task::yield_now().await;
        idle.give_back(None);
        tokio::task::yield_now().await;

        let three = lane(&pool, &cluster, 2, Wire::Http1);
        assert!(matches!(place(&three, &cluster).await, Some(Place::Free(_))));
        assert_eq!((one.shared.borrow().len(), two.idle.borrow().len()), (1, 0));
    });
}

#[test]
fn no_more_connections_in_use_are_given_up_than_requests_wait() {
    run_paused(async {
        let (cluster, pool) = (bounded(3), Pool::default());
        let one = lane(&pool, &cluster, 0, Wire::Http2);
        let mut busy = Vec::new();
        for _ in 0..3 {
            busy.push(open_http2(&one, &cluster).await);
        }
        let two = lane(&pool, &cluster, 1, Wire::Http1);
        assert!(place(&two, &cluster).await.is_none(), "none has ended");
        assert_eq!(one.shared.borrow().len(), 2);
        assert_eq!(cluster.live.queue.leaving.load(Ordering::Relaxed), 1);
        busy.clear();
        assert_eq!(cluster.live.queue.leaving.load(Ordering::Relaxed), 0);
        assert!(matches!(place(&two, &cluster).await, Some(Place::Free(_))));
    });
}

#[test]
fn all_who_begin_to_wait_at_once_are_heard() {
    run_paused(async {
        let (cluster, pool) = (bounded(3), Pool::default());
        let one = lane(&pool, &cluster, 0, Wire::Http1);
        let mut servers = Vec::new();
        let mut leases = Vec::new();
        for _ in 0..3 {
            let (lease, server) = open_http1(&one, &cluster).await;
            leases.push(lease);
            servers.push(server);
        }
        tokio::task::yield_now().await;
        leases.drain(..).for_each(|lease| lease.give_back(None));
        tokio::task::yield_now().await;

        let two = lane(&pool, &cluster, 1, Wire::Http1);
        let three = lane(&pool, &cluster, 2, Wire::Http1);
        let (a, b, c) = tokio::join!(
            place(&two, &cluster),
            place(&two, &cluster),
            place(&three, &cluster)
        );
        for place in [a, b, c] {
            assert!(matches!(place, Some(Place::Free(_))));
        }
        assert_eq!(cluster.live.queue.len(), 0);
    });
}

/// The body of a request to us that is one byte long, which `DuplexStream` has yet to bring.
async fn upload() -> (RequestBody, DuplexStream) {
    let (mut app, ours) = tokio::io::duplex(4096);
    let (tell, told) = oneshot::channel();
    let tell = Cell::new(Some(tell));
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        tell.take().unwrap().send(request.into_body()).unwrap();
        std::future::pending::<Result<http::Response<http_body_util::Empty<bytes::Bytes>>, hyper::Error>>()
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(ours), service);
    tokio::task::spawn_local(serving);
    app.write_all(b"POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 1\r\n\r\n")
        .await
        .unwrap();
    let source = Source::new(Feed::Application(told.await.unwrap()), Rc::default());
    (RequestBody::Incoming(source), app)
}

/// A connection that came back before all of its request was sent; its server, and the application that sends the rest.
async fn answered_early(lane: &Rc<Lane>, cluster: &Cluster) -> [DuplexStream; 2] {
    let (mut lease, mut server) = open_http1(lane, cluster).await;
    let (body, app) = upload().await;
    let request = http::Request::post("/")
        .header("host", "reviews")
        .body(body)
        .unwrap();
    let answer = async {
        let _head = server.read(&mut [0; 1024]).await.unwrap();
        server
            .write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
    };
    let (response, ()) = tokio::join!(lease.send(request, ([10, 0, 0, 1], 1).into()), answer);
    assert_eq!(response.unwrap().status(), 401);
    lease.give_back(None);
    assert_eq!(lane.idle.borrow().len(), 1);
    [server, app]
}

#[test]
fn a_place_that_becomes_free_is_not_missed_for_a_connection_that_is_not_ready() {
    run_paused(async {
        let (cluster, pool) = (bounded(2), Pool::default());
        let one = lane(&pool, &cluster, 0, Wire::Http1);
        let other = permit(&cluster);
        let _streams = answered_early(&one, &cluster).await;
        let free = async {
            tokio::time::sleep(2 * MOMENT).await;
            drop(other);
        };
        let (place, ()) = tokio::join!(place(&one, &cluster), free);
        assert!(matches!(place, Some(Place::Free(_))));
        assert_eq!(one.idle.borrow().len(), 1, "it may become ready later");
    });
}

#[test]
fn a_connection_goes_to_who_waits_when_the_last_request_was_sent() {
    run_paused(async {
        let (cluster, pool) = (bounded(1), Pool::default());
        let one = lane(&pool, &cluster, 0, Wire::Http1);
        let [_server, mut app] = answered_early(&one, &cluster).await;
        let rest = async {
            tokio::time::sleep(2 * MOMENT).await;
            app.write_all(b"x").await.unwrap();
        };
        let (a, b, ()) = tokio::join!(
            async {
                match place(&one, &cluster).await {
                    Some(Place::Connection(lease)) => lease.give_back(None),
                    _ => panic!("the first has it"),
                }
            },
            place(&one, &cluster),
            rest
        );
        let ((), Some(Place::Connection(_))) = (a, b) else {
            panic!("the second has it after the first");
        };
    });
}

#[test]
fn a_connection_that_comes_back_when_the_bound_was_lifted_goes_to_who_waits_yet() {
    run_paused(async {
        let (narrow, pool) = (bounded(1), Pool::default());
        let one = lane(&pool, &narrow, 0, Wire::Http1);
        let (lease, _server) = open_http1(&one, &narrow).await;
        let mut spec = (*narrow.spec).clone();
        spec.limits.max_connections = None;
        let wide = Cluster {
            name: Arc::clone(&narrow.name),
            weights: crate::balancer::Weights::prepared(&spec, &narrow.endpoints, None),
            spec: Arc::new(spec),
            endpoints: narrow.endpoints.clone(),
            live: Arc::clone(&narrow.live),
            absent: None,
        };
        let lifted = async {
            assert_eq!(narrow.live.queue.len(), 1);
            lane(&pool, &wide, 0, Wire::Http1);
            lease.give_back(None);
        };
        let (place, ()) = tokio::join!(place(&one, &narrow), lifted);
        assert!(matches!(place, Some(Place::Connection(_))));
    });
}

#[test]
fn one_who_waits_looks_when_there_is_nothing_new_to_share() {
    run_paused(async {
        let (cluster, pool) = (bounded(1), Pool::default());
        let one = lane(&pool, &cluster, 0, Wire::Http2);
        let opening = one.opening();
        let looked = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let (one, looked) = (Rc::clone(&one), Rc::clone(&looked));
            tokio::task::spawn_local(async move {
                one.wait().await.unwrap();
                looked.set(looked.get() + 1);
            });
        }
        // Time goes on when nothing else can.
        tokio::time::sleep(TURN).await;
        opening.to_one.set(true);
        drop(opening);
        tokio::time::sleep(TURN).await;
        assert_eq!(looked.get(), 1);
        one.wake_next();
        tokio::time::sleep(TURN).await;
        assert_eq!(looked.get(), 2);
        drop(one.opening());
        tokio::time::sleep(TURN).await;
        assert_eq!(looked.get(), 5, "a new connection is for all");
    });
}

//! Lanes that compete for the connections of their cluster, over in-memory streams and with paused time.

use std::cell::Cell;

use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::time::timeout;

use super::super::Wire;
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

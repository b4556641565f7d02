//! Allocations of one request on kept connections: as many as now, and no more. Application and endpoint have threads of
//! their own, for allocations are counted by thread; sent twice as many requests, what does not belong to a request is in
//! both counts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::thread;

use api::TlsPolicy;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::config::snapshot::Snapshot;
use crate::inbound;
use crate::io::Io;
use crate::outbound;
use crate::record::Direction;
use crate::testing::{
    Got, SERVICE, Server, World, ask, client1, client2, cluster, forward, ok, request, run,
};
use crate::tries::App;

const REQUESTS: u64 = 500;
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 41000);

#[test]
fn a_request_allocates_no_more_than_it_did() {
    // When one of these falls, lower it here.
    let table = [
        (Direction::Outbound, App::Http1, 15),
        (Direction::Outbound, App::Http2, 11),
        (Direction::Inbound, App::Http1, 16),
        (Direction::Inbound, App::Http2, 11),
    ];
    let mut more = Vec::new();
    for (direction, app, most) in table {
        let [some, twice] = [REQUESTS, 2 * REQUESTS].map(|requests| allocations(direction, app, requests));
        // Rounded: a buffer that is kept or grows now and then is no allocation of each request.
        let each = (twice.saturating_sub(some) + REQUESTS / 2) / REQUESTS;
        if each > most {
            more.push(format!("{} {app:?}: {each}, were {most}", direction.as_str()));
        }
    }
    assert!(more.is_empty(), "allocations a request: {more:#?}");
}

/// All allocations of a worker that serves one connection with so many requests.
fn allocations(direction: Direction, app: App, requests: u64) -> u64 {
    let (started, is_started) = std::sync::mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    let endpoint = thread::spawn(move || {
        run(async move {
            let address = match app {
                App::Http1 => Server::start(|_, _| ok("five stars")).await.address,
                App::Http2 => http2_server().await,
            };
            started.send(address).unwrap();
            let _ended = ended.await;
        });
    });
    let endpoint_address = is_started.recv().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = listener.local_addr().unwrap();
    let application = thread::spawn(move || run(send(app, proxy, requests)));
    listener.set_nonblocking(true).unwrap();
    let counted = allocation_counter::measure(|| {
        run(async {
            let world = World::new(match direction {
                Direction::Outbound => forward(None, &cluster(&[endpoint_address], |_| {}), |_| {}),
                Direction::Inbound => Snapshot {
                    inbound: Some(inbound::tests::inbound(TlsPolicy::Permissive)),
                    ..Snapshot::default()
                },
            });
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let (worker, io) = (Rc::clone(&world.worker), Io::from(stream));
            match direction {
                Direction::Outbound => outbound::serve_io(worker, io, PEER, SERVICE).await,
                Direction::Inbound => inbound::serve_io(worker, io, PEER, endpoint_address).await,
            }
        });
    });
    application.join().unwrap();
    drop(end);
    endpoint.join().unwrap();
    counted.count_total
}

/// Sends requests one after the other, then closes.
async fn send(app: App, proxy: SocketAddr, requests: u64) {
    let stream = TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match app {
        App::Http1 => {
            let mut sender = client1(stream).await;
            for _ in 0..requests {
                let got = ask(&mut sender, request("GET", "/reviews/7?full=yes", "")).await;
                assert_eq!((got.status, got.body.as_str()), (200, "five stars"));
            }
        }
        App::Http2 => {
            let mut sender = client2(stream).await;
            for _ in 0..requests {
                let request = request("GET", "http://reviews/reviews/7?full=yes", "");
                let got = Got::of(sender.send_request(request).await.unwrap()).await;
                assert_eq!((got.status, got.body.as_str()), (200, "five stars"));
            }
        }
    }
}

/// Answers every request on every connection.
async fn http2_server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data("five stars".into(), true).unwrap();
        }
    });
    address
}

//! HTTP/2 connections to endpoints: shared by requests, opened once for all who wait, and given up for good reasons only.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::testing::{Got, SERVICE, World, cluster, eventually, forward, request, run};

#[test]
fn requests_of_http1_are_carried_over_http2_where_the_policy_says_so() {
    run(async {
        let server = Server2::start(|_| Then::Answer).await;
        let cluster = cluster(&[server.address], |spec| spec.upgrade_outside_mesh = true);
        let world = World::new(forward(Some(api::Protocol::Http1), &cluster, |_| {}));
        let mut app = world.http1().await;
        for _ in 0..2 {
            let got = crate::testing::ask(&mut app, request("GET", "/", "")).await;
            assert_eq!(got.status, 200);
        }
        assert_eq!((server.log.connections.get(), server.log.requests.get()), (1, 2));
    });
}

/// What a scripted endpoint does with a stream.
pub(super) enum Then {
    Answer,
    /// As a gRPC server that fails: the status comes last.
    Trailers,
    Refuse,
    /// Waits for the stream to be reset.
    Hang,
}

/// A scripted endpoint of HTTP/2.
pub(super) struct Server2 {
    pub(super) address: SocketAddr,
    log: Rc<Log>,
}

#[derive(Default)]
struct Log {
    connections: Cell<usize>,
    requests: Cell<usize>,
    resets: Cell<usize>,
}

fn count(cell: &Cell<usize>) -> usize {
    cell.replace(cell.get() + 1)
}

impl Server2 {
    pub(super) async fn start(script: impl Fn(usize) -> Then + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Rc::<Log>::default();
        let (shared, script) = (Rc::clone(&log), Rc::new(script));
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count(&shared.connections);
                let (log, script) = (Rc::clone(&shared), Rc::clone(&script));
                tokio::task::spawn_local(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, respond))) = connection.accept().await {
                        let then = script(count(&log.requests));
                        tokio::task::spawn_local(stream_of(Rc::clone(&log), respond, then));
                    }
                });
            }
        });
        Self { address, log }
    }

    pub(super) fn connections(&self) -> usize {
        self.log.connections.get()
    }

    pub(super) fn requests(&self) -> usize {
        self.log.requests.get()
    }

    pub(super) fn resets(&self) -> usize {
        self.log.resets.get()
    }
}

async fn stream_of(log: Rc<Log>, mut respond: h2::server::SendResponse<Bytes>, then: Then) {
    match then {
        Then::Answer => {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data("hello".into(), true).unwrap();
        }
        Then::Trailers => {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data("hello".into(), false).unwrap();
            let trailers = [("grpc-status", "14")].map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
            body.send_trailers(trailers.into_iter().collect()).unwrap();
        }
        Then::Refuse => respond.send_reset(h2::Reason::REFUSED_STREAM),
        Then::Hang => {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            count(&log.resets);
        }
    }
}

#[test]
fn requests_at_once_share_one_connection() {
    run(async {
        let server = Server2::start(|_| Then::Answer).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let app = world.http2().await;
        let asking = (0..50).map(|_| {
            let mut app = app.clone();
            async move {
                Got::of(
                    app.send_request(request("GET", "http://reviews/", ""))
                        .await
                        .unwrap(),
                )
                .await
            }
        });
        for got in futures_util::future::join_all(asking).await {
            assert_eq!((got.status, got.body.as_str()), (200, "hello"));
        }
        assert_eq!((server.connections(), server.requests()), (1, 50));
        assert_eq!(cluster.live.metrics.requests.get(200), 50);
        assert_eq!(cluster.live.pending.load(std::sync::atomic::Ordering::Relaxed), 0);
    });
}

#[test]
fn a_connection_that_does_not_come_about_fails_all_who_wait_for_it_at_once() {
    run(async {
        // Takes connections, but answers no handshake: mutual TLS towards it fails when it closes.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialled = Rc::new(Cell::new(0));
        let counted = Rc::clone(&dialled);
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count(&counted);
                tokio::task::spawn_local(async move {
                    stream.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
                });
            }
        });
        let ca = crate::identity::testing::Ca::new();
        let id = crate::identity::testing::id("reviews");
        let cluster = crate::inbound::tests::meshed(address, &id, |_| {});
        let snapshot = forward(None, &cluster, |f| f.retry.attempts = 0);
        let world = World::with(
            snapshot,
            ca.identity(&crate::identity::testing::id("web")),
            |_| {},
        );
        let app = world.http2().await;
        let asking = (0..20).map(|_| {
            let mut app = app.clone();
            async move {
                Got::of(
                    app.send_request(request("GET", "http://reviews/", ""))
                        .await
                        .unwrap(),
                )
                .await
            }
        });
        for got in futures_util::future::join_all(asking).await {
            assert_eq!(got.told(), (503, "tls_failure"));
        }
        assert_eq!(dialled.get(), 1, "one handshake for all of them");
    });
}

#[test]
fn a_refused_stream_is_sent_again() {
    run(async {
        let server = Server2::start(|n| if n == 0 { Then::Refuse } else { Then::Answer }).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http2().await;
        let got = Got::of(
            app.send_request(request("POST", "http://reviews/", "body"))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!((got.status, server.requests(), server.connections()), (200, 2, 1));
    });
}

#[test]
fn a_stream_that_a_goaway_leaves_out_is_sent_again_on_another_connection() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Rc::new(Cell::new(0));
        let counted = Rc::clone(&served);
        tokio::task::spawn_local(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            goaway_at_first_headers(&mut first).await;
            let (second, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(second).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                count(&counted);
                respond.send_response(http::Response::new(()), true).unwrap();
            }
        });
        let world = World::new(forward(None, &cluster(&[address], |_| {}), |_| {}));
        let mut app = world.http2().await;
        let got = Got::of(
            app.send_request(request("POST", "http://reviews/", "body"))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!((got.status, served.get()), (200, 1));
    });
}

/// Speaks just enough HTTP/2 to say, at the first request, that none was processed.
async fn goaway_at_first_headers(stream: &mut tokio::net::TcpStream) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    stream.write_all(&SETTINGS).await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
    stream.write_all(&GOAWAY).await.unwrap();
}

#[test]
fn the_shared_connection_of_a_retired_endpoint_closes_when_unused() {
    run(async {
        let server = Server2::start(|_| Then::Answer).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.http2().await;
        app.send_request(request("GET", "http://reviews/", ""))
            .await
            .unwrap();
        cluster.endpoints[0]
            .live
            .retired
            .store(true, std::sync::atomic::Ordering::Relaxed);
        eventually("its connection closes", || {
            world.worker.upstream.sweep();
            cluster
                .live
                .connections
                .load(std::sync::atomic::Ordering::Relaxed)
                == 0
        })
        .await;
        app.send_request(request("GET", "http://reviews/", ""))
            .await
            .unwrap();
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn trailers_reach_the_application_and_the_metrics() {
    run(async {
        let server = Server2::start(|_| Then::Trailers).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(Some(api::Protocol::Grpc), &cluster, |_| {}));
        let mut app = world.http2().await;
        let mut asked = request("POST", "http://reviews/shop.Reviews/Get", "message");
        let grpc = http::HeaderValue::from_static("application/grpc");
        asked.headers_mut().insert("content-type", grpc);
        asked
            .headers_mut()
            .insert("te", http::HeaderValue::from_static("trailers"));
        let response = app.send_request(asked).await.unwrap();
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "14");
        assert_eq!(cluster.live.metrics.grpc.get(14), 1);
    });
}

/// More than is kept for another try.
const MESSAGE: usize = 70_000;

/// Says when it has a message, and ends its answer when the request has ended.
async fn listen_to_the_end(connections: Rc<Cell<usize>>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        count(&connections);
        let mut connection = h2::server::handshake(stream).await.unwrap();
        tokio::task::spawn_local(async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
                tokio::task::spawn_local(async move {
                    let (mut body, mut missing) = (request.into_body(), MESSAGE);
                    while let Some(Ok(data)) = body.data().await {
                        let _ = body.flow_control().release_capacity(data.len());
                        missing -= data.len();
                        if missing == 0 && !data.is_empty() {
                            let _ = answer.send_data("got it".into(), false);
                        }
                    }
                    let _ = answer.send_data(Bytes::new(), true);
                });
            }
        });
    }
}

#[test]
fn calls_that_end_with_an_empty_frame_leave_the_connection_alive() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::<Cell<usize>>::default();
        tokio::task::spawn_local(listen_to_the_end(Rc::clone(&connections), listener));
        let world = World::new(forward(None, &cluster(&[address], |_| {}), |_| {}));
        let (sender, connection) = h2::client::handshake(world.dial(SERVICE)).await.unwrap();
        tokio::task::spawn_local(connection);
        // As gRPC clients end their side of a stream. A peer takes a hundred empty frames that end nothing for an attack,
        // so the one that comes must not be followed by another.
        for _ in 0..150 {
            let mut sender = sender.clone().ready().await.unwrap();
            let request = http::Request::post("http://reviews/").body(()).unwrap();
            let (response, mut body) = sender.send_request(request, false).unwrap();
            body.send_data(vec![0; MESSAGE].into(), false).unwrap();
            let mut answer = response.await.unwrap().into_body();
            assert_eq!(answer.data().await.unwrap().unwrap(), "got it");
            body.send_data(Bytes::new(), true).unwrap();
            while let Some(data) = answer.data().await {
                assert!(data.unwrap().is_empty());
            }
        }
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn a_connection_carries_as_many_streams_as_it_may() {
    run(async {
        let server = Server2::start(|_| Then::Hang).await;
        let cluster = cluster(&[server.address], |spec| {
            spec.limits.max_concurrent_streams = std::num::NonZeroU32::new(2);
        });
        let world = World::new(forward(None, &cluster, |_| {}));
        let app = world.http2().await;
        for (requests, connections) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
            let mut app = app.clone();
            tokio::task::spawn_local(async move {
                let _ = app.send_request(request("GET", "http://reviews/", "")).await;
            });
            eventually("it arrives", || server.requests() == requests).await;
            assert_eq!(server.connections(), connections, "{requests} requests");
        }
    });
}

/// Answers one request, and then answers PINGs, or nothing more.
async fn answer_once(listener: TcpListener, pings: bool) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    respond.send_response(http::Response::new(()), true).unwrap();
    let ends = async { while connection.accept().await.is_some() {} };
    if pings {
        return ends.await;
    }
    let _ = tokio::time::timeout(Duration::from_millis(10), ends).await;
    std::future::pending().await
}

#[test]
fn an_idle_connection_is_asked_whether_it_lives_where_the_policy_says_so() {
    run(async {
        for (asks, pings, stays) in [(true, false, false), (true, true, true), (false, false, true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let cluster = cluster(&[listener.local_addr().unwrap()], |spec| {
                spec.http2_keepalive = asks.then_some(api::Http2Keepalive {
                    interval: Duration::from_millis(50),
                    timeout: Duration::from_millis(200),
                });
            });
            tokio::task::spawn_local(answer_once(listener, pings));
            let world = World::new(forward(None, &cluster, |_| {}));
            let mut app = world.http2().await;
            let sent = app.send_request(request("GET", "http://reviews/", "")).await;
            assert_eq!(sent.unwrap().status(), 200);
            let open = || {
                cluster
                    .live
                    .connections
                    .load(std::sync::atomic::Ordering::Relaxed)
            };
            if stays {
                tokio::time::sleep(Duration::from_millis(600)).await;
                assert_eq!(open(), 1, "asks: {asks}, answers: {pings}");
            } else {
                eventually("it is given up", || open() == 0).await;
            }
        }
    });
}

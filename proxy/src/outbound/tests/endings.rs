//! How requests end: the application leaves, the proxy drains, the record is written.

use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::drain::Phase;
use crate::testing::{
    Reply, SERVICE, Server, World, answer, ask, cluster, eventually, forward, ok, request, run,
};

#[test]
fn an_application_that_leaves_cancels_its_request_at_the_endpoint() {
    run(async {
        let server = Server::start(|_, _| Reply::Hang).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n")
            .await
            .unwrap();
        eventually("the request arrives", || server.seen().len() == 1).await;
        drop(app);
        eventually("it is cancelled", || server.open() == 0).await;
        eventually("it is recorded", || world.errors("aborted") == 1).await;
    });
}

#[test]
fn an_http2_stream_that_is_reset_cancels_its_request_and_no_other() {
    run(async {
        let server = super::shared::Server2::start(|_| super::shared::Then::Hang).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http2().await;
        let mut other = app.clone();
        let get = || request("GET", "http://reviews/", "");
        let one = tokio::task::spawn_local(async move { app.send_request(get()).await });
        let two = tokio::task::spawn_local(async move { other.send_request(get()).await });
        eventually("both arrive", || server.requests() == 2).await;
        one.abort();
        eventually("one is cancelled", || server.resets() == 1).await;
        assert!(!two.is_finished());
        assert_eq!(server.connections(), 1);
        eventually("it is recorded", || world.errors("aborted") == 1).await;
    });
}

#[test]
fn a_body_that_the_application_leaves_is_recorded_as_aborted_with_its_bytes() {
    run(async {
        let server =
            Server::start(|_, _| Reply::Send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart".to_owned()))
                .await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.http1().await;
        let mut response = app.send_request(request("GET", "/", "")).await.unwrap();
        let part = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(part.into_data().unwrap(), "part");
        drop((response, app));
        eventually("the endpoint hears of it", || server.open() == 0).await;
        eventually("it is recorded", || world.errors("aborted") == 1).await;
        let metrics = &cluster.live.metrics;
        assert_eq!((metrics.requests.get(200), metrics.bytes_received.get()), (1, 4));
    });
}

#[test]
fn a_body_that_the_endpoint_breaks_off_is_broken_for_the_application_too() {
    run(async {
        let server =
            Server::start(|_, _| Reply::Last("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart".to_owned()))
                .await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http1().await;
        let response = app.send_request(request("GET", "/", "")).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
        eventually("it is recorded", || world.errors("response_broken") == 1).await;
    });
}

#[test]
fn each_request_is_recorded_once_with_the_bytes_of_both_bodies() {
    run(async {
        let server = Server::start(|n, _| match n {
            0 => answer("503 Service Unavailable", "try again"),
            _ => ok("seven b"),
        })
        .await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |f| {
            f.retry.conditions = vec![api::RetryCondition::GatewayError];
            f.retry.backoff = Duration::ZERO;
        }));
        let mut app = world.http1().await;
        assert_eq!(ask(&mut app, request("POST", "/", "three")).await.status, 200);
        let metrics = &cluster.live.metrics;
        assert_eq!(server.seen().len(), 2);
        assert_eq!((metrics.requests.get(200), metrics.requests.get(503)), (1, 0));
        assert_eq!(metrics.latency.count(), 1);
        assert_eq!(metrics.bytes_received.get(), 7);
        assert_eq!(metrics.bytes_sent.get(), 5, "once, however often it was sent");
    });
}

#[test]
fn draining_lets_a_request_finish_and_then_closes() {
    run(async {
        let server = Server::start(|n, _| if n == 0 { ok("first") } else { Reply::Hang }).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        // Idle after one request: closes at once.
        let mut idle = world.http1().await;
        ask(&mut idle, request("GET", "/", "")).await;
        world.drain.enter(Phase::Going);
        tokio::task::yield_now().await;
        assert!(!idle.is_closed(), "going is not closing");
        world.drain.enter(Phase::Leaving);
        eventually("the idle connection closes", || idle.is_closed()).await;
        eventually("nothing is left", || world.drain.open() == 0).await;
    });
    run(async {
        let (arrived, answer) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let server = slow(Rc::clone(&arrived), Rc::clone(&answer)).await;
        let world = World::new(forward(None, &cluster(&[server], |_| {}), |_| {}));
        let mut app = world.http1().await;
        let asked = tokio::task::spawn_local(async move { ask(&mut app, request("GET", "/", "")).await });
        arrived.notified().await;
        world.drain.enter(Phase::Leaving);
        tokio::task::yield_now().await;
        assert_eq!(world.drain.open(), 1, "a request under way is waited for");
        answer.notify_one();
        let got = asked.await.unwrap();
        assert_eq!(
            (got.status, got.header("connection"), got.body.as_str()),
            (200, "close", "late")
        );
        eventually("nothing is left", || world.drain.open() == 0).await;
    });
}

/// An endpoint of one request: it tells when that has arrived, and answers when it is told to.
async fn slow(arrived: Rc<Notify>, answer: Rc<Notify>) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
        arrived.notify_one();
        answer.notified().await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate";
        stream.write_all(answer).await.unwrap();
        let _ = stream.read_buf(&mut Vec::with_capacity(16)).await;
    });
    address
}

#[test]
fn a_declared_connection_that_has_not_spoken_ends_with_the_drain() {
    run(async {
        let world = World::new(forward(Some(api::Protocol::Http1), &cluster(&[], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        tokio::task::yield_now().await;
        world.drain.enter(Phase::Leaving);
        assert_eq!(app.read(&mut [0; 8]).await.unwrap(), 0);
    });
}

#[test]
fn draining_lets_the_streams_of_http2_finish_and_then_closes() {
    run(async {
        let (arrived, answer) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrives, told) = (Rc::clone(&arrived), Rc::clone(&answer));
        tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                arrives.notify_one();
                let told = Rc::clone(&told);
                tokio::task::spawn_local(async move {
                    told.notified().await;
                    respond.send_response(http::Response::new(()), true).unwrap();
                });
            }
        });
        let world = World::new(forward(None, &cluster(&[address], |_| {}), |_| {}));
        let app = world.http2().await;
        let mut asking = app.clone();
        let get = request("GET", "http://reviews/", "");
        let asked = tokio::task::spawn_local(async move { asking.send_request(get).await });
        arrived.notified().await;
        world.drain.enter(Phase::Leaving);
        tokio::task::yield_now().await;
        assert_eq!(world.drain.open(), 1);
        answer.notify_one();
        assert_eq!(asked.await.unwrap().unwrap().status(), 200);
        eventually("nothing is left, though the application keeps its side", || {
            world.drain.open() == 0
        })
        .await;
        drop(app);
    });
}

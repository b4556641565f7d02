//! Requests that become streams, and bodies that wait to be asked for.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::drain::Phase;
use crate::io::Io;
use crate::testing::{SERVICE, Server, World, answer, ask, cluster, eventually, forward, ok, request, run};

/// Reads to the end of a head.
async fn head(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An endpoint of one connection, played by `script`.
async fn endpoint<F: Future<Output = ()> + 'static>(
    script: impl FnOnce(TcpStream) -> F + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(stream).await;
    });
    address
}

/// Opens a tunnel as asked, sends back what it gets until that ends, and then says goodbye.
async fn tunnel(mut stream: TcpStream, opens: &'static str) {
    let asked = head(&mut stream).await;
    assert!(
        asked.contains("upgrade: echo") || asked.starts_with("CONNECT reviews:80 HTTP/1.1"),
        "{asked}"
    );
    stream.write_all(opens.as_bytes()).await.unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "ping");
    stream.write_all(b"pong and goodbye").await.unwrap();
}

#[test]
fn an_upgrade_carries_bytes_both_ways_and_either_side_may_end_first() {
    run(async {
        let opens = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        let address = endpoint(move |stream| tunnel(stream, opens)).await;
        let cluster = cluster(&[address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.dial(SERVICE);
        let asks = b"GET /chat HTTP/1.1\r\nhost: reviews\r\nconnection: keep-alive, Upgrade\r\nupgrade: echo\r\n\r\npi";
        app.write_all(asks).await.unwrap();
        let answer = head(&mut app).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        assert!(answer.to_lowercase().contains("upgrade: echo"), "{answer}");
        // It outlives the request it began with, and is waited for.
        world.drain.enter(Phase::Leaving);
        tokio::task::yield_now().await;
        assert!(world.drain.open() > 0);
        app.write_all(b"ng").await.unwrap();
        app.shutdown().await.unwrap();
        let mut rest = String::new();
        app.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "pong and goodbye");
        eventually("the tunnel is over", || world.drain.open() == 0).await;
        assert_eq!(
            cluster.live.requests.load(std::sync::atomic::Ordering::Relaxed),
            0
        );
    });
}

#[test]
fn connect_opens_a_tunnel() {
    run(async {
        let address = endpoint(|stream| tunnel(stream, "HTTP/1.1 200 OK\r\n\r\n")).await;
        let world = World::new(forward(None, &cluster(&[address], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(b"CONNECT reviews:80 HTTP/1.1\r\nhost: reviews:80\r\n\r\n")
            .await
            .unwrap();
        assert!(head(&mut app).await.starts_with("HTTP/1.1 200"));
        app.write_all(b"ping").await.unwrap();
        app.shutdown().await.unwrap();
        let mut rest = String::new();
        app.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "pong and goodbye");
    });
}

#[test]
fn an_upgrade_that_the_endpoint_declines_is_an_answer_like_any_other() {
    run(async {
        let server = Server::start(|n, _| {
            if n == 0 {
                answer("426 Upgrade Required", "no")
            } else {
                ok("yes")
            }
        })
        .await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http1().await;
        let mut asked = request("GET", "/", "");
        let headers = asked.headers_mut();
        headers.insert("connection", "upgrade".parse().unwrap());
        headers.insert("upgrade", "echo".parse().unwrap());
        let got = ask(&mut app, asked).await;
        assert_eq!((got.status, got.body.as_str()), (426, "no"));
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.body, "yes");
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn an_upgrade_to_h2c_is_not_asked_of_the_endpoint() {
    run(async {
        let server = Server::start(|_, _| ok("plain")).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let mut app = world.http1().await;
        let mut asked = request("GET", "/", "");
        let headers = asked.headers_mut();
        headers.insert("connection", "upgrade, http2-settings".parse().unwrap());
        headers.insert("upgrade", "h2c".parse().unwrap());
        headers.insert("http2-settings", "AAMAAABkAAQAAP__".parse().unwrap());
        assert_eq!(ask(&mut app, asked).await.body, "plain");
        let seen = &server.seen()[0];
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(seen.header(gone), None, "{gone}");
        }
    });
}

const EXPECTS: &[u8] =
    b"POST / HTTP/1.1\r\nhost: reviews\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[test]
fn a_body_waits_for_the_endpoints_100_continue() {
    run(async {
        let (arrived, go_on) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let (arrives, told) = (Rc::clone(&arrived), Rc::clone(&go_on));
        let address = endpoint(move |mut stream| async move {
            let got = head(&mut stream).await;
            assert!(got.contains("expect: 100-continue"), "{got}");
            arrives.notify_one();
            told.notified().await;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"hello");
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
        })
        .await;
        let world = World::new(forward(None, &cluster(&[address], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(EXPECTS).await.unwrap();
        arrived.notified().await;
        let early = tokio::time::timeout(Duration::from_millis(30), app.read_u8()).await;
        assert!(early.is_err(), "nobody but the endpoint says go on");
        let before = tokio::time::Instant::now();
        go_on.notify_one();
        assert!(head(&mut app).await.starts_with("HTTP/1.1 100"));
        assert!(
            before.elapsed() < Duration::from_millis(900),
            "as soon as it said so"
        );
        app.write_all(b"hello").await.unwrap();
        assert!(head(&mut app).await.starts_with("HTTP/1.1 204"));
    });
}

#[test]
fn an_endpoint_that_declines_gets_no_body() {
    run(async {
        let address = endpoint(|mut stream| async move {
            head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            let _ = stream.read_u8().await;
        })
        .await;
        let world = World::new(forward(None, &cluster(&[address], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(EXPECTS).await.unwrap();
        let got = head(&mut app).await;
        assert!(got.starts_with("HTTP/1.1 417"), "{got}");
    });
}

#[test]
fn an_endpoint_that_knows_no_100_continue_gets_the_body_after_a_second() {
    run(async {
        let address = endpoint(|mut stream| async move {
            head(&mut stream).await;
            let before = tokio::time::Instant::now();
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            assert!(before.elapsed() >= Duration::from_millis(900));
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
        })
        .await;
        let world = World::new(forward(None, &cluster(&[address], |_| {}), |_| {}));
        let mut app = Io::from(world.dial(SERVICE));
        app.write_all(EXPECTS).await.unwrap();
        assert!(head(&mut app).await.starts_with("HTTP/1.1 100"));
        app.write_all(b"hello").await.unwrap();
        assert!(head(&mut app).await.starts_with("HTTP/1.1 204"));
    });
}

//! Connections without visible requests: who speaks first, what is remembered, and which rule takes them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::{Protocol, Timeouts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::config::snapshot::Destination;
use crate::io::Io;
use crate::io::tests::tls_configs;
use crate::route::testing::tcp_rule;
use crate::testing::{SERVICE, Server, World, ask, client1, cluster, destination, eventually, forward, ok};
use crate::testing::{request, route, run};

/// An endpoint that greets first, and then sends back what it gets.
async fn greeter(greeting: &'static str) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Rc::new(Cell::new(0));
    let counted = Rc::clone(&connections);
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            tokio::task::spawn_local(async move {
                stream.write_all(greeting.as_bytes()).await.unwrap();
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    (address, connections)
}

#[test]
fn a_server_that_speaks_first_is_heard_and_remembered() {
    run(async {
        let (address, _) = greeter("220 mail ESMTP\r\n").await;
        let cluster = cluster(&[address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        for remembered in [false, true] {
            assert_eq!(
                world.worker.speaks_first.borrow().contains_key("reviews.shop:80"),
                remembered
            );
            let mut app = world.dial(SERVICE);
            let mut greeting = [0; 16];
            if !remembered {
                app.read_exact(&mut greeting).await.unwrap();
            }
            // Once remembered, nobody looks at what the client says, or waits for it.
            app.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            if remembered {
                app.read_exact(&mut greeting).await.unwrap();
            }
            assert_eq!(&greeting, b"220 mail ESMTP\r\n");
            app.shutdown().await.unwrap();
            let mut echoed = String::new();
            app.read_to_string(&mut echoed).await.unwrap();
            assert_eq!(
                echoed, "GET / HTTP/1.1\r\n",
                "half-closed, it still hears the rest"
            );
        }
        eventually("both are counted", || {
            cluster.live.metrics.connections_closed.get() == 2
        })
        .await;
        let metrics = &cluster.live.metrics;
        assert_eq!((metrics.bytes_sent.get(), metrics.bytes_received.get()), (32, 64));
    });
}

#[test]
fn a_client_that_speaks_http_after_a_silence_is_routed_by_its_requests() {
    run(async {
        let server = Server::start(|_, _| ok("http")).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(None, &cluster, |_| {}));
        let io = world.dial(SERVICE);
        eventually("the server is asked", || server.connections() == 1).await;
        let mut app = client1(io).await;
        let got = ask(&mut app, request("GET", "/late", "")).await;
        assert_eq!(
            (got.body.as_str(), server.seen()[0].line()),
            ("http", "GET /late HTTP/1.1")
        );
        assert!(world.worker.speaks_first.borrow().is_empty());
        assert_eq!(cluster.live.metrics.requests.get(200), 1);
    });
}

#[test]
fn a_silent_client_of_a_silent_server_is_passed_on_when_its_time_is_up() {
    run(async {
        let (address, connections) = greeter("").await;
        let world = World::with(
            forward(None, &cluster(&[address], |_| {}), |_| {}),
            crate::identity::testing::empty(),
            |settings| settings.detect_timeout = std::time::Duration::from_millis(50),
        );
        let mut app = world.dial(SERVICE);
        let detect = &world.worker.recorder.metrics().detect;
        eventually("its time is up", || detect.opaque.get() == 1).await;
        app.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut echoed = [0; 16];
        app.read_exact(&mut echoed).await.unwrap();
        assert_eq!(
            &echoed, b"GET / HTTP/1.1\r\n",
            "bytes by now, whatever they look like"
        );
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn a_declared_tcp_port_is_never_looked_into() {
    run(async {
        let (address, _) = greeter("").await;
        let world = World::new(forward(Some(Protocol::Tcp), &cluster(&[address], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut echoed = [0; 18];
        app.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"GET / HTTP/1.1\r\n\r\n");
    });
}

/// How long a connection lives that says something every 2 seconds, or never.
async fn lifetime(timeouts: Timeouts, talks: bool) -> Duration {
    let (address, _) = greeter("").await;
    let cluster = cluster(&[address], |spec| spec.timeouts = timeouts);
    let world = World::new(forward(Some(Protocol::Tcp), &cluster, |_| {}));
    let mut app = world.dial(SERVICE);
    app.write_all(b"hello").await.unwrap();
    app.read_exact(&mut [0; 5]).await.unwrap();
    tokio::time::pause();
    let began = Instant::now();
    loop {
        let mut byte = [0];
        match timeout(Duration::from_secs(2), app.read(&mut byte)).await {
            Ok(read) => {
                assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
                let took = began.elapsed();
                tokio::time::resume();
                return took;
            }
            Err(_) if talks => {
                tokio::time::resume();
                if app.write_all(b"x").await.is_ok() {
                    app.read_exact(&mut byte).await.unwrap();
                }
                tokio::time::pause();
            }
            Err(_) => {}
        }
    }
}

#[test]
fn a_connection_ends_when_it_is_idle_or_old_enough() {
    run(async {
        let idle = Timeouts {
            tcp_idle: Some(Duration::from_secs(5)),
            ..Timeouts::default()
        };
        let took = lifetime(idle, false).await;
        assert!(
            took.abs_diff(Duration::from_secs(5)) < Duration::from_secs(1),
            "{took:?}"
        );
        let old = Timeouts {
            max_connection: Some(Duration::from_secs(9)),
            ..idle
        };
        let took = lifetime(old, true).await;
        assert!(
            took.abs_diff(Duration::from_secs(9)) < Duration::from_secs(1),
            "{took:?}"
        );
    });
}

async fn tls_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (server, client) = tls_configs();
    CLIENT.set(Some(client));
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&server));
            tokio::task::spawn_local(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.write_all(b"inside").await.unwrap();
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

thread_local! {
    static CLIENT: Cell<Option<Arc<rustls::ClientConfig>>> = const { Cell::new(None) };
}

async fn through_tls(io: impl Into<Io>) -> String {
    let connector = tokio_rustls::TlsConnector::from(CLIENT.take().unwrap());
    let name = rustls_pki_types::ServerName::try_from("server.test").unwrap();
    let mut stream = connector.connect(name, io.into()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

#[test]
fn the_server_name_of_tls_chooses_the_rule() {
    for protocol in [None, Some(Protocol::Tls)] {
        run(async move {
            let (nobody, named) = (cluster(&[], |_| {}), cluster(&[tls_endpoint().await], |_| {}));
            let rules = vec![
                (tcp_rule(&["other.test"], &[("a", 1)]), Arc::clone(&nobody)),
                (tcp_rule(&["*.test"], &[("b", 1)]), Arc::clone(&named)),
                (tcp_rule(&[], &[("c", 1)]), nobody),
            ];
            let world = World::new(route(protocol, Vec::new(), rules));
            assert_eq!(through_tls(world.dial(SERVICE)).await, "inside");
            let detect = &world.worker.recorder.metrics().detect;
            assert_eq!((detect.tls.get(), detect.opaque.get()), (1, 0));
        });
    }
}

#[test]
fn tls_on_a_port_declared_http_is_passed_on() {
    run(async {
        let cluster = cluster(&[tls_endpoint().await], |_| {});
        let world = World::new(forward(Some(Protocol::Http1), &cluster, |_| {}));
        assert_eq!(through_tls(world.dial(SERVICE)).await, "inside");
    });
}

#[test]
fn nonsense_on_a_port_declared_http_is_a_bad_request() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(Some(Protocol::Http1), &cluster, |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(b"\x00\x01\x02\x03 nonsense\r\n\r\n").await.unwrap();
        let mut got = String::new();
        app.read_to_string(&mut got).await.unwrap();
        assert!(got.starts_with("HTTP/1.1 400"), "{got}");
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn http_of_any_version_is_known_on_a_port_declared_http() {
    run(async {
        let server = super::shared::Server2::start(|_| super::shared::Then::Answer).await;
        let cluster = cluster(&[server.address], |_| {});
        let world = World::new(forward(Some(Protocol::Http1), &cluster, |_| {}));
        let mut app = world.http2().await;
        let got = app
            .send_request(request("GET", "http://reviews/", ""))
            .await
            .unwrap();
        assert_eq!((got.status(), server.requests()), (http::StatusCode::OK, 1));
    });
}

#[test]
fn opaque_bytes_pass_over_endpoints_that_refuse_them_and_break_off_when_all_do() {
    run(async {
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let (address, _) = greeter("").await;
        let world = World::new(forward(None, &cluster(&[gone, address], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(b"\x00\x01\x02").await.unwrap();
        let mut echoed = [0; 3];
        app.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, [0, 1, 2]);

        let world = World::new(forward(None, &cluster(&[gone], |_| {}), |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(b"\x00\x01\x02").await.unwrap();
        assert_eq!(app.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert_eq!(world.errors("connect_failure"), 1);
    });
}

#[test]
fn what_is_outside_the_mesh_is_passed_on_untouched() {
    run(async {
        let server = Server::start(|_, _| ok("outside")).await;
        let mut snapshot = destination(Destination::Passthrough);
        let entry = snapshot.destinations.remove(&SERVICE).unwrap();
        snapshot.destinations.insert(server.address, entry);
        let world = World::new(snapshot);
        let mut app = client1(world.dial(server.address)).await;
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.body, "outside");
        drop(app);
        let passthrough = &world.worker.recorder.metrics().passthrough;
        eventually("it is counted", || passthrough.connections.get() == 1).await;
        assert!(passthrough.bytes_received.get() > 0);
    });
}

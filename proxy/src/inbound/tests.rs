//! The inbound path from a peer's first byte to the application's last: mesh peers over mutual TLS as another proxy sends
//! them, and peers in the clear.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Inbound, InboundPort, MeshProtocol, Protocol, SpiffeId, TlsPolicy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;

use crate::config::snapshot::{Cluster, Endpoint, Snapshot};
use crate::identity::testing::{Ca, id};
use crate::io::Io;
use crate::live::EndpointLive;
use crate::testing::{Got, Reply, SERVICE, Server, World, ask, client1, client2, eventually, forward, ok};
use crate::testing::{request, run, run_paused};

pub(crate) fn inbound(policy: TlsPolicy) -> Arc<Inbound> {
    Arc::new(Inbound {
        policy,
        ports: Vec::new(),
        sources: Vec::new(),
        finished: false,
    })
}

pub(crate) fn takes(policy: TlsPolicy) -> Snapshot {
    Snapshot {
        inbound: Some(inbound(policy)),
        ..Snapshot::default()
    }
}

/// A cluster of one meshed endpoint.
pub(crate) fn meshed(
    address: SocketAddr,
    identity: &SpiffeId,
    change: impl FnOnce(&mut api::Cluster),
) -> Arc<Cluster> {
    let plain = crate::testing::cluster(&[address], change);
    let mut spec = plain.endpoints[0].spec.clone();
    spec.identity = Some(identity.clone());
    let endpoint = Endpoint {
        spec,
        live: Arc::new(EndpointLive::new()),
    };
    Arc::new(Cluster {
        name: Arc::clone(&plain.name),
        spec: Arc::clone(&plain.spec),
        endpoints: vec![Arc::new(endpoint)],
        weights: crate::balancer::Weights::default(),
        live: Arc::clone(&plain.live),
        absent: None,
    })
}

/// A mesh peer called `web` that connects to a pod called `reviews`.
struct Peer {
    ca: Ca,
    pod: World,
}

impl Peer {
    fn of(snapshot: Snapshot) -> Self {
        let ca = Ca::new();
        let pod = World::with(snapshot, ca.identity(&id("reviews")), |_| {});
        Self { ca, pod }
    }

    async fn connect(&self, port: SocketAddr, protocol: MeshProtocol) -> Io {
        let web = self.ca.identity(&id("web"));
        let io = Io::from(self.pod.arrive(port));
        web.connect(io, &id("reviews"), port, protocol)
            .await
            .unwrap()
            .into()
    }
}

const PEER: &str = api::names::PEER_HEADER;

#[test]
fn the_application_hears_who_sends_whatever_carries_the_request() {
    run(async {
        let server = Server::start(|n, _| ok(&n.to_string())).await;
        let peer = Peer::of(takes(TlsPolicy::Strict));
        let forged = |path: &str| {
            let mut forged = request("POST", path, "body");
            forged
                .headers_mut()
                .insert(PEER, "spiffe://evil/ns/a/sa/b".parse().unwrap());
            forged
        };
        let mut h1 = client1(peer.connect(server.address, MeshProtocol::Http1).await).await;
        assert_eq!(ask(&mut h1, forged("/1")).await.body, "0");
        // HTTP/1.1 of the application, carried in HTTP/2 between the proxies.
        let mut carried = client2(peer.connect(server.address, MeshProtocol::Http1OverHttp2).await).await;
        let got = Got::of(carried.send_request(forged("http://reviews/2")).await.unwrap()).await;
        assert_eq!(got.body, "1");
        let seen = server.seen();
        for (seen, path) in seen.iter().zip(["/1", "/2"]) {
            assert_eq!(seen.line(), format!("POST {path} HTTP/1.1"));
            assert_eq!(
                (seen.header("host"), seen.body.as_str()),
                (Some("reviews"), "body")
            );
            assert_eq!(seen.header(PEER), Some("spiffe://cluster.local/ns/shop/sa/web"));
            assert_eq!(seen.head.matches(PEER).count(), 1, "{}", seen.head);
        }
        assert_eq!(server.connections(), 1, "both are HTTP/1.1 to the application");
    });
}

#[test]
fn http2_of_an_application_arrives_as_http2() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = Peer::of(takes(TlsPolicy::Strict));
        tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.headers()[PEER], "spiffe://cluster.local/ns/shop/sa/web");
                assert_eq!(request.uri().authority().unwrap(), "reviews");
                respond.send_response(http::Response::new(()), true).unwrap();
            }
        });
        let mut app = client2(peer.connect(address, MeshProtocol::Http2).await).await;
        let got = app
            .send_request(request("GET", "http://reviews/", ""))
            .await
            .unwrap();
        assert_eq!(got.status(), 200);
    });
}

/// Sends back all that it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

#[test]
fn bytes_of_a_mesh_peer_reach_the_application_as_they_are() {
    run(async {
        let address = echo().await;
        let peer = Peer::of(takes(TlsPolicy::Strict));
        let mut io = peer.connect(address, MeshProtocol::Tcp).await;
        io.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        io.shutdown().await.unwrap();
        let mut got = String::new();
        io.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "GET / HTTP/1.1\r\n\r\n");
        let metrics = Arc::clone(peer.pod.worker.config.load().inbound_ports.get(address.port()));
        eventually("they are counted", || metrics.bytes_received.get() == 18).await;
        assert_eq!(
            (metrics.bytes_sent.get(), metrics.mutual_connections.get()),
            (18, 1)
        );
    });
}

#[test]
fn a_peer_of_another_authority_gets_nothing_through() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let peer = Peer::of(takes(TlsPolicy::Permissive));
        let stranger = Ca::new().identity(&id("web"));
        let io = Io::from(peer.pod.arrive(server.address));
        let connected = stranger
            .connect(io, &id("reviews"), server.address, MeshProtocol::Http1)
            .await;
        assert!(connected.is_err());
        eventually("it is counted", || peer.pod.errors("tls_failure") == 1).await;
        assert_eq!(server.connections(), 0);
    });
}

async fn rest(mut io: DuplexStream, bytes: &[u8]) -> String {
    io.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    let _ = io.read_to_end(&mut got).await;
    String::from_utf8_lossy(&got).into_owned()
}

#[test]
fn strict_tells_http_in_the_clear_why_it_is_refused_and_closes_on_anything_else() {
    run_paused(async {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let peer = Peer::of(takes(TlsPolicy::Strict));
        let mut app = client1(peer.pod.arrive(address)).await;
        assert_eq!(
            ask(&mut app, request("GET", "/", "")).await.told(),
            (403, "plaintext_refused")
        );
        let mut app = client2(peer.pod.arrive(address)).await;
        let got = app
            .send_request(request("GET", "http://reviews/", ""))
            .await
            .unwrap();
        assert_eq!(got.status(), 403);
        for bytes in [&b"\x00\x01\x02\x03"[..], b""] {
            assert_eq!(rest(peer.pod.arrive(address), bytes).await, "");
        }
        let metrics = Arc::clone(peer.pod.worker.config.load().inbound_ports.get(9));
        assert_eq!(
            (
                metrics.refused_connections.get(),
                metrics.plaintext_connections.get()
            ),
            (4, 0)
        );
        assert_eq!(peer.pod.errors("plaintext_refused"), 4);
    });
}

#[test]
fn strict_refuses_tls_that_is_none_of_the_meshs() {
    run(async {
        let address = echo().await;
        let peer = Peer::of(takes(TlsPolicy::Strict));
        let (_, client) = crate::io::tests::tls_configs();
        let mut client = (*client).clone();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = rustls_pki_types::ServerName::try_from("server.test").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        assert!(connector.connect(name, peer.pod.arrive(address)).await.is_err());
        assert_eq!(peer.pod.errors("plaintext_refused"), 1);
    });
}

#[test]
fn permissive_and_disable_serve_in_the_clear_and_nobody_there_says_who_he_is() {
    for policy in [TlsPolicy::Permissive, TlsPolicy::Disable] {
        run(async move {
            let server = Server::start(|_, _| ok("served")).await;
            let peer = Peer::of(takes(policy));
            let mut app = client1(peer.pod.arrive(server.address)).await;
            let mut forged = request("GET", "/", "");
            forged
                .headers_mut()
                .insert(PEER, "spiffe://cluster.local/ns/shop/sa/admin".parse().unwrap());
            assert_eq!(ask(&mut app, forged).await.body, "served");
            assert_eq!(server.seen()[0].header(PEER), None);
            let metrics = Arc::clone(
                peer.pod
                    .worker
                    .config
                    .load()
                    .inbound_ports
                    .get(server.address.port()),
            );
            eventually("it is counted", || metrics.requests.get(200) == 1).await;
            assert_eq!(metrics.plaintext_connections.get(), 1);
            let echo = echo().await;
            let mut io = peer.pod.arrive(echo);
            io.write_all(b"\x00\x01\x02\x03").await.unwrap();
            io.shutdown().await.unwrap();
            let mut got = Vec::new();
            io.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"\x00\x01\x02\x03");
        });
    }
}

/// Both would wait for each other until their grace is over.
#[test]
fn an_application_that_waits_until_nobody_is_connected_is_released_on_shutdown() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let application = tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
        });
        let peer = Peer::of(takes(TlsPolicy::Permissive));
        let mut app = client1(peer.pod.arrive(address)).await;
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(
            !application.is_finished(),
            "until then it is kept for the next request"
        );
        peer.pod.drain.enter(crate::drain::Phase::Closing);
        peer.pod.worker.release_application();
        application.await.unwrap();
    });
}

#[test]
fn a_port_may_have_a_policy_and_a_protocol_of_its_own() {
    run(async {
        let address = echo().await;
        let inbound = Inbound {
            ports: vec![InboundPort {
                port: address.port(),
                policy: Some(TlsPolicy::Permissive),
                protocol: Some(Protocol::Tcp),
                service: String::new(),
            }],
            ..(*inbound(TlsPolicy::Strict)).clone()
        };
        let peer = Peer::of(Snapshot {
            inbound: Some(Arc::new(inbound)),
            ..Snapshot::default()
        });
        let mut io = peer.pod.arrive(address);
        io.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        io.shutdown().await.unwrap();
        let mut got = String::new();
        io.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "GET / HTTP/1.1\r\n\r\n");
    });
}

#[test]
fn an_application_that_speaks_first_is_heard_in_the_clear() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 mail\r\n").await.unwrap();
        });
        let peer = Peer::of(takes(TlsPolicy::Permissive));
        assert_eq!(rest(peer.pod.arrive(address), b"").await, "220 mail\r\n");
    });
}

#[test]
fn a_slow_peer_is_still_known_by_what_it_says() {
    run(async {
        let server = Server::start(|_, _| ok("served")).await;
        let peer = Peer::of(takes(TlsPolicy::Permissive));
        let io = peer.pod.arrive(server.address);
        eventually("the application is asked", || server.connections() == 1).await;
        let mut app = client1(io).await;
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.body, "served");

        let io = Io::from(peer.pod.arrive(server.address));
        eventually("it is asked again", || server.connections() == 3).await;
        let web = peer.ca.identity(&id("web"));
        let tls = web
            .connect(io, &id("reviews"), server.address, MeshProtocol::Http1)
            .await
            .unwrap();
        let mut app = client1(tls).await;
        ask(&mut app, request("GET", "/", "")).await;
        assert!(server.seen()[1].header(PEER).is_some());
    });
}

#[test]
fn without_a_policy_nothing_is_taken() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let peer = Peer::of(Snapshot::default());
        assert_eq!(rest(peer.pod.arrive(server.address), b"").await, "");
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn an_application_that_is_not_there_is_a_503() {
    run(async {
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let peer = Peer::of(takes(TlsPolicy::Permissive));
        let mut app = client1(peer.pod.arrive(gone)).await;
        assert_eq!(
            ask(&mut app, request("GET", "/", "")).await.told(),
            (503, "connect_failure")
        );
    });
}

#[test]
fn two_proxies_carry_a_request_with_the_callers_identity() {
    run(async {
        let server = Server::start(|n, _| match n {
            2 => Reply::Hang,
            _ => ok("through both"),
        })
        .await;
        let ca = Ca::new();
        let pod = World::with(takes(TlsPolicy::Strict), ca.identity(&id("reviews")), |_| {});
        // The pod's redirect, played by a port of its own.
        let redirect = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = redirect.local_addr().unwrap();
        let (worker, application) = (std::rc::Rc::clone(&pod.worker), server.address);
        tokio::task::spawn_local(async move {
            while let Ok((stream, peer)) = redirect.accept().await {
                let worker = std::rc::Rc::clone(&worker);
                tokio::task::spawn_local(super::serve_io(worker, Io::from(stream), peer, application));
            }
        });
        for over_http2 in [true, false] {
            let cluster = meshed(port, &id("reviews"), |spec| spec.upgrade_to_http2 = over_http2);
            let caller = World::with(forward(None, &cluster, |_| {}), ca.identity(&id("web")), |_| {});
            let mut app = caller.http1().await;
            let got = ask(&mut app, request("POST", "/", "body")).await;
            assert_eq!((got.status, got.body.as_str()), (200, "through both"));
            let seen = server.seen();
            let last = seen.last().unwrap();
            assert_eq!(last.header(PEER), Some("spiffe://cluster.local/ns/shop/sa/web"));
            assert_eq!((last.line(), last.body.as_str()), ("POST / HTTP/1.1", "body"));
        }
        // Cancelled at one end, it is cancelled at the other.
        let cluster = meshed(port, &id("reviews"), |_| {});
        let caller = World::with(forward(None, &cluster, |_| {}), ca.identity(&id("web")), |_| {});
        let mut app = caller.dial(SERVICE);
        app.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n")
            .await
            .unwrap();
        eventually("it arrives", || server.seen().len() == 3).await;
        let open = server.open();
        drop(app);
        eventually("the application's connection closes", || server.open() < open).await;
        tokio::time::timeout(Duration::from_secs(1), async { drop(caller) })
            .await
            .unwrap();
    });
}

//! How requests are carried to endpoints of the mesh: in the clear, or inside mutual TLS as which protocol.

use api::{MeshProtocol, TlsMode};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::identity::testing::{Ca, id};
use crate::inbound::tests::meshed;
use crate::io::Io;
use crate::testing::{Server, World, ask, forward, ok, request, run};

#[test]
fn under_disable_requests_to_the_mesh_go_out_in_the_clear() {
    run(async {
        let server = Server::start(|_, _| ok("read without TLS")).await;
        let ca = Ca::new();
        for (tls, told) in [
            (TlsMode::Disable, (200, "")),
            (TlsMode::Auto, (503, "connect_timeout")),
            (TlsMode::Mutual, (503, "connect_timeout")),
        ] {
            let cluster = meshed(server.address, &id("reviews"), |spec| {
                spec.tls = tls.clone();
                // The server goes on waiting for the end of a head, which a TLS hello has not.
                spec.connect_timeout = std::time::Duration::from_millis(300);
            });
            let snapshot = forward(None, &cluster, |f| f.retry.attempts = 0);
            let world = World::with(snapshot, ca.identity(&id("web")), |_| {});
            let got = ask(&mut world.http1().await, request("GET", "/", "")).await;
            assert_eq!(got.told(), told, "{tls:?}");
        }
        assert_eq!(server.seen().len(), 1);
    });
}

#[test]
fn the_protocol_within_mutual_tls_is_that_of_the_application_and_the_policy() {
    run(async {
        let ca = Ca::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (agreed, mut protocols) = mpsc::unbounded_channel();
        let reviews = ca.identity(&id("reviews"));
        tokio::task::spawn_local(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (_stream, _, protocol) = reviews.accept(Io::from(stream), peer).await.unwrap();
                agreed.send(protocol).unwrap();
            }
        });
        for (http2, upgrade, expected) in [
            (false, true, MeshProtocol::Http1OverHttp2),
            (false, false, MeshProtocol::Http1),
            (true, true, MeshProtocol::Http2),
            (true, false, MeshProtocol::Http2),
        ] {
            let cluster = meshed(address, &id("reviews"), |spec| spec.upgrade_to_http2 = upgrade);
            let snapshot = forward(None, &cluster, |f| f.retry.attempts = 0);
            let world = World::with(snapshot, ca.identity(&id("web")), |_| {});
            if http2 {
                let mut app = world.http2().await;
                let _cut = app.send_request(request("GET", "http://reviews/", "")).await;
            } else {
                let mut app = world.http1().await;
                let _cut = app.send_request(request("GET", "/", "")).await;
            }
            assert_eq!(
                protocols.recv().await,
                Some(expected),
                "HTTP/2: {http2}, upgrade: {upgrade}"
            );
        }
    });
}

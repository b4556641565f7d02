//! What one connection that waits costs in memory of this process, from the task that serves it to the buffers of TLS and
//! HTTP: each kind has a bound here. The other ends live in a thread of their own, whose memory is not counted.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::{MeshProtocol, Protocol, TlsPolicy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalRuntime;

use super::Io;
use crate::identity::Identity;
use crate::identity::testing::{Ca, id};
use crate::inbound::tests::{meshed, takes};
use crate::testing::{SERVICE, World, cluster, forward};
use crate::{inbound, outbound};

/// Connections measured; one more is opened before, for what is made once.
const MANY: usize = 40;

fn runtime() -> LocalRuntime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build_local(Default::default()).unwrap()
}

/// Bytes of memory for each connection that `serve` serves, once `client` has said what it has to say on it.
fn weight<F>(
    serve: impl Fn(TcpStream) -> F + 'static,
    client: impl Fn(std::net::TcpStream) -> Box<dyn std::any::Any> + Send + Copy + 'static,
) -> u64
where
    F: Future<Output = ()> + 'static,
{
    weight_after(Duration::ZERO, serve, client)
}

/// The same, after nothing was said for some time.
fn weight_after<F>(
    silence: Duration,
    serve: impl Fn(TcpStream) -> F + 'static,
    client: impl Fn(std::net::TcpStream) -> Box<dyn std::any::Any> + Send + Copy + 'static,
) -> u64
where
    F: Future<Output = ()> + 'static,
{
    let runtime = runtime();
    let listener = runtime.block_on(async { TcpListener::bind("127.0.0.1:0").await.unwrap() });
    let address = listener.local_addr().unwrap();
    let serve = Rc::new(serve);
    runtime.block_on(async {
        let serve = Rc::clone(&serve);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream));
            }
        });
    });
    let open = |count: usize| {
        let (opened, is_open) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let dial = |_| client(std::net::TcpStream::connect(address).unwrap());
            let all: Vec<_> = (0..count).map(dial).collect();
            let _ = opened.send(());
            // They stay open to the end of the test.
            std::mem::forget(all);
        });
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), is_open)
                .await
                .expect("the clients are served in time")
                .expect("no client fails");
            tokio::time::pause();
            tokio::time::advance(silence / 2).await;
            turns().await;
            tokio::time::advance(silence / 2).await;
            tokio::time::resume();
            turns().await;
        });
    };
    open(1);
    let info = allocation_counter::measure(|| open(MANY));
    u64::try_from(info.bytes_current).expect("connections take memory") / MANY as u64
}

/// Lets everybody do what is due.
async fn turns() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Says hello as an application and waits for the answer.
fn greets(mut stream: std::net::TcpStream) -> Box<dyn std::any::Any> {
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    Box::new(stream)
}

/// Sends back what arrives, in a thread of its own; inside mutual TLS if it has an identity.
fn echo(identity: Option<Identity>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, peer)) = listener.accept().await {
                let identity = identity.clone();
                tokio::task::spawn_local(async move {
                    let mut io = Io::from(stream);
                    if let Some(identity) = identity {
                        io = identity.accept(io, peer).await.unwrap().0.into();
                    }
                    let mut bytes = [0; 64];
                    while let Ok(read @ 1..) = io.read(&mut bytes).await {
                        io.write_all(&bytes[..read]).await.unwrap();
                        io.flush().await.unwrap();
                    }
                });
            }
        });
    });
    address
}

/// Connections of the application.
fn outbound_weight(
    world: World,
    client: impl Fn(std::net::TcpStream) -> Box<dyn std::any::Any> + Send + Copy + 'static,
) -> u64 {
    outbound_weight_after(Duration::ZERO, world, client)
}

fn outbound_weight_after(
    silence: Duration,
    world: World,
    client: impl Fn(std::net::TcpStream) -> Box<dyn std::any::Any> + Send + Copy + 'static,
) -> u64 {
    let serve = move |stream: TcpStream| {
        let peer = stream.peer_addr().unwrap();
        outbound::serve_io(Rc::clone(&world.worker), Io::from(stream), peer, SERVICE)
    };
    weight_after(silence, serve, client)
}

#[track_caller]
fn at_most(bound: u64, weight: u64) {
    assert!(
        weight <= bound,
        "{weight} bytes for one connection, more than {bound}"
    );
    assert!(
        weight > bound / 2,
        "{weight} bytes: the bound of {bound} can be lowered"
    );
}

#[test]
fn an_opaque_connection_in_the_clear() {
    let cluster = cluster(&[echo(None)], |_| {});
    let world = World::new(forward(Some(Protocol::Tcp), &cluster, |_| {}));
    at_most(4 * 1024, outbound_weight(world, greets));
}

#[test]
fn an_opaque_connection_that_this_side_puts_into_tls() {
    let ca = Ca::new();
    let cluster = meshed(echo(Some(ca.identity(&id("reviews")))), &id("reviews"), |_| {});
    let snapshot = forward(Some(Protocol::Tcp), &cluster, |_| {});
    let world = World::with(snapshot, ca.identity(&id("web")), |_| {});
    at_most(8 * 1024, outbound_weight(world, greets));
}

#[test]
fn an_http1_connection_between_two_requests() {
    let asks = |mut stream: std::net::TcpStream| -> Box<dyn std::any::Any> {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n")
            .unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        Box::new(stream)
    };
    let world = || World::new(forward(Some(Protocol::Http1), &cluster(&[], |_| {}), |_| {}));
    // hyper's two buffers of 8 KiB, of which a short message touches half, and the room of a request under way.
    at_most(32 * 1024, outbound_weight(world(), asks));
    // Nothing of that while no request comes.
    at_most(
        4 * 1024,
        outbound_weight_after(Duration::from_secs(5), world(), asks),
    );
}

#[test]
fn an_http2_connection_without_a_request() {
    let world = World::new(forward(Some(Protocol::Http2), &cluster(&[], |_| {}), |_| {}));
    let begins = |mut stream: std::net::TcpStream| -> Box<dyn std::any::Any> {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        Box::new(stream)
    };
    // A buffer of 16 KiB and one of 8 KiB are those of h2.
    at_most(34 * 1024, outbound_weight(world, begins));
}

#[test]
fn a_connection_of_a_mesh_peer() {
    for (protocol, bound) in [(MeshProtocol::Tcp, 8 * 1024), (MeshProtocol::Http2, 38 * 1024)] {
        let ca = Ca::new();
        let web = Arc::new(ca.identity(&id("web")));
        let pod = World::with(takes(TlsPolicy::Strict), ca.identity(&id("reviews")), |_| {});
        let application = echo(None);
        let serve = move |stream: TcpStream| {
            let peer = stream.peer_addr().unwrap();
            inbound::serve_io(Rc::clone(&pod.worker), Io::from(stream), peer, application)
        };
        let web: &'static Identity = Box::leak(Box::new(Identity::clone(&web)));
        let says: &'static [u8] = match protocol {
            MeshProtocol::Tcp => b"hello",
            _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        };
        let client = move |stream: std::net::TcpStream| -> Box<dyn std::any::Any> {
            stream.set_nonblocking(true).unwrap();
            let runtime = runtime();
            let io = runtime.block_on(async {
                let io = Io::from(TcpStream::from_std(stream).unwrap());
                let io = web
                    .connect(io, &id("reviews"), application, protocol)
                    .await
                    .unwrap();
                let mut io = Io::from(io);
                io.write_all(says).await.unwrap();
                io.flush().await.unwrap();
                assert!(io.read(&mut [0; 64]).await.unwrap() > 0);
                io
            });
            Box::new((io, runtime))
        };
        at_most(bound, weight(serve, client));
    }
}

#[test]
fn what_is_rare_is_not_in_the_task_of_every_connection() {
    let world = World::new(forward(None, &cluster(&[], |_| {}), |_| {}));
    let (stream, _other) = tokio::io::duplex(1);
    let outgoing = outbound::serve_io(Rc::clone(&world.worker), stream.into(), SERVICE, SERVICE);
    let (stream, _other) = tokio::io::duplex(1);
    let incoming = inbound::serve_io(Rc::clone(&world.worker), stream.into(), SERVICE, SERVICE);
    let sizes = (size_of_val(&outgoing), size_of_val(&incoming));
    assert!(sizes.0 <= 704 && sizes.1 <= 1152, "{sizes:?}");
}

//! Servers that are told who calls, by a PROXY header.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use api::{Protocol, ProxyProtocol, TlsMode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::io::Io;
use crate::originate::testing::{Authority, Folder, server_config};
use crate::testing::{SERVICE, World, ask, client1, cluster, forward, request, run};

/// A server of HTTP/1.1 that wants a header of text; the headers it got.
async fn server() -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let headers = Rc::<RefCell<Vec<String>>>::default();
    let log = Rc::clone(&headers);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Rc::clone(&log);
            tokio::task::spawn_local(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                log.borrow_mut().push(line.clone());
                line.clear();
                while stream.read_line(&mut line).await.unwrap() > 0 {
                    if line == "\r\n" {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        stream.write_all(answer).await.unwrap();
                    }
                    line.clear();
                }
            });
        }
    });
    (address, headers)
}

fn world(address: SocketAddr, protocol: Protocol, version: ProxyProtocol, tls: TlsMode) -> World {
    let cluster = cluster(&[address], |spec| {
        spec.proxy_protocol = Some(version);
        spec.tls = tls;
    });
    World::new(forward(Some(protocol), &cluster, |_| {}))
}

#[test]
fn clients_never_share_a_connection() {
    run(async {
        let (address, headers) = server().await;
        let world = world(address, Protocol::Http1, ProxyProtocol::V1, TlsMode::Disable);
        let mut apps = Vec::new();
        for client in ["10.0.0.9:1", "10.0.0.9:2"] {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let client = client.parse().unwrap();
            let serving =
                crate::outbound::serve_io(Rc::clone(&world.worker), Io::from(theirs), client, SERVICE);
            tokio::task::spawn_local(serving);
            apps.push(client1(ours).await);
        }
        for _ in 0..2 {
            for app in &mut apps {
                assert_eq!(ask(app, request("GET", "/", "")).await.status, 200);
            }
        }
        let told = |port| format!("PROXY TCP4 10.0.0.9 10.96.0.1 {port} 80\r\n");
        assert_eq!(*headers.borrow(), [told(1), told(2)], "one connection for each");
    });
}

#[test]
fn bytes_are_announced_too() {
    run(async {
        let (address, headers) = server().await;
        let world = world(address, Protocol::Tcp, ProxyProtocol::V1, TlsMode::Disable);
        let mut app = world.dial(SERVICE);
        app.write_all(b"\r\n").await.unwrap();
        let mut answer = [0; 15];
        app.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        assert_eq!(*headers.borrow(), ["PROXY TCP4 10.0.0.9 10.96.0.1 41000 80\r\n"]);
    });
}

#[test]
fn the_header_comes_before_tls() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let config = server_config(&authority.sign(&["reviews.shop"], |_| {}), None, &[]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut header = [0; 28];
            stream.read_exact(&mut header).await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
            header
        });
        let tls = TlsMode::Originate(Arc::new(folder.trusting(&authority)));
        let world = world(address, Protocol::Tcp, ProxyProtocol::V2, tls);
        let mut app = world.dial(SERVICE);
        let mut greeting = [0; 5];
        app.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello");
        assert_eq!(
            &server.await.unwrap()[12..],
            [0x21, 0x11, 0, 12, 10, 0, 0, 9, 10, 96, 0, 1, 0xA0, 0x28, 0, 80]
        );
    });
}

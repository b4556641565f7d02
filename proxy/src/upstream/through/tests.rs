//! Tunnels with scripted proxies over in-memory streams, and with hyper as the proxy.

use std::convert::Infallible;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::service::service_fn;
use proptest::prelude::*;
use tokio::time::timeout;

use super::*;
use crate::testing::run;

const ENDPOINT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3128);

fn tunnel(method: TunnelMethod, host: &str) -> Tunnel {
    Tunnel {
        method,
        host: host.to_owned(),
        port: 443,
    }
}

/// What comes of a CONNECT that is answered with these pieces, and what the proxy was asked.
async fn answered(host: &str, pieces: &'static [&'static str]) -> (Result<Io, Error>, String) {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let proxy = tokio::task::spawn_local(async move {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            far.read_buf(&mut asked).await.unwrap();
        }
        for piece in pieces {
            far.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        String::from_utf8(asked).unwrap()
    });
    let opened = open(Io::from(near), &tunnel(TunnelMethod::Connect, host), ENDPOINT).await;
    (opened, proxy.await.unwrap())
}

#[test]
fn connect_names_the_target_and_leaves_what_follows_the_answer() {
    run(async {
        for (host, named) in [
            ("far.example", "far.example:443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
        ] {
            let answer = &[
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2",
                "00 Connection established\r\nvia: x\r\n\r\n220 ",
                "mail",
            ];
            let (opened, asked) = answered(host, answer).await;
            assert_eq!(
                asked,
                format!("CONNECT {named} HTTP/1.1\r\nHost: {named}\r\n\r\n")
            );
            let mut first = String::new();
            opened.unwrap().read_to_string(&mut first).await.unwrap();
            assert_eq!(first, "220 mail");
        }
    });
}

#[test]
fn a_tunnel_that_does_not_come_about_is_a_failed_connection_that_says_why() {
    run(async {
        let endless: &'static str =
            Box::leak(format!("HTTP/1.1 200 {}", "x".repeat(20 << 10)).into_boxed_str());
        let endless: &'static [&'static str] = Box::leak(Box::new([endless]));
        for (pieces, words) in [
            (&["HTTP/1.1 403 Forbidden\r\n\r\n"][..], "refused with status 403"),
            (
                &["HTTP/1.1 101 Switching Protocols\r\n\r\n"],
                "refused with status 101",
            ),
            (&["HTTP/1.1 407\r\n\r\n"], "refused with status 407"),
            (&["HTTP/1.1 2000 OK\r\n\r\n"], "has no status"),
            (&["SSH-2.0-x\r\n"], "is none"),
            (&["HTTP/1.1 200 OK\r\n"], "unexpected end of file"),
            (&[], "unexpected end of file"),
            (endless, "has no end within 16 KiB"),
        ] {
            let (opened, _) = answered("far.example", pieces).await;
            let error = opened.unwrap_err();
            assert!(matches!(error, Error::Connect { .. }) && error.is_unsent());
            let said = error.to_string();
            assert!(
                said.contains("no tunnel to far.example:443") && said.contains(words),
                "{said}"
            );
        }
    });
}

/// A proxy that takes a POST and sends back what its body has; any other request is refused.
async fn posting(far: DuplexStream) {
    let answer = service_fn(|request: Request<Incoming>| async move {
        let is_it = request.method() == "POST"
            && request.uri() == "/"
            && request.headers()["host"] == "far.example:443";
        let mut response = Response::new(if is_it {
            Either::Left(request.into_body())
        } else {
            Either::Right(Full::from("not here"))
        });
        if !is_it {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        Ok::<_, Infallible>(response)
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(far), answer)
        .await;
}

#[test]
fn post_carries_bytes_in_both_directions_at_once() {
    run(async {
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::task::spawn_local(posting(far));
        let opened = open(
            Io::from(near),
            &tunnel(TunnelMethod::Post, "far.example"),
            ENDPOINT,
        )
        .await;
        let mut io = opened.unwrap();
        for piece in ["first", "second"] {
            io.write_all(piece.as_bytes()).await.unwrap();
            let mut echoed = vec![0; piece.len()];
            io.read_exact(&mut echoed).await.unwrap();
            assert_eq!(echoed, piece.as_bytes());
        }
        let large = vec![7; 1 << 20];
        let (mut from, mut to) = tokio::io::split(io);
        let sent = large.clone();
        tokio::task::spawn_local(async move {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        });
        let mut echoed = Vec::new();
        timeout(Duration::from_secs(10), from.read_to_end(&mut echoed))
            .await
            .unwrap()
            .unwrap();
        assert!(
            echoed == large,
            "the end of one direction is the end of the other"
        );
    });
}

#[test]
fn what_is_cut_at_one_end_of_a_post_is_no_whole_at_the_other() {
    run(async {
        for is_whole in [true, false] {
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let proxy = tokio::task::spawn_local(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    far.read_buf(&mut asked).await.unwrap();
                }
                far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
                    .await
                    .unwrap();
                if is_whole {
                    far.write_all(b"0\r\n\r\n").await.unwrap();
                }
            });
            let mut io = open(Io::from(near), &tunnel(TunnelMethod::Post, "x"), ENDPOINT)
                .await
                .unwrap();
            proxy.await.unwrap();
            let mut got = Vec::new();
            let ended = io.read_to_end(&mut got).await;
            assert_eq!(got, b"abc");
            match ended {
                Ok(_) => assert!(is_whole),
                Err(error) => assert_eq!((error.kind(), is_whole), (io::ErrorKind::ConnectionReset, false)),
            }
        }
        for is_whole in [true, false] {
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let proxy = tokio::task::spawn_local(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    far.read_buf(&mut asked).await.unwrap();
                }
                far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    .await
                    .unwrap();
                // The end of the body keeps the connection open: it is all that is waited for.
                while !asked.ends_with(b"0\r\n\r\n") && far.read_buf(&mut asked).await.unwrap() > 0 {}
                asked
            });
            let mut io = open(Io::from(near), &tunnel(TunnelMethod::Post, "x"), ENDPOINT)
                .await
                .unwrap();
            io.write_all(b"part").await.unwrap();
            if !is_whole {
                io.abort();
            }
            drop(io);
            let asked = timeout(Duration::from_secs(10), proxy).await.unwrap().unwrap();
            let asked = String::from_utf8(asked).unwrap();
            let ended = asked.ends_with("4\r\npart\r\n0\r\n\r\n");
            assert_eq!(ended, is_whole, "{asked}");
            assert_eq!(asked.contains("\r\n0\r\n"), is_whole, "{asked}");
        }
    });
}

#[test]
fn a_post_that_is_refused_is_a_failed_connection() {
    run(async {
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::task::spawn_local(posting(far));
        let opened = open(
            Io::from(near),
            &tunnel(TunnelMethod::Post, "other.example"),
            ENDPOINT,
        )
        .await;
        let said = opened.unwrap_err().to_string();
        assert!(
            said.contains("no tunnel to other.example:443: it was refused with status 403"),
            "{said}"
        );
    });
}

proptest! {
    /// No bytes are too strange, and a head that is found is the same however little came with it.
    #[test]
    fn any_bytes_are_a_head_or_none(start in "(HTTP/1\\.[01] ?)?", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut all = start.into_bytes();
        all.extend(bytes);
        all.extend(b"\r\n\r\nrest");
        if let Ok(Some(found)) = head(&all) {
            prop_assert!(found.length <= all.len() && (100..600).contains(&found.status));
            prop_assert_eq!(head(&all[..found.length]).unwrap(), Some(found));
        }
        for end in 0..all.len() {
            let _ = head(&all[..end]);
        }
    }
}

//! Heads that are made to be read in two ways, or in none: none of them reaches an endpoint, from either side.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::config::snapshot::Snapshot;
use crate::testing::{SERVICE, Server, World, cluster, forward, ok, run};

/// What comes back until the connection ends.
async fn told(mut io: DuplexStream, bytes: &[u8]) -> String {
    // A peer that closes early is an answer as well.
    let _ = io.write_all(bytes).await;
    let mut got = Vec::new();
    let all = async { while matches!(io.read_buf(&mut got).await, Ok(n) if n > 0) {} };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), all).await;
    let got = String::from_utf8_lossy(&got).into_owned();
    assert!(ended.is_ok(), "stays open after {got:?}");
    got
}

fn bad_heads() -> Vec<(&'static str, Vec<u8>)> {
    let head = |lines: &str| format!("GET / HTTP/1.1\r\nconnection: close\r\n{lines}\r\n").into_bytes();
    let many: String = (0..300).map(|n| format!("x-{n}: 1\r\n")).collect();
    vec![
        ("two hosts", head("host: reviews\r\nhost: other\r\n")),
        ("no host", head("")),
        ("a host that is none", head("host: a b\r\n")),
        ("folded", head("host: reviews\r\nx-folded: 1\r\n  2\r\n")),
        ("NUL", head("host: reviews\r\nx-nul: a\0b\r\n")),
        ("a bare CR", head("host: reviews\r\nx-cr: a\rb\r\n")),
        ("a space before the colon", head("host : reviews\r\n")),
        ("a name with a space", head("host: reviews\r\ncontent length: 5\r\n")),
        ("300 headers", head(&format!("host: reviews\r\n{many}"))),
        ("100 KiB", head(&format!("host: reviews\r\nx-long: {}\r\n", "a".repeat(100 << 10)))),
        (
            "two lengths",
            b"POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!".to_vec(),
        ),
        (
            "a length with a sign",
            b"POST / HTTP/1.1\r\nhost: reviews\r\ncontent-length: +5\r\n\r\nhello".to_vec(),
        ),
        (
            "a coding that is none",
            b"POST / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "chunked, but not last",
            b"POST / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "a coding besides chunked",
            b"POST / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: gzip, chunked\r\nconnection: close\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "codings in two lines",
            b"POST / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n"
                .to_vec(),
        ),
        (
            "chunked in HTTP/1.0",
            b"POST / HTTP/1.0\r\nhost: reviews\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
    ]
}

#[test]
fn heads_that_can_be_misread_are_refused_on_their_way_out_and_in() {
    run(async {
        let server = Server::start(|_, _| ok("reached")).await;
        let snapshot = Snapshot {
            inbound: Some(crate::inbound::tests::inbound(api::TlsPolicy::Permissive)),
            ..forward(None, &cluster(&[server.address], |_| {}), |_| {})
        };
        let world = World::new(snapshot);
        for (what, bytes) in bad_heads() {
            for io in [world.dial(SERVICE), world.arrive(server.address)] {
                let got = told(io, &bytes).await;
                let refused = got.is_empty()
                    || got.starts_with("HTTP/1.1 400")
                    || got.starts_with("HTTP/1.0 400")
                    || got.starts_with("HTTP/1.1 431");
                assert!(refused, "{what}: {got}");
                assert!(server.seen().is_empty(), "{what}: reached the endpoint");
            }
        }
    });
}

#[test]
fn a_body_with_length_and_chunks_is_read_by_its_chunks_and_nothing_follows_it() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let snapshot = Snapshot {
            inbound: Some(crate::inbound::tests::inbound(api::TlsPolicy::Permissive)),
            ..forward(None, &cluster(&[server.address], |_| {}), |_| {})
        };
        let world = World::new(snapshot);
        let both = [
            "content-length: 4\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 4",
        ];
        let mut expected = 0;
        for lines in both {
            for io in [world.dial(SERVICE), world.arrive(server.address)] {
                let bytes = format!(
                    "POST /first HTTP/1.1\r\nhost: reviews\r\n{lines}\r\n\r\n0\r\n\r\n\
                     GET /smuggled HTTP/1.1\r\nhost: reviews\r\n\r\n"
                );
                let got = told(io, bytes.as_bytes()).await;
                assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{got}");
                expected += usize::from(got.starts_with("HTTP/1.1 200"));
                let seen = server.seen();
                assert_eq!(seen.len(), expected);
                for seen in seen {
                    assert_eq!(seen.line(), "POST /first HTTP/1.1");
                    let framed = [seen.header("content-length"), seen.header("transfer-encoding")];
                    assert_eq!(framed.iter().flatten().count(), 1, "{}", seen.head);
                }
            }
        }
    });
}

#[test]
fn an_absolute_target_goes_in_origin_form_to_the_host_it_names() {
    run(async {
        let server = Server::start(|_, _| ok("")).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let bytes = b"GET http://target:81/path?q HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n";
        let got = told(world.dial(SERVICE), bytes).await;
        assert!(got.starts_with("HTTP/1.1 200"), "{got}");
        let seen = &server.seen()[0];
        assert_eq!(seen.line(), "GET /path?q HTTP/1.1");
        assert_eq!(seen.header("host"), Some("target:81"));
    });
}

#[test]
fn http10_without_a_host_gets_the_address_it_dialled() {
    run(async {
        let server = Server::start(|_, _| ok("body")).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let got = told(world.dial(SERVICE), b"GET / HTTP/1.0\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.0 200") && got.ends_with("body"), "{got}");
        assert_eq!(server.seen()[0].line(), "GET / HTTP/1.1");
        assert_eq!(server.seen()[0].header("host"), Some("10.96.0.1:80"));
    });
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    run(async {
        let server = Server::start(|_, seen| ok(seen.line())).await;
        let world = World::new(forward(None, &cluster(&[server.address], |_| {}), |_| {}));
        let all: String = (0..3)
            .map(|n| (n, if n == 2 { "connection: close\r\n" } else { "" }))
            .map(|(n, last)| format!("GET /{n} HTTP/1.1\r\nhost: reviews\r\n{last}\r\n"))
            .collect();
        let got = told(world.dial(SERVICE), all.as_bytes()).await;
        let order: Vec<_> = (0..3).map(|n| got.find(&format!("GET /{n} ")).unwrap()).collect();
        assert!(order.is_sorted(), "{got}");
    });
}

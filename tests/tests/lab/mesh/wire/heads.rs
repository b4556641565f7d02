//! HTTP/1.1 heads: malformed, ambiguous, oversized.

use std::sync::Arc;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::lab::Lab;

use super::super::group::Group;
use super::super::raw::{self, End};
use super::{ANSWERED, SERVER, Side, now, unharmed};

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial("a malformed head is answered with 400 and closed", malformed),
        group.trial("a request whose end is ambiguous is never passed on", ambiguous),
        group.trial(
            "a request with both lengths is read by one rule alone, and is the last of its connection",
            both_lengths,
        ),
        group.trial(
            "an oversized head is answered with 431 or 414 and closed",
            oversized,
        ),
        group.trial(
            "a body that breaks its own framing ends the connection",
            bad_bodies,
        ),
        group.trial("what is odd but allowed is passed on unchanged", allowed),
    ]
}

async fn requests(lab: &Lab) -> anyhow::Result<u64> {
    Ok(lab.app(SERVER).counters().await?.requests)
}

/// Sends each head on both sides; each must be answered with one of `statuses`, or closed without a word, and no
/// request may reach the application.
async fn refused(lab: &Lab, cases: &[(&str, Vec<u8>)], statuses: &[u16]) -> anyhow::Result<()> {
    let before = now(lab)?;
    let arrived = requests(lab).await?;
    for side in Side::BOTH {
        for (name, bytes) in cases {
            let mut stream = side.dial(lab, 8080).await?;
            let heard = raw::say(&mut stream, bytes, ANSWERED).await;
            ensure!(
                heard.end == End::Closed,
                "{side:?}, {name}: held open; said {:?}",
                heard.text()
            );
            match heard.status() {
                Some(status) => ensure!(statuses.contains(&status), "{side:?}, {name}: {}", heard.text()),
                None => ensure!(heard.bytes.is_empty(), "{side:?}, {name}: {:?}", heard.text()),
            }
            let more = requests(lab).await? - arrived;
            ensure!(
                more == 0,
                "{side:?}, {name}: {more} requests reached the application"
            );
        }
    }
    unharmed(lab, &before).await
}

async fn malformed(lab: &Lab) -> anyhow::Result<()> {
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nhost: reviews\r\n{fields}\r\n\r\n").into_bytes();
    let cases = [
        ("no version", b"GET /\r\n\r\n".to_vec()),
        (
            "an unknown version",
            b"GET / HTTP/9.9\r\nhost: reviews\r\n\r\n".to_vec(),
        ),
        (
            "a space in the path",
            b"GET /a b HTTP/1.1\r\nhost: reviews\r\n\r\n".to_vec(),
        ),
        (
            "a control byte in the method",
            b"GE\x01T / HTTP/1.1\r\nhost: reviews\r\n\r\n".to_vec(),
        ),
        ("no name", head(": value")),
        ("a space before the colon", head("x-a : value")),
        ("no colon", head("nonsense")),
        ("NUL in a value", head("x-a: b\0c")),
        ("NUL in a name", head("x\0a: b")),
        ("a bare CR in a value", head("x-a: b\rc: d")),
        ("obs-fold", head("x-a: b\r\n c")),
        // Where they end is certain, so that the connection could go on.
        ("no host", b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec()),
        ("two hosts", head("connection: close\r\nhost: other")),
        (
            "a host that is none",
            b"GET / HTTP/1.1\r\nconnection: close\r\nhost: a b\r\n\r\n".to_vec(),
        ),
    ];
    refused(lab, &cases, &[400]).await
}

async fn ambiguous(lab: &Lab) -> anyhow::Result<()> {
    // A second request hides in the body of the first; whoever reads the lengths differently sees it.
    let hidden = "GET /hidden HTTP/1.1\r\nhost: reviews\r\n\r\n";
    let post = |fields: &str, body: &str| {
        format!("POST /echo HTTP/1.1\r\nhost: reviews\r\n{fields}\r\n\r\n{body}").into_bytes()
    };
    let length = hidden.len();
    let cases = [
        (
            "two lengths",
            post(&format!("content-length: {length}\r\ncontent-length: 0"), hidden),
        ),
        ("two lengths in one", post("content-length: 0, 5", hidden)),
        ("a negative length", post("content-length: -1", hidden)),
        ("a length with a sign", post("content-length: +3", hidden)),
        ("a length in hex", post("content-length: 0x10", hidden)),
        (
            "a length beyond counting",
            post("content-length: 99999999999999999999999", hidden),
        ),
        (
            "an unknown coding",
            post("transfer-encoding: identity, xchunked", hidden),
        ),
        (
            "chunked is not last",
            post("transfer-encoding: chunked, gzip", hidden),
        ),
        (
            "chunked behind a tab",
            post("transfer-encoding:\x0bchunked", hidden),
        ),
        ("a coding in HTTP/1.0", {
            let text = "POST /echo HTTP/1.0\r\nhost: reviews\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
            format!("{text}{hidden}").into_bytes()
        }),
        ("a space in the name", post("content-length : 5", hidden)),
    ];
    refused(lab, &cases, &[400, 411, 501]).await
}

/// Both lengths at once: RFC 9112, 6.3, lets a server refuse it, or read it by the coding alone and close behind it.
async fn both_lengths(lab: &Lab) -> anyhow::Result<()> {
    let hidden = "GET /hidden HTTP/1.1\r\nhost: reviews\r\n\r\n";
    for side in Side::BOTH {
        for fields in [
            format!(
                "content-length: {}\r\ntransfer-encoding: chunked",
                hidden.len() + 5
            ),
            "transfer-encoding: chunked\r\ncontent-length: 4".to_owned(),
        ] {
            let text = format!("POST /echo HTTP/1.1\r\nhost: reviews\r\n{fields}\r\n\r\n0\r\n\r\n{hidden}");
            let mut stream = side.dial(lab, 8080).await?;
            let heard = raw::say(&mut stream, text.as_bytes(), ANSWERED).await;
            ensure!(
                heard.end == End::Closed,
                "{side:?}, {fields}: held open; {:?}",
                heard.text()
            );
            ensure!(
                heard.text().matches("HTTP/1.1 ").count() == 1,
                "{side:?}, {fields}: {}",
                heard.text()
            );
            if heard.status() != Some(400) {
                let seen = lab.app(SERVER).requests().await?;
                let last = seen.last().context("nothing arrived")?;
                ensure!(
                    last.path == "/echo" && !last.headers.contains_key("content-length"),
                    "{last:?}"
                );
            }
        }
    }
    let seen = lab.app(SERVER).requests().await?;
    ensure!(
        !seen.iter().any(|seen| seen.path == "/hidden"),
        "a hidden request was passed on"
    );
    Ok(())
}

async fn oversized(lab: &Lab) -> anyhow::Result<()> {
    let long = "x".repeat(200 * 1024);
    let many: String = (0..5_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let cases = [
        (
            "a long value",
            format!("GET / HTTP/1.1\r\nhost: reviews\r\nx-long: {long}\r\n\r\n").into_bytes(),
        ),
        (
            "a long name",
            format!("GET / HTTP/1.1\r\nhost: reviews\r\n{long}: x\r\n\r\n").into_bytes(),
        ),
        (
            "a long path",
            format!("GET /{long} HTTP/1.1\r\nhost: reviews\r\n\r\n").into_bytes(),
        ),
        (
            "many fields",
            format!("GET / HTTP/1.1\r\nhost: reviews\r\n{many}\r\n").into_bytes(),
        ),
        (
            "no end",
            format!("GET / HTTP/1.1\r\nhost: reviews\r\nx-long: {}", long.repeat(20)).into_bytes(),
        ),
    ];
    refused(lab, &cases, &[431, 414]).await
}

async fn bad_bodies(lab: &Lab) -> anyhow::Result<()> {
    let before = now(lab)?;
    for side in Side::BOTH {
        for (name, body) in [
            ("a chunk size that is none", "zz\r\nhello\r\n0\r\n\r\n"),
            ("a chunk size beyond counting", "fffffffffffffffff\r\nhello"),
            ("a chunk longer than it says", "3\r\nhello\r\n0\r\n\r\n"),
            ("an endless chunk extension", ""),
        ] {
            let mut bytes =
                b"POST /echo HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            if body.is_empty() {
                bytes.extend(b"5;");
                bytes.extend(vec![b'x'; 300 * 1024]);
            } else {
                bytes.extend(body.as_bytes());
            }
            bytes.extend(b"GET /hidden HTTP/1.1\r\nhost: reviews\r\n\r\n");
            let mut stream = side.dial(lab, 8080).await?;
            let heard = raw::say(&mut stream, &bytes, ANSWERED).await;
            ensure!(
                heard.end == End::Closed,
                "{side:?}, {name}: held open; said {:?}",
                heard.text()
            );
        }
    }
    let seen = lab.app(SERVER).requests().await?;
    ensure!(
        !seen.iter().any(|seen| seen.path == "/hidden"),
        "what stood in a body was taken for a request"
    );
    unharmed(lab, &before).await
}

async fn allowed(lab: &Lab) -> anyhow::Result<()> {
    for side in Side::BOTH {
        for (name, bytes) in [
            (
                "bare line feeds",
                &b"GET /odd HTTP/1.1\nhost: reviews\nconnection: close\n\n"[..],
            ),
            (
                "empty lines before",
                b"\r\nGET /odd HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n",
            ),
            (
                "an unknown method",
                b"BREW /odd HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n",
            ),
            (
                "an absolute URL",
                b"GET http://reviews/odd HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n",
            ),
            (
                "an empty value",
                b"GET /odd HTTP/1.1\r\nhost: reviews\r\nx-empty:\r\nconnection: close\r\n\r\n",
            ),
            (
                "obs-text",
                b"GET /odd HTTP/1.1\r\nhost: reviews\r\nx-a: \xe9\r\nconnection: close\r\n\r\n",
            ),
        ] {
            let mut stream = side.dial(lab, 8080).await?;
            let heard = raw::say(&mut stream, bytes, ANSWERED).await;
            // A proxy may be stricter than it must, but then it says so.
            ensure!(
                heard.end == End::Closed && matches!(heard.status(), Some(200 | 400)),
                "{side:?}, {name}: {:?} {}",
                heard.end,
                heard.text()
            );
            if heard.status() == Some(200) {
                ensure!(
                    heard.text().contains("/odd"),
                    "{side:?}, {name}: {}",
                    heard.text()
                );
            }
        }
    }
    Ok(())
}

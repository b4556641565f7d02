//! HTTP/1.1 and what surrounds it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper_util::rt::TokioIo;
use libtest_mimic::Trial;
use tests::app::Answer;
use tests::client::{Call, Protocol};
use tests::lab::{Lab, eventually};
use tests::websocket::{Frame, Kind, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::super::group::Group;
use super::super::{SOON, raw, servers};
use super::{ask, warm};

const BIG: usize = 16 * 1024 * 1024;

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial("one HTTP/1.1 connection carries many requests", keep_alive),
        group.trial("HTTP/1.1 is found on a port that declares nothing", undeclared),
        group.trial("pipelined requests are answered in their order", pipelined),
        group.trial("chunks pass as they are made, both ways", chunked),
        group.trial("trailers pass both ways in both versions", trailers),
        group.trial(
            "100-continue comes from the server, or its refusal does",
            continues,
        ),
        group.trial("a WebSocket passes", websocket),
        group.trial("CONNECT opens a tunnel, or is refused by the server", connect),
        group.trial(
            "HEAD, 204 and 304 carry no body and keep the connection",
            bodiless,
        ),
        group.trial("an HTTP/1.0 client is served", http10),
        group.trial("16 MiB pass unchanged, both ways", big),
        group.trial("an application cannot speak for its proxy", own_words),
        group.trial("a client that hangs up is noticed by the server", hang_up),
    ]
}

async fn stream(lab: &Lab) -> anyhow::Result<BufReader<tokio::net::TcpStream>> {
    Ok(BufReader::new(lab.pod("web").connect("reviews:8080").await?))
}

async fn keep_alive(lab: &Lab) -> anyhow::Result<()> {
    warm(lab, "http://reviews:8080/").await?;
    let before = lab.app("reviews-v1-0").counters().await?;
    let mut session = lab.pod("web").session("reviews:8080", Protocol::Http1).await?;
    for number in 0..20 {
        let call = Call::get(&format!("http://reviews:8080/{number}?q")).header("x-one", "1");
        let reply = session.send(&call).await?;
        let answer: Answer = reply.json()?;
        ensure!(
            reply.version == http::Version::HTTP_11 && answer.request.http == "HTTP/1.1",
            "{answer:?}"
        );
        ensure!(answer.request.path == format!("/{number}?q"), "{answer:?}");
        ensure!(
            answer.request.host == "reviews:8080" && answer.request.headers["x-one"] == "1",
            "{answer:?}"
        );
    }
    let after = lab.app("reviews-v1-0").counters().await?;
    ensure!(after.requests == before.requests + 20, "{before:?} {after:?}");
    ensure!(
        after.accepted <= before.accepted + 1,
        "connections to the application are kept too: {before:?} {after:?}"
    );
    Ok(())
}

async fn undeclared(lab: &Lab) -> anyhow::Result<()> {
    let answer = ask(lab, "http://reviews:8081/x").await?;
    ensure!(
        answer.request.path == "/x" && answer.request.http == "HTTP/1.1",
        "{answer:?}"
    );
    ensure!(
        answer.request.headers.contains_key("x-hauberk-peer"),
        "it was carried as a request: {answer:?}"
    );
    Ok(())
}

async fn pipelined(lab: &Lab) -> anyhow::Result<()> {
    let mut stream = stream(lab).await?;
    let mut requests = String::new();
    for path in ["/delay/120", "/status/201", "/bytes/5", "/last"] {
        requests += &format!("GET {path} HTTP/1.1\r\nhost: reviews\r\n\r\n");
    }
    stream.write_all(requests.as_bytes()).await?;
    for (status, part) in [
        (200, "/delay/120"),
        (201, "/status/201"),
        (200, ""),
        (200, "/last"),
    ] {
        let answer = timeout(SOON, raw::answer(&mut stream, false)).await??;
        ensure!(
            answer.status == status && answer.text().contains(part),
            "wanted {part}: {answer:?}"
        );
    }
    Ok(())
}

async fn chunked(lab: &Lab) -> anyhow::Result<()> {
    let mut stream = stream(lab).await?;
    let head = "POST /echo HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(b"5\r\nfirst\r\n").await?;
    let head = timeout(SOON, raw::head(&mut stream))
        .await
        .context("no answer before the body's end")??;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    ensure!(
        head.to_ascii_lowercase().contains("transfer-encoding: chunked"),
        "{head}"
    );
    let first = timeout(SOON, raw::chunk(&mut stream))
        .await
        .context("the first chunk waits for more")??;
    ensure!(first.as_deref() == Some(b"first"), "{first:?}");
    stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await?;
    let second = timeout(SOON, raw::chunk(&mut stream)).await??;
    ensure!(second.as_deref() == Some(b"second"), "{second:?}");
    ensure!(timeout(SOON, raw::chunk(&mut stream)).await??.is_none());

    let whole = lab.pod("web").get("http://reviews:8080/chunked/7").await?;
    let expected: String = (0..7).map(|number| format!("chunk {number}\n")).collect();
    ensure!(whole.text() == expected, "{}", whole.text());
    Ok(())
}

async fn trailers(lab: &Lab) -> anyhow::Result<()> {
    let web = lab.pod("web");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let speak = |call: Call| match protocol {
            Protocol::Http1 => call,
            Protocol::Http2 => call.http2(),
        };
        let call = Call::get("http://reviews:8080/trailers").header("te", "trailers");
        let reply = web.send(speak(call)).await?;
        let fields = reply
            .trailers
            .clone()
            .with_context(|| format!("{protocol:?}: no trailers"))?;
        ensure!(
            fields["x-app-trailer"] == "kept" && reply.body == "before the trailers\n",
            "{reply:?}"
        );
        let call = Call::post("http://reviews:8080/echo", "body")
            .trailer("x-mine", "yes")
            .header("te", "trailers");
        let reply = web.send(speak(call)).await?;
        let fields = reply
            .trailers
            .clone()
            .with_context(|| format!("{protocol:?}: the request's trailers were lost: {reply:?}"))?;
        ensure!(fields["x-mine"] == "yes" && reply.body == "body", "{fields:?}");
    }
    Ok(())
}

async fn continues(lab: &Lab) -> anyhow::Result<()> {
    let mut stream = self::stream(lab).await?;
    let head = "POST /expect HTTP/1.1\r\nhost: reviews\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let interim = timeout(SOON, raw::answer(&mut stream, false))
        .await
        .context("nobody says continue")??;
    ensure!(interim.status == 100, "{interim:?}");
    stream.write_all(b"12345").await?;
    let last = timeout(SOON, raw::answer(&mut stream, false)).await??;
    ensure!(
        last.status == 200 && last.text().contains("\"received\":5"),
        "{last:?}"
    );

    let mut stream = self::stream(lab).await?;
    let head = head.replace("/expect ", "/expect/refuse ");
    stream.write_all(head.as_bytes()).await?;
    let refusal = timeout(SOON, raw::answer(&mut stream, false)).await??;
    ensure!(
        refusal.status == 417 && refusal.text() == "not wanted\n",
        "the server's refusal comes, and nobody asks for the body first: {refusal:?}"
    );
    Ok(())
}

async fn websocket(lab: &Lab) -> anyhow::Result<()> {
    for port in [8080, 8081] {
        let authority = format!("reviews:{port}");
        let mut session = lab.pod("web").session(&authority, Protocol::Http1).await?;
        let call = Call::get(&format!("http://{authority}/ws"))
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let response = timeout(SOON, session.start(&call)).await??;
        ensure!(response.status() == 101, "{response:?}");
        ensure!(response.headers()["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        ensure!(response.headers()["upgrade"] == "websocket", "{response:?}");
        let mut io = TokioIo::new(hyper::upgrade::on(response).await?);
        for (sent, expected) in [
            (Frame::new(Kind::Text, "hello"), Kind::Text),
            (Frame::new(Kind::Ping, "are you there"), Kind::Pong),
            (Frame::new(Kind::Binary, vec![7; 300_000]), Kind::Binary),
            (Frame::new(Kind::Close, vec![3, 232]), Kind::Close),
        ] {
            sent.write(&mut io, Side::Client).await?;
            let answer = timeout(SOON, Frame::read(&mut io))
                .await??
                .context("closed early")?;
            ensure!(answer == Frame::new(expected, sent.payload), "{:?}", answer.kind);
        }
        let end = timeout(SOON, Frame::read(&mut io))
            .await
            .context("the close does not arrive")?;
        ensure!(
            matches!(end, Ok(None)),
            "the connection closes after the close: {end:?}"
        );
    }
    let refused = lab.pod("web").get("http://reviews:8080/ws").await?;
    ensure!(
        refused.status == 426,
        "a request that does not upgrade is answered: {}",
        refused.status
    );
    Ok(())
}

async fn connect(lab: &Lab) -> anyhow::Result<()> {
    servers::each(lab, "own-v1-0", 8000, |stream| async move {
        let mut stream = BufReader::new(stream);
        let head = raw::head(&mut stream).await?;
        if !head.starts_with("CONNECT db.internal:5432 HTTP/1.1\r\n") {
            let refusal = "HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\n\r\nnot there\n";
            stream.write_all(refusal.as_bytes()).await?;
            return Ok(());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        bytes.make_ascii_uppercase();
        stream.write_all(&bytes).await?;
        Ok(())
    })
    .await?;
    let web = lab.pod("web");
    let mut stream = BufReader::new(web.connect("own:8000").await?);
    stream
        .write_all(b"CONNECT db.internal:5432 HTTP/1.1\r\nhost: db.internal:5432\r\n\r\n")
        .await?;
    let opened = timeout(SOON, raw::head(&mut stream)).await??;
    ensure!(opened.starts_with("HTTP/1.1 200"), "{opened}");
    stream.write_all(b"ping").await?;
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .context("the tunnel does not end")??;
    ensure!(rest == b"PING", "{rest:?}");

    let mut stream = BufReader::new(web.connect("own:8000").await?);
    stream
        .write_all(b"CONNECT elsewhere:1 HTTP/1.1\r\nhost: elsewhere:1\r\n\r\n")
        .await?;
    let refused = timeout(SOON, raw::answer(&mut stream, false)).await??;
    ensure!(
        refused.status == 403 && refused.text() == "not there\n",
        "{refused:?}"
    );
    Ok(())
}

async fn bodiless(lab: &Lab) -> anyhow::Result<()> {
    let mut stream = stream(lab).await?;
    for (method, path, status) in [
        ("HEAD", "/bytes/1000", 200),
        ("GET", "/status/204", 204),
        ("GET", "/status/304", 304),
        ("HEAD", "/status/404", 404),
        ("HEAD", "/chunked/3", 200),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: reviews\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let answer = timeout(SOON, raw::answer(&mut stream, method == "HEAD")).await??;
        ensure!(answer.status == status, "{method} {path}: {answer:?}");
        if path == "/bytes/1000" {
            ensure!(answer.header("content-length") == Some("1000"), "{answer:?}");
        }
        if status == 204 {
            ensure!(
                answer.header("content-length").is_none() && answer.header("transfer-encoding").is_none(),
                "{answer:?}"
            );
        }
        // Were a byte of a body sent, it would be taken for the next answer.
        stream
            .write_all(b"GET /next HTTP/1.1\r\nhost: reviews\r\n\r\n")
            .await?;
        let next = timeout(SOON, raw::answer(&mut stream, false)).await??;
        ensure!(
            next.status == 200 && next.text().contains("/next"),
            "after {method} {path}: {next:?}"
        );
    }
    Ok(())
}

async fn http10(lab: &Lab) -> anyhow::Result<()> {
    let web = lab.pod("web");
    let mut stream = web.connect("reviews:8080").await?;
    let heard = raw::say(&mut stream, b"GET /chunked/3 HTTP/1.0\r\n\r\n", SOON).await;
    ensure!(
        heard.end == raw::End::Closed && heard.status() == Some(200),
        "it ends with the connection: {}",
        heard.text()
    );
    let text = heard.text();
    ensure!(
        text.ends_with("\r\n\r\nchunk 0\nchunk 1\nchunk 2\n") && !text.to_lowercase().contains("chunked\r\n"),
        "an HTTP/1.0 client knows no chunks: {text}"
    );
    let mut stream = BufReader::new(web.connect("reviews:8080").await?);
    for number in 0..2 {
        let request = format!("GET /{number} HTTP/1.0\r\nhost: reviews\r\nconnection: keep-alive\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let answer = timeout(SOON, raw::answer(&mut stream, false)).await??;
        ensure!(
            answer.status == 200 && answer.text().contains(&format!("/{number}")),
            "{answer:?}"
        );
    }
    Ok(())
}

fn pattern() -> Vec<u8> {
    (0..BIG)
        .map(|at| u8::try_from(at % 251).expect("below 251"))
        .collect()
}

async fn big(lab: &Lab) -> anyhow::Result<()> {
    let web = lab.pod("web");
    let pattern = bytes::Bytes::from(pattern());
    for (name, call) in [
        (
            "a download",
            Call::get(&format!("http://reviews:8080/bytes/{BIG}")),
        ),
        (
            "a download over HTTP/2",
            Call::get(&format!("http://reviews:8080/bytes/{BIG}")).http2(),
        ),
        ("an echo", Call::post("http://reviews:8080/echo", pattern.clone())),
        (
            "an echo over HTTP/2",
            Call::post("http://reviews:8080/echo", pattern.clone()).http2(),
        ),
    ] {
        let reply = web
            .send(call.patience(Duration::from_secs(60)))
            .await
            .context(name)?;
        ensure!(reply.status == 200, "{name}: {}", reply.status);
        ensure!(
            reply.body == pattern,
            "{name}: {} bytes came, or others",
            reply.body.len()
        );
    }
    Ok(())
}

async fn own_words(lab: &Lab) -> anyhow::Result<()> {
    let connections = servers::each(lab, "own-v1-0", 8000, |stream| async move {
        let mut stream = BufReader::new(stream);
        raw::head(&mut stream).await?;
        let answer = "HTTP/1.1 503 Service Unavailable\r\nx-hauberk-reason: connect_failure\r\n\
                      content-length: 3\r\nconnection: close\r\n\r\napp";
        stream.write_all(answer.as_bytes()).await?;
        Ok(())
    })
    .await?;
    let reply = lab.pod("web").get("http://own:8000/").await?;
    ensure!(
        reply.status == 503 && reply.text() == "app" && reply.header("x-hauberk-reason").is_empty(),
        "{reply:?}"
    );
    let times = connections.load(std::sync::atomic::Ordering::Relaxed);
    ensure!(
        times == 1,
        "what the application said was believed: it was asked {times} times"
    );
    Ok(())
}

async fn hang_up(lab: &Lab) -> anyhow::Result<()> {
    let app = lab.app("reviews-v1-0");
    let before = app.counters().await?;
    let mut stream = stream(lab).await?;
    stream
        .write_all(b"GET /delay/60000 HTTP/1.1\r\nhost: reviews\r\n\r\n")
        .await?;
    eventually(SOON, "the request has arrived", async || {
        let now = app.counters().await?;
        ensure!(now.requests == before.requests + 1, "{now:?}");
        Ok(())
    })
    .await?;
    let open = app.counters().await?.open;
    drop(stream);
    eventually(SOON, "the server's connection is closed", async || {
        let now = app.counters().await?.open;
        ensure!(now < open, "{now} of {open} are open");
        Ok(())
    })
    .await
}

//! The test application, reached directly: what a later test sees differently is then the mesh's doing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use libtest_mimic::Trial;
use tests::app::{Answer, Mode};
use tests::client::{Call, CallError, Protocol};
use tests::grpc::{ERROR_TRAILER, EchoRequest};
use tests::lab::{
    GRPC_CONTROL_PORT, Lab, Pod, PortSpec, ServiceSpec, TCP_CONTROL_PORT, Workload, eventually, trial,
};
use tests::load::{Failure, Plan};
use tests::websocket::{Frame, Kind, Side};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_stream::StreamExt;

const SOON: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_http_app_says_who_it_is_in_both_versions", identity),
        trial("the_http_app_keeps_its_promises_on_every_path", paths),
        trial("the_http_app_echoes_bodies_with_trailers", trailers),
        trial("the_http_app_breaks_off_when_asked", breaks_off),
        trial("the_http_app_asks_to_continue", continues),
        trial("the_http_app_fails_as_told_and_counts", modes),
        trial("the_http_app_speaks_websocket", websocket),
        trial("the_http_app_ends_politely", ends_politely),
        trial("the_grpc_echo_answers_all_four_kinds_of_calls", grpc),
        trial("the_tcp_app_speaks_first_and_survives_half_close", tcp),
        trial("a_load_dates_a_change_and_counts_every_failure", load),
    ]
}

async fn http_lab() -> anyhow::Result<(Lab, Pod, String)> {
    let service = ServiceSpec::http("reviews").workload(Workload::new("v1", 1));
    let lab = Lab::builder()
        .service(service)
        .outsider("web")
        .without_mesh()
        .start()
        .await?;
    let web = lab.pod("web");
    let base = format!("http://{}", lab.pod("reviews-v1-0").address(8080));
    Ok((lab, web, base))
}

async fn identity() -> anyhow::Result<()> {
    let (lab, web, base) = http_lab().await?;
    for (call, version) in [
        (Call::get(&format!("{base}/a?b=c")), "HTTP/1.1"),
        (Call::get(&format!("{base}/a?b=c")).http2(), "HTTP/2.0"),
    ] {
        let reply = web
            .send(
                call.host("reviews.shop")
                    .header("x-one", "1")
                    .header("x-one", "2"),
            )
            .await?;
        let answer: Answer = reply.json()?;
        ensure!(
            (answer.service.as_str(), answer.version.as_str()) == ("reviews", "v1"),
            "{answer:?}"
        );
        ensure!(answer.pod == "reviews-v1-0" && reply.app_pod() == "reviews-v1-0");
        ensure!(
            answer.request.path == "/a?b=c" && answer.request.method == "GET",
            "{answer:?}"
        );
        ensure!(
            answer.request.http == version && answer.request.host == "reviews.shop",
            "{answer:?}"
        );
        ensure!(answer.request.headers["x-one"] == "1, 2", "{answer:?}");
        ensure!(answer.request.peer.ip() == web.ip(), "{answer:?}");
    }
    let seen = lab.app("reviews-v1-0").requests().await?;
    ensure!(
        seen.len() == 2 && seen[0].http == "HTTP/1.1" && seen[1].http == "HTTP/2.0",
        "{seen:?}"
    );
    Ok(())
}

async fn paths() -> anyhow::Result<()> {
    let (_lab, web, base) = http_lab().await?;
    for (path, status) in [
        ("/status/418", 418),
        ("/status/204", 204),
        ("/status/x", 400),
        ("/flaky/k/2", 503),
        ("/flaky/k/2", 503),
        ("/flaky/k/2", 200),
        ("/delay/nan", 400),
        ("/expect/refuse", 417),
        ("/ws", 426),
    ] {
        let reply = web.get(&format!("{base}{path}")).await?;
        ensure!(reply.status == status, "{path}: {}", reply.status);
    }
    let slow = web.get(&format!("{base}/delay/80")).await?;
    ensure!(slow.took >= Duration::from_millis(80), "{:?}", slow.took);
    let bytes = web.get(&format!("{base}/bytes/100000")).await?;
    let pattern = bytes
        .body
        .iter()
        .enumerate()
        .all(|(at, byte)| usize::from(*byte) == at % 251);
    ensure!(bytes.body.len() == 100_000 && bytes.header("content-length") == "100000" && pattern);
    let chunked = web.get(&format!("{base}/chunked/3")).await?;
    ensure!(
        chunked.header("transfer-encoding") == "chunked",
        "{:?}",
        chunked.headers
    );
    ensure!(
        chunked.text() == "chunk 0\nchunk 1\nchunk 2\n",
        "{:?}",
        chunked.text()
    );

    let mut session = web
        .session(base.trim_start_matches("http://"), Protocol::Http1)
        .await?;
    let mut body = session
        .start(&Call::get(&format!("{base}/chunked/3")))
        .await?
        .into_body();
    let first = body
        .frame()
        .await
        .context("no body")??
        .into_data()
        .ok()
        .context("no data")?;
    ensure!(first == "chunk 0\n", "pieces come as they are made: {first:?}");
    Ok(())
}

async fn trailers() -> anyhow::Result<()> {
    let (_lab, web, base) = http_lab().await?;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let speak = |call: Call| {
            if protocol == Protocol::Http2 {
                call.http2()
            } else {
                call
            }
        };
        let call = Call::get(&format!("{base}/trailers")).header("te", "trailers");
        let reply = web.send(speak(call)).await?;
        let fields = reply
            .trailers
            .with_context(|| format!("{protocol:?}: no trailers"))?;
        ensure!(fields["x-app-trailer"] == "kept" && reply.body == "before the trailers\n");
        let call = Call::post(&format!("{base}/echo"), "body")
            .trailer("x-mine", "yes")
            .header("te", "trailers");
        let reply = web.send(speak(call)).await?;
        let fields = reply
            .trailers
            .with_context(|| format!("{protocol:?}: no echoed trailers"))?;
        ensure!(fields["x-mine"] == "yes" && reply.body == "body", "{fields:?}");
    }
    Ok(())
}

async fn breaks_off() -> anyhow::Result<()> {
    let (_lab, web, base) = http_lab().await?;
    for call in [
        Call::get(&format!("{base}/close")),
        Call::get(&format!("{base}/close")).http2(),
    ] {
        let error = web
            .send(call)
            .await
            .err()
            .context("a broken answer was taken for a whole one")?;
        ensure!(
            matches!(error.downcast_ref(), Some(CallError::Broken(_))),
            "{error:?}"
        );
    }
    Ok(())
}

async fn continues() -> anyhow::Result<()> {
    let (lab, web, _) = http_lab().await?;
    let address = lab.pod("reviews-v1-0").address(8080);
    let mut stream = web.connect(&address.to_string()).await?;
    let head = "POST /expect HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next_line().await?.context("the connection closed")?;
    ensure!(first == "HTTP/1.1 100 Continue", "{first}");
    lines.get_mut().write_all(b"12345").await?;
    ensure!(
        lines.next_line().await?.as_deref() == Some(""),
        "the interim answer ends"
    );
    let last = lines.next_line().await?.context("the connection closed")?;
    ensure!(last == "HTTP/1.1 200 OK", "{last}");
    Ok(())
}

async fn modes() -> anyhow::Result<()> {
    let (lab, web, base) = http_lab().await?;
    let app = lab.app("reviews-v1-0");
    let fetch = || web.send(Call::get(&base).patience(Duration::from_millis(300)));
    app.mode(Mode::Fail(503)).await?;
    ensure!(fetch().await?.status == 503);
    app.mode(Mode::Slow(60)).await?;
    ensure!(fetch().await?.took >= Duration::from_millis(60));
    app.mode(Mode::Hang).await?;
    let error = fetch().await.err().context("it answered")?;
    ensure!(
        matches!(error.downcast_ref(), Some(CallError::Timeout(_))),
        "{error:?}"
    );
    app.mode(Mode::Reset).await?;
    let error = fetch().await.err().context("it answered")?;
    let text = error.to_string();
    ensure!(text.contains("reset"), "a reset, not a mere close: {text}");
    app.mode(Mode::Ok).await?;
    ensure!(fetch().await?.status == 200);
    let counters = app.counters().await?;
    ensure!(
        counters.requests == 5 && counters.failed == 3 && counters.accepted == 5,
        "{counters:?}"
    );
    eventually(SOON, "all connections are closed", async || {
        let open = app.counters().await?.open;
        ensure!(open == 0, "{open} are open");
        Ok(())
    })
    .await
}

async fn websocket() -> anyhow::Result<()> {
    let (_lab, web, base) = http_lab().await?;
    let authority = base.trim_start_matches("http://");
    let mut session = web.session(authority, Protocol::Http1).await?;
    let call = Call::get(&format!("{base}/ws"))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let response = session.start(&call).await?;
    ensure!(response.status() == 101, "{response:?}");
    ensure!(response.headers()["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let mut io = TokioIo::new(hyper::upgrade::on(response).await?);
    for (sent, expected) in [
        (Frame::new(Kind::Text, "hello"), Kind::Text),
        (Frame::new(Kind::Ping, "are you there"), Kind::Pong),
        (Frame::new(Kind::Binary, vec![7; 70_000]), Kind::Binary),
        (Frame::new(Kind::Close, vec![3, 232]), Kind::Close),
    ] {
        sent.write(&mut io, Side::Client).await?;
        let answer = Frame::read(&mut io).await?.context("closed early")?;
        ensure!(answer == Frame::new(expected, sent.payload), "{:?}", answer.kind);
    }
    ensure!(
        Frame::read(&mut io).await?.is_none(),
        "the connection closes after the close"
    );
    Ok(())
}

async fn ends_politely() -> anyhow::Result<()> {
    let (lab, web, base) = http_lab().await?;
    let call = Call::get(&format!("{base}/delay/400"));
    let under_way = tokio::spawn(async move { web.send(call).await });
    let app = lab.app("reviews-v1-0");
    eventually(SOON, "the call has arrived", async || {
        ensure!(app.counters().await?.requests == 1);
        Ok(())
    })
    .await?;
    lab.remove_pod("reviews-v1-0").await?;
    let reply = under_way.await??;
    ensure!(
        reply.status == 200,
        "a call under way when its pod is removed is answered: {}",
        reply.status
    );
    Ok(())
}

async fn grpc() -> anyhow::Result<()> {
    let lab = Lab::builder()
        .service(ServiceSpec::grpc("ledger").version("v1", 1))
        .outsider("web")
        .without_mesh()
        .start()
        .await?;
    let address = lab.pod("ledger-v1-0").address(50_051).to_string();
    let mut echo = lab.echo("web", &address).await?;
    let say = |text: &str| EchoRequest {
        text: text.to_owned(),
        ..EchoRequest::default()
    };

    let one = echo.unary(say("hi")).await?.into_inner();
    ensure!((one.text.as_str(), one.version.as_str(), one.pod.as_str()) == ("hi", "v1", "ledger-v1-0"));
    let failed = echo
        .unary(EchoRequest {
            fail_code: 5,
            ..say("x")
        })
        .await
        .err()
        .context("no error")?;
    ensure!(
        failed.code() == tonic::Code::NotFound && failed.message() == "failed as asked: x",
        "{failed:?}"
    );
    ensure!(failed.metadata().get(ERROR_TRAILER).is_some(), "{failed:?}");

    let mut many = echo
        .server_stream(EchoRequest {
            count: 3,
            fail_code: 14,
            ..say("n")
        })
        .await?
        .into_inner();
    for index in 0..3 {
        let answer = many.next().await.context("too few answers")??;
        ensure!(answer.index == index, "{answer:?}");
    }
    let end = many
        .next()
        .await
        .context("no status")?
        .err()
        .context("no error")?;
    ensure!(end.code() == tonic::Code::Unavailable, "{end:?}");

    let joined = echo
        .client_stream(tokio_stream::iter([say("a"), say("b")]))
        .await?
        .into_inner();
    ensure!(joined.text == "a b" && joined.index == 2, "{joined:?}");

    let (talk, listen) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(listen);
    let mut answers = echo.bidi(requests).await?.into_inner();
    for text in ["first", "second"] {
        talk.send(say(text)).await?;
        let answer = answers.next().await.context("no answer")??;
        ensure!(answer.text == text, "{answer:?}");
    }
    drop(talk);
    ensure!(
        answers.next().await.is_none(),
        "the stream ends with its requests"
    );

    let control = lab.control("ledger-v1-0", GRPC_CONTROL_PORT);
    control.mode(Mode::Fail(503)).await?;
    let failed = echo.unary(say("hi")).await.err().context("no error")?;
    ensure!(failed.code() == tonic::Code::Unavailable, "{failed:?}");
    let counters = control.counters().await?;
    ensure!(
        counters.requests == 6 && counters.failed == 1 && counters.accepted == 1,
        "{counters:?}"
    );
    Ok(())
}

async fn tcp() -> anyhow::Result<()> {
    let lab = Lab::builder()
        .service(ServiceSpec::tcp("ledger", 5432).version("v1", 1))
        .service(
            ServiceSpec::new("quiet")
                .port(PortSpec::silent(7000))
                .version("v1", 1),
        )
        .outsider("web")
        .without_mesh()
        .start()
        .await?;
    let web = lab.pod("web");
    let mut stream = web
        .connect(&lab.pod("ledger-v1-0").address(5432).to_string())
        .await?;
    let mut greeting = [0; 20];
    stream.read_exact(&mut greeting).await?;
    ensure!(
        &greeting == b"220 ledger is ready\n",
        "{:?}",
        String::from_utf8_lossy(&greeting)
    );
    stream.write_all(b"select 1\nunfinished").await?;
    stream.shutdown().await?;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await?;
    ensure!(
        rest == "SELECT 1\nUNFINISHEDreceived 19 bytes in 2 lines\n",
        "{rest:?}"
    );

    let mut stream = web
        .connect(&lab.pod("quiet-v1-0").address(7000).to_string())
        .await?;
    let mut first = [0; 1];
    let waited = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut first)).await;
    ensure!(waited.is_err(), "it spoke first: {waited:?}");
    stream.write_all(b"x\n").await?;
    stream.read_exact(&mut first).await?;
    ensure!(&first == b"X");
    let counters = lab.control("quiet-v1-0", TCP_CONTROL_PORT).counters().await?;
    ensure!(
        counters.accepted == 1 && counters.requests == 1 && counters.open == 1,
        "{counters:?}"
    );
    Ok(())
}

async fn load() -> anyhow::Result<()> {
    let (lab, web, base) = http_lab().await?;
    let address = web.resolve(base.trim_start_matches("http://"))?;
    let app = lab.app("reviews-v1-0");

    let counted = lab
        .load("web", Plan::get(&base).connections(3).requests(300))
        .await?
        .finish()
        .await;
    ensure!(
        counted.total() == 300 && counted.errors() == 0,
        "{}",
        counted.summary()
    );
    ensure!(
        counted.opened == 3 && counted.closed == 3,
        "connections are kept: {}",
        counted.summary()
    );
    ensure!(counted.versions() == BTreeMap::from([("v1".to_owned(), 300)]));
    let fresh = lab
        .load("web", Plan::get(&base).fresh_connections().requests(20))
        .await?
        .finish()
        .await;
    ensure!(fresh.opened == 20 && fresh.closed == 20, "{}", fresh.summary());

    let load = lab
        .load("web", Plan::get(&base).connections(2).rate(200.0))
        .await?;
    eventually(SOON, "50 good answers", async || {
        let good = load.so_far().status(200);
        ensure!(good >= 50, "{good}");
        Ok(())
    })
    .await?;
    let switched = load.now();
    app.mode(Mode::Fail(503)).await?;
    eventually(SOON, "20 failures", async || {
        ensure!(load.so_far().status(503) >= 20);
        Ok(())
    })
    .await?;
    lab.kill_apps("reviews-v1-0");
    eventually(SOON, "refused connections", async || {
        ensure!(load.so_far().failures().contains_key(&Failure::Connect));
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    let early = report.samples.iter().filter(|sample| sample.ended() < switched);
    let bad = early.filter(|sample| sample.version().is_none()).count();
    ensure!(bad == 0, "{bad} calls failed before anything was switched");
    ensure!(
        report.errors() >= 20 && report.elapsed > switched,
        "{}",
        report.summary()
    );

    let refused = web
        .run(async move { tests::load::Load::start(Plan::get("http://x/").requests(5), address) })
        .await;
    let refused = refused.finish().await;
    ensure!(
        refused.failures() == BTreeMap::from([(Failure::Connect, 5)]),
        "{}",
        refused.summary()
    );
    Ok(())
}

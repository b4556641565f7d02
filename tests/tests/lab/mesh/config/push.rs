//! What a push does to traffic under way: nothing.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use libtest_mimic::Trial;
use tests::client::{Call, Protocol};
use tests::grpc::{EchoRequest, EchoResponse};
use tests::lab::{Builder, Lab, PortSpec, ServiceSpec, eventually};
use tests::load::Plan;
use tests::websocket::{Frame, Kind, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::super::SOON;
use super::super::group::alone;
use super::super::rules::{all_to, destination_rule, follows, route, stamped};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        alone(
            "field_lesson: a config push drops no stream, WebSocket, download or connection",
            lab,
            pushes,
        ),
        alone(
            "field_lesson: memory follows what a pod uses, not the size of the mesh",
            lab,
            memory,
        ),
        alone(
            "field_lesson: an endpoint that comes or goes is known within half a second",
            lab,
            latency,
        ),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("reviews").version("v1", 1))
        .service(ServiceSpec::grpc("ledger").version("v1", 1))
        .service(
            ServiceSpec::new("lines")
                .port(PortSpec::silent(7000))
                .version("v1", 1),
        )
        .client("web")
        .outsider("void")
}

const PUSHES: u32 = 200;

/// What is open while configuration is pushed.
struct Open {
    talk: mpsc::Sender<EchoRequest>,
    answers: tonic::Streaming<EchoResponse>,
    socket: TokioIo<hyper::upgrade::Upgraded>,
    lines: TcpStream,
}

impl Open {
    async fn start(lab: &Lab) -> anyhow::Result<Open> {
        let web = lab.pod("web");
        let mut echo = lab.echo("web", "ledger:50051").await?;
        let (talk, listen) = mpsc::channel(1);
        let answers = echo.bidi(ReceiverStream::new(listen)).await?.into_inner();
        let mut session = web.session("reviews:8080", Protocol::Http1).await?;
        let upgrade = Call::get("http://reviews:8080/ws")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let response = session.start(&upgrade).await?;
        ensure!(response.status() == 101, "{response:?}");
        Ok(Open {
            talk,
            answers,
            socket: TokioIo::new(hyper::upgrade::on(response).await?),
            lines: web.connect("lines:7000").await?,
        })
    }

    /// Everything still works.
    async fn works(&mut self, number: u32) -> anyhow::Result<()> {
        let text = format!("message {number}");
        let request = EchoRequest {
            text: text.clone(),
            ..EchoRequest::default()
        };
        self.talk.send(request).await.context("the gRPC stream ended")?;
        let answer = timeout(SOON, self.answers.next()).await?;
        let answer = answer.context("the gRPC stream ended")??;
        ensure!(answer.text == text, "{answer:?}");
        let frame = Frame::new(Kind::Text, text);
        frame.write(&mut self.socket, Side::Client).await?;
        let heard = timeout(SOON, Frame::read(&mut self.socket)).await??;
        ensure!(heard == Some(frame), "{heard:?}");
        self.lines.write_all(b"x\n").await?;
        let mut heard = [0; 2];
        let read = timeout(SOON, self.lines.read_exact(&mut heard)).await?;
        read.context("the TCP stream ended")?;
        Ok(())
    }
}

async fn pushes(lab: &Lab) -> anyhow::Result<()> {
    route(lab, &["web"], "reviews", &all_to("reviews")).await?;
    let plan = Plan::get("http://reviews:8080/").connections(4).rate(100.0);
    let load = lab.load("web", plan).await?;
    let mut open = Open::start(lab).await?;
    // Pieces of 10 ms: the download lasts as long as the pushes, and longer.
    let mut download = lab.pod("web").session("reviews:8080", Protocol::Http1).await?;
    let response = download
        .start(&Call::get("http://reviews:8080/chunked/500"))
        .await?;
    let body = tokio::spawn(response.into_body().collect());

    let snapshot = async || lab.proxy("web").metric("hauberk_config_snapshot", &[]).await;
    let before = snapshot().await?;
    let mut last = String::new();
    for number in 0..PUSHES {
        let rules = format!(
            "- timeout: {}s\n  route: [{{destination: {{host: reviews}}}}]",
            600 + number
        );
        let (yaml, stamp) = stamped("reviews", &rules);
        lab.apply("vs-reviews", &yaml)?;
        for service in ["reviews", "ledger", "lines"] {
            let idle = format!(
                "trafficPolicy: {{connectionPool: {{tcp: {{idleTimeout: {}s}}}}}}",
                3600 + number
            );
            lab.apply(&format!("dr-{service}"), &destination_rule(service, &idle))?;
        }
        last = stamp;
        if number % 10 == 0 {
            // A push of its own, whatever the operator gathers meanwhile.
            follows(lab, "web", "reviews", &last).await?;
            open.works(number)
                .await
                .with_context(|| format!("push {number}"))?;
        }
    }
    follows(lab, "web", "reviews", &last).await?;
    open.works(PUSHES).await?;
    let swaps = snapshot().await? - before;
    ensure!(
        swaps >= 20.0,
        "{PUSHES} pushes became {swaps} swaps: the test shows nothing"
    );
    let whole = timeout(SOON * 3, body).await.context("the download hangs")??;
    let whole = whole.context("the download broke off")?.to_bytes();
    let expected: String = (0..500).map(|number| format!("chunk {number}\n")).collect();
    ensure!(whole == expected.as_bytes(), "{} bytes", whole.len());
    let report = load.stop().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    ensure!(
        report.opened == 4,
        "no connection was closed: {}",
        report.summary()
    );
    Ok(())
}

/// A thousand services that nobody uses. Who dials one is refused at once: its endpoint is a pod without a server.
fn crowd(lab: &Lab) -> String {
    let void = lab.pod("void").ip();
    let mut yaml = String::new();
    for number in 0..1_000 {
        let (high, low) = (number / 250, number % 250 + 1);
        let _infallible = write!(
            yaml,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: crowd-{number}, namespace: crowd}}\n\
             spec:\n  clusterIP: 10.97.{high}.{low}\n  clusterIPs: [10.97.{high}.{low}]\n  \
             ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: crowd-{number}-x, namespace: crowd, \
             labels: {{kubernetes.io/service-name: crowd-{number}}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n\
             - {{addresses: [{void}], conditions: {{ready: true}}}}\n\
             - {{addresses: [10.99.{high}.{low}], conditions: {{ready: false}}}}\n---\n"
        );
    }
    yaml
}

async fn memory(lab: &Lab) -> anyhow::Result<()> {
    let warm = Plan::get("http://reviews:8080/").connections(2).requests(300);
    ensure!(lab.load("web", warm.clone()).await?.finish().await.errors() == 0);
    let held = async || lab.proxy("web").metric("hauberk_config_resources", &[]).await;
    let (resources, before) = (held().await?, lab.proxy("web").process()?.rss()?);
    lab.apply("crowd", &crowd(lab))?;
    // A stamp that is followed says that the operator has read the crowd before.
    route(lab, &["web"], "reviews", &all_to("reviews")).await?;
    eventually(SOON, "the operator knows the crowd", async || {
        // Refused by its endpoint. Refused by the mesh would mean that it is not known yet.
        let reply = lab.pod("web").get("http://10.97.3.250/").await?;
        ensure!(
            reply.header("x-hauberk-reason").starts_with("connect"),
            "{:?}",
            reply.headers
        );
        Ok(())
    })
    .await?;
    ensure!(lab.load("web", warm).await?.finish().await.errors() == 0);
    let after = lab.proxy("web").process()?.rss()?;
    let grown = after.saturating_sub(before);
    ensure!(
        grown < 2 * 1024 * 1024,
        "1,000 services that nobody uses cost a proxy {grown} bytes"
    );
    let more = held().await? - resources;
    ensure!(more <= 8.0, "the proxy holds {more} resources more than before");
    Ok(())
}

async fn latency(lab: &Lab) -> anyhow::Result<()> {
    lab.apply("crowd", &crowd(lab))?;
    route(lab, &["web"], "reviews", &all_to("reviews")).await?;
    let endpoints = async || {
        let found = super::super::rules::cluster(lab, "web", "reviews").await?;
        Ok::<_, anyhow::Error>(found["endpoints"].as_array().map_or(0, Vec::len))
    };
    ensure!(endpoints().await? == 1);
    let mut times = Vec::new();
    for turn in 0..10 {
        let (change, expected): (&dyn Fn() -> anyhow::Result<()>, usize) = if turn % 2 == 0 {
            (&|| lab.remove_endpoint("reviews-v1-0"), 0)
        } else {
            (&|| lab.endpoint_ready("reviews-v1-0", true), 1)
        };
        let start = tokio::time::Instant::now();
        change()?;
        eventually(SOON, &format!("{expected} endpoints"), async || {
            let found = endpoints().await?;
            ensure!(found == expected, "{found}");
            Ok(())
        })
        .await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("endpoint changes among 1,000 services took {times:?}");
    ensure!(times[times.len() / 2] < Duration::from_millis(500), "{times:?}");
    Ok(())
}

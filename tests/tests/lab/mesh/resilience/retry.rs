//! What is sent again, and what never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Method;
use libtest_mimic::Trial;
use tests::app::{Answer, Mode};
use tests::client::Call;
use tests::lab::{App, Builder, Lab, PortSpec, ServiceSpec, Workload};
use tests::load::Plan;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::super::group::Group;
use super::super::rules::{all_to, policy, route};
use super::super::{raw, servers};
use super::{all_requests, requests};

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "field_lesson: a POST that was sent is never sent again",
            post_once,
        ),
        group.trial(
            "field_lesson: a reused connection that closed costs an idempotent request nothing",
            reused,
        ),
        group.trial(
            "field_lesson: a POST on a reused connection that closed is not sent again",
            reused_post,
        ),
        group.trial(
            "field_lesson: a server's Keep-Alive timeout is honoured",
            keep_alive,
        ),
        group.trial(
            "a status is tried again when the rule says so, and the server is told",
            by_status,
        ),
        group.trial(
            "an answer with a header that the request names is tried again",
            by_header,
        ),
        group.trial("a body is sent whole again with a second try", body_again),
        group.trial("field_lesson: a retry storm is bounded by the budget", storm),
        group.trial("a per-try timeout moves a request to another endpoint", per_try),
    ]
}

fn lab() -> Builder {
    let own = ServiceSpec::new("own")
        .port(PortSpec::new("http", 8000, App::Nothing))
        .workload(Workload::new("v1", 1).meshed(false));
    Lab::builder()
        .service(ServiceSpec::http("orders").version("v1", 2))
        .service(ServiceSpec::http("single").version("v1", 1))
        .service(ServiceSpec::http("pair").version("v1", 2))
        .service(ServiceSpec::http("named").version("v1", 1))
        .service(own)
        .client("web")
}

async fn mode(lab: &Lab, service: &str, mode: Mode) -> anyhow::Result<()> {
    for pod in lab.pods_of(service) {
        lab.app(&pod).mode(mode).await?;
    }
    Ok(())
}

async fn post_once(lab: &Lab) -> anyhow::Result<()> {
    for (name, number, failure) in [("a reset", 1, Mode::Reset), ("a 503", 2, Mode::Fail(503))] {
        mode(lab, "orders", failure).await?;
        for method in [Method::POST, Method::PATCH] {
            let before = all_requests(lab, "orders").await?;
            let call = Call::new(method.clone(), "http://orders:8080/buy").body("one, please");
            let reply = lab.pod("web").send(call).await?;
            let times = all_requests(lab, "orders").await? - before;
            ensure!(
                times == 1,
                "{name}: the {method} reached applications {times} times"
            );
            ensure!(
                reply.status == if number == 1 { 502 } else { 503 },
                "{name}: {reply:?}"
            );
        }
    }
    // A half-sent answer is an answer: nothing is sent again behind it.
    mode(lab, "orders", Mode::Ok).await?;
    let before = all_requests(lab, "orders").await?;
    let broken = lab.pod("web").get("http://orders:8080/close").await;
    ensure!(
        broken.is_err(),
        "a broken answer was taken for a whole one: {broken:?}"
    );
    ensure!(all_requests(lab, "orders").await? - before == 1);
    Ok(())
}

/// A server that closes a connection on its second request, unanswered, as one does whose idle timer fires just then.
/// Every request that it *answers* is told.
async fn closing(lab: &Lab) -> anyhow::Result<(Arc<AtomicU64>, mpsc::UnboundedReceiver<String>)> {
    let (tell, told) = mpsc::unbounded_channel();
    let connections = servers::each(lab, "own-v1-0", 8000, move |stream| {
        let tell = tell.clone();
        async move {
            let mut stream = BufReader::new(stream);
            answer_one(&mut stream, "", &tell).await?;
            let _second = raw::head(&mut stream).await?;
            Ok(())
        }
    })
    .await?;
    Ok((connections, told))
}

async fn answer_one(
    stream: &mut BufReader<TcpStream>,
    header: &str,
    tell: &mpsc::UnboundedSender<String>,
) -> anyhow::Result<()> {
    let head = raw::head(stream).await?;
    let line = head.lines().next().unwrap_or_default().to_owned();
    tell.send(line)?;
    let answer = format!("HTTP/1.1 200 OK\r\n{header}content-length: 2\r\n\r\nok");
    Ok(stream.write_all(answer.as_bytes()).await?)
}

async fn reused(lab: &Lab) -> anyhow::Result<()> {
    let (connections, mut told) = closing(lab).await?;
    let plan = Plan::get("http://own:8000/").requests(12);
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(report.status(200) == 12, "{}", report.summary());
    let mut answered = 0;
    while told.try_recv().is_ok() {
        answered += 1;
    }
    ensure!(answered == 12, "{answered} answers for 12 requests");
    let connections = connections.load(Ordering::Relaxed);
    ensure!(
        (7..=12).contains(&connections),
        "connections are reused: {connections} for 12 requests"
    );
    Ok(())
}

async fn reused_post(lab: &Lab) -> anyhow::Result<()> {
    let (connections, mut told) = closing(lab).await?;
    let web = lab.pod("web");
    ensure!(web.get("http://own:8000/").await?.status == 200);
    let first = told.recv().await.context("no request")?;
    ensure!(first.starts_with("GET"), "{first}");
    let before = connections.load(Ordering::Relaxed);
    let reply = web.send(Call::post("http://own:8000/buy", "one, please")).await?;
    // Either the proxy saw the close in time and used a new connection, or it does not know what became of the POST.
    match reply.status {
        200 => ensure!(connections.load(Ordering::Relaxed) == before + 1),
        502 => {
            ensure!(reply.header("x-hauberk-reason") == "reset", "{reply:?}");
            ensure!(told.try_recv().is_err(), "the POST was answered after all");
        }
        other => anyhow::bail!("{other}: {}", reply.text()),
    }
    Ok(())
}

async fn keep_alive(lab: &Lab) -> anyhow::Result<()> {
    let (tell, _told) = mpsc::unbounded_channel();
    let connections = servers::each(lab, "own-v1-0", 8000, move |stream| {
        let tell = tell.clone();
        async move {
            let mut stream = BufReader::new(stream);
            for _ in 0..2 {
                answer_one(&mut stream, "keep-alive: timeout=2\r\n", &tell).await?;
            }
            Ok(())
        }
    })
    .await?;
    let web = lab.pod("web");
    let post = || Call::post("http://own:8000/", "x");
    ensure!(web.send(post()).await?.status == 200);
    ensure!(web.send(post()).await?.status == 200);
    ensure!(
        connections.load(Ordering::Relaxed) == 1,
        "two requests in a row share a connection"
    );
    ensure!(web.send(post()).await?.status == 200);
    // The pause is what is tested: longer than the announced time less the way there.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    ensure!(web.send(post()).await?.status == 200);
    ensure!(
        connections.load(Ordering::Relaxed) == 3,
        "a connection near its announced end is not used"
    );
    Ok(())
}

const ON_503: &str =
    "- retries: {attempts: 2, retryOn: \"503\", backoff: 5ms}\n  route: [{destination: {host: single}}]";

const BY_HEADER: &str = "- retries: {attempts: 2, retryOn: retriable-headers, backoff: 5ms}\n  \
                         route: [{destination: {host: named}}]";

async fn by_header(lab: &Lab) -> anyhow::Result<()> {
    route(lab, &["web"], "named", BY_HEADER).await?;
    // Every answer of the application has this header.
    for (names, tries) in [("x-busy, x-app-version", 3), ("x-busy", 1)] {
        let before = requests(lab, "named-v1-0").await?;
        let call = Call::get("http://named:8080/").header("x-envoy-retriable-header-names", names);
        let reply = lab.pod("web").send(call).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        let tried = requests(lab, "named-v1-0").await? - before;
        ensure!(tried == tries, "{names}: {tried} tries");
        let seen = reply.json::<Answer>()?.request.headers;
        ensure!(!seen.contains_key("x-envoy-retriable-header-names"), "{seen:?}");
    }
    Ok(())
}

async fn by_status(lab: &Lab) -> anyhow::Result<()> {
    route(lab, &["web"], "single", ON_503).await?;
    let before = requests(lab, "single-v1-0").await?;
    let retries = lab
        .proxy("web")
        .metric("hauberk_cluster_retries_total", &[])
        .await?;
    let reply = lab.pod("web").get("http://single:8080/flaky/by-status/2").await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let answer: Answer = reply.json()?;
    ensure!(
        requests(lab, "single-v1-0").await? - before == 3,
        "two tries more"
    );
    ensure!(
        answer
            .request
            .headers
            .get("x-hauberk-attempt")
            .map(String::as_str)
            == Some("3"),
        "{:?}",
        answer.request.headers
    );
    let more = lab
        .proxy("web")
        .metric("hauberk_cluster_retries_total", &[])
        .await?
        - retries;
    ensure!((more - 2.0).abs() < f64::EPSILON, "{more} retries counted");
    let reply = lab
        .pod("web")
        .get("http://single:8080/flaky/by-status-too-often/3")
        .await?;
    ensure!(
        reply.status == 503 && reply.text() == "not yet\n",
        "the last answer is the application's own: {reply:?}"
    );
    Ok(())
}

async fn body_again(lab: &Lab) -> anyhow::Result<()> {
    route(lab, &["web"], "single", ON_503).await?;
    lab.app("single-v1-0").mode(Mode::Fail(503)).await?;
    let before = requests(lab, "single-v1-0").await?;
    let put = Call::new(Method::PUT, "http://single:8080/echo").body("x".repeat(20_000));
    let failed = lab.pod("web").send(put.clone()).await?;
    ensure!(failed.status == 503, "{}", failed.status);
    ensure!(requests(lab, "single-v1-0").await? - before == 3);
    lab.app("single-v1-0").mode(Mode::Ok).await?;
    let reply = lab.pod("web").send(put).await?;
    ensure!(reply.body.len() == 20_000, "{} bytes", reply.body.len());
    let seen = lab.app("single-v1-0").requests().await?;
    let lengths: Vec<_> = seen
        .iter()
        .rev()
        .take(4)
        .map(|seen| seen.headers.get("content-length"))
        .collect();
    ensure!(
        lengths
            .iter()
            .all(|length| length.is_some_and(|length| length == "20000")),
        "{lengths:?}"
    );
    Ok(())
}

async fn storm(lab: &Lab) -> anyhow::Result<()> {
    let rules =
        "- retries: {attempts: 10, retryOn: 5xx, backoff: 1ms}\n  route: [{destination: {host: pair}}]";
    policy(
        lab,
        &["web"],
        "pair",
        "trafficPolicy: {retryBudget: {percent: 20, minRetryConcurrency: 3}}",
        rules,
    )
    .await?;
    mode(lab, "pair", Mode::Fail(503)).await?;
    let before = all_requests(lab, "pair").await?;
    let plan = Plan::get("http://pair:8080/").connections(40).requests(2_000);
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(report.status(503) == 2_000, "{}", report.summary());
    let reached = all_requests(lab, "pair").await? - before;
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let amplification = reached as f64 / 2_000.0;
    ensure!(amplification <= 1.3, "2,000 requests became {reached}");
    ensure!(
        amplification > 1.0,
        "nothing was tried again: the test shows nothing"
    );
    let refused = lab
        .proxy("web")
        .metric("hauberk_cluster_retry_budget_exhausted_total", &[])
        .await?;
    ensure!(refused > 100.0, "the budget said no {refused} times");
    mode(lab, "pair", Mode::Ok).await?;
    route(lab, &["web"], "pair", &all_to("pair")).await
}

async fn per_try(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- timeout: 8s\n  retries: {attempts: 2, perTryTimeout: 250ms, retryOn: gateway-error}\n  \
                 route: [{destination: {host: pair}}]";
    policy(
        lab,
        &["web"],
        "pair",
        "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}",
        rules,
    )
    .await?;
    lab.app("pair-v1-0").mode(Mode::Hang).await?;
    let plan = Plan::get("http://pair:8080/").requests(20);
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(report.status(200) == 20, "{}", report.summary());
    ensure!(
        report.latency.max() < Duration::from_secs(4),
        "{}",
        report.summary()
    );
    ensure!(
        requests(lab, "pair-v1-0").await? > 0,
        "the endpoint that hangs was tried"
    );
    // With nowhere else to go, the answer names the timeout.
    lab.app("pair-v1-1").mode(Mode::Hang).await?;
    let reply = lab.pod("web").get("http://pair:8080/").await?;
    ensure!(
        reply.status == 504 && reply.header("x-hauberk-reason") == "try_timeout",
        "{} {:?}",
        reply.status,
        reply.headers
    );
    mode(lab, "pair", Mode::Ok).await
}

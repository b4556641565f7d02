//! Pods that come and go, and proxies that shut down.

use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::client::{Call, Protocol};
use tests::grpc::EchoRequest;
use tests::lab::{Builder, Lab, ServiceSpec, eventually};
use tests::load::Plan;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::super::SOON;
use super::super::group::{Group, alone};

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial("field_lesson: a rollout under load loses no request", rollout),
        group.trial(
            "field_lesson: a pod that shuts down finishes what it has begun",
            server_drain,
        ),
        alone(
            "a client's proxy that shuts down finishes what it has begun",
            lab,
            client_drain,
        ),
        alone(
            "a proxy that drains is not ready, says goodbye, and ends",
            short,
            goodbye,
        ),
        alone(
            "field_lesson: an application that shuts down with its proxy goes on calling others",
            short,
            last_words,
        ),
        alone(
            "field_lesson: the proxy of a Job that is done ends by itself",
            patient,
            finished,
        ),
        alone(
            "field_lesson: an application that waits for its proxy starts when that is ready",
            lab,
            hook,
        ),
    ]
}

/// Proxies that take four seconds over what they are in the middle of.
fn short() -> Builder {
    lab()
        .proxy_env("HAUBERK_DRAIN_TIMEOUT", "4s")
        .outsider("stranger")
}

/// Proxies that would go on accepting for a long time.
fn patient() -> Builder {
    lab().proxy_env("HAUBERK_DRAIN_DELAY", "60s")
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("reviews").version("v1", 2))
        .service(ServiceSpec::grpc("ledger").version("v1", 1))
        .proxy_env("HAUBERK_DRAIN_DELAY", "1s")
        .proxy_env("HAUBERK_DRAIN_TIMEOUT", "10s")
        .client("web")
}

async fn rollout(lab: &Lab) -> anyhow::Result<()> {
    let url = "http://reviews:8080/";
    let kept = lab.load("web", Plan::get(url).connections(4).rate(150.0)).await?;
    let fresh = lab
        .load(
            "web",
            Plan::get(url).connections(2).rate(50.0).fresh_connections(),
        )
        .await?;
    let posts = lab
        .load(
            "web",
            Plan::new(Call::post("http://reviews:8080/echo", "x"))
                .connections(2)
                .rate(50.0),
        )
        .await?;
    let mut old = lab.pods_of("reviews");
    for _ in 0..3 {
        let new = lab.add_pods("reviews", "v1", 1).await?;
        let name = &new[0];
        eventually(SOON, "the new pod gets requests", async || {
            ensure!(lab.app(name).counters().await?.requests > 3);
            Ok(())
        })
        .await?;
        lab.remove_pod(&old.remove(0)).await?;
        old.extend(new);
    }
    for load in [kept, fresh, posts] {
        let report = load.stop().await;
        ensure!(
            report.errors() == 0 && report.total() > 50,
            "{}",
            report.summary()
        );
    }
    Ok(())
}

async fn server_drain(lab: &Lab) -> anyhow::Result<()> {
    let name = lab.add_pods("reviews", "v1", 1).await?.remove(0);
    let address = lab.pod(&name).address(8080);
    let web = lab.pod("web");
    let slow = Call::get(&format!("http://{address}/delay/2500")).patience(SOON * 2);
    let slow_post = Call::post(&format!("http://{address}/delay/2500"), "x").patience(SOON * 2);
    let calls: Vec<_> = [slow, slow_post]
        .into_iter()
        .map(|call| {
            let web = web.clone();
            tokio::spawn(async move { web.send(call).await })
        })
        .collect();
    eventually(SOON, "both calls have arrived", async || {
        ensure!(lab.app(&name).counters().await?.requests == 2);
        Ok(())
    })
    .await?;
    lab.remove_pod(&name).await?;
    for call in calls {
        let reply = call.await??;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    }
    Ok(())
}

async fn client_drain(lab: &Lab) -> anyhow::Result<()> {
    let web = lab.pod("web");
    let mut echo = lab.echo("web", "ledger:50051").await?;
    let ticking = EchoRequest {
        text: "tick".to_owned(),
        count: 25,
        delay_ms: 100,
        ..EchoRequest::default()
    };
    let mut ticks = echo.server_stream(ticking).await?.into_inner();
    timeout(SOON, ticks.next()).await?.context("no tick")??;
    let slow = tokio::spawn({
        let web = web.clone();
        async move { web.send(Call::get("http://reviews:8080/delay/2500")).await }
    });
    let reviews = async || {
        let mut sum = 0;
        for pod in lab.pods_of("reviews") {
            sum += lab.app(&pod).counters().await?.requests;
        }
        anyhow::Ok(sum)
    };
    eventually(SOON, "the slow call has arrived", async || {
        ensure!(reviews().await? == 1);
        Ok(())
    })
    .await?;
    let process = lab.proxy("web").process()?;
    lab.proxy("web").terminate()?;
    let reply = slow.await??;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    for number in 1..25 {
        let tick = timeout(SOON, ticks.next())
            .await?
            .with_context(|| format!("the stream ended after {number}"))?;
        ensure!(tick?.index == number);
    }
    drop((ticks, echo));
    let status = process.wait(SOON * 2).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

async fn goodbye(lab: &Lab) -> anyhow::Result<()> {
    let web = lab.pod("web");
    let mut session = web.session("reviews:8080", Protocol::Http1).await?;
    let call = Call::get("http://reviews:8080/");
    ensure!(session.send(&call).await?.status == 200);
    let process = lab.proxy("web").process()?;
    lab.proxy("web").terminate()?;
    eventually(SOON, "it is not ready any more, and still serves", async || {
        let ready = lab.proxy("web").admin("/health/ready").await?;
        ensure!(
            ready.status == 503 && ready.text().contains("shutting down"),
            "{}",
            ready.text()
        );
        Ok(())
    })
    .await?;
    ensure!(
        session.send(&call).await?.status == 200,
        "a kept connection is served while endpoints learn"
    );
    ensure!(
        web.get("http://reviews:8080/").await?.status == 200,
        "so is a new one"
    );
    eventually(SOON, "an idle connection is closed", async || {
        ensure!(session.closed());
        Ok(())
    })
    .await?;
    let status = process.wait(Duration::from_secs(8)).await?;
    ensure!(status.success(), "{status}");
    lab.proxy("web").start().await?;
    lab.proxy("web").ready().await?;
    ensure!(web.get("http://reviews:8080/").await?.status == 200);
    Ok(())
}

async fn last_words(lab: &Lab) -> anyhow::Result<()> {
    let name = "ledger-v1-0";
    let (ledger, stranger) = (lab.pod(name), lab.pod("stranger"));
    let call = Call::get("http://reviews:8080/");
    let mut kept = ledger.session("reviews:8080", Protocol::Http1).await?;
    ensure!(kept.send(&call).await?.status == 200);
    let process = lab.proxy(name).process()?;
    lab.proxy(name).terminate()?;
    eventually(SOON, "nobody gets in any more", async || {
        ensure!(
            stranger
                .connect(&ledger.address(50_051).to_string())
                .await
                .is_err()
        );
        Ok(())
    })
    .await?;
    // From here on its proxy has stopped accepting for the pod, and the application is still there.
    ensure!(kept.send(&call).await?.status == 200, "what is open stays open");
    ensure!(
        ledger.get("http://reviews:8080/").await?.status == 200,
        "so it dials"
    );
    ensure!(process.ended().is_none(), "{}", process.log_tail(20));
    let left = std::time::SystemTime::now();
    lab.kill_apps(name);
    drop(kept);
    let status = process.wait(SOON).await?;
    ensure!(status.success(), "{status}");
    // Not at the timeout, which is four seconds: as soon as it is alone.
    ensure!(left.elapsed()? < Duration::from_secs(2), "{:?}", left.elapsed());
    Ok(())
}

async fn finished(lab: &Lab) -> anyhow::Result<()> {
    let proxy = lab.proxy("web");
    ensure!(lab.pod("web").get("http://reviews:8080/").await?.status == 200);
    let (process, other) = (proxy.process()?, lab.proxy("reviews-v1-0").process()?);
    lab.finish("web")?;
    // The delay, which is a minute, is for callers; a pod without an application has none.
    let status = process.wait(SOON).await?;
    ensure!(status.success(), "{status}");
    let log = process.log();
    ensure!(
        log.contains("every other container of the pod has ended"),
        "{log}"
    );
    ensure!(other.ended().is_none());
    Ok(())
}

async fn hook(lab: &Lab) -> anyhow::Result<()> {
    let proxy = lab.proxy("web");
    proxy.kill();
    let (status, said) = proxy.hook("500ms").await?;
    ensure!(
        status.code() == Some(1) && said.contains("500ms") && said.contains("refused"),
        "{status} {said}"
    );
    proxy.start().await?;
    let (status, said) = proxy.hook("10s").await?;
    ensure!(status.success(), "{status} {said}");
    ensure!(
        lab.pod("web").get("http://reviews:8080/").await?.status == 200,
        "the first call succeeds"
    );
    Ok(())
}

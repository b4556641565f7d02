//! The guide's pages on traffic, as their readers meet them: the manifest of each page is applied as it is written there,
//! and what the page promises must happen.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::app::Mode;
use tests::client::Call;
use tests::lab::{Builder, Lab, ServiceSpec, eventually, trial};
use tests::load::{Plan, Report};

use super::SOON;
use super::group::Group;
use super::resilience::{all_requests, requests};
use super::routing::by_chance;
use super::rules::{cluster, object};

/// The pages. One that is not here fails `every page has a trial`.
const PAGES: [&str; 7] = ["split", "canary", "mirror", "fault", "retry", "break", "sticky"];

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        trial("guide: every page has a trial, and one manifest", async || {
            complete()
        }),
        group.trial("guide: split.md", split),
        group.trial("guide: canary.md", canary),
        group.trial("guide: mirror.md", mirror),
        group.trial("guide: fault.md", fault),
        group.trial("guide: retry.md", retry),
        group.trial("guide: break.md", breaks),
        group.trial("guide: sticky.md", sticky),
    ]
}

fn lab() -> Builder {
    let versions = |name: &str| ServiceSpec::http(name).version("v1", 1).version("v2", 1);
    let pods = |name: &str, count| ServiceSpec::http(name).version("v1", count);
    Lab::builder()
        .service(versions("reviews"))
        .service(versions("checkout"))
        .service(pods("ratings", 1))
        .service(pods("ratings-next", 1))
        .service(pods("inventory", 1))
        .service(pods("quotes", 2))
        .service(pods("payments", 2))
        .service(pods("carts", 3))
        .client("web")
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/traffic")
}

/// The YAML blocks of a page.
fn manifests(page: &str) -> anyhow::Result<Vec<String>> {
    let path = folder().join(format!("{page}.md"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let blocks = text.split("```yaml\n").skip(1);
    Ok(blocks
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect())
}

fn complete() -> anyhow::Result<()> {
    let mut written = BTreeSet::new();
    for entry in std::fs::read_dir(folder())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let page = name
            .strip_suffix(".md")
            .with_context(|| format!("{name} is no page"))?;
        let blocks = manifests(page)?.len();
        ensure!(blocks == 1, "{name} has {blocks} manifests, and one is run");
        written.insert(page.to_owned());
    }
    let tried: BTreeSet<String> = PAGES.iter().map(|page| (*page).to_owned()).collect();
    ensure!(written == tried, "pages: {written:?}, trials: {tried:?}");
    Ok(())
}

/// Applies the manifest of a page, and returns when the proxy of `web` follows all of it.
async fn apply(lab: &Lab, page: &str, service: &str) -> anyhow::Result<()> {
    // A proxy is told about what it uses.
    let url = lab.service(service).url("/");
    eventually(SOON, "the service answers", async || {
        let reply = lab.pod("web").get(&url).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    })
    .await?;
    let manifest = manifests(page)?.pop().context("the page has no manifest")?;
    lab.apply("guide", &manifest)?;
    for read in crds::parse(&manifest) {
        let key = read.map_err(|error| anyhow::anyhow!("{page}.md: {error}"))?.key();
        eventually(SOON, &format!("the proxy follows {key}"), async || {
            let status = object(lab, key.kind.name(), &key.name).await?;
            ensure!(
                status["accepted"] == true && status["used_by"] == 1 && status["applied_by"] == 1,
                "{status}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// What the proxy of `web` says would become of a request.
async fn explained(lab: &Lab, url: &str) -> anyhow::Result<String> {
    let path = format!("/explain?url={url}");
    let reply = lab.proxy("web").admin(&path).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(reply.text())
}

async fn load(lab: &Lab, plan: Plan) -> anyhow::Result<Report> {
    Ok(lab.load("web", plan).await?.finish().await)
}

/// A metric of the proxy of `web`; nothing counted yet is 0.
async fn metric(lab: &Lab, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
    lab.proxy("web").metric(name, labels).await
}

/// Calls `url` over four connections and says what share v2 had.
async fn v2(lab: &Lab, call: Call, count: u64, share: f64) -> anyhow::Result<()> {
    let report = load(lab, Plan::new(call).connections(4).requests(count)).await?;
    ensure!(report.errors() == 0, "{}", report.summary());
    let hits = report.versions().get("v2").copied().unwrap_or(0);
    by_chance(hits, count, share)
}

async fn split(lab: &Lab) -> anyhow::Result<()> {
    apply(lab, "split", "reviews").await?;
    let call = || Call::get("http://reviews:8080/");
    v2(lab, call(), 2_000, 0.1).await?;
    let to = [("cluster", "reviews.shop.svc.cluster.local:8080|v2")];
    ensure!(metric(lab, "hauberk_cluster_requests_total", &to).await? > 0.0);
    let told = explained(lab, "http://reviews:8080/").await?;
    for says in [
        "rule `by-weight` (#1) of VirtualService shop/reviews: takes every request",
        "90 %  reviews.shop.svc.cluster.local:8080|v1",
        "10 %  reviews.shop.svc.cluster.local:8080|v2",
        "as DestinationRule shop/reviews says:",
    ] {
        ensure!(told.contains(says), "{says} is not in\n{told}");
    }
    // Undone, every pod gets requests.
    lab.delete("guide")?;
    eventually(SOON, "both versions are used alike", async || {
        v2(lab, call(), 200, 0.5).await
    })
    .await
}

async fn canary(lab: &Lab) -> anyhow::Result<()> {
    apply(lab, "canary", "checkout").await?;
    let call = || Call::get("http://checkout:8080/");
    v2(lab, call().header("x-canary", "always"), 100, 1.0).await?;
    v2(lab, call().header("x-canary", "never"), 100, 0.0).await?;
    v2(lab, call(), 2_000, 0.05).await
}

async fn mirror(lab: &Lab) -> anyhow::Result<()> {
    apply(lab, "mirror", "ratings").await?;
    let before = all_requests(lab, "ratings-next").await?;
    let counted = metric(lab, "hauberk_cluster_mirrored_total", &[]).await?;
    let report = load(
        lab,
        Plan::get("http://ratings:8080/").connections(2).requests(1_000),
    )
    .await?;
    ensure!(report.status(200) == 1_000, "{}", report.summary());
    eventually(SOON, "the copies have arrived, and are counted", async || {
        let copies = all_requests(lab, "ratings-next").await? - before;
        by_chance(copies, 1_000, 0.2)?;
        let counted = metric(lab, "hauberk_cluster_mirrored_total", &[]).await? - counted;
        #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
        let same = (counted - copies as f64).abs() < 0.5;
        ensure!(same, "{counted} counted, {copies} arrived");
        Ok(())
    })
    .await?;
    // A mirror that fails is nobody's failure.
    lab.app("ratings-next-v1-0").mode(Mode::Reset).await?;
    let report = load(lab, Plan::get("http://ratings:8080/").requests(100)).await?;
    ensure!(report.status(200) == 100, "{}", report.summary());
    lab.app("ratings-next-v1-0").mode(Mode::Ok).await
}

async fn fault(lab: &Lab) -> anyhow::Result<()> {
    apply(lab, "fault", "inventory").await?;
    let count = |fault| metric_of(lab, fault);
    let (aborts, delays) = (count("abort").await?, count("delay").await?);
    let chaos = Call::get("http://inventory:8080/").header("x-chaos", "on");
    let before = all_requests(lab, "inventory").await?;
    let report = load(lab, Plan::new(chaos.clone()).connections(8).requests(1_000)).await?;
    let aborted = report.status(503);
    ensure!(aborted + report.status(200) == 1_000, "{}", report.summary());
    by_chance(aborted, 1_000, 0.2)?;
    ensure!(
        all_requests(lab, "inventory").await? - before == 1_000 - aborted,
        "an aborted request reached the service"
    );
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some hundreds"
    )]
    let since = |now: f64, then: f64| (now - then).round() as u64;
    ensure!(since(count("abort").await?, aborts) == aborted);
    by_chance(since(count("delay").await?, delays), 1_000, 0.1)?;
    let late = report.latency.max();
    ensure!(late.as_millis() >= 300, "{late:?}");
    let told = eventually(SOON, "one is aborted", async || {
        let reply = lab.pod("web").send(chaos.clone()).await?;
        ensure!(reply.status == 503);
        Ok(reply)
    })
    .await?;
    ensure!(told.header("x-hauberk-reason") == "fault_abort", "{told:?}");
    let report = load(lab, Plan::get("http://inventory:8080/").requests(100)).await?;
    ensure!(
        report.status(200) == 100,
        "everybody else is left alone: {}",
        report.summary()
    );
    Ok(())
}

async fn metric_of(lab: &Lab, fault: &str) -> anyhow::Result<f64> {
    metric(lab, "hauberk_faults_total", &[("fault", fault)]).await
}

async fn retry(lab: &Lab) -> anyhow::Result<()> {
    apply(lab, "retry", "quotes").await?;
    let retries = async || metric(lab, "hauberk_cluster_retries_total", &[]).await;
    for failure in [Mode::Fail(503), Mode::Hang] {
        lab.app("quotes-v1-0").mode(failure).await?;
        let (tried, before) = (requests(lab, "quotes-v1-0").await?, retries().await?);
        let report = load(lab, Plan::get("http://quotes:8080/").requests(40)).await?;
        ensure!(report.status(200) == 40, "{failure:?}: {}", report.summary());
        ensure!(requests(lab, "quotes-v1-0").await? > tried, "it was tried");
        ensure!(retries().await? > before, "retries are counted");
    }
    // A write is sent once, and its failure is the caller's to deal with.
    lab.app("quotes-v1-0").mode(Mode::Fail(503)).await?;
    lab.app("quotes-v1-1").mode(Mode::Fail(503)).await?;
    let before = all_requests(lab, "quotes").await?;
    let reply = lab
        .pod("web")
        .send(Call::post("http://quotes:8080/", "one, please"))
        .await?;
    ensure!(reply.status == 503, "{reply:?}");
    ensure!(
        all_requests(lab, "quotes").await? - before == 1,
        "a write was sent again"
    );
    // A read is tried three times in all.
    let before = all_requests(lab, "quotes").await?;
    let reply = lab.pod("web").get("http://quotes:8080/").await?;
    ensure!(reply.status == 503, "{reply:?}");
    ensure!(all_requests(lab, "quotes").await? - before == 3);
    for pod in ["quotes-v1-0", "quotes-v1-1"] {
        lab.app(pod).mode(Mode::Ok).await?;
    }
    Ok(())
}

/// How many breakers of `payments` are in a state, as `/clusters` shows.
async fn breakers(lab: &Lab, state: &str) -> anyhow::Result<usize> {
    let cluster = cluster(lab, "web", "payments").await?;
    let endpoints = cluster["endpoints"].as_array().context("no endpoints")?;
    Ok(endpoints
        .iter()
        .filter(|endpoint| endpoint["breaker"] == state)
        .count())
}

async fn breaks(lab: &Lab) -> anyhow::Result<()> {
    apply(lab, "break", "payments").await?;
    let call = || Call::get("http://payments:8080/");
    lab.app("payments-v1-0").mode(Mode::Fail(500)).await?;
    let sick = requests(lab, "payments-v1-0").await?;
    eventually(SOON, "its breaker opens", async || {
        lab.pod("web").send(call()).await?;
        ensure!(breakers(lab, "open").await? == 1);
        Ok(())
    })
    .await?;
    ensure!(
        requests(lab, "payments-v1-0").await? - sick == 3,
        "three failures open it"
    );
    let open = metric(lab, "hauberk_endpoint_breaker_state", &[("pod", "payments-v1-0")]).await;
    ensure!(open.is_ok_and(|state| state > 1.5), "the metric says so");
    let told = explained(lab, "http://payments:8080/").await?;
    let says = |pod: &str, says: &str| told.lines().any(|l| l.contains(pod) && l.contains(says));
    ensure!(
        says("payments-v1-0", "its breaker is not closed") && says("payments-v1-1", "may be chosen"),
        "{told}"
    );
    // With the other one too, callers hear so at once.
    lab.app("payments-v1-1").mode(Mode::Fail(500)).await?;
    let refused = eventually(SOON, "all breakers are open", async || {
        let reply = lab.pod("web").send(call()).await?;
        ensure!(reply.header("x-hauberk-reason") == "breaker_open", "{reply:?}");
        Ok(reply)
    })
    .await?;
    ensure!(refused.status == 503, "{refused:?}");
    let probes = metric(lab, "hauberk_breaker_transitions_total", &[("to", "half_open")]).await?;
    for pod in ["payments-v1-0", "payments-v1-1"] {
        lab.app(pod).mode(Mode::Ok).await?;
    }
    eventually(SOON, "probes close both", async || {
        lab.pod("web").send(call()).await?;
        ensure!(breakers(lab, "closed").await? == 2);
        Ok(())
    })
    .await?;
    let now = metric(lab, "hauberk_breaker_transitions_total", &[("to", "half_open")]).await?;
    ensure!(now - probes > 1.5, "{now} after {probes}");
    Ok(())
}

async fn sticky(lab: &Lab) -> anyhow::Result<()> {
    apply(lab, "sticky", "carts").await?;
    let mut pods = BTreeSet::new();
    // 40 cookies miss one of three endpoints with a chance of 1 to 3,000,000.
    for _ in 0..40 {
        let first = lab.pod("web").get("http://carts:8080/").await?;
        let cookie = first.header("set-cookie").to_owned();
        let (pair, rest) = cookie.split_once("; ").unwrap_or_default();
        ensure!(
            pair.starts_with("cart-session=") && rest.contains("Max-Age=3600"),
            "{first:?}"
        );
        for _ in 0..3 {
            let call = Call::get("http://carts:8080/").header("cookie", pair);
            let again = lab.pod("web").send(call).await?;
            ensure!(again.app_pod() == first.app_pod(), "{pair}: {again:?}");
            ensure!(again.header("set-cookie").is_empty(), "{again:?}");
        }
        pods.insert(first.app_pod().to_owned());
    }
    ensure!(pods.len() == 3, "{pods:?}");
    Ok(())
}

//! Keys stay at their endpoint while it is there, whichever it is.

use std::collections::BTreeSet;

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::app::Mode;
use tests::client::{Call, Reply};
use tests::lab::{Builder, Lab, ServiceSpec};

use super::super::group::Group;
use super::super::rules::{all_to, policy};

const URL: &str = "http://four:8080/";
/// Enough that each of four endpoints has some: 40 keys miss one with a chance of 1 to 100,000.
const USERS: usize = 40;

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "a header's value stays at its endpoint, with a ring and with maglev",
            header,
        ),
        group.trial("a cookie is made and leads back to its endpoint", cookie),
        group.trial("a query parameter and the client's address are keys", others),
        group.trial(
            "a key moves while its endpoint is ejected, and comes back",
            ejected,
        ),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("four").version("v1", 4))
        .client("web")
}

async fn balanced(lab: &Lab, hash: &str, more: &str) -> anyhow::Result<()> {
    let spec = format!("trafficPolicy:\n  loadBalancer: {{consistentHash: {{{hash}}}}}\n{more}");
    policy(lab, &["web"], "four", &spec, &all_to("four")).await
}

async fn send(lab: &Lab, call: Call) -> anyhow::Result<Reply> {
    let reply = lab.pod("web").send(call).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(reply)
}

async fn home(lab: &Lab, user: usize) -> anyhow::Result<String> {
    let call = Call::get(URL).header("x-user", &format!("user-{user}"));
    Ok(send(lab, call).await?.app_pod().to_owned())
}

async fn homes(lab: &Lab) -> anyhow::Result<Vec<String>> {
    let mut homes = Vec::new();
    for user in 0..USERS {
        homes.push(home(lab, user).await?);
    }
    Ok(homes)
}

fn different(pods: &[String]) -> usize {
    pods.iter().collect::<BTreeSet<_>>().len()
}

async fn header(lab: &Lab) -> anyhow::Result<()> {
    for table in ["ringHash: {minimumRingSize: 4096}", "maglev: {}"] {
        balanced(lab, &format!("httpHeaderName: x-user, {table}"), "").await?;
        let first = homes(lab).await?;
        ensure!(different(&first) == 4, "{table}: {first:?}");
        for _ in 0..3 {
            ensure!(homes(lab).await? == first, "{table}: some key has moved");
        }
        let mut without = Vec::new();
        for _ in 0..USERS {
            without.push(send(lab, Call::get(URL)).await?.app_pod().to_owned());
        }
        ensure!(
            different(&without) == 4,
            "without a key chance decides: {without:?}"
        );
    }
    Ok(())
}

async fn cookie(lab: &Lab) -> anyhow::Result<()> {
    let attributes = "attributes: [{name: SameSite, value: Lax}]";
    balanced(
        lab,
        &format!("httpCookie: {{name: cart, path: /, ttl: 1h, {attributes}}}"),
        "",
    )
    .await?;
    let mut pods = Vec::new();
    for _ in 0..USERS {
        let first = send(lab, Call::get(URL)).await?;
        let cookie = first.header("set-cookie").to_owned();
        let (pair, rest) = cookie.split_once("; ").unwrap_or_default();
        ensure!(pair.starts_with("cart="), "{cookie}");
        ensure!(rest == "Max-Age=3600; Path=/; SameSite=Lax; HttpOnly", "{cookie}");
        for _ in 0..3 {
            let again = send(lab, Call::get(URL).header("cookie", pair)).await?;
            ensure!(
                again.app_pod() == first.app_pod(),
                "{pair}: {} then {}",
                first.app_pod(),
                again.app_pod()
            );
            ensure!(again.header("set-cookie").is_empty(), "it has one already");
        }
        pods.push(first.app_pod().to_owned());
    }
    ensure!(different(&pods) == 4, "{pods:?}");
    // Without a lifetime none is made.
    balanced(lab, "httpCookie: {name: cart}", "").await?;
    let reply = send(lab, Call::get(URL)).await?;
    ensure!(
        reply.header("set-cookie").is_empty(),
        "{}",
        reply.header("set-cookie")
    );
    Ok(())
}

async fn others(lab: &Lab) -> anyhow::Result<()> {
    balanced(lab, "httpQueryParameterName: user", "").await?;
    let mut pods = Vec::new();
    for user in 0..USERS {
        let url = format!("{URL}?a=b&user={user}");
        let first = send(lab, Call::get(&url)).await?;
        let again = send(lab, Call::get(&url)).await?;
        ensure!(first.app_pod() == again.app_pod(), "{user}");
        pods.push(first.app_pod().to_owned());
    }
    ensure!(different(&pods) == 4, "{pods:?}");
    balanced(lab, "useSourceIp: true", "").await?;
    let mut pods = Vec::new();
    for _ in 0..USERS {
        pods.push(send(lab, Call::get(URL)).await?.app_pod().to_owned());
    }
    ensure!(different(&pods) == 1, "all come from one address: {pods:?}");
    Ok(())
}

async fn ejected(lab: &Lab) -> anyhow::Result<()> {
    let detection =
        "  outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 6s, maxEjectionPercent: 100}";
    balanced(lab, "httpHeaderName: x-user", detection).await?;
    let first = homes(lab).await?;
    let sick = first[0].clone();
    lab.app(&sick).mode(Mode::Fail(500)).await?;
    let failing = async {
        for _ in 0..2 {
            let call = Call::get(URL).header("x-user", "user-0");
            lab.pod("web").send(call).await?;
        }
        homes(lab).await
    };
    let during = failing.await;
    lab.app(&sick).mode(Mode::Ok).await?;
    let during = during?;
    for (before, during) in first.iter().zip(&during) {
        ensure!(*during != sick, "it is ejected");
        ensure!(
            *before == sick || before == during,
            "a key of another endpoint has moved"
        );
    }
    tests::lab::eventually(super::super::SOON, "every key is back", async || {
        ensure!(homes(lab).await? == first);
        Ok(())
    })
    .await
}

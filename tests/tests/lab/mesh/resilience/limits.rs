//! The limits of `connectionPool`: what exceeds them waits where it may, and is refused at once, by the limit's name, where
//! it may not.

use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::client::{Call, Reply};
use tests::lab::{Builder, Lab, PortSpec, ServiceSpec, eventually};
use tests::load::Plan;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::SOON;
use super::super::group::Group;
use super::super::rules::{all_to, destination_rule, policy};

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "more requests than http2MaxRequests are refused by name",
            requests,
        ),
        group.trial(
            "requests beyond maxConnections wait their turn, http1MaxPendingRequests of them",
            connections,
        ),
        group.trial(
            "more requests than http1MaxPendingRequests wait for no connection",
            pending,
        ),
        group.trial("a TCP connection beyond maxConnections is closed", tcp),
        group.trial(
            "maxRequestsPerConnection ends a connection in time, without an error",
            per_connection,
        ),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("busy").version("v1", 1))
        .service(ServiceSpec::http("few").version("v1", 1))
        .manifest("dr-few", &destination_rule("few", FEW))
        .manifest(
            "nowhere",
            &format!("{NOWHERE}{ONE_TRY}---\n{}", destination_rule("nowhere", PENDING)),
        )
        .service(ServiceSpec::http("fresh").version("v1", 1))
        .service(
            ServiceSpec::new("lines")
                .port(PortSpec::silent(7000))
                .version("v1", 1),
        )
        .client("web")
}

/// Makes `count` slow calls at once.
async fn at_once(lab: &Lab, url: &str, count: usize) -> anyhow::Result<Vec<Reply>> {
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..count {
        let web = lab.pod("web");
        let call = Call::get(url);
        calls.spawn(async move { web.send(call).await });
    }
    let mut replies = Vec::new();
    while let Some(done) = timeout(SOON, calls.join_next()).await? {
        replies.push(done??);
    }
    Ok(replies)
}

fn check(replies: &[Reply], good: usize, limit: &str) -> anyhow::Result<()> {
    let (passed, refused): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 200);
    ensure!(
        passed.len() == good,
        "{} of {} passed",
        passed.len(),
        replies.len()
    );
    for reply in refused {
        ensure!(
            reply.status == 503 && reply.header("x-hauberk-reason") == "overflow",
            "{} {:?}",
            reply.status,
            reply.headers
        );
        ensure!(
            reply.text().contains(limit),
            "the limit is named: {}",
            reply.text()
        );
        ensure!(
            reply.took < Duration::from_millis(900),
            "it was held for {:?}",
            reply.took
        );
    }
    Ok(())
}

async fn requests(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy: {connectionPool: {http: {http2MaxRequests: 3}}}";
    policy(lab, &["web"], "busy", spec, &all_to("busy")).await?;
    let replies = at_once(lab, "http://busy:8080/delay/1000", 8).await?;
    check(&replies, 3, "http2MaxRequests")?;
    let labels = [("limit", "http2MaxRequests")];
    let counted = lab
        .proxy("web")
        .metric("hauberk_cluster_overflow_total", &labels)
        .await?;
    ensure!((counted - 5.0).abs() < f64::EPSILON, "{counted} counted");
    let again = lab.pod("web").get("http://busy:8080/").await?;
    ensure!(again.status == 200, "places are free again: {}", again.status);
    Ok(())
}

/// There from the start, so that no connection that was made otherwise takes a place.
const FEW: &str = "trafficPolicy:\n  connectionPool:\n    tcp: {maxConnections: 2}\n    \
                   http: {http1MaxPendingRequests: 2, h2UpgradePolicy: DO_NOT_UPGRADE}";

async fn connections(lab: &Lab) -> anyhow::Result<()> {
    let (slow, more) = tokio::join!(at_once(lab, "http://few:8080/delay/3000", 2), async {
        eventually(SOON, "both connections are in use", async || {
            let text = lab.proxy("web").metrics().await?;
            let both = text.lines().any(|line| {
                line.starts_with("hauberk_cluster_connections_active")
                    && line.contains("few")
                    && line.ends_with(" 2")
            });
            ensure!(both, "not yet");
            Ok(())
        })
        .await?;
        at_once(lab, "http://few:8080/", 5).await
    });
    check(&slow?, 2, "none")?;
    let more = more?;
    check(&more, 2, "http1MaxPendingRequests")?;
    for reply in more.iter().filter(|reply| reply.status == 200) {
        ensure!(
            reply.took > Duration::from_millis(500),
            "it waited for {:?} only",
            reply.took
        );
    }
    Ok(())
}

/// A service whose only endpoint is an address that nobody has: connecting to it takes until the timeout.
const NOWHERE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: nowhere, namespace: shop}\nspec:\n  \
    clusterIP: 10.96.202.1\n  clusterIPs: [10.96.202.1]\n  \
    ports: [{name: http, port: 8080, targetPort: 8080, protocol: TCP}]\n---\n\
    apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
    metadata: {name: nowhere-x, namespace: shop, labels: {kubernetes.io/service-name: nowhere}}\n\
    addressType: IPv4\nports: [{name: http, port: 8080, protocol: TCP}]\n\
    endpoints: [{addresses: [10.77.251.251], conditions: {ready: true}}]\n---\n";
const PENDING: &str =
    "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1s}, http: {http1MaxPendingRequests: 2}}}";
const ONE_TRY: &str = "apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\n\
    metadata: {name: nowhere, namespace: shop}\nspec:\n  hosts: [nowhere]\n  http:\n  \
    - retries: {attempts: 0}\n    route: [{destination: {host: nowhere}}]\n";

async fn pending(lab: &Lab) -> anyhow::Result<()> {
    let replies = at_once(lab, "http://10.96.202.1:8080/", 6).await?;
    let (waited, refused): (Vec<&Reply>, Vec<&Reply>) = replies
        .iter()
        .partition(|reply| reply.header("x-hauberk-reason") == "connect_timeout");
    ensure!(
        waited.len() == 2,
        "{} of 6 waited for a connection: {replies:?}",
        waited.len()
    );
    for reply in refused {
        ensure!(
            reply.status == 503 && reply.text().contains("http1MaxPendingRequests"),
            "{reply:?}"
        );
        ensure!(
            reply.took < Duration::from_millis(900),
            "it was held for {:?}",
            reply.took
        );
    }
    Ok(())
}

async fn tcp(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}";
    lab.apply("dr-lines", &destination_rule("lines", spec))?;
    // Its arrival shows in the first refusal.
    let refused = eventually(SOON, "a second connection is refused", async || {
        let mut first = lab.pod("web").connect("lines:7000").await?;
        ping(&mut first).await.context("the first connection works")?;
        let mut second = lab.pod("web").connect("lines:7000").await?;
        ensure!(ping(&mut second).await.is_err(), "it works as well");
        ping(&mut first).await.context("the first one goes on")
    });
    refused.await?;
    eventually(SOON, "the place is free again", async || {
        let mut next = lab.pod("web").connect("lines:7000").await?;
        ping(&mut next).await
    })
    .await
}

async fn ping(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(b"x\n").await?;
    let mut text = [0; 2];
    timeout(SOON, stream.read_exact(&mut text)).await??;
    ensure!(&text == b"X\n", "{text:?}");
    Ok(())
}

async fn per_connection(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 5}}}";
    policy(lab, &["web"], "fresh", spec, &all_to("fresh")).await?;
    let opened = async || {
        let text = lab.proxy("web").metrics().await?;
        let of_fresh = text.lines().filter(|line| {
            line.starts_with("hauberk_cluster_connections_opened_total") && line.contains("fresh")
        });
        let sum: f64 = of_fresh
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        anyhow::Ok(sum)
    };
    let before = opened().await?;
    let plan = Plan::get("http://fresh:8080/").requests(50);
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    let more = opened().await? - before;
    ensure!(
        (9.0..=11.0).contains(&more),
        "{more} connections for 50 requests, 5 on each"
    );
    Ok(())
}

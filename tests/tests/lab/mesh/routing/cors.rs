//! Cross-origin requests: the proxy answers preflights for the application, and says who may read other answers.

use std::sync::Arc;

use anyhow::ensure;
use http::Method;
use libtest_mimic::Trial;
use tests::client::{Call, Reply};
use tests::lab::Lab;

use super::super::group::Group;
use super::super::resilience::all_requests;
use super::super::rules::route;

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![group.trial(
        "preflights of allowed origins are answered by the proxy, and others as the rule says",
        cors,
    )]
}

const RULES: &str = "\
- match: [{uri: {prefix: /ignore}}]
  corsPolicy: {allowOrigins: [{exact: \"https://shop.example\"}], unmatchedPreflights: IGNORE}
  route: [{destination: {host: reviews}}]
- corsPolicy:
    allowOrigins: [{exact: \"https://shop.example\"}, {prefix: \"https://dev.\"}]
    allowMethods: [GET, PUT]
    allowHeaders: [x-token]
    exposeHeaders: [x-app-version]
    maxAge: 10m
    allowCredentials: true
  route: [{destination: {host: reviews}}]";

async fn ask(lab: &Lab, method: Method, path: &str, origin: &str) -> anyhow::Result<Reply> {
    let call = Call::new(method, &format!("http://reviews:8080{path}"))
        .header("origin", origin)
        .header("access-control-request-method", "PUT");
    lab.pod("web").send(call).await
}

async fn cors(lab: &Lab) -> anyhow::Result<()> {
    route(lab, &["web"], "reviews", RULES).await?;
    let before = all_requests(lab, "reviews").await?;
    for origin in ["https://shop.example", "https://dev.shop.example"] {
        let reply = ask(lab, Method::OPTIONS, "/", origin).await?;
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET,PUT"),
            ("access-control-allow-headers", "x-token"),
            ("access-control-max-age", "600"),
            ("access-control-allow-credentials", "true"),
        ] {
            ensure!(
                reply.status == 200 && reply.header(name) == value,
                "{name}: {reply:?}"
            );
        }
        ensure!(reply.app_pod().is_empty(), "{reply:?}");
    }
    let ignored = ask(lab, Method::OPTIONS, "/ignore", "https://evil.example").await?;
    ensure!(
        ignored.status == 200
            && ignored.header("access-control-allow-origin").is_empty()
            && ignored.app_pod().is_empty(),
        "{ignored:?}"
    );
    ensure!(
        all_requests(lab, "reviews").await? == before,
        "the application heard of a preflight"
    );
    let forwarded = ask(lab, Method::OPTIONS, "/", "https://evil.example").await?;
    ensure!(
        !forwarded.app_pod().is_empty() && forwarded.header("access-control-allow-origin").is_empty(),
        "{forwarded:?}"
    );
    let read = ask(lab, Method::PUT, "/", "https://shop.example").await?;
    ensure!(
        !read.app_pod().is_empty()
            && read.header("access-control-allow-origin") == "https://shop.example"
            && read.header("access-control-expose-headers") == "x-app-version"
            && read.header("vary") == "origin",
        "{read:?}"
    );
    Ok(())
}

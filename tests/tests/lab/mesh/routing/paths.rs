//! New paths by regular expression, and redirects that swap a prefix or keep to their port.

use std::sync::Arc;

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::app::Answer;
use tests::client::Call;
use tests::lab::Lab;

use super::super::group::Group;
use super::super::rules::route;

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial(
            "a path is rewritten by a regular expression and its groups",
            by_regex,
        ),
        group.trial("a redirect swaps the prefix that was matched", swapped),
    ]
}

async fn by_regex(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- match: [{uri: {prefix: /users}}]\n  rewrite:\n    \
                 uriRegexRewrite: {match: \"^/users/([^/]+)/(.*)$\", rewrite: '/\\2/of/\\1'}\n  \
                 route: [{destination: {host: reviews}}]\n- route: [{destination: {host: reviews}}]";
    route(lab, &["web"], "reviews", rules).await?;
    for (path, expected) in [
        (
            "/users/ann/orders/7?q=/users/x/y",
            "/orders/7/of/ann?q=/users/x/y",
        ),
        ("/users/ann", "/users/ann"),
        ("/other/users/ann/x", "/other/users/ann/x"),
    ] {
        for call in [
            Call::get(&format!("http://reviews:8080{path}")),
            Call::get(&format!("http://reviews:8080{path}")).http2(),
        ] {
            let answer: Answer = lab.pod("web").send(call).await?.json()?;
            ensure!(answer.request.path == expected, "{path}: {:?}", answer.request);
        }
    }
    Ok(())
}

async fn swapped(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- match: [{uri: {prefix: /v1}}]\n  redirect: {prefixRewrite: /v2, redirectCode: 307}\n\
                 - match: [{uri: {prefix: /port}}]\n  \
                 redirect: {authority: other.test, derivePort: FROM_REQUEST_PORT}\n\
                 - route: [{destination: {host: reviews}}]";
    route(lab, &["web"], "reviews", rules).await?;
    for (url, status, location) in [
        (
            "http://reviews:8080/v1/items?q=1",
            307,
            "http://reviews:8080/v2/items?q=1",
        ),
        ("http://reviews:8080/port", 301, "http://other.test:8080/port"),
        ("http://reviews:8081/port", 301, "http://other.test:8081/port"),
    ] {
        let reply = lab.pod("web").get(url).await?;
        ensure!(
            reply.status == status && reply.header("location") == location,
            "{url}: {} {:?}",
            reply.status,
            reply.header("location")
        );
    }
    Ok(())
}

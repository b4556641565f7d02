//! VirtualService: each kind of rule does what the guide says, and nothing else.

mod cors;
mod faults;
mod mirrors;
mod paths;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Method;
use libtest_mimic::Trial;
use tests::app::Answer;
use tests::client::{Call, CallError};
use tests::lab::{App, Builder, Lab, PodSpec, PortSpec, ServiceSpec, TCP_CONTROL_PORT, eventually};
use tests::load::Plan;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::SOON;
use super::group::Group;
use super::rules::{all_to, policy, route};
use super::servers;

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    let mut trials = vec![
        group.trial(
            "requests are told apart by path, query, method, header and port",
            matches,
        ),
        group.trial("requests are told apart by who sends them", sources),
        group.trial(
            "the first rule that matches decides, and no rule is 404 with its reason",
            order,
        ),
        group.trial("a split over subsets holds its weights", split_subsets),
        group.trial("a split over two services holds its weights", split_services),
        group.trial(
            "headers are set, added and removed, for the rule and for the destination",
            headers,
        ),
        group.trial("paths and authorities are rewritten", rewrite),
        group.trial("redirects lead where they say", redirect),
        group.trial("a direct response comes from the proxy itself", direct),
        group.trial("a timeout ends the request, headers seen or not", timeouts),
        group.trial("TLS is told apart by its server name", sni),
        group.trial("connections are shared out by weight", tcp_split),
    ];
    trials.extend(paths::trials(&group));
    trials.extend(faults::trials(&group));
    trials.extend(cors::trials(&group));
    trials.extend(mirrors::trials(&group));
    trials
}

fn lab() -> Builder {
    let own = |name: &str| {
        ServiceSpec::new(name)
            .port(PortSpec::new("https", 8443, App::Nothing))
            .version("v1", 1)
    };
    Lab::builder()
        .service(
            ServiceSpec::http("reviews")
                .port(PortSpec::new("http-two", 8081, App::Http))
                .version("v1", 1)
                .version("v2", 1),
        )
        .service(ServiceSpec::http("ratings").version("v1", 1))
        .service(own("vault"))
        .service(own("safe"))
        .service(
            ServiceSpec::new("lines")
                .port(PortSpec::silent(7000))
                .version("v1", 1)
                .version("v2", 1),
        )
        .pod(PodSpec::new("web").label("tier", "front"))
        .pod(PodSpec::new("batch").label("tier", "back"))
}

const SUBSETS: &str = "subsets:\n- {name: v1, labels: {version: v1}}\n- {name: v2, labels: {version: v2}}";

/// Rules of which each answers with its own name, before everything goes to `reviews`.
fn named(rules: &[(&str, &str)]) -> String {
    let rules = rules.iter().map(|(name, matching)| {
        format!("- match: [{{{matching}}}]\n  directResponse: {{status: 200, body: {{string: {name}}}}}\n")
    });
    rules.collect::<String>() + &all_to("reviews")
}

/// The name of the rule that answered a call, or nothing when the application did.
async fn rule(lab: &Lab, pod: &str, call: Call) -> anyhow::Result<Option<String>> {
    let reply = lab.pod(pod).send(call).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(reply.app_pod().is_empty().then(|| reply.text()))
}

async fn matches(lab: &Lab) -> anyhow::Result<()> {
    let rules = named(&[
        ("exact", "uri: {exact: /exact}"),
        ("any-case", "uri: {exact: /Mixed}, ignoreUriCase: true"),
        ("prefix", "uri: {prefix: /prefix}"),
        ("regex", "uri: {regex: \"/items/[0-9]+\"}"),
        ("query", "uri: {prefix: /q}, queryParams: {debug: {exact: \"1\"}}"),
        ("query-is-there", "uri: {prefix: /q}, queryParams: {trace: {}}"),
        ("method", "uri: {prefix: /m}, method: {exact: DELETE}"),
        (
            "header",
            "uri: {prefix: /h}, headers: {x-user: {regex: \"alice|bob\"}}",
        ),
        ("without", "uri: {prefix: /w}, withoutHeaders: {x-internal: {}}"),
        ("authority", "authority: {prefix: special}"),
        ("port", "uri: {prefix: /p}, port: 8081"),
        (
            "both",
            "uri: {prefix: /b}, headers: {x-a: {exact: \"1\"}, x-b: {prefix: two}}",
        ),
    ]);
    route(lab, &["web"], "reviews", &rules).await?;
    let get = |path: &str| Call::get(&format!("http://reviews:8080{path}"));
    let two = |path: &str| Call::get(&format!("http://reviews:8081{path}"));
    let verb = |method: Method, path: &str| Call::new(method, &format!("http://reviews:8080{path}"));
    for (number, (call, expected)) in [
        (get("/exact"), Some("exact")),
        (get("/exact?q=1"), Some("exact")),
        (get("/exact/"), None),
        (get("/EXACT"), None),
        (get("/mixed"), Some("any-case")),
        (get("/MIXED"), Some("any-case")),
        (get("/prefix/more"), Some("prefix")),
        (get("/prefi"), None),
        (get("/items/17"), Some("regex")),
        (get("/items/17/more"), None),
        (get("/items/x"), None),
        (get("/q?a=b&debug=1"), Some("query")),
        (get("/q?debug=12"), None),
        (get("/q?trace"), Some("query-is-there")),
        (get("/q?trace=&x=y"), Some("query-is-there")),
        (get("/q"), None),
        (verb(Method::DELETE, "/m"), Some("method")),
        (verb(Method::GET, "/m"), None),
        (get("/h").header("x-user", "bob"), Some("header")),
        (get("/h").header("x-user", "bobby"), None),
        (get("/h"), None),
        (get("/w"), Some("without")),
        (get("/w").header("x-internal", "1"), None),
        (get("/").host("special.test"), Some("authority")),
        (get("/").http2().host("special.test"), Some("authority")),
        (two("/p"), Some("port")),
        (get("/p"), None),
        (
            get("/b").header("x-a", "1").header("x-b", "twofold"),
            Some("both"),
        ),
        (get("/b").header("x-a", "1"), None),
        (get("/b").header("x-b", "twofold"), None),
        (get("/exact").http2(), Some("exact")),
    ]
    .into_iter()
    .enumerate()
    {
        let shown = format!("call {number}: {call:?}");
        let found = rule(lab, "web", call).await.with_context(|| shown.clone())?;
        ensure!(
            found.as_deref() == expected,
            "{shown}: {found:?}, not {expected:?}"
        );
    }
    Ok(())
}

async fn sources(lab: &Lab) -> anyhow::Result<()> {
    let rules = named(&[
        ("front", "sourceLabels: {tier: front}, sourceNamespace: shop"),
        ("elsewhere", "sourceNamespace: elsewhere"),
    ]);
    route(lab, &["web", "batch"], "reviews", &rules).await?;
    for (pod, expected) in [("web", Some("front")), ("batch", None)] {
        let found = rule(lab, pod, Call::get("http://reviews:8080/")).await?;
        ensure!(found.as_deref() == expected, "{pod}: {found:?}");
    }
    Ok(())
}

async fn order(lab: &Lab) -> anyhow::Result<()> {
    let first = "- match: [{uri: {prefix: /a}}]\n  directResponse: {status: 200, body: {string: first}}\n\
                 - match: [{uri: {prefix: /a/b}}, {uri: {prefix: /c}}]\n  \
                 directResponse: {status: 200, body: {string: second}}";
    route(lab, &["web"], "ratings", first).await?;
    for (path, expected) in [("/a/b", "first"), ("/c", "second")] {
        let reply = lab.pod("web").get(&format!("http://ratings:8080{path}")).await?;
        ensure!(reply.text() == expected, "{path}: {}", reply.text());
    }
    let nothing = lab.pod("web").get("http://ratings:8080/d").await?;
    ensure!(
        nothing.status == 404 && nothing.header("x-hauberk-reason") == "no_route",
        "{nothing:?}"
    );
    ensure!(
        nothing.text().starts_with("hauberk: ") && nothing.text().contains("ratings"),
        "the body says who and why: {}",
        nothing.text()
    );
    route(lab, &["web"], "ratings", &all_to("ratings")).await
}

/// Whether `hits` of `all` are what chance allows at `share`: five standard deviations, so one wrong alarm in a million.
pub(super) fn by_chance(hits: u64, all: u64, share: f64) -> anyhow::Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let (hits, all) = (hits as f64, all as f64);
    let spread = 5.0 * (all * share * (1.0 - share)).sqrt();
    ensure!((hits - all * share).abs() <= spread, "{hits} of {all} at {share}");
    Ok(())
}

async fn split_subsets(lab: &Lab) -> anyhow::Result<()> {
    let split = "- route:\n  - {destination: {host: reviews, subset: v1}, weight: 90}\n  \
                 - {destination: {host: reviews, subset: v2}, weight: 10}";
    policy(lab, &["web"], "reviews", SUBSETS, split).await?;
    let plan = Plan::get("http://reviews:8080/").connections(4).requests(2_000);
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    let versions = report.versions();
    by_chance(versions.get("v2").copied().unwrap_or(0), 2_000, 0.1)?;
    ensure!(versions.len() == 2, "{versions:?}");

    let none = split
        .replace("weight: 90", "weight: 100")
        .replace("weight: 10}", "weight: 0}");
    policy(lab, &["web"], "reviews", SUBSETS, &none).await?;
    let plan = Plan::get("http://reviews:8080/").requests(200);
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(
        report.versions() == BTreeMap::from([("v1".to_owned(), 200)]),
        "{}",
        report.summary()
    );
    Ok(())
}

async fn split_services(lab: &Lab) -> anyhow::Result<()> {
    let split = "- route:\n  - {destination: {host: reviews}, weight: 1}\n  \
                 - {destination: {host: ratings}, weight: 3}";
    route(lab, &["web"], "reviews", split).await?;
    let mut hits = 0;
    let mut session = lab
        .pod("web")
        .session("reviews:8080", tests::client::Protocol::Http1)
        .await?;
    for _ in 0..400 {
        let reply = session.send(&Call::get("http://reviews:8080/")).await?;
        ensure!(reply.status == 200, "{reply:?}");
        hits += u64::from(reply.header("x-app-service") == "ratings");
    }
    by_chance(hits, 400, 0.75)
}

async fn headers(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- headers:\n    request: {set: {x-set: rule}, add: {x-add: rule}, remove: [x-gone]}\n    \
                 response: {set: {x-answer: rule}, remove: [x-app-version]}\n  route:\n  \
                 - destination: {host: reviews}\n    headers:\n      \
                 request: {add: {x-add: destination}}\n      response: {add: {x-answer: destination}}";
    route(lab, &["web"], "reviews", rules).await?;
    for call in [
        Call::get("http://reviews:8080/"),
        Call::get("http://reviews:8080/").http2(),
    ] {
        let call = call
            .header("x-set", "app")
            .header("x-add", "app")
            .header("x-gone", "app");
        let reply = lab.pod("web").send(call.header("x-kept", "app")).await?;
        let answer: Answer = reply.json()?;
        let seen = &answer.request.headers;
        ensure!(seen["x-set"] == "rule" && seen["x-kept"] == "app", "{seen:?}");
        ensure!(!seen.contains_key("x-gone"), "{seen:?}");
        let mut added: Vec<&str> = seen["x-add"].split(", ").collect();
        added.sort_unstable();
        ensure!(added == ["app", "destination", "rule"], "{seen:?}");
        let mut answers: Vec<_> = reply.headers.get_all("x-answer").iter().collect();
        answers.sort_unstable();
        ensure!(answers == ["destination", "rule"], "{:?}", reply.headers);
        ensure!(
            !reply.headers.contains_key("x-app-version"),
            "{:?}",
            reply.headers
        );
        ensure!(reply.app_pod().starts_with("reviews-"), "{:?}", reply.headers);
    }
    Ok(())
}

async fn rewrite(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- match: [{uri: {prefix: /api/}}]\n  rewrite: {uri: /, authority: inner.test}\n  \
                 route: [{destination: {host: reviews}}]\n\
                 - match: [{uri: {exact: /old}}]\n  rewrite: {uri: /new}\n  \
                 route: [{destination: {host: reviews}}]\n- route: [{destination: {host: reviews}}]";
    route(lab, &["web"], "reviews", rules).await?;
    for (path, expected, host) in [
        ("/api/v1/items?q=1", "/v1/items?q=1", "inner.test"),
        ("/api/", "/", "inner.test"),
        ("/old?q=1", "/new?q=1", "reviews:8080"),
        ("/other", "/other", "reviews:8080"),
    ] {
        for call in [
            Call::get(&format!("http://reviews:8080{path}")),
            Call::get(&format!("http://reviews:8080{path}")).http2(),
        ] {
            let answer: Answer = lab.pod("web").send(call).await?.json()?;
            ensure!(
                answer.request.path == expected && answer.request.host == host,
                "{path}: {:?}",
                answer.request
            );
        }
    }
    Ok(())
}

async fn redirect(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- match: [{uri: {exact: /old}}]\n  redirect: {uri: /new, redirectCode: 308}\n\
                 - match: [{uri: {prefix: /secure}}]\n  \
                 redirect: {scheme: https, authority: reviews.test, port: 8443}\n\
                 - match: [{uri: {prefix: /host}}]\n  redirect: {authority: other.test}\n\
                 - route: [{destination: {host: reviews}}]";
    route(lab, &["web"], "reviews", rules).await?;
    for (path, status, location) in [
        ("/old", 308, "http://reviews:8080/new"),
        ("/secure/x?y=z", 301, "https://reviews.test:8443/secure/x?y=z"),
        ("/host", 301, "http://other.test/host"),
    ] {
        let reply = lab.pod("web").get(&format!("http://reviews:8080{path}")).await?;
        ensure!(
            reply.status == status && reply.header("location") == location,
            "{path}: {} {:?}",
            reply.status,
            reply.header("location")
        );
    }
    Ok(())
}

async fn direct(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- match: [{uri: {exact: /text}}]\n  directResponse: {status: 418, body: {string: \"a\\nb\"}}\n  \
                 headers: {response: {set: {content-type: text/plain}}}\n\
                 - match: [{uri: {exact: /bytes}}]\n  directResponse: {status: 200, body: {bytes: AAEC/w==}}\n\
                 - match: [{uri: {exact: /none}}]\n  directResponse: {status: 503}\n\
                 - route: [{destination: {host: reviews}}]";
    route(lab, &["web"], "reviews", rules).await?;
    for (path, status, body) in [
        ("/text", 418, &b"a\nb"[..]),
        ("/bytes", 200, &[0, 1, 2, 255]),
        ("/none", 503, b""),
    ] {
        let reply = lab.pod("web").get(&format!("http://reviews:8080{path}")).await?;
        ensure!(reply.status == status && reply.body == body, "{path}: {reply:?}");
        ensure!(reply.app_pod().is_empty(), "{path}: {:?}", reply.headers);
    }
    let text = lab.pod("web").get("http://reviews:8080/text").await?;
    ensure!(text.header("content-type") == "text/plain", "{:?}", text.headers);
    Ok(())
}

async fn timeouts(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- timeout: 300ms\n  route: [{destination: {host: reviews}}]";
    route(lab, &["web"], "reviews", rules).await?;
    let late = lab.pod("web").get("http://reviews:8080/delay/8000").await?;
    ensure!(
        late.status == 504 && late.header("x-hauberk-reason") == "timeout",
        "{} {:?}",
        late.status,
        late.headers
    );
    ensure!(
        late.took >= Duration::from_millis(290) && late.took < Duration::from_secs(4),
        "{:?}",
        late.took
    );
    let quick = lab.pod("web").get("http://reviews:8080/delay/10").await?;
    ensure!(quick.status == 200, "{}", quick.status);
    // 800 pieces of 10 ms: the head comes in time, the end does not.
    let broken = lab.pod("web").get("http://reviews:8080/chunked/800").await;
    let error = broken.err().context("eight seconds passed within 300 ms")?;
    ensure!(
        matches!(error.downcast_ref(), Some(CallError::Broken(_))),
        "{error:?}"
    );
    Ok(())
}

async fn sni(lab: &Lab) -> anyhow::Result<()> {
    lab.apply(
        "vs-vault",
        "apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\nmetadata: {name: vault, namespace: shop}\n\
         spec:\n  hosts: [vault]\n  tls:\n\
         \x20 - match: [{sniHosts: [a.test]}]\n    route: [{destination: {host: vault}}]\n\
         \x20 - match: [{sniHosts: [b.test, c.test]}]\n    route: [{destination: {host: safe}}]\n",
    )?;
    let vault = servers::serve_tls(lab, "vault-v1-0", 8443, "a.test", "vault").await?;
    let safe = servers::serve_tls(lab, "safe-v1-0", 8443, "b.test", "safe").await?;
    for (name, connector, expected) in [("a.test", vault, "vault"), ("b.test", safe, "safe")] {
        eventually(SOON, &format!("{name} leads to {expected}"), async || {
            let stream = lab.pod("web").connect("vault:8443").await?;
            let mut stream = connector.connect(name.try_into()?, stream).await?;
            stream.shutdown().await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            ensure!(text == expected, "{text}");
            Ok(())
        })
        .await?;
    }
    let (_, stranger) = servers::tls("d.test")?;
    let stream = lab.pod("web").connect("vault:8443").await?;
    let refused = timeout(SOON, stranger.connect("d.test".try_into()?, stream)).await;
    ensure!(refused.context("a name without a rule hangs")?.is_err());
    Ok(())
}

fn lines(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: hauberk.dev/v1alpha1\nkind: DestinationRule\nmetadata: {{name: lines, namespace: shop}}\n\
         spec:\n  host: lines\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  \
         - {{name: v2, labels: {{version: v2}}}}\n---\n\
         apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\nmetadata: {{name: lines, namespace: shop}}\n\
         spec:\n  hosts: [lines]\n  tcp:\n  - match: [{{port: 7000}}]\n    route:\n    \
         - {{destination: {{host: lines, subset: v1}}, weight: {v1}}}\n    \
         - {{destination: {{host: lines, subset: v2}}, weight: {v2}}}\n"
    )
}

/// Opens `count` connections to `lines` and says how many v2 took.
async fn dial_lines(lab: &Lab, count: u64) -> anyhow::Result<u64> {
    let control = lab.control("lines-v2-0", TCP_CONTROL_PORT);
    let before = control.counters().await?.accepted;
    for _ in 0..count {
        let mut stream = lab.pod("web").connect("lines:7000").await?;
        stream.write_all(b"x\n").await?;
        let mut text = [0; 2];
        timeout(SOON, stream.read_exact(&mut text)).await??;
    }
    Ok(control.counters().await?.accepted - before)
}

async fn tcp_split(lab: &Lab) -> anyhow::Result<()> {
    lab.apply("lines", &lines(100, 0))?;
    eventually(SOON, "everything goes to v1", async || {
        let taken = dial_lines(lab, 20).await?;
        ensure!(taken == 0, "v2 got {taken} of 20");
        Ok(())
    })
    .await?;
    lab.apply("lines", &lines(30, 70))?;
    eventually(SOON, "v2 gets something", async || {
        ensure!(dial_lines(lab, 5).await? > 0);
        Ok(())
    })
    .await?;
    by_chance(dial_lines(lab, 300).await?, 300, 0.7)
}

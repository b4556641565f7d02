use api::{Body, Kind, Resource, ResourceName, names};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::config::testing::{Operator, Session, eventually, new, settings};
use crate::drain::{self, Controller, Phase};
use crate::identity::testing::{Ca, empty, id, install};

struct Running {
    address: SocketAddr,
    identity: Identity,
    operator: Operator,
    controller: Controller,
    handle: Handle,
    _token: tempfile::NamedTempFile,
}

async fn running() -> Running {
    running_with("{}").await
}

async fn running_with(probes: &str) -> Running {
    let (mut settings, token) = settings();
    settings.probes = probes.parse().expect("probes");
    let (handle, client, metrics) = new(&settings);
    let (operator, channel) = Operator::in_memory();
    tokio::spawn(client.run(channel));
    let identity = empty();
    let (controller, drain) = drain::channel();
    let admin = Admin::new(handle.clone(), identity.clone(), metrics, &settings, drain);
    let listener = Admin::bind(settings.admin).await.expect("listens");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(admin.serve(listener));
    Running {
        address,
        identity,
        operator,
        controller,
        handle,
        _token: token,
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: proxy\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

fn json(body: &str) -> serde_json::Value {
    serde_json::from_str(body).expect("JSON")
}

/// Everything that a proxy needs to be ready; the stream stays open until what comes back is dropped.
async fn configure(running: &mut Running, ca: &Ca) -> Session {
    let (session, _) = running.operator.welcome().await;
    let inbound = api::Inbound {
        policy: api::TlsPolicy::Permissive,
        ports: Vec::new(),
        sources: Vec::new(),
        finished: false,
    };
    let resource = |kind, name: &str, body| Resource::new(ResourceName::new(kind, name), body).into();
    let inbound = resource(Kind::Inbound, names::INBOUND_SELF, Body::Inbound(inbound));
    let trust = resource(
        Kind::TrustBundle,
        names::TRUST_BUNDLE_MESH,
        Body::TrustBundle(ca.bundle()),
    );
    session.update(vec![inbound, trust]).await;
    running.handle.ready().await;
    session
}

#[tokio::test]
async fn ready_says_what_is_missing_until_nothing_is() {
    let mut running = running().await;
    let ca = Ca::new();
    let (status, body) = ask(running.address, "GET", "/health/ready").await;
    assert_eq!(status, 503);
    assert!(
        body.contains("first configuration") && body.contains("no certificate"),
        "{body}"
    );
    assert_eq!(ask(running.address, "GET", "/health/live").await.0, 200);
    let (_, body) = ask(running.address, "GET", "/health").await;
    assert_eq!(json(&body)["status"], "starting");

    let _session = configure(&mut running, &ca).await;
    let (status, body) = ask(running.address, "GET", "/health/ready").await;
    assert_eq!(status, 503);
    assert!(
        !body.contains("first configuration") && body.contains("no certificate"),
        "{body}"
    );

    install(&running.identity, &ca.certificate(&id("web")), &ca.bundle());
    assert_eq!(
        ask(running.address, "GET", "/health/ready").await,
        (200, "ready\n".to_owned())
    );

    running.controller.enter(Phase::Going);
    let (status, body) = ask(running.address, "GET", "/ready").await;
    assert_eq!(status, 503);
    assert!(body.contains("shutting down"), "{body}");
    assert_eq!(ask(running.address, "GET", "/health/live").await.0, 200);
    let (_, body) = ask(running.address, "GET", "/health").await;
    assert_eq!(json(&body)["status"], "draining");
}

#[tokio::test]
async fn health_shows_the_process_and_what_it_depends_on() {
    let mut running = running().await;
    let ca = Ca::new();
    let _session = configure(&mut running, &ca).await;
    install(&running.identity, &ca.certificate(&id("web")), &ca.bundle());
    let (status, body) = ask(running.address, "GET", "/health").await;
    let health = json(&body);
    assert_eq!(status, 200);
    assert_eq!(health["status"], "ok");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    for number in [
        "/process/cpu_seconds",
        "/process/resident_bytes",
        "/disk/free_bytes",
        "/uptime_seconds",
    ] {
        assert!(
            health.pointer(number).is_some_and(serde_json::Value::is_number),
            "{number}: {health}"
        );
    }
    let operator = &health["dependencies"]["operator"];
    assert_eq!(operator["state"], "connected");
    assert_eq!(operator["address"], "https://operator.hauberk-system.svc:15010");
    assert!(operator["latency_ms"].is_number() && operator["last_received"].is_string());
    let certificate = &health["dependencies"]["certificate"];
    assert_eq!(certificate["state"], "valid");
    assert!(
        certificate["expires_in_seconds"]
            .as_u64()
            .is_some_and(|s| s > 3600),
        "{certificate}"
    );
}

#[tokio::test]
async fn an_operator_that_is_gone_makes_it_degraded_but_keeps_it_ready() {
    let mut running = running().await;
    let ca = Ca::new();
    install(&running.identity, &ca.certificate(&id("web")), &ca.bundle());
    let session = configure(&mut running, &ca).await;
    drop(session);
    let handle = running.handle.clone();
    eventually("disconnected", || !handle.link().connected).await;
    assert_eq!(ask(running.address, "GET", "/health/ready").await.0, 200);
    let (_, body) = ask(running.address, "GET", "/health").await;
    let health = json(&body);
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["dependencies"]["operator"]["state"], "disconnected");
    assert!(
        health["reasons"][0]
            .as_str()
            .is_some_and(|r| r.starts_with("operator: ")),
        "{health}"
    );
}

#[tokio::test]
async fn a_request_is_explained_by_what_is_active_and_a_question_that_is_none_says_what_it_takes() {
    let mut running = running().await;
    let session = configure(&mut running, &Ca::new()).await;
    let asked = async |query: &str| ask(running.address, "GET", &format!("/explain{query}")).await;
    for (query, status, says) in [
        ("", 400, "url: is needed"),
        ("?url=/x", 400, "url: has no host"),
        ("?url=http://a/&method=a%20b", 400, "method: "),
        ("?url=http://a/&header=x", 400, "header: has no colon"),
        ("?url=http://a/&what=x", 400, "\"what\" is not known"),
        ("?url=http://a/&format=yaml", 400, "format: "),
        ("?url=http://a:81/", 404, "a:81"),
        ("?url=http://10.0.0.9:81/", 200, "until the operator"),
    ] {
        let (found, body) = asked(query).await;
        assert!(found == status && body.contains(says), "{query}: {found} {body}");
        assert!(status == 200 || body.contains("/explain?url="), "{body}");
    }
    let address: SocketAddr = "10.96.0.1:80".parse().unwrap();
    let wanted = running.handle.clone();
    tokio::spawn(async move { wanted.discover(address).await });
    let resource = |kind, name: &str, body| Resource::new(ResourceName::new(kind, name), body).into();
    let to = api::Destination::Route("reviews.shop.svc.cluster.local:80".to_owned());
    session
        .update(vec![resource(
            Kind::Destination,
            "10.96.0.1:80",
            Body::Destination(to),
        )])
        .await;
    let route = crate::route::testing::route(
        vec![crate::route::testing::rule(
            vec![],
            &[("reviews.shop.svc.cluster.local:80", 1)],
        )],
        vec![],
    );
    let spec = api::Route::clone(&route.spec);
    let endpoints = api::Endpoints {
        endpoints: Vec::new(),
    };
    let name = "reviews.shop.svc.cluster.local:80";
    session
        .update(vec![
            resource(Kind::Route, name, Body::Route(Box::new(spec))),
            resource(
                Kind::Cluster,
                name,
                Body::Cluster(Box::new(api::Cluster::of(name))),
            ),
            resource(Kind::Endpoints, name, Body::Endpoints(endpoints)),
        ])
        .await;
    let handle = running.handle.clone();
    eventually("the route is active", || {
        handle.load().destination(address).is_some()
    })
    .await;
    let (status, body) = asked("?url=http://reviews/a%3Fb&header=x-a:%201&format=json").await;
    assert_eq!(status, 200, "{body}");
    let told = json(&body);
    assert_eq!(told["request"], "GET http://reviews/a?b");
    assert_eq!(told["clusters"][0]["name"], name);
    assert_eq!(told["clusters"][0]["share"], 100.0);
    let (_, text) = asked("?url=http://reviews.shop/").await;
    assert!(
        text.contains("takes every request") && text.contains("no endpoints"),
        "{text}"
    );
}

#[tokio::test]
async fn views_show_resources_clusters_and_metrics() {
    let mut running = running().await;
    let _session = configure(&mut running, &Ca::new()).await;
    let (status, body) = ask(running.address, "GET", "/config").await;
    assert_eq!(status, 200);
    let config = json(&body);
    assert_eq!(config["operator"]["connected"], true);
    assert_eq!(config["operator"]["reconnects"], 0);
    let resources = config["resources"].as_array().expect("a list");
    assert_eq!(resources.len(), 2);
    for resource in resources {
        assert_eq!(resource["state"], "active");
        assert!(
            resource["version"].is_string() && resource["applied"].is_string(),
            "{resource}"
        );
    }
    assert_eq!(
        ask(running.address, "GET", "/clusters").await,
        (200, "[]\n".to_owned())
    );
    let (status, body) = ask(running.address, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("hauberk_operator_connected 1") && body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn other_paths_list_what_there_is_and_nothing_can_be_changed() {
    let running = running().await;
    let (status, body) = ask(running.address, "GET", "/nothing").await;
    assert_eq!(status, 404);
    assert!(PATHS.iter().all(|path| body.contains(path)), "{body}");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(ask(running.address, method, "/health").await.0, 405, "{method}");
    }
    let (status, body) = ask(running.address, "HEAD", "/health").await;
    assert_eq!((status, body.as_str()), (200, ""));
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out_for_long() {
    let running = running().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(TcpStream::connect(running.address).await.expect("connects"));
    }
    // As many as are served at once: this one waits until their headers are overdue.
    let answer = tokio::time::timeout(HEADER_TIMEOUT * 3, ask(running.address, "GET", "/health/live"));
    assert_eq!(answer.await.expect("in time").0, 200);
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_connection_and_no_more() {
    let running = running().await;
    let mut nonsense = TcpStream::connect(running.address).await.expect("connects");
    let bytes = b"\x16\x03\x01\x00\x05hello\r\n\r\n";
    nonsense.write_all(bytes).await.expect("writes");
    let mut answer = Vec::new();
    nonsense.read_to_end(&mut answer).await.expect("closed");
    assert_eq!(ask(running.address, "GET", "/health/live").await.0, 200);
}

#[tokio::test]
async fn the_applications_probes_are_carried_out_for_whoever_asks() {
    let application = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = application.local_addr().expect("an address").port();
    let probes = format!("{{\"web/liveness\": {{\"kind\": \"tcp\", \"port\": {port}}}}}");
    let running = running_with(&probes).await;
    let probe = async || ask(running.address, "GET", "/probe/web/liveness").await;
    assert_eq!(probe().await, (200, "connected\n".to_owned()));
    running.controller.enter(Phase::Going);
    assert_eq!(probe().await.0, 200, "while it shuts down as well");
    drop(application);
    let (status, body) = probe().await;
    assert!(status == 503 && body.contains("refused"), "{status} {body}");
    let (status, body) = ask(running.address, "GET", "/probe/web/startup").await;
    assert!(status == 404 && body.contains("web/liveness"), "{status} {body}");
}

//! The webhooks as the API server calls them: the router without a socket, and once over TLS.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::authority::{Authority, AuthoritySettings, Store};
use crate::metrics::Metrics;
use crate::state::World;
use crate::state::testing::{shop, virtual_service, with, world};

/// An injector that does as the pod's annotation says, and shows what it was given.
fn injector() -> Injector {
    Arc::new(
        |namespace: &str, labels: &BTreeMap<String, String>, pod: &Value| match pod["metadata"]["annotations"]
            ["do"]
            .as_str()
        {
            Some("patch") => {
                let value = format!("{namespace} {labels:?}");
                let patch = json!([{"op": "add", "path": "/metadata/labels/from", "value": value}]);
                Outcome::Patch(serde_json::from_value(patch).unwrap(), vec!["odd".to_owned()])
            }
            Some("refuse") => Outcome::Refuse(vec!["annotation a: is wrong; use b".to_owned()]),
            _ => Outcome::Unchanged("nobody asked".to_owned()),
        },
    )
}

struct Running {
    router: Router,
    source: watch::Sender<SourceReport>,
    metrics: Metrics,
}

fn start(world: &World, loaded: bool) -> Running {
    let report = SourceReport {
        loaded,
        world: Arc::new(world.clone()),
        ..SourceReport::default()
    };
    let (sender, source) = watch::channel(report);
    let metrics = Metrics::new();
    let router = router(Admission {
        source,
        injector: injector(),
        metrics: metrics.admission.clone(),
    });
    Running {
        router,
        source: sender,
        metrics,
    }
}

async fn post_body(router: &Router, path: &str, body: impl Into<Body>) -> (u16, String) {
    let request = Request::post(path).body(body.into()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let body = to_bytes(response.into_body(), MAX_BODY).await.unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

async fn ask(router: &Router, path: &str, request: Value) -> (u16, Value) {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    let (code, text) = post_body(router, path, review.to_string()).await;
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn pod(annotation: &str) -> Value {
    json!({
        "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop",
        "operation": "CREATE", "dryRun": true,
        "object": {"metadata": {"generateName": "web-", "annotations": {"do": annotation}}},
    })
}

fn known() -> Arc<World> {
    world("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {hauberk.dev/inject: enabled}}")
}

#[tokio::test]
async fn a_pod_is_patched_refused_or_left_alone() {
    let running = start(&known(), true);
    let ask = async |annotation| {
        let (code, review) = ask(&running.router, "/inject", pod(annotation)).await;
        assert_eq!(
            (code, &review["response"]["uid"]),
            (200, &json!("u-1")),
            "{review}"
        );
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        review["response"].clone()
    };
    assert_eq!(ask("nothing").await, json!({"uid": "u-1", "allowed": true}));

    let patched = ask("patch").await;
    assert_eq!(
        (&patched["allowed"], &patched["patchType"]),
        (&json!(true), &json!("JSONPatch"))
    );
    assert_eq!(patched["warnings"], json!(["odd"]));
    let patch = patched["patch"].as_str().unwrap();
    let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    assert_eq!(patch[0]["value"], "shop {\"hauberk.dev/inject\": \"enabled\"}");

    let refused = ask("refuse").await;
    assert_eq!(
        (&refused["allowed"], &refused["status"]["code"]),
        (&json!(false), &json!(422))
    );
    let says = "pod shop/web- cannot get a proxy: annotation a: is wrong; use b";
    assert_eq!(refused["status"]["message"], says);

    let text = running.metrics.text();
    for outcome in ["allowed", "patched", "refused"] {
        let line =
            format!("hauberk_operator_admission_requests_total{{path=\"inject\",outcome=\"{outcome}\"}} 1");
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn only_the_creation_of_pods_is_looked_at() {
    let running = start(&known(), true);
    for (field, value) in [("operation", "UPDATE"), ("subResource", "eviction")] {
        let mut request = pod("refuse");
        request[field] = value.into();
        let (_, review) = ask(&running.router, "/inject", request).await;
        assert_eq!(review["response"]["allowed"], true, "{review}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_was_made_this_moment_is_waited_for() {
    let running = start(&World::default(), true);
    let asking = tokio::spawn({
        let router = running.router.clone();
        async move { ask(&router, "/inject", pod("patch")).await }
    });
    tokio::time::sleep(CATCH_UP / 2).await;
    assert!(!asking.is_finished());
    running.source.send_modify(|report| report.world = known());
    let (_, review) = asking.await.unwrap();
    assert_eq!(review["response"]["patchType"], "JSONPatch", "{review}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_is_left_to_the_failure_policy() {
    for (world, loaded, path) in [
        (World::default(), true, "/inject"),
        (World::clone(&known()), false, "/inject"),
        (World::clone(&known()), false, "/validate"),
    ] {
        let running = start(&world, loaded);
        let mut request = pod("patch");
        if path == "/validate" {
            request["kind"] =
                json!({"group": "hauberk.dev", "version": "v1alpha1", "kind": "VirtualService"});
        }
        let (code, text) = ask(&running.router, path, request).await;
        assert_eq!(code, 503, "{text}");
        assert!(running.metrics.text().contains("outcome=\"unavailable\"} 1"));
    }
}

#[tokio::test]
async fn an_object_is_judged_by_the_newest_world() {
    let running = start(&World::default(), true);
    let object: Value = serde_saphyr::from_str(&virtual_service(
        "v",
        "  hosts: [ratings]\n  http: [{route: [{destination: {host: ratings}}]}]",
    ))
    .unwrap();
    let request = json!({
        "uid": "u-2", "kind": {"group": "hauberk.dev", "version": "v1alpha1", "kind": "VirtualService"},
        "namespace": "shop", "name": "v", "operation": "CREATE", "object": object,
    });
    let (_, review) = ask(&running.router, "/validate", request.clone()).await;
    let warnings = review["response"]["warnings"].as_array().unwrap();
    assert!(
        warnings[0].as_str().unwrap().contains("does not exist"),
        "{review}"
    );

    running
        .source
        .send_modify(|report| report.world = with(&report.world, &shop()).0);
    let (_, review) = ask(&running.router, "/validate", request.clone()).await;
    assert_eq!(review["response"], json!({"uid": "u-2", "allowed": true}));

    let mut wrong = request;
    wrong["object"]["spec"]["hosts"] = json!(["a*"]);
    let (_, review) = ask(&running.router, "/validate", wrong).await;
    assert_eq!(review["response"]["allowed"], false);
    let message = review["response"]["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("VirtualService shop/v is refused: spec.hosts[0]: "),
        "{message}"
    );
}

#[tokio::test]
async fn what_is_malformed_is_said_to_be() {
    let running = start(&known(), true);
    let mut service = pod("patch");
    service["kind"]["kind"] = "Service".into();
    for path in ["/inject", "/validate"] {
        let (code, text) = ask(&running.router, path, service.clone()).await;
        assert_eq!(code, 400, "{text}");
        let (code, text) = post_body(&running.router, path, "{}").await;
        assert_eq!(code, 400);
        assert!(text.starts_with("not an AdmissionReview"), "{text}");
        let (code, _) = post_body(&running.router, path, vec![b' '; MAX_BODY + 1]).await;
        assert_eq!(code, 413);
    }
    assert_eq!(post_body(&running.router, "/other", "{}").await.0, 404);
}

async fn authority(dir: &std::path::Path) -> Arc<Authority> {
    let settings = AuthoritySettings {
        trust_domain: "cluster.local".to_owned(),
        lifetime: Duration::from_secs(3600),
    };
    Authority::open(settings, Store::directory(dir), Metrics::new().authority)
        .await
        .unwrap()
}

#[tokio::test]
async fn it_is_served_over_tls_until_told_to_stop() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).await;
    let identity = ServerIdentity::new(&authority).unwrap();
    let (_source, source) = watch::channel(SourceReport {
        loaded: true,
        world: known(),
        ..SourceReport::default()
    });
    let admission = Admission {
        source,
        injector: injector(),
        metrics: Metrics::new().admission,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(admission.serve(listener, identity, async { drop(stopped.await) }));

    let mut roots = rustls::RootCertStore::empty();
    for root in &authority.bundle().roots {
        roots.add(root.to_vec().into()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The name that the API server verifies: Service, namespace, `svc`.
    let name = "hauberk-control-plane.hauberk-system.svc".try_into().unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut tls = connector.connect(name, tcp).await.unwrap();
    let body =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": pod("patch")});
    let body = body.to_string();
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    tls.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("JSONPatch") {
        let mut part = [0; 4096];
        let n = tls.read(&mut part).await.unwrap();
        assert!(n > 0, "{answer}");
        answer.push_str(std::str::from_utf8(&part[..n]).unwrap());
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

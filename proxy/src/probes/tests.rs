use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::config::testing::{eventually, settings};
use crate::identity::testing::{Ca, id};
use crate::identity::verify::provider;

/// An application that keeps what it is asked, and answers by the path.
#[derive(Debug, Clone, Default)]
struct App(Arc<Mutex<Vec<String>>>);

impl App {
    async fn listen() -> (Self, TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self::default(), listener, address)
    }

    async fn http() -> (Self, u16) {
        let (app, listener, address) = Self::listen().await;
        let serving = app.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        (app, address.port())
    }

    async fn https() -> (Self, u16) {
        let (app, listener, address) = Self::listen().await;
        let certificate = Ca::new().certificate(&id("nobody-knows"));
        let resolver = SingleCertAndKey::from(CertifiedKey::clone(&certificate.key));
        let config = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let serving = app.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(serving.clone().serve(stream));
                }
            }
        });
        (app, address.port())
    }

    async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked().push(head);
        let port = path.rsplit('/').next().unwrap_or_default();
        let answer = match path.split('/').nth(1).unwrap_or_default() {
            "silent" => std::future::pending().await,
            "busy" => "503 Service Unavailable\r\ncontent-length: 26\r\n\r\nthe database\n is away\r\n!\x1b["
                .to_owned(),
            "long" => format!("200 OK\r\n\r\n{}", "x".repeat(1 << 20)),
            "cut" => "200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
            "moved" => "302 Found\r\nlocation: ../ready?again\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "moved-port" => {
                format!(
                    "307 Temporary Redirect\r\nlocation: http://127.0.0.1:{port}/ready\r\ncontent-length: 0\r\n\r\n"
                )
            }
            "moved-away" => {
                "301 Moved\r\nlocation: https://shop.example/\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            "circle" => "301 Moved\r\nlocation: /circle\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "nonsense" => "SMTP\r\n".to_owned(),
            _ => "204 No Content\r\n\r\n".to_owned(),
        };
        let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prober(probes: &serde_json::Value) -> Prober {
    let (mut settings, _token) = settings();
    settings.probes = probes.to_string().parse().unwrap();
    settings.pod_ips = vec!["127.0.0.1".parse().unwrap()];
    Prober::new(&settings)
}

/// What comes of one probe.
async fn outcome(probe: serde_json::Value) -> Outcome {
    let agent = HeaderValue::from_static("kube-probe/1.30");
    let prober = prober(&serde_json::json!({ "web/readiness": probe }));
    prober.probe("web/readiness", Some(&agent)).await
}

async fn get(port: u16, path: &str) -> Outcome {
    outcome(serde_json::json!({"kind": "http", "port": port, "path": path})).await
}

#[track_caller]
fn failed(outcome: Outcome, parts: &[&str]) {
    match outcome {
        Outcome::Failed(why) if parts.iter().all(|part| why.contains(part)) && !why.contains('\n') => {}
        other => panic!("{other:?} should have failed with {parts:?}"),
    }
}

fn passed(seen: &str) -> Outcome {
    Outcome::Passed(seen.to_owned())
}

#[tokio::test]
async fn an_http_probe_asks_as_the_kubelet_does() {
    let (app, port) = App::http().await;
    let headers = serde_json::json!([
        {"name": "Host", "value": "shop.example"},
        {"name": "X-Probe", "value": "1"},
        {"name": "x-probe", "value": "2"},
        {"name": "Accept", "value": ""},
    ]);
    let probe =
        serde_json::json!({"kind": "http", "port": port, "path": "/ready?full=1", "headers": headers});
    assert_eq!(outcome(probe).await, passed("HTTP 204"));
    let asked = app.asked().pop().unwrap().to_lowercase();
    assert!(asked.starts_with("get /ready?full=1 http/1.1\r\n"), "{asked}");
    for line in [
        "host: shop.example",
        "x-probe: 1",
        "x-probe: 2",
        "user-agent: kube-probe/1.30",
        "connection: close",
    ] {
        assert_eq!(
            asked.matches(&format!("\r\n{line}\r\n")).count(),
            1,
            "{line} in {asked}"
        );
    }
    assert!(!asked.contains("accept"), "{asked}");
    assert_eq!(get(port, "ready").await, passed("HTTP 204"));
    let asked = app.asked().pop().unwrap();
    assert!(
        asked.contains(&format!("host: 127.0.0.1:{port}\r\n")) && asked.contains("accept: */*\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_status_below_200_or_from_400_fails_with_what_the_application_said() {
    let (_, port) = App::http().await;
    failed(get(port, "/busy").await, &["HTTP 503: the database is away !?["]);
    failed(get(port, "/cut").await, &["broke off"]);
    failed(get(port, "/nonsense").await, &[]);
    assert_eq!(get(port, "/long").await, passed("HTTP 200"));
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_same_host_and_counts_elsewhere() {
    let (app, port) = App::http().await;
    let headers = serde_json::json!([{"name": "Host", "value": "shop.example"}]);
    let with_host = |path: &str| {
        outcome(serde_json::json!({"kind": "http", "port": port, "path": path, "headers": headers}))
    };
    assert_eq!(with_host("/moved/a").await, passed("HTTP 204"));
    let asked = app.asked().pop().unwrap();
    assert!(
        asked.starts_with("GET /ready?again ") && asked.contains("host: shop.example\r\n"),
        "{asked}"
    );
    let (other, other_port) = App::http().await;
    assert_eq!(
        with_host(&format!("/moved-port/{other_port}")).await,
        passed("HTTP 204")
    );
    let asked = other.asked().pop().unwrap();
    assert!(
        asked.contains(&format!("host: 127.0.0.1:{other_port}\r\n")),
        "{asked}"
    );
    match get(port, "/moved-away").await {
        Outcome::Passed(seen) => assert!(seen.contains("301"), "{seen}"),
        other => panic!("{other:?}"),
    }
    failed(get(port, "/circle").await, &["more than 10"]);
}

#[tokio::test]
async fn https_is_spoken_without_verification() {
    let (app, port) = App::https().await;
    let probe = serde_json::json!({"kind": "http", "port": port, "scheme": "HTTPS", "path": "/ready"});
    assert_eq!(outcome(probe).await, passed("HTTP 204"));
    assert_eq!(app.asked().len(), 1);
    let (_, plain) = App::http().await;
    let probe = serde_json::json!({"kind": "http", "port": plain, "scheme": "https", "path": "/ready"});
    let held = tokio::time::timeout(Duration::from_secs(5), outcome(probe))
        .await
        .unwrap();
    failed(held, &[]);
}

#[tokio::test]
async fn a_tcp_probe_passes_where_something_listens() {
    let (_app, listener, address) = App::listen().await;
    let probe = serde_json::json!({"kind": "tcp", "port": address.port()});
    assert_eq!(outcome(probe.clone()).await, passed("connected"));
    drop(listener);
    failed(outcome(probe).await, &["refused", &address.to_string()]);
    let named = TcpListener::bind("localhost:0").await.unwrap();
    let port = named.local_addr().unwrap().port();
    let probe = serde_json::json!({"kind": "tcp", "port": port, "host": "localhost"});
    assert_eq!(outcome(probe).await, passed("connected"));
}

/// A health service that knows the service `cart` with this status, and no other.
async fn health(status: u8) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let agent = request.headers()["user-agent"].to_str().unwrap();
                    assert!(agent.starts_with("kube-probe/1.30"), "{agent}");
                    let mut body = request.into_body();
                    let mut asked = Vec::new();
                    while let Some(Ok(data)) = body.data().await {
                        asked.extend_from_slice(&data);
                    }
                    let response = ::http::Response::builder().header("content-type", "application/grpc");
                    if asked != b"\0\0\0\0\x06\x0a\x04cart" {
                        let response = response.header("grpc-status", "5").body(()).unwrap();
                        return drop(respond.send_response(response, true));
                    }
                    let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
                    let answer = [0, 0, 0, 0, 2, 8, status];
                    stream.send_data(answer.to_vec().into(), false).unwrap();
                    let trailers =
                        [("grpc-status", "0")].map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
                    stream.send_trailers(trailers.into_iter().collect()).unwrap();
                });
            }
        }
    });
    port
}

#[tokio::test]
async fn a_grpc_probe_passes_when_the_service_serves() {
    let probe =
        |port: u16, service: &str| serde_json::json!({"kind": "grpc", "port": port, "service": service});
    assert_eq!(outcome(probe(health(1).await, "cart")).await, passed("SERVING"));
    failed(outcome(probe(health(2).await, "cart")).await, &["NOT_SERVING"]);
    failed(outcome(probe(health(1).await, "other")).await, &["\"other\""]);
    let (_, http) = App::http().await;
    failed(outcome(probe(http, "cart")).await, &[]);
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    failed(outcome(probe(closed.port(), "cart")).await, &["refused"]);
}

#[tokio::test]
async fn an_application_that_hangs_fails_at_the_timeout_and_is_left() {
    let (app, port) = App::http().await;
    let started = tokio::time::Instant::now();
    failed(get(port, "/silent").await, &["no answer within 1s"]);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(app.asked().len(), 1);
    let (_held, _listener, address) = App::listen().await;
    failed(
        outcome(serde_json::json!({"kind": "grpc", "port": address.port()})).await,
        &["no answer within"],
    );
}

#[tokio::test]
async fn more_probes_than_may_be_at_once_are_refused() {
    let (app, port) = App::http().await;
    let silent = serde_json::json!({"kind": "http", "port": port, "path": "/silent", "timeoutSeconds": 60});
    let ready = serde_json::json!({"kind": "http", "port": port});
    let prober = prober(&serde_json::json!({"web/liveness": silent, "web/readiness": ready}));
    assert_eq!(prober.longest(), Duration::from_secs(60));
    let held: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let prober = prober.clone();
            tokio::spawn(async move { prober.probe("web/liveness", None).await })
        })
        .collect();
    eventually("all have arrived", || app.asked().len() == AT_ONCE).await;
    failed(prober.probe("web/readiness", None).await, &["32 probes"]);
    held.iter().for_each(|task| task.abort());
    eventually("they are given up", || {
        prober.permits.available_permits() == AT_ONCE
    })
    .await;
    assert_eq!(prober.probe("web/readiness", None).await, passed("HTTP 204"));
}

#[tokio::test]
async fn an_unknown_probe_is_told_which_there_are() {
    let prober = prober(&serde_json::json!({"web/liveness": {"kind": "tcp", "port": 1}}));
    assert_eq!(
        prober.probe("web/startup", None).await,
        Outcome::Unknown(vec!["web/liveness".to_owned()])
    );
}

//! Tests of the admin server over loopback.

use super::*;
use crate::authority::{AuthoritySettings, Store};
use crate::push::{Compiler, Hub};
use crate::state::World;

struct Running {
    address: std::net::SocketAddr,
    source: watch::Sender<SourceReport>,
    _dir: tempfile::TempDir,
}

async fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let settings = AuthoritySettings {
        trust_domain: "cluster.local".to_owned(),
        lifetime: std::time::Duration::from_secs(3600),
    };
    let authority = Authority::open(settings, Store::directory(dir.path()), metrics.authority.clone())
        .await
        .unwrap();
    let (hub, running) = Hub::new(
        Compiler::of_world(),
        Arc::new(World::default()),
        authority.bundle(),
        metrics.push.clone(),
    );
    tokio::spawn(running.run());
    let (source, report) = watch::channel(SourceReport::default());
    let admin = Admin {
        hub,
        authority,
        metrics,
        source: report,
        started: Instant::now(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(admin.serve(listener, std::future::pending()));
    Running {
        address,
        source,
        _dir: dir,
    }
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn the_operator_is_ready_once_the_source_is_loaded_and_degraded_when_files_are_wrong() {
    let running = start().await;
    let health = async |path| {
        let (code, body) = get(running.address, path).await;
        let health: Health = serde_json::from_str(&body).unwrap();
        (code, health.status)
    };
    assert_eq!(health("/health/ready").await, (503, Standing::Starting));
    assert_eq!(health("/health/live").await, (200, Standing::Starting));
    running.source.send_modify(|report| report.loaded = true);
    assert_eq!(health("/health/ready").await, (200, Standing::Ok));
    running.source.send_modify(|report| {
        report.problems.push(FileProblem {
            file: "a.yaml".to_owned(),
            problem: "not YAML".to_owned(),
        });
    });
    assert_eq!(health("/health/ready").await, (200, Standing::Degraded));
}

#[tokio::test]
async fn metrics_and_unknown_proxies_are_answered() {
    let running = start().await;
    let (code, body) = get(running.address, "/metrics").await;
    assert_eq!(code, 200);
    assert!(body.contains("hauberk_operator_process_resident_bytes"), "{body}");
    assert!(
        body.contains("hauberk_operator_root_expiry_timestamp_seconds"),
        "{body}"
    );
    let (code, body) = get(running.address, "/proxies/shop/web-0").await;
    assert_eq!(
        (code, body.as_str()),
        (404, "no proxy of pod shop/web-0 is connected\n")
    );
}

#[tokio::test]
async fn the_status_command_reads_what_the_server_serves() {
    let running = start().await;
    running.source.send_modify(|report| {
        report.problems.push(FileProblem {
            file: "a.yaml".to_owned(),
            problem: "not YAML".to_owned(),
        });
    });
    let status = ask_status(running.address).await.unwrap();
    assert_eq!(status.files[0].file, "a.yaml");
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let error = ask_status(nobody).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("cannot get the status"),
        "{error:#}"
    );
}

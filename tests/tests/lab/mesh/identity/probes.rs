//! The application's probes under STRICT: the kubelet, which has no certificate, asks the admin port.

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::client::Call;
use tests::lab::{ADMIN_PORT, Builder, Lab, PortSpec, ServiceSpec, Workload, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::SOON;
use super::super::group::alone;

pub(super) fn trials() -> Vec<Trial> {
    vec![alone(
        "field_lesson: probes pass under STRICT, wherever the application listens",
        lab,
        probes,
    )]
}

const POD: &str = "reviews-v1-0";
/// Where the test itself answers, on one address of the pod only.
const POD_ONLY: u16 = 8085;
const LOOPBACK_ONLY: u16 = 8086;

fn lab() -> Builder {
    let probes = format!(
        r#"{{
            "app/startup": {{"kind": "tcp", "port": 2525}},
            "app/readiness": {{"kind": "http", "port": 8080, "path": "/status/204"}},
            "app/liveness": {{"kind": "http", "port": 8080, "path": "/status/500"}},
            "ledger/readiness": {{"kind": "grpc", "port": 50051, "timeoutSeconds": 5}},
            "pod/readiness": {{"kind": "http", "port": {POD_ONLY}}},
            "loopback/readiness": {{"kind": "http", "port": {LOOPBACK_ONLY}}}
        }}"#
    );
    Lab::builder()
        .service(
            ServiceSpec::http("reviews")
                .port(PortSpec::greeting(2525, "220 ready"))
                .port(PortSpec::grpc(50_051))
                .workload(Workload::new("v1", 1).proxy_env("HAUBERK_PROBES", &probes)),
        )
        .outsider("kubelet")
}

/// Answers every connection to `address` of the pod with 200.
async fn answer(lab: &Lab, address: String) -> anyhow::Result<()> {
    let listener = lab.pod(POD).run(TcpListener::bind(address.clone())).await;
    let listener = listener.with_context(|| format!("listening on {address}"))?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 1024];
                let _ = stream.read(&mut asked).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await;
            });
        }
    });
    Ok(())
}

async fn probes(lab: &Lab) -> anyhow::Result<()> {
    lab.apply(
        "strict",
        "apiVersion: hauberk.dev/v1alpha1\nkind: PeerAuthentication\n\
         metadata: {name: default, namespace: hauberk-system}\nspec: {mtls: {mode: STRICT}}\n",
    )?;
    let kubelet = lab.pod("kubelet");
    let get = async |port: u16, path: &str| {
        let url = format!("http://{}{path}", lab.pod(POD).address(port));
        kubelet.send(Call::get(&url)).await
    };
    eventually(
        SOON,
        "the application's own port is closed to the kubelet",
        async || {
            let reply = get(8080, "/status/204").await?;
            ensure!(reply.status == 403, "{}", reply.status);
            Ok(())
        },
    )
    .await?;
    answer(lab, lab.pod(POD).address(POD_ONLY).to_string()).await?;
    answer(lab, format!("127.0.0.1:{LOOPBACK_ONLY}")).await?;
    let before = lab.app(POD).counters().await?.requests;
    for (probe, status, said) in [
        ("app/startup", 200, "connected"),
        ("app/readiness", 200, "HTTP 204"),
        ("app/liveness", 503, "HTTP 500"),
        ("pod/readiness", 200, "HTTP 200"),
        // The kubelet would not reach it either.
        ("loopback/readiness", 503, "refused"),
        // The echo has no health service.
        ("ledger/readiness", 503, "grpc.health.v1.Health"),
        ("app/exec", 404, "app/readiness"),
    ] {
        let reply = get(ADMIN_PORT, &format!("/probe/{probe}")).await?;
        ensure!(
            reply.status == status && reply.text().contains(said),
            "{probe}: {} {:?}",
            reply.status,
            reply.text()
        );
    }
    let counted = lab.app(POD).counters().await?.requests - before;
    ensure!(
        counted == 2,
        "the application saw {counted} requests of two probes"
    );
    lab.kill_apps(POD);
    let reply = get(ADMIN_PORT, "/probe/app/readiness").await?;
    ensure!(
        reply.status == 503 && reply.text().contains("refused"),
        "{} {:?}",
        reply.status,
        reply.text()
    );
    Ok(())
}

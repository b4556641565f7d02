//! The proxy's own ports, dialled directly: no loop, no way around the policy, no harm.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::client::Call;
use tests::lab::{ADMIN_PORT, Lab, eventually};
use tokio::io::AsyncWriteExt;

use super::super::SOON;
use super::super::group::Group;
use super::super::raw::{self, End};
use super::{ANSWERED, CLIENT, SERVER, now, unharmed};

const OWN: [u16; 2] = [15_001, 15_006];

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial("the proxy's own ports lead nowhere and into no loop", no_loop),
        group.trial(
            "field_lesson: nothing that callers send makes the metrics grow",
            cardinality,
        ),
        group.trial("the admin port answers nonsense and goes on", admin),
    ]
}

async fn active(lab: &Lab, pod: &str) -> anyhow::Result<f64> {
    lab.proxy(pod).metric("hauberk_connections_active", &[]).await
}

async fn no_loop(lab: &Lab) -> anyhow::Result<()> {
    let before = now(lab)?;
    for target in [SERVER, CLIENT] {
        for port in OWN {
            // From outside, from the neighbour's application, and from the pod itself: by its address and by loopback.
            let address = lab.pod(target).address(port).to_string();
            for (from, to) in [
                ("stranger", address.clone()),
                (CLIENT, address.clone()),
                (SERVER, address.clone()),
                (target, format!("127.0.0.1:{port}")),
            ] {
                for bytes in [
                    &b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n"[..],
                    b"\x00\x01garbage\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                ] {
                    // A refused connection is the clearest answer of all.
                    let Ok(mut stream) = lab.pod(from).connect(&to).await else {
                        continue;
                    };
                    let _may_be_closed = stream.write_all(bytes).await;
                    let _may_be_closed = stream.shutdown().await;
                    let heard = raw::say(&mut stream, b"", ANSWERED).await;
                    ensure!(
                        heard.end == End::Closed,
                        "{from} to {to} is held: {}",
                        heard.text()
                    );
                    ensure!(heard.status() != Some(200), "{from} to {to}: {}", heard.text());
                }
            }
        }
    }
    for pod in [SERVER, CLIENT] {
        eventually(
            SOON,
            &format!("no connection goes round in the proxy of {pod}"),
            async || {
                let open = active(lab, pod).await?;
                ensure!(open < 20.0, "{open} are open");
                Ok(())
            },
        )
        .await?;
        let process = lab.proxy(pod).process()?;
        let start = process.cpu_time()?;
        // A loop would burn the whole of this time.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let burnt = process.cpu_time()? - start;
        ensure!(
            burnt < Duration::from_millis(250),
            "the proxy of {pod} is busy for {burnt:?} of 500 ms"
        );
    }
    unharmed(lab, &before).await
}

/// The number of series that a pod's proxy shows.
async fn series(lab: &Lab, pod: &str) -> anyhow::Result<usize> {
    let text = lab.proxy(pod).metrics().await?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).count())
}

async fn cardinality(lab: &Lab) -> anyhow::Result<()> {
    let direct = format!("http://{}", lab.pod(SERVER).address(8080));
    for pod in [CLIENT, "stranger"] {
        ensure!(lab.pod(pod).get(&format!("{direct}/")).await?.status == 200);
    }
    let before = [series(lab, CLIENT).await?, series(lab, SERVER).await?];
    for number in 0..150 {
        let method = http::Method::from_bytes(format!("VERB{number}").as_bytes())?;
        for (pod, base) in [(CLIENT, "http://reviews:8080"), ("stranger", direct.as_str())] {
            let call = Call::new(method.clone(), &format!("{base}/path-{number}?query={number}"))
                .host(&format!("host-{number}.test"))
                .header(&format!("x-{number}"), "1")
                .header("user-agent", &format!("agent/{number}"));
            lab.pod(pod).send(call).await?;
        }
        // A port scan as well.
        let port = lab.pod(SERVER).address(20_000 + number).to_string();
        let _refused_or_closed = lab.pod("stranger").connect(&port).await;
    }
    let after = [series(lab, CLIENT).await?, series(lab, SERVER).await?];
    for (before, after) in before.into_iter().zip(after) {
        // Something may happen for the first time, but not 150 times.
        ensure!(after <= before + 30, "{before} series became {after}");
    }
    Ok(())
}

async fn admin(lab: &Lab) -> anyhow::Result<()> {
    let before = now(lab)?;
    let to = lab.pod(SERVER).address(ADMIN_PORT).to_string();
    for bytes in [
        &b"\x00\x01\x02garbage\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"POST /config HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"DELETE /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        let mut stream = lab.pod("stranger").connect(&to).await?;
        let heard = raw::say(&mut stream, bytes, ANSWERED).await;
        ensure!(
            heard.end == End::Closed,
            "{:?} is held",
            String::from_utf8_lossy(bytes)
        );
        ensure!(heard.status() != Some(200), "{}", heard.text());
    }
    // Silent ones are dropped after a while and keep nobody out until then.
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(lab.pod("stranger").connect(&to).await?);
    }
    for path in [
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/config",
        "/clusters",
    ] {
        let reply = lab
            .proxy(SERVER)
            .admin(path)
            .await
            .with_context(|| path.to_owned())?;
        ensure!(reply.status == 200, "{path}: {}", reply.status);
    }
    drop(silent);
    unharmed(lab, &before).await
}

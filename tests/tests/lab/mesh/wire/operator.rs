//! The operator's port: what comes there from anybody.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tests::lab::{CONFIG_PORT, Lab};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::group::Group;
use super::super::raw::{self, End};
use super::super::rules::{all_to, route};
use super::{ANSWERED, CLIENT};

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial(
            "garbage at the operator's port is closed, and the operator serves on",
            garbage,
        ),
        group.trial("silent clients keep nobody from the operator", silent),
        group.trial(
            "nonsense inside TLS and gRPC is refused with its reason",
            nonsense,
        ),
    ]
}

/// The operator is the same process and still configures.
async fn serves(lab: &Lab, pid: u32) -> anyhow::Result<()> {
    ensure!(
        lab.operator().process()?.pid() == pid,
        "the operator was restarted"
    );
    route(lab, &[CLIENT], "reviews", &all_to("reviews")).await?;
    let ready = lab.operator().admin("/health/ready").await?;
    ensure!(ready.status == 200, "{}", ready.text());
    Ok(())
}

async fn garbage(lab: &Lab) -> anyhow::Result<()> {
    let pid = lab.operator().process()?.pid();
    let to = lab.operator().pod().address(CONFIG_PORT).to_string();
    for bytes in [
        &b"\x00\x01\x02garbage\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage",
        &[0x16; 5_000],
    ] {
        let mut stream = lab.pod("stranger").connect(&to).await?;
        let _may_be_closed = stream.write_all(bytes).await;
        let _may_be_closed = stream.shutdown().await;
        let heard = raw::say(&mut stream, b"", ANSWERED).await;
        ensure!(
            heard.end == End::Closed,
            "{:?} is held",
            String::from_utf8_lossy(bytes)
        );
        ensure!(heard.status() != Some(200), "{}", heard.text());
    }
    serves(lab, pid).await
}

async fn silent(lab: &Lab) -> anyhow::Result<()> {
    let pid = lab.operator().process()?.pid();
    let to = lab.operator().pod().address(CONFIG_PORT).to_string();
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(lab.pod("stranger").connect(&to).await?);
    }
    serves(lab, pid).await?;
    lab.proxy(CLIENT).restart().await?;
    serves(lab, pid).await
}

/// A client that believes the operator and speaks HTTP/2 to it.
fn connector(lab: &Lab) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(lab.operator().roots())?;
    for root in CertificateDer::pem_slice_iter(&pem) {
        roots.add(root?)?;
    }
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn secure(lab: &Lab) -> anyhow::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let to = lab.operator().pod().address(CONFIG_PORT).to_string();
    let stream = lab.pod("stranger").connect(&to).await?;
    let name = "hauberk-control-plane.hauberk-system.svc".try_into()?;
    let handshake = connector(lab)?.connect(name, stream);
    timeout(ANSWERED, handshake)
        .await?
        .context("the operator's certificate")
}

/// Calls the configuration stream with `body` and an authorization; the gRPC status that comes back.
async fn call(lab: &Lab, token: Option<&str>, body: &'static [u8]) -> anyhow::Result<String> {
    let (client, connection) = h2::client::handshake(secure(lab).await?).await?;
    tokio::spawn(connection);
    let mut request = http::Request::post("https://operator/hauberk.v1.Config/Stream")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let (response, mut sending) = client.ready().await?.send_request(request.body(())?, false)?;
    sending.send_data(bytes::Bytes::from_static(body), true)?;
    let exchange = async {
        let response = response.await?;
        if let Some(status) = response.headers().get("grpc-status") {
            return Ok(status.to_str()?.to_owned());
        }
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let data = data?;
            let _unused = body.flow_control().release_capacity(data.len());
        }
        let trailers = body.trailers().await?.context("no trailers")?;
        Ok(trailers["grpc-status"].to_str()?.to_owned())
    };
    let outcome: anyhow::Result<String> = timeout(ANSWERED, exchange).await.context("the call is held")?;
    outcome
}

async fn nonsense(lab: &Lab) -> anyhow::Result<()> {
    let pid = lab.operator().process()?.pid();
    // Bytes that are no HTTP/2, inside TLS.
    let mut stream = secure(lab).await?;
    stream.write_all(&[0xff; 400]).await?;
    let mut heard = Vec::new();
    let ended = timeout(ANSWERED, stream.read_to_end(&mut heard)).await;
    ensure!(ended.is_ok(), "it is held");

    // No token, a wrong one, and a message that is none.
    let wrong = "Bearer eyJub3RoaW5nIjoxfQ.c2lnbmVkIGJ5IG5vYm9keQ";
    let good = lab.operator().token("shop", "web", "web").await?;
    let good = format!("Bearer {good}");
    const UNAUTHENTICATED: &str = "16";
    for (name, token, body, expected) in [
        ("no token", None, &b""[..], &[UNAUTHENTICATED][..]),
        ("a wrong token", Some(wrong), b"", &[UNAUTHENTICATED]),
        ("no bearer", Some("Basic d2ViOndlYg=="), b"", &[UNAUTHENTICATED]),
        (
            "no protobuf",
            Some(good.as_str()),
            b"\x00\x00\x00\x00\x04\xff\xff\xff\xff",
            &["3", "13"],
        ),
        (
            "not even a frame",
            Some(good.as_str()),
            b"\x00\x00\x00\xff\xffx",
            &["3", "13"],
        ),
        (
            "a compressed message",
            Some(good.as_str()),
            b"\x01\x00\x00\x00\x01x",
            &["3", "12", "13"],
        ),
        (
            "a message beyond all bounds",
            Some(good.as_str()),
            b"\x00\xff\xff\xff\xff",
            &["3", "8", "11", "13"],
        ),
        (
            "no hello",
            Some(good.as_str()),
            b"\x00\x00\x00\x00\x00",
            &["3", "9"],
        ),
    ] {
        let status = call(lab, token, body).await.with_context(|| name.to_owned())?;
        ensure!(
            expected.contains(&status.as_str()),
            "{name}: grpc-status {status}"
        );
    }
    let before = lab.operator().process()?.rss()?;
    ensure!(before < 300 * 1024 * 1024, "the operator takes {before} bytes");
    tokio::time::timeout(Duration::from_secs(30), serves(lab, pid)).await?
}

//! The capture: it sees what pods send each other, each byte once, and tells text from TLS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::client::Call;
use tests::lab::capture::{Capture, Content};
use tests::lab::{Lab, ServiceSpec, eventually, trial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const SOON: Duration = Duration::from_secs(10);
const MARKER: &str = "marker-4711-in-clear";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_capture_sees_plain_text_between_pods_once", plain_text),
        trial("a_capture_sees_what_outsiders_send", outsiders),
        trial("a_capture_tells_tls_from_text", tls),
    ]
}

async fn plain_text() -> anyhow::Result<()> {
    let service = ServiceSpec::http("reviews").version("v1", 1);
    let lab = Lab::builder()
        .service(service)
        .outsider("web")
        .without_mesh()
        .start()
        .await?;
    let target = lab.pod("reviews-v1-0").address(8080);
    let capture = Capture::start()?;
    let call = Call::post(&format!("http://{target}/echo"), MARKER);
    ensure!(lab.pod("web").send(call).await?.text() == MARKER);
    capture.wait_for(MARKER.as_bytes(), SOON).await?;
    eventually(SOON, "both directions are complete", async || {
        ensure!(
            capture
                .streams_of(8080)
                .iter()
                .filter(|stream| stream.contains(MARKER.as_bytes()))
                .count()
                == 2
        );
        Ok(())
    })
    .await?;
    let there = capture.streams_to(target);
    ensure!(there.len() == 1, "one stream goes to the server: {}", there.len());
    let text = String::from_utf8_lossy(&there[0].bytes).into_owned();
    ensure!(
        text.starts_with("POST /echo HTTP/1.1\r\n") && text.matches(MARKER).count() == 1,
        "{text}"
    );
    ensure!(there[0].content() == Content::Plain && there[0].from_start && !there[0].hole);
    let twice = capture
        .segments()
        .iter()
        .filter(|segment| segment.payload == there[0].bytes)
        .count();
    ensure!(twice <= 1, "a frame was taken {twice} times");
    ensure!(!capture.saw(b"marker-never-sent"));
    capture.clear();
    ensure!(!capture.saw(MARKER.as_bytes()) && !capture.full());
    Ok(())
}

async fn outsiders() -> anyhow::Result<()> {
    let service = ServiceSpec::http("reviews").version("v1", 1);
    let lab = Lab::builder().service(service).without_mesh().start().await?;
    let capture = Capture::start()?;
    let target = lab.pod("reviews-v1-0").address(8080);
    Call::post(&format!("http://{target}/echo"), MARKER)
        .send()
        .await?;
    capture.wait_for(MARKER.as_bytes(), SOON).await?;
    eventually(SOON, "the answer is seen as well", async || {
        ensure!(capture.streams_of(8080).len() == 2);
        Ok(())
    })
    .await
}

async fn tls() -> anyhow::Result<()> {
    let lab = Lab::builder()
        .outsider("a")
        .outsider("b")
        .without_mesh()
        .start()
        .await?;
    let (acceptor, connector) = tls_pair()?;
    let address = lab.pod("b").address(443);
    let capture = Capture::start()?;
    let listener = lab.pod("b").run(TcpListener::bind(address)).await?;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let mut text = vec![0; MARKER.len()];
        stream.read_exact(&mut text).await?;
        stream.write_all(&text).await?;
        stream.shutdown().await?;
        anyhow::Ok(())
    });
    let stream = lab.pod("a").run(TcpStream::connect(address)).await?;
    let mut stream = connector.connect("lab.test".try_into()?, stream).await?;
    stream.write_all(MARKER.as_bytes()).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    ensure!(text == MARKER.as_bytes());
    server.await??;
    let encrypted = |stream: &tests::lab::capture::Stream| match stream.content() {
        Content::Tls { handshake, encrypted } => handshake >= 1 && encrypted >= 2,
        Content::Plain | Content::Unknown => false,
    };
    eventually(SOON, "both directions are seen as TLS", async || {
        let streams = capture.streams_of(443);
        let found: Vec<Content> = streams.iter().map(|stream| stream.content()).collect();
        ensure!(streams.len() == 2 && streams.iter().all(encrypted), "{found:?}");
        Ok(())
    })
    .await?;
    ensure!(!capture.saw(MARKER.as_bytes()), "TLS shows no clear text");
    Ok(())
}

/// A server with a self-signed certificate for `lab.test`, and a client that trusts it.
fn tls_pair() -> anyhow::Result<(TlsAcceptor, TlsConnector)> {
    let key = rcgen::generate_simple_self_signed(["lab.test".to_owned()])?;
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der())
        .map_err(|reason| anyhow::anyhow!(reason))
        .context("the generated key")?;
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    ))
}

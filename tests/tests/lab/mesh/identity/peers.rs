//! What is on the wire, and whom each side believes to be talking to.

use std::sync::Arc;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::app::Answer;
use tests::client::Call;
use tests::lab::capture::{Capture, Content};
use tests::lab::{Builder, INJECTED, Lab, PodSpec, PortSpec, ServiceSpec, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::group::Group;
use super::super::{SOON, raw};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const MARKER: &str = "marker-that-must-stay-secret";

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "between meshed pods there is TLS and not one byte of clear text",
            encrypted,
        ),
        group.trial(
            "the server learns who calls, and no caller can say otherwise",
            not_forged,
        ),
        group.trial(
            "an endpoint with another identity than expected is refused, not trusted",
            impostor,
        ),
        group.trial("a proxy with a foreign certificate is refused", foreign),
        group.trial("a peer without a certificate is refused", without_certificate),
        group.trial("garbage instead of TLS is closed, and the proxy lives", garbage),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(
            ServiceSpec::http("reviews")
                .port(PortSpec::silent(7000))
                .version("v1", 1),
        )
        .pod(
            PodSpec::new("impostor")
                .service_account("impostor")
                .port(PortSpec::http(8080)),
        )
        .client("web")
        .outsider("stranger")
}

async fn encrypted(lab: &Lab) -> anyhow::Result<()> {
    let capture = Capture::start()?;
    let web = lab.pod("web");
    let urls = [
        "http://reviews:8080/echo".to_owned(),
        format!("http://{}/echo", lab.pod("reviews-v1-0").address(8080)),
    ];
    for url in urls {
        for call in [Call::post(&url, MARKER), Call::post(&url, MARKER).http2()] {
            let reply = web.send(call).await?;
            ensure!(reply.text() == MARKER, "{reply:?}");
        }
    }
    let mut stream = web.connect("reviews:7000").await?;
    stream.write_all(format!("{MARKER}\n").as_bytes()).await?;
    let mut text = vec![0; MARKER.len() + 1];
    timeout(SOON, stream.read_exact(&mut text)).await??;
    for port in [8080, 7000] {
        let address = lab.pod("reviews-v1-0").address(port);
        let streams = capture.streams_to(address);
        ensure!(!streams.is_empty(), "nothing was captured on port {port}");
        for stream in streams {
            let content = stream.content();
            ensure!(
                matches!(content, Content::Tls { encrypted, .. } if encrypted > 0),
                "port {port}: {content:?}"
            );
        }
    }
    ensure!(!capture.full(), "the capture was too short");
    let upper = MARKER.to_ascii_uppercase();
    ensure!(!capture.saw(MARKER.as_bytes()) && !capture.saw(upper.as_bytes()));
    Ok(())
}

async fn not_forged(lab: &Lab) -> anyhow::Result<()> {
    let forged = "spiffe://cluster.local/ns/shop/sa/admin";
    for url in [
        "http://reviews:8080/".to_owned(),
        format!("http://{}/", lab.pod("reviews-v1-0").address(8080)),
    ] {
        for call in [Call::get(&url), Call::get(&url).http2()] {
            let call = call
                .header("x-hauberk-peer", forged)
                .header("X-Hauberk-Peer", forged);
            let answer: Answer = lab.pod("web").send(call.clone()).await?.json()?;
            let said = answer.request.headers.get("x-hauberk-peer");
            ensure!(said.map(String::as_str) == Some(WEB), "{answer:?}");
        }
    }
    let url = format!("http://{}/", lab.pod("reviews-v1-0").address(8080));
    for call in [Call::get(&url), Call::get(&url).http2()] {
        let call = call.header("x-hauberk-peer", forged);
        let outside: Answer = lab.pod("stranger").send(call).await?.json()?;
        ensure!(
            !outside.request.headers.contains_key("x-hauberk-peer"),
            "{outside:?}"
        );
    }
    Ok(())
}

/// Objects that say: the pod of `payments` has the impostor's address. As when an address has passed to another pod and
/// the operator has not heard of it yet.
fn stale(lab: &Lab) -> String {
    let ip = lab.pod("impostor").ip();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: payments, namespace: shop}}\n\
         spec:\n  clusterIP: 10.96.200.1\n  clusterIPs: [10.96.200.1]\n  \
         ports: [{{name: http, port: 8080, targetPort: 8080, protocol: TCP}}]\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: payments-0, namespace: shop, labels: {{{INJECTED}: \"true\"}}}}\n\
         spec: {{serviceAccountName: payments, containers: [{{name: app, image: app}}]}}\n\
         status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: payments-x, namespace: shop, labels: {{kubernetes.io/service-name: payments}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n\
         - addresses: [{ip}]\n  conditions: {{ready: true}}\n  \
         targetRef: {{kind: Pod, name: payments-0, namespace: shop}}\n"
    )
}

async fn impostor(lab: &Lab) -> anyhow::Result<()> {
    lab.apply("payments", &stale(lab))?;
    let capture = Capture::start()?;
    let url = "http://10.96.200.1:8080/echo";
    let refused = eventually(SOON, "the connection is refused for its identity", async || {
        let reply = lab.pod("web").send(Call::post(url, MARKER)).await?;
        ensure!(
            reply.header("x-hauberk-reason") == "tls_failure",
            "{} {:?} {}",
            reply.status,
            reply.header("x-hauberk-reason"),
            reply.text()
        );
        Ok(reply)
    })
    .await?;
    ensure!(refused.status == 503, "{}", refused.status);
    ensure!(
        refused.text().contains("sa/impostor") && refused.text().contains("sa/payments"),
        "the answer says who was met and who was expected: {}",
        refused.text()
    );
    let counters = lab.app("impostor").counters().await?;
    ensure!(
        counters.requests == 0,
        "the impostor got the request: {counters:?}"
    );
    ensure!(!capture.saw(MARKER.as_bytes()), "it was sent in clear text");
    lab.delete("payments")
}

/// A client certificate of a root that the mesh does not know, for an identity that it does.
fn foreign_client() -> anyhow::Result<TlsConnector> {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.subject_alt_names = vec![rcgen::SanType::URI(WEB.try_into()?)];
    let key = rcgen::KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|reason| anyhow::anyhow!(reason))?;
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_auth_cert(vec![certificate.der().clone()], private)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn no_client() -> TlsConnector {
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Believes every server: the tests are about what the server believes.
#[derive(Debug)]
struct Anyone;

mod anyone {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for super::Anyone {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
        }
    }
}

/// Tries to get a request to the application over TLS that offers `protocol`; says what came back.
async fn over_tls(lab: &Lab, connector: &TlsConnector, protocol: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(lab.pod("reviews-v1-0").address(8080)).await?;
    let connector = connector.with_alpn(vec![protocol.as_bytes().to_vec()]);
    let attempt = async {
        let mut stream = connector.connect("any.test".try_into()?, stream).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n")
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        anyhow::Ok(text)
    };
    timeout(SOON, attempt).await.context("the handshake is held")?
}

async fn refused_over_tls(lab: &Lab, connector: &TlsConnector) -> anyhow::Result<()> {
    let before = lab.app("reviews-v1-0").counters().await?.requests;
    for protocol in ["hauberk/h1", "hauberk/h2", "hauberk/tcp", "hauberk/h1-over-h2"] {
        let heard = over_tls(lab, connector, protocol).await;
        ensure!(
            heard.as_ref().map_or(true, String::is_empty),
            "{protocol}: {heard:?}"
        );
    }
    let after = lab.app("reviews-v1-0").counters().await?.requests;
    ensure!(after == before, "{} requests arrived", after - before);
    let failed = [("side", "server"), ("result", "failed")];
    let counted = lab
        .proxy("reviews-v1-0")
        .metric("hauberk_tls_handshakes_total", &failed)
        .await?;
    ensure!(counted >= 4.0, "{counted} counted");
    let good = lab.pod("web").get("http://reviews:8080/").await?;
    ensure!(good.status == 200);
    Ok(())
}

async fn foreign(lab: &Lab) -> anyhow::Result<()> {
    refused_over_tls(lab, &foreign_client()?).await
}

async fn without_certificate(lab: &Lab) -> anyhow::Result<()> {
    refused_over_tls(lab, &no_client()).await
}

async fn garbage(lab: &Lab) -> anyhow::Result<()> {
    let proxy = lab.proxy("reviews-v1-0").process()?.pid();
    let mut hello = Vec::new();
    // A ClientHello that begins like one and goes on like nothing.
    hello.extend(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    hello.extend([0xAA; 600]);
    for bytes in [
        hello.as_slice(),
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x03\x00\x05\x01\x00\x00\x01\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x14\x03\x03\x00\x01\x01",
    ] {
        let mut stream = TcpStream::connect(lab.pod("reviews-v1-0").address(8080)).await?;
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        let heard = raw::say(&mut stream, b"", SOON).await;
        ensure!(heard.end == raw::End::Closed, "{bytes:02x?} is held");
    }
    ensure!(lab.proxy("reviews-v1-0").process()?.pid() == proxy);
    lab.proxy("reviews-v1-0").ready().await?;
    let good = lab.pod("web").get("http://reviews:8080/").await?;
    ensure!(good.status == 200);
    Ok(())
}

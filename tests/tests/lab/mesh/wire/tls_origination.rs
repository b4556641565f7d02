//! Servers outside the mesh that want TLS: the application speaks plain HTTP or bytes, its proxy speaks TLS for it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tests::lab::{App, Builder, Lab, PortSpec, ServiceSpec, Workload, eventually};
use tests::load::Plan;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::super::group::alone;
use super::super::rules::{all_to, policy};
use super::super::{SOON, servers};

pub(super) fn trials() -> Vec<Trial> {
    vec![alone(
        "a proxy speaks mutual TLS with servers outside the mesh, and follows its files under load",
        lab,
        mutual,
    )]
}

fn lab() -> Builder {
    Lab::builder()
        .service(
            ServiceSpec::new("payments")
                .port(PortSpec::new("http", 8443, App::Nothing))
                .port(PortSpec::new("tcp", 9443, App::Nothing))
                .workload(Workload::new("v1", 1).meshed(false)),
        )
        .client("web")
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    pem: String,
}

struct Signed {
    der: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn new() -> anyhow::Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key)?;
        Ok(Authority {
            root: root.der().clone(),
            pem: root.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    fn sign(&self, name: &str) -> anyhow::Result<Signed> {
        let key = KeyPair::generate()?;
        let signed = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok(Signed {
            der: signed.der().clone(),
            pem: signed.pem(),
            key,
        })
    }

    /// A server for `name` that wants a certificate of this authority from its clients.
    fn server(&self, name: &str) -> anyhow::Result<TlsAcceptor> {
        let signed = self.sign(name)?;
        let key = PrivateKeyDer::try_from(signed.key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone())?;
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
        let config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![signed.der], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The certificates that clients showed.
type Shown = Arc<Mutex<Vec<CertificateDer<'static>>>>;

/// Answers requests with the name that the server was asked for by.
async fn serve_http(lab: &Lab, authority: &Authority) -> anyhow::Result<Shown> {
    let acceptor = authority.server("payments.example")?;
    let shown = Shown::default();
    let log = Arc::clone(&shown);
    servers::each(lab, "payments-v1-0", 8443, move |stream| {
        let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
        async move {
            let mut stream = acceptor.accept(stream).await?;
            let (_, connection) = stream.get_ref();
            let leaf = connection.peer_certificates().and_then(<[_]>::first).cloned();
            log.lock().unwrap_or_else(PoisonError::into_inner).extend(leaf);
            let name = connection.server_name().unwrap_or_default().to_owned();
            let mut buffer = Vec::new();
            while stream.read_buf(&mut buffer).await? > 0 {
                if buffer.ends_with(b"\r\n\r\n") {
                    buffer.clear();
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    stream.write_all(answer.as_bytes()).await?;
                }
            }
            Ok(())
        }
    })
    .await?;
    Ok(shown)
}

/// Writes a file as mounted Secrets are replaced, readable by the proxy.
fn put(lab: &Lab, name: &str, content: &str) -> anyhow::Result<PathBuf> {
    let staged = lab.dir().join(format!("{name}.staged"));
    std::fs::write(&staged, content).context("a file of the proxy")?;
    std::fs::set_permissions(&staged, std::fs::Permissions::from_mode(0o644))?;
    let path = lab.dir().join(name);
    std::fs::rename(staged, &path)?;
    Ok(path)
}

async fn mutual(lab: &Lab) -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let shown = serve_http(lab, &authority).await?;
    let (old, new) = (authority.sign("web")?, authority.sign("web")?);
    let files = format!(
        "clientCertificate: {}, privateKey: {}, caCertificates: {}",
        put(lab, "web.crt", &old.pem)?.display(),
        put(lab, "web.key", &old.key.serialize_pem())?.display(),
        put(lab, "payments-ca.crt", &authority.pem)?.display(),
    );
    let spec = format!("trafficPolicy: {{tls: {{mode: MUTUAL, sni: payments.example, {files}}}}}");
    policy(lab, &["web"], "payments", &spec, &all_to("payments")).await?;
    let reply = lab.pod("web").get("http://payments:8443/").await?;
    ensure!(
        (reply.status, reply.text().as_str()) == (200, "payments.example"),
        "{} {}",
        reply.status,
        reply.text()
    );

    // Bytes take the same way.
    let acceptor = authority.server("payments.example")?;
    servers::each(lab, "payments-v1-0", 9443, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            stream.write_all(b"220 inside TLS\r\n").await?;
            Ok(stream.shutdown().await?)
        }
    })
    .await?;
    let mut greeted = String::new();
    let mut stream = lab.pod("web").connect("payments:9443").await?;
    stream.read_to_string(&mut greeted).await?;
    ensure!(greeted == "220 inside TLS\r\n", "{greeted}");

    // A renewed certificate is shown from then on, and costs no request.
    let load = lab
        .load(
            "web",
            Plan::get("http://payments:8443/").connections(4).rate(50.0),
        )
        .await?;
    put(lab, "web.crt", &new.pem)?;
    put(lab, "web.key", &new.key.serialize_pem())?;
    eventually(SOON, "the new certificate is shown", async || {
        let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(shown.contains(&old.der) && shown.last() == Some(&new.der));
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    ensure!(report.errors() == 0, "{}", report.summary());

    // A server of another name gets no request, and the answer says why.
    let spec = format!("trafficPolicy: {{tls: {{mode: MUTUAL, sni: other.example, {files}}}}}");
    policy(lab, &["web"], "payments", &spec, &all_to("payments")).await?;
    let reply = lab.pod("web").get("http://payments:8443/").await?;
    let said = reply.text();
    ensure!(
        reply.status == 503 && said.contains("is for payments.example, not for other.example"),
        "{} {said}",
        reply.status
    );
    ensure!(reply.header("x-hauberk-reason") == "tls_failure", "{reply:?}");
    Ok(())
}

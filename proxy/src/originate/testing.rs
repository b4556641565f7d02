//! Servers outside the mesh for tests: an authority, certificates as files, and a TLS server that says what it saw.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use api::{ClientCertificate, ClientTls};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity::verify::provider;
use crate::worker::Local;

/// An authority outside the mesh.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap();
        Self {
            pem: root.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names (DNS names and addresses).
    pub(crate) fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        Pair {
            chain: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// The list of what it has revoked, until `until` (a year).
    pub(crate) fn list(&self, serials: &[u64], until: i32) -> String {
        let at = rcgen::date_time_ymd(2020, 1, 1);
        let revoked = |serial: &u64| rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: at,
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: at,
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A folder with the files of a block.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Puts a file there as mounted Secrets are replaced: by a new one under the old name.
    pub(crate) fn put(&self, name: &str, content: &str) -> String {
        let staged = self.0.path().join("staged");
        std::fs::write(&staged, content).unwrap();
        std::fs::rename(staged, self.path(name)).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::join(self.0.path(), name)
    }

    /// A block that trusts this authority.
    pub(crate) fn trusting(&self, authority: &Authority) -> ClientTls {
        ClientTls {
            ca_certificates: Some(self.put("ca.crt", &authority.pem)),
            ..ClientTls::default()
        }
    }

    pub(crate) fn certificate(&self, pair: &Pair) -> Option<ClientCertificate> {
        Some(ClientCertificate {
            chain: self.put("tls.crt", &pair.chain),
            key: self.put("tls.key", &pair.key),
        })
    }
}

/// What a server saw of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) name: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) resumed: bool,
    pub(crate) certified: bool,
}

/// A TLS server: HTTP, whose answers say what was asked for, or an echo of bytes.
pub(crate) struct TlsServer {
    pub(crate) address: SocketAddr,
    hellos: Rc<RefCell<Vec<Hello>>>,
}

/// Settings of a server with this certificate.
pub(crate) fn server_config(pair: &Pair, clients: Option<&Authority>, alpn: &[&str]) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
                .unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

impl TlsServer {
    /// A server of HTTP with this certificate.
    pub(crate) async fn http(pair: &Pair) -> Self {
        Self::start(server_config(pair, None, &["h2", "http/1.1"]), true).await
    }

    pub(crate) async fn start(config: ServerConfig, http: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let hellos = Rc::<RefCell<Vec<Hello>>>::default();
        let log = Rc::clone(&hellos);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Rc::clone(&log));
                tokio::task::spawn_local(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let hello = hello(&stream);
                    log.borrow_mut().push(hello.clone());
                    if http {
                        serve(stream, hello).await;
                    } else {
                        echo(stream).await;
                    }
                });
            }
        });
        Self { address, hellos }
    }

    /// Every handshake that succeeded.
    pub(crate) fn hellos(&self) -> Vec<Hello> {
        self.hellos.borrow().clone()
    }

    /// The name that the latest was asked for by.
    pub(crate) fn asked(&self) -> String {
        let hellos = self.hellos.borrow();
        hellos
            .last()
            .and_then(|hello| hello.name.clone())
            .unwrap_or_default()
    }
}

fn hello(stream: &TlsStream<tokio::net::TcpStream>) -> Hello {
    let (_, connection) = stream.get_ref();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Hello {
        name: connection.server_name().map(str::to_owned),
        alpn: connection.alpn_protocol().map(text),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        certified: connection.peer_certificates().is_some(),
    }
}

async fn serve(stream: TlsStream<tokio::net::TcpStream>, hello: Hello) {
    let answer = service_fn(|request: Request<Incoming>| async move {
        let uri = request.uri();
        let host = request.headers().get("host").and_then(|host| host.to_str().ok());
        let said = format!(
            "{:?} {} {}",
            request.version(),
            uri.scheme_str().unwrap_or("-"),
            uri.authority()
                .map_or(host.unwrap_or("-"), |authority| authority.as_str()),
        );
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
    });
    let io = TokioIo::new(stream);
    // Ends with its client.
    if hello.alpn.as_deref() == Some("h2") {
        let _ = hyper::server::conn::http2::Builder::new(Local)
            .serve_connection(io, answer)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(io, answer)
            .await;
    }
}

async fn echo(mut stream: TlsStream<tokio::net::TcpStream>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

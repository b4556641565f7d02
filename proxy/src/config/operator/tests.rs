use std::io::Write as _;
use std::net::SocketAddr;

use api::proto::proxy_message::Body as FromProxy;
use rustls::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::*;
use crate::config::testing::{Operator, eventually, new, settings};
use crate::identity::testing::{Ca, TRUST_DOMAIN, id};
use crate::identity::verify::provider;

/// An operator on loopback that shows a certificate of `identity`.
async fn serve(ca: &Ca, identity: &SpiffeId) -> (Operator, SocketAddr) {
    let (operator, service) = Operator::new();
    let certificate = ca.certificate(identity);
    let resolver = SingleCertAndKey::from(CertifiedKey::clone(&certificate.key));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address");
    let (accepted, connections) = mpsc::channel::<io::Result<_>>(4);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // tonic's server takes in-memory streams, but not those of tokio-rustls.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let (mut near, far) = tokio::io::duplex(64 * 1024);
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut near).await });
                if accepted.send(Ok(far)).await.is_err() {
                    return;
                }
            }
        }
    });
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(connections)));
    (operator, address)
}

fn operator_id() -> SpiffeId {
    SpiffeId::new(TRUST_DOMAIN, names::ROOT_NAMESPACE, SERVICE_ACCOUNT).expect("an identity")
}

fn roots_file(pem: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(pem.as_bytes()).expect("writes");
    file
}

#[tokio::test]
async fn the_stream_runs_over_tls_to_the_operator_and_nobody_else() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let cases = [
        (&ours, operator_id(), None),
        (&ours, id("web"), Some("is expected there")),
        (&theirs, operator_id(), Some("no root that this mesh trusts")),
    ];
    for (ca, identity, refused) in cases {
        let (mut operator, address) = serve(ca, &identity).await;
        let roots = roots_file(ours.root_pem());
        let (mut settings, _token) = settings();
        settings.operator = format!("https://localhost:{}", address.port());
        settings.operator_roots = roots.path().to_owned();
        let (handle, client, _) = new(&settings);
        let channel = channel(&settings, handle.trust()).expect("a good address");
        let running = tokio::spawn(client.run(channel));
        match refused {
            None => {
                let mut session = operator.session().await;
                assert_eq!(session.authorization, "Bearer the-token");
                assert!(matches!(session.next().await, FromProxy::Hello(_)));
            }
            Some(expected) => {
                let error = || handle.link().last_error.unwrap_or_default();
                eventually("refused", || !error().is_empty()).await;
                assert!(error().contains(expected), "{identity}: {}", error());
                assert!(operator.sessions.try_recv().is_err(), "no stream comes about");
            }
        }
        running.abort();
    }
}

#[tokio::test]
async fn roots_that_the_operator_pushed_count_beside_those_of_the_file() {
    let (old, new_root) = (Ca::new(), Ca::new());
    let (mut operator, address) = serve(&new_root, &operator_id()).await;
    let roots = roots_file(old.root_pem());
    let (mut settings, _token) = settings();
    settings.operator = format!("https://127.0.0.1:{}", address.port());
    settings.operator_roots = roots.path().to_owned();
    let (_handle, client, _) = new(&settings);
    let (_pushed, trust) = watch::channel(Some(Arc::new(new_root.bundle())));
    let channel = channel(&settings, trust).expect("a good address");
    tokio::spawn(client.run(channel));
    let session = operator.session().await;
    assert_eq!(session.authorization, "Bearer the-token");
}

#[tokio::test]
async fn a_bad_address_is_named_before_anything_is_dialled() {
    let (mut settings, _token) = settings();
    for (operator, expected) in [
        ("http://operator:15010", "must begin with https://"),
        ("operator", "must begin with https://"),
        ("https://", "is not a URL"),
        ("", "is not a URL"),
    ] {
        settings.operator = operator.to_owned();
        let error = channel(&settings, watch::channel(None).1)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains(expected) && error.contains("operator"),
            "{operator}: {error}"
        );
    }
}

#[test]
fn a_token_is_one_line_of_a_file() {
    let good = roots_file("abc.def\n");
    let value = bearer(good.path()).expect("a token");
    assert_eq!(value.to_str().expect("ASCII"), "Bearer abc.def");
    assert!(value.is_sensitive());
    for (content, expected) in [("", "is empty"), (" \n", "is empty"), ("a\u{7}b", "no token has")] {
        let bad = roots_file(content);
        let error = bearer(bad.path()).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = bearer(Path::new("/nowhere/token"))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("/nowhere/token"), "{error}");
}

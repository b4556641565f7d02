use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::testing::{Ca, TRUST_DOMAIN, empty, id, identity, install, uri};
use super::*;

const ENDPOINT: &str = "10.0.0.7:8080";
const CALLER: &str = "10.0.0.9:41000";

type Client = Result<Box<TlsStream>, Error>;
type Server = Result<(Box<TlsStream>, Arc<SpiffeId>, MeshProtocol), Error>;

async fn handshake(
    caller: &Identity,
    callee: &Identity,
    expected: &SpiffeId,
    protocol: MeshProtocol,
) -> (Client, Server) {
    let (near, far) = duplex(16 * 1024);
    let endpoint = ENDPOINT.parse().expect("an address");
    tokio::join!(
        caller.connect(near.into(), expected, endpoint, protocol),
        callee.accept(far.into(), CALLER.parse().expect("an address")),
    )
}

/// One byte each way, so that the caller has read what came after the handshake.
async fn talk(client: &mut TlsStream, server: &mut TlsStream) {
    let mut byte = [0];
    client.write_all(b"?").await.expect("writes");
    client.flush().await.expect("flushes");
    server.read_exact(&mut byte).await.expect("reads");
    server.write_all(b"!").await.expect("writes");
    server.flush().await.expect("flushes");
    client.read_exact(&mut byte).await.expect("reads");
    assert_eq!(&byte, b"!");
}

fn reason<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("the handshake succeeded"),
        Err(error) => {
            assert!(matches!(error, Error::Tls { .. }), "{error}");
            error.to_string()
        }
    }
}

/// A server that shows `certificate`, whatever an honest proxy would think of it.
fn raw(certificate: &Certificate, trusts: &TrustBundle) -> tls::Settings {
    tls::Settings::new(certificate, roots_of(trusts).expect("usable roots")).expect("builds")
}

async fn connect_to(server: &tls::Settings, caller: &Identity, expected: &SpiffeId) -> Client {
    let (near, far) = duplex(16 * 1024);
    let acceptor = TlsAcceptor::from(Arc::clone(&server.server));
    let endpoint = ENDPOINT.parse().expect("an address");
    let (client, _) = tokio::join!(
        caller.connect(near.into(), expected, endpoint, MeshProtocol::Http2),
        async { acceptor.accept(far).await },
    );
    client
}

async fn accept_from(client: ClientConfig, callee: &Identity) -> Server {
    let (near, far) = duplex(16 * 1024);
    let name = ServerName::try_from("10.0.0.7").expect("a name");
    let (_, server) = tokio::join!(
        async { TlsConnector::from(Arc::new(client)).connect(name, near).await },
        callee.accept(far.into(), CALLER.parse().expect("an address")),
    );
    server
}

#[tokio::test]
async fn two_workloads_of_one_mesh_meet_under_every_protocol() {
    let ca = Ca::new();
    let (web, reviews) = (ca.identity(&id("web")), ca.identity(&id("reviews")));
    for protocol in MeshProtocol::ALL {
        let (client, server) = handshake(&web, &reviews, &id("reviews"), protocol).await;
        let (mut server, peer, spoken) = server.expect("accepted");
        assert_eq!((&*peer, spoken), (&id("web"), protocol));
        talk(&mut client.expect("connected"), &mut server).await;
    }
}

#[tokio::test]
async fn a_certificate_of_an_intermediate_is_taken_with_it_and_only_with_it() {
    let root = Ca::new();
    let intermediate = root.below();
    let (old, new) = (root.identity(&id("web")), intermediate.identity(&id("reviews")));
    for (caller, callee, callee_id) in [(&old, &new, "reviews"), (&new, &old, "web")] {
        let (client, server) = handshake(caller, callee, &id(callee_id), MeshProtocol::Http2).await;
        let (mut server, ..) = server.expect("accepted");
        talk(&mut client.expect("connected"), &mut server).await;
    }
    // Without the intermediate nothing leads to the root.
    let whole = intermediate.certificate(&id("reviews"));
    let mut alone = rustls::sign::CertifiedKey::clone(&whole.key);
    alone.cert.truncate(1);
    let alone = Certificate {
        key: Arc::new(alone),
        leaf: whole.leaf,
    };
    let alone = raw(&alone, &root.bundle());
    let refused = reason(connect_to(&alone, &old, &id("reviews")).await);
    assert!(refused.contains("no root that this mesh trusts"), "{refused}");
}

#[tokio::test]
async fn a_peer_that_is_not_who_is_expected_gets_no_byte() {
    let ca = Ca::new();
    let (web, ratings) = (ca.identity(&id("web")), ca.identity(&id("ratings")));
    let (client, server) = handshake(&web, &ratings, &id("reviews"), MeshProtocol::Http2).await;
    let client = reason(client);
    assert!(
        client.contains("sa/ratings, but spiffe://cluster.local/ns/shop/sa/reviews"),
        "{client}"
    );
    assert!(client.contains(ENDPOINT), "{client}");
    // The handshake itself failed, so the other side never had a connection to read from.
    let server = reason(server);
    assert!(server.contains("the peer refused"), "{server}");
    let metrics = web.shared.metrics.encode().expect("encodes");
    assert!(
        metrics.contains("hauberk_tls_handshakes_total{side=\"client\",result=\"failed\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_certificate_from_another_root_is_refused_by_either_side() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (web, foreign) = (ours.identity(&id("web")), theirs.identity(&id("reviews")));
    let (client, _) = handshake(&web, &foreign, &id("reviews"), MeshProtocol::Http1).await;
    let client = reason(client);
    assert!(client.contains("no root that this mesh trusts"), "{client}");

    let trusting = identity(&theirs.certificate(&id("web")), &ours.bundle());
    let reviews = ours.identity(&id("reviews"));
    let (_, server) = handshake(&trusting, &reviews, &id("reviews"), MeshProtocol::Http1).await;
    let server = reason(server);
    assert!(server.contains("no root that this mesh trusts"), "{server}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_either_side_and_not_used() {
    let ca = Ca::new();
    let old = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = ca.certificate_with(&id("reviews"), old);
    let client = reason(
        connect_to(
            &raw(&expired, &ca.bundle()),
            &ca.identity(&id("web")),
            &id("reviews"),
        )
        .await,
    );
    assert!(client.contains("has expired"), "{client}");

    let caller = raw(&expired, &ca.bundle());
    let mut config = ClientConfig::clone(&caller.client(&id("web")).expect("builds"));
    config.alpn_protocols = vec![MeshProtocol::Tcp.alpn().to_vec()];
    let server = reason(accept_from(config, &ca.identity(&id("web"))).await);
    assert!(server.contains("has expired"), "{server}");

    let this = identity(&expired, &ca.bundle());
    assert!(!this.is_ready());
    let (client, server) = handshake(&this, &this, &id("reviews"), MeshProtocol::Http1).await;
    assert!(matches!(client, Err(Error::NoCertificate)));
    assert!(matches!(server, Err(Error::NoCertificate)));
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_points_to_the_clocks() {
    let ca = Ca::new();
    let early = |params: &mut rcgen::CertificateParams| params.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let server = raw(&ca.certificate_with(&id("reviews"), early), &ca.bundle());
    let client = reason(connect_to(&server, &ca.identity(&id("web")), &id("reviews")).await);
    assert!(client.contains("compare the clocks"), "{client}");
}

#[tokio::test]
async fn names_other_than_one_spiffe_identity_are_refused() {
    let ca = Ca::new();
    let web = ca.identity(&id("web"));
    let reviews = id("reviews");
    let two = vec![
        uri(reviews.as_str()),
        uri("spiffe://cluster.local/ns/shop/sa/admin"),
    ];
    let cases = [
        (two, "2 URI names"),
        (vec![], "0 URI names"),
        (vec![uri("https://example.com/")], "no SPIFFE identity"),
        (
            vec![uri("spiffe://cluster.local/ns/shop/sa/reviews/x")],
            "no SPIFFE identity",
        ),
    ];
    for (names, expected) in cases {
        let certificate = ca.certificate_with(&reviews, |params| params.subject_alt_names = names.clone());
        let client = reason(connect_to(&raw(&certificate, &ca.bundle()), &web, &reviews).await);
        assert!(client.contains(expected), "{names:?}: {client}");
    }
}

#[tokio::test]
async fn a_caller_of_another_trust_domain_is_refused_even_under_our_root() {
    let ca = Ca::new();
    let foreign = SpiffeId::new("elsewhere.example", "shop", "web").expect("an identity");
    let caller = raw(&ca.certificate(&foreign), &ca.bundle());
    let mut config = ClientConfig::clone(&caller.client(&id("reviews")).expect("builds"));
    config.alpn_protocols = vec![MeshProtocol::Tcp.alpn().to_vec()];
    let server = reason(accept_from(config, &ca.identity(&id("reviews"))).await);
    assert!(
        server.contains("not of the trust domain cluster.local"),
        "{server}"
    );
}

fn without_certificate(ca: &Ca, alpn: &[&[u8]]) -> ClientConfig {
    let roots = roots_of(&ca.bundle()).expect("usable roots");
    let mut config = verify::operator_config(roots, &id("reviews")).expect("builds");
    config.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    config
}

#[tokio::test]
async fn a_caller_without_certificate_or_mesh_protocol_is_refused() {
    let ca = Ca::new();
    let reviews = ca.identity(&id("reviews"));
    let server = reason(accept_from(without_certificate(&ca, &[b"hauberk/h2"]), &reviews).await);
    assert!(server.contains("sent no certificate"), "{server}");

    let server = reason(accept_from(without_certificate(&ca, &[b"h2", b"http/1.1"]), &reviews).await);
    assert!(server.contains("any known protocol"), "{server}");

    let caller = raw(&ca.certificate(&id("web")), &ca.bundle());
    let config = ClientConfig::clone(&caller.client(&id("reviews")).expect("builds"));
    let server = reason(accept_from(config, &reviews).await);
    assert!(server.contains("names no mesh protocol"), "{server}");
}

#[tokio::test]
async fn garbage_instead_of_tls_is_an_error_that_says_so() {
    let ca = Ca::new();
    let this = ca.identity(&id("reviews"));
    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 64],
        b"\x16\x03\x01",
    ] {
        let (mut near, far) = duplex(1024);
        near.write_all(garbage).await.expect("writes");
        drop(near);
        let accepted = this.accept(far.into(), CALLER.parse().expect("an address")).await;
        let text = reason(accepted);
        assert!(
            text.contains("TLS") && text.contains(CALLER),
            "{garbage:?}: {text}"
        );

        let (mut near, far) = duplex(1024);
        near.write_all(garbage).await.expect("writes");
        let endpoint = ENDPOINT.parse().expect("an address");
        let connected = async {
            this.connect(far.into(), &id("web"), endpoint, MeshProtocol::Tcp)
                .await
        };
        let (connected, ()) = tokio::join!(connected, async {
            let mut hello = [0; 8];
            near.read_exact(&mut hello).await.expect("a hello comes");
            drop(near);
        });
        reason(connected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_given_up_after_ten_seconds() {
    let ca = Ca::new();
    let this = ca.identity(&id("reviews"));
    let started = tokio::time::Instant::now();
    let (_near, far) = duplex(1024);
    let text = reason(this.accept(far.into(), CALLER.parse().expect("an address")).await);
    assert!(text.contains("no handshake within 10s"), "{text}");
    assert_eq!(started.elapsed(), Duration::from_secs(10));
}

#[tokio::test]
async fn without_certificate_nothing_is_dialled_or_accepted_until_one_comes() {
    let ca = Ca::new();
    let (this, other) = (empty(), ca.identity(&id("reviews")));
    let (client, _) = {
        let (near, _far) = duplex(1024);
        let endpoint = ENDPOINT.parse().expect("an address");
        (
            this.connect(near.into(), &id("reviews"), endpoint, MeshProtocol::Tcp)
                .await,
            (),
        )
    };
    assert!(matches!(client, Err(Error::NoCertificate)));
    let waiting = tokio::spawn({
        let this = this.clone();
        async move { this.ready().await }
    });
    install(&this, &ca.certificate(&id("web")), &ca.bundle());
    waiting.await.expect("becomes ready");
    let (client, server) = handshake(&this, &other, &id("reviews"), MeshProtocol::Tcp).await;
    assert!(client.is_ok() && server.is_ok());
}

#[tokio::test]
async fn roots_rotate_without_a_moment_in_which_peers_refuse_each_other() {
    let (old, new) = (Ca::new(), Ca::new());
    let both = Ca::bundle_of(&[&old, &new]);
    let (web, reviews) = (old.identity(&id("web")), old.identity(&id("reviews")));
    let meets = async |step: &str| {
        for (a, b, to) in [(&web, &reviews, id("reviews")), (&reviews, &web, id("web"))] {
            let (client, server) = handshake(a, b, &to, MeshProtocol::Http2).await;
            assert!(client.is_ok() && server.is_ok(), "{step}: {:?}", client.err());
        }
    };
    meets("before").await;
    install(&web, &old.certificate(&id("web")), &both);
    meets("web trusts both").await;
    install(&reviews, &old.certificate(&id("reviews")), &both);
    meets("both trust both").await;
    install(&web, &new.certificate(&id("web")), &both);
    meets("web is signed by the new root").await;
    install(&reviews, &new.certificate(&id("reviews")), &new.bundle());
    meets("reviews trusts the new root only").await;
    install(&web, &new.certificate(&id("web")), &new.bundle());
    meets("after").await;

    let late = old.identity(&id("late"));
    let (_, server) = handshake(&late, &web, &id("web"), MeshProtocol::Http2).await;
    assert!(server.is_err(), "the old root is trusted after the rotation");
}

#[tokio::test]
async fn a_resumed_session_still_shows_who_the_peer_is() {
    let ca = Ca::new();
    let (web, reviews) = (ca.identity(&id("web")), ca.identity(&id("reviews")));
    let kind = async |expect: HandshakeKind| {
        let (client, server) = handshake(&web, &reviews, &id("reviews"), MeshProtocol::Http1).await;
        let (mut client, (mut server, peer, _)) = (client.expect("connected"), server.expect("accepted"));
        assert_eq!(*peer, id("web"));
        assert_eq!(client.connection().handshake_kind(), Some(expect));
        assert_eq!(server.connection().handshake_kind(), Some(expect));
        talk(&mut client, &mut server).await;
    };
    kind(HandshakeKind::Full).await;
    kind(HandshakeKind::Resumed).await;
    // Another identity at the same address: the session made under the first does not stand for it.
    let (client, _) = handshake(&web, &reviews, &id("ratings"), MeshProtocol::Http1).await;
    assert!(reason(client).contains("is expected there"));
    // That try has used up the session, as each may be used once.
    kind(HandshakeKind::Full).await;
    kind(HandshakeKind::Resumed).await;
    // New roots end all sessions, on either side.
    install(&reviews, &ca.certificate(&id("reviews")), &ca.bundle());
    kind(HandshakeKind::Full).await;
    kind(HandshakeKind::Resumed).await;
    install(&web, &ca.certificate(&id("web")), &ca.bundle());
    kind(HandshakeKind::Full).await;
}

#[test]
fn a_signed_certificate_is_taken_only_if_it_is_for_this_key_and_identity() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (key, csr) = request::key_and_request(&id("web")).expect("a request");
    let (elses_key, _) = request::key_and_request(&id("web")).expect("a request");
    let (_, parsed) =
        <x509_parser::certification_request::X509CertificationRequest<'_> as x509_parser::prelude::FromDer<
            '_,
            _,
        >>::from_der(&csr)
        .expect("a request in DER");
    parsed.verify_signature().expect("signed with its key");

    let expired = |p: &mut rcgen::CertificateParams| p.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let cases = [
        (vec![ca.sign(&key, &id("web"), |_| {})], ca.bundle(), ""),
        (vec![], ca.bundle(), "no certificate"),
        (
            vec![ca.sign(&key, &id("admin"), |_| {})],
            ca.bundle(),
            "sa/admin, but",
        ),
        (
            vec![ca.sign(&elses_key, &id("web"), |_| {})],
            ca.bundle(),
            "does not fit",
        ),
        (
            vec![ca.sign(&key, &id("web"), |_| {})],
            other.bundle(),
            "no root that this mesh trusts",
        ),
        (
            vec![ca.sign(&key, &id("web"), expired)],
            ca.bundle(),
            "expired already",
        ),
        (vec![vec![1, 2, 3].into()], ca.bundle(), "cannot be parsed"),
    ];
    for (chain, bundle, expected) in cases {
        match request::check(&key, chain, &bundle, &id("web")) {
            Ok(_) => assert_eq!(expected, "", "it was taken"),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    !expected.is_empty() && text.contains(expected),
                    "{expected}: {text}"
                );
            }
        }
    }
}

#[test]
fn roots_that_are_no_certificates_are_named() {
    let bad = TrustBundle {
        trust_domain: TRUST_DOMAIN.to_owned(),
        roots: vec![
            Ca::new().bundle().roots[0].clone(),
            bytes::Bytes::from_static(b"no root"),
        ],
    };
    let error = check_roots(&bad).expect_err("refused").to_string();
    assert!(error.starts_with("roots: certificate 1 "), "{error}");
    assert_eq!(check_roots(&Ca::new().bundle()), Ok(()));
}

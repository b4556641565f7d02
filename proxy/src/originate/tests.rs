//! TLS with real servers on the loopback: who is asked for, who is trusted, and what is said when it fails.

mod changes;
mod spoken;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::{ClientTls, Protocol, TlsMode};
use rcgen::{SanType, SerialNumber};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::testing::{Authority, Folder, Pair, TlsServer, server_config};
use super::*;
use crate::config::snapshot::Cluster;
use crate::testing::{Got, World, ask, cluster, forward, request, run};

fn originate(addresses: &[SocketAddr], tls: ClientTls) -> Arc<Cluster> {
    cluster(addresses, |spec| spec.tls = TlsMode::Originate(Arc::new(tls)))
}

fn world(cluster: &Arc<Cluster>) -> World {
    World::new(forward(Some(Protocol::Http1), cluster, |_| {}))
}

/// One request of HTTP/1.1 to a server under a block.
async fn get(address: SocketAddr, tls: ClientTls) -> Got {
    let world = world(&originate(&[address], tls));
    ask(&mut world.http1().await, request("GET", "/", "")).await
}

#[test]
fn the_host_of_the_request_is_asked_for_and_verified() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let server = TlsServer::http(&authority.sign(&["reviews", "*.wild.test"], |_| {})).await;
        let cluster = originate(&[server.address], folder.trusting(&authority));
        let world = world(&cluster);
        let mut app = world.http1().await;
        for _ in 0..2 {
            let got = ask(&mut app, request("GET", "/", "")).await;
            assert_eq!((got.status, got.body.as_str()), (200, "HTTP/1.1 - reviews"));
        }
        assert_eq!(
            server.hellos().len(),
            1,
            "the second request finds the connection"
        );
        assert_eq!(server.hellos()[0].alpn.as_deref(), Some("http/1.1"));
        let mut other = request("GET", "/", "");
        other
            .headers_mut()
            .insert("host", "a.wild.test:80".parse().unwrap());
        assert_eq!(ask(&mut app, other).await.body, "HTTP/1.1 - a.wild.test:80");
        assert_eq!(
            (server.hellos().len(), server.asked().as_str()),
            (2, "a.wild.test")
        );
        let mut foreign = request("GET", "/", "");
        foreign.headers_mut().insert("host", "b.example".parse().unwrap());
        let got = ask(&mut app, foreign).await;
        assert_eq!(got.told(), (503, "tls_failure"));
        assert!(
            got.body
                .contains("is for reviews, *.wild.test, not for b.example"),
            "{}",
            got.body
        );
        assert_eq!(
            cluster.live.metrics.connect_failures.get(),
            3,
            "it is tried as often as may be"
        );
    });
}

#[test]
fn a_later_connection_resumes_the_session() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let server = TlsServer::http(&authority.sign(&["reviews"], |_| {})).await;
        let cluster = cluster(&[server.address], |spec| {
            spec.tls = TlsMode::Originate(Arc::new(folder.trusting(&authority)));
            spec.limits.max_requests_per_connection = std::num::NonZeroU32::new(1);
        });
        let world = world(&cluster);
        let mut app = world.http1().await;
        for resumed in [false, true] {
            assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);
            assert_eq!(server.hellos().last().unwrap().resumed, resumed);
        }
    });
}

#[test]
fn a_server_that_is_not_who_it_should_be_gets_nothing_and_is_told_apart() {
    run(async {
        let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new());
        let trusting = folder.trusting(&authority);
        let dated = |from: i32, to: i32| {
            authority.sign(&["reviews"], |params| {
                params.not_before = rcgen::date_time_ymd(from, 1, 1);
                params.not_after = rcgen::date_time_ymd(to, 1, 1);
            })
        };
        for (pair, words) in [
            (dated(2019, 2020), "has expired"),
            (dated(2090, 2091), "is not valid yet"),
            (other.sign(&["reviews"], |_| {}), "comes from no root of"),
            (
                authority.sign(&["ratings"], |_| {}),
                "is for ratings, not for reviews",
            ),
            (
                authority.sign(&[], |_| {}),
                "is for nobody by name, not for reviews",
            ),
        ] {
            let server = TlsServer::http(&pair).await;
            let got = get(server.address, trusting.clone()).await;
            assert_eq!(got.told(), (503, "tls_failure"), "{words}");
            assert!(got.body.contains(words), "{}", got.body);
            assert_eq!(server.hellos(), []);
            let insecure = ClientTls {
                insecure_skip_verify: true,
                ..ClientTls::default()
            };
            assert_eq!(get(server.address, insecure).await.status, 200, "{words}");
        }
    });
}

#[test]
fn without_roots_of_the_block_those_of_the_system_count() {
    run(async {
        let server = TlsServer::http(&Authority::new().sign(&["reviews"], |_| {})).await;
        let got = get(server.address, ClientTls::default()).await;
        assert_eq!(got.told(), (503, "tls_failure"));
        let said = [
            "comes from no root of the system (/etc/",
            "holds no roots of a system (/etc/",
        ];
        assert!(said.iter().any(|words| got.body.contains(words)), "{}", got.body);
    });
}

#[test]
fn a_server_without_tls_is_told_apart() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let talkative = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(b"220 mail ESMTP\r\n").await.unwrap();
                tokio::task::spawn_local(async move { stream.read_to_end(&mut Vec::new()).await });
            }
        });
        let got = get(talkative, folder.trusting(&authority)).await;
        assert_eq!(got.told(), (503, "tls_failure"));
        assert!(got.body.contains("does not speak TLS"), "{}", got.body);
    });
}

#[test]
fn a_failed_handshake_is_a_failed_connection_and_the_next_endpoint_is_tried() {
    run(async {
        let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new());
        let wrong = TlsServer::http(&other.sign(&["reviews"], |_| {})).await;
        let right = TlsServer::http(&authority.sign(&["reviews"], |_| {})).await;
        let tls = folder.trusting(&authority);
        let cluster = cluster(&[wrong.address, right.address], |spec| {
            spec.tls = TlsMode::Originate(Arc::new(tls));
            spec.breaker = Some(api::Breaker {
                failure_threshold: std::num::NonZeroU32::MIN,
                recovery: Duration::from_secs(60),
                half_open_requests: std::num::NonZeroU32::MIN,
            });
        });
        let world = World::new(forward(Some(Protocol::Http1), &cluster, |f| f.retry.attempts = 1));
        let mut app = world.http1().await;
        for _ in 0..4 {
            assert_eq!(ask(&mut app, request("POST", "/", "body")).await.status, 200);
        }
        assert_eq!(
            cluster.live.metrics.connect_failures.get(),
            1,
            "then its breaker is open"
        );
        assert_eq!(cluster.live.connections.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn what_the_caller_names_and_what_files_hold_speaks_against_no_endpoint() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let pair = authority.sign(&["reviews"], |_| {});
        let (one, two) = (TlsServer::http(&pair).await, TlsServer::http(&pair).await);
        let breaking = |tls| {
            cluster(&[one.address, two.address], |spec| {
                spec.tls = TlsMode::Originate(Arc::new(tls));
                spec.breaker = Some(api::Breaker {
                    failure_threshold: std::num::NonZeroU32::MIN,
                    recovery: Duration::from_secs(60),
                    half_open_requests: std::num::NonZeroU32::MIN,
                });
            })
        };
        let cluster = breaking(folder.trusting(&authority));
        let named = world(&cluster);
        let failures = || cluster.live.metrics.connect_failures.get();
        for (host, told, tries) in [
            ("a..b", (400, "bad_request"), 0),
            ("b.example", (503, "tls_failure"), 2),
        ] {
            let mut asked = request("GET", "/", "");
            asked.headers_mut().insert("host", host.parse().unwrap());
            let before = failures();
            let got = ask(&mut named.http1().await, asked).await;
            assert_eq!(got.told(), told, "{host}: {}", got.body);
            assert!(failures() >= before + tries, "{host}");
            for _ in 0..2 {
                let got = ask(&mut named.http1().await, request("GET", "/", "")).await;
                assert_eq!(got.status, 200, "after {host}: {}", got.body);
            }
        }
        // Of the block's own name it is the endpoint's fault, as ever.
        let elsewhere = ClientTls {
            sni: Some("b.example".to_owned()),
            ..folder.trusting(&authority)
        };
        let opening = world(&breaking(elsewhere));
        let mut app = opening.http1().await;
        assert_eq!(
            ask(&mut app, request("GET", "/", "")).await.told(),
            (503, "tls_failure")
        );
        assert_eq!(
            ask(&mut app, request("GET", "/", "")).await.told(),
            (503, "breaker_open")
        );
    });
}

#[test]
fn names_are_those_of_the_block_where_it_has_some() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let pair = authority.sign(
            &["a.example", "*.wild.example", "192.0.2.7", "2001:db8::7"],
            |params| {
                let uri = "spiffe://example/payments".try_into().unwrap();
                params.subject_alt_names.push(SanType::URI(uri));
            },
        );
        let server = TlsServer::http(&pair).await;
        for (names, sni, is_taken) in [
            (&["a.example"][..], None, true),
            (&["A.Example"], None, true),
            (&["x.wild.example"], None, true),
            (&["x.y.wild.example"], None, false),
            (&["192.0.2.7"], None, true),
            (&["2001:db8::7"], None, true),
            (&["192.0.2.8"], None, false),
            (&["spiffe://example/payments"], None, true),
            (&["spiffe://example/payments/"], None, false),
            (&["b.example", "spiffe://example/payments"], None, true),
            (&["b.example"], None, false),
            (&[], Some("a.example"), true),
            (&[], Some("b.example"), false),
            (&["a.example"], Some("b.example"), true),
            (&["b.example"], Some("a.example"), false),
        ] {
            let tls = ClientTls {
                subject_alt_names: names.iter().map(ToString::to_string).collect(),
                sni: sni.map(str::to_owned),
                ..folder.trusting(&authority)
            };
            let got = get(server.address, tls).await;
            assert_eq!(got.status == 200, is_taken, "{names:?} {sni:?}: {}", got.body);
            if is_taken {
                assert_eq!(server.asked(), sni.unwrap_or("reviews"));
            } else {
                let expected = names.first().copied().or(sni).unwrap();
                assert!(got.body.contains(&format!("not for {expected}")), "{}", got.body);
            }
        }
    });
}

#[test]
fn a_dns_name_that_reads_like_a_uri_is_none() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let pair = authority.sign(&["reviews"], |params| {
            let name = "URI spiffe://example/payments".try_into().unwrap();
            params.subject_alt_names.push(SanType::DnsName(name));
        });
        let server = TlsServer::http(&pair).await;
        let tls = ClientTls {
            subject_alt_names: vec!["spiffe://example/payments".to_owned()],
            ..folder.trusting(&authority)
        };
        let got = get(server.address, tls).await;
        assert_eq!(got.told(), (503, "tls_failure"), "{}", got.body);
    });
}

#[test]
fn a_certificate_is_shown_where_the_server_asks_for_one() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let server = authority.sign(&["reviews"], |_| {});
        for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
            let mut config = server_config(&server, Some(&authority), &["http/1.1"]);
            if versions == [&rustls::version::TLS12] {
                config = tls12(&server, &authority);
            }
            let server = TlsServer::start(config, true).await;
            let without = get(server.address, folder.trusting(&authority)).await;
            assert_eq!(without.told(), (503, "tls_failure"), "{}", without.body);
            assert!(
                without.body.contains("CertificateRequired") || without.body.contains("HandshakeFailure")
            );
            let with = ClientTls {
                certificate: folder.certificate(&authority.sign(&["web"], |_| {})),
                ..folder.trusting(&authority)
            };
            assert_eq!(get(server.address, with).await.status, 200);
            assert_eq!(server.hellos().iter().filter(|hello| hello.certified).count(), 1);
            let of_another = ClientTls {
                certificate: folder.certificate(&Authority::new().sign(&["web"], |_| {})),
                ..folder.trusting(&authority)
            };
            assert_eq!(get(server.address, of_another).await.told(), (503, "tls_failure"));
        }
    });
}

fn tls12(pair: &Pair, clients: &Authority) -> rustls::ServerConfig {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls_pki_types::CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()));
    let chain = rustls_pki_types::CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    rustls::ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![chain], key)
        .unwrap()
}

#[test]
fn what_is_revoked_is_not_trusted_and_neither_is_what_no_list_covers() {
    run(async {
        let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new());
        let numbered = |n: u64| {
            authority.sign(&["reviews"], |params| {
                params.serial_number = Some(SerialNumber::from(n))
            })
        };
        let good = TlsServer::http(&numbered(7)).await;
        let revoked = TlsServer::http(&numbered(8)).await;
        for (list, server, words) in [
            (authority.list(&[8], 2090), &good, None),
            (authority.list(&[8], 2090), &revoked, Some("is revoked by")),
            (authority.list(&[8], 2021), &good, Some("has expired")),
            (
                other.list(&[], 2090),
                &good,
                Some("covers the server's certificate"),
            ),
        ] {
            let tls = ClientTls {
                ca_crl: Some(folder.put("ca.crl", &list)),
                ..folder.trusting(&authority)
            };
            let got = get(server.address, tls).await;
            match words {
                None => assert_eq!(got.status, 200, "{}", got.body),
                Some(words) => {
                    assert_eq!(got.told(), (503, "tls_failure"), "{words}");
                    assert!(got.body.contains(words), "{}", got.body);
                }
            }
        }
    });
}

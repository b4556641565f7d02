//! Tests of the gRPC server: a real client against a real server, over TLS on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::proto;
use api::proto::proxy_message::Body;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SanType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::Code;

use super::Ages;
use super::testing::{Operator, eventually};
use crate::kubernetes::fake::Fake;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const MINUTE: Duration = Duration::from_secs(60);

fn csr(key: &KeyPair, uri: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.serialize_request(key).unwrap().der().to_vec()
}

#[tokio::test]
async fn a_workload_gets_a_certificate_for_its_own_key_that_the_bundle_verifies() {
    let operator = Operator::start().await;
    let key = KeyPair::generate().unwrap();
    let token = operator.token("web-0", MINUTE);
    let response = operator.sign(Some(&token), csr(&key, WEB)).await.unwrap();
    let bundle = response.trust_bundle.unwrap();
    assert_eq!(bundle.trust_domain, "cluster.local");
    let (_, leaf) = x509_parser::parse_x509_certificate(&response.chain[0]).unwrap();
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());

    let mut roots = rustls::RootCertStore::empty();
    for root in bundle.roots {
        roots.add(root.into()).unwrap();
    }
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .unwrap();
    let leaf = rustls_pki_types::CertificateDer::from(response.chain[0].clone());
    verifier
        .verify_client_cert(&leaf, &[], rustls_pki_types::UnixTime::now())
        .unwrap();
    assert_eq!(operator.metrics.authority.signed.get(), 1);
}

#[tokio::test]
async fn a_request_that_does_not_deserve_a_certificate_is_refused_with_the_reason() {
    let operator = Operator::start().await;
    let key = KeyPair::generate().unwrap();
    let good = operator.token("web-0", MINUTE);
    let over = operator.token("web-0", Duration::ZERO);
    let foreign = csr(&key, "spiffe://cluster.local/ns/shop/sa/payment");
    for (token, csr, code, says) in [
        (Some(good.as_str()), foreign, Code::PermissionDenied, "sa/payment"),
        (Some(&good), b"garbage".to_vec(), Code::InvalidArgument, "csr"),
        (Some(&over), csr(&key, WEB), Code::Unauthenticated, "expired"),
        (
            Some("hbk1.x.y"),
            csr(&key, WEB),
            Code::Unauthenticated,
            "malformed",
        ),
        (
            None,
            csr(&key, WEB),
            Code::Unauthenticated,
            "authorization: is missing",
        ),
    ] {
        let status = operator.sign(token, csr).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    assert_eq!(operator.metrics.authority.refused.get(), 2);
    assert_eq!(operator.metrics.session.refused_tokens.get(), 3);
}

#[tokio::test]
async fn in_kubernetes_a_pods_own_token_counts_and_no_join_token() {
    let fake = Fake::default();
    let operator = Operator::start_in(fake.client()).await;
    fake.review(
        "head.web.mac",
        serde_json::json!({
            "authenticated": true,
            "audiences": ["hauberk"],
            "user": {
                "username": "system:serviceaccount:shop:web",
                "extra": {"authentication.kubernetes.io/pod-name": ["web-0"]},
            },
        }),
    );
    let key = KeyPair::generate().unwrap();
    let ask = async |token: &str, uri| operator.sign(Some(token), csr(&key, uri)).await;
    assert_eq!(ask("head.web.mac", WEB).await.unwrap().chain.len(), 1);
    let foreign = "spiffe://cluster.local/ns/shop/sa/payment";
    let other = ask("head.web.mac", foreign).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied, "{other}");
    let stranger = ask("head.stranger.mac", WEB).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated, "{stranger}");
    let join_token = operator.token("web-0", MINUTE);
    let joining = ask(&join_token, WEB).await.unwrap_err();
    assert_eq!(joining.code(), Code::Unauthenticated, "{joining}");

    fake.down(Some(503));
    let unknown = ask("head.new.mac", WEB).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unavailable, "{unknown}");
    assert!(ask("head.web.mac", WEB).await.is_ok(), "known from a moment ago");
    assert_eq!(operator.metrics.session.refused_tokens.get(), 2);
    assert_eq!(operator.metrics.session.unverified_tokens.get(), 1);
}

#[tokio::test]
async fn a_proxy_gets_what_it_asks_for_then_only_what_changes_and_its_answer_counts() {
    let operator = Operator::start().await;
    operator.texts.set("a", "1");
    operator.texts.set("b", "1");
    let mut proxy = operator.proxy("web-0").await;
    proxy.subscribe(&[("a", 0), ("b", 0)]).await;
    let first = proxy.update().await;
    assert_eq!(first.len(), 2);
    for (name, _, version) in &first {
        proxy.ack(name, *version).await;
    }
    let applied = async || operator.hub.view().await.unwrap().proxies[0].applied;
    eventually("both are applied", async || applied().await == 2).await;

    operator.change("a", "2").await;
    let second = proxy.update().await;
    assert_eq!((second.len(), second[0].1.as_str()), (1, "2"));
    eventually("the new one waits", async || applied().await == 1).await;
    proxy.ack("a", second[0].2).await;
    eventually("it is applied", async || applied().await == 2).await;
    let text = operator.metrics.text();
    let line = "hauberk_operator_applied_seconds_count{cause=\"change\"} 1\n";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn a_proxy_that_comes_back_gets_only_what_it_does_not_have() {
    let operator = Operator::start().await;
    operator.texts.set("a", "1");
    operator.texts.set("b", "1");
    let mut proxy = operator.proxy("web-0").await;
    proxy.subscribe(&[("a", 0), ("b", 0)]).await;
    let held = proxy.update().await;
    drop(proxy);
    operator.change("b", "2").await;
    let mut back = operator.proxy("web-0").await;
    back.subscribe(&[("a", held[0].2), ("b", held[1].2)]).await;
    let update = back.update().await;
    assert_eq!(
        (update.len(), update[0].0.as_str(), update[0].1.as_str()),
        (1, "b", "2")
    );
    let view = operator.hub.view().await.unwrap();
    assert_eq!((view.proxies[0].applied, view.proxies[0].waiting), (1, 1));
}

#[tokio::test]
async fn nonsense_ends_one_session_with_the_field_that_is_wrong_and_harms_no_other() {
    let operator = Operator::start().await;
    let mut good = operator.proxy("web-0").await;
    good.subscribe(&[("a", 0)]).await;
    good.update().await;
    let name = |kind, name: &str| {
        Some(proto::ResourceName {
            kind,
            name: name.to_owned(),
        })
    };
    let subscribe = |name| {
        let known_version = 0;
        Body::Subscribe(proto::Subscribe {
            subscriptions: vec![proto::Subscription { name, known_version }],
        })
    };
    for (message, says) in [
        (
            Body::Hello(proto::Hello {
                revision: 1,
                ..Default::default()
            }),
            "hello",
        ),
        (subscribe(name(77, "a")), "subscribe.subscriptions[0].name.kind"),
        (
            subscribe(name(5, "shop/payment-0")),
            "subscribe.subscriptions[0].name.name",
        ),
        (subscribe(None), "subscribe.subscriptions[0].name"),
        (
            Body::Unsubscribe(proto::Unsubscribe {
                names: vec![name(2, "x").unwrap(); 10_001],
            }),
            "unsubscribe.names",
        ),
        (
            Body::Ack(proto::Ack {
                name: name(2, "x"),
                version: 0,
            }),
            "ack.version",
        ),
    ] {
        let mut bad = operator.proxy("web-1").await;
        bad.say(message).await;
        let status = bad.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(says), "{status}");
    }
    operator.change("a", "still here").await;
    assert_eq!(good.update().await[0].1, "still here");
    assert_eq!(operator.metrics.session.protocol_errors.get(), 6);
}

#[tokio::test]
async fn a_proxy_says_hello_first_and_as_who_it_is() {
    let operator = Operator::start().await;
    let mut silent = operator.stranger("web-0").await;
    silent.subscribe(&[("a", 0)]).await;
    let status = silent.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("hello: must be the first"),
        "{status}"
    );
    for (namespace, pod, says) in [
        ("bank", "web-0", "hello.namespace"),
        ("shop", "web-1", "hello.pod"),
    ] {
        let mut liar = operator.stranger("web-0").await;
        liar.hello(namespace, pod).await;
        let status = liar.end().await;
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().starts_with(says), "{status}");
    }
}

#[tokio::test]
async fn a_slow_proxy_gets_the_newest_version_and_not_every_one() {
    let operator = Operator::start().await;
    let mut slow = operator.proxy("web-0").await;
    let mut quick = operator.proxy("web-1").await;
    for proxy in [&mut slow, &mut quick] {
        proxy.subscribe(&[("a", 0)]).await;
        proxy.update().await;
    }
    // Large texts fill what the connection takes without being read.
    let filler = "x".repeat(100_000);
    let changes = 60;
    for i in 0..changes {
        let text = format!("{i} {filler}");
        operator.change("a", &text).await;
        assert_eq!(quick.update().await[0].1, text, "the quick one gets each");
    }
    let mut got = 0;
    loop {
        let update = slow.update().await;
        got += 1;
        if update[0].1.starts_with(&format!("{} ", changes - 1)) {
            break;
        }
    }
    assert!(got < changes, "{got} of {changes} versions came");
    assert!(operator.metrics.push.coalesced.get() > 0);
}

#[tokio::test]
async fn garbage_and_silence_instead_of_tls_hold_up_nobody() {
    let operator = Operator::start().await;
    let _silent = TcpStream::connect(operator.address).await.unwrap();
    let mut garbage = TcpStream::connect(operator.address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    garbage.read_to_end(&mut answer).await.unwrap();
    let mut proxy = operator.proxy("web-0").await;
    proxy.subscribe(&[("a", 0)]).await;
    assert_eq!(proxy.update().await.len(), 1);
    assert_eq!(operator.metrics.session.failed_handshakes.get(), 1);
}

#[tokio::test]
async fn a_stopping_operator_tells_its_proxies_and_ends() {
    let mut operator = Operator::start().await;
    let mut proxy = operator.proxy("web-0").await;
    operator.stop.take().unwrap().send(()).unwrap();
    operator.hub.end_all().await;
    assert_eq!(proxy.end().await.code(), Code::Unavailable);
    drop(proxy);
    let served = tokio::time::timeout(Duration::from_secs(30), operator.serving).await;
    served.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn an_old_session_is_asked_to_move_and_what_the_proxy_holds_is_not_sent_again() {
    let bound = Duration::from_millis;
    let ages = Ages {
        least: bound(2000),
        most: bound(2200),
    };
    let operator = Operator::start_with(ages).await;
    operator.change("a", "one").await;
    let made = Arc::new(AtomicUsize::new(0));
    let channel = operator.counting_channel(made.clone()).await;
    let start = Instant::now();
    let mut proxy = operator.proxy_on(channel.clone(), "web-0").await;
    proxy.subscribe(&[("a", 0)]).await;
    let (_, text, version) = proxy.update().await.remove(0);
    assert_eq!(text, "one");
    let status = proxy.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("another replica"), "{status}");
    assert!(start.elapsed() >= ages.least);
    let mut again = operator.proxy_on(channel, "web-0").await;
    assert_eq!(
        made.load(Ordering::Relaxed),
        2,
        "a new connection, so perhaps another replica"
    );
    again.subscribe(&[("a", version)]).await;
    operator.change("a", "two").await;
    assert_eq!(
        again.update().await[0].1,
        "two",
        "the first that comes is what is new"
    );
}

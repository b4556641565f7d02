use std::net::SocketAddr;

use api::{Body, Kind, Resource};

use super::*;
use crate::config::Handle;
use crate::config::snapshot::Destination;
use crate::config::testing::{DESTINATION_IDLE, DISCOVERY_TIMEOUT, Operator, Session, new, settings};
use crate::error::Error;
use crate::identity::testing::Ca;

const VIP: &str = "10.96.0.1:80";

fn address() -> SocketAddr {
    VIP.parse().expect("an address")
}

fn resource(kind: Kind, name: &str, body: Body) -> proto::Resource {
    Resource::new(ResourceName::new(kind, name), body).into()
}

fn destination(destination: api::Destination) -> proto::Resource {
    resource(Kind::Destination, VIP, Body::Destination(destination))
}

fn inbound(policy: api::TlsPolicy) -> proto::Resource {
    inbound_of(policy, false)
}

fn inbound_of(policy: api::TlsPolicy, finished: bool) -> proto::Resource {
    let inbound = api::Inbound {
        policy,
        ports: Vec::new(),
        sources: Vec::new(),
        finished,
    };
    resource(Kind::Inbound, names::INBOUND_SELF, Body::Inbound(inbound))
}

fn shown(subscriptions: &[proto::Subscription]) -> Vec<(String, u64)> {
    let name = |s: &proto::Subscription| {
        ResourceName::try_from(s.name.clone())
            .expect("a name")
            .to_string()
    };
    subscriptions.iter().map(|s| (name(s), s.known_version)).collect()
}

async fn acked(session: &mut Session) -> String {
    match session.next().await {
        FromProxy::Ack(ack) => ResourceName::try_from(ack.name).expect("a name").to_string(),
        other => panic!("{other:?}"),
    }
}

/// A client that runs, its operator, and the token file that must live as long.
fn running() -> (Handle, Operator, Arc<Metrics>, tempfile::NamedTempFile) {
    let (settings, token) = settings();
    let (handle, client, metrics) = new(&settings);
    let (operator, channel) = Operator::in_memory();
    tokio::spawn(client.run(channel));
    (handle, operator, metrics, token)
}

fn answer(handle: &Handle) -> Option<Destination> {
    let snapshot = handle.load();
    snapshot.destination(address()).map(|e| e.destination.clone())
}

#[tokio::test(start_paused = true)]
async fn it_says_who_it_is_and_asks_for_what_every_proxy_needs() {
    let (handle, mut operator, _, _token) = running();
    let mut session = operator.session().await;
    assert_eq!(session.authorization, "Bearer the-token");
    match session.next().await {
        FromProxy::Hello(hello) => {
            assert_eq!((hello.namespace.as_str(), hello.pod.as_str()), ("shop", "web-1"));
            assert_eq!(hello.revision, names::REVISION);
        }
        other => panic!("{other:?}"),
    }
    session.greet().await;
    let all = shown(&session.subscriptions().await);
    let roots = [
        ("inbound/self".to_owned(), 0),
        ("trust_bundle/mesh".to_owned(), 0),
    ];
    assert_eq!(all, roots);

    assert!(!handle.is_ready());
    let bundle = Ca::new().bundle();
    let trust = resource(
        Kind::TrustBundle,
        names::TRUST_BUNDLE_MESH,
        Body::TrustBundle(bundle.clone()),
    );
    session.update(vec![inbound(api::TlsPolicy::Strict)]).await;
    assert_eq!(acked(&mut session).await, "inbound/self");
    assert!(!handle.is_ready());
    session.update(vec![trust]).await;
    handle.ready().await;
    assert!(handle.is_ready());
    assert_eq!(handle.trust().borrow().as_deref(), Some(&bundle));
    assert!(handle.link().connected && handle.link().latency.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_finished_once_the_operator_says_so() {
    let (handle, mut operator, _, _token) = running();
    let (mut session, _) = operator.welcome().await;
    let finished = tokio::spawn({
        let handle = handle.clone();
        async move { handle.finished().await }
    });
    session.update(vec![inbound(api::TlsPolicy::Strict)]).await;
    acked(&mut session).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!finished.is_finished());
    session
        .update(vec![inbound_of(api::TlsPolicy::Strict, true)])
        .await;
    finished.await.expect("ends");
}

#[tokio::test(start_paused = true)]
async fn connections_that_dial_one_address_at_once_ask_once() {
    let (handle, mut operator, metrics, _token) = running();
    let (mut session, _) = operator.welcome().await;
    let other: SocketAddr = "10.96.0.2:80".parse().expect("an address");
    let (answers, ()) = tokio::join!(
        async {
            tokio::join!(
                handle.discover(address()),
                handle.discover(address()),
                handle.discover(address()),
                handle.discover(other)
            )
        },
        async {
            // Everything asked in one tick comes in one message.
            let asked = shown(&session.subscriptions().await);
            let names = [
                ("destination/10.96.0.1:80".to_owned(), 0),
                ("destination/10.96.0.2:80".to_owned(), 0),
            ];
            assert_eq!(asked, names);
            let passthrough = Body::Destination(api::Destination::Passthrough);
            let second = resource(Kind::Destination, "10.96.0.2:80", passthrough);
            let first = destination(api::Destination::Refuse("not today".to_owned()));
            session.update(vec![first, second]).await;
        }
    );
    assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok() && answers.3.is_ok());
    assert!(matches!(answer(&handle), Some(Destination::Refuse(reason)) if &*reason == "not today"));
    assert_eq!(metrics.config.discoveries.get(), 4);
    let again = handle.discover(address()).await.expect("known");
    assert_eq!(again.number, handle.load().number);
    assert_eq!(
        metrics.config.discoveries.get(),
        4,
        "what is known costs no question"
    );
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_does_not_answer_costs_a_connection_no_more_than_the_timeout() {
    let (handle, mut operator, metrics, _token) = running();
    let (_session, _) = operator.welcome().await;
    let started = Instant::now();
    let error = handle.discover(address()).await.expect_err("no answer");
    assert!(matches!(error, Error::DiscoveryTimeout { .. }), "{error}");
    assert_eq!(started.elapsed(), DISCOVERY_TIMEOUT);
    assert_eq!(metrics.config.discovery_timeouts.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_begins_with_the_versions_held_and_what_was_asked_meanwhile() {
    let (handle, mut operator, metrics, _token) = running();
    let (mut session, _) = operator.welcome().await;
    let sent = inbound(api::TlsPolicy::Permissive);
    let version = sent.version;
    session.update(vec![sent]).await;
    assert_eq!(acked(&mut session).await, "inbound/self");
    let before = handle.load();
    drop(session);

    let asking = tokio::spawn({
        let handle = handle.clone();
        async move { handle.discover(address()).await }
    });
    let mut session = operator.session().await;
    assert!(matches!(session.next().await, FromProxy::Hello(_)));
    assert_eq!(
        handle.load().number,
        before.number,
        "the last configuration stays"
    );
    session.greet().await;
    let mut all = shown(&session.subscriptions().await);
    if all.len() == 2 {
        all.extend(shown(&session.subscriptions().await));
    }
    all.sort();
    let expected = [
        ("destination/10.96.0.1:80".to_owned(), 0),
        ("inbound/self".to_owned(), version),
        ("trust_bundle/mesh".to_owned(), 0),
    ];
    assert_eq!(all, expected);
    session
        .update(vec![destination(api::Destination::Passthrough)])
        .await;
    let snapshot = asking.await.expect("runs").expect("an answer");
    assert_eq!(
        snapshot.inbound.as_deref().map(|i| i.policy),
        Some(api::TlsPolicy::Permissive)
    );
    assert_eq!(
        (metrics.config.reconnects.get(), handle.link().reconnects),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_resource_is_refused_with_its_reason_and_the_last_good_one_stays() {
    let (handle, mut operator, metrics, _token) = running();
    let (mut session, _) = operator.welcome().await;
    session.update(vec![inbound(api::TlsPolicy::Strict)]).await;
    assert_eq!(acked(&mut session).await, "inbound/self");
    let mut bad = inbound(api::TlsPolicy::Disable);
    if let Some(proto::resource::Body::Inbound(inbound)) = &mut bad.body {
        inbound.policy = 99;
    }
    let version = bad.version;
    session.update(vec![bad]).await;
    match session.next().await {
        FromProxy::Nack(nack) => {
            assert_eq!(nack.version, version);
            assert!(nack.reason.starts_with("inbound.policy: "), "{}", nack.reason);
        }
        other => panic!("{other:?}"),
    }
    let policy = handle.load().inbound.as_deref().map(|i| i.policy);
    assert_eq!(policy, Some(api::TlsPolicy::Strict));
    let view = handle.view().await.expect("it runs");
    let shown = view.iter().find(|v| v.kind == "inbound").expect("held");
    assert!(
        shown
            .detail
            .as_ref()
            .is_some_and(|d| d.contains("inbound.policy")),
        "{shown:?}"
    );
    let text = metrics.encode().expect("encodes");
    for line in [
        "hauberk_config_nacks_total{kind=\"inbound\"} 1",
        "hauberk_config_resources{kind=\"inbound\",state=\"rejected\"} 1",
        "hauberk_operator_connected 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn nonsense_ends_the_stream_but_never_the_proxy() {
    let (handle, mut operator, _, _token) = running();
    let (mut session, _) = operator.welcome().await;
    session.update(vec![inbound(api::TlsPolicy::Strict)]).await;
    assert_eq!(acked(&mut session).await, "inbound/self");

    // A body of a kind that this build does not know.
    session.send_raw(proto::OperatorMessage { body: None }).await;
    // No Welcome.
    let session = operator.session().await;
    session.update(vec![inbound(api::TlsPolicy::Disable)]).await;
    // A Welcome of a later contract, and of none.
    for revision in [names::REVISION + 1, 0] {
        let session = operator.session().await;
        let operator_version = "future".to_owned();
        session
            .send(FromOperator::Welcome(proto::Welcome {
                operator_version,
                revision,
            }))
            .await;
    }
    // Nothing at all.
    let _silent = operator.session().await;
    // More than a message may hold.
    let (session, _) = operator.welcome().await;
    let huge = resource(
        Kind::Inbound,
        names::INBOUND_SELF,
        Body::Absent("x".repeat(limits::MAX_MESSAGE_SIZE + 1)),
    );
    session.update(vec![huge]).await;

    let (mut session, _) = operator.welcome().await;
    let policy = handle.load().inbound.as_deref().map(|i| i.policy);
    assert_eq!(
        policy,
        Some(api::TlsPolicy::Strict),
        "the last good configuration stays"
    );
    session.update(vec![inbound(api::TlsPolicy::Permissive)]).await;
    assert_eq!(acked(&mut session).await, "inbound/self");
    let policy = handle.load().inbound.as_deref().map(|i| i.policy);
    assert_eq!(policy, Some(api::TlsPolicy::Permissive));
    assert_eq!(handle.link().reconnects, 6);
}

#[tokio::test(start_paused = true)]
async fn what_no_connection_uses_is_unsubscribed_and_what_one_uses_is_not() {
    let (handle, mut operator, _, _token) = running();
    let (mut session, _) = operator.welcome().await;
    let (snapshot, ()) = tokio::join!(handle.discover(address()), async {
        session.subscriptions().await;
        session
            .update(vec![destination(api::Destination::Passthrough)])
            .await;
    });
    let snapshot = snapshot.expect("an answer");
    assert_eq!(acked(&mut session).await, "destination/10.96.0.1:80");
    let used = snapshot.destination(address()).expect("an answer").usage.hold();
    let released_at = Instant::now() + DESTINATION_IDLE * 3;
    tokio::time::sleep_until(released_at).await;
    drop(used);
    match session.next().await {
        FromProxy::Unsubscribe(gone) => {
            let name = ResourceName::try_from(gone.names[0].clone()).expect("a name");
            assert_eq!(name.to_string(), "destination/10.96.0.1:80");
        }
        other => panic!("{other:?}"),
    }
    let after = released_at.elapsed();
    assert!(
        after >= DESTINATION_IDLE && after <= DESTINATION_IDLE * 5 / 4,
        "{after:?}"
    );
    assert!(answer(&handle).is_none());
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_in_its_own_time_when_the_operator_refuses_every_stream() {
    let (handle, mut operator, metrics, _token) = running();
    let started = Instant::now();
    for _ in 0..12 {
        drop(operator.session().await);
    }
    // The bounds of the delays add up to 72.7 s; an operator that refuses is not asked without pause either.
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert!(
        started.elapsed() < Duration::from_secs(73),
        "{:?}",
        started.elapsed()
    );
    let (_session, _) = operator.welcome().await;
    crate::config::testing::eventually("connected", || handle.link().connected).await;
    assert!(metrics.config.reconnects.get() >= 12);
}

#[tokio::test(start_paused = true)]
async fn a_missing_token_is_told_and_tried_again() {
    let (mut settings, _token) = settings();
    let place = tempfile::tempdir().expect("a directory");
    settings.token_file = place.path().join("token");
    let (handle, client, _) = new(&settings);
    let (mut operator, channel) = Operator::in_memory();
    tokio::spawn(client.run(channel));
    crate::config::testing::eventually("told", || handle.link().last_error.is_some()).await;
    let told = handle.link().last_error.expect("told");
    assert!(told.contains("token file") && told.contains("/token"), "{told}");
    std::fs::write(&settings.token_file, "late").expect("writes");
    let session = operator.session().await;
    assert_eq!(session.authorization, "Bearer late");
}

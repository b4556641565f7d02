//! Tests of the hub without a network: what reaches outboxes, when, and at what cost. Time is paused.

use std::time::Duration;

use api::{Kind, proto};
use futures_util::{FutureExt as _, StreamExt as _};

use super::testing::Texts;
use super::*;
use crate::metrics::Metrics;
use crate::source::Change;

mod scale;

struct Mesh {
    hub: HubHandle,
    texts: Texts,
    metrics: Metrics,
}

struct Proxied {
    hub: HubHandle,
    id: SessionId,
    stream: OutboxStream,
}

fn start() -> Mesh {
    let texts = Texts::default();
    let metrics = Metrics::new();
    let bundle = bundle(&[b"old"]);
    let (hub, running) = Hub::new(texts.compiler(), Arc::default(), bundle, metrics.push.clone());
    tokio::spawn(running.run());
    Mesh { hub, texts, metrics }
}

fn bundle(roots: &[&'static [u8]]) -> TrustBundle {
    TrustBundle {
        trust_domain: "cluster.local".to_owned(),
        roots: roots.iter().map(|root| root.to_vec().into()).collect(),
    }
}

fn route(name: &str) -> ResourceName {
    ResourceName::new(Kind::Route, name)
}

impl Mesh {
    async fn join(&self, pod: &str) -> Proxied {
        let joining = Joining {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            service_account: "web".to_owned(),
            proxy_version: "0.1.0".to_owned(),
            revision: 1,
        };
        let outbox = self.hub.outbox();
        let id = self.hub.join(joining, outbox.clone()).await.unwrap();
        Proxied {
            hub: self.hub.clone(),
            id,
            stream: OutboxStream(outbox),
        }
    }

    async fn change(&self, touched: Touched) {
        self.hub.world_changed(Arc::default(), touched).await;
    }
}

impl Proxied {
    async fn subscribe(&self, names: impl IntoIterator<Item = ResourceName>) {
        let names = names.into_iter().map(|name| (name, None)).collect();
        self.hub.request(self.id, Request::Subscribe(names)).await;
    }

    /// What waits now, without waiting: names and texts.
    fn waiting(&mut self) -> Vec<(String, String)> {
        let Some(message) = self.stream.next().now_or_never() else {
            return Vec::new();
        };
        let message = proto::OperatorMessage::from(message.unwrap().unwrap());
        let Some(proto::operator_message::Body::Update(update)) = message.body else {
            panic!("not an update")
        };
        let shown = |resource: proto::Resource| {
            let name = ResourceName::try_from(resource.name).unwrap().name;
            let text = match resource.body.unwrap() {
                proto::resource::Body::Absent(absent) => absent.reason,
                proto::resource::Body::TrustBundle(bundle) => format!("{} roots", bundle.roots.len()),
                other => panic!("{other:?}"),
            };
            (name, text)
        };
        update.resources.into_iter().map(shown).collect()
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

/// Longer than any wait of the hub; the clock jumps.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_compiles_and_sends_only_what_was_made_from_it() {
    let mesh = start();
    mesh.texts.set("a", "1");
    mesh.texts.set("b", "1");
    let mut proxy = mesh.join("web-0").await;
    proxy.subscribe([route("a"), route("b")]).await;
    assert_eq!(proxy.waiting(), pairs(&[("a", "1"), ("b", "1")]));
    let before = mesh.texts.compiled();
    mesh.change(mesh.texts.set("a", "2")).await;
    settle().await;
    assert_eq!(proxy.waiting(), pairs(&[("a", "2")]));
    assert_eq!(mesh.texts.compiled() - before, 1);
    // The same content again, of a newer generation: compiled, not sent.
    mesh.change(mesh.texts.set("a", "2")).await;
    settle().await;
    assert_eq!(proxy.waiting(), []);
}

#[tokio::test(start_paused = true)]
async fn changes_within_a_moment_go_out_once_and_a_stream_of_them_does_not_starve_proxies() {
    let mesh = start();
    let mut proxy = mesh.join("web-0").await;
    proxy.subscribe([route("a")]).await;
    proxy.waiting();
    let before = mesh.texts.compiled();
    for i in 0..5 {
        mesh.change(mesh.texts.set("a", &i.to_string())).await;
    }
    settle().await;
    assert_eq!(proxy.waiting(), pairs(&[("a", "4")]));
    assert_eq!(mesh.texts.compiled() - before, 1);
    for i in 0..40 {
        mesh.change(mesh.texts.set("a", &format!("stream {i}"))).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        if i == 25 {
            assert_ne!(proxy.waiting(), [], "something must be out after 100 ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn proxies_that_are_alike_share_one_compilation_and_inbound_is_each_ones_own() {
    let mesh = start();
    mesh.texts.set("self", "labels");
    let mut first = mesh.join("web-0").await;
    let mut second = mesh.join("web-1").await;
    let own = || ResourceName::new(Kind::Inbound, "self");
    for proxy in [&first, &second] {
        proxy.subscribe([route("a"), own()]).await;
    }
    assert_eq!(mesh.texts.compiled(), 3);
    assert!(first.waiting()[0].1.contains("web-0"));
    assert!(second.waiting()[0].1.contains("web-1"));
    assert_eq!(mesh.metrics.push.entries.get(), 3);
    mesh.hub.leave(first.id).await;
    mesh.hub
        .request(second.id, Request::Unsubscribe(vec![route("a"), own()]))
        .await;
    assert_eq!(mesh.metrics.push.entries.get(), 0, "what nobody uses is not kept");
    assert_eq!(mesh.metrics.push.subscriptions.of(Kind::Route).get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_labels_change_gets_what_its_new_labels_deserve() {
    let mesh = start();
    mesh.texts.set("a", "labels");
    let mut proxy = mesh.join("web-0").await;
    proxy.subscribe([route("a"), route("b")]).await;
    assert_eq!(proxy.waiting()[0].1, "{}");
    mesh.change(mesh.texts.label("v2", "web-0")).await;
    settle().await;
    assert_eq!(proxy.waiting(), pairs(&[("a", "{\"version\": \"v2\"}")]));
    assert_eq!(mesh.metrics.push.entries.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_compiled_or_sent_leaves_the_last_good_version_and_heals() {
    for (bad, says) in [("panic", "internal error"), ("large", "more than")] {
        let mesh = start();
        mesh.texts.set("a", "good");
        mesh.texts.set("b", "1");
        let mut proxy = mesh.join("web-0").await;
        proxy.subscribe([route("a"), route("b")]).await;
        proxy.waiting();
        mesh.change(mesh.texts.set("a", bad)).await;
        mesh.change(mesh.texts.set("b", "2")).await;
        settle().await;
        assert_eq!(proxy.waiting(), pairs(&[("b", "2")]));
        let view = mesh.hub.view().await.unwrap();
        assert_eq!(view.unsendable[0].resource, "route/a");
        assert!(view.unsendable[0].problem.contains(says), "{:?}", view.unsendable);
        mesh.change(mesh.texts.set("a", "better")).await;
        settle().await;
        assert_eq!(proxy.waiting(), pairs(&[("a", "better")]));
        assert_eq!(mesh.hub.view().await.unwrap().unsendable, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_bundle_goes_to_those_who_follow_it() {
    let mesh = start();
    let mut proxy = mesh.join("web-0").await;
    let mesh_roots = ResourceName::new(Kind::TrustBundle, "mesh");
    proxy
        .subscribe([mesh_roots, ResourceName::new(Kind::TrustBundle, "other")])
        .await;
    let first = proxy.waiting();
    assert_eq!(first[0], ("mesh".to_owned(), "1 roots".to_owned()));
    assert!(first[1].1.contains("is named \"mesh\""), "{first:?}");
    assert!(mesh.hub.bundle_changed(bundle(&[b"old", b"new"])).await);
    settle().await;
    assert_eq!(proxy.waiting(), pairs(&[("mesh", "2 roots")]));
}

#[tokio::test(start_paused = true)]
async fn applied_follows_acknowledgements_of_the_newest_version() {
    let mesh = start();
    mesh.texts.set("a", "1");
    let mut proxy = mesh.join("web-0").await;
    proxy.subscribe([route("a")]).await;
    proxy.waiting();
    let object = ObjectKey {
        kind: "VirtualService".to_owned(),
        namespace: "shop".to_owned(),
        name: "a".to_owned(),
    };
    let state = async || {
        let by = mesh.hub.view().await.unwrap().objects[&object][0].clone();
        (by.generation, by.applied, by.refused)
    };
    let version = async || {
        let detail = mesh.hub.proxy("shop", "web-0").await.unwrap();
        let number = u64::from_str_radix(&detail.resources[0].version, 16).unwrap();
        Version::from_wire(number).unwrap()
    };
    assert_eq!(state().await, (1, false, None));
    let old = version().await;
    mesh.hub.request(proxy.id, Request::Ack(route("a"), old)).await;
    assert_eq!(state().await, (1, true, None));
    mesh.change(mesh.texts.set("a", "2")).await;
    settle().await;
    // A late answer to the old version is no answer to the new one.
    mesh.hub.request(proxy.id, Request::Ack(route("a"), old)).await;
    assert_eq!(state().await, (2, false, None));
    let refusal = Request::Nack(route("a"), version().await, "no".to_owned());
    mesh.hub.request(proxy.id, refusal).await;
    assert_eq!(state().await, (2, false, Some("route/a: no".to_owned())));
    mesh.hub
        .request(proxy.id, Request::Ack(route("a"), version().await))
        .await;
    assert_eq!(state().await, (2, true, None));
    let proxies = mesh.hub.view().await.unwrap().proxies;
    assert_eq!(proxies[0].last_nack.as_ref().unwrap().reason, "no");
}

#[tokio::test(start_paused = true)]
async fn a_newer_connection_of_a_pod_takes_the_place_of_the_older() {
    let mesh = start();
    let mut old = mesh.join("web-0").await;
    old.subscribe([route("a")]).await;
    let mut new = mesh.join("web-0").await;
    let status = old.stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Aborted);
    // The old one's leaving, which comes late, does not take the new one along.
    mesh.hub.leave(old.id).await;
    new.subscribe([route("a")]).await;
    assert_eq!(new.waiting().len(), 1);
    assert_eq!(mesh.hub.view().await.unwrap().proxies.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_with_too_many_names_is_ended_alone() {
    let mesh = start();
    let mut greedy = mesh.join("web-0").await;
    for part in 0..5 {
        let names = (0..10_000).map(|i| route(&format!("{part}/{i}")));
        greedy.subscribe(names).await;
    }
    let status = greedy.stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let view = mesh.hub.view().await.unwrap();
    assert!(view.proxies.is_empty());
    assert_eq!(mesh.metrics.push.entries.get(), 0);
}

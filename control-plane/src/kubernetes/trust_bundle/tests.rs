use serde_json::{Value, json};

use super::*;
use crate::authority::{AuthoritySettings, Store, rotate};
use crate::kubernetes::fake::Fake;
use crate::metrics::Metrics;
use crate::source::Change;

fn world(yaml: &[&str]) -> Arc<World> {
    let objects = yaml.iter().map(|text| {
        let value: Value = serde_saphyr::from_str(text).unwrap();
        let object = match value["kind"].as_str().unwrap() {
            "Namespace" => crds::Object::Namespace(serde_json::from_value(value).unwrap()),
            _ => crds::Object::Pod(serde_json::from_value(value).unwrap()),
        };
        Change::Set(object)
    });
    World::default().apply(objects.collect::<Vec<_>>()).0
}

const SHOP: &str = "{kind: Namespace, metadata: {name: shop, labels: {hauberk.dev/inject: enabled}}}";
const BANK: &str = "{kind: Pod, metadata: {name: a, namespace: bank, labels: {hauberk.dev/injected: 'true'}}, spec: {containers: []}}";

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/hauberk-trust-bundle")
}

#[test]
fn namespaces_that_have_proxies_or_are_to_have_them_get_the_roots() {
    let world = world(&[
        SHOP,
        BANK,
        "{kind: Namespace, metadata: {name: closed, labels: {hauberk.dev/inject: disabled}}}",
        "{kind: Namespace, metadata: {name: plain}}",
        "{kind: Namespace, metadata: {name: kube-system, labels: {hauberk.dev/inject: enabled}}}",
        "{kind: Pod, metadata: {name: a, namespace: plain}, spec: {containers: []}}",
    ]);
    let wanted: Vec<_> = wanted(&world).into_iter().collect();
    assert_eq!(wanted, ["bank", "hauberk-system", "shop"]);
}

struct Running {
    fake: Fake,
    store: Store,
    source: watch::Sender<SourceReport>,
    holds: watch::Sender<bool>,
    authority: Arc<Authority>,
    metrics: Metrics,
    _dir: tempfile::TempDir,
}

/// One that may write, with a world that has been read.
async fn start(objects: &[&str]) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let (fake, metrics) = (Fake::default(), Metrics::new());
    let settings = AuthoritySettings {
        trust_domain: "cluster.local".to_owned(),
        lifetime: Duration::from_secs(3600),
    };
    let store = Store::directory(dir.path());
    let authority = Authority::open(settings, store.clone(), metrics.authority.clone())
        .await
        .unwrap();
    let (source, report) = watch::channel(SourceReport {
        loaded: true,
        world: world(objects),
        ..SourceReport::default()
    });
    let (holds, held) = watch::channel(true);
    let looking = authority.clone();
    tokio::spawn(async move { looking.watch().await });
    let running = run(
        fake.client(),
        authority.clone(),
        report,
        held,
        metrics.authority.clone(),
    );
    tokio::spawn(running);
    Running {
        fake,
        store,
        source,
        holds,
        authority,
        metrics,
        _dir: dir,
    }
}

impl Running {
    fn roots(&self, namespace: &str) -> Option<String> {
        let object = self.fake.object(&path(namespace))?;
        assert_eq!(object["metadata"]["labels"][MANAGED_BY], KEEPER);
        object["data"]["roots.pem"].as_str().map(str::to_owned)
    }

    fn now_there(&self, objects: &[&str]) {
        self.source.send_modify(|report| report.world = world(objects));
    }
}

/// Longer than anything but looking again takes.
async fn moment() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn the_roots_are_written_where_they_are_wanted_and_follow_a_rotation() {
    let running = start(&[SHOP]).await;
    moment().await;
    let roots = running.authority.roots_pem();
    assert_eq!(running.roots("shop").as_ref(), Some(&roots));
    assert_eq!(running.roots("hauberk-system").as_ref(), Some(&roots));
    assert_eq!(running.roots("bank"), None);
    running.now_there(&[SHOP, BANK]);
    moment().await;
    assert_eq!(running.roots("bank"), Some(roots));
    let step = rotate(
        &running.store,
        "cluster.local",
        Duration::ZERO,
        std::time::SystemTime::now(),
    );
    step.await.unwrap();
    moment().await;
    for namespace in ["shop", "bank", "hauberk-system"] {
        let roots = running.roots(namespace).unwrap();
        assert_eq!(roots.matches("BEGIN").count(), 2, "{namespace}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_holder_of_the_lease_writes() {
    let running = start(&[SHOP]).await;
    moment().await;
    running.holds.send_replace(false);
    running.now_there(&[SHOP, BANK]);
    moment().await;
    running.fake.asked();
    tokio::time::sleep(LOOK_AGAIN * 3).await;
    assert_eq!(running.fake.asked(), Vec::<String>::new());
    running.holds.send_replace(true);
    moment().await;
    assert!(running.roots("bank").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_is_put_right_and_what_was_not_is_only_read() {
    let running = start(&[SHOP]).await;
    moment().await;
    running.fake.asked();
    tokio::time::sleep(LOOK_AGAIN).await;
    let asked = running.fake.asked();
    assert!(
        asked.len() == 2 && asked.iter().all(|a| a.starts_with("GET")),
        "{asked:?}"
    );

    type Harm = fn(&Fake);
    let harms: [Harm; 3] = [
        |fake| fake.change(&path("shop"), |o| o["data"]["roots.pem"] = json!("other")),
        |fake| fake.change(&path("shop"), |o| o["metadata"]["labels"] = json!({})),
        |fake| fake.remove(&path("shop")),
    ];
    for harm in harms {
        harm(&running.fake);
        tokio::time::sleep(LOOK_AGAIN + Duration::from_secs(1)).await;
        assert_eq!(running.roots("shop"), Some(running.authority.roots_pem()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_cannot_be_written_to_is_tried_ever_more_rarely_and_holds_up_no_other() {
    let other = "{kind: Namespace, metadata: {name: zoo, labels: {hauberk.dev/inject: enabled}}}";
    let running = start(&[SHOP, other]).await;
    running.fake.namespace_gone("shop");
    running.fake.namespace_terminating("zoo");
    moment().await;
    assert!(running.roots("hauberk-system").is_some());
    assert_eq!(running.roots("shop"), None);
    running.fake.asked();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let tries = running
        .fake
        .asked()
        .iter()
        .filter(|a| a.starts_with("PATCH"))
        .count();
    assert!(
        (20..=40).contains(&tries),
        "{tries} tries in ten minutes, in two namespaces"
    );
    // A namespace that is going is no failure.
    assert_eq!(running.metrics.authority.bundles_failed.get(), 0);

    running.fake.namespace_back("shop");
    tokio::time::sleep(BACKOFF.1).await;
    assert!(running.roots("shop").is_some());
    running.fake.down(Some(500));
    running.now_there(&[SHOP, other, BANK]);
    moment().await;
    assert!(running.metrics.authority.bundles_failed.get() > 0);
    running.fake.down(None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(running.roots("bank").is_some());
}

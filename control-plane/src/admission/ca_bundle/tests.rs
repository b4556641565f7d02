//! The keeper against an API server that has, loses and gets back the registrations.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::authority::{AuthoritySettings, Store, rotate};
use crate::metrics::Metrics;
use crate::scripted::{Log, client, refusal};

const PATHS: [&str; 2] = [
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/hauberk-control-plane",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/hauberk-control-plane",
];

async fn authority(dir: &Path) -> Arc<Authority> {
    let settings = AuthoritySettings {
        trust_domain: "cluster.local".to_owned(),
        lifetime: Duration::from_secs(3600),
    };
    Authority::open(settings, Store::directory(dir), Metrics::new().authority)
        .await
        .unwrap()
}

/// A server with both registrations, or without them.
type Registrations = Arc<Mutex<Option<[Value; 2]>>>;

fn server(registrations: &Registrations) -> (Client, Log) {
    let registrations = registrations.clone();
    client(move |seen| {
        let place = PATHS.iter().position(|path| seen.call.ends_with(path));
        let Some(place) = place else {
            return refusal(405, "an unknown call");
        };
        let mut registrations = registrations.lock().unwrap();
        let Some(all) = registrations.as_mut() else {
            return refusal(404, "NotFound");
        };
        if seen.call.starts_with("PATCH") {
            let patch: Patch = serde_json::from_value(seen.body.clone()).unwrap();
            if json_patch::patch(&mut all[place], &patch).is_err() {
                return refusal(422, "Invalid");
            }
        }
        (200, all[place].clone())
    })
}

fn registration(names: &[&str]) -> Value {
    let webhooks: Vec<_> = names
        .iter()
        .map(|name| json!({"name": name, "clientConfig": {"service": {"name": "hauberk-control-plane"}}}))
        .collect();
    json!({"metadata": {"name": "hauberk-control-plane"}, "webhooks": webhooks})
}

fn roots(registrations: &Registrations) -> Vec<String> {
    let all = registrations.lock().unwrap().clone().unwrap();
    let webhooks = all.iter().flat_map(|r| r["webhooks"].as_array().unwrap().clone());
    webhooks
        .map(|webhook| {
            let text = webhook["clientConfig"]["caBundle"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            String::from_utf8(bytes).unwrap()
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_holder_of_the_lease_keeps_the_roots_in_every_webhook() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).await;
    let one = || [registration(&["a", "b"]), registration(&["v"])];
    let registrations: Registrations = Arc::new(Mutex::new(Some(one())));
    let (client, log) = server(&registrations);
    let (lease, leader) = watch::channel(false);
    let keeping = tokio::spawn({
        let authority = authority.clone();
        async move { keep_ca_bundle(client, &authority, leader, Metrics::new().writes).await }
    });
    let watching = tokio::spawn({
        let authority = authority.clone();
        async move { authority.watch().await }
    });

    tokio::time::sleep(LOOK * 3).await;
    assert_eq!(log.calls(""), [""; 0], "who has no lease asks and writes nothing");

    lease.send_replace(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let expected = authority.roots_pem();
    assert!(
        expected.starts_with("-----BEGIN CERTIFICATE-----\nMII"),
        "{expected}"
    );
    assert_eq!(roots(&registrations), vec![expected.clone(); 3]);
    assert_eq!(log.take("PATCH").len(), 2);

    tokio::time::sleep(LOOK * 3).await;
    assert_eq!(log.take("PATCH").len(), 0, "nothing differs");
    assert!(log.take("GET").len() >= 6, "but it is looked at");

    // Somebody installs the chart again, without roots.
    *registrations.lock().unwrap() = Some(one());
    tokio::time::sleep(LOOK).await;
    assert_eq!(roots(&registrations), vec![expected; 3]);

    // Both roots while they rotate, without waiting for the next look.
    let lifetime = Duration::ZERO;
    let store = Store::directory(dir.path());
    let now = std::time::SystemTime::now();
    rotate(&store, "cluster.local", lifetime, now).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(authority.bundle().roots.len(), 2);
    assert_eq!(roots(&registrations), vec![authority.roots_pem(); 3]);

    keeping.abort();
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn registrations_that_are_not_there_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path()).await;
    let registrations: Registrations = Arc::new(Mutex::new(None));
    let (client, log) = server(&registrations);
    let (_lease, leader) = watch::channel(true);
    let keeping = tokio::spawn({
        let authority = authority.clone();
        async move { keep_ca_bundle(client, &authority, leader, Metrics::new().writes).await }
    });
    tokio::time::sleep(LOOK * 10).await;
    let asked = log.take("GET").len();
    assert!(
        (20..=22).contains(&asked),
        "once a minute each, not {asked} times"
    );
    *registrations.lock().unwrap() = Some([registration(&["a"]), registration(&["v"])]);
    tokio::time::sleep(LOOK).await;
    assert_eq!(roots(&registrations), vec![authority.roots_pem(); 2]);
    keeping.abort();
}

#[test]
fn only_webhooks_that_differ_are_changed_and_each_is_named() {
    let mut both = registration(&["a", "b"]);
    both["webhooks"][0]["clientConfig"]["caBundle"] = "cm9vdHM=".into();
    let patch = serde_json::to_value(change(&both, "cm9vdHM=").unwrap()).unwrap();
    let expected = json!([
        {"op": "test", "path": "/webhooks/1/name", "value": "b"},
        {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "cm9vdHM="},
    ]);
    assert_eq!(patch, expected);
    both["webhooks"][1]["clientConfig"]["caBundle"] = "cm9vdHM=".into();
    assert_eq!(change(&both, "cm9vdHM="), None);
    assert_eq!(change(&json!({}), "cm9vdHM="), None);
}

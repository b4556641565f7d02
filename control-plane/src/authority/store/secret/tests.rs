use serde_json::{Value, json};

use super::*;
use crate::authority::keys::pem;
use crate::authority::testing::brought;
use crate::kubernetes::fake::Fake;

const SECRETS: &str = "/api/v1/namespaces/hauberk-system/secrets";
const AUTHORITY: &str = "/api/v1/namespaces/hauberk-system/secrets/hauberk-authority";
const ISSUER: &str = "/api/v1/namespaces/hauberk-system/secrets/hauberk-issuer";
const BUNDLE: &str = "/api/v1/namespaces/hauberk-system/configmaps/hauberk-trust-bundle";

async fn open(fake: &Fake) -> Result<Keys, StoreError> {
    SecretStore::new(fake.client())
        .open("cluster.local", SystemTime::now())
        .await
}

fn encoded(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}

fn bring(fake: &Fake) {
    let pem = brought();
    let data = json!({
        "tls.crt": encoded(&pem.certificate), "tls.key": encoded(&pem.key), "ca.crt": encoded(&pem.roots),
    });
    fake.put(
        ISSUER,
        json!({"type": "kubernetes.io/tls", "metadata": {"name": "hauberk-issuer"}, "data": data}),
    );
}

fn certificate(keys: &Keys) -> String {
    pem([keys.signer().der.as_ref()])
}

#[tokio::test]
async fn of_two_operators_that_start_at_once_one_makes_the_secret_and_both_use_it() {
    let fake = Fake::default();
    fake.creations_meet(2);
    let (one, two) = tokio::join!(open(&fake), open(&fake));
    assert_eq!(certificate(&one.unwrap()), certificate(&two.unwrap()));
    let asked = fake.asked();
    let creations = asked.iter().filter(|a| **a == format!("POST {SECRETS}")).count();
    assert_eq!(creations, 2, "both had seen none: {asked:?}");
    let secret = fake.object(AUTHORITY).unwrap();
    assert_eq!(secret["type"], "Opaque");
    let keys: Vec<_> = secret["data"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["root-1.crt", "root-1.key", "signer", "signer-since"]);
}

#[tokio::test]
async fn what_is_missing_or_does_not_fit_is_named_and_nothing_is_replaced() {
    type Harm = fn(&mut Value);
    let cases: [(Harm, &str); 7] = [
        (
            |s| drop(s["data"].as_object_mut().unwrap().remove("root-1.key")),
            "key root-1.key: is missing",
        ),
        (
            |s| drop(s["data"].as_object_mut().unwrap().remove("signer")),
            "key signer: is missing",
        ),
        (|s| s["data"] = json!({}), "key signer: is missing"),
        (
            |s| s["data"]["signer"] = encoded("7"),
            "key signer: names the root 7",
        ),
        (
            |s| s["data"]["signer"] = encoded("mine"),
            "key signer: is \"mine\"",
        ),
        (
            |s| s["data"]["root-1.crt"] = encoded("half"),
            "key root-1.crt: the certificate cannot be read",
        ),
        (
            |s| s["data"]["root-old.crt"] = encoded("x"),
            "key root-old.crt: is no part of a root",
        ),
    ];
    for (harm, says) in cases {
        let fake = Fake::default();
        open(&fake).await.unwrap();
        fake.change(AUTHORITY, harm);
        let before = fake.object(AUTHORITY);
        let error = open(&fake).await.unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains("hauberk-system/hauberk-authority"),
            "{error}"
        );
        assert_eq!(fake.object(AUTHORITY), before);
    }
}

#[tokio::test]
async fn a_secret_that_was_lost_is_not_made_anew_while_proxies_trust_the_old_one() {
    let fake = Fake::default();
    fake.put(
        BUNDLE,
        json!({"metadata": {"name": "hauberk-trust-bundle"}, "data": {"roots.pem": "…"}}),
    );
    let error = open(&fake).await.unwrap_err().to_string();
    assert!(
        error.contains("though there was an authority before") && error.contains("backup"),
        "{error}"
    );
    assert_eq!(fake.object(AUTHORITY), None);
    fake.remove(BUNDLE);
    open(&fake).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_that_falls_into_a_restart_of_the_api_server_outlives_it() {
    let fake = Fake::default();
    fake.down(Some(503));
    let up_again = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        fake.down(None);
    };
    let (opened, ()) = tokio::join!(open(&fake), up_again);
    opened.unwrap();
    fake.down(Some(503));
    let error = open(&fake).await.unwrap_err().to_string();
    assert!(error.contains("the server is down"), "{error}");
    // What the API server forbids stays forbidden: that is said at once.
    fake.down(Some(403));
    fake.asked();
    open(&fake).await.unwrap_err();
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn a_rotation_outlives_a_write_in_between_but_never_takes_a_second_step_for_one() {
    let fake = Fake::default();
    open(&fake).await.unwrap();
    let store = SecretStore::new(fake.client());
    let step = async || {
        store
            .rotate("cluster.local", Duration::ZERO, SystemTime::now())
            .await
    };

    // Someone labels the Secret: the step is still the next one.
    fake.before_replace(|secret| secret["metadata"]["labels"]["mine"] = json!("yes"));
    assert_eq!(step().await.unwrap(), Step::Added { root: 2 });
    assert_eq!(
        fake.object(AUTHORITY).unwrap()["metadata"]["labels"]["mine"],
        "yes"
    );

    // Someone takes the same step: proxies must catch up before the one after it.
    fake.before_replace(|secret| secret["data"]["signer"] = encoded("2"));
    assert!(matches!(step().await.unwrap_err(), RotateError::Overtaken));
    let data = fake.object(AUTHORITY).unwrap()["data"].clone();
    assert!(data["root-1.crt"].is_string() && data["signer"] == encoded("2"));
    assert_eq!(step().await.unwrap(), Step::Dropped { roots: vec![1] });
    let keys = open(&fake).await.unwrap();
    assert_eq!((keys.roots.len(), keys.signs), (1, Signs::Root(2)));
}

#[tokio::test]
async fn the_old_root_stays_for_as_long_as_its_certificates_live() {
    let fake = Fake::default();
    open(&fake).await.unwrap();
    let store = SecretStore::new(fake.client());
    let hour = Duration::from_secs(3600);
    let step = async |at| store.rotate("cluster.local", hour, at).await;
    let now = SystemTime::now();
    step(now).await.unwrap();
    step(now).await.unwrap();
    assert!(matches!(
        step(now + hour / 2).await.unwrap_err(),
        RotateError::TooSoon { .. }
    ));
    fake.change(AUTHORITY, |secret| {
        secret["data"].as_object_mut().unwrap().remove("signer-since");
    });
    assert!(matches!(
        step(now + hour * 2).await.unwrap_err(),
        RotateError::UnknownSince
    ));
    fake.change(AUTHORITY, |secret| {
        secret["data"]["signer-since"] = encoded(&unix(now).to_string())
    });
    step(now + hour * 2).await.unwrap();
}

#[tokio::test]
async fn a_users_intermediate_signs_from_the_start_and_its_loss_is_told() {
    let fake = Fake::default();
    bring(&fake);
    let keys = open(&fake).await.unwrap();
    assert_eq!((keys.signs, keys.roots.len()), (Signs::Issuer, 0));
    let secret = fake.object(AUTHORITY).unwrap();
    assert_eq!(
        secret["data"].as_object().unwrap().len(),
        2,
        "no root is made: {secret}"
    );

    fake.change(ISSUER, |secret| {
        secret["data"].as_object_mut().unwrap().remove("ca.crt");
    });
    let error = open(&fake).await.unwrap_err().to_string();
    assert!(
        error.contains("hauberk-issuer, key ca.crt: is missing"),
        "{error}"
    );
    fake.remove(ISSUER);
    let error = open(&fake).await.unwrap_err().to_string();
    assert!(
        error.contains("Secret hauberk-system/hauberk-issuer signs, but there is none"),
        "{error}"
    );
}

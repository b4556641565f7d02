use serde_json::{Value, json};

use super::*;
use crate::kubernetes::fake::Fake;
use crate::metrics::Metrics;

fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["hauberk"],
        "user": {
            "username": "system:serviceaccount:shop:web",
            "groups": ["system:serviceaccounts"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["web-0"],
                "authentication.kubernetes.io/pod-uid": ["7f"],
            },
        },
    })
}

fn reviewer(fake: &Fake) -> Reviewer {
    Reviewer::new(fake.client(), Metrics::new().authority.reviews)
}

#[test]
fn only_a_pods_own_token_for_us_proves_anything() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 10] = [
        (
            |s| s["authenticated"] = json!(false),
            "does not accept the token: it is not valid, or has expired",
        ),
        (
            |s| *s = json!({"error": "token has expired"}),
            "does not accept the token: token has expired",
        ),
        (|s| *s = json!({}), "does not accept"),
        (
            |s| s["audiences"] = json!(["https://kubernetes.default.svc"]),
            "audience \"hauberk\"",
        ),
        (
            |s| drop(s.as_object_mut().unwrap().remove("audiences")),
            "audience \"hauberk\"",
        ),
        (
            |s| s["user"]["username"] = json!("system:node:n1"),
            "\"system:node:n1\", which is no service account",
        ),
        (
            |s| s["user"]["username"] = json!("system:serviceaccount:shop"),
            "no service account",
        ),
        (|s| s["user"] = json!({}), "no service account"),
        (
            |s| drop(s["user"].as_object_mut().unwrap().remove("extra")),
            "not bound to a pod",
        ),
        (
            |s| s["user"]["extra"]["authentication.kubernetes.io/pod-name"] = json!([]),
            "not bound to a pod",
        ),
    ];
    let read = |status: Value| claims(serde_json::from_value(status).unwrap());
    let proven = read(good()).unwrap();
    let names = (
        proven.namespace.as_str(),
        proven.service_account.as_str(),
        proven.pod.as_str(),
    );
    assert_eq!(names, ("shop", "web", "web-0"));
    for (change, says) in cases {
        let mut status = good();
        change(&mut status);
        match read(status) {
            Err(Unverified::Denied(reason)) => assert!(reason.contains(says), "{reason}"),
            other => panic!("{says}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_a_minute_and_is_that_of_its_token_alone() {
    let fake = Fake::default();
    fake.review("a.b.c", good());
    let reviewer = reviewer(&fake);
    for _ in 0..100 {
        assert_eq!(reviewer.verify("a.b.c").await.unwrap().pod, "web-0");
    }
    assert_eq!(fake.asked().len(), 1);
    assert!(matches!(
        reviewer.verify("a.b.d").await,
        Err(Unverified::Denied(_))
    ));
    tokio::time::sleep(FRESH).await;
    fake.review("a.b.c", json!({"authenticated": false}));
    assert!(matches!(
        reviewer.verify("a.b.c").await,
        Err(Unverified::Denied(_))
    ));
    // What was denied may be accepted the next time.
    fake.review("a.b.c", good());
    assert!(reviewer.verify("a.b.c").await.is_ok());
    let metrics = &reviewer.metrics;
    let counts = [
        &metrics.accepted,
        &metrics.denied,
        &metrics.failed,
        &metrics.known,
    ];
    assert_eq!(counts.map(|c| c.get()), [2, 2, 0, 99]);
}

#[tokio::test]
async fn an_api_server_that_is_away_is_no_denial_and_what_it_said_before_still_counts() {
    let fake = Fake::default();
    fake.review("a.b.c", good());
    let reviewer = reviewer(&fake);
    reviewer.verify("a.b.c").await.unwrap();
    fake.down(Some(503));
    assert!(reviewer.verify("a.b.c").await.is_ok());
    match reviewer.verify("x.y.z").await {
        Err(Unverified::Unavailable(reason)) => assert!(reason.contains("the server is down"), "{reason}"),
        other => panic!("{other:?}"),
    }
    fake.down(None);
    fake.review("x.y.z", good());
    assert!(reviewer.verify("x.y.z").await.is_ok());
}

#[tokio::test]
async fn what_is_no_token_of_kubernetes_does_not_reach_the_api_server() {
    let fake = Fake::default();
    let reviewer = reviewer(&fake);
    let long = format!("{}.b.c", "a".repeat(MAX_LEN));
    for bad in ["", "a", "a.b", "a.b.c.d", "a.b.ä", "a.b.c\n", &long] {
        assert!(
            matches!(reviewer.verify(bad).await, Err(Unverified::Denied(_))),
            "{bad:?}"
        );
    }
    assert_eq!(fake.asked().len(), 0);
}

#[test]
fn what_is_kept_is_bounded() {
    let claims = Claims {
        namespace: "n".to_owned(),
        service_account: "s".to_owned(),
        pod: "p".to_owned(),
    };
    let mut known = Known::default();
    let start = Instant::now();
    let name = |n: usize| hash(&n.to_string());
    for n in 0..KEPT + 10 {
        known.put(name(n), claims.clone(), start);
    }
    assert_eq!(known.answers.len(), KEPT);
    assert!(known.get(&name(0), start).is_some() && known.get(&name(KEPT + 5), start).is_none());
    known.put(name(KEPT + 5), claims, start + FRESH);
    assert_eq!(known.answers.len(), 1, "what is over makes room");
}

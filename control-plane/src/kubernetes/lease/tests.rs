//! Elections between replicas on one scripted server, in paused time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::kubernetes::testing::{Answer, Asked, Script, status};

/// The one Lease of a server, with the preconditions that a real one checks.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    /// Identities whose writes get no answer.
    cut_off: BTreeSet<String>,
}

impl Store {
    fn serve(&self, asked: &Asked) -> Answer {
        let mut state = self.0.lock().unwrap();
        let base = "/apis/coordination.k8s.io/v1/namespaces/hauberk-system/leases";
        let one = format!("{base}/{LEASE_NAME}");
        let writer = asked.body["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if state.cut_off.contains(writer) {
            return Answer::Never;
        }
        let version = state
            .lease
            .as_ref()
            .map(|l| l["metadata"]["resourceVersion"].clone());
        match (&asked.method, asked.path == one) {
            (&Method::GET, true) => match &state.lease {
                Some(lease) => Answer::Json(200, lease.clone()),
                None => status(404, "NotFound", "no lease"),
            },
            (&Method::POST, false) if asked.path == base && version.is_some() => {
                status(409, "AlreadyExists", "there")
            }
            (&Method::PUT, true) if version != Some(asked.body["metadata"]["resourceVersion"].clone()) => {
                status(409, "Conflict", "the object has been modified")
            }
            (&Method::POST, false) | (&Method::PUT, true) => {
                state.version += 1;
                let mut lease = asked.body.clone();
                lease["metadata"]["resourceVersion"] = json!(state.version.to_string());
                lease["metadata"]["uid"] = json!("u");
                state.lease = Some(lease.clone());
                Answer::Json(200, lease)
            }
            other => panic!("{other:?} {asked:?}"),
        }
    }

    fn holder(&self) -> String {
        let state = self.0.lock().unwrap();
        let lease = state.lease.as_ref().unwrap();
        lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }

    fn spec(&self, field: &str) -> Value {
        self.0.lock().unwrap().lease.as_ref().unwrap()["spec"][field].clone()
    }

    fn replica(&self, identity: &str) -> Replica {
        let store = self.clone();
        let client = Script::new(move |_, asked| store.serve(asked)).client();
        let (lease, holds) = Lease::new(client, "hauberk-system", identity);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(lease.run(async {
            let _ = stopped.await;
        }));
        Replica { holds, stop, task }
    }
}

struct Replica {
    holds: watch::Receiver<bool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Replica {
    fn holds(&self) -> bool {
        *self.holds.borrow()
    }

    /// Waits until it holds the lease, and says how long that took.
    async fn wins(&mut self) -> Duration {
        let start = Instant::now();
        let wait = self.holds.wait_for(|holds| *holds);
        timeout(Duration::from_secs(120), wait)
            .await
            .expect("it wins")
            .unwrap();
        start.elapsed()
    }
}

async fn after(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_replicas_one_holds_and_goes_on_holding() {
    let store = Store::default();
    let replicas = [store.replica("a"), store.replica("b")];
    for _ in 0..60 {
        after(1).await;
        let holding: Vec<_> = replicas.iter().map(Replica::holds).collect();
        assert_eq!(holding.iter().filter(|h| **h).count(), 1, "{holding:?}");
    }
    assert_eq!(store.spec("leaseTransitions"), json!(0));
    assert_eq!(store.spec("leaseDurationSeconds"), json!(15));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_stops_before_another_begins() {
    let store = Store::default();
    let mut a = store.replica("a");
    a.wins().await;
    let mut b = store.replica("b");
    after(20).await;
    store.0.lock().unwrap().cut_off.insert("a".to_owned());
    let start = Instant::now();
    let lost = async {
        a.holds.wait_for(|holds| !holds).await.unwrap();
        start.elapsed()
    };
    let (lost, won) = tokio::join!(lost, b.wins());
    assert!(lost <= RENEWED_WITHIN, "{lost:?}");
    // At least the duration after the last renewal, which was up to `EVERY` ago.
    assert!(
        won >= DURATION - EVERY && won <= DURATION + EVERY && lost < won,
        "{lost:?} {won:?}"
    );
    assert_eq!(store.holder(), "b");
    assert_eq!(store.spec("leaseTransitions"), json!(1));
    store.0.lock().unwrap().cut_off.clear();
    after(30).await;
    assert!(b.holds() && !a.holds(), "who comes back does not take it back");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_released_is_taken_at_the_next_look() {
    let store = Store::default();
    let mut a = store.replica("a");
    a.wins().await;
    let mut b = store.replica("b");
    after(7).await;
    a.stop.send(()).unwrap();
    a.task.await.unwrap();
    assert!(!*a.holds.borrow());
    assert_eq!(store.holder(), "");
    assert!(b.wins().await <= EVERY);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_starts_again_in_the_same_pod_holds_at_once() {
    let store = Store::default();
    let mut first = store.replica("a");
    first.wins().await;
    first.task.abort();
    assert!(store.replica("a").wins().await < Duration::from_secs(1));
    assert_eq!(store.spec("leaseTransitions"), json!(0));
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_was_written_by_another_believes_it() {
    let store = Store::default();
    let mut a = store.replica("a");
    a.wins().await;
    {
        let mut state = store.0.lock().unwrap();
        let lease = state.lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = json!("other");
        lease["metadata"]["resourceVersion"] = json!("77");
    }
    let lost = timeout(EVERY + AT_ONCE, a.holds.wait_for(|holds| !holds)).await;
    lost.expect("the next renewal finds out").unwrap();
    assert_eq!(store.holder(), "other");
    // And takes over when that one does not renew.
    let won = a.wins().await;
    assert!(won >= DURATION && won <= DURATION + EVERY + AGAIN, "{won:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_is_no_loss() {
    let store = Store::default();
    let mut a = store.replica("a");
    a.wins().await;
    {
        let mut state = store.0.lock().unwrap();
        state.lease.as_mut().unwrap()["metadata"]["resourceVersion"] = json!("77");
        state.version = 77;
    }
    let lost = timeout(Duration::from_secs(60), a.holds.wait_for(|holds| !holds)).await;
    assert!(lost.is_err(), "it is this replica that the lease names");
    assert_eq!(store.spec("leaseTransitions"), json!(0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_makes_nobody_a_holder() {
    let script = Script::new(|_, _| status(403, "Forbidden", "leases is forbidden"));
    let (lease, holds) = Lease::new(script.client(), "hauberk-system", "a");
    let task = tokio::spawn(lease.run(std::future::pending()));
    after(60).await;
    assert!(!*holds.borrow() && !task.is_finished());
    let asked = script.asked().len();
    assert!((20..=70).contains(&asked), "{asked} requests in a minute");
}

#[test]
fn nonsense_in_a_lease_is_bounded() {
    for (seconds, expected) in [(None, 15), (Some(-5), 15), (Some(1), 1), (Some(86400), 60)] {
        let spec = LeaseSpec {
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        assert_eq!(respected(&spec), Duration::from_secs(expected), "{seconds:?}");
    }
}

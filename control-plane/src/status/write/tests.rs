//! The writer against an API server that keeps what it is given, and fails as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crds::status::{ACCEPTED, PROGRAMMED};

use super::*;
use crate::admin::SourceReport;
use crate::metrics::Metrics;
use crate::push::{Compiler, Hub};
use crate::scripted::{Log, client, refusal};
use crate::state::World;
use crate::state::testing::{reviews_subsets, shop, virtual_service, with, without, world};
use crate::status::Unreadable;

const PREFIX: &str = "/apis/hauberk.dev/v1alpha1/namespaces/shop/virtualservices/";

/// What the server has: the status by the object's name; and the code that it answers writes of an object with.
#[derive(Default)]
struct Kept {
    statuses: BTreeMap<String, Value>,
    fail: BTreeMap<String, u16>,
}

struct Running {
    kept: Arc<Mutex<Kept>>,
    log: Log,
    source: watch::Sender<SourceReport>,
    lease: watch::Sender<bool>,
    metrics: Metrics,
}

fn start(world: Arc<World>, kept: Kept) -> Running {
    let kept = Arc::new(Mutex::new(kept));
    let (client, log) = client({
        let kept = kept.clone();
        move |seen| answer(&mut kept.lock().unwrap(), seen)
    });
    let metrics = Metrics::new();
    let bundle = api::TrustBundle {
        trust_domain: "cluster.local".to_owned(),
        roots: Vec::new(),
    };
    let (hub, running) = Hub::new(Compiler::of_world(), world.clone(), bundle, metrics.push.clone());
    tokio::spawn(running.run());
    let (source, report) = watch::channel(SourceReport {
        loaded: true,
        world,
        ..SourceReport::default()
    });
    let (lease, leader) = watch::channel(true);
    tokio::spawn(run(Writer {
        client,
        leader,
        local: Local { hub, source: report },
        own_pod: "cp-a".to_owned(),
        metrics: metrics.writes.clone(),
    }));
    Running {
        kept,
        log,
        source,
        lease,
        metrics,
    }
}

fn answer(kept: &mut Kept, seen: &crate::scripted::Seen) -> (u16, Value) {
    let call = seen.call.as_str();
    if let Some(name) = call.strip_prefix(&format!("PATCH {PREFIX}")) {
        let name = name.strip_suffix("/status").expect("only the status is written");
        if let Some(code) = kept.fail.get(name) {
            return refusal(*code, "no");
        }
        let status = kept.statuses.entry(name.to_owned()).or_insert(Value::Null);
        json_patch::merge(status, &seen.body["status"]);
        let metadata = json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}")});
        return (200, json!({"metadata": metadata, "status": status}));
    }
    if call.starts_with("POST /apis/events.k8s.io/v1/namespaces/shop/events") {
        return (201, seen.body.clone());
    }
    let items: Vec<_> = kept
        .statuses
        .iter()
        .filter(|_| call.ends_with("/virtualservices"))
        .map(|(name, status)| {
            let metadata = json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}")});
            json!({"metadata": metadata, "status": status})
        })
        .collect();
    match call.starts_with("GET /apis/hauberk.dev/v1alpha1/") {
        true => (200, json!({"metadata": {}, "items": items})),
        false => refusal(405, "an unknown call"),
    }
}

impl Running {
    fn status(&self, name: &str) -> crds::Status {
        let status = self.kept.lock().unwrap().statuses[name].clone();
        serde_json::from_value(status).unwrap()
    }

    fn reason(&self, name: &str, condition: &str) -> String {
        self.status(name).condition(condition).unwrap().reason.clone()
    }

    fn change(&self, to: impl FnOnce(&World) -> Arc<World>) {
        self.source.send_modify(|report| report.world = to(&report.world));
    }

    /// Names of the objects written since this was asked last.
    fn written(&self) -> Vec<String> {
        let writes = self.log.take(&format!("PATCH {PREFIX}"));
        let names = writes
            .iter()
            .map(|seen| seen.call.rsplit('/').nth(1).unwrap().to_owned());
        names.collect()
    }

    fn events(&self) -> Vec<Value> {
        let events = self.log.take("POST /apis/events.k8s.io");
        events.into_iter().map(|seen| seen.body).collect()
    }
}

async fn seconds(n: u64) {
    sleep(Duration::from_secs(n)).await;
}

fn good(name: &str) -> String {
    virtual_service(
        name,
        "  hosts: [nobody]\n  http: [{directResponse: {status: 200}}]",
    )
}

fn bad(name: &str) -> String {
    virtual_service(name, "  hosts: ['a*']\n  http: [{directResponse: {status: 200}}]")
}

#[tokio::test(start_paused = true)]
async fn what_became_of_an_object_is_written_once_and_again_when_it_changes() {
    let running = start(world(&[good("a"), bad("b")].concat()), Kept::default());
    seconds(30).await;
    assert_eq!(running.written(), ["a", "b"], "each once");
    assert_eq!(running.reason("a", ACCEPTED), "Warning");
    assert_eq!(running.reason("a", PROGRAMMED), "NotUsed");
    assert_eq!(running.reason("b", ACCEPTED), "Invalid");
    assert_eq!(running.status("b").in_force_generation, None);

    let mended = good("b").replace("generation: 1", "generation: 2");
    running.change(|world| with(world, &mended).0);
    seconds(1).await;
    assert_eq!(running.written(), ["b"]);
    let status = running.status("b");
    assert_eq!(
        (status.observed_generation, status.in_force_generation),
        (Some(2), Some(2))
    );

    let broken = bad("b").replace("generation: 1", "generation: 3");
    running.change(|world| with(world, &broken).0);
    seconds(3).await;
    assert_eq!(running.written(), ["b"]);
    let status = running.status("b");
    assert_eq!(
        (status.observed_generation, status.in_force_generation),
        (Some(3), Some(2))
    );
    assert!(
        running
            .metrics
            .text()
            .contains("writes_total{what=\"status\",result=\"written\"} 4")
    );

    running.change(|world| without(world, &mended).0);
    seconds(30).await;
    assert_eq!(running.written(), [""; 0], "what is gone is not written");
}

#[tokio::test(start_paused = true)]
async fn only_the_holder_of_the_lease_writes_and_it_takes_over_what_was_written() {
    let first = start(world(&[good("a"), bad("b")].concat()), Kept::default());
    seconds(10).await;
    first.lease.send_replace(false);
    first.written();
    first.change(|world| with(world, &good("c")).0);
    seconds(60).await;
    assert_eq!(first.written(), [""; 0]);
    assert_eq!(first.events().len(), 1);

    let statuses = std::mem::take(&mut first.kept.lock().unwrap().statuses);
    let kept = Kept {
        statuses,
        ..Kept::default()
    };
    let second = start(world(&[good("a"), bad("b"), good("c")].concat()), kept);
    seconds(60).await;
    assert_eq!(second.written(), ["c"], "the others say what they are to say");
    assert_eq!(second.events().len(), 0, "and were reported");
}

#[tokio::test(start_paused = true)]
async fn changes_that_follow_each_other_are_written_together() {
    let running = start(world(&good("a")), Kept::default());
    seconds(5).await;
    running.written();
    for generation in 2..42 {
        let next = good("a").replace("generation: 1", &format!("generation: {generation}"));
        running.change(|world| with(world, &next).0);
        sleep(Duration::from_millis(100)).await;
    }
    seconds(3).await;
    let written = running.written().len();
    assert!((3..=6).contains(&written), "40 changes in 4 s, {written} writes");
    assert_eq!(running.status("a").observed_generation, Some(41));
}

#[tokio::test(start_paused = true)]
async fn many_objects_are_written_at_a_bounded_rate() {
    let many: String = (0..300).map(|n| good(&format!("v{n:03}"))).collect();
    let begin = Instant::now();
    let running = start(world(&many), Kept::default());
    seconds(60).await;
    let writes = running.log.take("PATCH");
    assert_eq!(writes.len(), 300);
    for until in [1, 3, 7] {
        let so_far = writes
            .iter()
            .filter(|seen| seen.at - begin <= Duration::from_secs(until));
        let most = u64::from(STATUS_BURST) + 20 * until;
        assert!(so_far.count() as u64 <= most, "within {until} s");
    }
    let last = writes.iter().map(|seen| seen.at - begin).max().unwrap();
    assert!(last < Duration::from_secs(16), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_less_and_less_and_holds_up_nobody() {
    for code in [404, 409, 500] {
        let mut kept = Kept::default();
        kept.fail.insert("a".to_owned(), code);
        let running = start(world(&[good("a"), good("b")].concat()), kept);
        seconds(120).await;
        let written = running.written();
        let tries = written.iter().filter(|name| *name == "a").count();
        assert!(
            (6..=9).contains(&tries),
            "{tries} tries in two minutes, after {code}"
        );
        assert_eq!(written.len() - tries, 1);
        running.kept.lock().unwrap().fail.clear();
        seconds(61).await;
        assert_eq!(running.written(), ["a"]);
        assert_eq!(running.reason("a", ACCEPTED), "Warning");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_an_event_once_for_each_generation() {
    let running = start(world(&[good("a"), bad("b")].concat()), Kept::default());
    seconds(30).await;
    let events = running.events();
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (&event["type"], &event["reason"]),
        (&json!("Warning"), &json!("Rejected"))
    );
    let regarding = &event["regarding"];
    assert_eq!(
        (&regarding["name"], &regarding["uid"]),
        (&json!("b"), &json!("uid-b"))
    );
    assert!(
        event["note"].as_str().unwrap().starts_with("spec.hosts[0]: "),
        "{event}"
    );

    let again = bad("b").replace("generation: 1", "generation: 2");
    running.change(|world| with(world, &again).0);
    seconds(30).await;
    assert_eq!(running.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_applied_in_another_order_is_not_reported() {
    let to = virtual_service(
        "canary",
        "  hosts: [reviews]\n  http: [{route: [{destination: {host: reviews, subset: v2}}]}]",
    );
    let running = start(world(&[shop(), to].concat()), Kept::default());
    seconds(3).await;
    assert_eq!(running.reason("canary", ACCEPTED), "ReferenceMissing");
    running.change(|world| with(world, &reviews_subsets()).0);
    seconds(30).await;
    assert_eq!(running.reason("canary", ACCEPTED), "Accepted");
    assert_eq!(running.events(), [Value::Null; 0]);
    running.change(|world| without(world, &reviews_subsets()).0);
    seconds(30).await;
    assert_eq!(running.events().len(), 1, "but what lasts is");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_nobody_can_read_is_marked() {
    let running = start(Arc::new(World::default()), Kept::default());
    seconds(5).await;
    running.source.send_modify(|report| {
        report.unreadable = vec![Unreadable {
            kind: "VirtualService".to_owned(),
            namespace: "shop".to_owned(),
            name: "past-the-webhook".to_owned(),
            generation: 7,
            problem: "spec.hosts: must be a list".to_owned(),
        }];
    });
    seconds(3).await;
    let status = running.status("past-the-webhook");
    let accepted = status.condition(ACCEPTED).unwrap();
    assert_eq!(
        (accepted.status.as_str(), accepted.reason.as_str()),
        ("False", "Invalid")
    );
    assert_eq!(accepted.message, "spec.hosts: must be a list");
    assert_eq!(status.observed_generation, Some(7));
    assert_eq!(running.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_the_source_is_loaded() {
    let running = start(world(&good("a")), Kept::default());
    running.source.send_modify(|report| report.loaded = false);
    seconds(30).await;
    assert_eq!(running.written(), [""; 0]);
    running.source.send_modify(|report| report.loaded = true);
    seconds(2).await;
    assert_eq!(running.written(), ["a"]);
}

//! The source against a scripted server, in paused time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::testing::*;
use super::*;
use crate::kubernetes::capabilities::{Capabilities, EndpointSlices, Version};
use crate::kubernetes::testing::{Answer, status};
use crate::source::Failing;

fn start_at(cluster: &Cluster, endpoint_slices: EndpointSlices) -> Watching {
    let capabilities = Capabilities {
        version: Version { major: 1, minor: 33 },
        endpoint_slices,
        restartable_init: true,
        policy_v1: true,
        schema_rules: true,
    };
    watch(&cluster.script.client(), &capabilities)
}

fn start(cluster: &Cluster) -> Watching {
    start_at(cluster, EndpointSlices::V1)
}

impl Watching {
    /// The next batch; the test fails when none comes.
    async fn next(&mut self) -> Batch {
        let next = timeout(Duration::from_secs(300), self.batches.recv()).await;
        next.expect("a batch comes").unwrap()
    }

    /// Everything up to the batch that completes the first load.
    async fn loaded(&mut self) -> (Vec<String>, Batch) {
        let mut all = Vec::new();
        loop {
            let batch = self.next().await;
            all.extend(told(&batch));
            if batch.complete {
                return (all, batch);
            }
        }
    }

    async fn nothing_for(&mut self, seconds: u64) {
        let batch = timeout(Duration::from_secs(seconds), self.batches.recv()).await;
        assert!(batch.is_err(), "{batch:?}");
    }

    fn failing(&self, kind: Kind) -> Option<Failing> {
        let feeds = self.feeds.borrow();
        feeds
            .iter()
            .find(|feed| feed.kind == kind)
            .unwrap()
            .failing
            .clone()
    }
}

fn told(batch: &Batch) -> Vec<String> {
    let tell = |change: &Change| match change {
        Change::Set(object) => format!("+{}", object.key()),
        Change::Remove(key) => format!("-{key}"),
    };
    batch.changes.iter().map(tell).collect()
}

fn bad() -> Value {
    virtual_service("bad", json!({"hosts": "a"}))
}

fn good(name: &str) -> Value {
    virtual_service(
        name,
        json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]}),
    )
}

#[tokio::test(start_paused = true)]
async fn the_first_load_is_complete_when_every_kind_was_listed() {
    let cluster = Cluster::new();
    cluster.uninstall(VIRTUAL_SERVICES);
    cluster.set(PODS, pod("p", "10.0.0.1"));
    let mut source = start(&cluster);
    let first = source.next().await;
    assert_eq!(
        (told(&first), first.complete),
        (vec!["+Pod shop/p".to_owned()], false)
    );
    source.nothing_for(30).await;
    let problem = source.failing(Kind::VirtualService).unwrap().problem;
    assert!(
        problem.contains("hauberk-crds") && problem.contains("VirtualService"),
        "{problem}"
    );
    assert!(source.failing(Kind::Pod).is_none());
    cluster.install(VIRTUAL_SERVICES);
    let loaded = timeout(Duration::from_secs(6), source.next()).await.unwrap();
    assert!(loaded.complete && loaded.changes.is_empty());
    sleep(Duration::from_secs(3)).await;
    assert!(source.failing(Kind::VirtualService).is_none());
    assert!(
        source
            .feeds
            .borrow()
            .iter()
            .all(|feed| feed.listed && feed.heard.is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn many_objects_come_page_by_page_and_in_bounded_batches() {
    let cluster = Cluster::new();
    for n in 0..2600 {
        cluster.set(NAMESPACES, namespace(&format!("n{n}")));
    }
    let mut source = start(&cluster);
    let mut count = 0;
    loop {
        let batch = source.next().await;
        assert!(batch.changes.len() <= LARGEST);
        count += batch.changes.len();
        if batch.complete {
            break;
        }
    }
    assert_eq!(count, 2600);
    assert_eq!(cluster.asked(NAMESPACES).0.len(), 11);
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_are_one_batch_and_the_newest_counts() {
    let cluster = Cluster::new();
    cluster.set(PODS, pod("old", "10.0.0.9"));
    let mut source = start(&cluster);
    source.loaded().await;
    sleep(Duration::from_secs(1)).await;
    cluster.set(PODS, pod("p", "10.0.0.1"));
    cluster.set(PODS, pod("p", "10.0.0.2"));
    cluster.remove(PODS, "shop", "old");
    cluster.set(NAMESPACES, namespace("shop"));
    let start = Instant::now();
    let batch = source.next().await;
    assert!(start.elapsed() <= QUIET * 2, "{:?}", start.elapsed());
    let mut all = told(&batch);
    all.sort();
    assert_eq!(all, ["+Namespace shop", "+Pod shop/p", "-Pod shop/old"]);
    let newest = batch.changes.iter().any(|change| match change {
        Change::Set(crds::Object::Pod(pod)) => {
            pod.status.as_ref().unwrap().pod_ip.as_deref() == Some("10.0.0.2")
        }
        _ => false,
    });
    assert!(newest, "{batch:?}");
    let mut same = pod("p", "10.0.0.2");
    same["status"]["conditions"] = json!([{"type": "Ready"}]);
    cluster.set(PODS, same);
    source.nothing_for(5).await;
}

#[tokio::test(start_paused = true)]
async fn changes_that_never_stop_are_told_all_the_same() {
    let cluster = Cluster::new();
    let mut source = start(&cluster);
    source.loaded().await;
    sleep(Duration::from_secs(1)).await;
    let writer = tokio::spawn(async move {
        for n in 0.. {
            cluster.set(NAMESPACES, namespace(&format!("n{n}")));
            sleep(Duration::from_millis(10)).await;
        }
    });
    let start = Instant::now();
    source.next().await;
    assert!(start.elapsed() <= AT_MOST + QUIET, "{:?}", start.elapsed());
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn one_bad_object_stops_nothing_and_is_told_by_its_field() {
    let cluster = Cluster::new();
    cluster.set(VIRTUAL_SERVICES, bad());
    cluster.set(VIRTUAL_SERVICES, good("good"));
    let mut source = start(&cluster);
    let (all, last) = source.loaded().await;
    assert_eq!(all, ["+VirtualService shop/good"]);
    let [unreadable] = last.unreadable.as_slice() else {
        panic!("{last:?}")
    };
    assert_eq!(unreadable.key.name, "bad");
    assert_eq!(
        (
            unreadable.field.as_deref(),
            unreadable.generation,
            unreadable.uid.as_str()
        ),
        (Some("spec.hosts"), 3, "u")
    );
    // A version that cannot be read leaves the one before in force.
    cluster.set(
        VIRTUAL_SERVICES,
        virtual_service("good", json!({"hosts": ["a"], "htp": []})),
    );
    let batch = source.next().await;
    assert!(
        batch.changes.is_empty() && batch.unreadable.len() == 2,
        "{batch:?}"
    );
    cluster.set(VIRTUAL_SERVICES, good("good"));
    let batch = source.next().await;
    assert_eq!((told(&batch).len(), batch.unreadable.len()), (1, 1));
    cluster.remove(VIRTUAL_SERVICES, "shop", "bad");
    let batch = source.next().await;
    assert_eq!(
        (told(&batch), batch.unreadable.len()),
        (vec!["-VirtualService shop/bad".to_owned()], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_version_is_gone_everything_is_listed_and_only_what_differs_is_told() {
    let cluster = Cluster::new();
    for name in ["a", "b", "c"] {
        cluster.set(PODS, pod(name, "10.0.0.1"));
    }
    let mut source = start(&cluster);
    source.loaded().await;
    cluster.instead(|asked| (asked.path == PODS).then_some(Answer::Broken));
    cluster.disconnect(PODS, false);
    cluster.remove(PODS, "shop", "a");
    cluster.set(PODS, pod("b", "10.0.0.2"));
    sleep(Duration::from_secs(10)).await;
    cluster.disconnect(PODS, true);
    cluster.as_usual();
    let batch = source.next().await;
    assert_eq!(told(&batch), ["-Pod shop/a", "+Pod shop/b"]);
    assert_eq!(cluster.asked(PODS).0.len(), 2);
    source.nothing_for(60).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_is_taken_up_where_it_was() {
    let cluster = Cluster::new();
    let mut source = start(&cluster);
    source.loaded().await;
    cluster.set(PODS, pod("a", "10.0.0.1"));
    source.next().await;
    cluster.say(PODS, &json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}}}));
    sleep(Duration::from_secs(1)).await;
    cluster.disconnect(PODS, false);
    sleep(Duration::from_secs(1)).await;
    let (lists, watches) = cluster.asked(PODS);
    assert_eq!(lists.len(), 1);
    assert!(
        watches.last().unwrap().contains("resourceVersion=7"),
        "{watches:?}"
    );
    assert!(source.failing(Kind::Pod).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_and_returns_is_waited_for() {
    let cluster = Cluster::new();
    cluster.set(PODS, pod("a", "10.0.0.1"));
    let mut source = start(&cluster);
    source.loaded().await;
    cluster.instead(|_| Some(Answer::Broken));
    let before = cluster.script.asked().len();
    for url in [PODS, NAMESPACES, SLICES, VIRTUAL_SERVICES] {
        cluster.disconnect(url, true);
    }
    source.nothing_for(120).await;
    let failing = source.failing(Kind::Pod).unwrap();
    assert!(
        failing.problem.contains("connection reset") && failing.since.elapsed() > Duration::from_secs(115)
    );
    let tries = cluster.script.asked().len() - before;
    assert!(
        (20..80).contains(&tries),
        "{tries} tries of 4 kinds in two minutes"
    );
    cluster.as_usual();
    cluster.set(PODS, pod("b", "10.0.0.2"));
    let batch = timeout(Duration::from_secs(25), source.next()).await.unwrap();
    assert_eq!(told(&batch), ["+Pod shop/b"]);
    assert!(batch.complete);
    sleep(Duration::from_secs(25)).await;
    assert!(source.feeds.borrow().iter().all(|feed| feed.failing.is_none()));
}

#[tokio::test(start_paused = true)]
async fn connections_that_die_in_silence_are_noticed() {
    let cluster = Cluster::new();
    let mut source = start(&cluster);
    source.loaded().await;
    // The watch stays open, and nothing comes any more.
    cluster.set(PODS, pod("a", "10.0.0.1"));
    source.next().await;
    let watches = cluster.asked(PODS).1.len();
    cluster.instead(|asked| (asked.path == PODS).then_some(Answer::Never));
    sleep(Duration::from_secs(180)).await;
    assert!(
        cluster.asked(PODS).1.len() > watches,
        "the silent watch was given up"
    );
    let problem = source.failing(Kind::Pod).unwrap().problem;
    assert!(problem.contains("in time"), "{problem}");
    cluster.as_usual();
    cluster.set(PODS, pod("b", "10.0.0.2"));
    let batch = timeout(Duration::from_secs(90), source.next()).await.unwrap();
    assert_eq!(told(&batch), ["+Pod shop/b"]);
    sleep(Duration::from_secs(5)).await;
    assert!(source.failing(Kind::Pod).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_taken_and_broken_off_each_time_is_a_failure() {
    let cluster = Cluster::new();
    let mut source = start(&cluster);
    source.loaded().await;
    cluster.instead(|asked| {
        let wrong = asked.path == PODS && asked.query.contains("watch=");
        wrong.then_some(Answer::Text(200, "no event\n"))
    });
    cluster.disconnect(PODS, false);
    sleep(Duration::from_secs(120)).await;
    let asked = cluster.asked(PODS).1.len();
    assert!((8..25).contains(&asked), "{asked} tries in two minutes");
    assert!(source.failing(Kind::Pod).unwrap().problem.contains("JSON"));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_is_begun_again_and_forgets_nothing() {
    let cluster = Cluster::new();
    for n in 0..400 {
        cluster.set(NAMESPACES, namespace(&format!("n{n}")));
    }
    let mut second = 0;
    cluster.instead(move |asked| {
        second += usize::from(asked.query.contains("continue=250"));
        (asked.query.contains("continue=250") && second < 3).then(|| status(410, "Expired", "too old"))
    });
    let mut source = start(&cluster);
    let (all, _) = source.loaded().await;
    assert_eq!(all.len(), 400, "each is told once");
    assert_eq!(cluster.asked(NAMESPACES).0.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn slices_of_the_older_version_are_read_and_the_newer_one_found_after_an_upgrade() {
    let cluster = Cluster::new();
    cluster.uninstall(SLICES);
    cluster.install(OLD_SLICES);
    let topology = json!({"topology.kubernetes.io/zone": "z1"});
    cluster.set(
        OLD_SLICES,
        slice(json!({"addresses": ["10.0.0.1"], "topology": topology})),
    );
    let mut source = start_at(&cluster, EndpointSlices::V1Beta1);
    let zone = |batch: &Batch| match batch.changes.as_slice() {
        [Change::Set(crds::Object::EndpointSlice(slice))] => slice.endpoints[0].zone.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(zone(&source.next().await), "z1");
    cluster.uninstall(OLD_SLICES);
    cluster.install(SLICES);
    cluster.set(SLICES, slice(json!({"addresses": ["10.0.0.1"], "zone": "z2"})));
    let batch = timeout(Duration::from_secs(150), async {
        loop {
            let batch = source.next().await;
            if !batch.changes.is_empty() {
                return batch;
            }
        }
    });
    assert_eq!(zone(&batch.await.unwrap()), "z2");
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_is_told_with_the_remedy() {
    let cluster = Cluster::new();
    cluster.instead(|asked| (asked.path == PODS).then(|| status(403, "Forbidden", "pods is forbidden")));
    let mut source = start(&cluster);
    source.nothing_for(10).await;
    let problem = source.failing(Kind::Pod).unwrap().problem;
    assert!(
        problem.contains("403") && problem.contains("ClusterRole"),
        "{problem}"
    );
}

#[tokio::test(start_paused = true)]
async fn following_ends_when_nobody_takes_batches() {
    let cluster = Cluster::new();
    let mut source = start(&cluster);
    source.loaded().await;
    let Watching { batches, feeds } = source;
    drop(batches);
    cluster.set(PODS, pod("a", "10.0.0.1"));
    sleep(Duration::from_secs(300)).await;
    assert!(feeds.has_changed().is_err(), "every feed has ended");
}

use std::sync::atomic::Ordering;

use api::{Action, Body, Forward, HeaderChanges, HttpRule, Retry, Split, WeightedCluster};

use super::*;
use crate::config::snapshot::{Cluster, Destination};
use crate::identity::testing::{Ca, TRUST_DOMAIN};

mod live;
mod property;
mod usage;

pub(super) fn name(kind: Kind, name: &str) -> ResourceName {
    ResourceName::new(kind, name)
}

pub(super) fn resource(kind: Kind, of: &str, body: Body) -> proto::Resource {
    Resource::new(name(kind, of), body).into()
}

pub(super) fn route(of: &str, clusters: &[&str]) -> proto::Resource {
    let weighted = clusters.iter().map(|cluster| WeightedCluster {
        cluster: (*cluster).to_owned(),
        weight: 1,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
    });
    let rule = HttpRule {
        name: String::new(),
        source: None,
        matches: Vec::new(),
        action: Action::Forward(Box::new(Forward {
            split: Split::new(weighted.collect()).expect("clusters with weight"),
            timeout: None,
            retry: Retry::default(),
            rewrite: None,
            fault: None,
            mirrors: Vec::new(),
        })),
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        cors: None,
    };
    let route = api::Route {
        host: of.to_owned(),
        port: 80,
        protocol: None,
        http: vec![rule],
        tcp: Vec::new(),
    };
    resource(Kind::Route, of, Body::Route(Box::new(route)))
}

pub(super) fn cluster(of: &str, endpoints: &str, subset: Option<&str>) -> proto::Resource {
    let mut cluster = api::Cluster::of(endpoints);
    cluster.subset = subset
        .map(|v| ("version".to_owned(), v.to_owned()))
        .into_iter()
        .collect();
    resource(Kind::Cluster, of, Body::Cluster(Box::new(cluster)))
}

pub(super) fn endpoint(address: &str, version: &str) -> api::Endpoint {
    api::Endpoint {
        address: address.parse().expect("an address"),
        weight: 1,
        identity: None,
        labels: BTreeMap::from([("version".to_owned(), version.to_owned())]),
        zone: String::new(),
        pod: format!("pod-{address}"),
        topology: Default::default(),
    }
}

pub(super) fn endpoints(of: &str, all: &[(&str, &str)]) -> proto::Resource {
    let endpoints = all
        .iter()
        .map(|(address, version)| endpoint(address, version))
        .collect();
    resource(Kind::Endpoints, of, Body::Endpoints(api::Endpoints { endpoints }))
}

pub(super) fn to_route(address: &str, route: &str) -> proto::Resource {
    let destination = api::Destination::Route(route.to_owned());
    resource(Kind::Destination, address, Body::Destination(destination))
}

pub(super) fn to_pod(address: &str, cluster: &str) -> proto::Resource {
    let workload = api::Workload {
        endpoint: endpoint(address, "v1"),
        protocol: None,
        cluster: cluster.to_owned(),
    };
    let destination = api::Destination::Workload(Box::new(workload));
    resource(Kind::Destination, address, Body::Destination(destination))
}

pub(super) fn absent(kind: Kind, of: &str, reason: &str) -> proto::Resource {
    resource(kind, of, Body::Absent(reason.to_owned()))
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn update(resources: impl IntoIterator<Item = proto::Resource>) -> proto::Update {
    proto::Update {
        resources: resources.into_iter().collect(),
    }
}

fn names_of(outcome: &[(ResourceName, Version)]) -> Vec<String> {
    outcome.iter().map(|(name, _)| name.to_string()).collect()
}

fn shown(names: &[ResourceName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

const VIP: &str = "10.96.0.1:80";

/// A store with one service that works.
fn serving() -> (Store, Arc<Snapshot>) {
    let mut store = Store::new(TRUST_DOMAIN);
    let (_, taken) = store.want(address(VIP), Instant::now());
    assert!(taken);
    let mut last = None;
    for sent in [
        to_route(VIP, "r"),
        route("r", &["c"]),
        cluster("c", "e", None),
        endpoints("e", &[("10.0.0.1:80", "v1"), ("10.0.0.2:80", "v2")]),
    ] {
        last = store.apply(update([sent])).snapshot;
    }
    (store, last.expect("a snapshot"))
}

fn cluster_of(snapshot: &Snapshot) -> Arc<Cluster> {
    let entry = snapshot.destination(address(VIP)).expect("an answer");
    match &entry.destination {
        Destination::Service(route) => Arc::clone(&route.http[0][0]),
        other => panic!("{other:?}"),
    }
}

fn refusal(snapshot: &Snapshot) -> String {
    let entry = snapshot.destination(address(VIP)).expect("an answer");
    match &entry.destination {
        Destination::Refuse(reason) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_destination_answers_when_everything_it_leads_to_has_arrived() {
    let mut store = Store::new(TRUST_DOMAIN);
    let (outcome, _) = store.want(address(VIP), Instant::now());
    assert_eq!(shown(&outcome.subscribe), ["destination/10.96.0.1:80"]);

    let outcome = store.apply(update([to_route(VIP, "r")]));
    assert_eq!(shown(&outcome.subscribe), ["route/r"]);
    assert!(outcome.acks.is_empty() && outcome.snapshot.is_none());

    let outcome = store.apply(update([route("r", &["a", "b"])]));
    assert_eq!(shown(&outcome.subscribe), ["cluster/a", "cluster/b"]);
    let outcome = store.apply(update([cluster("a", "e", None), cluster("b", "e", Some("v2"))]));
    assert_eq!(shown(&outcome.subscribe), ["endpoints/e"]);
    assert!(outcome.acks.is_empty() && outcome.snapshot.is_none());

    let sent = endpoints("e", &[("10.0.0.1:80", "v1"), ("10.0.0.2:80", "v2")]);
    let outcome = store.apply(update([sent]));
    let acks = names_of(&outcome.acks);
    let order = [
        "endpoints/e",
        "cluster/a",
        "cluster/b",
        "route/r",
        "destination/10.96.0.1:80",
    ];
    assert_eq!(acks, order);
    let snapshot = outcome.snapshot.expect("a snapshot");
    let sizes: Vec<_> = snapshot.clusters.iter().map(|c| c.endpoints.len()).collect();
    assert_eq!(sizes, [2, 1], "the subset selects by label");
    assert_eq!(cluster_of(&snapshot).endpoints.len(), 2);
}

#[test]
fn a_route_waits_for_its_new_cluster_while_the_old_version_serves() {
    let (mut store, before) = serving();
    let outcome = store.apply(update([route("r", &["new"])]));
    assert_eq!(shown(&outcome.subscribe), ["cluster/new"]);
    assert!(outcome.acks.is_empty() && outcome.snapshot.is_none());
    let outcome = store.apply(update([cluster("new", "e2", None)]));
    assert!(outcome.acks.is_empty() && outcome.snapshot.is_none());
    assert_eq!(&*cluster_of(&before).name, "c");

    let outcome = store.apply(update([endpoints("e2", &[("10.0.0.3:80", "v1")])]));
    assert_eq!(
        names_of(&outcome.acks),
        ["endpoints/e2", "cluster/new", "route/r"]
    );
    assert_eq!(shown(&outcome.unsubscribe), ["cluster/c", "endpoints/e"]);
    assert_eq!(&*cluster_of(&outcome.snapshot.expect("a snapshot")).name, "new");
    let live = &cluster_of(&before).endpoints[0].live;
    assert!(live.retired.load(Ordering::Acquire), "the old cluster is gone");
}

#[test]
fn a_cluster_that_goes_away_waits_until_no_route_needs_it() {
    let (mut store, _) = serving();
    store.apply(update([route("r", &["new"])]));
    // The operator is quicker to take the old cluster away than to send the new one.
    let outcome = store.apply(update([absent(Kind::Cluster, "c", "subset removed")]));
    assert!(
        outcome.snapshot.is_none(),
        "traffic still goes to the old cluster"
    );
    let outcome = store.apply(update([
        cluster("new", "e2", None),
        endpoints("e2", &[("10.0.0.3:80", "v1")]),
    ]));
    assert_eq!(&*cluster_of(&outcome.snapshot.expect("a snapshot")).name, "new");
    assert_eq!(shown(&outcome.unsubscribe), ["cluster/c", "endpoints/e"]);
}

#[test]
fn what_is_absent_is_told_with_its_reason() {
    let (mut store, _) = serving();
    let outcome = store.apply(update([absent(Kind::Endpoints, "e", "no such Service")]));
    let cluster = cluster_of(&outcome.snapshot.expect("a snapshot"));
    let said = cluster.absent.as_deref();
    assert_eq!(said, Some("endpoints/e is absent: no such Service"));
    assert!(cluster.endpoints.is_empty());
    let rng = &mut rand::rng();
    let error = crate::balancer::pick(&crate::balancer::Wanted::of(&cluster), rng, Instant::now())
        .expect_err("no endpoint");
    assert!(error.to_string().ends_with("no such Service"), "{error}");

    let outcome = store.apply(update([absent(Kind::Cluster, "c", "no subset v9")]));
    let said = cluster_of(&outcome.snapshot.expect("a snapshot")).absent.clone();
    assert_eq!(said.as_deref(), Some("cluster/c is absent: no subset v9"));

    let outcome = store.apply(update([absent(Kind::Route, "r", "not exported")]));
    let said = refusal(&outcome.snapshot.expect("a snapshot"));
    assert_eq!(said, "route/r is absent: not exported");

    let outcome = store.apply(update([absent(Kind::Destination, VIP, "outside the cluster")]));
    assert_eq!(
        refusal(&outcome.snapshot.expect("a snapshot")),
        "outside the cluster"
    );
    let roots = ["inbound/self", "trust_bundle/mesh"];
    let left: Vec<_> = store
        .subscriptions()
        .into_iter()
        .map(|(n, _)| n.to_string())
        .collect();
    assert_eq!(left, ["destination/10.96.0.1:80", roots[0], roots[1]]);
}

#[test]
fn a_bad_version_is_rejected_by_field_and_the_one_before_it_serves() {
    let (mut store, _) = serving();
    let mut bad = cluster("c", "e", None);
    bad.version = 77;
    if let Some(proto::resource::Body::Cluster(cluster)) = &mut bad.body {
        cluster.balancer = 99;
    }
    let outcome = store.apply(update([bad]));
    assert!(outcome.acks.is_empty() && outcome.snapshot.is_none());
    let [nack] = &outcome.nacks[..] else {
        panic!("{:?}", outcome.nacks);
    };
    assert_eq!(nack.version, 77);
    assert!(nack.reason.starts_with("cluster.balancer: "), "{}", nack.reason);
    let view = store.view();
    let shown = view.iter().find(|v| v.kind == "cluster").expect("a cluster");
    assert_eq!(shown.state, view::State::Rejected);
    assert!(shown.version.is_some(), "the one before it is still in use");

    // What is good in the same update is taken.
    let mut bad = cluster("c", "e", None);
    bad.body = None;
    let outcome = store.apply(update([bad, endpoints("e", &[("10.0.0.9:80", "v1")])]));
    assert_eq!(outcome.nacks.len(), 1);
    assert_eq!(
        cluster_of(&outcome.snapshot.expect("a snapshot")).endpoints.len(),
        1
    );
}

#[test]
fn a_first_version_that_is_bad_refuses_the_destination_instead_of_a_timeout() {
    let mut store = Store::new(TRUST_DOMAIN);
    store.want(address(VIP), Instant::now());
    store.apply(update([to_route(VIP, "r"), route("r", &["c"])]));
    let mut bad = cluster("c", "e", None);
    if let Some(proto::resource::Body::Cluster(cluster)) = &mut bad.body {
        cluster.tls = 0;
    }
    let outcome = store.apply(update([bad]));
    let said = refusal(&outcome.snapshot.expect("a snapshot"));
    assert!(
        said.starts_with("cluster/c was rejected: cluster.tls: "),
        "{said}"
    );
    // A good one that comes later heals it.
    store.apply(update([cluster("c", "e", None)]));
    let outcome = store.apply(update([endpoints("e", &[])]));
    assert_eq!(&*cluster_of(&outcome.snapshot.expect("a snapshot")).name, "c");
}

#[test]
fn nonsense_is_rejected_or_ignored() {
    let (mut store, _) = serving();
    let wrong_kind = proto::Resource {
        name: Some(name(Kind::Route, "r").into()),
        ..endpoints("e", &[])
    };
    let unknown_kind = proto::Resource {
        name: Some(proto::ResourceName {
            kind: 99,
            name: "x".to_owned(),
        }),
        ..endpoints("e", &[])
    };
    let unversioned = proto::Resource {
        version: 0,
        ..endpoints("e", &[])
    };
    let cases = [
        (wrong_kind, "holds a endpoints under the name of a route"),
        (unknown_kind, "not a kind this build knows"),
        (proto::Resource::default(), "name"),
        (unversioned, "version"),
    ];
    for (sent, expected) in cases {
        let outcome = store.apply(update([sent]));
        assert!(outcome.snapshot.is_none());
        let reasons: Vec<_> = outcome.nacks.iter().map(|n| n.reason.as_str()).collect();
        assert!(reasons.len() == 1 && reasons[0].contains(expected), "{reasons:?}");
    }
    let outcome = store.apply(update([
        endpoints("never asked for", &[]),
        to_route("1.2.3.4:5", "r"),
    ]));
    assert!(outcome.acks.is_empty() && outcome.nacks.is_empty() && outcome.snapshot.is_none());
}

#[test]
fn inbound_and_roots_are_never_lost() {
    let (mut store, _) = serving();
    let inbound = |policy| {
        let inbound = api::Inbound {
            policy,
            ports: Vec::new(),
            sources: Vec::new(),
            finished: false,
        };
        resource(Kind::Inbound, names::INBOUND_SELF, Body::Inbound(inbound))
    };
    let outcome = store.apply(update([inbound(api::TlsPolicy::Strict)]));
    let snapshot = outcome.snapshot.expect("a snapshot");
    assert_eq!(
        snapshot.inbound.as_ref().map(|i| i.policy),
        Some(api::TlsPolicy::Strict)
    );
    let outcome = store.apply(update([absent(
        Kind::Inbound,
        names::INBOUND_SELF,
        "unknown pod",
    )]));
    assert!(outcome.snapshot.is_none());
    assert!(
        outcome.nacks[0].reason.contains("unknown pod"),
        "{:?}",
        outcome.nacks
    );

    let bundle = |bundle| {
        resource(
            Kind::TrustBundle,
            names::TRUST_BUNDLE_MESH,
            Body::TrustBundle(bundle),
        )
    };
    let good = Ca::new().bundle();
    let outcome = store.apply(update([bundle(good.clone())]));
    assert_eq!(outcome.trust.as_deref(), Some(&good));
    let foreign = api::TrustBundle {
        trust_domain: "elsewhere.example".to_owned(),
        ..good.clone()
    };
    let broken = api::TrustBundle {
        roots: vec![bytes::Bytes::from_static(b"no root")],
        ..good
    };
    let cases = [
        (bundle(foreign), "trust_bundle.trust_domain: "),
        (bundle(broken), "trust_bundle.roots: certificate 0"),
        (
            absent(Kind::TrustBundle, names::TRUST_BUNDLE_MESH, "?"),
            "absent: ",
        ),
    ];
    for (sent, expected) in cases {
        let outcome = store.apply(update([sent]));
        assert!(outcome.trust.is_none());
        assert!(
            outcome.nacks[0].reason.starts_with(expected),
            "{:?}",
            outcome.nacks
        );
    }
}

#[test]
fn what_arrives_again_is_acknowledged_again_and_changes_nothing() {
    let (mut store, _) = serving();
    let outcome = store.apply(update([route("r", &["c"]), cluster("c", "e", None)]));
    assert_eq!(names_of(&outcome.acks), ["route/r", "cluster/c"]);
    assert!(outcome.snapshot.is_none());
    for (name, version) in store.subscriptions() {
        let is_root = matches!(name.kind, Kind::Inbound | Kind::TrustBundle);
        assert_eq!(
            version.is_none(),
            is_root,
            "{name}: known, so it is not sent again"
        );
    }
}

#[test]
fn an_address_has_one_form() {
    let (_, snapshot) = serving();
    for form in ["10.96.0.1:80", "[::ffff:10.96.0.1]:80"] {
        assert!(snapshot.destination(address(form)).is_some(), "{form}");
    }
}

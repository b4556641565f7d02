use std::collections::BTreeSet;

use crds::Kind;

use super::testing::*;
use super::{Dependency, ServiceName, World};

fn split(name: &str, weights: &str) -> String {
    virtual_service(
        name,
        &format!("  hosts: [reviews]\n  http:\n  - route: {weights}"),
    )
}

const TO_V2: &str = "[{destination: {host: reviews, subset: v2}}]";
const TO_V9: &str = "[{destination: {host: reviews, subset: v9}}]";

fn in_force(world: &World, service: &str) -> Option<(String, i64)> {
    let deciding = world.steering(&ServiceName::new("shop", service), "shop");
    let (object, _) = deciding.objects.first()?;
    Some((object.name.clone(), object.generation))
}

fn service_touched(name: &str) -> Dependency {
    Dependency::Service("shop".into(), name.into())
}

#[test]
fn a_virtual_service_may_come_before_what_it_names() {
    let early = world(&split("canary", TO_V2));
    let state_before = state(&early, "canary");
    assert!(!state_before.accepted && state_before.in_force.is_none());
    let [finding] = state_before.findings.as_slice() else {
        panic!("{state_before:?}")
    };
    assert_eq!(finding.field, "spec.http[0].route[0].destination.host");
    assert!(
        finding.message.contains("Service `reviews` of namespace `shop`"),
        "{finding}"
    );

    let (services, _) = with(&early, &shop());
    let waiting = state(&services, "canary");
    let [finding] = waiting.findings.as_slice() else {
        panic!("{waiting:?}")
    };
    assert_eq!(finding.field, "spec.http[0].route[0].destination.subset");
    assert_eq!(in_force(&services, "reviews"), None);

    let (complete, touched) = with(&services, &reviews_subsets());
    assert!(state(&complete, "canary").accepted);
    assert_eq!(in_force(&complete, "reviews"), Some(("canary".into(), 1)));
    assert!(touched.contains(&service_touched("reviews")));
}

#[test]
fn a_port_is_needed_where_neither_target_nor_host_tells_it() {
    let to = |destination: &str| {
        virtual_service(
            "v",
            &format!("  hosts: [ratings]\n  http:\n  - route: [{{destination: {destination}}}]"),
        )
    };
    for (destination, field, message) in [
        ("{host: reviews}", "port", "has the ports 9080, 9090"),
        (
            "{host: reviews, port: {number: 81}}",
            "port.number",
            "81 is not a port of reviews.shop",
        ),
    ] {
        let state = state(&world(&[shop(), to(destination)].concat()), "v");
        let finding = &state.findings[0];
        assert_eq!(
            finding.field,
            format!("spec.http[0].route[0].destination.{field}")
        );
        assert!(!state.accepted && finding.message.contains(message), "{finding}");
    }
    for destination in ["{host: reviews, port: {number: 9090}}", "{host: ratings}"] {
        assert!(
            state(&world(&[shop(), to(destination)].concat()), "v").accepted,
            "{destination}"
        );
    }
}

#[test]
fn an_undefined_subset_is_refused_with_those_that_are_there() {
    let bad = split("canary", TO_V9);
    let world = world(&[shop(), reviews_subsets(), bad].concat());
    let state = state(&world, "canary");
    assert!(!state.accepted);
    let finding = &state.findings[0];
    assert_eq!(finding.field, "spec.http[0].route[0].destination.subset");
    assert!(
        finding.message.contains("`v9`") && finding.message.contains("v1, v2"),
        "{finding}"
    );
    assert_eq!(in_force(&world, "reviews"), None);
}

#[test]
fn the_last_good_version_stays_in_force_and_the_state_says_so() {
    let good = world(&[shop(), reviews_subsets(), split("canary", TO_V2)].concat());
    assert_eq!(in_force(&good, "reviews"), Some(("canary".into(), 1)));
    for bad in [TO_V9, "[{destination: {host: reviews}, weight: -1}]"] {
        let (after, _) = with(
            &good,
            &split("canary", bad).replace("generation: 1", "generation: 2"),
        );
        let state = state(&after, "canary");
        assert!(!state.accepted && !state.findings.is_empty(), "{state:?}");
        assert_eq!((state.reference.generation, state.in_force), (2, Some(1)));
        assert_eq!(in_force(&after, "reviews"), Some(("canary".into(), 1)));
        let (removed, touched) = without(&after, &split("canary", TO_V2));
        assert_eq!(in_force(&removed, "reviews"), None);
        assert!(touched.contains(&service_touched("reviews")));
    }
}

#[test]
fn a_subset_that_is_taken_away_leaves_the_rules_and_is_told() {
    let good = world(&[shop(), reviews_subsets(), split("canary", TO_V2)].concat());
    let (after, touched) = without(&good, &reviews_subsets());
    assert_eq!(in_force(&after, "reviews"), Some(("canary".into(), 1)));
    let gone = state(&after, "canary");
    assert!(!gone.accepted && gone.in_force == Some(1));
    assert!(
        gone.findings[0].message.contains("no DestinationRule"),
        "{:?}",
        gone.findings
    );
    assert!(touched.contains(&service_touched("reviews")));
    let (back, _) = with(&after, &reviews_subsets());
    assert!(state(&back, "canary").accepted && state(&back, "canary").findings.is_empty());
}

#[test]
fn of_two_that_claim_a_host_the_older_has_it_and_the_other_is_told() {
    let dated = |name: &str, day: u8| {
        let date = format!("generation: 1, creationTimestamp: '2026-01-0{day}T00:00:00Z'");
        split(name, TO_V2).replace("generation: 1", &date)
    };
    let old = world(&[shop(), reviews_subsets(), dated("a-young", 2), dated("z-old", 1)].concat());
    assert_eq!(in_force(&old, "reviews"), Some(("z-old".into(), 1)));
    let loser = state(&old, "a-young");
    assert!(loser.accepted, "it is right, it only has no effect");
    assert_eq!(loser.conflicts.len(), 1);
    assert!(
        loser.conflicts[0].contains("host `reviews`: VirtualService shop/z-old"),
        "{:?}",
        loser.conflicts
    );
    assert!(state(&old, "z-old").conflicts.is_empty());
    let (left, _) = without(&old, &dated("z-old", 1));
    assert_eq!(in_force(&left, "reviews"), Some(("a-young".into(), 1)));
    assert!(state(&left, "a-young").conflicts.is_empty());
}

#[test]
fn an_external_name_is_told_apart_from_a_service_that_is_missing() {
    let name = service("ratings", "10.0.0.2", &[("http", 80)]).replace(
        "spec:\n",
        "spec:\n  type: ExternalName\n  externalName: ratings.example.com\n",
    );
    let to_it = "  hosts: [reviews]\n  http: [{route: [{destination: {host: ratings}}]}]";
    let rules = virtual_service("out", to_it);
    let (external, _) = with(&world(&[shop(), rules].concat()), &name);
    let found = state(&external, "out").findings[0].to_string();
    assert!(
        found.contains("ExternalName for `ratings.example.com`") && found.contains("name the Service"),
        "{found}"
    );
    let on_it = virtual_service(
        "steers",
        &to_it
            .replace("reviews", "ratings")
            .replace("host: ratings", "host: reviews, port: {number: 9080}"),
    );
    let (steered, _) = with(&external, &on_it);
    let warnings = state(&steered, "steers").warnings;
    assert!(warnings[0].contains("ExternalName"), "{warnings:?}");
    let (real, touched) = with(
        &external,
        &service("ratings", "10.0.0.2", &[("http", 80), ("http2", 9080)]),
    );
    assert!(touched.contains(&service_touched("ratings")));
    assert!(
        !state(&real, "out")
            .findings
            .iter()
            .any(|f| f.message.contains("ExternalName"))
    );
    let (gone, touched) = without(&external, &name);
    assert!(touched.contains(&service_touched("ratings")));
    assert!(
        state(&gone, "out").findings[0]
            .to_string()
            .contains("does not exist")
    );
}

#[test]
fn a_service_touches_the_pods_that_it_selects_or_selected() {
    let pods = [
        pod("p", "reviews", "v1", "10.1.0.1"),
        pod("q", "other", "v1", "10.1.0.2"),
    ]
    .concat();
    let of = |app: &str| {
        service("reviews", "10.0.0.1", &[("http", 9080)])
            .replace("{app: reviews}", &format!("{{app: {app}, version: v1}}"))
    };
    let touched_pods = |world: &World, yaml: &str| {
        let (_, touched) = with(world, yaml);
        let names = touched.into_iter().filter_map(|dependency| match dependency {
            Dependency::Pod(_, name) => Some(name),
            _ => None,
        });
        names.collect::<Vec<_>>()
    };
    let before = world(&pods);
    assert_eq!(touched_pods(&before, &of("reviews")), ["p"]);
    assert!(touched_pods(&before, &of("nobody")).is_empty());
    let (selected, _) = with(&before, &of("reviews"));
    assert_eq!(touched_pods(&selected, &of("other")), ["p", "q"]);
}

#[test]
fn a_host_without_a_service_is_a_warning() {
    let yaml = virtual_service(
        "v",
        "  hosts: [nobody, api.example.com]
  http:
  - directResponse: {status: 200}",
    );
    let world = world(&yaml);
    let state = state(&world, "v");
    assert!(state.accepted);
    let [nobody, outside] = state.warnings.as_slice() else {
        panic!("{state:?}")
    };
    assert!(
        nobody.contains("spec.hosts[0]: there is no Service `nobody`"),
        "{nobody}"
    );
    assert!(
        outside.contains("`api.example.com` is not a Service"),
        "{outside}"
    );
}

#[test]
fn two_destination_rules_of_one_namespace_are_joined_and_the_younger_is_told() {
    let second = destination_rule(
        "s-second",
        "  host: reviews.shop.svc.cluster.local
  subsets:
  - {name: v2, labels: {version: other}}
  - {name: v3, labels: {version: v3}}",
    );
    let world = world(&[shop(), reviews_subsets(), second].concat());
    let state = state(&world, "s-second");
    assert_eq!(state.conflicts.len(), 1, "{:?}", state.conflicts);
    assert!(state.conflicts[0].contains("subset `v2`") && state.conflicts[0].contains("shop/reviews"));
}

#[test]
fn a_bad_weight_of_a_pod_is_among_the_objects() {
    let heavy = pod("reviews-1", "reviews", "v1", "10.1.0.1").replace(
        "  labels:",
        "  annotations: {hauberk.dev/weight: heavy}\n  labels:",
    );
    let world = world(&heavy);
    let state = state(&world, "reviews-1");
    assert!(
        state.warnings[0].contains("heavy") && state.warnings[0].contains("1 to 1000"),
        "{state:?}"
    );
}

#[test]
fn one_endpoint_touches_its_service_its_address_and_its_pod_alone() {
    let before = world(&shop());
    let ports = [("http", 8080), ("grpc-admin", 8081)];
    let (_, touched) = with(&before, &slice("reviews", &ports, &[("reviews-1", "10.1.0.1")]));
    let expected = BTreeSet::from([
        Dependency::Endpoints("shop".into(), "reviews".into()),
        Dependency::Address("10.1.0.2".parse().unwrap()),
        Dependency::Pod("shop".into(), "reviews-2".into()),
    ]);
    assert_eq!(touched, expected);
}

#[test]
fn what_did_not_really_change_touches_nothing() {
    let all = [shop(), reviews_subsets(), split("canary", TO_V2)].concat();
    let before = world(&all);
    let (_, touched) = with(&before, &all);
    assert_eq!(touched, BTreeSet::new());
    let bad = reviews_subsets()
        .replace("host: reviews", "host: 'a*'")
        .replace("generation: 1", "generation: 2");
    let (after, touched) = with(&before, &bad);
    assert_eq!(touched, BTreeSet::new(), "a bad version changes nothing");
    assert!(!state(&after, "reviews").accepted);
    let (_, touched) = without(&before, &virtual_service("nobody", "  hosts: [a]"));
    assert_eq!(touched, BTreeSet::new());
}

#[test]
fn the_first_world_is_as_it_was() {
    let before = world(&shop());
    let (after, _) = without(&before, &shop());
    let reviews = ServiceName::new("shop", "reviews");
    assert!(before.service(&reviews).is_some() && before.service_at("10.0.0.1".parse().unwrap()).is_some());
    assert!(before.pod_at("10.1.0.1".parse().unwrap()).is_some());
    assert!(after.service(&reviews).is_none() && after.service_at("10.0.0.1".parse().unwrap()).is_none());
    assert!(after.pod_at("10.1.0.1".parse().unwrap()).is_none());
    assert_eq!(after.slices_of(&reviews).count(), 0);
}

#[test]
fn of_two_policies_for_the_same_pods_the_younger_is_told() {
    let peers = |name: &str, more: &str| {
        object(
            "PeerAuthentication",
            "shop",
            name,
            &format!("  mtls: {{mode: STRICT}}{more}"),
        )
    };
    let narrow = "\n  selector: {matchLabels: {app: web}}";
    let world = world(&[peers("a", ""), peers("b", ""), peers("c", narrow)].concat());
    assert!(state(&world, "a").conflicts.is_empty() && state(&world, "c").conflicts.is_empty());
    assert!(state(&world, "b").conflicts[0].contains("PeerAuthentication shop/a"));
}

#[test]
fn one_object_is_found_as_among_all() {
    let world = world(&[shop(), reviews_subsets(), split("canary", TO_V2)].concat());
    for (kind, name) in [
        (Kind::VirtualService, "canary"),
        (Kind::DestinationRule, "reviews"),
    ] {
        assert_eq!(world.object(kind, "shop", name), Some(state(&world, name)));
    }
    assert_eq!(world.object(Kind::VirtualService, "shop", "nobody"), None);
    let named: Vec<_> = world.objects().map(|o| o.reference.to_string()).collect();
    assert_eq!(
        named,
        ["DestinationRule shop/reviews", "VirtualService shop/canary"]
    );
}

/// What the check finds nothing wrong with can be carried to a proxy: there is no second, hidden set of rules.
#[test]
fn every_example_that_passes_the_check_is_made_ready() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/examples/valid");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let world = world(&std::fs::read_to_string(&path).unwrap());
        for held in world.virtual_services.values() {
            assert!(held.ready.is_some(), "{}: {:?}", path.display(), held.findings);
            seen += 1;
        }
        for held in world.destination_rules.values() {
            assert!(held.ready.is_some(), "{}: {:?}", path.display(), held.findings);
            seen += 1;
        }
        for held in world.peer_authentications.values() {
            assert!(held.ready.is_some(), "{}: {:?}", path.display(), held.findings);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} examples are few");
}

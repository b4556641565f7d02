//! What is refused, what gets a warning, and what stands in nobody's way.

use serde_json::json;

use super::*;
use crate::state::testing::*;

fn json_of(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

/// The request to create, update or delete an object of namespace `shop`.
fn request(operation: &str, object: &Value, old: &Value) -> Request {
    let either = if object.is_null() { old } else { object };
    let text = json!({
        "uid": "u", "operation": operation, "namespace": "shop",
        "name": either["metadata"]["name"].as_str().unwrap_or_default(),
        "kind": {"group": "hauberk.dev", "version": "v1alpha1", "kind": either["kind"]},
        "object": object, "oldObject": old,
    });
    serde_json::from_value(text).unwrap()
}

fn create(world: &World, yaml: &str) -> Answer {
    judge(world, &request("CREATE", &json_of(yaml), &Value::Null)).unwrap()
}

fn update(world: &World, old: &str, new: &str) -> Answer {
    judge(world, &request("UPDATE", &json_of(new), &json_of(old))).unwrap()
}

fn refused(answer: Answer) -> String {
    match answer {
        Answer::Refuse(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn allowed(answer: Answer) -> Vec<String> {
    match answer {
        Answer::Allow(warnings) => warnings,
        other => panic!("{other:?}"),
    }
}

const SPLIT: &str = "  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}";

fn split() -> String {
    virtual_service("reviews", SPLIT)
}

#[test]
fn what_is_wrong_is_refused_with_the_field_and_the_remedy() {
    let shop = world(&[shop(), reviews_subsets()].concat());
    for (yaml, says) in [
        (
            split().replace("90", "-90"),
            "VirtualService shop/reviews is refused: spec.http[0].route[0].weight: -90 is negative; use 0 or more",
        ),
        (
            split().replace("hosts:", "hostz:"),
            "spec.hostz: unknown field; did you mean `hosts`?",
        ),
        (
            split().replace("[reviews]", "reviews"),
            "spec.hosts: must be a list",
        ),
        (
            virtual_service(
                "v",
                "  hosts: [reviews]\n  http: [{match: [{statPrefix: a}], route: [{destination: {host: reviews}}]}]",
            ),
            "spec.http[0].match[0].statPrefix: not supported; ",
        ),
        (
            virtual_service(
                "v",
                "  hosts: [reviews]\n  http: [{route: [{destination: {host: a.example.com}}]}]",
            ),
            "spec.http[0].route[0].destination.host: `a.example.com` is not a Service of this cluster",
        ),
        (
            destination_rule("d", "  host: reviews\n  subsets: [{name: a}, {name: a}]"),
            "spec.subsets[1].name",
        ),
        (
            object("PeerAuthentication", "shop", "p", "  mtls: {mode: strict}"),
            "spec.mtls.mode",
        ),
    ] {
        let reason = refused(create(&shop, &yaml));
        assert!(reason.contains(says), "{reason}\n{says}");
    }
}

#[test]
fn what_is_good_is_taken_without_a_word() {
    let shop = world(&[shop(), reviews_subsets()].concat());
    for yaml in [
        split(),
        object("PeerAuthentication", "shop", "p", "  mtls: {mode: STRICT}"),
    ] {
        assert_eq!(allowed(create(&shop, &yaml)), [""; 0], "{yaml}");
    }
}

#[test]
fn what_may_come_in_another_order_is_a_warning() {
    let nothing = World::default();
    let warnings = allowed(create(&nothing, &split()));
    assert!(
        warnings[0].contains("names Service `reviews` of namespace `shop`, which does not exist"),
        "{warnings:?}"
    );
    let last = warnings.last().unwrap();
    let says = "VirtualService shop/reviews comes into force when what it names is there; until then it has no effect";
    assert_eq!(last, says);

    let services = world(&shop());
    let warnings = allowed(create(&services, &split()));
    assert!(
        warnings[0].contains("`v1` is not defined: no DestinationRule"),
        "{warnings:?}"
    );

    let running = world(&[shop(), reviews_subsets(), split()].concat());
    let warnings = allowed(update(
        &running,
        &split(),
        &split().replace("subset: v2", "subset: v9"),
    ));
    let last = warnings.last().unwrap();
    assert!(last.ends_with("until then generation 1 stays in force"), "{last}");
}

#[test]
fn what_is_legal_and_odd_is_a_warning() {
    let shop = world(&[shop(), reviews_subsets(), split()].concat());
    let everything = "  hosts: [ratings]
  http:
  - route: [{destination: {host: ratings}}]
  - match: [{uri: {exact: /b}}]
    route: [{destination: {host: ratings}}]";
    for (yaml, says) in [
        (
            destination_rule(
                "d",
                "  host: reviews\n  subsets: [{name: v9, labels: {version: v9}}]",
            ),
            "spec.subsets[0].labels: subset `v9` selects none of the 2 endpoints",
        ),
        (virtual_service("v", everything), "spec.http[1]: is never reached"),
        (
            virtual_service(
                "v",
                "  hosts: [nobody]\n  http: [{directResponse: {status: 200}}]",
            ),
            "spec.hosts[0]: there is no Service `nobody` in namespace `shop` (yet)",
        ),
        (
            virtual_service("zz", SPLIT),
            "host `reviews`: VirtualService shop/reviews is older and has it",
        ),
        (
            split().replace("weight: 90", "weight: 95"),
            "spec.http[0].route: has weights that sum up to 105",
        ),
        (
            object(
                "PeerAuthentication",
                "shop",
                "p",
                "  selector: {matchLabels: {app: nobody}}",
            ),
            "spec.selector: selects none of the pods",
        ),
    ] {
        let warnings = allowed(create(&shop, &yaml));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with(says), "{warnings:?}");
    }
}

#[test]
fn who_takes_a_subset_away_is_told_who_uses_it() {
    let running = world(&[shop(), reviews_subsets(), split()].concat());
    let says = "VirtualService shop/reviews stays as it was, because it would no longer be accepted: \
                spec.http[0].route[1].destination.subset: `v2` is not defined";
    let less = reviews_subsets().replace("name: v2", "name: v3");
    let warnings = allowed(update(&running, &reviews_subsets(), &less));
    assert!(warnings.iter().any(|w| w.starts_with(says)), "{warnings:?}");
    let delete = request("DELETE", &Value::Null, &json_of(&reviews_subsets()));
    let warnings = allowed(judge(&running, &delete).unwrap());
    assert!(
        warnings.iter().any(|w| w.contains("stays as it was")),
        "{warnings:?}"
    );
    let elsewhere = reviews_subsets().replace("host: reviews", "host: ratings");
    let warnings = allowed(update(&running, &reviews_subsets(), &elsewhere));
    assert!(
        warnings.iter().any(|w| w.contains("stays as it was")),
        "{warnings:?}"
    );
}

#[test]
fn what_is_there_already_or_going_is_in_nobodys_way() {
    let world = world(&shop());
    let bad = split().replace("90", "-90");
    let labelled = bad.replace("name: reviews,", "name: reviews, labels: {a: b},");
    let warnings = allowed(update(&world, &bad, &labelled));
    assert!(warnings[0].contains("is negative"), "{warnings:?}");
    assert!(refused(update(&world, &split(), &bad)).contains("is negative"));

    let mut going = json_of(&bad);
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let answer = judge(&world, &request("UPDATE", &going, &json_of(&split())));
    assert_eq!(allowed(answer.unwrap()), [""; 0]);

    let delete = request("DELETE", &Value::Null, &json_of(&bad));
    assert_eq!(allowed(judge(&world, &delete).unwrap()), [""; 0]);

    let mut status = request("UPDATE", &json_of(&bad), &json_of(&split()));
    status.sub_resource = Some("status".to_owned());
    assert_eq!(allowed(judge(&world, &status).unwrap()), [""; 0]);
}

#[test]
fn an_object_without_a_name_yet_is_checked_like_any_other() {
    let world = world(&[shop(), reviews_subsets()].concat());
    let mut object = json_of(&split());
    object["metadata"] = json!({"generateName": "canary-"});
    let answer = |object: &Value| judge(&world, &request("CREATE", object, &Value::Null)).unwrap();
    assert_eq!(allowed(answer(&object)), [""; 0]);
    object["spec"]["hosts"] = json!(["a*"]);
    assert!(refused(answer(&object)).contains("spec.hosts[0]"));
}

#[test]
fn what_does_not_belong_here_is_said() {
    let pod = json_of("apiVersion: v1\nkind: Pod\nmetadata: {name: a}");
    let error = judge(&World::default(), &request("CREATE", &pod, &Value::Null)).unwrap_err();
    assert!(error.starts_with("request.kind: is Pod"), "{error}");
    let mut nothing = request("CREATE", &json_of(&split()), &Value::Null);
    nothing.object = Value::Null;
    let error = judge(&World::default(), &nothing).unwrap_err();
    assert!(error.starts_with("request.object"), "{error}");
}

#[test]
fn what_leaves_the_requests_of_a_delegating_rule_to_nobody_is_told() {
    let leaf = virtual_service("leaf", "  http:\n  - route: [{destination: {host: ratings}}]");
    let root = virtual_service("root", "  hosts: [reviews]\n  http:\n  - delegate: {name: leaf}");
    let running = world(&[shop(), leaf.clone(), root].concat());
    let says = |why: &str| {
        format!(
            "VirtualService shop/root delegates to this one in spec.http[0], and its requests get 503: shop/leaf {why}"
        )
    };
    let gone = judge(&running, &request("DELETE", &Value::Null, &json_of(&leaf))).unwrap();
    assert_eq!(
        allowed(gone),
        [says(
            "is not there, or not in force (yet): create it, or see its status"
        )]
    );
    for (with, why) in [
        (
            "exportTo: [other]",
            "is not exported to namespace `shop`: add that to its exportTo",
        ),
        (
            "hosts: [ratings]",
            "has hosts of its own: only one without spec.hosts can be delegated to",
        ),
    ] {
        let new = leaf.replace("  http:", &format!("  {with}\n  http:"));
        let warnings = allowed(update(&running, &leaf, &new));
        assert!(warnings.contains(&says(why)), "{warnings:?}");
    }
    let better = leaf.replace("- route", "- timeout: 1s\n    route");
    assert_eq!(allowed(update(&running, &leaf, &better)), [""; 0]);
}

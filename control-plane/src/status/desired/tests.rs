//! What each standing of an object becomes in its status.

use super::*;
use crate::push::HubView;
use crate::status::board;
use crate::status::tests::facts;

/// An object of generation 2 with these counts.
fn object(verdict: Verdict, in_force: Option<i64>, applied_by: usize, used_by: usize) -> ObjectStatus {
    let facts = facts(verdict == Verdict::Accepted, in_force);
    let mut object = board(vec![facts], Vec::new(), Vec::new(), HubView::default())
        .objects
        .remove(0);
    object.verdict = verdict;
    object.applied_by = applied_by;
    object.used_by = used_by;
    object
}

fn said(said: &Said) -> (&str, &str, &str) {
    (said.status, said.reason, &said.message)
}

fn with(mut object: ObjectStatus, list: &str, text: &str) -> ObjectStatus {
    let list = match list {
        "conflict" => &mut object.conflicts,
        "warning" => &mut object.warnings,
        _ => &mut object.findings,
    };
    list.push(text.to_owned());
    object
}

fn refused(n: usize) -> ObjectStatus {
    let mut object = object(Verdict::Accepted, Some(2), 1, n + 1);
    object.refused_by = (0..n)
        .map(|i| Refusal {
            proxy: format!("shop/web-{i}"),
            reason: "route/x: too large".to_owned(),
        })
        .collect();
    object
}

#[test]
fn how_far_an_accepted_object_has_travelled() {
    let of = |applied, used| super::of(&object(Verdict::Accepted, Some(2), applied, used), &[]);
    for (desired, programmed) in [
        (of(37, 37), ("True", "Applied", "applied by 37 of 37 proxies")),
        (of(0, 1), ("False", "Waiting", "applied by 0 of 1 proxy")),
        (of(0, 0), ("Unknown", "NotUsed", "no connected proxy uses it")),
        (
            super::of(&refused(1), &[]),
            (
                "False",
                "Refused",
                "applied by 1 of 2 proxies; refused by shop/web-0: route/x: too large",
            ),
        ),
    ] {
        assert_eq!(said(&desired.accepted), ("True", "Accepted", "in force"));
        assert_eq!(said(&desired.programmed), programmed);
    }
    let many = super::of(&refused(5), &[]).programmed.message;
    assert!(
        many.contains("shop/web-2") && many.ends_with("; and by 2 more"),
        "{many}"
    );
}

#[test]
fn what_is_odd_or_wrong_is_the_reason_and_the_message() {
    use Verdict::{Accepted, Invalid, ReferenceMissing};
    let odd = with(object(Accepted, Some(2), 1, 1), "warning", "odd");
    for (object, accepted, programmed) in [
        (odd.clone(), ("True", "Warning", "odd"), "applied by 1 of 1 proxy"),
        (
            with(odd, "conflict", "host `x`: another has it"),
            ("True", "Conflict", "host `x`: another has it; odd"),
            "applied by 1 of 1 proxy",
        ),
        (
            with(object(Invalid, None, 0, 0), "finding", "spec: is bad"),
            ("False", "Invalid", "spec: is bad"),
            "no generation of it is in force",
        ),
        (
            with(
                object(ReferenceMissing, Some(1), 1, 2),
                "finding",
                "spec: names nobody",
            ),
            (
                "False",
                "ReferenceMissing",
                "spec: names nobody; generation 1 stays in force",
            ),
            "generation 1 stays in force, applied by 1 of 2 proxies",
        ),
    ] {
        let desired = of(&object, &[]);
        assert_eq!(said(&desired.accepted), accepted);
        assert_eq!(desired.programmed.message, programmed);
        let in_force = desired.accepted.status == "True";
        assert_eq!(desired.programmed.reason == "NotInForce", !in_force);
    }
}

#[test]
fn replicas_that_are_silent_are_said_to_be_not_counted() {
    let silent = ["10.1.0.5".to_owned()];
    let desired = of(&object(Verdict::Accepted, Some(2), 1, 1), &silent);
    let says =
        "applied by 1 of 1 proxy; the proxies of 10.1.0.5 are not counted, because it has not answered";
    assert_eq!(desired.programmed.message, says);
}

#[test]
fn many_notes_are_cut_and_counted() {
    let mut object = object(Verdict::Invalid, None, 0, 0);
    object.findings = vec!["é".repeat(MAX_NOTE); 30];
    let message = of(&object, &[]).accepted.message;
    assert!(message.len() < 2 * MAX_NOTES * MAX_NOTE, "{}", message.len());
    assert!(message.ends_with("; and 20 more"), "{message}");
}

#[test]
fn an_object_that_nobody_can_read_is_marked_and_keeps_what_is_in_force() {
    let unreadable = |name: &str| Unreadable {
        kind: "VirtualService".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        generation: 3,
        problem: "spec.hosts: must be a list".to_owned(),
    };
    let status = Status {
        objects: vec![object(Verdict::Accepted, Some(2), 1, 1)],
        unreadable: vec![unreadable("reviews"), unreadable("new")],
        ..Status::default()
    };
    let all = desired(&status, &[]);
    let of = |name: &str| all.iter().find(|(key, _)| key.name == name).unwrap().1;
    let reviews = of("reviews");
    assert_eq!((reviews.generation, reviews.in_force), (3, Some(2)));
    let says = "spec.hosts: must be a list; generation 2 stays in force";
    assert_eq!(said(&reviews.accepted), ("False", "Invalid", says));
    let says = "generation 2 stays in force, applied by 1 of 1 proxy";
    assert_eq!(said(&reviews.programmed), ("False", "NotInForce", says));
    let new = of("new");
    assert_eq!((new.generation, new.in_force), (3, None));
    assert_eq!(
        said(&new.accepted),
        ("False", "Invalid", "spec.hosts: must be a list")
    );
}

#[test]
fn kinds_that_are_not_ours_are_not_written() {
    let mut pod = object(Verdict::Accepted, Some(0), 0, 0);
    pod.kind = "Pod".to_owned();
    let status = Status {
        objects: vec![pod],
        ..Status::default()
    };
    assert_eq!(desired(&status, &[]).len(), 0);
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let at = |seconds| Time(Timestamp::from_second(seconds).unwrap());
    let waiting = of(&object(Verdict::Accepted, Some(2), 0, 1), &[]);
    let first = waiting.status(None, at(100));
    assert!(waiting.is_said_by(&first));
    let applied = of(&object(Verdict::Accepted, Some(2), 1, 1), &[]);
    assert!(!applied.is_said_by(&first) && applied.differs_in_counts_only(&first));
    let second = applied.status(Some(&first), at(200));
    let times = |status: &crds::Status| {
        let of = |type_| {
            let condition = status.condition(type_).unwrap();
            condition.last_transition_time.0.as_second()
        };
        (of(ACCEPTED), of(PROGRAMMED))
    };
    assert_eq!((times(&first), times(&second)), ((100, 100), (100, 200)));
    assert_eq!(second.applied.as_deref(), Some("1/1"));
    let invalid = of(&object(Verdict::Invalid, Some(1), 1, 1), &[]);
    assert!(!invalid.differs_in_counts_only(&second));
    let mut strange = second.clone();
    strange.conditions.clear();
    assert!(
        !applied.is_said_by(&strange),
        "a status that lost its conditions gets them back"
    );
}

//! Properties of every conversion between checked types and the wire: what was accepted comes back as it was, no bytes
//! panic, and a version changes exactly when the content does.

mod content;
mod route;

use api::{Body, Invalid, Kind, Resource, ResourceName, proto};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;

use crate::content::resource;

fn encode(resource: Resource) -> Vec<u8> {
    proto::Resource::from(resource).encode_to_vec()
}

/// What a proxy does with bytes of the stream; `None` when they are no message at all.
fn decode(bytes: &[u8]) -> Option<Result<Resource, Invalid>> {
    proto::Resource::decode(bytes).ok().map(Resource::try_from)
}

/// The content alone: name and body, without the version.
fn content(resource: &Resource) -> proto::Resource {
    proto::Resource {
        version: 0,
        ..resource.clone().into()
    }
}

/// Bytes that are nearly those of a resource: some changed, then perhaps cut short.
fn nearly(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<Index>(), any::<u8>()), 1..4);
    (changes, proptest::option::weighted(0.2, any::<Index>())).prop_map(move |(changes, cut)| {
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    })
}

/// What holds for whatever the wire brings: it is refused with a field and a problem, or taken and then stable.
fn check_taken_or_refused(bytes: &[u8]) -> Result<(), TestCaseError> {
    match decode(bytes) {
        None => {}
        Some(Err(Invalid { field, problem })) => {
            prop_assert!(!field.is_empty(), "a refusal names its field: {problem}");
            prop_assert!(!problem.is_empty(), "a refusal says what is wrong with {field}");
        }
        Some(Ok(taken)) => {
            let again = decode(&encode(taken.clone()));
            prop_assert_eq!(again, Some(Ok(taken)));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_was_sent_arrives_as_it_was(sent in resource()) {
        let arrived = decode(&encode(sent.clone()));
        prop_assert_eq!(arrived, Some(Ok(sent)));
    }

    #[test]
    fn equal_content_has_an_equal_version_whoever_made_it(first in resource()) {
        let arrived = decode(&encode(first.clone())).expect("is a message").expect("is valid");
        let second = Resource::new(arrived.name, arrived.body);
        prop_assert_eq!(first.version, second.version);
    }

    #[test]
    fn a_version_changes_exactly_when_the_content_does(
        (first, bytes) in resource().prop_flat_map(|r| (Just(r.clone()), nearly(encode(r)))),
    ) {
        if let Some(Ok(changed)) = decode(&bytes) {
            let changed = Resource::new(changed.name, changed.body);
            prop_assert_eq!(
                content(&first) == content(&changed),
                first.version == changed.version,
                "{:?} and {:?}", first, changed
            );
        }
    }

    #[test]
    fn any_two_contents_have_two_versions(first in resource(), second in resource()) {
        prop_assert_eq!(content(&first) == content(&second), first.version == second.version);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        check_taken_or_refused(&bytes)?;
    }

    #[test]
    fn bytes_that_are_nearly_right_are_taken_or_refused(
        bytes in resource().prop_flat_map(|r| nearly(encode(r))),
    ) {
        check_taken_or_refused(&bytes)?;
    }

    #[test]
    fn content_is_taken_under_a_name_of_its_kind_only(sent in resource(), kind in any::<Index>()) {
        let kind = Kind::ALL[kind.index(Kind::ALL.len())];
        // Absence has no kind of its own and may stand under any name.
        let fits = sent.body.kind().is_none_or(|own| own == kind);
        let named = Resource { name: ResourceName::new(kind, sent.name.name), ..sent };
        let arrived = decode(&encode(named.clone())).expect("is a message");
        if fits {
            prop_assert_eq!(arrived, Ok(named));
        } else {
            prop_assert_eq!(arrived.expect_err("is misnamed").field, "body");
        }
    }
}

#[test]
fn absence_and_its_reason_count_as_content() {
    let name = ResourceName::new(Kind::Route, "reviews.shop:80");
    let gone = |reason: &str| Resource::new(name.clone(), Body::Absent(reason.to_owned())).version;
    assert_eq!(gone("deleted"), gone("deleted"));
    assert_ne!(gone("deleted"), gone("never seen"));
}

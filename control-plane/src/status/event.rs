//! Kubernetes Events about objects that are not accepted, or that a proxy could not apply: one for each generation of an
//! object and reason, whoever holds the lease, because the Event's name is made of the three.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::desired::{Desired, cut};
use crate::push::ObjectKey;

/// Who reports.
const CONTROLLER: &str = "hauberk.dev/control-plane";
/// Bytes of an Event's note.
const MAX_NOTE: usize = 1000;
/// Bytes of the object's name in that of the Event; a dot and the hash follow.
const MAX_NAME: usize = 200;

/// What there is to report of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) generation: i64,
    /// `Rejected`, or `Refused` when it was a proxy.
    reason: &'static str,
    /// The condition's reason.
    pub(super) because: &'static str,
    note: String,
}

/// The report that an object calls for, if any.
pub(super) fn report(desired: &Desired) -> Option<Report> {
    let (reason, said) = match (&desired.accepted, &desired.programmed) {
        (accepted, _) if accepted.status == "False" => ("Rejected", accepted),
        (_, programmed) if programmed.reason == "Refused" => ("Refused", programmed),
        _ => return None,
    };
    Some(Report {
        generation: desired.generation,
        reason,
        because: said.reason,
        note: cut(&said.message, MAX_NOTE).to_owned(),
    })
}

/// The Event of a report. `own_pod` is who reports, `uid` the object's.
pub(super) fn event(report: &Report, key: &ObjectKey, uid: &str, own_pod: &str, now: Timestamp) -> Event {
    let identity = (uid, report.generation, report.reason, report.because);
    // The same in every process: `DefaultHasher` starts from fixed keys.
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(identity);
    let name = cut(&key.name, MAX_NAME).trim_end_matches(['.', '-']);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{hash:016x}")),
            namespace: Some(key.namespace.clone()),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(report.reason.to_owned()),
        action: Some("Check".to_owned()),
        note: Some(report.note.clone()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(own_pod, 128).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(crds::API_VERSION.to_owned()),
            kind: Some(key.kind.clone()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_for_each_object_generation_and_reason() {
        let key = ObjectKey {
            kind: "VirtualService".to_owned(),
            namespace: "shop".to_owned(),
            name: "reviews".to_owned(),
        };
        let report = |generation, because| Report {
            generation,
            reason: "Rejected",
            because,
            note: "spec: is bad".to_owned(),
        };
        let name = |generation, because, uid, pod| {
            let event = event(
                &report(generation, because),
                &key,
                uid,
                pod,
                Timestamp::UNIX_EPOCH,
            );
            event.metadata.name.unwrap()
        };
        let one = name(1, "Invalid", "u", "cp-a");
        assert!(
            one.starts_with("reviews.") && one.len() == "reviews.".len() + 16,
            "{one}"
        );
        assert_eq!(one, name(1, "Invalid", "u", "cp-b"), "whoever reports it");
        for other in [
            name(2, "Invalid", "u", "cp-a"),
            name(1, "ReferenceMissing", "u", "cp-a"),
            name(1, "Invalid", "v", "cp-a"),
        ] {
            assert_ne!(one, other);
        }
    }
}

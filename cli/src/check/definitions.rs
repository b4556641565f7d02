//! Whether the cluster's custom resource definitions know every field that this version knows. Both sides of `check` ask.

use serde_json::Value;

use super::{Finding, fail, of, ok, warn};
use crate::facts::Definition;
use crate::table::some;

const CHECK: &str = "definitions";
const INSTALL: &str = "helm upgrade --install hauberk-crds charts/hauberk-crds --namespace hauberk-system";

/// One finding for all definitions; whether missing ones are a mistake depends on the moment.
pub(super) fn check(definitions: &[Definition], must_be_there: bool) -> Finding {
    let mut missing = Vec::new();
    let mut old = Vec::new();
    for definition in definitions {
        match &definition.theirs {
            Err(_) => return of(CHECK, &definition.theirs, |_| ok(CHECK, "")),
            Ok(None) => missing.push(definition.name.clone()),
            Ok(Some(theirs)) => {
                let mut fields = Vec::new();
                unknown("", &schema(&definition.ours), &schema(theirs), &mut fields);
                old.extend(
                    fields
                        .into_iter()
                        .map(|field| format!("{}: {field}", definition.name)),
                );
            }
        }
    }
    if missing.len() == definitions.len() && !must_be_there {
        return ok(
            CHECK,
            "not installed yet; the chart hauberk-crds comes before the chart hauberk",
        );
    }
    if !missing.is_empty() {
        return fail(CHECK, format!("missing: {}", missing.join(", ")), INSTALL);
    }
    if !old.is_empty() {
        let fields = some(old.into_iter());
        let says = format!("of another version, without these fields, which the server drops: {fields}");
        return warn(CHECK, says, INSTALL);
    }
    ok(CHECK, format!("{} installed and current", definitions.len()))
}

fn schema(definition: &Value) -> Value {
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Fields that one schema has and the other lacks, by path.
fn unknown(at: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if let Some(properties) = ours["properties"].as_object() {
        for (name, ours) in properties {
            let path = if at.is_empty() {
                name.clone()
            } else {
                format!("{at}.{name}")
            };
            match theirs["properties"].get(name) {
                Some(theirs) => unknown(&path, ours, theirs, found),
                None => found.push(path),
            }
        }
    }
    for below in ["items", "additionalProperties"] {
        if ours[below].is_object() {
            unknown(&format!("{at}[]"), &ours[below], &theirs[below], found);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::check::Outcome;

    /// The definitions of this version, as a cluster might have them.
    pub(in crate::check) fn current() -> Vec<Definition> {
        let all = crds::definitions::all().into_iter().map(|crd| {
            let value = serde_json::to_value(&crd).unwrap();
            Definition {
                name: crd.metadata.name.unwrap(),
                ours: value.clone(),
                theirs: Ok(Some(value)),
            }
        });
        all.collect()
    }

    #[test]
    fn definitions_are_current_missing_or_lack_fields() {
        assert_eq!(check(&current(), true).outcome, Outcome::Ok);

        let mut none = current();
        none.iter_mut().for_each(|d| d.theirs = Ok(None));
        assert_eq!(check(&none, true).outcome, Outcome::Fail);
        assert_eq!(check(&none, false).outcome, Outcome::Ok);

        let mut some = current();
        some[1].theirs = Ok(None);
        let finding = check(&some, false);
        assert_eq!(finding.outcome, Outcome::Fail);
        assert_eq!(finding.says, format!("missing: {}", some[1].name));

        let mut old = current();
        let theirs = old[0].theirs.as_mut().unwrap().as_mut().unwrap();
        let http = &mut theirs["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["http"];
        http["items"]["properties"]
            .as_object_mut()
            .unwrap()
            .remove("timeout")
            .unwrap();
        let finding = check(&old, true);
        assert_eq!(finding.outcome, Outcome::Warn);
        assert!(
            finding.says.ends_with(": spec.http[].timeout"),
            "{}",
            finding.says
        );
    }

    #[test]
    fn what_an_old_server_does_not_keep_is_no_difference() {
        let mut kept = current();
        for definition in &mut kept {
            let theirs = definition.theirs.as_mut().unwrap().as_mut().unwrap();
            theirs["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
                .as_object_mut()
                .unwrap()
                .remove("x-kubernetes-validations");
            theirs["metadata"]["uid"] = "1".into();
        }
        assert_eq!(check(&kept, true).outcome, Outcome::Ok);
    }
}

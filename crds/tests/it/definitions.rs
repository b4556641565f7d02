//! `crds/yaml/` holds what the types say, and what it holds an API server accepts.

use std::{collections::BTreeSet, fs, path::PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

fn yaml_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("yaml")
}

fn schemas() -> Vec<(String, Value)> {
    crds::definitions::all()
        .into_iter()
        .map(|crd| {
            let crd = serde_json::to_value(crd).unwrap();
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            (
                kind,
                crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone(),
            )
        })
        .collect()
}

#[test]
fn committed_definitions_are_those_of_the_types() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut expected_files = BTreeSet::new();
    for crd in crds::definitions::all() {
        let file = format!("{}.yaml", crd.spec.names.plural);
        let path = yaml_dir().join(&file);
        let header = "# Generated from the types in crds/src; rewrite it with UPDATE=1 cargo test -p crds.\n";
        let made = format!("{header}{}", serde_saphyr::to_string(&crd).unwrap());
        if update {
            fs::write(&path, &made).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == made,
            "{file} is out of date; run UPDATE=1 cargo test -p crds"
        );
        // The chart has the same, and leaves it behind: with the definitions every object of theirs would go.
        let keep = "  annotations:\n    helm.sh/resource-policy: keep\n";
        let chart = made.replacen("metadata:\n", &format!("metadata:\n{keep}"), 1);
        let templates = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/hauberk-crds/templates");
        if update {
            fs::write(templates.join(&file), &chart).unwrap();
        }
        assert!(
            fs::read_to_string(templates.join(&file)).unwrap_or_default() == chart,
            "charts/hauberk-crds/templates/{file} is out of date; run UPDATE=1 cargo test -p crds"
        );
        assert!(
            !made.contains("{{"),
            "{file}: Helm would take that for a template of its own"
        );
        let read: CustomResourceDefinition = serde_saphyr::from_str(&committed).unwrap();
        assert_eq!(read, crd, "{file} does not read back as what was written");
        expected_files.insert(file);
    }
    let files: BTreeSet<_> = fs::read_dir(yaml_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, expected_files);
}

#[test]
fn definitions_fit_into_the_annotation_of_kubectl_apply() {
    for crd in crds::definitions::all() {
        let len = serde_json::to_string(&crd).unwrap().len();
        assert!(len < 200_000, "{} has {len} bytes", crd.spec.names.plural);
    }
}

#[test]
fn names_are_as_documented() {
    let names = crds::definitions::all().map(|crd| {
        let spec = crd.spec;
        let short = spec.names.short_names.unwrap().join(",");
        (
            crd.metadata.name.unwrap(),
            spec.names.kind,
            short,
            spec.scope,
            spec.versions[0].name.clone(),
        )
    });
    let expected = [
        ("virtualservices.hauberk.dev", "VirtualService", "vs"),
        ("destinationrules.hauberk.dev", "DestinationRule", "dr"),
        ("peerauthentications.hauberk.dev", "PeerAuthentication", "pa"),
    ]
    .map(|(name, kind, short)| {
        (
            name.to_owned(),
            kind.to_owned(),
            short.to_owned(),
            "Namespaced".to_owned(),
            "v1alpha1".to_owned(),
        )
    });
    assert_eq!(names, expected);
    for crd in crds::definitions::all() {
        let version = &crd.spec.versions[0];
        assert!(version.subresources.as_ref().unwrap().status.is_some());
        let columns: Vec<_> = version
            .additional_printer_columns
            .iter()
            .flatten()
            .map(|column| column.name.as_str())
            .collect();
        for name in ["Accepted", "Reason", "Programmed", "Applied", "Age"] {
            assert!(columns.contains(&name), "{columns:?}");
        }
    }
}

#[test]
fn schemas_are_structural() {
    for (kind, schema) in schemas() {
        structural(&kind, &schema, true);
    }
}

/// A server drops unknown fields in silence unless it is told to keep them, and then nobody could refuse them by name.
#[test]
fn unknown_fields_are_kept_everywhere_below_spec() {
    fn kept(at: &str, schema: &Value) {
        let properties = schema["properties"].as_object();
        if properties.is_some() {
            assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true, "{at}");
        }
        for (name, below) in properties.into_iter().flatten() {
            kept(&format!("{at}.{name}"), below);
        }
        for keyword in ["items", "additionalProperties"] {
            if let Some(below) = schema.get(keyword) {
                kept(&format!("{at}.{keyword}"), below);
            }
        }
    }
    for (kind, schema) in schemas() {
        kept(&kind, &schema["properties"]["spec"]);
    }
}

/// The rules of "Specifying a structural schema" in the Kubernetes documentation, and the keywords that the
/// API server knows.
fn structural(at: &str, schema: &Value, outside: bool) {
    keywords(at, schema, outside);
    let map = schema.as_object().unwrap();
    for (name, below) in map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        structural(&format!("{at}.{name}"), below, outside);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(below) = map.get(keyword) {
            structural(&format!("{at}.{keyword}"), below, outside);
        }
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for below in map.get(keyword).and_then(Value::as_array).into_iter().flatten() {
            structural(&format!("{at}.{keyword}"), below, false);
        }
    }
    if let Some(below) = map.get("not") {
        structural(&format!("{at}.not"), below, false);
    }
}

const KEYWORDS: &str = "allOf additionalProperties anyOf default description enum format items maxItems \
    maxLength maxProperties maximum minItems minLength minProperties minimum not oneOf pattern properties \
    required type x-kubernetes-list-map-keys x-kubernetes-list-type \
    x-kubernetes-preserve-unknown-fields x-kubernetes-validations";

fn keywords(at: &str, schema: &Value, outside: bool) {
    let map = schema
        .as_object()
        .unwrap_or_else(|| panic!("{at}: a schema is an object, not {schema}"));
    for keyword in map.keys() {
        let known = KEYWORDS.split(' ').any(|known| known == keyword);
        assert!(known, "{at}: {keyword} is not a keyword of a structural schema");
    }
    if outside {
        assert!(map.contains_key("type"), "{at}: type is missing");
        for field in map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let known = !schema["properties"][field.as_str().unwrap()].is_null();
            assert!(known, "{at}: {field} is required but not described");
        }
    } else {
        for keyword in ["type", "description", "default", "additionalProperties"] {
            assert!(
                !map.contains_key(keyword),
                "{at}: {keyword} within allOf, anyOf, oneOf or not"
            );
        }
    }
    let both = map.contains_key("properties") && map.contains_key("additionalProperties");
    assert!(
        !both,
        "{at}: properties and additionalProperties exclude each other"
    );
    if let Some(format) = map.get("format") {
        let formats = ["int32", "int64", "double", "byte", "date-time"];
        assert!(
            formats.contains(&format.as_str().unwrap()),
            "{at}: format {format}"
        );
    }
}

/// The API server estimates what a rule may cost: its own cost, times every list it stands below. It refuses
/// a definition with a rule above ten million. Without bounds on those lists, any rule is.
#[test]
fn rules_stand_below_bounded_lists_only() {
    for (kind, schema) in schemas() {
        rule_cost(&kind, &schema, 1);
    }
}

fn rule_cost(at: &str, schema: &Value, times: u64) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        // Every operator and call costs about one, and those within a macro over a list cost that for
        // each element; the lists our macros go over are bounded by 256 at most.
        let text = rule["rule"].as_str().unwrap();
        // What walks through a text costs as much as the text is long, and keys have no bound.
        for call in [".matches(", ".contains(", ".startsWith("] {
            assert!(!text.contains(call), "{at}: {call} in {text}");
        }
        let simple = text.matches(['(', '.', '&', '|', '>', '=']).count() as u64;
        let each = if text.contains(".exists(") {
            32
        } else if text.contains(".all(") {
            256
        } else {
            1
        };
        let cost = simple * each * times;
        assert!(cost < 10_000_000, "{at}: a rule may cost {cost}: {text}");
        assert!(
            !rule["message"].as_str().unwrap().is_empty(),
            "{at}: a rule without a message"
        );
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        rule_cost(&format!("{at}.{name}"), below, times);
    }
    if let Some(below) = schema.get("items") {
        let max = schema["maxItems"].as_u64().unwrap_or(1_000_000);
        rule_cost(&format!("{at}[]"), below, times.saturating_mul(max));
    }
    if let Some(below) = schema.get("additionalProperties") {
        let max = schema["maxProperties"].as_u64().unwrap_or(1_000_000);
        rule_cost(&format!("{at}{{}}"), below, times.saturating_mul(max));
    }
}

//! Values, their schema and their page in the guide are of one mind.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{hold, read};

const VALUES: &str = "charts/hauberk/values.yaml";
const SCHEMA: &str = "charts/hauberk/values.schema.json";
const GUIDE: &str = "docs/guide/install.md";
const BEGIN: &str = "<!-- values: made from charts/hauberk/values.yaml -->\n";
const END: &str = "<!-- end of values -->\n";

/// What is written above each key of `values.yaml`, by the key's path, in order.
fn comments() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    for line in read(VALUES).lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(words) = text.strip_prefix("# ") {
            comment.push(words.to_owned());
        } else if let Some((key, _)) = text.split_once(':') {
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key.to_owned()));
            let names: Vec<_> = path.iter().map(|(_, name)| name.as_str()).collect();
            found.push((names.join("."), comment.join(" ")));
            comment.clear();
        } else {
            assert!(text.is_empty(), "{VALUES}: neither a comment nor a key: {line}");
            comment.clear();
        }
    }
    found
}

fn values() -> Value {
    serde_saphyr::from_str(&read(VALUES)).unwrap()
}

/// Each value that the schema does not take apart any further, by its path; what is written in both must agree.
fn leaves(at: &str, schema: &Value, value: &Value, found: &mut BTreeMap<String, Value>) {
    let Some(properties) = schema.get("properties") else {
        found.insert(at.to_owned(), value.clone());
        return;
    };
    assert_eq!(
        schema["additionalProperties"], false,
        "{SCHEMA}: {at}: other keys must be refused"
    );
    let (properties, value) = (properties.as_object().unwrap(), value.as_object().unwrap());
    for (key, schema) in properties {
        // Helm's own, for parents of charts.
        if at.is_empty() && key == "global" {
            continue;
        }
        let path = if at.is_empty() {
            key.clone()
        } else {
            format!("{at}.{key}")
        };
        let value = value.get(key);
        let value = value.unwrap_or_else(|| panic!("{VALUES} has no {path}, which the schema has"));
        leaves(&path, schema, value, found);
    }
    for key in value.keys() {
        assert!(
            properties.contains_key(key),
            "{SCHEMA} has no {at}.{key}, which the values have"
        );
    }
}

fn all() -> Vec<(String, String, Value)> {
    let schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let mut leaves_of = BTreeMap::new();
    leaves("", &schema, &values(), &mut leaves_of);
    let mut found = Vec::new();
    for (path, comment) in comments() {
        if let Some(value) = leaves_of.remove(&path) {
            assert!(
                !comment.is_empty(),
                "{VALUES}: {path}: a comment above it must say what it is for"
            );
            found.push((path, comment, value));
        }
    }
    assert!(
        leaves_of.is_empty(),
        "{VALUES}: not found line by line: {leaves_of:?}"
    );
    found
}

fn describe(schema: &mut Value, path: &str, comment: &str) {
    let mut at = schema;
    for key in path.split('.') {
        at = &mut at["properties"][key];
    }
    let map: &mut Map<String, Value> = at.as_object_mut().unwrap();
    map.insert("description".to_owned(), comment.into());
}

#[test]
fn every_value_is_typed_and_documented_in_schema_and_guide() {
    let all = all();
    let mut schema: Value = serde_json::from_str(&read(SCHEMA)).unwrap();
    let mut table = String::from("| Value | Default | Meaning |\n|---|---|---|\n");
    for (path, comment, value) in &all {
        describe(&mut schema, path, comment);
        let comment = comment.replace('|', "\\|");
        table.push_str(&format!("| `{path}` | `{value}` | {comment} |\n"));
    }
    hold(
        SCHEMA,
        &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()),
    );
    let guide = read(GUIDE);
    let (before, rest) = guide
        .split_once(BEGIN)
        .expect("the guide has a place for the table");
    let (_, after) = rest.split_once(END).expect("the table has an end");
    hold(GUIDE, &format!("{before}{BEGIN}\n{table}\n{END}{after}"));
}

#[test]
fn every_value_is_used_by_a_template() {
    let mut templates = String::new();
    for entry in std::fs::read_dir(crate::root().join("charts/hauberk/templates")).unwrap() {
        templates.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    // These are handed on whole.
    for (path, ..) in all() {
        let path = match path.split('.').collect::<Vec<_>>().as_slice() {
            ["injection", "proxy", ..] => ".Values.injection.proxy".to_owned(),
            ["image", image @ ("controlPlane" | "proxy"), _] => format!(".Values.image.{image}"),
            _ => format!(".Values.{path}"),
        };
        assert!(templates.contains(&path), "no template reads {path}");
    }
}

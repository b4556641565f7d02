//! Every file of `crds/examples/`: those in `valid` read and check clean, those in `invalid` give the error
//! that their comments name.

use std::{fs, path::PathBuf};

use crds::{Finding, Object, check};

/// The YAML files of a folder of examples, by name.
fn files(folder: &str) -> Vec<(String, String)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(name.ends_with(".yaml"), "{name} is not a .yaml file");
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

pub(crate) fn findings(object: &Object) -> Vec<Finding> {
    match object {
        Object::VirtualService(object) => check::virtual_service(object),
        Object::DestinationRule(object) => check::destination_rule(object),
        Object::PeerAuthentication(object) => check::peer_authentication(object),
        Object::Service(_) | Object::Pod(_) | Object::Namespace(_) | Object::EndpointSlice(_) => Vec::new(),
    }
}

/// Everything there is to say about a text.
fn complaints(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for result in crds::parse(text) {
        match result {
            Ok(object) => {
                complaints.extend(
                    findings(&object)
                        .iter()
                        .map(|finding| format!("{}: {finding}", object.key())),
                );
            }
            Err(error) => complaints.push(error.to_string()),
        }
    }
    complaints
}

#[test]
fn the_split_of_the_readme_has_nothing_wrong_with_it() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/split.yaml");
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(crds::parse(&text).len(), 2);
    assert_eq!(complaints(&text), Vec::<String>::new());
}

#[test]
fn valid_examples_have_nothing_wrong_with_them() {
    let files = files("valid");
    assert!(files.len() >= 10, "{} files", files.len());
    for (name, text) in files {
        assert!(!crds::parse(&text).is_empty(), "{name} holds no object");
        assert_eq!(complaints(&text), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn invalid_examples_give_the_errors_they_expect() {
    let files = files("invalid");
    assert!(files.len() >= 25, "{} files", files.len());
    for (name, text) in files {
        let expected: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# expect: "))
            .collect();
        assert!(!expected.is_empty(), "{name} expects nothing");
        let complaints = complaints(&text);
        for expected in &expected {
            let met = complaints.iter().any(|complaint| complaint.contains(expected));
            assert!(met, "{name}: expected {expected:?} in {complaints:#?}");
        }
        assert_eq!(
            complaints.len(),
            expected.len(),
            "{name} gives more than it expects: {complaints:#?}"
        );
    }
}

#[test]
fn examples_read_back_as_they_are_written() {
    for (name, text) in files("valid") {
        for object in crds::parse(&text) {
            let object = object.unwrap();
            let text = match &object {
                Object::VirtualService(object) => serde_saphyr::to_string(object),
                Object::DestinationRule(object) => serde_saphyr::to_string(object),
                Object::PeerAuthentication(object) => serde_saphyr::to_string(object),
                Object::Service(object) => serde_saphyr::to_string(object),
                Object::Pod(object) => serde_saphyr::to_string(object),
                Object::Namespace(object) => serde_saphyr::to_string(object),
                Object::EndpointSlice(object) => serde_saphyr::to_string(object),
            };
            assert_eq!(crds::parse(&text.unwrap()), [Ok(object)], "{name}");
        }
    }
}

#[test]
fn the_guide_shows_what_works() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/resources.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks: Vec<_> = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() >= 3, "{} blocks", blocks.len());
    for block in blocks {
        assert!(!crds::parse(block).is_empty(), "{block}");
        assert_eq!(complaints(block), Vec::<String>::new(), "{block}");
    }
}

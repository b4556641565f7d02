//! Text in, objects or errors out: what stands where, what it is called, what to do about it.

use crds::{Kind, Object, ParseError};

fn errors(text: &str) -> Vec<ParseError> {
    crds::parse(text).into_iter().filter_map(Result::err).collect()
}

fn keys(text: &str) -> Vec<String> {
    crds::parse(text)
        .into_iter()
        .filter_map(Result::ok)
        .map(|object| object.key().to_string())
        .collect()
}

/// Field, message and line of the only error.
fn error(text: &str) -> (String, String, u64) {
    match errors(text).as_slice() {
        [error] => {
            let ParseError {
                field, message, line, ..
            } = error.clone();
            (field.unwrap_or_default(), message, line.unwrap_or_default())
        }
        other => panic!("{other:#?}"),
    }
}

const RULE: &str = "apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
  - route:
    - destination:
        host: reviews
      weight: 1
";

#[test]
fn broken_documents_do_not_hide_the_others() {
    let text = format!(
        "{RULE}---\nkind: [broken\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\nfoo: bar\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: b, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n"
    );
    assert_eq!(
        keys(&text),
        [
            "VirtualService default/reviews",
            "Namespace shop",
            "Service shop/b"
        ]
    );
    let errors = errors(&text);
    let places: Vec<_> = errors.iter().map(|error| (error.document, error.line)).collect();
    assert_eq!(places[0].0, 2);
    assert!((12..=14).contains(&places[0].1.unwrap()), "{errors:#?}");
    assert_eq!(places[1], (4, Some(19)));
    assert!(
        errors[1]
            .to_string()
            .starts_with("document 4, line 19, column 1: kind: is required"),
        "{}",
        errors[1]
    );
}

#[test]
fn every_kind_of_the_mesh_is_read_and_service_accounts_are_passed_over() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop}, spec: {clusterIP: 10.0.0.1}}
- {apiVersion: v1, kind: Pod, metadata: {name: a-1, namespace: shop}}
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: a}}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: a-x, namespace: shop}
  addressType: IPv4
  endpoints: [{addresses: [10.0.0.2]}]
- {apiVersion: hauberk.dev/v1alpha1, kind: DestinationRule, metadata: {name: a}, spec: {host: a}}
- {apiVersion: hauberk.dev/v1alpha1, kind: PeerAuthentication, metadata: {name: a}, spec: {mtls: {mode: STRICT}}}
";
    assert_eq!(errors(text), []);
    let objects: Vec<_> = crds::parse(text).into_iter().map(Result::unwrap).collect();
    let kinds: Vec<_> = objects.iter().map(|object| object.key().kind).collect();
    let expected = [
        Kind::Service,
        Kind::Pod,
        Kind::Namespace,
        Kind::EndpointSlice,
        Kind::DestinationRule,
        Kind::PeerAuthentication,
    ];
    assert_eq!(kinds, expected);
    let Object::EndpointSlice(slice) = &objects[3] else {
        panic!("{:?}", objects[3])
    };
    assert_eq!(slice.endpoints.as_slice()[0].addresses, ["10.0.0.2"]);
    assert_eq!(objects[5].metadata().namespace.as_deref(), Some("default"));
}

#[test]
fn an_unknown_field_is_named_with_its_path_place_and_likely_meaning() {
    for (from, to, field, message, line) in [
        (
            "weight:",
            "wieght:",
            "spec.http[0].route[0].wieght",
            "did you mean `weight`?",
            11,
        ),
        (
            "host: reviews",
            "host: reviews\n        Subset: v1",
            "spec.http[0].route[0].destination.Subset",
            "did you mean `subset`?",
            11,
        ),
        (
            "- route:",
            "- banana: 1\n    route:",
            "spec.http[0].banana",
            "known here: corsPolicy, delegate",
            8,
        ),
        (
            "  name: reviews",
            "  name: reviews\n  lables: {a: b}",
            "metadata.lables",
            "did you mean `labels`?",
            5,
        ),
        ("spec:", "sepc: {}\nspec:", "sepc", "did you mean `spec`?", 5),
    ] {
        let found = error(&RULE.replacen(from, to, 1));
        assert_eq!((found.0.as_str(), found.2), (field, line), "{found:?}");
        assert!(found.1.contains(message), "{found:?}");
    }
}

#[test]
fn several_unknown_fields_are_told_in_one_error() {
    let (field, message, _) = error(&RULE.replace("weight:", "wait: 1\n      heavy:"));
    assert!(
        field.ends_with("route[0].heavy") || field.ends_with("route[0].wait"),
        "{field}"
    );
    assert!(
        message.contains("1 more in VirtualService reviews: spec.http[0].route[0]."),
        "{message}"
    );
}

/// What is replaced in [`RULE`], by what; the field that is named for it, and what is said.
const MISFITS: &[(&str, &str, &str, &str)] = &[
    (
        "weight: 1",
        "weight: heavy",
        "spec.http[0].route[0].weight",
        "must be a whole number from -2147483648",
    ),
    (
        "weight: 1",
        "weight: 1.5",
        "spec.http[0].route[0].weight",
        "not floating point `1.5`",
    ),
    (
        "host: reviews",
        "host: 5",
        "spec.http[0].route[0].destination.host",
        "put it in quotes",
    ),
    (
        "        host: reviews",
        "        subset: a",
        "spec.http[0].route[0].destination.host",
        "is required",
    ),
    (
        "- route:",
        "- timeout: 5\n    route:",
        "spec.http[0].timeout",
        "a duration with a unit",
    ),
    (
        "- route:",
        "- timeout: 5d\n    route:",
        "spec.http[0].timeout",
        "its unit is unknown",
    ),
    (
        "- route:",
        "- timeout:\n    route:",
        "spec.http[0].timeout",
        "has no value",
    ),
    (
        "hosts: [reviews]",
        "hosts: reviews",
        "spec.hosts",
        "must be a list",
    ),
    (
        "hosts: [reviews]",
        "hosts: [reviews, ~]",
        "spec.hosts[1]",
        "has no value",
    ),
    (
        "  name: reviews",
        "  namespace: x",
        "metadata.name",
        "is required",
    ),
    (
        "  name: reviews",
        "  name: Reviews!",
        "metadata.name",
        "is no name",
    ),
    (
        "  name: reviews",
        "  name: 5",
        "metadata.name",
        "must be a string",
    ),
    (
        "  name: reviews",
        "  name: a\n  namespace: a.b",
        "metadata.namespace",
        "is no namespace",
    ),
    (
        "kind: VirtualService",
        "kind: VirtualServise",
        "kind",
        "did you mean `VirtualService`?",
    ),
    (
        "kind: VirtualService",
        "kind: Deployment",
        "kind",
        "the kind `Deployment` is not known here",
    ),
    (
        "hauberk.dev/v1alpha1",
        "networking.istio.io/v1",
        "apiVersion",
        "the fields may stay as they are",
    ),
    (
        "hauberk.dev/v1alpha1",
        "hauberk.dev/v2",
        "apiVersion",
        "is read at `hauberk.dev/v1alpha1`",
    ),
];

#[test]
fn a_value_that_does_not_fit_is_told_with_what_would() {
    for (from, to, field, message) in MISFITS {
        let found = error(&RULE.replacen(from, to, 1));
        assert_eq!(found.0, *field, "{found:?}");
        assert!(found.1.contains(*message), "{found:?}");
        assert!(found.2 > 0, "{found:?}");
    }
}

#[test]
fn a_key_written_twice_is_refused() {
    let errors = errors(&RULE.replace("weight: 1", "weight: 1\n      weight: 2"));
    assert_eq!(errors[0].line, Some(12), "{errors:#?}");
    assert!(errors[0].message.contains("weight"), "{errors:#?}");
}

#[test]
fn unknown_fields_of_kubernetes_own_kinds_are_left_alone() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, futureField: 1}\nspec: {futureField: 2}\n";
    assert_eq!(keys(text), ["Service default/a"]);
}

#[test]
fn json_is_yaml_too() {
    let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"b"}}"#;
    assert_eq!(keys(text), ["Pod b/a"]);
}

#[test]
fn what_kubectl_prints_reads_back() {
    let text = format!(
        "{}status:\n  observedGeneration: 3\n  appliedBy: 2\n  conditions:\n  - type: Accepted\n    \
         status: \"True\"\n    reason: Valid\n    message: \"\"\n    lastTransitionTime: \"2026-01-01T00:00:00Z\"\n",
        RULE.replace(
            "  name: reviews\n",
            "  name: reviews\n  uid: abc\n  resourceVersion: \"5\"\n  generation: 3\n  creationTimestamp: \"2026-01-01T00:00:00Z\"\n"
        )
    );
    assert_eq!(errors(&text), []);
    let Some(Ok(Object::VirtualService(object))) = crds::parse(&text).pop() else {
        panic!("{text}")
    };
    let status = object.status.unwrap();
    let accepted = status.condition(crds::status::ACCEPTED).unwrap();
    assert_eq!((accepted.status.as_str(), status.applied_by), ("True", Some(2)));
}

#[test]
fn a_status_of_another_version_is_in_nobodys_way() {
    for (status, expected) in [
        ("{observedGeneration: 3, hue: red}", Some(3)),
        ("{observedGeneration: three}", None),
        ("dead", None),
    ] {
        let Some(Ok(Object::VirtualService(object))) =
            crds::parse(&format!("{RULE}status: {status}\n")).pop()
        else {
            panic!("{status}")
        };
        let found = object
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        assert_eq!(found, expected, "{status}");
    }
}

#[test]
fn an_error_is_one_printable_line() {
    for text in [
        "kind: \"a\\nb\\u001b[31m\"\napiVersion: v1\nmetadata: {name: a}",
        "\u{1}",
        "a: \u{7}",
        "? [a\n: b",
    ] {
        for error in errors(text) {
            assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
        }
    }
}

#[test]
fn an_object_that_a_server_serves_is_read_with_the_same_checks() {
    use crds::{Kind, parse::served};
    let read = |kind, text: &str| served(kind, serde_json::from_str(text).unwrap());
    let service = read(
        Kind::Service,
        r#"{"metadata": {"name": "a", "namespace": "b"}, "spec": {"new": 1}}"#,
    );
    assert_eq!(service.unwrap().key().to_string(), "Service b/a");
    for (kind, text, field, says) in [
        (
            Kind::DestinationRule,
            r#"{"metadata": {"name": "a"}, "spec": {"host": 5}}"#,
            "spec.host",
            "must be a string",
        ),
        (
            Kind::DestinationRule,
            r#"{"metadata": {"name": "a"}, "spec": "x"}"#,
            "spec",
            "must be an object",
        ),
        (
            Kind::VirtualService,
            r#"{"metadata": {"name": "a"}, "spec": {"hosts": ["a"], "htp": []}}"#,
            "spec.htp",
            "did you mean `http`?",
        ),
        (
            Kind::Pod,
            r#"{"metadata": {"name": "a"}, "spec": {"containers": 5}}"#,
            "spec.containers",
            "must be a list",
        ),
    ] {
        let error = read(kind, text).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field), "{error:?}");
        assert!(error.message.contains(says), "{error:?}");
    }
    assert_eq!(read(Kind::Pod, "[]").unwrap_err().field, None);
}

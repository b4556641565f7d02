use super::*;

const REVIEWS: &str = "\
# who owns this
apiVersion: networking.istio.io/v1beta1 # the old one
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - retries: {attempts: 2, retryOn: \"503\"}
    route: [{destination: {host: reviews}}]
";

fn convert(text: &str) -> Converted {
    Converter::default().convert(text).unwrap()
}

/// The notes as `becomes field`, and their messages.
fn notes(text: &str) -> Vec<(Becomes, String, String)> {
    let notes = convert(text).notes;
    notes
        .into_iter()
        .map(|n| (n.becomes, n.field, n.message))
        .collect()
}

/// A VirtualService of Istio's with these rules.
fn service(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{hosts: [reviews], http: [{rules}]}}\n"
    )
}

/// A DestinationRule of Istio's with this policy.
fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\nmetadata: {{name: a, namespace: shop}}\n\
         spec: {{host: a, trafficPolicy: {{{policy}}}}}\n"
    )
}

#[test]
fn only_the_api_version_changes_whatever_stands_around_it() {
    let other = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}  # mine\n...\n";
    let text = format!("\u{feff}{other}---\n{REVIEWS}---\r\n# nothing\r\n");
    let converted = convert(&text);
    assert_eq!(
        converted.text,
        text.replace("networking.istio.io/v1beta1", "hauberk.dev/v1alpha1")
    );
    assert_eq!((converted.objects, converted.notes), (1, vec![]));
}

#[test]
fn what_comes_out_is_read_here_and_converting_it_again_changes_nothing() {
    for text in [REVIEWS.to_owned(), rule("loadBalancer: {simple: RANDOM}")] {
        let once = convert(&text);
        assert!(crate::parse(&once.text)[0].is_ok(), "{}", once.text);
        let again = convert(&once.text);
        assert_eq!((&again.text, again.objects), (&once.text, 0));
    }
}

#[test]
fn quotes_json_lists_and_every_version_are_fine() {
    for (text, count) in [
        (REVIEWS.replace("networking.istio.io/v1beta1", "'networking.istio.io/v1'"), 1),
        (REVIEWS.replace("networking.istio.io/v1beta1", "\"networking.istio.io/v1alpha3\""), 1),
        (
            r#"{"kind": "PeerAuthentication", "metadata": {"name": "a", "namespace": "b"}, "spec": {"mtls": {"mode": "STRICT"}},
                "apiVersion": "security.istio.io/v1"}"#
                .to_owned(),
            1,
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a, annotations: {b: ä}}}\n\
             - apiVersion: networking.istio.io/v1\n  kind: DestinationRule\n  metadata: {name: a}\n  spec: {host: a}\n\
             - apiVersion: &v security.istio.io/v1beta1\n  kind: PeerAuthentication\n  metadata: {name: a}\n  spec: {}\n"
                .to_owned(),
            2,
        ),
    ] {
        let converted = convert(&text);
        assert_eq!((converted.objects, &converted.notes), (count, &vec![]), "{text}");
        assert!(!converted.text.contains("istio"), "{}", converted.text);
        assert!(crate::parse(&converted.text).iter().all(Result::is_ok), "{}", converted.text);
    }
}

#[test]
fn what_an_alias_writes_elsewhere_is_named_and_left() {
    let text = "x: &v networking.istio.io/v1\napiVersion: *v\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a}\n";
    let converted = convert(text);
    assert_eq!((converted.text.as_str(), converted.objects), (text, 0));
    assert_eq!(converted.notes[0].becomes, Becomes::Refused);
    assert!(
        converted.notes[0].message.contains("alias"),
        "{:?}",
        converted.notes
    );
}

#[test]
fn what_is_refused_or_means_something_else_is_named_with_its_field() {
    let to = "route: [{destination: {host: reviews}}]";
    let kept = "retries: {attempts: 0}";
    for (text, becomes, field, says) in [
        (
            service("a", &format!("{{match: [{{statPrefix: x}}], {to}}}")),
            Becomes::Refused,
            "spec.http[0].match[0].statPrefix",
            "not supported",
        ),
        (
            service("a", &format!("{{{to}, {kept}, wieght: 1}}")),
            Becomes::Refused,
            "spec.http[0].wieght",
            "unknown",
        ),
        (service("a", &format!("{{{to}}}")), Becomes::Different, "spec.http[0].retries", "503"),
        (
            service("a", &format!("{{{to}, retries: {{attempts: 3}}}}")),
            Becomes::Different,
            "spec.http[0].retries",
            "retryOn",
        ),
        (
            service("a", &format!("{{{to}, {kept}}}, {{match: [{{uri: {{exact: /}}}}], {to}, {kept}}}")),
            Becomes::Doubtful,
            "spec.http[1]",
            "never reached",
        ),
        (
            service(
                "a",
                &format!("{{{to}, {kept}, timeout: 1s, fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 1}}}}}}}}"),
            ),
            Becomes::Different,
            "spec.http[0].timeout",
            "delay counts",
        ),
        (
            rule("outlierDetection: {consecutive5xxErrors: 3}"),
            Becomes::Different,
            "spec.trafficPolicy.outlierDetection",
            "localityLbSetting: {}",
        ),
        (
            rule("portLevelSettings: [{port: {number: 80}, outlierDetection: {interval: 5s}}]"),
            Becomes::Different,
            "spec.trafficPolicy.portLevelSettings[0].outlierDetection.interval",
            "forgotten",
        ),
        (
            rule("connectionPool: {http: {maxRetries: 3}}"),
            Becomes::Different,
            "spec.trafficPolicy.connectionPool.http.maxRetries",
            "budget",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\n\
             spec: {mtls: {mode: STRICT}}\n"
                .to_owned(),
            Becomes::Different,
            "metadata.namespace",
            "hauberk-system",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n".to_owned(),
            Becomes::Absent,
            "",
            "ALLOWED",
        ),
    ] {
        let found = notes(&text);
        assert!(
            found.iter().any(|(b, f, m)| *b == becomes && f == field && m.contains(says)),
            "{text}{found:#?}"
        );
    }
}

#[test]
fn a_policy_that_means_something_else_is_named_with_its_field() {
    let selecting = rule("").replace("host: a", "host: a, workloadSelector: {matchLabels: {app: a}}");
    for (text, field, says) in [
        (
            rule("connectionPool: {tcp: {maxConnections: 3}}"),
            "spec.trafficPolicy.connectionPool.tcp.maxConnections",
            "never exceeded",
        ),
        (
            rule("tls: {mode: SIMPLE, sni: a.test}"),
            "spec.trafficPolicy.tls.sni",
            "subjectAltNames",
        ),
        (selecting, "spec.workloadSelector", "next namespace"),
    ] {
        let found = notes(&text);
        assert!(
            found
                .iter()
                .any(|(b, f, m)| *b == Becomes::Different && f == field && m.contains(says)),
            "{text}{found:#?}"
        );
    }
}

#[test]
fn what_is_the_same_has_no_note() {
    let policy =
        "loadBalancer: {consistentHash: {useSourceIp: true}}, connectionPool: {tcp: {connectTimeout: 3s}}";
    for text in [
        rule(policy),
        rule("loadBalancer: {localityLbSetting: {}}, outlierDetection: {}"),
        rule("tls: {mode: SIMPLE, sni: a.test, subjectAltNames: [b.test]}"),
        service("a", "{redirect: {uri: /b}}"),
        service("a", "{retries: {attempts: 0}, route: [{destination: {host: a}}]}"),
        "kind: nothing\n".to_owned(),
        "just text\n".to_owned(),
        String::new(),
    ] {
        assert_eq!(notes(&text), vec![], "{text}");
    }
}

#[test]
fn a_host_that_two_objects_claim_is_named_over_all_texts() {
    let own = |name| service(name, "{redirect: {uri: /b}}");
    let mut converter = Converter::default();
    assert_eq!(converter.convert(&own("a")).unwrap().notes, vec![]);
    let other = own("b").replace("[reviews]", "[ratings, reviews.shop.svc.cluster.local]");
    let notes = converter.convert(&other).unwrap().notes;
    assert_eq!((notes.len(), notes[0].field.as_str()), (1, "spec.hosts[1]"));
    assert!(notes[0].message.contains("VirtualService shop/a"), "{notes:?}");
    // The same object again, and the same name in another namespace, claim nothing new.
    assert_eq!(converter.convert(&own("a")).unwrap().notes, vec![]);
    let elsewhere = own("c").replace("namespace: shop", "namespace: bank");
    assert_eq!(converter.convert(&elsewhere).unwrap().notes, vec![]);
}

#[test]
fn labels_and_annotations_are_named_where_pods_have_them() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {app: web, istio.io/rev: x}}\nspec:\n  \
                template:\n    metadata:\n      annotations: {sidecar.istio.io/inject: \"false\", example.com/istio.io: x}\n---\n\
                apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}\n";
    let found = notes(text);
    let fields: Vec<_> = found
        .iter()
        .map(|(becomes, field, _)| (*becomes, field.as_str()))
        .collect();
    assert_eq!(
        fields,
        [
            (Becomes::Absent, "metadata.labels[\"istio.io/rev\"]"),
            (
                Becomes::Different,
                "spec.template.metadata.annotations[\"sidecar.istio.io/inject\"]"
            ),
            (Becomes::Different, "metadata.labels.istio-injection"),
        ]
    );
    assert!(found[1].2.contains("hauberk.dev/inject"), "{found:?}");
    assert_eq!(convert(text).text, text);
}

#[test]
fn a_text_that_is_not_yaml_is_not_converted_at_all() {
    let errors = Converter::default()
        .convert(&format!("{REVIEWS}---\na: [\n"))
        .unwrap_err();
    assert_eq!((errors.len(), errors[0].document), (1, 2));
}

#[test]
fn a_note_says_where_who_what_and_why() {
    let text = format!(
        "{REVIEWS}---\n{}",
        service("a", "{match: [{statPrefix: b}], redirect: {uri: /}}").replace("[reviews]", "[ratings]")
    );
    let note = &convert(&text).notes[0];
    let shown = note.to_string();
    assert!(
        shown.starts_with(
            "line 11: VirtualService shop/a: spec.http[0].match[0].statPrefix: refused: not supported"
        ),
        "{shown}"
    );
}

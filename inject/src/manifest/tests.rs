use super::*;
use crate::decide::Reason;

fn injected(text: &str) -> (String, Vec<String>) {
    let (out, notes) = manifest(text, &Config::default()).unwrap();
    (out, notes.iter().map(ToString::to_string).collect())
}

fn refused(text: &str) -> Vec<String> {
    let errors = manifest(text, &Config::default()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn documents(text: &str) -> Vec<Value> {
    split::documents(text)
        .iter()
        .map(|d| read(d.text).unwrap_or(Node::Leaf(Value::Null)).to_value())
        .collect()
}

const POD: &str = "{containers: [{name: app, image: app}]}";

#[test]
fn whatever_makes_pods_gets_them_with_a_proxy() {
    for (version, kind, spec, pointer) in [
        ("v1", "Pod", POD.to_owned(), ""),
        (
            "v1",
            "ReplicationController",
            format!("{{template: {{spec: {POD}}}}}"),
            "/spec/template",
        ),
        (
            "apps/v1",
            "Deployment",
            format!("{{template: {{spec: {POD}}}}}"),
            "/spec/template",
        ),
        (
            "apps/v1",
            "StatefulSet",
            format!("{{template: {{metadata: null, spec: {POD}}}}}"),
            "/spec/template",
        ),
        (
            "apps/v1",
            "DaemonSet",
            format!("{{template: {{metadata: {{labels: {{a: b}}}}, spec: {POD}}}}}"),
            "/spec/template",
        ),
        (
            "apps/v1",
            "ReplicaSet",
            format!("{{template: {{spec: {POD}}}}}"),
            "/spec/template",
        ),
        (
            "batch/v1",
            "Job",
            format!("{{template: {{spec: {POD}}}}}"),
            "/spec/template",
        ),
        (
            "batch/v1",
            "CronJob",
            format!("{{jobTemplate: {{spec: {{template: {{spec: {POD}}}}}}}}}"),
            "/spec/jobTemplate/spec/template",
        ),
    ] {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web}}\nspec: {spec}\n");
        let (out, notes) = injected(&text);
        assert_eq!(notes, [format!("{kind} web: gets a proxy.")]);
        let documents = documents(&out);
        let pod = documents[0].pointer(pointer).unwrap();
        assert_eq!(
            pod.pointer("/metadata/labels/hauberk.dev~1injected"),
            Some(&json!("true")),
            "{out}"
        );
        assert_eq!(
            pod.pointer("/spec/containers/0/name"),
            Some(&json!("hauberk-proxy")),
            "{out}"
        );
        // Once more changes nothing, and is then not even written anew.
        assert_eq!(injected(&out).0, out);
    }
}

#[test]
fn everything_else_passes_through_byte_for_byte() {
    let other = "# a comment\n---\napiVersion: v1\nkind: Service   # another\nmetadata: {name:   'web'}\n---\n\
                 apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nspec: {template: {spec: {}}}\n--- # empty\n---\n[1, 2]\n";
    assert_eq!(injected(other), (other.to_owned(), vec![]));
    let pod = format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {POD}\n");
    let (out, _) = injected(&format!("{other}{pod}"));
    assert!(out.starts_with(other), "{out}");
    assert!(out.len() > other.len() + pod.len());
}

#[test]
fn keys_stay_in_order_and_unknown_fields_stay() {
    let text = "kind: Deployment\napiVersion: apps/v1\nmetadata:\n  name: web\nspec:\n  zebra: 1\n  template:\n    spec:\n      \
                fromTheFuture: {b: 1, a: 2}\n      containers:\n      - image: app\n        name: app\n        alsoNew: yes\n        \
                volumeMounts:\n        - {name: v, mountPath: /v}\n      volumes:\n      - name: v\n        \
                secret: {secretName: s, defaultMode: 0640}\n";
    let (out, _) = injected(text);
    let place = |needle: &str| out.find(needle).unwrap_or_else(|| panic!("{needle}: {out}"));
    for pair in [
        "kind: Deployment",
        "apiVersion:",
        "zebra: 1",
        "fromTheFuture:",
        "b: 1",
        "a: 2",
        "containers:",
        "name: hauberk-proxy",
        "image: app",
        "name: app",
        "alsoNew:",
    ]
    .windows(2)
    {
        assert!(place(pair[0]) < place(pair[1]), "{pair:?}: {out}");
    }
    // Octal, as kubectl reads it.
    assert!(out.contains("defaultMode: 416"), "{out}");
}

#[test]
fn what_objects_or_cannot_have_a_proxy_is_noted_and_left() {
    let pod = |extra: &str, spec: &str| {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p{extra}}}\nspec: {{containers: []{spec}}}\n")
    };
    for (text, reason) in [
        (
            pod(", labels: {hauberk.dev/inject: 'false'}", ""),
            Reason::PodSaysNo,
        ),
        (pod("", ", hostNetwork: true"), Reason::HostNetwork),
        (
            pod(", namespace: kube-system", ""),
            Reason::Namespace("kube-system".to_owned()),
        ),
    ] {
        let (out, notes) = manifest(&text, &Config::default()).unwrap();
        assert_eq!(out, text);
        assert_eq!(notes[0].decision, Decision::Skip(reason));
    }
}

#[test]
fn lists_are_gone_through() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Pod, metadata: {{generateName: a-}}, spec: {POD}}}\n\
         - {{apiVersion: v1, kind: Service}}\n- {{apiVersion: v1, kind: Pod, metadata: {{name: b, namespace: shop}}, spec: {POD}}}\n"
    );
    let (out, notes) = injected(&text);
    assert_eq!(notes, ["Pod a-…: gets a proxy.", "Pod shop/b: gets a proxy."]);
    assert_eq!(out.matches("- name: hauberk-proxy").count(), 2, "{out}");
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_everything_at_once() {
    let bad = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {template: {metadata: \
               {annotations: {hauberk.dev/log-level: loud}}, spec: {containers: []}}}\n";
    let told = refused(&format!(
        "a: 1\n---\n{bad}---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: j}}\nspec: {{}}\n---\na: b: c\n---\n\
         {{apiVersion: v1, kind: Pod, spec: {{containers: 3}}}}\n"
    ));
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(
        told[0].starts_with(
            "document 2 (line 3), Deployment shop/web: spec.template.metadata.annotations[hauberk.dev/log-level]: "
        ),
        "{told:#?}"
    );
    assert!(told[1].contains("Job j: spec.template is missing"), "{told:#?}");
    assert!(
        told[2].starts_with("document 4 (line 13): is not YAML"),
        "{told:#?}"
    );
    assert!(told[3].contains("Pod without a name: is not a pod"), "{told:#?}");
}

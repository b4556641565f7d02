//! What Helm renders: whole objects of the kinds they claim to be, with the names and ports of the code. Helm itself is
//! fetched once by `scripts/helm.sh`; where that cannot be, these tests fail and say so.

use std::collections::BTreeMap;
use std::process::Command;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::root;

const NAME: &str = api::names::OPERATOR;

fn helm(args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("sh");
    command.arg("scripts/helm.sh").args(args).current_dir(root());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

fn render(flags: &[&str]) -> Objects {
    let mut args = vec!["template", "hauberk", "charts/hauberk"];
    args.extend(flags);
    let text = helm(&args).unwrap_or_else(|e| panic!("helm {}: {e}", args.join(" ")));
    Objects::read(&text)
}

struct Objects(BTreeMap<(String, String), Value>);

impl Objects {
    fn read(text: &str) -> Self {
        let mut found = BTreeMap::new();
        for document in text.split("\n---\n") {
            let object: Option<Value> = serde_saphyr::from_str(document.trim_start_matches("---\n")).unwrap();
            let Some(object) = object.filter(Value::is_object) else {
                continue;
            };
            let key = (
                object["kind"].as_str().unwrap().to_owned(),
                object["metadata"]["name"].as_str().unwrap().to_owned(),
            );
            assert!(
                found.insert(key.clone(), object).is_none(),
                "{key:?} is there twice"
            );
        }
        Self(found)
    }

    #[track_caller]
    fn get(&self, kind: &str, name: &str) -> &Value {
        let found = self.0.get(&(kind.to_owned(), name.to_owned()));
        found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    fn has(&self, kind: &str, name: &str) -> bool {
        self.0.contains_key(&(kind.to_owned(), name.to_owned()))
    }

    /// Reads every object as its type and writes it again: nothing may get lost, as an API server would drop it.
    fn are_whole(&self) {
        for ((kind, name), object) in &self.0 {
            let again = match kind.as_str() {
                "Deployment" => again::<Deployment>(object),
                "ConfigMap" => again::<ConfigMap>(object),
                "Service" => again::<Service>(object),
                "ServiceAccount" => again::<ServiceAccount>(object),
                "NetworkPolicy" => again::<NetworkPolicy>(object),
                "PodDisruptionBudget" => again::<PodDisruptionBudget>(object),
                "ClusterRole" => again::<ClusterRole>(object),
                "ClusterRoleBinding" => again::<ClusterRoleBinding>(object),
                "Role" => again::<Role>(object),
                "RoleBinding" => again::<RoleBinding>(object),
                "MutatingWebhookConfiguration" => again::<MutatingWebhookConfiguration>(object),
                "ValidatingWebhookConfiguration" => again::<ValidatingWebhookConfiguration>(object),
                "CustomResourceDefinition" => again::<CustomResourceDefinition>(object),
                "PodMonitor" => object.clone(),
                other => panic!("{other}: name its type here"),
            };
            lost(&format!("{kind} {name}"), object, &again);
        }
    }
}

fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let mut object = object.clone();
    // The older version has the same fields.
    if object["kind"] == "PodDisruptionBudget" {
        object["apiVersion"] = "policy/v1".into();
    }
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{object}: {e}"));
    serde_json::to_value(typed).unwrap()
}

fn lost(at: &str, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let kept = after.get(key);
                // What is empty may be left out; the API version may be the older one.
                let empty = value.as_object().is_some_and(|m| m.is_empty())
                    || value.as_array().is_some_and(|l| l.is_empty());
                let version = key == "apiVersion";
                match kept {
                    _ if version => {}
                    Some(kept) => lost(&format!("{at}.{key}"), value, kept),
                    None => assert!(empty, "{at}.{key}: no such field"),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(before.len(), after.len(), "{at}");
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                lost(&format!("{at}[{i}]"), before, after);
            }
        }
        (before, after) => assert_eq!(before, after, "{at}"),
    }
}

/// The `name` of a list's entries with one of their other fields.
fn by_name<'a>(list: &'a Value, field: &str) -> BTreeMap<&'a str, &'a Value> {
    let list = list.as_array().unwrap();
    list.iter()
        .map(|e| (e["name"].as_str().unwrap(), &e[field]))
        .collect()
}

#[test]
fn lint_finds_nothing() {
    for chart in ["charts/hauberk-crds", "charts/hauberk"] {
        helm(&["lint", chart]).unwrap();
    }
}

#[test]
fn names_and_ports_are_those_of_the_code() {
    let objects = render(&[]);
    objects.are_whole();
    for kind in [
        "Deployment",
        "Service",
        "ServiceAccount",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ClusterRole",
        "Role",
        "ClusterRoleBinding",
        "RoleBinding",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ] {
        objects.get(kind, NAME);
    }
    let (grpc, admin, webhook) = (
        api::names::OPERATOR_PORT,
        api::names::ADMIN_PORT,
        api::names::WEBHOOK_PORT,
    );
    let pod = &objects.get("Deployment", NAME)["spec"]["template"]["spec"];
    let ports = by_name(&pod["containers"][0]["ports"], "containerPort");
    let service = objects.get("Service", NAME);
    let served = by_name(&service["spec"]["ports"], "port");
    let targets = by_name(&service["spec"]["ports"], "targetPort");
    for (name, port, at) in [
        ("grpc", grpc, grpc),
        ("admin", admin, admin),
        ("webhook", webhook, 443),
    ] {
        assert_eq!(ports[name], port, "{name}");
        assert_eq!(served[name], at, "{name}");
        assert_eq!(targets[name], name);
    }
    let open = &objects.get("NetworkPolicy", NAME)["spec"]["ingress"];
    let open: Vec<_> = open
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["ports"][0]["port"])
        .collect();
    assert_eq!(open, [grpc, webhook, admin]);
    for object in objects.0.values() {
        let namespace = &object["metadata"]["namespace"];
        assert!(namespace.is_null() || namespace == api::names::ROOT_NAMESPACE);
    }
}

#[test]
fn the_operator_runs_with_no_more_rights_than_a_restricted_pod() {
    let objects = render(&[]);
    let pod = &objects.get("Deployment", NAME)["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"][api::names::INJECT_SWITCH], "disabled");
    let spec = &pod["spec"];
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &spec["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"], serde_json::json!({ "drop": ["ALL"] }));
}

#[test]
fn a_webhook_that_is_down_holds_up_only_pods_that_ask_for_a_proxy() {
    // Who is asked, and what happens when nobody answers, by the version of the server.
    for (version, expected) in [
        (
            "v1.29.4",
            [("namespace", "Fail"), ("pod", "Fail"), ("annotation", "Ignore")],
        ),
        (
            "v1.30.0",
            [("namespace", "Fail"), ("pod", "Fail"), ("annotation", "Fail")],
        ),
    ] {
        let objects = render(&["--kubernetes", version]);
        objects.are_whole();
        let webhooks = &objects.get("MutatingWebhookConfiguration", NAME)["webhooks"];
        let policies = by_name(webhooks, "failurePolicy");
        let selected = by_name(webhooks, "matchConditions");
        for (name, policy) in expected {
            let name = format!("{name}.inject.hauberk.dev");
            assert_eq!(policies[name.as_str()], policy, "{name} of {version}");
            let narrowed = name.starts_with("annotation") && version == "v1.30.0";
            assert_eq!(
                selected[name.as_str()].is_array(),
                narrowed,
                "{name} of {version}"
            );
        }
        for webhook in webhooks.as_array().unwrap() {
            assert!(
                webhook["clientConfig"].get("caBundle").is_none(),
                "the operator's to write"
            );
            assert_eq!(webhook["sideEffects"], "None");
            let excluded = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
            for namespace in api::names::PLATFORM_NAMESPACES
                .iter()
                .chain([&api::names::ROOT_NAMESPACE])
            {
                assert!(
                    excluded.as_array().unwrap().contains(&(*namespace).into()),
                    "{namespace}"
                );
            }
        }
    }
}

#[test]
fn values_do_what_they_say() {
    let objects = render(&[
        "--set-json",
        "replicas=3",
        "--set-json",
        r#"image={"registry": "registry.example.com/mesh/", "pullSecrets": ["pull"], "proxy": {"tag": "next"}}"#,
        "--set-json",
        r#"image.controlPlane.digest="sha256:0000000000000000000000000000000000000000000000000000000000000001""#,
        "--set-json",
        r#"injection={"failurePolicy": "Ignore", "annotatedPods": false, "excludedNamespaces": ["legacy"]}"#,
        "--set-json",
        r#"injection.proxy={"skipOutboundPorts": "25", "accessLog": "json"}"#,
        "--set-json",
        r#"metrics={"annotations": false, "service": {"enabled": true}, "podMonitor": {"enabled": true}}"#,
        "--set-json",
        r#"networkPolicy.adminFrom=[{"podSelector": {"matchLabels": {"app": "prometheus"}}}]"#,
        "--set-json",
        "validation.enabled=false",
        "--set-json",
        "podDisruptionBudget.enabled=false",
        "--set-json",
        r#"trustDomain="example.org""#,
        "--api",
        "monitoring.coreos.com/v1",
    ]);
    objects.are_whole();
    let deployment = objects.get("Deployment", NAME);
    assert_eq!(deployment["spec"]["replicas"], 3);
    let pod = &deployment["spec"]["template"];
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
    assert!(
        image.starts_with("registry.example.com/mesh/hauberk/control-plane@sha256:"),
        "{image}"
    );
    assert_eq!(
        pod["spec"]["imagePullSecrets"],
        serde_json::json!([{ "name": "pull" }])
    );
    assert!(
        pod["metadata"]["annotations"]
            .get("prometheus.io/scrape")
            .is_none()
    );
    let injection = objects.get("ConfigMap", "hauberk-injection")["data"]["injection.yaml"]
        .as_str()
        .unwrap();
    let injection: Value = serde_saphyr::from_str(injection).unwrap();
    assert_eq!(injection["image"], "registry.example.com/mesh/hauberk/proxy:next");
    assert_eq!(injection["trustDomain"], "example.org");
    assert_eq!(injection["skipOutboundPorts"], "25");
    assert_eq!(injection["accessLog"], "json");
    assert_eq!(injection["drainDelay"], "5s");
    let webhooks = &objects.get("MutatingWebhookConfiguration", NAME)["webhooks"];
    let policies = by_name(webhooks, "failurePolicy");
    assert_eq!(policies.len(), 2);
    assert!(policies.values().all(|policy| *policy == "Ignore"));
    let excluded = &webhooks[1]["namespaceSelector"]["matchExpressions"][0]["values"];
    assert!(excluded.as_array().unwrap().contains(&"legacy".into()));
    assert!(!objects.has("ValidatingWebhookConfiguration", NAME));
    assert!(!objects.has("PodDisruptionBudget", NAME));
    objects.get("PodMonitor", NAME);
    let metrics = objects.get("Service", "hauberk-control-plane-metrics");
    assert_eq!(metrics["spec"]["clusterIP"], "None");
    let admin = &objects.get("NetworkPolicy", NAME)["spec"]["ingress"][2];
    let operators = &objects.get("Deployment", NAME)["spec"]["selector"];
    assert_eq!(
        &admin["from"][0]["podSelector"], operators,
        "operators ask each other"
    );
    assert_eq!(
        admin["from"][1]["podSelector"]["matchLabels"]["app"],
        "prometheus"
    );
}

#[test]
fn the_values_defaults_for_proxies_are_those_of_the_code() {
    let objects = render(&[]);
    let text = objects.get("ConfigMap", "hauberk-injection")["data"]["injection.yaml"]
        .as_str()
        .unwrap();
    let read: inject::Config = serde_saphyr::from_str(text).unwrap();
    let image = format!("hauberk/proxy:{}", env!("CARGO_PKG_VERSION"));
    let expected = inject::Config {
        image,
        image_pull_policy: Some(inject::PullPolicy::IfNotPresent),
        ..inject::Config::default()
    };
    assert_eq!(read, expected);
}

#[test]
fn everything_the_operator_is_told_is_a_setting() {
    let objects = render(&[]);
    let container = &objects.get("Deployment", NAME)["spec"]["template"]["spec"]["containers"][0];
    // Made from the table of settings, and held to it by a test.
    let settings = crate::read("docs/guide/operator-settings.md");
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        assert!(settings.contains(&format!("`{name}`")), "{name} is no setting");
    }
}

#[test]
fn older_servers_get_what_they_have() {
    let objects = render(&[
        "--kubernetes",
        "v1.20.2",
        "--api",
        "policy/v1beta1",
        "--without-api",
        "policy/v1",
    ]);
    objects.are_whole();
    let budget = objects.get("PodDisruptionBudget", NAME);
    assert_eq!(budget["apiVersion"], "policy/v1beta1");
}

#[test]
fn definitions_render_as_they_are_and_stay_behind() {
    let text = helm(&["template", "hauberk-crds", "charts/hauberk-crds"]).unwrap();
    let objects = Objects::read(&text);
    objects.are_whole();
    for crd in crds::definitions::all() {
        let name = crd.metadata.name.clone().unwrap();
        let mut rendered = objects.get("CustomResourceDefinition", &name).clone();
        assert_eq!(
            rendered["metadata"]["annotations"]["helm.sh/resource-policy"],
            "keep"
        );
        rendered["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("annotations");
        assert_eq!(rendered, serde_json::to_value(crd).unwrap());
    }
}

#[test]
fn what_cannot_work_is_refused_with_the_remedy() {
    for (flags, says) in [
        (&["-n", "mesh"] as &[&str], "--namespace hauberk-system"),
        (
            &["--set-json", "metrics.podMonitor.enabled=true"],
            "Prometheus operator",
        ),
        (&["--set-json", "replica=3"], "replica"),
        (&["--set-json", "replicas=0"], "replicas"),
        (
            &["--set-json", r#"injection.failurePolicy="fail""#],
            "failurePolicy",
        ),
        (&["--set-json", r#"injection.proxy.colour="red""#], "colour"),
    ] {
        // The namespace is the library's, so it stands before the command.
        let (before, after) = if flags[0] == "-n" {
            (flags, &[] as &[_])
        } else {
            (&[] as &[_], flags)
        };
        let mut args = before.to_vec();
        args.extend(["template", "hauberk", "charts/hauberk"]);
        args.extend(after);
        let error = helm(&args).expect_err("is refused");
        assert!(error.contains(says), "{flags:?}: {error}");
    }
}

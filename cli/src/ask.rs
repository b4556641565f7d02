//! Asking the API server, and the operators through it. Nothing is decided here: what comes back, or why nothing does, goes
//! into `facts`.

use std::collections::{BTreeMap, BTreeSet};

use api::names::{
    ADMIN_PORT, AUTHORITY_SECRET, INJECT_SWITCH, INJECTED_LABEL, OPERATOR, ROOT_NAMESPACE,
    TRUST_BUNDLE_CONFIG_MAP, TRUST_BUNDLE_KEY,
};
use futures_util::future::join_all;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::facts::{
    self, Before, Definition, Health, Installation, Known, Replica, Right, Server, Status, Webhook,
};

/// Objects of one answer of a list.
const PAGE: u32 = 500;
/// What the chart makes, and who installs must be able to make: group, resource, and whether it has a namespace.
const MADE: [(&str, &str, bool); 14] = [
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        false,
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        false,
    ),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("apps", "deployments", true),
    ("", "services", true),
    ("", "serviceaccounts", true),
    ("", "configmaps", true),
    ("networking.k8s.io", "networkpolicies", true),
    ("policy", "poddisruptionbudgets", true),
];

/// What is known before an installation.
pub(crate) async fn before(client: &Client) -> Before {
    let rights = MADE.map(|(group, resource, namespaced)| Right {
        group,
        resource,
        namespace: namespaced.then_some(ROOT_NAMESPACE),
    });
    let rights = rights.map(async |right| {
        let allowed = allowed(client, &right).await;
        (right, allowed)
    });
    Before {
        server: server(client).await,
        definitions: definitions(client).await,
        rights: join_all(rights).await,
        deployment: deployment(client).await,
        webhooks: webhooks(client).await,
        secret: secret(client).await,
    }
}

/// What is known of an installation.
pub(crate) async fn installation(client: &Client) -> Installation {
    let namespaces = namespaces(client).await;
    Installation {
        server: server(client).await,
        definitions: definitions(client).await,
        deployment: deployment(client).await,
        endpoints: endpoints(client).await,
        webhooks: webhooks(client).await,
        lease: lease(client).await,
        secret: secret(client).await,
        replicas: replicas(client).await,
        bundles: bundles(client).await,
        pods: pods(client, namespaces.as_ref().ok()).await,
        namespaces,
    }
}

/// Every operator that runs, with what it says of itself.
pub(crate) async fn replicas(client: &Client) -> Known<Vec<Replica>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), ROOT_NAMESPACE);
    let selected = ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}"));
    let found = pods.list(&selected).await.map_err(reason)?;
    let running = found.items.into_iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
    });
    let asked = running.map(async |pod| {
        let pod = pod.metadata.name.unwrap_or_default();
        Replica {
            health: admin::<Health>(client, &pod, "health").await,
            status: admin::<Status>(client, &pod, "status").await,
            pod,
        }
    });
    Ok(join_all(asked).await)
}

/// Asks an operator's admin server through the API server, which alone can reach it from outside.
async fn admin<T: DeserializeOwned>(client: &Client, pod: &str, path: &str) -> Known<T> {
    let url = format!("/api/v1/namespaces/{ROOT_NAMESPACE}/pods/{pod}:{ADMIN_PORT}/proxy/{path}");
    let request = http::Request::get(url).body(Vec::new());
    let text = client
        .request_text(request.map_err(|e| e.to_string())?)
        .await
        .map_err(reason)?;
    serde_json::from_str(&text).map_err(|e| format!("its answer is not understood: {e}"))
}

async fn server(client: &Client) -> Known<Server> {
    let info = client.apiserver_version().await.map_err(reason)?;
    let groups = client.list_api_groups().await.map_err(reason)?;
    let apis = groups.groups.into_iter().flat_map(|group| group.versions);
    // Some distributions write a `+` behind the minor.
    let number = |text: &str| text.trim_end_matches('+').parse().unwrap_or_default();
    Ok(Server {
        number: (number(&info.major), number(&info.minor)),
        version: info.git_version,
        apis: apis.map(|version| version.group_version).collect(),
    })
}

async fn definitions(client: &Client) -> Vec<Definition> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let asked = crds::definitions::all().into_iter().map(async |ours| {
        let name = ours.metadata.name.clone().unwrap_or_default();
        let theirs = api.get_opt(&name).await.map_err(reason);
        let value = |crd| serde_json::to_value(crd).unwrap_or_default();
        Definition {
            name,
            ours: value(ours),
            theirs: theirs.map(|found| found.map(value)),
        }
    });
    join_all(asked).await
}

async fn allowed(client: &Client, right: &Right) -> Known<bool> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.to_owned()),
                resource: Some(right.resource.to_owned()),
                namespace: right.namespace.map(str::to_owned),
                verb: Some("create".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = api
        .create(&PostParams::default(), &review)
        .await
        .map_err(reason)?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn root<K>(client: &Client) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), ROOT_NAMESPACE)
}

async fn deployment(client: &Client) -> Known<Option<facts::Deployment>> {
    let found = root::<Deployment>(client)
        .get_opt(OPERATOR)
        .await
        .map_err(reason)?;
    Ok(found.map(|deployment| {
        let status = deployment.status.unwrap_or_default();
        facts::Deployment {
            wanted: deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1),
            ready: status.ready_replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
        }
    }))
}

async fn endpoints(client: &Client) -> Known<Option<usize>> {
    let found = root::<Endpoints>(client)
        .get_opt(OPERATOR)
        .await
        .map_err(reason)?;
    Ok(found.map(|endpoints| {
        let subsets = endpoints.subsets.into_iter().flatten();
        subsets
            .map(|subset| subset.addresses.map_or(0, |a| a.len()))
            .sum()
    }))
}

async fn webhooks(client: &Client) -> Vec<Webhook> {
    fn pem(of: WebhookClientConfig) -> String {
        of.ca_bundle
            .map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
            .unwrap_or_default()
    }
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mutating = mutating.get_opt(OPERATOR).await.map_err(reason).map(|found| {
        found.map(|found| {
            let webhooks = found.webhooks.into_iter().flatten();
            webhooks.map(|webhook| pem(webhook.client_config)).collect()
        })
    });
    let validating = validating.get_opt(OPERATOR).await.map_err(reason).map(|found| {
        found.map(|found| {
            let webhooks = found.webhooks.into_iter().flatten();
            webhooks.map(|webhook| pem(webhook.client_config)).collect()
        })
    });
    vec![
        Webhook {
            kind: "mutating",
            bundles: mutating,
        },
        Webhook {
            kind: "validating",
            bundles: validating,
        },
    ]
}

async fn lease(client: &Client) -> Known<Option<facts::Lease>> {
    let found = root::<Lease>(client).get_opt(OPERATOR).await.map_err(reason)?;
    Ok(found.map(|lease| {
        let spec = lease.spec.unwrap_or_default();
        let now = Timestamp::now();
        facts::Lease {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            renewed_seconds_ago: spec.renew_time.map(|at| now.as_second() - at.0.as_second()),
            duration_seconds: i64::from(spec.lease_duration_seconds.unwrap_or_default()),
        }
    }))
}

/// Whether the authority's Secret is there. Only its metadata is read: what is in it is nobody's business.
async fn secret(client: &Client) -> Known<bool> {
    let found = root::<Secret>(client).get_metadata_opt(AUTHORITY_SECRET).await;
    Ok(found.map_err(reason)?.is_some())
}

async fn bundles(client: &Client) -> Known<BTreeMap<String, String>> {
    let api: Api<ConfigMap> = Api::all(client.clone());
    let selected = ListParams::default().fields(&format!("metadata.name={TRUST_BUNDLE_CONFIG_MAP}"));
    let found = all(&api, selected).await?;
    let bundles = found.into_iter().map(|map| {
        let roots = map.data.and_then(|mut data| data.remove(TRUST_BUNDLE_KEY));
        (
            map.metadata.namespace.unwrap_or_default(),
            roots.unwrap_or_default(),
        )
    });
    Ok(bundles.collect())
}

async fn namespaces(client: &Client) -> Known<BTreeSet<String>> {
    let api: Api<Namespace> = Api::all(client.clone());
    let selected = ListParams::default().labels(&format!("{INJECT_SWITCH} in (enabled,true)"));
    let found = all(&api, selected).await?;
    Ok(found
        .into_iter()
        .filter_map(|namespace| namespace.metadata.name)
        .collect())
}

async fn pods(client: &Client, namespaces: Option<&BTreeSet<String>>) -> Known<Vec<facts::Pod>> {
    let everywhere: Api<Pod> = Api::all(client.clone());
    let injected = ListParams::default().labels(&format!("{INJECTED_LABEL}=true"));
    let mut found = all(&everywhere, injected).await?;
    for namespace in namespaces.into_iter().flatten() {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let others = ListParams::default().labels(&format!("{INJECTED_LABEL}!=true"));
        found.extend(all(&api, others).await?);
    }
    Ok(found.into_iter().map(pod).collect())
}

fn pod(pod: Pod) -> facts::Pod {
    let metadata = pod.metadata;
    let said =
        |of: &Option<BTreeMap<String, String>>| of.as_ref().and_then(|map| map.get(INJECT_SWITCH).cloned());
    let declined = [said(&metadata.labels), said(&metadata.annotations)];
    let declined = declined
        .into_iter()
        .flatten()
        .any(|value| matches!(value.as_str(), "disabled" | "false"));
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let mut containers = status.container_statuses.iter().flatten().peekable();
    let started = containers.peek().is_some() && containers.all(|c| c.started == Some(true));
    let labels = metadata.labels.as_ref();
    let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    facts::Pod {
        injected: labels.is_some_and(|l| l.get(INJECTED_LABEL).is_some_and(|v| v == "true")),
        exempt: declined || spec.host_network == Some(true) || finished,
        running: started && !finished && metadata.deletion_timestamp.is_none(),
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
    }
}

/// Every object of a list, page by page.
async fn all<K>(api: &Api<K>, selected: ListParams) -> Known<Vec<K>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut selected = selected.limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&selected).await.map_err(reason)?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => selected = selected.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Why the API server was no help, in its own words.
fn reason(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(&other);
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            text
        }
    }
}

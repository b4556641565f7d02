//! What the operator is in a Kubernetes cluster beside what it is everywhere: source, webhooks, and the writers, of which
//! only those of one replica write.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::sync::watch;

use super::{Parts, Shared, bind, told};
use crate::admin::SourceReport;
use crate::admission::{Admission, Injector, Outcome, keep_ca_bundle};
use crate::authority::Store;
use crate::kubernetes::lease::Lease;
use crate::kubernetes::{self, Server, trust_bundle};
use crate::settings::KubernetesSettings;
use crate::source;
use crate::status::Local;
use crate::status::write::{self, Writer};

/// After it was told to stop, how long a replica serves as before: for so long, others may still be sent to it.
const LEAVE: Duration = Duration::from_secs(3);

/// The cluster around the operator.
pub(super) struct Cluster {
    server: Server,
    pod: String,
    namespace: String,
    webhook: SocketAddr,
    injection: inject::Config,
}

impl Cluster {
    /// Finds the API server, and what it offers.
    pub(super) async fn connect(settings: KubernetesSettings) -> anyhow::Result<Self> {
        let KubernetesSettings {
            pod,
            namespace,
            webhook,
            mut injection,
        } = settings;
        let server = kubernetes::connect().await?;
        injection.native = server.capabilities.restartable_init;
        Ok(Self {
            server,
            pod,
            namespace,
            webhook,
            injection,
        })
    }

    /// Where roots and keys are.
    pub(super) fn store(&self) -> Store {
        Store::secret(self.server.client.clone())
    }

    /// Starts everything; says how long a replica that stops serves on.
    pub(super) async fn run(
        self,
        shared: &Shared,
        report: watch::Sender<SourceReport>,
        parts: &mut Parts,
        serving: &mut Parts,
    ) -> anyhow::Result<Duration> {
        let Self {
            server: Server { client, capabilities },
            pod,
            namespace,
            webhook,
            injection,
        } = self;
        let Shared {
            authority,
            identity,
            hub,
            source,
            metrics,
            stopped,
        } = shared.clone();

        let watching = source::kubernetes::watch(&client, &capabilities);
        report.send_modify(|report| report.feeds = Some(watching.feeds));
        let (to, counts) = (hub.clone(), metrics.source);
        parts.spawn(async move {
            source::follow(None, watching.batches, report, to, counts).await;
            anyhow::bail!("source: watching the API server has ended")
        });

        let admission = Admission {
            source: source.clone(),
            injector: injector(injection),
            metrics: metrics.admission,
        };
        let listener = bind("webhook", webhook).await?;
        serving.spawn(admission.serve(listener, identity, told(stopped.clone())));

        let (lease, leader) = Lease::new(client.clone(), &namespace, &pod);
        serving.spawn(async move {
            lease.run(told(stopped)).await;
            Ok(())
        });
        parts.spawn(trust_bundle::run(
            client.clone(),
            Arc::clone(&authority),
            source.clone(),
            leader.clone(),
            metrics.authority,
        ));
        let (registrar, holds, writes) = (client.clone(), leader.clone(), metrics.writes.clone());
        parts.spawn(async move { keep_ca_bundle(registrar, &authority, holds, writes).await });
        parts.spawn(write::run(Writer {
            client,
            leader,
            local: Local { hub, source },
            own_pod: pod,
            metrics: metrics.writes,
        }));
        Ok(LEAVE)
    }
}

/// The injection of an installation, as the webhook asks for it.
fn injector(config: inject::Config) -> Injector {
    Arc::new(move |namespace, labels, pod| outcome(&config, namespace, labels, pod))
}

fn outcome(
    config: &inject::Config,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    pod: &Value,
) -> Outcome {
    let refuse = |problem: String| Outcome::Refuse(vec![problem]);
    let before: Pod = match serde_json::from_value(pod.clone()) {
        Ok(pod) => pod,
        Err(error) => return refuse(format!("pod: cannot be read: {error}")),
    };
    match inject::decide(namespace, labels, &before) {
        Ok(inject::Decision::Inject) => {}
        Ok(inject::Decision::Skip(reason)) => return Outcome::Unchanged(reason.to_string()),
        Err(problem) => return refuse(problem.to_string()),
    }
    match inject::inject(&before, namespace, config) {
        Ok(after) => {
            let warnings = inject::warnings(&before, config);
            let warnings = warnings.iter().map(ToString::to_string).collect();
            Outcome::Patch(inject::patch(&before, &after), warnings)
        }
        Err(problems) => Outcome::Refuse(problems.iter().map(ToString::to_string).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(labels: &[(&str, &str)], pod: &Value) -> Outcome {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        outcome(&inject::Config::default(), "shop", &labels.collect(), pod)
    }

    #[test]
    fn a_pod_is_patched_left_alone_or_refused_with_the_field() {
        let on = [("hauberk.dev/inject", "enabled")];
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app", "image": "a"}]}});
        let Outcome::Patch(patch, _) = ask(&on, &pod) else {
            panic!("no patch")
        };
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched["metadata"]["labels"]["hauberk.dev/injected"], "true");
        assert!(matches!(ask(&[], &pod), Outcome::Unchanged(_)));

        let mut wrong = pod.clone();
        wrong["metadata"]["annotations"] = json!({"hauberk.dev/skip-inbound-ports": "eighty"});
        let Outcome::Refuse(problems) = ask(&on, &wrong) else {
            panic!("not refused")
        };
        assert!(
            problems[0].contains("hauberk.dev/skip-inbound-ports"),
            "{problems:?}"
        );
        let Outcome::Refuse(problems) = ask(&on, &json!({"spec": 7})) else {
            panic!("not refused")
        };
        assert!(problems[0].contains("cannot be read"), "{problems:?}");
    }
}

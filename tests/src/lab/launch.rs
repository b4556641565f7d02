//! Brings up a lab, and single pods in a running one, in the order in which Kubernetes would.
//!
//! Pod object → init container → application and proxy → ready → endpoint ready.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::try_join_all;

use super::binaries::Binary;
use super::hub::{OPERATOR, hub};
use super::manifests::{EndpointState, PodFacts, check_name};
use super::operator::{CONFIG_PORT, Operator, TRUST_DOMAIN};
use super::pod::{Pod, PodIdentity};
use super::process::Process;
use super::proxy::{Proxy, lab_command, while_running};
use super::spec::{App, Builder, PodSpec};
use super::{GRPC_CONTROL_PORT, Lab, Member, TCP_CONTROL_PORT, lock};
use crate::app::CONTROL_PORT;

const LISTENING_WITHIN: Duration = Duration::from_secs(10);

impl Builder {
    /// Starts everything and returns when every pod is ready and every endpoint published.
    ///
    /// A second lab in the same process waits until the first is dropped.
    pub async fn start(self) -> anyhow::Result<Lab> {
        self.check()?;
        for binary in self.binaries() {
            binary.path()?;
        }
        let Builder {
            services,
            pods,
            manifests,
            proxy_env,
            operator_env,
            without_mesh,
        } = self;
        let mut lab = Lab::empty(proxy_env).await?;
        let mut specs: Vec<(Option<String>, PodSpec)> = Vec::new();
        for service in services {
            for workload in &service.workloads {
                let pods = (0..workload.replicas).map(|index| service.pod(workload, index));
                specs.extend(pods.map(|pod| (Some(service.name.clone()), pod)));
            }
            lab.declare(service)?;
        }
        specs.extend(pods.into_iter().map(|pod| (None, pod)));
        for (name, yaml) in &manifests {
            lab.apply(name, yaml)?;
        }
        if !without_mesh {
            lab.operator = Some(lab.start_operator(operator_env).await?);
        }
        try_join_all(specs.into_iter().map(|(service, spec)| lab.launch(service, spec))).await?;
        lab.publish_all()?;
        Ok(lab)
    }

    fn check(&self) -> anyhow::Result<()> {
        let mut names = BTreeSet::new();
        for service in &self.services {
            check_name("service", &service.name)?;
            check_name("namespace", &service.namespace)?;
            if service.ports.is_empty() {
                bail!("service {} has no port", service.name);
            }
            if !names.insert(service.name.clone()) {
                bail!(
                    "two services are called {}; the lab wants names that differ",
                    service.name
                );
            }
            for workload in &service.workloads {
                check_name("version", &workload.version)?;
            }
        }
        for pod in &self.pods {
            check_name("pod", &pod.name)?;
            check_name("namespace", &pod.namespace)?;
            if !names.insert(pod.name.clone()) {
                bail!(
                    "two services or pods are called {}; the lab wants names that differ",
                    pod.name
                );
            }
        }
        Ok(())
    }
}

impl Lab {
    async fn start_operator(&self, environment: BTreeMap<String, String>) -> anyhow::Result<Operator> {
        let identity = PodIdentity {
            name: "operator".to_owned(),
            namespace: "hauberk-system".to_owned(),
            service_account: "hauberk-operator".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        };
        let place = hub()?.operator_place();
        let pod = Pod::create(identity, place, self.names.clone(), self.logs()).await?;
        self.remember_place(place);
        let state = self.dir.join("operator");
        std::fs::create_dir_all(&state).context("cannot create the operator's folder")?;
        let operator = Operator::new(pod, self.dir.join("config"), state, environment);
        operator.start().await?;
        // As a projected ConfigMap would be: readable by a proxy under any user id.
        write_readable(
            &self.dir.join("roots.pem"),
            &std::fs::read_to_string(operator.roots())?,
        )?;
        Ok(operator)
    }

    /// Starts one pod and waits until its programs are ready. Its endpoint is ready in memory, not yet published.
    pub(super) async fn launch(&self, service: Option<String>, mut spec: PodSpec) -> anyhow::Result<()> {
        // In a lab without a mesh nothing is injected, whatever a pod asks for.
        spec.meshed &= self.operator.is_some();
        lock(&self.used_names).insert(spec.name.clone());
        let place = hub()?.next_place()?;
        let identity = PodIdentity {
            name: spec.name.clone(),
            namespace: spec.namespace.clone(),
            service_account: spec.account(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
        };
        let pod = Pod::create(identity.clone(), place, self.names.clone(), self.logs()).await?;
        self.remember_place(place);
        let mut facts = PodFacts {
            identity,
            ips: pod.ips(),
            zone: spec.zone.clone(),
            meshed: spec.meshed,
            ports: spec.ports.clone(),
            endpoint: service.is_some().then(EndpointState::default),
            finished: false,
        };
        self.write_pod(&facts)?;
        self.names.add(&spec.name, &spec.namespace, pod.ip().into());
        let proxy = if spec.meshed {
            Some(self.inject(&pod, &spec).await?)
        } else {
            None
        };
        let apps = start_apps(&pod, &spec).await?;
        if let Some(proxy) = &proxy {
            proxy.ready().await?;
        }
        if let Some(endpoint) = &mut facts.endpoint {
            endpoint.ready = true;
            self.write_pod(&facts)?;
        }
        let name = spec.name.clone();
        self.add_member(
            name,
            Member {
                service,
                pod,
                apps: Mutex::new(apps),
                spec,
                proxy,
                facts: Mutex::new(facts),
            },
        );
        Ok(())
    }

    /// Starts a pod's applications anew, after [`Lab::kill_apps`].
    pub async fn restart_apps(&self, pod: &str) -> anyhow::Result<()> {
        let member = self.member(pod);
        lock(&member.apps).clear();
        let apps = start_apps(&member.pod, &member.spec).await?;
        *lock(&member.apps) = apps;
        Ok(())
    }

    /// What injection adds to a pod: identity token, redirect, proxy.
    async fn inject(&self, pod: &Pod, spec: &PodSpec) -> anyhow::Result<Proxy> {
        let operator = self
            .operator
            .as_ref()
            .context("a meshed pod needs a lab with an operator")?;
        let account = spec.account();
        let token = operator.token(&spec.namespace, &account, &spec.name).await?;
        let token_file = self.dir.join(format!("token-{}", spec.name));
        write_readable(&token_file, &token)?;
        let ips: Vec<String> = pod.ips().iter().map(ToString::to_string).collect();
        let mut environment = BTreeMap::from(
            [
                ("HAUBERK_OPERATOR", format!("https://{OPERATOR}:{CONFIG_PORT}")),
                (
                    "HAUBERK_OPERATOR_ROOTS",
                    self.dir.join("roots.pem").display().to_string(),
                ),
                ("HAUBERK_TOKEN_FILE", token_file.display().to_string()),
                ("HAUBERK_NAMESPACE", spec.namespace.clone()),
                ("HAUBERK_POD", spec.name.clone()),
                ("HAUBERK_SERVICE_ACCOUNT", account),
                ("HAUBERK_TRUST_DOMAIN", TRUST_DOMAIN.to_owned()),
                ("HAUBERK_POD_IPS", ips.join(",")),
                ("HAUBERK_WORKERS", "1".to_owned()),
                ("HAUBERK_LOG", "info".to_owned()),
                ("HAUBERK_ACCESS_LOG", "json".to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        environment.extend(self.proxy_env.clone());
        environment.extend(spec.proxy_env.clone());
        let proxy = Proxy::new(pod.clone(), environment);
        proxy.redirect(&spec.skip_inbound, &spec.init_arguments).await?;
        proxy.start().await?;
        Ok(proxy)
    }
}

/// Starts what answers on the pod's ports and waits until it listens.
async fn start_apps(pod: &Pod, spec: &PodSpec) -> anyhow::Result<Vec<Arc<Process>>> {
    let mut apps = Vec::new();
    let of = |wanted: &dyn Fn(&App) -> bool| -> Vec<u16> {
        spec.ports
            .iter()
            .filter(|port| wanted(&port.app))
            .map(|port| port.target)
            .collect()
    };
    let http = of(&|app| *app == App::Http);
    if !http.is_empty() {
        apps.push(Arc::new(
            start_app(pod, spec, "http", &http, CONTROL_PORT, &[]).await?,
        ));
    }
    let grpc = of(&|app| *app == App::Grpc);
    if !grpc.is_empty() {
        apps.push(Arc::new(
            start_app(pod, spec, "grpc", &grpc, GRPC_CONTROL_PORT, &[]).await?,
        ));
    }
    let tcp = |port: &&super::spec::PortSpec| matches!(port.app, App::Greeting(_) | App::Silent);
    for (index, port) in spec.ports.iter().filter(tcp).enumerate() {
        let mode = match &port.app {
            App::Greeting(greeting) => vec!["--greeting".to_owned(), greeting.clone()],
            App::Silent => vec!["--silent".to_owned()],
            App::Http | App::Grpc | App::Nothing => continue,
        };
        // One control port for the first: a pod with two such ports is rare, and its second needs no control.
        let control = if index == 0 { TCP_CONTROL_PORT } else { 0 };
        apps.push(Arc::new(
            start_app(pod, spec, "tcp", &[port.target], control, &mode).await?,
        ));
    }
    Ok(apps)
}

async fn start_app(
    pod: &Pod,
    spec: &PodSpec,
    kind: &str,
    ports: &[u16],
    control: u16,
    more: &[String],
) -> anyhow::Result<Process> {
    let mut command = lab_command(&Binary::TestApp.path()?);
    let service = spec.labels.get("app").unwrap_or(&spec.name);
    let version = spec.labels.get("version").map_or("none", String::as_str);
    command.args([
        kind,
        "--service",
        service,
        "--version",
        version,
        "--pod",
        &spec.name,
    ]);
    for port in ports {
        command.args(["--port", &port.to_string()]);
    }
    if control != 0 {
        command.args(["--control-port", &control.to_string()]);
    }
    command.args(more);
    let process = pod.spawn(kind, command).await?;
    let awaited: Vec<u16> = ports
        .iter()
        .copied()
        .chain((control != 0).then_some(control))
        .collect();
    while_running(
        &process,
        LISTENING_WITHIN,
        &format!("{kind} listens in pod {}", pod.name()),
        async || {
            for port in &awaited {
                if !pod.listens(*port).await {
                    bail!("nothing listens on port {port}");
                }
            }
            Ok(())
        },
    )
    .await?;
    Ok(process)
}

/// Writes a file that every user id in the lab may read, whatever the caller's umask.
fn write_readable(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .with_context(|| format!("cannot open {} to the lab's users", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::ServiceSpec;

    #[test]
    fn a_lab_that_cannot_work_is_refused_with_the_name_of_the_culprit() {
        for (builder, reason) in [
            (
                Lab::builder().service(ServiceSpec::new("empty")),
                "service empty has no port",
            ),
            (Lab::builder().client("web").client("web"), "are called web"),
            (Lab::builder().client("Web"), "pod \"Web\""),
            (
                Lab::builder().service(ServiceSpec::http("a").version("V1", 1)),
                "version \"V1\"",
            ),
            (
                Lab::builder()
                    .service(ServiceSpec::http("a"))
                    .service(ServiceSpec::grpc("a")),
                "are called a",
            ),
        ] {
            let error = builder.check().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(
            Lab::builder()
                .service(ServiceSpec::http("a").version("v1", 2))
                .client("w")
                .check()
                .is_ok()
        );
    }
}

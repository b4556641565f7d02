//! Injection itself: takes a pod, checks what would not work in the mesh, and puts the proxy in.

use std::collections::BTreeMap;

use api::Invalid;
use api::names::{ADMIN_PORT, INBOUND_PORT, INJECTED_LABEL, OUTBOUND_PORT, PROXY_UID};
use k8s_openapi::api::core::v1::{Container, LocalObjectReference, Pod, PodSpec};

use crate::annotations::overlay;
use crate::config::Config;
use crate::parts::{containers, goes_on};
use crate::{container, decide, parts, probes};

/// Which container `kubectl logs` and `kubectl exec` mean when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// What a pod gets when it says nothing, in seconds.
const DEFAULT_GRACE: i64 = 30;
/// What the proxy may need to end after its drain timeout, in seconds.
const TO_EXIT: u64 = 5;

/// The pod with a proxy in it, as it runs in `namespace`. Whether it is to have one is [`decide()`](crate::decide())'s matter.
///
/// Injecting twice is injecting once: what an earlier injection added is taken off first, so a pod that
/// `hauberk inject` made is brought to what `config` says.
///
/// # Errors
/// With everything that is wrong with the pod, each with its field and the remedy: annotations that cannot be honoured,
/// names, ports and users that belong to the proxy, probes of ports that nobody has.
pub fn inject(pod: &Pod, namespace: &str, config: &Config) -> Result<Pod, Vec<Invalid>> {
    if decide::is_closed(namespace) {
        let problem = format!("pods in {namespace} never get a proxy: choose another namespace");
        return Err(vec![Invalid::new("metadata.namespace", problem)]);
    }
    let Some(spec) = &pod.spec else {
        return Err(vec![Invalid::new(
            "spec",
            "is missing: write what the pod is to run",
        )]);
    };
    let mut pod = pod.clone();
    let none = BTreeMap::new();
    let mut problems = Vec::new();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let config = overlay(config, annotations, labels).map_err(|p| problems.extend(p));
    let own = parts::without(spec).map_err(|p| problems.extend(p));
    if let Ok(own) = &own {
        problems.extend(taken_ports(own));
        problems.extend(taken_user(own));
    }
    let (Ok(config), Ok(own)) = (config, own) else {
        return Err(problems);
    };
    let default_container = own.containers.first().map(|c| c.name.clone());
    match with_proxy(own, &config) {
        Ok(spec) if problems.is_empty() => pod.spec = Some(spec),
        Ok(_) => return Err(problems),
        Err(more) => {
            problems.extend(more);
            return Err(problems);
        }
    }
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(INJECTED_LABEL.to_owned(), "true".to_owned());
    if let Some(name) = default_container {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.entry(DEFAULT_CONTAINER.to_owned()).or_insert(name);
    }
    Ok(pod)
}

fn with_proxy(mut spec: PodSpec, config: &Config) -> Result<PodSpec, Vec<Invalid>> {
    // A pod with a native sidecar of its own runs on a server that has them, and that container may need the mesh before
    // the ordinary ones start.
    let native = config.native || spec.init_containers.iter().flatten().any(goes_on);
    spec.termination_grace_period_seconds = grace(spec.termination_grace_period_seconds, config);
    let targets = probes::rewrite(&mut spec, &config.skip_inbound_ports)?;
    let redirecting = container::redirecting(config);
    let proxy = container::proxy(config, &targets, native);
    let init = spec.init_containers.get_or_insert_default();
    if native {
        init.splice(0..0, [redirecting, proxy]);
    } else {
        // Last: the init containers before it have the network as it is, those after it would have none, because
        // nothing serves the redirected connections before the proxy runs.
        init.push(redirecting);
        spec.containers.insert(0, proxy);
    }
    spec.volumes.get_or_insert_default().extend(container::volumes());
    for name in &config.image_pull_secrets {
        let secrets = spec.image_pull_secrets.get_or_insert_default();
        if !secrets.iter().any(|s| s.name == *name) {
            secrets.push(LocalObjectReference { name: name.clone() });
        }
    }
    Ok(spec)
}

/// Raised to what the proxy may need to drain, never lowered; absent while the default is enough.
fn grace(given: Option<i64>, config: &Config) -> Option<i64> {
    let needed = config.drain_delay.whole_seconds() + config.drain_timeout.whole_seconds() + TO_EXIT;
    let needed = i64::try_from(needed).unwrap_or(i64::MAX);
    if given.unwrap_or(DEFAULT_GRACE) >= needed {
        given
    } else {
        Some(needed)
    }
}

/// The application would find its port in use, or the proxy would.
fn taken_ports(spec: &PodSpec) -> Vec<Invalid> {
    let ours = [OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT];
    let mut problems = Vec::new();
    for (field, container) in containers(spec).filter(|(_, c)| lasts(spec, c)) {
        for port in container.ports.iter().flatten() {
            let is_tcp = port.protocol.as_deref().is_none_or(|p| p == "TCP");
            if is_tcp && ours.iter().any(|ours| i32::from(*ours) == port.container_port) {
                let number = port.container_port;
                let problem = format!(
                    "{number} is a port of the pod's proxy ({OUTBOUND_PORT}, {INBOUND_PORT} and {ADMIN_PORT} are): let the application listen on another"
                );
                problems.push(Invalid::new(format!("{field}.ports[{number}]"), problem));
            }
        }
    }
    problems
}

/// Whether the container runs beside the proxy.
fn lasts(spec: &PodSpec, container: &Container) -> bool {
    goes_on(container) || spec.containers.iter().any(|c| c.name == container.name)
}

/// What the proxy's user sends is not redirected: an application that runs as it would be outside the mesh unnoticed.
fn taken_user(spec: &PodSpec) -> Vec<Invalid> {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let mut problems = Vec::new();
    for (field, container) in containers(spec) {
        let own = container.security_context.as_ref().and_then(|s| s.run_as_user);
        if own.or(of_pod) == Some(PROXY_UID.into()) {
            let field = match own {
                Some(_) => format!("{field}.securityContext.runAsUser"),
                None => "spec.securityContext.runAsUser".to_owned(),
            };
            let problem = format!(
                "{PROXY_UID} is the proxy's user, whose traffic is not redirected: {} would bypass the mesh; choose another",
                container.name
            );
            problems.push(Invalid::new(field, problem));
        }
    }
    problems
}

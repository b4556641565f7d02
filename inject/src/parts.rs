//! The parts of a pod that are injection's own, and a pod without them. Injection takes them off before it puts them on, so
//! that a pod which has been through it once, by an older operator or by `hauberk inject`, comes out as any other.

use api::Invalid;
use api::names::{INIT_CONTAINER, PROXY_CONTAINER, ROOTS_VOLUME, TOKEN_VOLUME};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::container::{OPERATOR_ROOTS, PROBES};
use crate::probes::{self, Targets};

/// Whether the pod has a proxy that injection put there.
pub(crate) fn has_proxy(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(proxy).is_some()
}

/// The pod as it was before injection; unchanged when it was never injected.
pub(crate) fn without(spec: &PodSpec) -> Result<PodSpec, Vec<Invalid>> {
    let mut spec = spec.clone();
    let injected = proxy(&spec).is_some();
    let targets = proxy(&spec)
        .map_or(Ok(Targets::new()), targets)
        .map_err(|e| vec![e])?;
    if let Some(init) = &mut spec.init_containers {
        init.retain(|c| !is_init(c) && !is_proxy(c));
    }
    // A pod that had none has no list either.
    spec.init_containers = spec.init_containers.filter(|init| !injected || !init.is_empty());
    spec.containers.retain(|c| !is_proxy(c));
    let mut problems: Vec<_> = named_like_ours(&spec).collect();
    if injected {
        if let Some(volumes) = &mut spec.volumes {
            volumes.retain(|v| v.name != TOKEN_VOLUME && v.name != ROOTS_VOLUME);
        }
        spec.volumes = spec.volumes.filter(|volumes| !volumes.is_empty());
        problems.extend(probes::restore(&mut spec, &targets));
    }
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        if volume.name == TOKEN_VOLUME || volume.name == ROOTS_VOLUME {
            let problem = format!(
                "{} is the name of a volume that injection adds: choose another",
                volume.name
            );
            problems.push(Invalid::new(format!("spec.volumes[{i}].name"), problem));
        }
    }
    if problems.is_empty() {
        Ok(spec)
    } else {
        Err(problems)
    }
}

/// Every container of the pod that is started from its spec, with the path of its field.
pub(crate) fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|c| (format!("spec.initContainers[{}]", c.name), c));
    init.chain(
        spec.containers
            .iter()
            .map(|c| (format!("spec.containers[{}]", c.name), c)),
    )
}

/// Whether an init container goes on beside the others.
pub(crate) fn goes_on(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn proxy(spec: &PodSpec) -> Option<&Container> {
    containers(spec).map(|(_, c)| c).find(|c| is_proxy(c))
}

fn is_proxy(container: &Container) -> bool {
    container.name == PROXY_CONTAINER && has(container, OPERATOR_ROOTS)
}

fn is_init(container: &Container) -> bool {
    let first = container.args.as_ref().and_then(|args| args.first());
    container.name == INIT_CONTAINER && first.is_some_and(|arg| arg == "init")
}

fn has(container: &Container, variable: &str) -> bool {
    container.env.iter().flatten().any(|v| v.name == variable)
}

fn targets(proxy: &Container) -> Result<Targets, Invalid> {
    let value = proxy.env.iter().flatten().find(|v| v.name == PROBES);
    let Some(text) = value.and_then(|v| v.value.as_deref()) else {
        return Ok(Targets::new());
    };
    serde_json::from_str(text).map_err(|error| {
        let problem = format!(
            "is not as injection writes it ({error}): remove the container and inject into the pod anew"
        );
        Invalid::new(format!("container {PROXY_CONTAINER}: env[{PROBES}]"), problem)
    })
}

fn named_like_ours(spec: &PodSpec) -> impl Iterator<Item = Invalid> {
    let taken = containers(spec).filter(|(_, c)| c.name == PROXY_CONTAINER || c.name == INIT_CONTAINER);
    taken.map(|(field, container)| {
        let problem = format!(
            "{} is the name of a container that injection adds, and this one is another: choose another name",
            container.name
        );
        Invalid::new(format!("{field}.name"), problem)
    })
}

//! The two containers that injection adds, and their volumes. The proxy keeps to the restricted Pod Security Standard; the
//! one that redirects needs the rights to do so and keeps to everything else of it.

use std::collections::BTreeMap;

use api::names::{
    ADMIN_PORT, ADMIN_PORT_NAME, INIT_CONTAINER, PROXY_CONTAINER, PROXY_UID, ROOTS_FOLDER, ROOTS_VOLUME,
    TOKEN_AUDIENCE, TOKEN_FILE, TOKEN_FOLDER, TOKEN_SECONDS, TOKEN_VOLUME, TRUST_BUNDLE_CONFIG_MAP,
    TRUST_BUNDLE_KEY,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{Amounts, Config};
use crate::probes::Targets;

/// Variable with the file of the operator's roots; by it a proxy of ours is known.
pub(crate) const OPERATOR_ROOTS: &str = "HAUBERK_OPERATOR_ROOTS";
/// Variable with what to call for the application's probes.
pub(crate) const PROBES: &str = "HAUBERK_PROBES";

/// The proxy's program, on the path of its image.
const PROGRAM: &str = "hauberk-proxy";
/// Files of a volume are readable to all users of the pod: the proxy has a user of its own, and the kubelet gives a token's
/// file to a single user only where all containers of the pod have the same one. With `fsGroup` the kubelet makes it 0640
/// for that group, which the proxy then belongs to.
const READABLE: i32 = 0o644;
/// More workers than this the proxy refuses.
const MOST_WORKERS: u128 = 64;

/// The container that redirects the pod's traffic and ends.
pub(crate) fn redirecting(config: &Config) -> Container {
    let mut args = vec!["init".to_owned()];
    let lists = [
        ("--skip-inbound-ports", config.skip_inbound_ports.to_string()),
        ("--skip-outbound-ports", config.skip_outbound_ports.to_string()),
        ("--skip-inbound-cidrs", config.skip_inbound_cidrs.to_string()),
        ("--skip-outbound-cidrs", config.skip_outbound_cidrs.to_string()),
    ];
    for (flag, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        args.push(format!("{flag}={list}"));
    }
    Container {
        name: INIT_CONTAINER.to_owned(),
        // The root file system is read-only, and the older of the two kinds of iptables wants a lock file.
        env: Some(vec![value("XTABLES_LOCKFILE", "/dev/shm/xtables.lock")]),
        security_context: Some(SecurityContext {
            capabilities: Some(Capabilities {
                add: Some(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            run_as_user: Some(0),
            ..restricted()
        }),
        ..common(config, args)
    }
}

/// The container that is the proxy. `native` puts it among the init containers.
pub(crate) fn proxy(config: &Config, targets: &Targets, native: bool) -> Container {
    let wait = LifecycleHandler {
        exec: Some(ExecAction {
            command: Some(vec![PROGRAM.to_owned(), "wait".to_owned()]),
        }),
        ..LifecycleHandler::default()
    };
    Container {
        name: PROXY_CONTAINER.to_owned(),
        env: Some(environment(config, targets)),
        ports: Some(vec![ContainerPort {
            container_port: ADMIN_PORT.into(),
            name: Some(ADMIN_PORT_NAME.to_owned()),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        restart_policy: native.then(|| "Always".to_owned()),
        // The kubelet starts what follows when this has succeeded: at once with a native sidecar ...
        startup_probe: native.then(|| probe("/health/ready", 1, 600)),
        // ... and after this hook in the list of ordinary containers.
        lifecycle: (!native).then(|| Lifecycle {
            post_start: Some(wait),
            ..Lifecycle::default()
        }),
        readiness_probe: Some(probe("/health/ready", 2, 3)),
        liveness_probe: Some(probe("/health/live", 10, 6)),
        security_context: Some(SecurityContext {
            run_as_group: Some(PROXY_UID.into()),
            run_as_non_root: Some(true),
            run_as_user: Some(PROXY_UID.into()),
            ..restricted()
        }),
        volume_mounts: Some(vec![
            mount(ROOTS_VOLUME, ROOTS_FOLDER),
            mount(TOKEN_VOLUME, TOKEN_FOLDER),
        ]),
        ..common(config, vec!["run".to_owned()])
    }
}

/// The volumes of the proxy: the roots that it verifies the operator against, and the token it proves itself with.
pub(crate) fn volumes() -> [Volume; 2] {
    let roots = ConfigMapVolumeSource {
        default_mode: Some(READABLE),
        items: Some(vec![KeyToPath {
            key: TRUST_BUNDLE_KEY.to_owned(),
            path: TRUST_BUNDLE_KEY.to_owned(),
            mode: None,
        }]),
        name: TRUST_BUNDLE_CONFIG_MAP.to_owned(),
        optional: None,
    };
    let token = ServiceAccountTokenProjection {
        audience: Some(TOKEN_AUDIENCE.to_owned()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: TOKEN_FILE.to_owned(),
    };
    [
        Volume {
            name: ROOTS_VOLUME.to_owned(),
            config_map: Some(roots),
            ..Volume::default()
        },
        Volume {
            name: TOKEN_VOLUME.to_owned(),
            projected: Some(ProjectedVolumeSource {
                default_mode: Some(READABLE),
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(token),
                    ..VolumeProjection::default()
                }]),
            }),
            ..Volume::default()
        },
    ]
}

fn common(config: &Config, args: Vec<String>) -> Container {
    Container {
        image: Some(config.image.clone()),
        image_pull_policy: config.image_pull_policy.map(|p| p.as_str().to_owned()),
        command: Some(vec![PROGRAM.to_owned()]),
        args: Some(args),
        // The same for both: the pod's sum takes the larger of the two, and quotas and Guaranteed pods see all of them.
        resources: Some(resources(config)),
        ..Container::default()
    }
}

fn environment(config: &Config, targets: &Targets) -> Vec<EnvVar> {
    let roots = format!("{ROOTS_FOLDER}/{TRUST_BUNDLE_KEY}");
    let token = format!("{TOKEN_FOLDER}/{TOKEN_FILE}");
    let mut all = vec![
        value("HAUBERK_OPERATOR", &config.operator),
        value(OPERATOR_ROOTS, &roots),
        value("HAUBERK_TOKEN_FILE", &token),
        value("HAUBERK_TRUST_DOMAIN", &config.trust_domain),
        of_pod("HAUBERK_NAMESPACE", "metadata.namespace"),
        of_pod("HAUBERK_POD", "metadata.name"),
        of_pod("HAUBERK_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        of_pod("HAUBERK_POD_IPS", "status.podIPs"),
        value("HAUBERK_LOG", &config.log.to_string()),
        value("HAUBERK_LOG_FORMAT", &config.log_format.to_string()),
        value("HAUBERK_ACCESS_LOG", &config.access_log.to_string()),
        value("HAUBERK_DRAIN_DELAY", &config.drain_delay.to_string()),
        value("HAUBERK_DRAIN_TIMEOUT", &config.drain_timeout.to_string()),
    ];
    // Without a limit the proxy takes what the machine has, two at most.
    if let Some(cpu) = &config.resources.limits.cpu {
        let workers = cpu.rounded_up().clamp(1, MOST_WORKERS);
        all.push(value("HAUBERK_WORKERS", &workers.to_string()));
    }
    if !targets.is_empty() {
        let targets = serde_json::to_string(targets).expect("texts and numbers");
        all.push(value(PROBES, &escaped(&targets)));
    }
    all
}

/// The kubelet reads `$(NAME)` and `$$` in values in a way of its own; what a user wrote into a probe's path is not that.
fn escaped(json: &str) -> String {
    json.replace('$', "\\u0024")
}

fn value(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

fn of_pod(name: &str, field: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: field.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        mount_path: path.to_owned(),
        name: volume.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(ADMIN_PORT.into()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

/// What both containers have in common.
fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

fn resources(config: &Config) -> ResourceRequirements {
    ResourceRequirements {
        claims: None,
        limits: amounts(&config.resources.limits),
        requests: amounts(&config.resources.requests),
    }
}

fn amounts(amounts: &Amounts) -> Option<BTreeMap<String, resource::Quantity>> {
    let all = [("cpu", &amounts.cpu), ("memory", &amounts.memory)];
    let said = all.into_iter().filter_map(|(name, amount)| {
        Some((name.to_owned(), resource::Quantity(amount.as_ref()?.to_string())))
    });
    let said: BTreeMap<_, _> = said.collect();
    (!said.is_empty()).then_some(said)
}

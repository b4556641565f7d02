//! The restricted Pod Security Standard, as far as it speaks of containers and volumes, and what injection adds held to it:
//! a namespace that enforces it must refuse nothing of a meshed pod but the one container that redirects.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use crate::golden::cases;

/// What the standard has against a container, seen alone: our containers must not depend on what the pod says.
pub(crate) fn against(container: &Container) -> Vec<String> {
    let Some(context) = &container.security_context else {
        return vec!["no securityContext".to_owned()];
    };
    let capabilities = context.capabilities.clone().unwrap_or_default();
    let drops_all = capabilities.drop.iter().flatten().any(|c| c == "ALL");
    let adds: Vec<_> = capabilities
        .add
        .into_iter()
        .flatten()
        .filter(|c| c != "NET_BIND_SERVICE")
        .collect();
    let seccomp = context.seccomp_profile.as_ref().map(|p| p.type_.as_str());
    let host_ports = container
        .ports
        .iter()
        .flatten()
        .any(|p| p.host_port.is_some_and(|p| p != 0));
    let rules = [
        (context.privileged == Some(true), "privileged".to_owned()),
        (
            context.allow_privilege_escalation != Some(false),
            "allowPrivilegeEscalation".to_owned(),
        ),
        (context.run_as_non_root != Some(true), "runAsNonRoot".to_owned()),
        (context.run_as_user == Some(0), "runAsUser".to_owned()),
        (
            !matches!(seccomp, Some("RuntimeDefault" | "Localhost")),
            "seccompProfile".to_owned(),
        ),
        (!drops_all, "capabilities.drop".to_owned()),
        (!adds.is_empty(), format!("capabilities.add {}", adds.join(","))),
        (context.proc_mount.is_some(), "procMount".to_owned()),
        (host_ports, "hostPort".to_owned()),
    ];
    rules
        .into_iter()
        .filter(|(broken, _)| *broken)
        .map(|(_, rule)| rule)
        .collect()
}

fn is_allowed(volume: &Volume) -> bool {
    volume.config_map.is_some() || volume.projected.is_some()
}

/// The containers and volumes that injection added.
pub(crate) fn ours(pod: &Pod) -> (Vec<&Container>, Vec<&Volume>) {
    let spec = pod.spec.as_ref().unwrap();
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let volumes = spec.volumes.iter().flatten();
    (
        containers.filter(|c| c.name.starts_with("hauberk-")).collect(),
        volumes.filter(|v| v.name.starts_with("hauberk-")).collect(),
    )
}

pub(crate) fn check(pod: &Pod) {
    let (containers, volumes) = ours(pod);
    assert_eq!((containers.len(), volumes.len()), (2, 2));
    for container in containers {
        let expected: &[&str] = match container.name.as_str() {
            "hauberk-init" => &["runAsNonRoot", "runAsUser", "capabilities.add NET_ADMIN,NET_RAW"],
            _ => &[],
        };
        assert_eq!(against(container), expected, "{}", container.name);
        // Beyond the standard, and what many installations ask for besides.
        let context = container.security_context.as_ref().unwrap();
        assert_eq!(
            context.read_only_root_filesystem,
            Some(true),
            "{}",
            container.name
        );
        assert!(context.run_as_group.is_some() && context.run_as_user.is_some());
    }
    assert!(volumes.into_iter().all(is_allowed));
}

#[test]
fn everything_but_the_one_container_that_redirects_is_restricted() {
    for case in cases() {
        if let Some(pod) = case.injected() {
            check(&pod);
        }
    }
}

#[test]
fn the_check_finds_what_the_standard_forbids() {
    let container = |context: &str| -> Container {
        serde_saphyr::from_str(&format!("{{name: a, securityContext: {context}}}")).unwrap()
    };
    let good = "runAsNonRoot: true, allowPrivilegeEscalation: false, seccompProfile: {type: RuntimeDefault}, capabilities: {drop: [ALL]}";
    assert!(against(&container(&format!("{{{good}}}"))).is_empty());
    for (bad, rule) in [
        ("privileged: true", "privileged"),
        ("runAsUser: 0", "runAsUser"),
        ("procMount: Unmasked", "procMount"),
    ] {
        assert_eq!(against(&container(&format!("{{{good}, {bad}}}"))), [rule]);
    }
    assert_eq!(against(&container("{}")).len(), 4);
}

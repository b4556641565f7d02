//! What is legal in a meshed pod and may still not do what its author expects. Injection goes ahead; the webhook and the
//! command line say it.

use api::Invalid;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::annotations::overlay;
use crate::config::Config;
use crate::parts::containers;

/// What the author of `pod` should know before it is injected with `config`: the field, and what may go wrong there.
#[must_use]
pub fn warnings(pod: &Pod, config: &Config) -> Vec<Invalid> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    // What is wrong is refused elsewhere.
    let Ok(config) = overlay(config, &annotations, &labels) else {
        return Vec::new();
    };
    containers(spec)
        .flat_map(|(field, container)| hooks(&field, container, &config))
        .collect()
}

/// The kubelet's call of a hook is plaintext from outside the mesh.
fn hooks(field: &str, container: &Container, config: &Config) -> Vec<Invalid> {
    let lifecycle = container.lifecycle.as_ref();
    let all = [
        ("postStart", lifecycle.and_then(|l| l.post_start.as_ref())),
        ("preStop", lifecycle.and_then(|l| l.pre_stop.as_ref())),
    ];
    let over_http = all
        .into_iter()
        .filter_map(|(name, hook)| Some((name, hook?.http_get.as_ref()?)));
    let to_pod = over_http.filter(|(_, http)| http.host.as_ref().is_none_or(String::is_empty));
    let redirected = to_pod.filter(|(_, http)| {
        let port = crate::probes::port_of(container, &http.port);
        port.is_none_or(|port| !config.skip_inbound_ports.contains(port))
    });
    let warned = redirected.map(|(name, _)| {
        Invalid::new(
            format!("{field}.lifecycle.{name}.httpGet"),
            "the kubelet calls this hook in plaintext, which is refused under strict mutual TLS: use exec, or list the port in hauberk.dev/skip-inbound-ports",
        )
    });
    warned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(annotations: &str, hook: &str) -> Vec<String> {
        let pod: Pod = serde_saphyr::from_str(&format!(
            "{{metadata: {{annotations: {{{annotations}}}}}, spec: {{containers: [{{name: app, ports: [{{name: web, containerPort: 80}}], lifecycle: {{preStop: {hook}}}}}]}}}}"
        ))
        .unwrap();
        let warnings = warnings(&pod, &Config::default());
        warnings.into_iter().map(|w| w.field).collect()
    }

    #[test]
    fn a_hook_that_strict_mutual_tls_would_refuse_is_told() {
        let field = ["spec.containers[app].lifecycle.preStop.httpGet"];
        assert_eq!(warned("", "{httpGet: {port: 80}}"), field);
        assert_eq!(warned("", "{httpGet: {port: web}}"), field);
        for (annotations, hook) in [
            ("hauberk.dev/skip-inbound-ports: '80'", "{httpGet: {port: web}}"),
            ("", "{httpGet: {port: 80, host: 192.0.2.1}}"),
            ("", "{exec: {command: [stop]}}"),
            ("", "{sleep: {seconds: 3}}"),
        ] {
            assert_eq!(warned(annotations, hook), Vec::<String>::new(), "{hook}");
        }
    }
}

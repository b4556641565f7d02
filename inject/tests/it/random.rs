//! Pods of any shape: what must hold whatever a pod looks like.

use inject::{Config, inject, patch};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::restricted;

fn probe() -> impl Strategy<Value = Value> {
    let port = prop_oneof![Just(json!("http")), (1u16..65535).prop_map(|p| json!(p))];
    prop_oneof![
        ("/[a-z$(){}\"\\\\ä?&=]{0,8}", port.clone()).prop_map(|(path, port)| json!({"httpGet": {"path": path, "port": port, "scheme": "HTTPS", "httpHeaders": [{"name": "A", "value": path}]}})),
        port.clone().prop_map(|port| json!({"httpGet": {"port": port}, "timeoutSeconds": 2})),
        port.clone().prop_map(|port| json!({"httpGet": {"port": port, "host": "192.0.2.1"}})),
        port.prop_map(|port| json!({"tcpSocket": {"port": port}, "periodSeconds": 1})),
        (1u16..65535, "[a-z.]{0,3}").prop_map(|(port, service)| json!({"grpc": {"port": port, "service": service}})),
        Just(json!({"exec": {"command": ["true"]}})),
    ]
}

fn container(name: String) -> impl Strategy<Value = Value> {
    let probes = (
        prop::option::of(probe()),
        prop::option::of(probe()),
        prop::option::of(probe()),
    );
    (probes, prop::option::of(0u32..1300), any::<bool>()).prop_map(
        move |((startup, ready, live), user, ports)| {
            let mut value = json!({"name": name, "ports": [{"name": "http", "containerPort": 8080}]});
            if ports {
                value["ports"][0]["protocol"] = json!("TCP");
            }
            for (field, probe) in [
                ("startupProbe", startup),
                ("readinessProbe", ready),
                ("livenessProbe", live),
            ] {
                if let Some(probe) = probe {
                    value[field] = probe;
                }
            }
            if let Some(user) = user {
                value["securityContext"] = json!({"runAsUser": user});
            }
            value
        },
    )
}

fn containers(prefix: &'static str, least: usize) -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(Just(()), least..4).prop_flat_map(move |list| {
        (0..list.len())
            .map(|i| container(format!("{prefix}{i}")))
            .collect::<Vec<_>>()
    })
}

fn annotations() -> impl Strategy<Value = Value> {
    let some = |name: &'static str, values: Vec<&'static str>| {
        prop::option::of(prop::sample::select(values))
            .prop_map(move |value| value.map(|v| (name.to_owned(), json!(v))))
    };
    (
        some("hauberk.dev/skip-inbound-ports", vec!["", "8080", "1-1000,9000"]),
        some(
            "hauberk.dev/skip-outbound-cidrs",
            vec!["10.0.0.0/8", "fd00::/8, 192.0.2.7"],
        ),
        some("hauberk.dev/drain-timeout", vec!["1s", "90s", "1500ms"]),
        some("hauberk.dev/proxy-cpu-limit", vec!["50m", "1.5", "100"]),
        some("example.org/other", vec!["x"]),
    )
        .prop_map(|(a, b, c, d, e)| Value::Object([a, b, c, d, e].into_iter().flatten().collect()))
}

fn pod() -> impl Strategy<Value = Pod> {
    let own = (
        containers("app", 1),
        prop::option::of(containers("init", 0)),
        any::<u8>(),
    );
    (
        own,
        prop::option::of(annotations()),
        prop::option::of(0i64..200),
        any::<[bool; 4]>(),
    )
        .prop_map(
            |((apps, init, goes_on), annotations, grace, [volumes, empty, labels, secrets])| {
                let mut pod = json!({"metadata": {}, "spec": {"containers": apps}});
                if let Some(mut init) = init {
                    for (i, container) in init.iter_mut().enumerate() {
                        if goes_on >> (i % 8) & 1 == 1 {
                            container["restartPolicy"] = json!("Always");
                        }
                    }
                    pod["spec"]["initContainers"] = json!(init);
                }
                if let Some(annotations) = annotations {
                    pod["metadata"]["annotations"] = annotations;
                }
                if let Some(grace) = grace {
                    pod["spec"]["terminationGracePeriodSeconds"] = json!(grace);
                }
                if volumes {
                    pod["spec"]["volumes"] = if empty {
                        json!([])
                    } else {
                        json!([{"name": "v", "emptyDir": {}}])
                    };
                }
                if labels {
                    pod["metadata"]["labels"] = json!({"app": "web"});
                }
                if secrets {
                    pod["spec"]["imagePullSecrets"] = json!([{"name": "mirror"}]);
                }
                serde_json::from_value(pod).expect("a pod")
            },
        )
}

fn config() -> impl Strategy<Value = Config> {
    (any::<[bool; 2]>(), prop::sample::select(vec!["", "22,8080"])).prop_map(|([native, secrets], skip)| {
        Config {
            native,
            image_pull_secrets: if secrets {
                vec!["mirror".to_owned(), "more".to_owned()]
            } else {
                Vec::new()
            },
            skip_inbound_ports: skip.parse().expect("ports"),
            ..Config::default()
        }
    })
}

/// The application's own containers, without what injection may change.
fn applications(pod: &Pod) -> Vec<(String, Value)> {
    let spec = pod.spec.as_ref().expect("a pod has one");
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let own = all.filter(|c| !c.name.starts_with("hauberk-"));
    own.map(|c| {
        let mut c = c.clone();
        (c.startup_probe, c.readiness_probe, c.liveness_probe) = (None, None, None);
        (c.name.clone(), serde_json::to_value(c).expect("a container"))
    })
    .collect()
}

proptest! {
    #[test]
    fn injecting_twice_is_injecting_once(pod in pod(), config in config(), other in config()) {
        let once = inject(&pod, "shop", &config).unwrap();
        prop_assert_eq!(&inject(&once, "shop", &config).unwrap(), &once);
        // Through another installation and back: nothing of it is left, once it has been there.
        let there = inject(&once, "shop", &other).unwrap();
        let back = inject(&there, "shop", &config).unwrap();
        prop_assert_eq!(&inject(&inject(&back, "shop", &other).unwrap(), "shop", &config).unwrap(), &back);
    }

    #[test]
    fn the_application_stays_what_it_was(pod in pod(), config in config()) {
        let injected = inject(&pod, "shop", &config).unwrap();
        prop_assert_eq!(applications(&injected), applications(&pod));
        restricted::check(&injected);
        let (before, after) = (pod.spec.as_ref().unwrap(), injected.spec.as_ref().unwrap());
        let grace = |g: Option<i64>| g.unwrap_or(30);
        prop_assert!(grace(after.termination_grace_period_seconds) >= grace(before.termination_grace_period_seconds));
        let mut value = serde_json::to_value(&pod).unwrap();
        json_patch::patch(&mut value, &patch(&pod, &injected)).unwrap();
        prop_assert_eq!(value, serde_json::to_value(&injected).unwrap());
    }

    #[test]
    fn the_redirect_comes_before_the_proxy_and_the_proxy_before_the_application(pod in pod(), config in config()) {
        let injected = inject(&pod, "shop", &config).unwrap();
        let spec = injected.spec.unwrap();
        let init: Vec<_> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
        if init.contains(&"hauberk-proxy") {
            prop_assert_eq!(&init[..2], ["hauberk-init", "hauberk-proxy"]);
        } else {
            prop_assert_eq!(init.last(), Some(&"hauberk-init"));
            prop_assert_eq!(spec.containers[0].name.as_str(), "hauberk-proxy");
            // Nobody waits for a probe that only a proxy could answer which does not run yet.
            prop_assert!(spec.init_containers.iter().flatten().all(|c| c.restart_policy.is_none()));
        }
    }
}

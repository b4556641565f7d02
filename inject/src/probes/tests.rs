use super::*;

fn spec(yaml: &str) -> PodSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

fn rewritten(container: &str) -> (PodSpec, Result<Targets, Vec<Invalid>>) {
    let mut spec = spec(&format!("containers: [{container}]"));
    let targets = rewrite(&mut spec, &"9000".parse().unwrap());
    (spec, targets)
}

#[test]
fn a_probe_over_the_network_goes_to_the_proxy_with_its_thresholds() {
    for (probe, target) in [
        (
            "httpGet: {port: 8080}",
            r#"{"kind":"http","port":8080,"scheme":"HTTP","path":"/","timeoutSeconds":3}"#,
        ),
        (
            "httpGet: {port: web, path: /ok?a=b, scheme: HTTPS, httpHeaders: [{name: Host, value: x}]}",
            r#"{"kind":"http","port":8443,"scheme":"HTTPS","path":"/ok?a=b","headers":[{"name":"Host","value":"x"}],"timeoutSeconds":3}"#,
        ),
        (
            "tcpSocket: {port: '5432'}",
            r#"{"kind":"tcp","port":5432,"timeoutSeconds":3}"#,
        ),
        (
            "grpc: {port: 50051, service: ''}",
            r#"{"kind":"grpc","port":50051,"timeoutSeconds":3}"#,
        ),
        (
            "grpc: {port: 50051, service: live}",
            r#"{"kind":"grpc","port":50051,"service":"live","timeoutSeconds":3}"#,
        ),
    ] {
        let rest = "timeoutSeconds: 3, failureThreshold: 7, periodSeconds: 2";
        let (spec, targets) = rewritten(&format!(
            "{{name: app, ports: [{{name: web, containerPort: 8443}}], readinessProbe: {{{probe}, {rest}}}}}"
        ));
        let probe = spec.containers[0].readiness_probe.clone().unwrap();
        let expected: Probe = serde_saphyr::from_str(&format!(
            "{{httpGet: {{port: 15020, path: /probe/app/readiness, scheme: HTTP}}, {rest}}}"
        ))
        .unwrap();
        assert_eq!(probe, expected);
        let targets = targets.unwrap();
        assert_eq!(
            serde_json::to_string(&targets).unwrap(),
            format!("{{\"app/readiness\":{target}}}")
        );
    }
}

#[test]
fn every_kind_of_probe_has_a_key_of_its_own_and_hooks_stay() {
    let http = "{httpGet: {port: 80}}";
    let hooks = format!("{{postStart: {http}, preStop: {http}}}");
    let (after, targets) = rewritten(&format!(
        "{{name: app, startupProbe: {http}, livenessProbe: {http}, readinessProbe: {http}, lifecycle: {hooks}}}"
    ));
    let targets = targets.unwrap();
    let keys: Vec<_> = targets.keys().map(String::as_str).collect();
    assert_eq!(keys, ["app/liveness", "app/readiness", "app/startup"]);
    // A second, unless the probe says more.
    assert_eq!(targets["app/startup"].timeout_seconds, 1);
    let lifecycle = after.containers[0].lifecycle.clone();
    assert_eq!(lifecycle, Some(serde_saphyr::from_str(&hooks).unwrap()));
}

#[test]
fn what_does_not_pass_the_redirect_stays_as_it_is() {
    for probe in [
        "exec: {command: ['true']}",
        "httpGet: {port: 80, host: 192.0.2.1}",
        "tcpSocket: {port: 80, host: db.example}",
        "httpGet: {port: 9000}",
        "tcpSocket: {port: 9000}",
        "grpc: {port: 9000}",
    ] {
        let container = format!("{{name: app, livenessProbe: {{{probe}}}}}");
        let (after, targets) = rewritten(&container);
        assert_eq!(after, spec(&format!("containers: [{container}]")), "{probe}");
        assert_eq!(targets, Ok(Targets::new()), "{probe}");
    }
}

#[test]
fn a_port_that_nobody_has_is_refused() {
    for (container, field) in [
        (
            "{name: app, readinessProbe: {httpGet: {port: web}}}",
            "spec.containers[app].readinessProbe.httpGet.port",
        ),
        (
            "{name: app, startupProbe: {tcpSocket: {port: 0}}}",
            "spec.containers[app].startupProbe.tcpSocket.port",
        ),
        (
            "{name: app, startupProbe: {grpc: {port: 70000}}}",
            "spec.containers[app].startupProbe.grpc.port",
        ),
    ] {
        let problems = rewritten(container).1.unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].field, field);
        assert!(
            problems[0].problem.contains("write the number")
                || problems[0].problem.contains("write a number"),
            "{problems:?}"
        );
    }
}

#[test]
fn init_containers_are_probed_only_when_they_go_on() {
    let probe = "readinessProbe: {httpGet: {port: 80}}";
    let mut spec = spec(&format!(
        "initContainers: [{{name: once, {probe}}}, {{name: beside, restartPolicy: Always, {probe}}}]\ncontainers: []"
    ));
    let targets = rewrite(&mut spec, &Ports::default()).unwrap();
    assert_eq!(targets.keys().collect::<Vec<_>>(), ["beside/readiness"]);
}

#[test]
fn what_was_rewritten_is_restored() {
    let mut spec = spec(
        "containers:
        - name: app
          readinessProbe: {httpGet: {port: 80, path: /a, scheme: HTTPS, httpHeaders: [{name: A, value: b}]}, periodSeconds: 1}
          livenessProbe: {grpc: {port: 81, service: s}, timeoutSeconds: 1}
          startupProbe: {tcpSocket: {port: 82}}",
    );
    let before = spec.clone();
    let targets = rewrite(&mut spec, &Ports::default()).unwrap();
    assert_ne!(spec, before);
    let mut unknown = spec.clone();
    assert!(restore(&mut spec, &targets).is_empty());
    assert_eq!(spec, before);
    let problems = restore(&mut unknown, &Targets::new());
    assert_eq!(problems.len(), 3, "{problems:?}");
}

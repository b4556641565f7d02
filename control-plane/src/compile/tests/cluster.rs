use std::time::Duration;

use api::{Balancer, ClientCertificate, ClientTls, Cluster, ProxyProtocol, TlsMode, Tunnel, TunnelMethod};

use super::*;
use crate::state::Dependency;
use crate::state::testing::*;

fn cluster_for(world: &World, namespace: &str, name: &str) -> Result<Cluster, String> {
    let proxy = world.proxy(namespace, "p", "p");
    match compiled(world, &proxy, Kind::Cluster, name).resource.body {
        Body::Cluster(cluster) => Ok(*cluster),
        Body::Absent(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

const NAME: &str = "reviews.shop.svc.cluster.local:9080";

fn balancer(simple: &str) -> String {
    format!("  host: reviews.shop\n  trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}")
}

#[test]
fn without_a_rule_every_default_holds() {
    let world = world(&shop());
    assert_eq!(cluster_for(&world, "shop", NAME), Ok(Cluster::of(NAME)));
}

#[test]
fn the_clients_namespace_goes_before_the_services_and_that_before_the_root() {
    let client = object("DestinationRule", "client", "c", &balancer("RANDOM"));
    let own = object("DestinationRule", "shop", "s", &balancer("ROUND_ROBIN"));
    let root = object("DestinationRule", "hauberk-system", "r", &balancer("PEAK_EWMA"));
    let stranger = object("DestinationRule", "stranger", "x", &balancer("RANDOM"));
    let seen = |objects: &[&String], from: &str| {
        let rules: String = objects.iter().map(|o| o.as_str()).collect();
        let cluster = cluster_for(&world(&(shop() + &rules)), from, NAME).unwrap();
        (
            cluster.balancer,
            cluster
                .sources
                .iter()
                .map(|s| s.namespace.clone())
                .collect::<Vec<_>>(),
        )
    };
    let from = |ns: &str| vec![ns.to_owned()];
    assert_eq!(
        seen(&[&client, &own, &root], "client"),
        (Balancer::Random, from("client"))
    );
    assert_eq!(
        seen(&[&client, &own, &root], "shop"),
        (Balancer::RoundRobin, from("shop"))
    );
    assert_eq!(
        seen(&[&client, &own, &root], "elsewhere"),
        (Balancer::RoundRobin, from("shop"))
    );
    assert_eq!(
        seen(&[&client, &root], "elsewhere"),
        (Balancer::PeakEwma, from("hauberk-system"))
    );
    assert_eq!(seen(&[&stranger], "elsewhere"), (Balancer::LeastRequest, vec![]));
}

const EVERY_FIELD: &str = "  host: reviews
  trafficPolicy:
    loadBalancer: {simple: LEAST_CONN}
    connectionPool:
      tcp:
        maxConnections: 1
        connectTimeout: 2s
        maxConnectionDuration: 3s
        idleTimeout: 0s
        tcpKeepalive: {probes: 4, time: 5s, interval: 6s}
      http:
        http1MaxPendingRequests: 7
        http2MaxRequests: 8
        maxRequestsPerConnection: 0
        maxRetries: 9
        idleTimeout: 10s
        h2UpgradePolicy: DO_NOT_UPGRADE
        maxConcurrentStreams: 16
        http2KeepAlive: {interval: 17s, timeout: 18s}
    outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, splitExternalLocalOriginErrors: true, outlierDetectionHttpErrorCodes: [429, 503]}
    circuitBreaker: {failureThreshold: 11, recoveryTimeout: 12s, halfOpenRequests: 13}
    tls: {mode: ISTIO_MUTUAL}
    retryBudget: {percent: 14, minRetryConcurrency: 15, budgetInterval: 19s}";

#[test]
fn the_upgrade_to_http2_is_as_the_policy_says() {
    for (http, expected) in [
        ("{maxRetries: 1}", (true, false)),
        ("{h2UpgradePolicy: DEFAULT}", (true, false)),
        ("{h2UpgradePolicy: UPGRADE}", (true, true)),
        ("{h2UpgradePolicy: DO_NOT_UPGRADE}", (false, false)),
        ("{useClientProtocol: true}", (false, false)),
        (
            "{useClientProtocol: true, h2UpgradePolicy: UPGRADE}",
            (false, false),
        ),
        (
            "{useClientProtocol: false, h2UpgradePolicy: UPGRADE}",
            (true, true),
        ),
    ] {
        let spec = format!("  host: reviews\n  trafficPolicy: {{connectionPool: {{http: {http}}}}}");
        let world = world(&(shop() + &destination_rule("r", &spec)));
        let cluster = cluster_for(&world, "shop", NAME).unwrap();
        let seen = (cluster.upgrade_to_http2, cluster.upgrade_outside_mesh);
        assert_eq!(seen, expected, "{http}");
    }
}

#[test]
fn every_field_reaches_the_cluster() {
    let rule = destination_rule("all", EVERY_FIELD);
    let cluster = cluster_for(&world(&(shop() + &rule)), "shop", NAME).unwrap();
    let secs = |n| Some(Duration::from_secs(n));
    assert_eq!(
        (cluster.balancer, cluster.tls),
        (Balancer::LeastRequest, TlsMode::Mutual)
    );
    assert_eq!(
        (cluster.connect_timeout, cluster.upgrade_to_http2),
        (Duration::from_secs(2), false)
    );
    let limits = cluster.limits;
    let numbers = [
        limits.max_connections,
        limits.max_pending_requests,
        limits.max_requests,
        limits.max_retries,
    ];
    assert_eq!(numbers.map(|n| n.unwrap().get()), [1, 7, 8, 9]);
    assert_eq!(limits.max_requests_per_connection, None);
    assert_eq!(limits.max_concurrent_streams.map(|n| n.get()), Some(16));
    let pings = cluster.http2_keepalive.unwrap();
    assert_eq!((Some(pings.interval), Some(pings.timeout)), (secs(17), secs(18)));
    assert_eq!(cluster.retry_budget.interval, secs(19));
    let timeouts = cluster.timeouts;
    assert_eq!(
        (timeouts.http_idle, timeouts.tcp_idle, timeouts.max_connection),
        (secs(10), None, secs(3))
    );
    let keepalive = cluster.keepalive.unwrap();
    assert_eq!(
        (
            keepalive.probes.unwrap().get(),
            keepalive.time,
            keepalive.interval
        ),
        (4, secs(5), secs(6))
    );
    let outlier = cluster.outlier.unwrap();
    assert_eq!(
        (
            outlier.consecutive_5xx,
            outlier.consecutive_gateway_errors.unwrap().get()
        ),
        (None, 3)
    );
    assert_eq!(outlier.consecutive_local_failures.map(|n| n.get()), Some(5));
    assert_eq!(
        (outlier.interval, outlier.base_ejection),
        (Duration::from_secs(10), Duration::from_secs(30))
    );
    assert_eq!(
        (
            outlier.split_local_errors,
            outlier.max_ejection_percent,
            outlier.min_health_percent
        ),
        (true, 10, 0)
    );
    let codes: Vec<_> = outlier
        .error_codes
        .iter()
        .flat_map(|codes| codes.iter())
        .collect();
    assert_eq!(codes, [429, 503]);
    let breaker = cluster.breaker.unwrap();
    assert_eq!(
        (breaker.failure_threshold.get(), breaker.half_open_requests.get()),
        (11, 13)
    );
    assert_eq!(breaker.recovery, Duration::from_secs(12));
    assert_eq!(
        (cluster.retry_budget.percent, cluster.retry_budget.min_concurrency),
        (14.0, 15)
    );
}

#[test]
fn the_modes_of_tls_and_the_balancers_are_told_apart() {
    let with_policy = |policy: &str| {
        let rule = destination_rule("d", &format!("  host: reviews\n  trafficPolicy: {policy}"));
        cluster_for(&world(&(shop() + &rule)), "shop", NAME).unwrap()
    };
    for (policy, expected) in [
        ("{loadBalancer: {}}", TlsMode::Auto),
        ("{tls: {}}", TlsMode::Disable),
        ("{tls: {mode: DISABLE}}", TlsMode::Disable),
        ("{tls: {mode: ISTIO_MUTUAL}}", TlsMode::Mutual),
    ] {
        assert_eq!(with_policy(policy).tls, expected, "{policy}");
    }
    for (simple, expected) in [
        ("UNSPECIFIED", Balancer::LeastRequest),
        ("LEAST_REQUEST", Balancer::LeastRequest),
        ("RANDOM", Balancer::Random),
        ("ROUND_ROBIN", Balancer::RoundRobin),
        ("PEAK_EWMA", Balancer::PeakEwma),
    ] {
        assert_eq!(
            with_policy(&format!("{{loadBalancer: {{simple: {simple}}}}}")).balancer,
            expected
        );
    }
}

#[test]
fn tls_to_servers_outside_the_mesh_reaches_the_cluster_field_by_field() {
    let with_tls = |tls: &str| {
        let rule = destination_rule("d", &format!("  host: reviews\n  trafficPolicy: {{tls: {tls}}}"));
        cluster_for(&world(&(shop() + &rule)), "shop", NAME).unwrap().tls
    };
    let outside = |tls| TlsMode::Originate(std::sync::Arc::new(tls));
    assert_eq!(with_tls("{mode: SIMPLE}"), outside(ClientTls::default()));
    let insecure = ClientTls {
        insecure_skip_verify: true,
        ..ClientTls::default()
    };
    assert_eq!(
        with_tls("{mode: SIMPLE, insecureSkipVerify: true}"),
        outside(insecure)
    );
    let all =
        "{mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /r, caCrl: /l, sni: s.test,
        subjectAltNames: [a.test, b.test]}";
    assert_eq!(
        with_tls(all),
        outside(ClientTls {
            certificate: Some(ClientCertificate {
                chain: "/c".to_owned(),
                key: "/k".to_owned(),
            }),
            ca_certificates: Some("/r".to_owned()),
            ca_crl: Some("/l".to_owned()),
            subject_alt_names: vec!["a.test".to_owned(), "b.test".to_owned()],
            sni: Some("s.test".to_owned()),
            insecure_skip_verify: false,
        })
    );
}

#[test]
fn tunnels_and_announcements_reach_the_cluster() {
    let made = |policy: &str| {
        let rule = destination_rule("d", &format!("  host: reviews\n  trafficPolicy: {policy}"));
        cluster_for(&world(&(shop() + &rule)), "shop", NAME).unwrap()
    };
    for (protocol, method) in [
        ("", TunnelMethod::Connect),
        ("protocol: CONNECT, ", TunnelMethod::Connect),
        ("protocol: POST, ", TunnelMethod::Post),
    ] {
        // A port's entry has no tunnel of its own to replace it.
        let cluster = made(&format!(
            "{{tunnel: {{{protocol}targetHost: far.example, targetPort: 443}}, portLevelSettings: [{{port: {{number: 9080}}}}]}}"
        ));
        let host = "far.example".to_owned();
        assert_eq!(
            cluster.tunnel.as_deref(),
            Some(&Tunnel {
                method,
                host,
                port: 443
            })
        );
    }
    for (version, expected) in [
        ("{}", ProxyProtocol::V1),
        ("{version: V1}", ProxyProtocol::V1),
        ("{version: V2}", ProxyProtocol::V2),
    ] {
        let cluster = made(&format!("{{proxyProtocol: {version}, tls: {{mode: DISABLE}}}}"));
        assert_eq!(cluster.proxy_protocol, Some(expected));
    }
}

#[test]
fn a_subset_has_its_labels_and_says_who_defines_it() {
    let second = destination_rule(
        "s-second",
        "  host: reviews
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
  subsets: [{name: v2, labels: {version: other}}, {name: v3, labels: {version: v3}}]",
    );
    let world = world(&[shop(), reviews_subsets(), second].concat());
    let v2 = cluster_for(&world, "shop", &format!("{NAME}|v2")).unwrap();
    assert_eq!(
        format!("{:?}", v2.subset),
        r#"{"version": "v2"}"#,
        "the older object has the name"
    );
    assert_eq!((v2.balancer, v2.endpoints.as_str()), (Balancer::Random, NAME));
    let names: Vec<_> = v2.sources.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["reviews", "s-second"]);
    assert!(cluster_for(&world, "shop", &format!("{NAME}|v3")).is_ok());
    let reason = cluster_for(&world, "shop", &format!("{NAME}|v4")).unwrap_err();
    assert!(
        reason.contains("`v4`") && reason.contains("v1, v2, v3"),
        "{reason}"
    );
}

#[test]
fn a_subset_that_only_some_clients_see_is_absent_for_the_others() {
    let rule = object(
        "DestinationRule",
        "client",
        "d",
        "  host: reviews.shop\n  subsets: [{name: mine}]",
    );
    let world = world(&[shop(), reviews_subsets(), rule].concat());
    assert!(cluster_for(&world, "client", &format!("{NAME}|mine")).is_ok());
    assert!(cluster_for(&world, "shop", &format!("{NAME}|mine")).is_err());
    let reason = cluster_for(&world, "client", &format!("{NAME}|v1")).unwrap_err();
    assert!(
        reason.contains("namespace `client`") && reason.contains("there is mine"),
        "{reason}"
    );
}

/// A world in which clients `web` and `far` are in regions of their own, under a rule by where endpoints are.
fn places(setting: &str, more: &str) -> std::sync::Arc<World> {
    let in_region = |pod: String, region: &str| {
        pod.replace(
            "injected: 'true'",
            &format!("injected: 'true', topology.kubernetes.io/region: {region}"),
        )
    };
    let spec =
        format!("  host: reviews\n  trafficPolicy: {{loadBalancer: {{localityLbSetting: {setting}}}{more}}}");
    world(
        &[
            shop(),
            in_region(pod("web", "web", "v1", "10.1.0.9"), "r1"),
            in_region(pod("far", "web", "v1", "10.1.0.10"), "r2"),
            destination_rule("reviews", &spec),
        ]
        .concat(),
    )
}

#[test]
fn a_rule_by_place_is_made_for_where_the_proxy_is() {
    let locality = |world: &World, pod: &str| {
        let compiled = compiled(world, &world.proxy("shop", pod, "web"), Kind::Cluster, NAME);
        let own = Dependency::pod(&crate::state::ObjectName::new("shop", pod));
        assert!(compiled.depends.contains(&own) && compiled.aspects.labels && compiled.aspects.zone);
        assert!(!compiled.aspects.pod, "proxies of one place and kind share it");
        match compiled.resource.body {
            Body::Cluster(cluster) => cluster.locality,
            other => panic!("{other:?}"),
        }
    };
    let ejects = ", outlierDetection: {}";
    let region =
        |name: &str| api::Place::from([("topology.kubernetes.io/region".to_owned(), name.to_owned())]);
    let both = places("{failover: [{from: r1, to: r3}]}", ejects);
    assert_eq!(
        locality(&both, "web"),
        Some(api::Locality::Levels(vec![region("r1"), region("r3")]))
    );
    assert_eq!(
        locality(&both, "far"),
        Some(api::Locality::Levels(vec![region("r2")]))
    );
    assert_eq!(
        locality(&places("{failover: [{from: r1, to: r3}]}", ""), "web"),
        None
    );
    let shares = places("{distribute: [{from: r1, to: {r2: 100}}]}", "");
    assert!(matches!(locality(&shares, "web"), Some(api::Locality::Shares(_))));
    assert_eq!(locality(&shares, "far"), None);
}

#[test]
fn a_node_is_asked_for_where_labels_name_it() {
    let world = places(
        "{failoverPriority: [kubernetes.io/hostname]}",
        ", outlierDetection: {}",
    );
    let (world, _) = with(
        &world,
        &pod("web", "web", "v1", "10.1.0.9").replace("containers: []", "containers: [], nodeName: n1"),
    );
    let compiled = compiled(&world, &web(&world), Kind::Cluster, NAME);
    assert!(compiled.aspects.pod);
    let Body::Cluster(cluster) = compiled.resource.body else {
        panic!("no cluster")
    };
    let node = api::Place::from([("kubernetes.io/hostname".to_owned(), "n1".to_owned())]);
    assert_eq!(cluster.locality, Some(api::Locality::Levels(vec![node])));
}

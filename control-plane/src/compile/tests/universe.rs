//! A small universe of objects, each in several versions, for tests by chance.

use crds::{Object, ObjectKey};
use proptest::prelude::*;

use crate::source::Change;
use crate::state::testing::{object, objects};

/// Each inner list: the versions of one object, the last one bad in some way where there is a way.
pub(super) fn versions() -> Vec<Vec<String>> {
    let mut all = vec![
        services("shop", "a", &["10.0.0.1", "10.0.0.2", "None"]),
        services("shop", "b", &["10.0.0.2", "10.0.0.3"]),
        services("other", "c", &["10.0.0.3"]),
    ];
    all.extend(["p1", "p2"].map(|name| pods("shop", name)));
    all.push(pods("other", "p3"));
    all.push(slices("s1", "a"));
    all.push(slices("s2", "b"));
    all.push(virtual_services("v1", "[a]"));
    all.push(virtual_services("v2", "[b, a]"));
    all.push(virtual_services("v3", "['*.shop.svc.cluster.local', c.other]"));
    all.push(leaves());
    all.push(destination_rules("shop", "d1", "a"));
    all.push(destination_rules("shop", "d5", "'*.shop.svc.cluster.local'"));
    all.push(destination_rules("other", "d6", "'*'"));
    all.push(destination_rules("shop", "d2", "a.shop"));
    all.push(destination_rules("other", "d3", "a.shop"));
    all.push(destination_rules(
        "hauberk-system",
        "d4",
        "b.shop.svc.cluster.local",
    ));
    all.extend(["shop", "other", "hauberk-system"].map(peers));
    all
}

fn services(namespace: &str, name: &str, addresses: &[&str]) -> Vec<String> {
    let mut versions = Vec::new();
    for address in addresses {
        for ports in [
            "[{name: http, port: 80, targetPort: 8080}]",
            "[{name: http, port: 80, targetPort: web}, {name: tcp, port: 81, targetPort: 8081}]",
        ] {
            for app in ["p", "q"] {
                versions.push(format!(
                    "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}},
                      spec: {{clusterIP: {address}, selector: {{app: {app}}}, ports: {ports}}}}}"
                ));
            }
        }
        versions.push(format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}},
              spec: {{clusterIP: {address}, trafficDistribution: PreferClose, selector: {{app: p}},
                ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}"
        ));
    }
    versions.push(format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}},
          spec: {{type: ExternalName, externalName: example.com}}}}"
    ));
    versions
}

fn pods(namespace: &str, name: &str) -> Vec<String> {
    let mut versions = Vec::new();
    for address in ["10.1.0.1", "10.1.0.2"] {
        for labels in ["app: p, version: v1", "app: q, version: v2"] {
            for more in [
                "",
                ", annotations: {hauberk.dev/weight: '5'}",
                ", annotations: {hauberk.dev/weight: bad}",
            ] {
                let node = if more.is_empty() { "n1" } else { "n2" };
                let injected = !labels.contains("app: q") || more.is_empty();
                versions.push(format!(
                    "{{apiVersion: v1, kind: Pod,
                      metadata: {{name: {name}, namespace: {namespace}{more}, labels: {{{labels}, hauberk.dev/injected: '{injected}'}}}},
                      spec: {{serviceAccountName: sa, nodeName: {node}, containers: [{{name: c, ports: [{{name: web, containerPort: 8080}}]}}]}},
                      status: {{podIP: {address}}}}}"
                ));
            }
        }
    }
    versions
}

fn slices(name: &str, service: &str) -> Vec<String> {
    let entries = [
        "[]",
        "[{addresses: [10.1.0.1], targetRef: {kind: Pod, name: p1}}]",
        "[{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], conditions: {ready: false}}]",
        "[{addresses: [10.1.0.1], targetRef: {kind: Pod, name: p1}}, {addresses: [10.1.0.2], zone: z}]",
        "[{addresses: [10.1.0.2], targetRef: {kind: Pod, name: p2}}, {addresses: [10.1.0.1], targetRef: {kind: Pod, name: p3, namespace: other}}]",
        "[{addresses: [10.1.0.1], nodeName: n1, zone: z, targetRef: {kind: Pod, name: p1}}, {addresses: [10.1.0.2], nodeName: n2, zone: z9}]",
        "[{addresses: [10.1.0.1], nodeName: n1, zone: z9, hints: {forZones: [{name: z9}]}}, {addresses: [10.1.0.2], zone: z, hints: {forZones: [{name: z}]}}]",
        "[{addresses: [10.1.0.1], conditions: {ready: false, serving: true, terminating: true}, targetRef: {kind: Pod, name: p1}}]",
    ];
    let ports = [
        "[{name: http, port: 8080}]",
        "[{name: http, port: 8080}, {name: tcp, port: 8081}]",
    ];
    let version = |(entries, ports): (&str, &str)| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
              metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}},
              addressType: IPv4, ports: {ports}, endpoints: {entries}}}"
        )
    };
    entries
        .into_iter()
        .flat_map(|e| ports.map(|p| (e, p)))
        .map(version)
        .collect()
}

fn virtual_services(name: &str, hosts: &str) -> Vec<String> {
    let http = [
        "{route: [{destination: {host: a, subset: v1}, weight: 1}, {destination: {host: c.other}, weight: 3}]}",
        "{match: [{sourceLabels: {app: p}}], route: [{destination: {host: b}}]}",
        "{match: [{port: 81, uri: {prefix: /}}], route: [{destination: {host: a, port: {number: 81}}}]}",
        "{match: [{sourceNamespace: other}], directResponse: {status: 200}}",
        "{match: [{uri: {prefix: /x}}], timeout: 1s, delegate: {name: leaf}}",
        "{route: [{destination: {host: a}, weight: -1}]}",
    ];
    let spec = |rule: &str| format!("  hosts: {hosts}\n  http: [{rule}]");
    let mut versions: Vec<_> = http
        .map(|rule| object("VirtualService", "shop", name, &spec(rule)))
        .into();
    let tcp = format!("  hosts: {hosts}\n  tcp: [{{route: [{{destination: {{host: b}}}}]}}]");
    versions.insert(0, object("VirtualService", "shop", name, &tcp));
    for to in ["[other]", "[.]", "['~']"] {
        let exported = format!("{}\n  exportTo: {to}", spec(http[1]));
        versions.insert(0, object("VirtualService", "shop", name, &exported));
    }
    versions
}

/// An object that others delegate to.
fn leaves() -> Vec<String> {
    let http = [
        "{route: [{destination: {host: b}}]}",
        "{match: [{sourceLabels: {app: p}}], route: [{destination: {host: a, subset: v1}}]}",
        "{match: [{uri: {prefix: /x/y}, sourceNamespace: other}], route: [{destination: {host: a}}]}",
        "{match: [{uri: {prefix: /y}}], directResponse: {status: 200}}",
        "{delegate: {name: other}}",
    ];
    let spec = |rest: &str| object("VirtualService", "shop", "leaf", rest);
    let mut versions: Vec<_> = http.map(|rule| spec(&format!("  http: [{rule}]"))).into();
    versions.insert(0, spec(&format!("  exportTo: [other]\n  http: [{}]", http[0])));
    versions.insert(0, spec(&format!("  hosts: [b]\n  http: [{}]", http[0])));
    versions
}

fn destination_rules(namespace: &str, name: &str, host: &str) -> Vec<String> {
    let specs = [
        "subsets: [{name: v1, labels: {version: v1}}]",
        "subsets: [{name: v1, labels: {app: p}}, {name: v2}]",
        "trafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 81}, tls: {mode: DISABLE}}]}",
        "exportTo: [.]\n  subsets: [{name: v1, labels: {version: v2}}]",
        "exportTo: [other]\n  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}",
        "workloadSelector: {matchLabels: {app: q}}\n  subsets: [{name: v1}]",
        "trafficPolicy: {loadBalancer: {localityLbSetting: {failoverPriority: [app, kubernetes.io/hostname]}}, outlierDetection: {}}",
        "trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: true}}}",
        "trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}",
    ];
    let version = |spec| {
        object(
            "DestinationRule",
            namespace,
            name,
            &format!("  host: {host}\n  {spec}"),
        )
    };
    specs.map(version).into()
}

fn peers(namespace: &str) -> Vec<String> {
    let specs = [
        "mtls: {mode: DISABLE}",
        "mtls: {mode: STRICT}",
        "{selector: {matchLabels: {app: p}}, mtls: {mode: DISABLE}, portLevelMtls: {8080: {mode: STRICT}}}",
        "portLevelMtls: {8080: {mode: STRICT}}",
    ];
    let version = |spec| object("PeerAuthentication", namespace, "peers", &format!("  {spec}"));
    specs.map(version).into()
}

/// The universe, read.
pub(super) fn universe() -> Vec<(ObjectKey, Vec<Object>)> {
    let read = |versions: Vec<String>| {
        let versions: Vec<Object> = versions.iter().flat_map(|yaml| objects(yaml)).collect();
        (versions[0].key(), versions)
    };
    versions().into_iter().map(read).collect()
}

/// A change by chance: which object, and what becomes of it.
pub(super) fn change(universe: &[(ObjectKey, Vec<Object>)], which: usize, what: usize) -> Change {
    let (key, versions) = &universe[which % universe.len()];
    match what % (versions.len() + 1) {
        0 => Change::Remove(key.clone()),
        n => Change::Set(versions[n - 1].clone()),
    }
}

/// Batches of such changes.
pub(super) fn batches() -> impl Strategy<Value = Vec<Vec<(usize, usize)>>> {
    let change = (0..64_usize, prop_oneof![1 => Just(0_usize), 6 => 0..1000_usize]);
    proptest::collection::vec(proptest::collection::vec(change, 1..4), 1..40)
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::snapshot::{Cluster, Endpoint, Snapshot};
use crate::live::{ClusterLive, EndpointLive};

fn snapshot(clusters: &[&str]) -> Arc<Snapshot> {
    let endpoint = |n: u8| {
        let spec = api::Endpoint {
            address: ([10, 0, 0, n], 80).into(),
            weight: 1,
            identity: None,
            labels: BTreeMap::new(),
            zone: String::new(),
            pod: format!("pod-{n}"),
            topology: Default::default(),
        };
        let live = Arc::new(EndpointLive::new());
        Arc::new(Endpoint { spec, live })
    };
    let cluster = |name: &&str| {
        Arc::new(Cluster {
            name: (*name).into(),
            spec: Arc::new(api::Cluster::of(*name)),
            endpoints: vec![endpoint(1), endpoint(2)],
            weights: crate::balancer::Weights::default(),
            live: Arc::new(ClusterLive::new(*name)),
            absent: None,
        })
    };
    let inbound = api::Inbound {
        policy: api::TlsPolicy::Permissive,
        ports: vec![api::InboundPort {
            port: 8080,
            policy: None,
            protocol: None,
            service: "web.shop.svc.cluster.local".to_owned(),
        }],
        sources: Vec::new(),
        finished: false,
    };
    Arc::new(Snapshot {
        clusters: clusters.iter().map(cluster).collect(),
        inbound_ports: InboundPorts::default().of(&inbound),
        ..Snapshot::default()
    })
}

/// Metrics in which every series that can be has been counted once.
fn counted() -> (Current, Metrics) {
    let current = Current::default();
    current.store(snapshot(&["reviews:80"]));
    let metrics = Metrics::new(current.clone());
    let snapshot = current.load();
    let cluster = &snapshot.clusters[0].live.metrics;
    cluster.requests.inc(200);
    cluster.latency.observe(Duration::from_millis(3));
    cluster.grpc.inc(14);
    cluster.grpc.inc(400);
    for bound in crate::limits::Bound::ALL {
        cluster.overflow.inc(bound.field());
    }
    cluster.overflow.inc("a name from the future");
    cluster.connections_opened.add(3);
    cluster.connections_closed.inc();
    let port = snapshot.inbound_ports.get(8080);
    port.requests.inc(404);
    port.grpc.inc(0);
    metrics.error(Direction::Outbound, "timeout");
    metrics.config.nack(Some(api::Kind::Route));
    metrics.config.set_resources(api::Kind::Route, "active", 2);
    (current, metrics)
}

#[test]
fn what_workers_count_is_found_by_walking_the_snapshot() {
    let (current, metrics) = counted();
    let text = metrics.encode().expect("encodes");
    for line in [
        "hauberk_cluster_requests_total{cluster=\"reviews:80\",class=\"2xx\"} 1",
        "hauberk_cluster_request_duration_seconds_count{cluster=\"reviews:80\"} 1",
        "hauberk_cluster_grpc_responses_total{cluster=\"reviews:80\",grpc_status=\"14\"} 1",
        "hauberk_cluster_grpc_responses_total{cluster=\"reviews:80\",grpc_status=\"other\"} 1",
        "hauberk_cluster_overflow_total{cluster=\"reviews:80\",limit=\"maxConnections\"} 1",
        "hauberk_cluster_overflow_total{cluster=\"reviews:80\",limit=\"http2MaxRequests\"} 1",
        "hauberk_cluster_overflow_total{cluster=\"reviews:80\",limit=\"other\"} 1",
        "hauberk_cluster_connections_active{cluster=\"reviews:80\"} 2",
        "hauberk_cluster_endpoints{cluster=\"reviews:80\"} 2",
        "hauberk_endpoint_requests_active{cluster=\"reviews:80\",endpoint=\"10.0.0.1:80\",pod=\"pod-1\"} 0",
        "hauberk_inbound_requests_total{port=\"8080\",service=\"web.shop.svc.cluster.local\",class=\"4xx\"} 1",
        "hauberk_errors_total{direction=\"outbound\",flag=\"timeout\"} 1",
        "hauberk_config_nacks_total{kind=\"route\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(
        !text.contains("3xx"),
        "series that were never counted are left out"
    );

    // A cluster that goes takes its series with it.
    current.store(snapshot(&["ratings:80"]));
    let text = metrics.encode().expect("encodes");
    assert!(!text.contains("reviews:80") && text.contains("ratings:80"));
}

#[test]
fn a_port_that_stays_goes_on_counting_and_unknown_ones_share_one_series() {
    let inbound = |service: &str| api::Inbound {
        policy: api::TlsPolicy::Strict,
        ports: vec![api::InboundPort {
            port: 8080,
            policy: None,
            protocol: None,
            service: service.to_owned(),
        }],
        sources: Vec::new(),
        finished: false,
    };
    let first = InboundPorts::default().of(&inbound("web"));
    first.get(8080).requests.inc(200);
    for port in [1, 2, 65535] {
        first.get(port).requests.inc(200);
    }
    let second = first.of(&inbound("web"));
    assert_eq!(second.get(8080).requests.get(200), 1);
    assert_eq!(second.get(9999).requests.get(200), 3);
    assert_eq!(second.of(&inbound("other")).get(8080).requests.get(200), 0);
}

#[test]
fn a_scrape_is_well_formed() {
    let (_, metrics) = counted();
    let text = metrics.encode().expect("encodes");
    assert!(text.ends_with("# EOF\n"));
    let mut series = std::collections::HashSet::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("name and value");
        assert!(series.insert(name), "{name} appears twice");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(name.starts_with("hauberk_"), "{line}");
    }
}

/// `docs/metrics.md` lists what a scrape holds. `UPDATE=1 cargo test -p proxy metrics` writes it anew.
#[test]
fn the_documentation_lists_every_metric() {
    const BEGIN: &str = "<!-- proxy: begin, made by `UPDATE=1 cargo test -p proxy metrics` -->\n";
    const END: &str = "<!-- proxy: end -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let (_, metrics) = counted();
    let table = table(&metrics.encode().expect("encodes"));
    let page = std::fs::read_to_string(path).unwrap_or_default();
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("the mark where the proxy's metrics begin");
    let (documented, after) = rest.split_once(END).expect("the mark where they end");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).expect("writes");
        return;
    }
    assert_eq!(documented, table, "run `UPDATE=1 cargo test -p proxy metrics`");
}

/// One row a metric: name as scraped, type, labels, help.
fn table(text: &str) -> String {
    let mut rows = BTreeMap::new();
    let mut help = BTreeMap::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# HELP ") {
            let (name, text) = line.split_once(' ').expect("name and help");
            help.insert(name, text.trim_end_matches('.'));
        } else if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').expect("name and type");
            rows.insert(name, (kind, String::new()));
        } else if let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let family = rows
                .iter_mut()
                .rev()
                .find(|(family, _)| name.starts_with(**family));
            let (_, (_, known)) = family.expect("a type comes before its series");
            if known.is_empty() {
                let names = labels
                    .split("\",")
                    .filter_map(|l| l.split_once('='))
                    .map(|(n, _)| n);
                let names: Vec<_> = names.filter(|n| *n != "le").map(|n| format!("`{n}`")).collect();
                *known = names.join(", ");
            }
        }
    }
    let mut table = String::from("\n| Metric | Type | Labels | What it says |\n|---|---|---|---|\n");
    for (name, (kind, labels)) in rows {
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        table.push_str(&format!(
            "| `{name}{suffix}` | {kind} | {labels} | {} |\n",
            help[name]
        ));
    }
    table.push('\n');
    table
}

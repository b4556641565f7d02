//! A DestinationRule in the contract's types, block by block. Made once when the object changes; `compile::cluster` lays
//! the blocks of top, subset and port over the defaults.
//!
//! Whatever `crds::check` let through and the contract cannot carry is refused here, never dropped.

mod blocks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Cluster, Invalid};
use crds::DestinationRuleSpec;
use crds::destination_rule as crd;

use super::host::{Export, Host};

pub(crate) use blocks::{Blocks, Rule};

/// One DestinationRule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    /// The host as written.
    pub(crate) host: String,
    /// The host it is for.
    pub(crate) target: Host,
    /// The clients it is for, by namespace.
    pub(crate) export: Export,
    /// The clients of its own namespace it is for, by the labels of their pods; `None` for all clients.
    pub(crate) selector: Option<BTreeMap<String, String>>,
    /// For every endpoint; `None` when it has no `trafficPolicy`.
    pub(crate) top: Option<Levels>,
    pub(crate) subsets: Vec<Subset>,
}

/// A named version of a Service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subset {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) levels: Levels,
}

/// A traffic policy: for every port, and for single ports.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Levels {
    all: Blocks,
    ports: BTreeMap<u16, Blocks>,
}

impl Levels {
    /// Lays this policy over what is already decided, for one port: each block that is given replaces its like, and then
    /// an entry for the port replaces all of its blocks, given or not.
    pub(crate) fn lay_over(&self, decided: &mut Blocks, port: u16) {
        decided.replace(&self.all);
        if let Some(entry) = self.ports.get(&port) {
            decided.replace_wholesale(entry);
        }
    }
}

impl Levels {
    fn localities(&self) -> impl Iterator<Item = &Rule> {
        let blocks = std::iter::once(&self.all).chain(self.ports.values());
        blocks.filter_map(|blocks| blocks.locality().map(|rule| &**rule))
    }
}

impl Policy {
    /// Makes the policy of a DestinationRule in `namespace` ready, or says which fields cannot be.
    pub(crate) fn new(spec: &DestinationRuleSpec, namespace: &str) -> Result<Self, Vec<Invalid>> {
        let DestinationRuleSpec {
            host,
            traffic_policy,
            subsets,
            export_to,
            workload_selector,
        } = spec;
        let mut problems = Vec::new();
        let top = traffic_policy
            .as_ref()
            .map(|policy| levels(policy, "spec.trafficPolicy", &mut problems));
        let subset = |(i, subset): (usize, &crd::Subset)| {
            let crd::Subset {
                name,
                labels,
                traffic_policy,
            } = subset;
            let field = format!("spec.subsets[{i}].trafficPolicy");
            let policy = traffic_policy.as_ref();
            Subset {
                name: name.clone(),
                labels: labels.clone(),
                levels: policy
                    .map(|p| levels(p, &field, &mut problems))
                    .unwrap_or_default(),
            }
        };
        let subsets: Vec<Subset> = subsets.iter().enumerate().map(subset).collect();
        problems.extend(check_wire(top.as_ref(), &subsets));
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            host: host.clone(),
            target: Host::resolve(host, namespace),
            export: Export::new(export_to, namespace),
            selector: workload_selector
                .as_ref()
                .map(|selector| selector.match_labels.clone()),
            top,
            subsets,
        })
    }

    /// Its rules by where endpoints are, for whichever port and subset.
    pub(crate) fn localities(&self) -> impl Iterator<Item = &Rule> {
        let levels = self.top.iter().chain(self.subsets.iter().map(|s| &s.levels));
        levels.flat_map(Levels::localities)
    }

    /// The label keys that its subsets select on.
    pub(crate) fn label_keys(&self) -> BTreeSet<&str> {
        self.subsets
            .iter()
            .flat_map(|s| s.labels.keys())
            .map(String::as_str)
            .collect()
    }
}

fn levels(policy: &crd::TrafficPolicy, field: &str, problems: &mut Vec<Invalid>) -> Levels {
    let crd::TrafficPolicy {
        load_balancer,
        connection_pool,
        outlier_detection,
        circuit_breaker,
        tls,
        port_level_settings,
        tunnel,
        proxy_protocol,
        retry_budget,
    } = policy;
    let mut read = |field: &str, given: blocks::Given<'_>| match Blocks::new(given) {
        Ok(blocks) => blocks,
        Err(error) => {
            problems.push(error.under(field));
            Blocks::default()
        }
    };
    let all = read(
        field,
        blocks::Given {
            load_balancer: load_balancer.as_ref(),
            connection_pool: connection_pool.as_ref(),
            outlier_detection: outlier_detection.as_ref(),
            circuit_breaker: circuit_breaker.as_ref(),
            tls: tls.as_ref(),
            retry_budget: retry_budget.as_ref(),
            proxy_protocol: *proxy_protocol,
            tunnel: tunnel.as_ref(),
        },
    );
    let mut ports = BTreeMap::new();
    for (i, entry) in port_level_settings.iter().enumerate() {
        let crd::PortTrafficPolicy {
            port,
            load_balancer,
            connection_pool,
            outlier_detection,
            circuit_breaker,
            tls,
        } = entry;
        let field = format!("{field}.portLevelSettings[{i}]");
        let blocks = read(
            &field,
            blocks::Given {
                load_balancer: load_balancer.as_ref(),
                connection_pool: connection_pool.as_ref(),
                outlier_detection: outlier_detection.as_ref(),
                circuit_breaker: circuit_breaker.as_ref(),
                tls: tls.as_ref(),
                retry_budget: None,
                proxy_protocol: None,
                tunnel: None,
            },
        );
        // The check refuses numbers beyond 65535 and doubles; the first of two would win.
        if let Ok(number) = u16::try_from(port.number) {
            ports.entry(number).or_insert(blocks);
        }
    }
    Levels { all, ports }
}

/// Whether what connections begin with goes together once all layers are laid, for every port that one of them names.
fn check_wire(top: Option<&Levels>, subsets: &[Subset]) -> Vec<Invalid> {
    let fields = subsets
        .iter()
        .enumerate()
        .map(|(i, _)| format!("spec.subsets[{i}].trafficPolicy"));
    let fields = std::iter::once("spec.trafficPolicy".to_owned()).chain(fields);
    let levels = std::iter::once(None).chain(subsets.iter().map(|s| Some(&s.levels)));
    let check = |(field, over): (String, Option<&Levels>)| {
        let layers: Vec<&Levels> = top.into_iter().chain(over).collect();
        if !layers.iter().any(|levels| levels.all.announces()) {
            return None;
        }
        let named = layers.iter().flat_map(|levels| levels.ports.keys());
        // And one that none of them names.
        let problem = named.copied().chain([0]).find_map(|port| {
            let mut cluster = Cluster::of("checked");
            decide(&mut cluster, &layers, port);
            cluster.check_wire().err()
        })?;
        Some(Invalid::new(format!("{field}.proxyProtocol"), problem.problem))
    };
    fields.zip(levels).filter_map(check).collect()
}

/// Lays the blocks over a cluster's defaults, and gives the rule by where endpoints are.
pub(crate) fn decide(cluster: &mut Cluster, layers: &[&Levels], port: u16) -> Option<Arc<Rule>> {
    let mut decided = Blocks::default();
    for layer in layers {
        layer.lay_over(&mut decided, port);
    }
    decided.apply(cluster);
    decided.locality().cloned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::{Balancer, TlsMode};

    use super::*;

    fn policy(yaml: &str) -> Policy {
        Policy::new(&serde_saphyr::from_str(yaml).unwrap(), "shop").unwrap()
    }

    fn cluster(policy: &Policy, subset: Option<usize>, port: u16) -> Cluster {
        let mut cluster = Cluster::of("e");
        let mut layers: Vec<&Levels> = policy.top.iter().collect();
        layers.extend(subset.map(|i| &policy.subsets[i].levels));
        decide(&mut cluster, &layers, port);
        cluster
    }

    #[test]
    fn a_subset_replaces_block_by_block_and_a_port_wholesale() {
        let policy = policy(
            "
            host: reviews
            trafficPolicy:
              loadBalancer: {simple: RANDOM}
              connectionPool: {tcp: {maxConnections: 10, connectTimeout: 1s}}
              outlierDetection: {}
              retryBudget: {percent: 50}
              portLevelSettings:
              - port: {number: 80}
                loadBalancer: {simple: ROUND_ROBIN}
            subsets:
            - name: v1
              labels: {version: v1}
              trafficPolicy:
                connectionPool: {tcp: {maxConnections: 5}}
                portLevelSettings:
                - port: {number: 81}
                  tls: {mode: DISABLE}
            ",
        );
        let plain = cluster(&policy, None, 9080);
        assert_eq!(plain.balancer, Balancer::Random);
        assert_eq!(plain.limits.max_connections.map(Into::into), Some(10_u32));
        assert_eq!(plain.connect_timeout, Duration::from_secs(1));
        assert!(plain.outlier.is_some());

        let port = cluster(&policy, None, 80);
        assert_eq!(
            (port.balancer, port.limits.max_connections),
            (Balancer::RoundRobin, None)
        );
        assert!(
            port.outlier.is_none(),
            "what a port's entry omits is at its default"
        );
        assert_eq!(
            port.retry_budget.percent, 50.0,
            "a port's entry has no retry budget to replace"
        );

        let subset = cluster(&policy, Some(0), 9080);
        assert_eq!(subset.limits.max_connections.map(Into::into), Some(5_u32));
        assert_eq!(
            subset.connect_timeout,
            Duration::from_secs(10),
            "within a block nothing is inherited"
        );
        assert_eq!(subset.balancer, Balancer::Random);

        let both = cluster(&policy, Some(0), 81);
        assert_eq!(
            (both.balancer, both.tls),
            (Balancer::LeastRequest, TlsMode::Disable)
        );
        assert_eq!(cluster(&policy, Some(0), 80).balancer, Balancer::RoundRobin);
    }

    #[test]
    fn a_proxy_header_stays_outside_the_mesh_however_layers_lie() {
        let refused = |traffic_policy: &str, subset: &str| {
            let spec = format!(
                "{{host: reviews, trafficPolicy: {traffic_policy}, subsets: [{{name: v1, trafficPolicy: {subset}}}]}}"
            );
            match Policy::new(&serde_saphyr::from_str(&spec).unwrap(), "shop") {
                Ok(policy) => {
                    assert!(cluster(&policy, Some(0), 80).proxy_protocol.is_some());
                    String::new()
                }
                Err(problems) => problems[0].field.clone(),
            }
        };
        let (of_top, of_subset) = (
            "spec.trafficPolicy.proxyProtocol",
            "spec.subsets[0].trafficPolicy.proxyProtocol",
        );
        for (top, subset, expected) in [
            ("{proxyProtocol: {}, tls: {mode: DISABLE}}", "{}", ""),
            (
                "{proxyProtocol: {}, tls: {mode: SIMPLE}}",
                "{tls: {mode: DISABLE}}",
                "",
            ),
            ("{tls: {mode: SIMPLE}}", "{proxyProtocol: {version: V2}}", ""),
            ("{proxyProtocol: {}}", "{}", of_top),
            ("{proxyProtocol: {}, tls: {mode: ISTIO_MUTUAL}}", "{}", of_top),
            (
                "{proxyProtocol: {}, tls: {mode: DISABLE}}",
                "{tls: {mode: ISTIO_MUTUAL}}",
                of_subset,
            ),
            ("{tls: {mode: ISTIO_MUTUAL}}", "{proxyProtocol: {}}", of_subset),
            (
                "{tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}}]}",
                "{proxyProtocol: {}}",
                of_subset,
            ),
        ] {
            assert_eq!(refused(top, subset), expected, "{top} {subset}");
        }
    }

    #[test]
    fn what_the_contract_cannot_carry_is_named() {
        let spec = "
            host: reviews
            trafficPolicy: {tls: {mode: SIMPLE, credentialName: c}}
            subsets:
            - {name: v1, trafficPolicy: {loadBalancer: {zoneAwareLbSetting: {enabled: true}}}}
            ";
        let problems = Policy::new(&serde_saphyr::from_str(spec).unwrap(), "shop").unwrap_err();
        let fields: Vec<_> = problems.iter().map(|p| p.field.as_str()).collect();
        let expected = [
            "spec.trafficPolicy.tls.credentialName",
            "spec.subsets[0].trafficPolicy.loadBalancer.zoneAwareLbSetting",
        ];
        assert_eq!(fields, expected);
    }
}

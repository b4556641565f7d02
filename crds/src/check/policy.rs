//! `DestinationRule`: the object, its subsets, and their policies block by block.

use std::collections::BTreeSet;

use super::{
    Report, balancer, pool,
    shape::{
        at_least_a_millisecond, export_to, host_or_wildcard, label, labels, not_zero, percent, port,
        zero_or_a_millisecond,
    },
    wire,
};
use crate::{
    destination_rule::{
        CircuitBreaker, ClientTls, DestinationRuleSpec, LoadBalancer, MAX_PORT_SETTINGS, MAX_SUBSETS,
        OutlierDetection, PortTrafficPolicy, RetryBudget, Subset, TrafficPolicy,
    },
    path::At,
    selector::WorkloadSelector,
};

pub(super) fn spec(report: &mut Report, at: At<'_>, spec: &DestinationRuleSpec) {
    let DestinationRuleSpec {
        host: name,
        traffic_policy,
        subsets,
        export_to: exports,
        workload_selector,
    } = spec;
    host_or_wildcard(report, at.field("host"), name);
    if let Some(policy) = traffic_policy {
        self::policy(report, at.field("trafficPolicy"), policy, false);
    }
    let ejects = traffic_policy
        .as_ref()
        .is_some_and(|policy| policy.outlier_detection.is_some());
    self::subsets(report, at.field("subsets"), subsets, ejects);
    export_to(report, at.field("exportTo"), exports);
    if let Some(WorkloadSelector { match_labels }) = workload_selector {
        let selector = at.field("workloadSelector");
        labels(report, selector.field("matchLabels"), match_labels);
    }
}

fn subsets(report: &mut Report, at: At<'_>, subsets: &[Subset], ejects: bool) {
    if subsets.len() > MAX_SUBSETS {
        let len = subsets.len();
        return report.error(at, format!("has {len} subsets, and {MAX_SUBSETS} is the most"));
    }
    let mut seen = BTreeSet::new();
    for (
        n,
        Subset {
            name,
            labels: selected,
            traffic_policy,
        },
    ) in subsets.iter().enumerate()
    {
        let at = at.index(n);
        label(report, at.field("name"), name);
        if !seen.insert(name) {
            report.error(
                at.field("name"),
                format!("`{name}` is the name of an earlier subset; rename one"),
            );
        }
        labels(report, at.field("labels"), selected);
        if let Some(policy) = traffic_policy {
            self::policy(report, at.field("trafficPolicy"), policy, ejects);
        }
    }
}

/// `ejects`: it takes over outlier detection.
fn policy(report: &mut Report, at: At<'_>, policy: &TrafficPolicy, ejects: bool) {
    let TrafficPolicy {
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
    let blocks = Blocks {
        load_balancer,
        connection_pool,
        outlier_detection,
        circuit_breaker,
        tls,
    };
    blocks.check(report, at, ejects);
    if let Some(tunnel) = tunnel {
        wire::tunnel(report, at.field("tunnel"), tunnel);
    }
    if proxy_protocol.is_some() {
        wire::proxy_protocol(report, at, policy);
    }
    if let Some(budget) = retry_budget {
        self::retry_budget(report, at.field("retryBudget"), *budget);
    }
    ports(report, at.field("portLevelSettings"), port_level_settings);
}

fn ports(report: &mut Report, at: At<'_>, settings: &[PortTrafficPolicy]) {
    if settings.len() > MAX_PORT_SETTINGS {
        let len = settings.len();
        return report.error(
            at,
            format!("has {len} entries, and {MAX_PORT_SETTINGS} is the most"),
        );
    }
    let mut seen = BTreeSet::new();
    for (n, setting) in settings.iter().enumerate() {
        let PortTrafficPolicy {
            port: selector,
            load_balancer,
            connection_pool,
            outlier_detection,
            circuit_breaker,
            tls,
        } = setting;
        let at = at.index(n);
        let number = selector.number;
        port(report, at.field("port").field("number"), number);
        if !seen.insert(number) {
            let message = format!("{number} is the port of an earlier entry; join the two");
            report.error(at.field("port").field("number"), message);
        }
        Blocks {
            load_balancer,
            connection_pool,
            outlier_detection,
            circuit_breaker,
            tls,
        }
        .check(report, at, false);
    }
}

/// What a policy and a port's policy have in common.
struct Blocks<'a> {
    load_balancer: &'a Option<LoadBalancer>,
    connection_pool: &'a Option<crate::destination_rule::ConnectionPool>,
    outlier_detection: &'a Option<OutlierDetection>,
    circuit_breaker: &'a Option<CircuitBreaker>,
    tls: &'a Option<ClientTls>,
}

impl Blocks<'_> {
    fn check(&self, report: &mut Report, at: At<'_>, ejects: bool) {
        let Self {
            load_balancer,
            connection_pool,
            outlier_detection,
            circuit_breaker,
            tls,
        } = self;
        if let Some(block) = load_balancer {
            let ejects = ejects || outlier_detection.is_some();
            balancer::load_balancer(report, at.field("loadBalancer"), block, ejects);
        }
        if let Some(connections) = connection_pool {
            pool::connection_pool(report, at.field("connectionPool"), connections);
        }
        if let Some(detection) = outlier_detection {
            self::outlier_detection(report, at.field("outlierDetection"), detection);
        }
        if let Some(breaker) = circuit_breaker {
            self::circuit_breaker(report, at.field("circuitBreaker"), *breaker);
        }
        if let Some(tls) = tls {
            wire::tls(report, at.field("tls"), tls);
        }
    }
}

fn outlier_detection(report: &mut Report, at: At<'_>, detection: &OutlierDetection) {
    let OutlierDetection {
        consecutive_errors,
        split_external_local_origin_errors,
        consecutive_local_origin_failures,
        consecutive_gateway_errors: _,
        consecutive_5xx_errors: _,
        interval,
        base_ejection_time,
        max_ejection_percent,
        min_health_percent,
        outlier_detection_http_error_codes,
    } = detection;
    if consecutive_errors.is_some() {
        // Upstream reads it no more; what it said there before was about gateway errors, in spite of its name.
        report.refused(
            at.field("consecutiveErrors"),
            "upstream has ceased to read it, and its name does not say which errors; use consecutive5xxErrors, or \
             consecutiveGatewayErrors for 502, 503 and 504",
        );
    }
    error_codes(
        report,
        at.field("outlierDetectionHttpErrorCodes"),
        outlier_detection_http_error_codes,
    );
    if consecutive_local_origin_failures.is_some() && *split_external_local_origin_errors != Some(true) {
        let message = "has no effect unless splitExternalLocalOriginErrors is true";
        report.warning(at.field("consecutiveLocalOriginFailures"), message);
    }
    at_least_a_millisecond(report, at.field("interval"), *interval);
    at_least_a_millisecond(report, at.field("baseEjectionTime"), *base_ejection_time);
    percent(
        report,
        at.field("maxEjectionPercent"),
        max_ejection_percent.map(f64::from),
    );
    percent(
        report,
        at.field("minHealthPercent"),
        min_health_percent.map(f64::from),
    );
}

fn error_codes(report: &mut Report, at: At<'_>, codes: &[u32]) {
    let wrong = codes
        .iter()
        .enumerate()
        .filter(|(_, code)| !(100..=599).contains(*code));
    for (n, code) in wrong.take(16) {
        report.error(at.index(n), format!("{code} is no status; use 100 to 599"));
    }
}

fn circuit_breaker(report: &mut Report, at: At<'_>, breaker: CircuitBreaker) {
    let CircuitBreaker {
        failure_threshold,
        recovery_timeout,
        half_open_requests,
    } = breaker;
    let remedy = "remove the block to have no breaker";
    not_zero(
        report,
        at.field("failureThreshold"),
        Some(failure_threshold),
        remedy,
    );
    at_least_a_millisecond(report, at.field("recoveryTimeout"), Some(recovery_timeout));
    let remedy = "without a probe it would stay open for ever";
    not_zero(
        report,
        at.field("halfOpenRequests"),
        Some(half_open_requests),
        remedy,
    );
}

fn retry_budget(report: &mut Report, at: At<'_>, budget: RetryBudget) {
    let RetryBudget {
        percent: share,
        min_retry_concurrency: _,
        budget_interval,
    } = budget;
    percent(report, at.field("percent"), share);
    zero_or_a_millisecond(report, at.field("budgetInterval"), budget_interval);
}

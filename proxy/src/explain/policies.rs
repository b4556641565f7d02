//! Policies in words: what a rule asks for, and how a cluster's requests are made. What is at a default that means "none"
//! is left out.

use std::time::Duration;

use api::{
    Action, Balancer, ClientTls, Cluster, Fault, Forward, HashKey, HashTable, HeaderChanges, HttpRule, Retry,
    TlsMode, proto,
};

/// What a rule asks for beside a destination.
pub(super) fn of_rule(rule: &HttpRule) -> Vec<String> {
    let mut told = Vec::new();
    if let Action::Forward(forward) = &rule.action {
        of_forward(forward, &mut told);
    }
    told.extend(changes("request", &rule.request_headers));
    told.extend(changes("response", &rule.response_headers));
    if rule.cors.is_some() {
        told.push(
            "corsPolicy: preflights are answered, and other answers to allowed origins say so".to_owned(),
        );
    }
    told
}

fn of_forward(forward: &Forward, told: &mut Vec<String>) {
    told.push(match forward.timeout {
        Some(timeout) => format!("timeout {timeout:?}, retries included"),
        None => "no timeout".to_owned(),
    });
    told.push(retries(&forward.retry));
    if let Some(fault) = &forward.fault {
        of_fault(fault, told);
    }
    if let Some(rewrite) = &forward.rewrite {
        let to = [
            rewrite
                .uri
                .as_ref()
                .map(|uri| format!("the path matched to {uri:?}")),
            rewrite
                .uri_regex
                .as_ref()
                .map(|_| "the path by an expression".to_owned()),
            rewrite
                .authority
                .as_ref()
                .map(|authority| format!("the authority to {authority}")),
        ];
        let to: Vec<_> = to.into_iter().flatten().collect();
        told.push(format!("rewrites {}", to.join(", ")));
    }
}

fn of_fault(fault: &Fault, told: &mut Vec<String>) {
    if let Some(delay) = &fault.delay {
        told.push(format!(
            "fault: {} % wait {:?}",
            delay.share.percent(),
            delay.delay
        ));
    }
    if let Some(abort) = &fault.abort {
        let (share, status) = (abort.share.percent(), abort.status.as_u16());
        told.push(format!(
            "fault: {share} % are answered with {status} (gRPC {})",
            abort.grpc
        ));
    }
}

fn retries(retry: &Retry) -> String {
    if retry.attempts == 0 {
        return "no retries".to_owned();
    }
    let named = proto::Retry::from(retry.clone()).conditions;
    // The words of the contract, as `retryOn` writes them.
    let words = named
        .into_iter()
        .filter_map(|condition| proto::RetryCondition::try_from(condition).ok());
    let mut on: Vec<String> = words
        .map(|condition| {
            let name = condition.as_str_name();
            let name = name.strip_prefix("RETRY_CONDITION_").unwrap_or(name);
            name.to_ascii_lowercase().replace('_', "-")
        })
        .collect();
    on.extend(retry.statuses.iter().map(|status| status.as_u16().to_string()));
    let each = match retry.per_try_timeout {
        Some(timeout) => format!(", each within {timeout:?}"),
        None => String::new(),
    };
    if on.is_empty() {
        return "no retries: retryOn names nothing that occurs".to_owned();
    }
    let (attempts, on) = (retry.attempts, on.join(","));
    let elsewhere = if retry.avoid_previous_places {
        ", in other places first"
    } else {
        ""
    };
    format!("up to {attempts} retries on {on}{each}{elsewhere}, within the retry budget")
}

fn changes(of: &str, changes: &HeaderChanges) -> Option<String> {
    if changes.is_empty() {
        return None;
    }
    let set = changes.set.iter().map(|(name, _)| format!("sets {name}"));
    let add = changes.add.iter().map(|(name, _)| format!("adds {name}"));
    let remove = changes.remove.iter().map(|name| format!("removes {name}"));
    let all: Vec<_> = set.chain(add).chain(remove).collect();
    Some(format!("{of} headers: {}", all.join(", ")))
}

fn originate(tls: &ClientTls) -> String {
    let kind = if tls.certificate.is_some() {
        "TLS with a certificate of its own"
    } else {
        "TLS"
    };
    let checked = match (tls.insecure_skip_verify, &tls.ca_certificates) {
        (true, _) => "whoever answers is trusted".to_owned(),
        (false, Some(file)) => format!("roots from {file}"),
        (false, None) => "roots of the system".to_owned(),
    };
    let sni = tls
        .sni
        .as_ref()
        .map(|sni| format!(", asks for {sni}"))
        .unwrap_or_default();
    format!("{kind} to a server outside the mesh, {checked}{sni}")
}

/// How requests to a cluster are made.
pub(super) fn of_cluster(cluster: &Cluster) -> Vec<String> {
    let mut told = vec![balancer(&cluster.balancer)];
    told.push(match &cluster.tls {
        TlsMode::Auto => "mutual TLS where the endpoint has an identity".to_owned(),
        TlsMode::Disable => "plaintext".to_owned(),
        TlsMode::Mutual => "mutual TLS, required".to_owned(),
        TlsMode::Originate(tls) => originate(tls),
    });
    told.extend(
        cluster
            .proxy_protocol
            .map(|version| format!("a PROXY header ({version:?}) comes first")),
    );
    if let Some(warmup) = &cluster.warmup {
        told.push(format!(
            "a new endpoint starts with {} % of its weight and has all of it after {:?}",
            warmup.minimum_percent, warmup.duration
        ));
    }
    told.push(format!("connects within {:?}", cluster.connect_timeout));
    if let Some(breaker) = &cluster.breaker {
        told.push(format!(
            "breaker: {} failures in a row open it for {:?}, {} probe(s) close it",
            breaker.failure_threshold, breaker.recovery, breaker.half_open_requests
        ));
    }
    if let Some(outlier) = &cluster.outlier {
        let when = [
            outlier.consecutive_5xx.map(|n| format!("{n} 5xx in a row")),
            outlier
                .consecutive_gateway_errors
                .map(|n| format!("{n} gateway errors in a row")),
        ];
        let when: Vec<_> = when.into_iter().flatten().collect();
        told.push(format!(
            "outlier detection: {} eject for {:?} and more, at most {} % of the endpoints",
            when.join(" or "),
            outlier.base_ejection,
            outlier.max_ejection_percent
        ));
    }
    let limits = &cluster.limits;
    for (what, limit) in [
        ("connections", limits.max_connections),
        ("requests", limits.max_requests),
        ("requests that wait for a connection", limits.max_pending_requests),
        ("retries under way", limits.max_retries),
        ("requests on one connection", limits.max_requests_per_connection),
        ("streams on one connection", limits.max_concurrent_streams),
    ] {
        told.extend(limit.map(|limit| format!("at most {limit} {what}")));
    }
    let budget = &cluster.retry_budget;
    told.push(format!(
        "retry budget: {} % of the requests under way, and at least {}",
        budget.percent, budget.min_concurrency
    ));
    told
}

fn balancer(balancer: &Balancer) -> String {
    let settings = match balancer {
        Balancer::RoundRobin => return "balancer: round robin".to_owned(),
        Balancer::Random => return "balancer: random".to_owned(),
        Balancer::LeastRequest => return "balancer: least request".to_owned(),
        Balancer::PeakEwma => return "balancer: peak EWMA".to_owned(),
        Balancer::ConsistentHash(settings) => settings,
    };
    let key = match &settings.key {
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(cookie) => match cookie.ttl {
            Some(ttl) if ttl > Duration::ZERO => format!("cookie {}, made for {ttl:?}", cookie.name),
            Some(_) => format!("cookie {}, made for the session", cookie.name),
            None => format!("cookie {}", cookie.name),
        },
        HashKey::SourceIp => "the client's address".to_owned(),
        HashKey::QueryParameter(name) => format!("query parameter {name}"),
    };
    match settings.table {
        HashTable::Ring(size) => {
            format!("balancer: consistent hash of {key}, a ring of {size} points or more")
        }
        HashTable::Maglev(size) => {
            format!("balancer: consistent hash of {key}, a maglev table of {size} slots")
        }
    }
}

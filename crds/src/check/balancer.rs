//! `loadBalancer`: how endpoints are chosen.

use super::{
    Report, locality,
    shape::{at_least_a_millisecond, percent},
    text::{header_name, is_token},
};
use crate::{
    destination_rule::{
        LoadBalancer,
        load_balancer::{
            ConsistentHash, CookieAttribute, HttpCookie, MAGLEV_SIZE_BELOW, MAX_RING_SIZE, SimpleBalancer,
            Warmup,
        },
    },
    path::At,
};

/// `ejects`: there is outlier detection for the same endpoints.
pub(super) fn load_balancer(report: &mut Report, at: At<'_>, balancer: &LoadBalancer, ejects: bool) {
    let LoadBalancer {
        simple,
        consistent_hash,
        locality_lb_setting,
        zone_aware_lb_setting,
        warmup_duration_secs,
        warmup,
    } = balancer;
    if *simple == Some(SimpleBalancer::Passthrough) {
        report.unsupported(
            at.field("simple"),
            "PASSTHROUGH needs a caller that picks the address; use another",
        );
    }
    if simple.is_some() && consistent_hash.is_some() {
        report.error(at.field("consistentHash"), "cannot stand beside simple; keep one");
    }
    if let Some(hash) = consistent_hash {
        self::consistent_hash(report, at.field("consistentHash"), hash);
    }
    if locality_lb_setting.is_some() && zone_aware_lb_setting.is_some() {
        let message = "cannot stand beside localityLbSetting; keep one";
        report.error(at.field("zoneAwareLbSetting"), message);
    }
    let is_for_all = match simple.unwrap_or_default() {
        SimpleBalancer::Unspecified
        | SimpleBalancer::LeastRequest
        | SimpleBalancer::LeastConn
        | SimpleBalancer::RoundRobin => consistent_hash.is_none(),
        SimpleBalancer::Random | SimpleBalancer::PeakEwma | SimpleBalancer::Passthrough => false,
    };
    for (field, set) in [
        ("warmupDurationSecs", warmup_duration_secs.is_some()),
        ("warmup", warmup.is_some()),
    ] {
        if set && !is_for_all {
            report.error(
                at.field(field),
                "is for ROUND_ROBIN and LEAST_REQUEST; remove it, or use one of them",
            );
        }
    }
    at_least_a_millisecond(report, at.field("warmupDurationSecs"), *warmup_duration_secs);
    if let Some(warmup) = warmup {
        self::warmup(report, at.field("warmup"), *warmup);
    }
    if let Some(setting) = locality_lb_setting {
        locality::locality(report, at.field("localityLbSetting"), setting, ejects);
    }
    report.unsupported_if(
        zone_aware_lb_setting.is_some(),
        at.field("zoneAwareLbSetting"),
        "remove it, or use localityLbSetting",
    );
}

fn warmup(report: &mut Report, at: At<'_>, warmup: Warmup) {
    let Warmup {
        duration,
        minimum_percent,
        aggression,
    } = warmup;
    at_least_a_millisecond(report, at.field("duration"), Some(duration));
    percent(report, at.field("minimumPercent"), minimum_percent);
    if let Some(aggression) = aggression
        && !(1.0..=f64::MAX).contains(&aggression)
    {
        report.error(
            at.field("aggression"),
            format!("{aggression} is below 1.0; use 1.0 or more"),
        );
    }
}

fn consistent_hash(report: &mut Report, at: At<'_>, hash: &ConsistentHash) {
    let ConsistentHash {
        http_header_name,
        http_cookie,
        use_source_ip,
        http_query_parameter_name,
        ring_hash,
        maglev,
        minimum_ring_size,
    } = hash;
    let keys = [
        http_header_name.is_some(),
        http_cookie.is_some(),
        use_source_ip.is_some(),
        http_query_parameter_name.is_some(),
    ];
    if keys.into_iter().filter(|given| *given).count() != 1 {
        report.error(
            at,
            "needs exactly one key: httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName",
        );
    }
    if let Some(name) = http_header_name {
        let remedy = "for the authority name host";
        header_name(report, at.field("httpHeaderName"), name, remedy);
    }
    if let Some(cookie) = http_cookie {
        self::cookie(report, at.field("httpCookie"), cookie);
    }
    if *use_source_ip == Some(false) {
        report.error(
            at.field("useSourceIp"),
            "is false, which leaves no key; write true, or use another key",
        );
    }
    if http_query_parameter_name.as_ref().is_some_and(String::is_empty) {
        report.error(at.field("httpQueryParameterName"), "is empty; name the parameter");
    }
    if ring_hash.is_some() && maglev.is_some() {
        report.error(at.field("maglev"), "cannot stand beside ringHash; keep one");
    }
    if maglev.is_some() && minimum_ring_size.is_some() {
        let message = "is for a ring, and there is maglev; remove it";
        report.error(at.field("minimumRingSize"), message);
    }
    ring_size(report, at.field("minimumRingSize"), *minimum_ring_size);
    if let Some(ring) = ring_hash {
        let at = at.field("ringHash");
        ring_size(report, at.field("minimumRingSize"), ring.minimum_ring_size);
    }
    if let Some(size) = maglev.and_then(|maglev| maglev.table_size)
        && !(size < MAGLEV_SIZE_BELOW && is_prime(size))
    {
        report.error(
            at.field("maglev").field("tableSize"),
            format!("{size} is not a size of a table; use a prime below {MAGLEV_SIZE_BELOW}, such as 65537"),
        );
    }
}

fn ring_size(report: &mut Report, at: At<'_>, size: Option<u64>) {
    if let Some(size) = size
        && !(1..=MAX_RING_SIZE).contains(&size)
    {
        report.error(
            at,
            format!("{size} is not a size of a ring; use 1 to {MAX_RING_SIZE}"),
        );
    }
}

fn cookie(report: &mut Report, at: At<'_>, cookie: &HttpCookie) {
    let HttpCookie {
        name,
        path,
        ttl,
        attributes,
    } = cookie;
    if !is_token(name) {
        report.error(
            at.field("name"),
            "is not a cookie's name; use letters, digits, - and _",
        );
    }
    if let Some(path) = path {
        cookie_value(report, at.field("path"), path);
    }
    if ttl.is_none() {
        for (field, set) in [("path", path.is_some()), ("attributes", !attributes.is_empty())] {
            if set {
                let message =
                    "is for a cookie that is made, and without a ttl none is; add one, or remove it";
                report.warning(at.field(field), message);
            }
        }
    }
    for (n, CookieAttribute { name, value }) in attributes.iter().enumerate() {
        let at = at.field("attributes");
        let at = at.index(n);
        let taken = ["path", "max-age"];
        if !is_token(name) {
            report.error(
                at.field("name"),
                "is not an attribute's name; use letters, digits and -",
            );
        } else if taken.iter().any(|taken| name.eq_ignore_ascii_case(taken)) {
            report.error(at.field("name"), "has a field of its own; use path and ttl");
        }
        if let Some(value) = value {
            cookie_value(report, at.field("value"), value);
        }
    }
}

/// What may stand in a cookie's attribute.
fn cookie_value(report: &mut Report, at: At<'_>, value: &str) {
    if !value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b';') {
        report.error(at, "has a ; or characters that are not ASCII; remove them");
    }
}

fn is_prime(n: u64) -> bool {
    n >= 2
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|divisor| !n.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said, field by field.
    fn said(yaml: &str) -> Vec<String> {
        let mut report = Report::default();
        load_balancer(
            &mut report,
            At::root("lb"),
            &serde_saphyr::from_str(yaml).unwrap(),
            false,
        );
        let findings = report.finish().into_iter();
        findings
            .map(|finding| format!("{:?} {}", finding.severity, finding.field))
            .collect()
    }

    #[test]
    fn a_warm_up_that_nothing_could_follow_is_named() {
        for (yaml, expected) in [
            ("{warmup: {duration: 10s}}", &[][..]),
            (
                "{simple: ROUND_ROBIN, warmup: {duration: 10s, minimumPercent: 0, aggression: 1.5}}",
                &[],
            ),
            ("{simple: LEAST_CONN, warmupDurationSecs: 10s}", &[]),
            ("{simple: RANDOM, warmup: {duration: 10s}}", &["Error lb.warmup"]),
            (
                "{simple: PEAK_EWMA, warmupDurationSecs: 10s}",
                &["Error lb.warmupDurationSecs"],
            ),
            (
                "{consistentHash: {useSourceIp: true}, warmup: {duration: 1s}}",
                &["Error lb.warmup"],
            ),
            (
                "{warmup: {duration: 0s, minimumPercent: 101, aggression: 0.5}}",
                &[
                    "Error lb.warmup.duration",
                    "Error lb.warmup.minimumPercent",
                    "Error lb.warmup.aggression",
                ],
            ),
            ("{warmupDurationSecs: 0s}", &["Error lb.warmupDurationSecs"]),
        ] {
            assert_eq!(said(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn what_a_consistent_balancer_cannot_be_made_of_is_named() {
        for (yaml, expected) in [
            ("{consistentHash: {httpHeaderName: x-user}}", &[][..]),
            (
                "{consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 1048576}}}",
                &[],
            ),
            (
                "{consistentHash: {useSourceIp: true, maglev: {tableSize: 4999999}}}",
                &[],
            ),
            ("{consistentHash: {httpCookie: {name: u, path: /, ttl: 0s}}}", &[]),
            ("{consistentHash: {ringHash: {}}}", &["Error lb.consistentHash"]),
            (
                "{consistentHash: {useSourceIp: true, httpHeaderName: a}}",
                &["Error lb.consistentHash"],
            ),
            (
                "{consistentHash: {useSourceIp: false}}",
                &["Error lb.consistentHash.useSourceIp"],
            ),
            (
                "{consistentHash: {httpHeaderName: ':path'}}",
                &["Error lb.consistentHash.httpHeaderName"],
            ),
            (
                "{consistentHash: {httpQueryParameterName: ''}}",
                &["Error lb.consistentHash.httpQueryParameterName"],
            ),
            (
                "{consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}",
                &["Error lb.consistentHash.maglev.tableSize"],
            ),
            (
                "{consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}}",
                &["Error lb.consistentHash.maglev.tableSize"],
            ),
            (
                "{consistentHash: {useSourceIp: true, maglev: {}, minimumRingSize: 5}}",
                &["Error lb.consistentHash.minimumRingSize"],
            ),
            (
                "{consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 1048577}}}",
                &["Error lb.consistentHash.ringHash.minimumRingSize"],
            ),
            (
                "{consistentHash: {useSourceIp: true, minimumRingSize: 0}}",
                &["Error lb.consistentHash.minimumRingSize"],
            ),
            (
                "{consistentHash: {httpCookie: {name: u, path: /}}}",
                &["Warning lb.consistentHash.httpCookie.path"],
            ),
            (
                "{consistentHash: {httpCookie: {name: 'a;b', ttl: 1s, path: '/;', attributes: [{name: Path}, \
                 {name: A, value: 'b;c'}]}}}",
                &[
                    "Error lb.consistentHash.httpCookie.name",
                    "Error lb.consistentHash.httpCookie.path",
                    "Error lb.consistentHash.httpCookie.attributes[0].name",
                    "Error lb.consistentHash.httpCookie.attributes[1].value",
                ],
            ),
            (
                "{simple: RANDOM, consistentHash: {useSourceIp: true}}",
                &["Error lb.consistentHash"],
            ),
        ] {
            assert_eq!(said(yaml), expected, "{yaml}");
        }
    }
}

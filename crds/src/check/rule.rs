//! `VirtualService`: the object itself, and its HTTP rules as a whole.

use super::{
    Report, cors, fault, l4, matching, mirror, outcome,
    shape::{
        at_least_a_millisecond, dns_problem, export_to, gateways, host_or_wildcard, label, weights,
        zero_or_a_millisecond,
    },
};
use crate::{
    duration::Duration,
    path::At,
    virtual_service::{
        HttpRoute, HttpRouteDestination, MAX_HTTP_RULES, MAX_L4_RULES, VirtualServiceSpec,
        http::Delegate,
        resilience::{Retry, RetryCondition},
    },
};

pub(super) fn spec(report: &mut Report, at: At<'_>, spec: &VirtualServiceSpec) {
    let VirtualServiceSpec {
        hosts: names,
        gateways: gates,
        http,
        tls,
        tcp,
        export_to: exports,
    } = spec;
    if names.is_empty() {
        to_be_delegated_to(report, at, spec);
    }
    hosts(report, at.field("hosts"), names);
    gateways(report, at.field("gateways"), gates);
    export_to(report, at.field("exportTo"), exports);
    if http.is_empty() && tls.is_empty() && tcp.is_empty() {
        report.error(at, "has no rules; give it at least one in http, tls or tcp");
    }
    if http.len() > MAX_HTTP_RULES {
        let len = http.len();
        let remedy = "split it over several objects";
        report.error(
            at.field("http"),
            format!("has {len} rules, and {MAX_HTTP_RULES} is the most; {remedy}"),
        );
    } else {
        rules(report, at.field("http"), http);
    }
    for (field, len) in [("tls", tls.len()), ("tcp", tcp.len())] {
        if len > MAX_L4_RULES {
            report.error(
                at.field(field),
                format!("has {len} rules, and {MAX_L4_RULES} is the most"),
            );
        }
    }
    l4::tls(report, at.field("tls"), &tls[..tls.len().min(MAX_L4_RULES)]);
    l4::tcp(report, at.field("tcp"), &tcp[..tcp.len().min(MAX_L4_RULES)]);
}

/// An object without hosts is for other objects to delegate to, which only works for requests, and one level deep.
fn to_be_delegated_to(report: &mut Report, at: At<'_>, spec: &VirtualServiceSpec) {
    let names = at.field("hosts");
    if spec.http.is_empty() {
        return report.error(names, "is required; name the hosts whose traffic is meant");
    }
    if !spec.tls.is_empty() || !spec.tcp.is_empty() {
        report.error(
            names,
            "is required beside tls and tcp; only rules in http can be delegated to",
        );
    }
    let http = at.field("http");
    for (n, _) in spec
        .http
        .iter()
        .enumerate()
        .filter(|(_, rule)| rule.delegate.is_some())
    {
        report.error(
            http.index(n).field("delegate"),
            "cannot stand in an object without hosts, which is itself for delegation; name the hosts, or route from here",
        );
    }
}

fn hosts(report: &mut Report, at: At<'_>, hosts: &[String]) {
    for (n, name) in hosts.iter().enumerate() {
        host_or_wildcard(report, at.index(n), name);
        if hosts[..n].contains(name) {
            report.error(at.index(n), "is named twice; remove one");
        }
    }
}

fn rules(report: &mut Report, at: At<'_>, rules: &[HttpRoute]) {
    for (n, one) in rules.iter().enumerate() {
        rule(report, at.index(n), one);
    }
    // What the rules of another object take of the requests, only that object says.
    let catch_all = rules
        .iter()
        .position(|rule| rule.delegate.is_none() && matching::matches_everything(&rule.r#match));
    unreachable(report, at, catch_all, rules.len());
    repeated(
        report,
        at,
        &rules[..catch_all.unwrap_or(rules.len()).min(MAX_COMPARED)],
    );
}

/// Rules that are compared with each other. In larger tables each with each would cost too much.
const MAX_COMPARED: usize = 500;

/// A rule with the match of one before it is never reached, unless that one delegates.
fn repeated(report: &mut Report, at: At<'_>, rules: &[HttpRoute]) {
    for (n, rule) in rules.iter().enumerate() {
        let same = |before: &HttpRoute| before.delegate.is_none() && before.r#match == rule.r#match;
        if let Some(first) = rules[..n].iter().position(same) {
            let first = at.index(first);
            let message = format!(
                "is never reached, because {first} has the same match; change one, or remove this rule"
            );
            report.warning(at.index(n), message);
        }
    }
}

/// Rules after one that matches everything are never reached. Said once, however many there are.
pub(super) fn unreachable(report: &mut Report, at: At<'_>, catch_all: Option<usize>, rules: usize) {
    if let Some(first) = catch_all
        && first + 1 < rules
    {
        let all = at.index(first);
        let which = match rules - first - 1 {
            1 => "is".to_owned(),
            more => format!("and the {} after it are", more - 1),
        };
        let message =
            format!("{which} never reached, because {all} matches everything; move that to the end");
        report.warning(at.index(first + 1), message);
    }
}

fn rule(report: &mut Report, at: At<'_>, rule: &HttpRoute) {
    let HttpRoute {
        name,
        r#match,
        route,
        redirect,
        direct_response,
        delegate,
        rewrite,
        timeout,
        retries,
        fault,
        mirror,
        mirrors,
        mirror_percent,
        mirror_percentage,
        cors_policy,
        headers,
    } = rule;
    if name
        .as_ref()
        .is_some_and(|name| name.chars().any(char::is_control))
    {
        report.error(
            at.field("name"),
            "has control characters; a name is one line of text",
        );
    }
    matching::blocks(report, at.field("match"), r#match);
    destinations(report, at.field("route"), route);
    if let Some(redirect) = redirect {
        outcome::redirect(report, at.field("redirect"), redirect);
    }
    if let Some(response) = direct_response {
        outcome::direct_response(report, at.field("directResponse"), response);
    }
    if let Some(rewrite) = rewrite {
        outcome::rewrite(report, at.field("rewrite"), rewrite);
    }
    if let Some(changes) = headers {
        outcome::headers(report, at.field("headers"), changes);
    }
    zero_or_a_millisecond(report, at.field("timeout"), *timeout);
    if let Some(retry) = retries {
        self::retries(report, at.field("retries"), retry, *timeout);
    }
    if let Some(fault) = fault {
        fault::fault(report, at.field("fault"), fault);
    }
    if let Some(policy) = cors_policy {
        cors::policy(report, at.field("corsPolicy"), policy);
    }
    mirror::mirrors(
        report,
        at,
        mirror.as_ref(),
        mirrors,
        *mirror_percent,
        mirror_percentage.as_ref(),
    );
    if let Some(delegate) = delegate {
        self::delegate(report, at.field("delegate"), delegate);
    }
    let outcomes = [
        ("route", !route.is_empty()),
        ("redirect", redirect.is_some()),
        ("directResponse", direct_response.is_some()),
        ("delegate", delegate.is_some()),
    ];
    one_outcome(report, at, outcomes);
    beside_answer(report, at, rule);
}

fn delegate(report: &mut Report, at: At<'_>, delegate: &Delegate) {
    let Delegate { name, namespace } = delegate;
    match name.as_deref().unwrap_or_default() {
        "" => report.error(
            at.field("name"),
            "is required; name the VirtualService that is to decide",
        ),
        name => {
            if let Some(problem) = dns_problem(name) {
                report.error(at.field("name"), problem);
            }
        }
    }
    if let Some(namespace) = namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        label(report, at.field("namespace"), namespace);
    }
}

/// What is for requests that are sent on does nothing to those that are answered here.
fn beside_answer(report: &mut Report, at: At<'_>, rule: &HttpRoute) {
    let answer = match (&rule.redirect, &rule.direct_response) {
        (Some(_), _) => "redirect",
        (None, Some(_)) => "directResponse",
        (None, None) => return,
    };
    for (field, set) in [
        ("rewrite", rule.rewrite.is_some()),
        ("fault", rule.fault.is_some()),
        ("mirror", rule.mirror.is_some()),
        ("mirrors", !rule.mirrors.is_empty()),
    ] {
        if set {
            let message = format!("cannot stand beside {answer}; remove it");
            report.error(at.field(field), message);
        }
    }
    let request_changes = rule
        .headers
        .as_ref()
        .is_some_and(|headers| headers.request.is_some());
    for (field, set) in [
        ("timeout", rule.timeout.is_some()),
        ("retries", rule.retries.is_some()),
        ("headers", request_changes),
    ] {
        if set {
            let message = format!("has no effect on requests, because {answer} answers them");
            report.warning(at.field(field), message);
        }
    }
}

/// A request has one outcome.
fn one_outcome(report: &mut Report, at: At<'_>, outcomes: [(&str, bool); 4]) {
    let set: Vec<_> = outcomes
        .into_iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| name)
        .collect();
    match set.as_slice() {
        [] => report.error(
            at,
            "says nothing of what to do; give it one of route, redirect, directResponse and delegate",
        ),
        [_] => {}
        [first, rest @ ..] => {
            let others = rest.join(" and ");
            report.error(
                at.field(rest[0]),
                format!("{first} and {others} exclude each other; keep one"),
            );
        }
    }
}

fn destinations(report: &mut Report, at: At<'_>, route: &[HttpRouteDestination]) {
    for (n, part) in route.iter().enumerate() {
        let HttpRouteDestination {
            destination,
            weight: _,
            headers,
        } = part;
        let at = at.index(n);
        l4::destination(report, at.field("destination"), destination);
        if let Some(headers) = headers {
            outcome::headers(report, at.field("headers"), headers);
        }
    }
    let shares: Vec<_> = route.iter().map(|part| part.weight).collect();
    weights(report, at, &shares);
}

fn retries(report: &mut Report, at: At<'_>, retry: &Retry, timeout: Option<Duration>) {
    let Retry {
        attempts: _,
        per_try_timeout,
        retry_on,
        retry_remote_localities: _,
        retry_ignore_previous_hosts: _,
        backoff,
    } = retry;
    at_least_a_millisecond(report, at.field("perTryTimeout"), *per_try_timeout);
    at_least_a_millisecond(report, at.field("backoff"), *backoff);
    if let (Some(all), Some(one)) = (timeout, per_try_timeout)
        && !all.is_zero()
        && *one > all
    {
        let message = "is longer than the rule's timeout, which ends the request before it";
        report.warning(at.field("perTryTimeout"), message);
    }
    let Some(list) = retry_on else { return };
    let at = at.field("retryOn");
    let given =
        |wanted: fn(&RetryCondition) -> bool| RetryCondition::list(list).flatten().any(|c| wanted(&c));
    if given(|c| matches!(c, RetryCondition::RetriableStatusCodes))
        && !given(|c| matches!(c, RetryCondition::Status(_)))
    {
        report.warning(
            at,
            "has retriable-status-codes without a code; list the codes beside it, such as 503",
        );
    }
    for condition in RetryCondition::list(list).take(64) {
        match condition {
            Err(unknown) => report.error(at, unknown.to_string()),
            Ok(RetryCondition::Http3PostConnectFailure) => report.warning(
                at,
                "has http3-post-connect-failure, which never occurs: the mesh speaks no HTTP/3",
            ),
            Ok(_) => {}
        }
    }
}

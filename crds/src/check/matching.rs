//! `VirtualService`: what an HTTP rule matches.

use std::collections::BTreeMap;

use super::{
    Report,
    shape::{gateways, label, labels, port},
    text::{Empty, header_name, is_token, one_spelling, string_match},
};
use crate::{
    path::At,
    string_match::{Pattern, StringMatch},
    virtual_service::HttpMatch,
};

pub(super) fn blocks(report: &mut Report, at: At<'_>, blocks: &[HttpMatch]) {
    for (n, one) in blocks.iter().enumerate() {
        block(report, at.index(n), one);
    }
}

/// Whether no request can pass these blocks by.
pub(super) fn matches_everything(blocks: &[HttpMatch]) -> bool {
    blocks.is_empty()
        || blocks.iter().any(|block| {
            let HttpMatch {
                name: _,
                uri,
                scheme,
                method,
                authority,
                headers,
                without_headers,
                query_params,
                port,
                source_labels,
                source_namespace,
                gateways: _,
                ignore_uri_case: _,
                stat_prefix: _,
            } = block;
            let any_path = match uri.as_ref().map(StringMatch::pattern) {
                None => true,
                Some(pattern) => pattern == Some(Pattern::Prefix("/")),
            };
            any_path
                && scheme.is_none()
                && method.is_none()
                && authority.is_none()
                && headers.is_empty()
                && without_headers.is_empty()
                && query_params.is_empty()
                && port.is_none()
                && source_labels.is_empty()
                && source_namespace.is_none()
        })
}

fn block(report: &mut Report, at: At<'_>, block: &HttpMatch) {
    let HttpMatch {
        name,
        uri,
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query_params,
        port: number,
        source_labels,
        source_namespace,
        gateways: gates,
        ignore_uri_case,
        stat_prefix,
    } = block;
    if name
        .as_ref()
        .is_some_and(|name| name.chars().any(char::is_control))
    {
        report.error(
            at.field("name"),
            "has control characters; a name is one line of text",
        );
    }
    if stat_prefix.is_some() {
        report.refused(
            at.field("statPrefix"),
            "requests are counted by cluster, and the access log tells the rule of each; give the rule a name, and remove it",
        );
    }
    path(report, at, uri.as_ref(), *ignore_uri_case);
    for (field, text) in [("scheme", scheme), ("authority", authority)] {
        if let Some(text) = text {
            string_match(report, at.field(field), text, Empty::Refused);
        }
    }
    if let Some(text) = method {
        self::method(report, at.field("method"), text);
    }
    self::headers(report, at.field("headers"), headers);
    self::headers(report, at.field("withoutHeaders"), without_headers);
    let params = at.field("queryParams");
    for (name, text) in query_params {
        if name.is_empty() {
            report.error(params, "has a parameter without a name");
        }
        string_match(report, params.field(name), text, Empty::Present);
    }
    if let Some(number) = number {
        port(report, at.field("port"), *number);
    }
    labels(report, at.field("sourceLabels"), source_labels);
    if let Some(namespace) = source_namespace {
        label(report, at.field("sourceNamespace"), namespace);
    }
    gateways(report, at.field("gateways"), gates);
}

fn path(report: &mut Report, at: At<'_>, uri: Option<&StringMatch>, ignore_case: Option<bool>) {
    let pattern = uri.and_then(|uri| string_match(report, at.field("uri"), uri, Empty::Refused));
    let at_uri = at.field("uri");
    match pattern {
        Some(Pattern::Exact("*")) => {}
        Some(Pattern::Exact(text)) if !text.starts_with('/') => {
            report.error(at_uri.field("exact"), "must begin with /, as every path does");
        }
        Some(Pattern::Prefix(text)) if !text.starts_with('/') => {
            report.error(at_uri.field("prefix"), "must begin with /, as every path does");
        }
        Some(Pattern::Exact(text) | Pattern::Prefix(text)) if text.contains(['?', '#']) => {
            report.error(
                at_uri,
                "has a query or fragment, which is not part of the path; use queryParams",
            );
        }
        Some(Pattern::Exact(_) | Pattern::Prefix(_) | Pattern::Regex(_) | Pattern::Present) | None => {}
    }
    let has_effect = matches!(pattern, Some(Pattern::Exact(_) | Pattern::Prefix(_)));
    if ignore_case == Some(true) && !has_effect {
        report.warning(
            at.field("ignoreUriCase"),
            "has no effect without uri.exact or uri.prefix",
        );
    }
}

fn method(report: &mut Report, at: At<'_>, text: &StringMatch) {
    match string_match(report, at, text, Empty::Refused) {
        Some(Pattern::Exact(text) | Pattern::Prefix(text)) if !is_token(text) => {
            report.error(at, "is not a method; write one such as GET");
        }
        Some(Pattern::Exact(text)) if text.bytes().any(|b| b.is_ascii_lowercase()) => {
            let upper = text.to_ascii_uppercase();
            report.warning(
                at,
                format!("`{text}` is not {upper}, since methods are case-sensitive"),
            );
        }
        Some(Pattern::Exact(_) | Pattern::Prefix(_) | Pattern::Regex(_) | Pattern::Present) | None => {}
    }
}

fn headers(report: &mut Report, at: At<'_>, headers: &BTreeMap<String, StringMatch>) {
    one_spelling(report, at, headers);
    for (name, text) in headers {
        header_name(
            report,
            at.field(name),
            name,
            "match with uri, method, scheme or authority instead",
        );
        string_match(report, at.field(name), text, Empty::Present);
    }
}

//! `VirtualService`: what a rule does with a request: redirect, direct response, rewrite, header changes.

use super::{
    Report,
    shape::port,
    text::{self, MAX_REGEX_LEN, authority, header_name, header_value, is_base64, one_spelling, path},
};
use crate::{
    path::At,
    virtual_service::http::{Body, DirectResponse, HeaderChanges, Headers, Redirect, RegexRewrite, Rewrite},
};

/// The most bytes the body of a direct response may have.
const MAX_BODY: usize = 1 << 20;

/// Headers that belong to a connection, or say where a body ends. Changing them would let one request pass
/// for two.
const OWNED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn redirect(report: &mut Report, at: At<'_>, redirect: &Redirect) {
    let Redirect {
        uri,
        authority: host,
        scheme,
        redirect_code,
        prefix_rewrite,
        port: number,
        derive_port,
    } = redirect;
    if let Some(uri) = uri {
        path(report, at.field("uri"), uri);
    }
    if let Some(host) = host {
        authority(report, at.field("authority"), host);
    }
    if scheme
        .as_ref()
        .is_some_and(|scheme| scheme != "http" && scheme != "https")
    {
        report.error(at.field("scheme"), "must be http or https");
    }
    if let Some(code) = redirect_code
        && ![301, 302, 303, 307, 308].contains(code)
    {
        let message = format!("{code} is not a redirect; use 301, 302, 303, 307 or 308");
        report.error(at.field("redirectCode"), message);
    }
    if let Some(number) = number {
        port(report, at.field("port"), *number);
        if derive_port.is_some() {
            report.error(at.field("derivePort"), "cannot stand beside port; keep one");
        }
    }
    if let Some(prefix) = prefix_rewrite {
        path(report, at.field("prefixRewrite"), prefix);
        if uri.is_some() {
            report.error(at.field("prefixRewrite"), "cannot stand beside uri; keep one");
        }
    }
    if uri.is_none() && host.is_none() && scheme.is_none() && number.is_none() && prefix_rewrite.is_none() {
        report.error(
            at,
            "would lead back to where it came from; give it uri, prefixRewrite, authority, scheme or port",
        );
    }
}

pub(super) fn direct_response(report: &mut Report, at: At<'_>, response: &DirectResponse) {
    let DirectResponse { status, body } = response;
    if !(200..=599).contains(status) {
        report.error(
            at.field("status"),
            format!("{status} is not the status of a response; use 200 to 599"),
        );
    }
    let Some(Body { string, bytes }) = body else {
        return;
    };
    let at_body = at.field("body");
    match (string, bytes) {
        (None, None) => report.error(at_body, "is empty; give it string or bytes, or remove it"),
        (Some(_), Some(_)) => report.error(at_body, "has both string and bytes; keep one"),
        (Some(string), None) if string.len() > MAX_BODY => {
            let len = string.len();
            report.error(
                at_body.field("string"),
                format!("has {len} bytes; {MAX_BODY} is the most"),
            );
        }
        (None, Some(bytes)) if !is_base64(bytes) => {
            report.error(
                at_body.field("bytes"),
                "is not base64; encode it, with its padding",
            );
        }
        (None, Some(bytes)) if bytes.len() / 4 * 3 > MAX_BODY => {
            let len = bytes.len() / 4 * 3;
            report.error(
                at_body.field("bytes"),
                format!("has {len} bytes; {MAX_BODY} is the most"),
            );
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
    if matches!(status, 204 | 205 | 304) {
        report.error(at_body, format!("cannot be sent with status {status}; remove it"));
    }
}

pub(super) fn rewrite(report: &mut Report, at: At<'_>, rewrite: &Rewrite) {
    let Rewrite {
        uri,
        authority: host,
        uri_regex_rewrite,
    } = rewrite;
    if let Some(uri) = uri {
        path(report, at.field("uri"), uri);
    }
    if let Some(host) = host {
        authority(report, at.field("authority"), host);
    }
    if let Some(regex) = uri_regex_rewrite {
        regex_rewrite(report, at.field("uriRegexRewrite"), regex);
        if uri.is_some() {
            report.error(at.field("uriRegexRewrite"), "cannot stand beside uri; keep one");
        }
    }
    if uri.is_none() && host.is_none() && uri_regex_rewrite.is_none() {
        report.error(
            at,
            "changes nothing; give it uri, uriRegexRewrite or authority, or remove it",
        );
    }
}

fn regex_rewrite(report: &mut Report, at: At<'_>, regex: &RegexRewrite) {
    let RegexRewrite { r#match, rewrite } = regex;
    match r#match.as_deref() {
        None | Some("") => report.error(
            at.field("match"),
            "is needed; write the regular expression to look for",
        ),
        Some(pattern) => {
            let groups = text::regex(report, at.field("match"), pattern);
            match rewrite {
                None => report.error(
                    at.field("rewrite"),
                    "is needed; write what takes the place of what matched",
                ),
                Some(new) => replacement(report, at.field("rewrite"), new, groups),
            }
        }
    }
}

/// What takes the place of a match, with `\1` for its first group; `groups` is how many there are, where that is known.
fn replacement(report: &mut Report, at: At<'_>, new: &str, groups: Option<usize>) {
    if new.len() > MAX_REGEX_LEN {
        let len = new.len();
        report.error(at, format!("has {len} bytes; {MAX_REGEX_LEN} is the most"));
        return;
    }
    if new.bytes().any(|b| b <= 0x20 || b == 0x7f) {
        report.error(
            at,
            "has spaces or control characters; write them as %20 and the like",
        );
    }
    let mut chars = new.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        match (chars.next(), groups) {
            (Some('\\'), _) => {}
            (Some(digit @ '0'..='9'), Some(groups)) if digit as usize - '0' as usize > groups => {
                report.error(at, format!("names group \\{digit}, and match has {groups}"));
            }
            (Some('0'..='9'), _) => {}
            _ => report.error(at, "has a \\ that is followed by neither a digit nor another \\"),
        }
    }
}

pub(super) fn headers(report: &mut Report, at: At<'_>, headers: &Headers) {
    let Headers { request, response } = headers;
    for (field, changes) in [("request", request), ("response", response)] {
        let Some(HeaderChanges { set, add, remove }) = changes else {
            continue;
        };
        let at = at.field(field);
        for (field, map) in [("set", set), ("add", add)] {
            let at = at.field(field);
            one_spelling(report, at, map);
            for (name, value) in map {
                changed_header(report, at.field(name), name);
                header_value(report, at.field(name), value);
            }
        }
        let at = at.field("remove");
        for (n, name) in remove.iter().enumerate() {
            changed_header(report, at.index(n), name);
        }
    }
}

fn changed_header(report: &mut Report, at: At<'_>, name: &str) {
    header_name(report, at, name, "use rewrite.uri and rewrite.authority instead");
    if OWNED.contains(&name.to_ascii_lowercase().as_str()) {
        let remedy = match name.eq_ignore_ascii_case("host") {
            true => "use rewrite.authority instead",
            false => "remove it",
        };
        report.error(
            at,
            format!("belongs to the connection and cannot be changed; {remedy}"),
        );
    }
}

//! `VirtualService`: what browsers of other origins are told.

use super::{
    Report,
    text::{Empty, is_token, string_match},
};
use crate::{
    path::At,
    string_match::{Pattern, StringMatch},
    virtual_service::resilience::CorsPolicy,
};

pub(super) fn policy(report: &mut Report, at: At<'_>, cors: &CorsPolicy) {
    let CorsPolicy {
        allow_origins,
        allow_origin,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        unmatched_preflights: _,
    } = cors;
    for (n, origin) in allow_origins.iter().enumerate() {
        string_match(report, at.field("allowOrigins").index(n), origin, Empty::Refused);
    }
    for (n, origin) in allow_origin.iter().enumerate() {
        if origin.is_empty() {
            report.error(
                at.field("allowOrigin").index(n),
                "is empty; write an origin, or * for all",
            );
        }
    }
    match (allow_origins.is_empty(), allow_origin.is_empty()) {
        (true, true) => report.warning(
            at.field("allowOrigins"),
            "is missing, so that no origin is allowed; name those that may ask",
        ),
        (false, false) => {
            report.error(
                at.field("allowOrigin"),
                "cannot stand beside allowOrigins; keep that",
            );
        }
        (true, false) | (false, true) => {}
    }
    for (field, names, what) in [
        ("allowMethods", allow_methods, "a method"),
        ("allowHeaders", allow_headers, "the name of a header"),
        ("exposeHeaders", expose_headers, "the name of a header"),
    ] {
        for (n, name) in names.iter().enumerate() {
            if !is_token(name) {
                report.error(
                    at.field(field).index(n),
                    format!("is not {what}; write one, or * for all"),
                );
            }
        }
    }
    if max_age.is_some_and(|age| age.get().subsec_nanos() > 0) {
        report.error(
            at.field("maxAge"),
            "has a part of a second; browsers count in whole ones",
        );
    }
    let every = |origin: &StringMatch| matches!(origin.pattern(), Some(Pattern::Exact("*")));
    let any = allow_origins.iter().any(every) || allow_origin.iter().any(|origin| origin == "*");
    if any && *allow_credentials == Some(true) {
        report.warning(
            at.field("allowCredentials"),
            "lets every site in the world act in the name of whoever visits it; name the origins that may",
        );
    }
}

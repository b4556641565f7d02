//! Strategies for routes: rules, conditions and actions. `content.rs` draws from them.

use api::{
    Action, Cors, DirectResponse, Fault, FaultAbort, FaultDelay, Forward, Fraction, HeaderChanges, HttpMatch,
    HttpRule, Mirror, NamedMatch, Pattern, Redirect, RegexRewrite, Retry, RetryCondition, Rewrite, Route,
    Split, StringMatch, TcpRule, WeightedCluster,
};
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, StatusCode};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::content::{object, protocol, reference, text, time};

/// A route.
pub(crate) fn route() -> impl Strategy<Value = Route> {
    let tcp = vec(tcp_rule(), 0..3);
    (reference(), 1..=u16::MAX, protocol(), vec(http_rule(), 0..4), tcp).prop_map(
        |(host, port, protocol, http, tcp)| Route {
            host,
            port,
            protocol,
            http,
            tcp,
        },
    )
}

fn tcp_rule() -> impl Strategy<Value = TcpRule> {
    let sni = vec("(\\*\\.)?[a-z0-9_][a-z0-9._-]{0,20}", 0..3);
    (text(), option::of(object()), sni, split()).prop_map(|(name, source, sni, split)| TcpRule {
        name,
        source,
        sni,
        split,
    })
}

fn http_rule() -> impl Strategy<Value = HttpRule> {
    let what = (action(), header_changes(), header_changes(), option::of(cors()));
    (text(), option::of(object()), vec(http_match(), 0..3), what).prop_map(
        |(name, source, matches, (action, request_headers, response_headers, cors))| HttpRule {
            name,
            source,
            matches,
            action,
            request_headers,
            response_headers,
            cors: cors.map(Box::new),
        },
    )
}

fn cors() -> impl Strategy<Value = Cors> {
    let text = || {
        option::of(
            "[A-Za-z*-]{1,8}(,[a-z-]{1,8})?"
                .prop_map(|text| HeaderValue::try_from(text).expect("is a value")),
        )
    };
    let flags = (option::of(any::<u64>()), any::<bool>(), any::<bool>());
    (vec(condition(), 0..3), text(), text(), text(), flags).prop_map(
        |(origins, methods, headers, expose, (max_age, credentials, answers_unmatched))| Cors {
            origins,
            methods,
            headers,
            expose,
            max_age,
            credentials,
            answers_unmatched,
        },
    )
}

fn condition() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        text().prop_map(StringMatch::Exact),
        text().prop_map(StringMatch::Prefix),
        "/?[a-z]{0,6}(\\.\\*|\\[0-9\\]\\+|\\(a\\|b\\))?"
            .prop_map(|text| StringMatch::Regex(Pattern::new(&text).expect("is a regular expression"))),
        Just(StringMatch::Present),
    ]
}

fn any_header_name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z0-9_-]{0,12}".prop_map(|name| HeaderName::try_from(name).expect("is a header name"))
}

fn on_header() -> impl Strategy<Value = NamedMatch> {
    (any_header_name(), condition()).prop_map(|(name, value)| NamedMatch { name, value })
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let maybe = || option::of(condition());
    let query = (reference(), condition()).prop_map(|(name, value)| NamedMatch { name, value });
    let lists = (vec(on_header(), 0..3), vec(on_header(), 0..3), vec(query, 0..3));
    (text(), (maybe(), maybe(), maybe(), maybe()), lists, any::<bool>()).prop_map(
        |(name, (uri, method, authority, scheme), (headers, without_headers, query), ignore_uri_case)| {
            HttpMatch {
                name,
                uri,
                method,
                authority,
                scheme,
                headers,
                without_headers,
                query,
                ignore_uri_case,
            }
        },
    )
}

fn header_changes() -> impl Strategy<Value = HeaderChanges> {
    // A prefix that no framing header has.
    let name = || "x-[a-z0-9-]{0,8}".prop_map(|name| HeaderName::try_from(name).expect("is a header name"));
    let value =
        "[ -~é☂]{0,12}".prop_map(|text| HeaderValue::try_from(text).expect("has no control character"));
    let header = (name(), value);
    (vec(header.clone(), 0..3), vec(header, 0..3), vec(name(), 0..3))
        .prop_map(|(set, add, remove)| HeaderChanges { set, add, remove })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => forward().prop_map(|f| Action::Forward(Box::new(f))),
        1 => redirect().prop_map(Action::Redirect),
        1 => direct().prop_map(Action::Direct),
    ]
}

fn split() -> impl Strategy<Value = Split> {
    let share = (reference(), 0..1000_u32, header_changes(), header_changes()).prop_map(
        |(cluster, weight, request_headers, response_headers)| WeightedCluster {
            cluster,
            weight,
            request_headers,
            response_headers,
        },
    );
    vec(share, 1..4).prop_map(|mut shares| {
        // The sum must be above 0.
        shares[0].weight += 1;
        Split::new(shares).expect("weights have a sum")
    })
}

fn forward() -> impl Strategy<Value = Forward> {
    let mirror = (reference(), fraction()).prop_map(|(cluster, share)| Mirror { cluster, share });
    let more = (option::of(rewrite()), option::of(fault()), vec(mirror, 0..3));
    (split(), option::of(time()), retry(), more).prop_map(
        |(split, timeout, retry, (rewrite, fault, mirrors))| Forward {
            split,
            timeout,
            retry,
            rewrite,
            fault,
            mirrors,
        },
    )
}

fn fraction() -> impl Strategy<Value = Fraction> {
    (0..=100_u32).prop_map(|percent| Fraction::of_percent(percent.into()).expect("is a percentage"))
}

fn fault() -> impl Strategy<Value = Fault> {
    let delay = (time(), fraction()).prop_map(|(delay, share)| FaultDelay { delay, share });
    let abort = (0..=16_u8, status(), fraction()).prop_map(|(grpc, status, share)| FaultAbort {
        grpc,
        status,
        share,
    });
    (option::of(delay), option::of(abort)).prop_map(|(delay, abort)| Fault { delay, abort })
}

fn retry() -> impl Strategy<Value = Retry> {
    let conditions = vec(
        select(vec![
            RetryCondition::ConnectFailure,
            RetryCondition::RefusedStream,
            RetryCondition::Reset,
            RetryCondition::ResetBeforeRequest,
            RetryCondition::ServerError,
            RetryCondition::GatewayError,
            RetryCondition::Retriable4xx,
            RetryCondition::GrpcCancelled,
            RetryCondition::GrpcDeadlineExceeded,
            RetryCondition::GrpcInternal,
            RetryCondition::GrpcResourceExhausted,
            RetryCondition::GrpcUnavailable,
            RetryCondition::RateLimited,
            RetryCondition::RetriableHeaders,
        ]),
        0..6,
    );
    let attempts = 0..=api::limits::MAX_RETRY_ATTEMPTS;
    let times = (option::of(time()), time());
    (
        attempts,
        times,
        conditions,
        vec(status(), 0..3),
        any::<(bool, bool)>(),
    )
        .prop_map(
            |(
                attempts,
                (per_try_timeout, backoff),
                conditions,
                statuses,
                (avoid_previous, avoid_previous_places),
            )| Retry {
                attempts,
                per_try_timeout,
                conditions,
                statuses,
                backoff,
                avoid_previous,
                avoid_previous_places,
            },
        )
}

fn status() -> impl Strategy<Value = StatusCode> {
    (200..600_u16).prop_map(|code| StatusCode::from_u16(code).expect("is a status"))
}

fn path() -> impl Strategy<Value = String> {
    "/[a-z0-9/._~%-]{0,12}(\\?[a-z=&]{1,8})?"
}

fn authority() -> impl Strategy<Value = Authority> {
    "[a-z0-9][a-z0-9.-]{0,12}(:[0-9]{1,4})?"
        .prop_map(|text| Authority::try_from(text).expect("is an authority"))
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    let regex =
        ("/(\\([a-z]+\\))?[a-z.*]{0,6}", "/[a-z$]{0,4}(\\\\0)?").prop_map(|(pattern, replacement)| {
            RegexRewrite::new(&pattern, &replacement).expect("is an expression")
        });
    let new = prop_oneof![
        option::of(path()).prop_map(|uri| (uri, None)),
        regex.prop_map(|regex| (None, Some(regex))),
    ];
    (new, option::of(authority())).prop_map(|((uri, uri_regex), authority)| Rewrite {
        uri,
        authority,
        uri_regex,
    })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let scheme = select(vec![Scheme::HTTP, Scheme::HTTPS]);
    let status = select(vec![301_u16, 302, 303, 307, 308])
        .prop_map(|code| StatusCode::from_u16(code).expect("is a status"));
    let new = prop_oneof![
        option::of(path()).prop_map(|uri| (uri, None)),
        path().prop_map(|prefix| (None, Some(prefix))),
    ];
    let parts = (
        new,
        option::of(authority()),
        option::of(scheme),
        option::of(1..=u16::MAX),
    );
    (parts, status).prop_map(
        |(((uri, prefix_rewrite), authority, scheme, port), status)| Redirect {
            uri,
            prefix_rewrite,
            authority,
            scheme,
            port,
            status,
        },
    )
}

fn direct() -> impl Strategy<Value = DirectResponse> {
    (status(), vec(any::<u8>(), 0..40)).prop_map(|(status, body)| DirectResponse {
        status,
        body: body.into(),
    })
}

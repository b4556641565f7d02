//! Cross-origin requests, as a rule's `corsPolicy` answers them: preflights here, in place of the application, and other
//! requests by headers on whatever they are answered with. `outbound::http` calls [`decide`] for rules that have a policy,
//! and [`grant`] at the end.
//!
//! What an application says itself to origins that the policy does not allow is left as it is.

use api::Cors;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

/// What becomes of a request under a policy.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is of no other origin, or of one that the policy does not speak of: it goes on.
    Apart,
    /// It goes on, and its answer gets these headers.
    Granted(Box<HeaderMap>),
    /// It is a preflight, and this is the answer.
    Answered(Box<HeaderMap>),
}

/// What becomes of a request.
#[must_use]
pub fn decide<B>(cors: &Cors, request: &Request<B>) -> Verdict {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Verdict::Apart;
    };
    let asks_first = request.method() == Method::OPTIONS
        && headers
            .get(header::ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|method| !method.is_empty());
    if !origin.to_str().is_ok_and(|origin| cors.allows(origin)) {
        return match asks_first && cors.answers_unmatched {
            true => Verdict::Answered(Box::default()),
            false => Verdict::Apart,
        };
    }
    let mut granted = HeaderMap::new();
    granted.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.credentials {
        granted.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    let mut add = |name: HeaderName, value: Option<&HeaderValue>| {
        if let Some(value) = value {
            granted.insert(name, value.clone());
        }
    };
    if !asks_first {
        add(header::ACCESS_CONTROL_EXPOSE_HEADERS, cors.expose.as_ref());
        return Verdict::Granted(Box::new(granted));
    }
    add(header::ACCESS_CONTROL_ALLOW_METHODS, cors.methods.as_ref());
    add(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.as_ref());
    let max_age = cors.max_age.map(HeaderValue::from);
    add(header::ACCESS_CONTROL_MAX_AGE, max_age.as_ref());
    Verdict::Answered(Box::new(granted))
}

/// Puts what was granted into a response. It takes the place of what the application says of the same, and says that the
/// answer is another for other origins.
pub fn grant(granted: HeaderMap, response: &mut HeaderMap) {
    if granted.is_empty() {
        return;
    }
    for (name, value) in granted {
        // Every name comes once, so each comes with its name.
        if let Some(name) = name {
            response.insert(name, value);
        }
    }
    let varies = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default();
        value
            .split(',')
            .any(|name| matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("origin"))
    };
    if !response.get_all(header::VARY).iter().any(varies) {
        response.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use api::StringMatch;

    use super::*;

    fn cors() -> Cors {
        Cors {
            origins: vec![StringMatch::Exact("https://shop.example".to_owned())],
            methods: Some(HeaderValue::from_static("GET,POST")),
            headers: Some(HeaderValue::from_static("x-token")),
            expose: Some(HeaderValue::from_static("x-count")),
            max_age: Some(86_400),
            credentials: true,
            answers_unmatched: false,
        }
    }

    fn asked(method: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn told(headers: &HeaderMap) -> Vec<(String, String)> {
        let mut told: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        told.sort();
        told
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    const SHOP: (&str, &str) = ("origin", "https://shop.example");
    const EVIL: (&str, &str) = ("origin", "https://evil.example");
    const METHOD: (&str, &str) = ("access-control-request-method", "POST");

    #[test]
    fn a_preflight_is_answered_with_all_that_is_allowed() {
        let Verdict::Answered(headers) = decide(&cors(), &asked("OPTIONS", &[SHOP, METHOD])) else {
            panic!("it is a preflight");
        };
        let expected = pairs(&[
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", "x-token"),
            ("access-control-allow-methods", "GET,POST"),
            ("access-control-allow-origin", "https://shop.example"),
            ("access-control-max-age", "86400"),
        ]);
        assert_eq!(told(&headers), expected);
    }

    #[test]
    fn other_requests_go_on_and_their_answers_say_who_may_read_them() {
        for request in [
            asked("GET", &[SHOP]),
            asked("POST", &[SHOP, METHOD]),
            asked("OPTIONS", &[SHOP]),
        ] {
            let Verdict::Granted(headers) = decide(&cors(), &request) else {
                panic!("it is allowed: {request:?}");
            };
            let expected = pairs(&[
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-origin", "https://shop.example"),
                ("access-control-expose-headers", "x-count"),
            ]);
            assert_eq!(told(&headers), expected);
        }
    }

    #[test]
    fn what_is_not_allowed_goes_on_without_a_grant_unless_told_otherwise() {
        let answers = Cors {
            answers_unmatched: true,
            ..cors()
        };
        for (method, headers, answered) in [
            ("GET", &[][..], false),
            ("OPTIONS", &[METHOD], false),
            ("GET", &[EVIL], false),
            ("OPTIONS", &[EVIL], false),
            ("OPTIONS", &[EVIL, METHOD], true),
        ] {
            let request = asked(method, headers);
            assert_eq!(decide(&cors(), &request), Verdict::Apart, "{request:?}");
            let expected = match answered {
                true => Verdict::Answered(Box::default()),
                false => Verdict::Apart,
            };
            assert_eq!(decide(&answers, &request), expected, "{request:?}");
        }
    }

    #[test]
    fn a_grant_takes_the_place_of_what_the_application_says_and_varies_by_origin() {
        let allow = header::ACCESS_CONTROL_ALLOW_ORIGIN;
        let granted = || HeaderMap::from_iter([(allow.clone(), HeaderValue::from_static("https://a"))]);
        for (vary, expected) in [
            (None, "origin"),
            (Some("accept, Origin"), "accept, Origin"),
            (Some("*"), "*"),
        ] {
            let mut response = HeaderMap::new();
            response.insert(allow.clone(), HeaderValue::from_static("*"));
            if let Some(vary) = vary {
                response.insert(header::VARY, HeaderValue::from_static(vary));
            }
            grant(granted(), &mut response);
            assert_eq!(
                (&response[&allow], &response[header::VARY]),
                (
                    &HeaderValue::from_static("https://a"),
                    &HeaderValue::from_static(expected),
                )
            );
            assert_eq!(response.len(), 2);
        }
        let mut response = HeaderMap::new();
        grant(HeaderMap::new(), &mut response);
        assert!(response.is_empty());
    }
}

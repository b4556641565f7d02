//! Tests of the decision about another try: each condition against each thing that can come of an attempt.

use std::io;
use std::sync::Arc;

use super::*;

const KIND: RequestKind = RequestKind {
    idempotent: false,
    replayable: true,
};

fn policy(conditions: &[RetryCondition]) -> api::Retry {
    api::Retry {
        conditions: conditions.to_vec(),
        ..api::Retry::default()
    }
}

/// A hyper error for [`Error::Reset`]: what a connection says that ended within its headers.
async fn reset() -> Error {
    let (client, server) = tokio::io::duplex(64);
    drop(server);
    let io = hyper_util::rt::TokioIo::new(client);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::new(String::new());
    let source = Arc::new(sender.send_request(request).await.unwrap_err());
    Error::Reset {
        endpoint: endpoint(),
        source,
    }
}

fn endpoint() -> std::net::SocketAddr {
    "10.0.0.1:80".parse().unwrap()
}

/// Everything that can come of an attempt, by name; `reset` stands for a connection that ended.
fn verdicts<'a>(errors: &'a [(&'static str, Error)]) -> Vec<(&'static str, Verdict<'a>)> {
    let answer = |code: u16, grpc| Verdict::Answer {
        status: StatusCode::from_u16(code).unwrap(),
        grpc,
        limited: false,
        named: false,
    };
    let marked = |code: u16, limited, named| Verdict::Answer {
        status: StatusCode::from_u16(code).unwrap(),
        grpc: None,
        limited,
        named,
    };
    let mut all = vec![
        ("limited 429", marked(429, true, false)),
        ("limited 503", marked(503, true, false)),
        ("named 200", marked(200, false, true)),
        ("named 404", marked(404, false, true)),
        ("200", answer(200, None)),
        ("404", answer(404, None)),
        ("409", answer(409, None)),
        ("429", answer(429, None)),
        ("500", answer(500, None)),
        ("502", answer(502, None)),
        ("503", answer(503, None)),
        ("504", answer(504, None)),
        ("grpc 0", answer(200, Some(0))),
        ("grpc 1", answer(200, Some(1))),
        ("grpc 4", answer(200, Some(4))),
        ("grpc 5", answer(200, Some(5))),
        ("grpc 8", answer(200, Some(8))),
        ("grpc 13", answer(200, Some(13))),
        ("grpc 14", answer(200, Some(14))),
    ];
    all.extend(
        errors
            .iter()
            .map(|(name, error)| (*name, Verdict::Failed { error, pooled: false })),
    );
    all
}

async fn errors() -> Vec<(&'static str, Error)> {
    let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
    let endpoint = endpoint();
    let cluster: Arc<str> = "c".into();
    vec![
        (
            "connect",
            Error::Connect {
                endpoint,
                source: source.clone(),
            },
        ),
        ("connect timeout", Error::ConnectTimeout { endpoint }),
        (
            "tls",
            Error::Tls {
                endpoint,
                source: source.clone(),
            },
        ),
        ("tls setup", Error::TlsSetup { source }),
        ("refused stream", Error::RefusedStream { endpoint }),
        ("not sent", Error::NotSent { endpoint }),
        ("reset", reset().await),
        ("try timeout", Error::TryTimeout { endpoint }),
        ("timeout", Error::Timeout),
        (
            "no route",
            Error::NoRoute {
                route: cluster.clone(),
            },
        ),
        (
            "no endpoint",
            Error::NoEndpoint {
                cluster: cluster.clone(),
                absent: None,
            },
        ),
        (
            "breaker open",
            Error::BreakerOpen {
                cluster: cluster.clone(),
            },
        ),
        ("overflow", Error::Overflow { cluster, limit: "x" }),
        ("not meshed", Error::NotMeshed { endpoint }),
        ("no certificate", Error::NoCertificate),
        ("bad request", Error::BadRequest { problem: "x" }),
    ]
}

const NO_ANSWER: [&str; 7] = [
    "connect",
    "connect timeout",
    "tls",
    "refused stream",
    "not sent",
    "reset",
    "try timeout",
];

#[tokio::test]
async fn each_condition_covers_what_it_says_and_nothing_else() {
    use RetryCondition::*;
    let table: [(RetryCondition, &[&str]); 14] = [
        (ConnectFailure, &["connect", "connect timeout", "tls"]),
        (RefusedStream, &["refused stream"]),
        (Reset, &NO_ANSWER),
        (ResetBeforeRequest, &["not sent"]),
        (
            ServerError,
            &[&["500", "502", "503", "504"][..], &NO_ANSWER].concat(),
        ),
        (GatewayError, &[&["502", "503", "504"][..], &NO_ANSWER].concat()),
        (Retriable4xx, &["409"]),
        (GrpcCancelled, &["grpc 1"]),
        (GrpcDeadlineExceeded, &["grpc 4"]),
        (GrpcInternal, &["grpc 13"]),
        (GrpcResourceExhausted, &["grpc 8"]),
        (GrpcUnavailable, &["grpc 14"]),
        (RateLimited, &["limited 429", "limited 503"]),
        (RetriableHeaders, &["named 200", "named 404"]),
    ];
    let errors = errors().await;
    for (condition, expected) in table {
        let again = Decision::Again(Why::Condition(condition));
        let covered: Vec<_> = verdicts(&errors)
            .into_iter()
            .filter(|(_, verdict)| decide(&policy(&[condition]), 0, *verdict, KIND) == again)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(covered, expected, "{condition:?}");
    }
}

#[tokio::test]
async fn by_default_only_what_was_not_processed_is_tried_again() {
    let errors = errors().await;
    for (name, verdict) in verdicts(&errors) {
        let unsent = ["connect", "connect timeout", "tls", "refused stream"].contains(&name);
        for idempotent in [false, true] {
            let decision = decide(
                &api::Retry::default(),
                0,
                verdict,
                RequestKind { idempotent, ..KIND },
            );
            assert_eq!(matches!(decision, Decision::Again(_)), unsent, "{name}");
        }
    }
}

#[tokio::test]
async fn races_with_the_pool_are_repeated_where_that_is_safe() {
    let (not_sent, reset) = (Error::NotSent { endpoint: endpoint() }, reset().await);
    let off = api::Retry {
        attempts: 0,
        conditions: vec![],
        ..api::Retry::default()
    };
    let default = api::Retry::default();
    let table = [
        // error, pooled, idempotent, policy, retries, expected
        (&not_sent, true, false, &default, 0, Some(Why::NotSent)),
        (&not_sent, true, false, &off, 0, Some(Why::NotSent)),
        (&not_sent, true, false, &off, 1, None),
        (&not_sent, false, false, &default, 0, None),
        (&reset, true, true, &default, 0, Some(Why::IdempotentRace)),
        (&reset, true, true, &off, 0, None),
        (&reset, true, false, &default, 0, None),
        (&reset, false, true, &default, 0, None),
    ];
    for (error, pooled, idempotent, policy, retries, expected) in table {
        let verdict = Verdict::Failed { error, pooled };
        let got = match decide(
            policy,
            retries,
            verdict,
            RequestKind {
                idempotent,
                replayable: true,
            },
        ) {
            Decision::Again(why) => Some(why),
            Decision::Final(_) => None,
        };
        assert_eq!(got, expected, "{error} pooled={pooled} idempotent={idempotent}");
    }
}

#[test]
fn statuses_are_those_of_answers_only() {
    let teapot = StatusCode::IM_A_TEAPOT;
    let policy = api::Retry {
        statuses: vec![teapot, StatusCode::OK],
        ..policy(&[])
    };
    let answered = |status, grpc| Verdict::Answer {
        status,
        grpc,
        limited: false,
        named: false,
    };
    let decide = |status, grpc| super::decide(&policy, 0, answered(status, grpc), KIND);
    assert_eq!(decide(teapot, None), Decision::Again(Why::Status(teapot)));
    assert_eq!(
        decide(StatusCode::OK, None),
        Decision::Again(Why::Status(StatusCode::OK))
    );
    assert_eq!(
        decide(StatusCode::BAD_GATEWAY, None),
        Decision::Final(WhyNot::NotCovered)
    );
    let error = Error::ConnectTimeout { endpoint: endpoint() };
    let policy = api::Retry {
        statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
        ..policy.clone()
    };
    let failed = Verdict::Failed {
        error: &error,
        pooled: false,
    };
    assert_eq!(
        super::decide(&policy, 0, failed, KIND),
        Decision::Final(WhyNot::NotCovered)
    );
}

#[test]
fn attempts_and_a_body_that_is_gone_end_it_with_their_reason() {
    let policy = policy(&[RetryCondition::ServerError]);
    let verdict = Verdict::Answer {
        status: StatusCode::BAD_GATEWAY,
        grpc: None,
        limited: false,
        named: false,
    };
    let text =
        |retries, replayable| match decide(&policy, retries, verdict, RequestKind { replayable, ..KIND }) {
            Decision::Again(why) => why.to_string(),
            Decision::Final(why_not) => why_not.to_string(),
        };
    assert_eq!(text(0, true), "retryOn has 5xx");
    assert_eq!(text(1, true), "retryOn has 5xx");
    assert_eq!(text(2, true), "retryOn has 5xx, but 2 retries are used up");
    assert_eq!(
        text(0, false),
        "retryOn has 5xx, but part of the body has been sent and not kept"
    );
}

#[test]
fn a_grpc_status_is_read_or_unknown() {
    let with = |value: &'static [u8]| {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", http::HeaderValue::from_bytes(value).unwrap());
        grpc_status(&headers)
    };
    assert_eq!(with(b"14"), Some(14));
    assert_eq!(with(b"0"), Some(0));
    for strange in [&b""[..], b"-1", b"256", b"OK", b"\xff"] {
        assert_eq!(with(strange), Some(2));
    }
    assert_eq!(grpc_status(&HeaderMap::new()), None);
}

#[test]
fn methods_that_may_change_something_anew_are_not_idempotent() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert!(is_idempotent(&method.parse().unwrap()), "{method}");
    }
    for method in ["POST", "PATCH", "CONNECT", "get", "PURGE"] {
        assert!(!is_idempotent(&method.parse().unwrap()), "{method}");
    }
}

#[test]
fn the_request_names_headers_once_and_within_bounds() {
    let mut headers = HeaderMap::new();
    assert_eq!(take_retriable_headers(&mut headers), None);
    let name = "x-envoy-retriable-header-names";
    let values = ["X-Try-Again, x-busy", "", "no header,x-last"];
    for value in values {
        headers.append(name, value.parse().unwrap());
    }
    let names = take_retriable_headers(&mut headers).unwrap();
    assert_eq!(*names, ["x-try-again", "x-busy", "x-last"]);
    assert!(headers.is_empty(), "it goes no further");
    headers.insert(name, vec!["a"; 1000].join(",").parse().unwrap());
    assert_eq!(take_retriable_headers(&mut headers).unwrap().len(), 32);
}

//! What an attempt said about its endpoint. The caller of a [`Pick`](super::Pick) makes one from the answer or the error;
//! breakers, outlier detection and latencies learn from it. Nothing here decides.

use http::StatusCode;

use crate::error::Error;

/// What an attempt said about its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer below 500, or a TCP connection that came about.
    Success,
    /// An answer 5xx other than 502, 503 and 504.
    ServerError,
    /// An answer 502, 503 or 504.
    GatewayError,
    /// No connection came about: refused, unreachable, too slow, or its TLS failed but for a name of the caller's.
    ConnectFailure,
    /// The connection ended after the request was sent, before an answer.
    Reset,
    /// No answer in time.
    Timeout,
    /// Nothing: the caller went away, the request was not sent, or this proxy stood in the way itself.
    Neutral,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::ServerError,
        Self::GatewayError,
        Self::ConnectFailure,
        Self::Reset,
        Self::Timeout,
        Self::Neutral,
    ];

    /// That of an answer. A `grpc-status` known by then (trailers-only answers, or at the end of the stream) counts as
    /// the HTTP status which `google.rpc.Code` gives for it.
    #[must_use]
    pub fn of_answer(status: StatusCode, grpc: Option<u8>) -> Self {
        match code_of(status, grpc) {
            502..=504 => Self::GatewayError,
            500.. => Self::ServerError,
            _ => Self::Success,
        }
    }

    /// That of an error.
    ///
    /// A refused stream is what a draining server says, and an unsent request is a race of our own pool: neither speaks
    /// against the endpoint. A caller that gave up *while connecting* should report [`Outcome::ConnectFailure`] rather
    /// than the timeout, so that a dead node is noticed however short the caller's patience is.
    #[must_use]
    pub fn of_error(error: &Error) -> Self {
        match error {
            Error::Connect { .. } | Error::ConnectTimeout { .. } | Error::Tls { .. } => Self::ConnectFailure,
            Error::Reset { .. } => Self::Reset,
            Error::TryTimeout { .. } | Error::Timeout => Self::Timeout,
            Error::TlsName { .. }
            | Error::TlsSetup { .. }
            | Error::NotSent { .. }
            | Error::RefusedStream { .. }
            | Error::NoRoute { .. }
            | Error::Refused { .. }
            | Error::DiscoveryTimeout { .. }
            | Error::NoEndpoint { .. }
            | Error::BreakerOpen { .. }
            | Error::Overflow { .. }
            | Error::NotMeshed { .. }
            | Error::NoCertificate
            | Error::FaultAbort { .. }
            | Error::BadRequest { .. }
            | Error::Downstream { .. }
            | Error::PlaintextRefused => Self::Neutral,
        }
    }
}

/// The status that an answer counts as, see [`Outcome::of_answer`].
#[must_use]
pub fn code_of(status: StatusCode, grpc: Option<u8>) -> u16 {
    match grpc {
        Some(grpc) if status.is_success() => http_of_grpc(grpc),
        _ => status.as_u16(),
    }
}

/// The HTTP status that `google/rpc/code.proto` documents for a gRPC status.
fn http_of_grpc(code: u8) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        // UNKNOWN, INTERNAL, DATA_LOSS, and what no specification names.
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_grpc_statuses_are_told_apart() {
        let table = [
            (200, None, Outcome::Success),
            (404, None, Outcome::Success),
            (499, None, Outcome::Success),
            (500, None, Outcome::ServerError),
            (501, None, Outcome::ServerError),
            (502, None, Outcome::GatewayError),
            (503, None, Outcome::GatewayError),
            (504, None, Outcome::GatewayError),
            (505, None, Outcome::ServerError),
            (599, None, Outcome::ServerError),
            (200, Some(0), Outcome::Success),
            (200, Some(5), Outcome::Success),
            (200, Some(1), Outcome::Success),
            (200, Some(2), Outcome::ServerError),
            (200, Some(4), Outcome::GatewayError),
            (200, Some(12), Outcome::ServerError),
            (200, Some(13), Outcome::ServerError),
            (200, Some(14), Outcome::GatewayError),
            (200, Some(200), Outcome::ServerError),
            // A status that is an error already needs no second opinion.
            (503, Some(0), Outcome::GatewayError),
        ];
        for (status, grpc, expected) in table {
            let got = Outcome::of_answer(StatusCode::from_u16(status).unwrap(), grpc);
            assert_eq!(got, expected, "{status} {grpc:?}");
        }
    }

    #[test]
    fn only_what_the_endpoint_did_speaks_against_it() {
        let endpoint = "10.0.0.1:80".parse().unwrap();
        let io = std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let table = [
            (
                Error::Connect {
                    endpoint,
                    source: io.clone(),
                },
                Outcome::ConnectFailure,
            ),
            (Error::ConnectTimeout { endpoint }, Outcome::ConnectFailure),
            (
                Error::Tls {
                    endpoint,
                    source: io.clone(),
                },
                Outcome::ConnectFailure,
            ),
            (
                Error::TlsName {
                    endpoint,
                    source: io.clone(),
                },
                Outcome::Neutral,
            ),
            (Error::TlsSetup { source: io }, Outcome::Neutral),
            (Error::TryTimeout { endpoint }, Outcome::Timeout),
            (Error::Timeout, Outcome::Timeout),
            (Error::NotSent { endpoint }, Outcome::Neutral),
            (Error::RefusedStream { endpoint }, Outcome::Neutral),
            (Error::NoCertificate, Outcome::Neutral),
        ];
        for (error, expected) in table {
            assert_eq!(Outcome::of_error(&error), expected, "{error}");
        }
    }
}

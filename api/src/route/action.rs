//! What a rule does with a request it matches.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::uri::{Authority, Scheme};

use super::headers::HeaderChanges;
use crate::invalid::{Invalid, Under, each, port, required, to_ms};
use crate::{limits, proto};

/// What a rule does with a request it matches.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send it to an endpoint.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with a fixed response.
    Direct(DirectResponse),
}

/// Send the request to an endpoint of one of the clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// The clusters and their shares.
    pub split: Split,
    /// For the whole request, retries included; `None` for no bound.
    pub timeout: Option<Duration>,
    /// When and how often it is tried again.
    pub retry: Retry,
    /// Changes to path and authority.
    pub rewrite: Option<Rewrite>,
}

/// Clusters and their shares of traffic. There is at least one, and the weights have a sum above 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    clusters: Vec<WeightedCluster>,
    total: u32,
}

/// One share of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Name of the Cluster resource.
    pub cluster: String,
    /// Relative share; 0 gets nothing.
    pub weight: u32,
    /// Applied to the request, after the rule's.
    pub request_headers: HeaderChanges,
    /// Applied to the response, after the rule's.
    pub response_headers: HeaderChanges,
}

impl Split {
    /// A split; its weights need a sum above 0 that fits 32 bits.
    ///
    /// # Errors
    /// When there is no cluster, or the sum is out of range.
    pub fn new(clusters: Vec<WeightedCluster>) -> Result<Self, Invalid> {
        if clusters.is_empty() {
            return Err(Invalid::new(
                "clusters",
                "is empty: a rule that forwards needs a cluster",
            ));
        }
        let total: u64 = clusters.iter().map(|c| u64::from(c.weight)).sum();
        match u32::try_from(total) {
            Ok(0) => Err(Invalid::new(
                "clusters",
                "have weights with the sum 0: no cluster would get traffic",
            )),
            Ok(total) => Ok(Self { clusters, total }),
            Err(_) => Err(Invalid::new(
                "clusters",
                format!("have weights with the sum {total}, above 32 bits"),
            )),
        }
    }

    /// All traffic to one cluster.
    #[must_use]
    pub fn to(cluster: impl Into<String>) -> Self {
        let only = WeightedCluster {
            cluster: cluster.into(),
            weight: 1,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
        };
        Self {
            clusters: vec![only],
            total: 1,
        }
    }

    /// The clusters, in the order written.
    #[must_use]
    pub fn clusters(&self) -> &[WeightedCluster] {
        &self.clusters
    }

    /// Sum of the weights, above 0.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Index of the cluster that `roll`, taken evenly from `0..total`, falls on.
    #[must_use]
    pub fn index_of(&self, roll: u32) -> usize {
        let mut left = roll % self.total;
        for (i, cluster) in self.clusters.iter().enumerate() {
            if left < cluster.weight {
                return i;
            }
            left -= cluster.weight;
        }
        0
    }

    pub(super) fn into_proto(self) -> Vec<proto::WeightedCluster> {
        self.clusters.into_iter().map(Into::into).collect()
    }
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first; 0 for none.
    pub attempts: u32,
    /// Bound of each try; `None` for the request's.
    pub per_try_timeout: Option<Duration>,
    /// What a try may fail with to be followed by another.
    pub conditions: Vec<RetryCondition>,
    /// Response statuses that are tried again.
    pub statuses: Vec<StatusCode>,
    /// Base of the exponential back-off.
    pub backoff: Duration,
    /// Prefer endpoints not yet tried for this request.
    pub avoid_previous: bool,
}

impl Default for Retry {
    /// What holds for every request: again only when it provably was not processed.
    fn default() -> Self {
        Self {
            attempts: limits::RETRY_ATTEMPTS,
            per_try_timeout: None,
            conditions: vec![RetryCondition::ConnectFailure, RetryCondition::RefusedStream],
            statuses: Vec::new(),
            backoff: limits::RETRY_BACKOFF,
            avoid_previous: true,
        }
    }
}

/// What a try may fail with to be followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryCondition {
    /// No connection came about.
    ConnectFailure,
    /// HTTP/2 REFUSED_STREAM, or a GOAWAY that says it was not processed.
    RefusedStream,
    /// The connection ended before response headers, or the per-try timeout passed.
    Reset,
    /// The connection ended before the request was sent.
    ResetBeforeRequest,
    /// Status 5xx, and all that `Reset` means.
    ServerError,
    /// Status 502, 503 or 504.
    GatewayError,
    /// Status 409.
    Retriable4xx,
    /// gRPC status 1.
    GrpcCancelled,
    /// gRPC status 4.
    GrpcDeadlineExceeded,
    /// gRPC status 13.
    GrpcInternal,
    /// gRPC status 8.
    GrpcResourceExhausted,
    /// gRPC status 14.
    GrpcUnavailable,
}

/// Changes to path and authority before the request is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Takes the place of the matched prefix, or of the whole path where the match was no prefix.
    pub uri: Option<String>,
    /// The new authority.
    pub authority: Option<Authority>,
}

/// Answer with a redirect; what is `None` stays as in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Path (and query).
    pub uri: Option<String>,
    /// Host, with or without a port.
    pub authority: Option<Authority>,
    /// Scheme.
    pub scheme: Option<Scheme>,
    /// Port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// Answer with a fixed response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn authority(field: &str, text: String) -> Result<Option<Authority>, Invalid> {
    some(text)
        .map(|a| {
            Authority::try_from(a.as_str())
                .map_err(|_| Invalid::new(field, format!("{a:?} is not an authority")))
        })
        .transpose()
}

fn path(field: &str, text: String) -> Result<Option<String>, Invalid> {
    let Some(path) = some(text) else { return Ok(None) };
    let ok = path.starts_with('/') && http::uri::PathAndQuery::try_from(path.as_str()).is_ok();
    if ok {
        Ok(Some(path))
    } else {
        Err(Invalid::new(
            field,
            format!("{path:?} is not a path: begin with `/`"),
        ))
    }
}

fn status(field: &str, code: u32) -> Result<StatusCode, Invalid> {
    u16::try_from(code)
        .ok()
        .and_then(|c| StatusCode::from_u16(c).ok())
        .filter(|s| (200..600).contains(&s.as_u16()))
        .ok_or_else(|| Invalid::new(field, format!("{code} is not a response status: use 200 to 599")))
}

impl TryFrom<proto::http_rule::Action> for Action {
    type Error = Invalid;

    fn try_from(pb: proto::http_rule::Action) -> Result<Self, Invalid> {
        use proto::http_rule::Action as Pb;
        Ok(match pb {
            Pb::Forward(forward) => Self::Forward(Box::new(forward.try_into().under("forward")?)),
            Pb::Redirect(redirect) => Self::Redirect(redirect.try_into().under("redirect")?),
            Pb::DirectResponse(direct) => Self::Direct(direct.try_into().under("direct_response")?),
        })
    }
}

impl From<Action> for proto::http_rule::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Forward(forward) => Self::Forward((*forward).into()),
            Action::Redirect(redirect) => Self::Redirect(redirect.into()),
            Action::Direct(direct) => Self::DirectResponse(direct.into()),
        }
    }
}

impl TryFrom<proto::Forward> for Forward {
    type Error = Invalid;

    fn try_from(pb: proto::Forward) -> Result<Self, Invalid> {
        let proto::Forward {
            clusters,
            timeout,
            retry,
            rewrite,
        } = pb;
        Ok(Self {
            split: Split::new(each("clusters", clusters)?)?,
            timeout: timeout.map(|t| millis("timeout", t)).transpose()?,
            retry: required("retry", retry)?.try_into().under("retry")?,
            rewrite: rewrite.map(Rewrite::try_from).transpose().under("rewrite")?,
        })
    }
}

fn millis(field: &str, proto::Milliseconds { value }: proto::Milliseconds) -> Result<Duration, Invalid> {
    if value == 0 {
        return Err(Invalid::new(
            field,
            "must be at least 1 ms: leave it out for no bound",
        ));
    }
    Ok(Duration::from_millis(value))
}

fn to_millis(d: Duration) -> proto::Milliseconds {
    proto::Milliseconds { value: to_ms(d) }
}

impl From<Forward> for proto::Forward {
    fn from(
        Forward {
            split,
            timeout,
            retry,
            rewrite,
        }: Forward,
    ) -> Self {
        Self {
            clusters: split.into_proto(),
            timeout: timeout.map(to_millis),
            retry: Some(retry.into()),
            rewrite: rewrite.map(Into::into),
        }
    }
}

impl TryFrom<proto::WeightedCluster> for WeightedCluster {
    type Error = Invalid;

    fn try_from(pb: proto::WeightedCluster) -> Result<Self, Invalid> {
        let proto::WeightedCluster {
            cluster,
            weight,
            request_headers,
            response_headers,
        } = pb;
        if cluster.is_empty() {
            return Err(Invalid::new("cluster", "is empty"));
        }
        Ok(Self {
            cluster,
            weight,
            request_headers: HeaderChanges::from_optional(request_headers).under("request_headers")?,
            response_headers: HeaderChanges::from_optional(response_headers).under("response_headers")?,
        })
    }
}

impl From<WeightedCluster> for proto::WeightedCluster {
    fn from(share: WeightedCluster) -> Self {
        let WeightedCluster {
            cluster,
            weight,
            request_headers,
            response_headers,
        } = share;
        Self {
            cluster,
            weight,
            request_headers: request_headers.into_optional(),
            response_headers: response_headers.into_optional(),
        }
    }
}

impl TryFrom<proto::Retry> for Retry {
    type Error = Invalid;

    fn try_from(pb: proto::Retry) -> Result<Self, Invalid> {
        let proto::Retry {
            attempts,
            per_try_timeout,
            conditions,
            statuses,
            backoff_ms,
            avoid_previous,
        } = pb;
        if attempts > limits::MAX_RETRY_ATTEMPTS {
            return Err(Invalid::new(
                "attempts",
                format!(
                    "{attempts} are more than the {} allowed",
                    limits::MAX_RETRY_ATTEMPTS
                ),
            ));
        }
        let conditions = conditions
            .into_iter()
            .enumerate()
            .map(|(i, c)| condition(c).under(&format!("conditions[{i}]")))
            .collect::<Result<_, _>>()?;
        let statuses = statuses
            .into_iter()
            .enumerate()
            .map(|(i, s)| status(&format!("statuses[{i}]"), s))
            .collect::<Result<_, _>>()?;
        let per_try_timeout = per_try_timeout
            .map(|t| millis("per_try_timeout", t))
            .transpose()?;
        let backoff = Duration::from_millis(backoff_ms);
        Ok(Self {
            attempts,
            per_try_timeout,
            conditions,
            statuses,
            backoff,
            avoid_previous,
        })
    }
}

impl From<Retry> for proto::Retry {
    fn from(retry: Retry) -> Self {
        let Retry {
            attempts,
            per_try_timeout,
            conditions,
            statuses,
            backoff,
            avoid_previous,
        } = retry;
        Self {
            attempts,
            per_try_timeout: per_try_timeout.map(to_millis),
            conditions: conditions
                .into_iter()
                .map(|c| proto::RetryCondition::from(c).into())
                .collect(),
            statuses: statuses.into_iter().map(|s| s.as_u16().into()).collect(),
            backoff_ms: to_ms(backoff),
            avoid_previous,
        }
    }
}

fn condition(pb: i32) -> Result<RetryCondition, Invalid> {
    use proto::RetryCondition as Pb;
    Ok(match Pb::try_from(pb).unwrap_or(Pb::Unspecified) {
        Pb::ConnectFailure => RetryCondition::ConnectFailure,
        Pb::RefusedStream => RetryCondition::RefusedStream,
        Pb::Reset => RetryCondition::Reset,
        Pb::ResetBeforeRequest => RetryCondition::ResetBeforeRequest,
        Pb::ServerError => RetryCondition::ServerError,
        Pb::GatewayError => RetryCondition::GatewayError,
        Pb::Retriable4xx => RetryCondition::Retriable4xx,
        Pb::GrpcCancelled => RetryCondition::GrpcCancelled,
        Pb::GrpcDeadlineExceeded => RetryCondition::GrpcDeadlineExceeded,
        Pb::GrpcInternal => RetryCondition::GrpcInternal,
        Pb::GrpcResourceExhausted => RetryCondition::GrpcResourceExhausted,
        Pb::GrpcUnavailable => RetryCondition::GrpcUnavailable,
        Pb::Unspecified => {
            return Err(Invalid::new(
                "",
                format!("{pb} is not a condition this build knows"),
            ));
        }
    })
}

impl From<RetryCondition> for proto::RetryCondition {
    fn from(condition: RetryCondition) -> Self {
        match condition {
            RetryCondition::ConnectFailure => Self::ConnectFailure,
            RetryCondition::RefusedStream => Self::RefusedStream,
            RetryCondition::Reset => Self::Reset,
            RetryCondition::ResetBeforeRequest => Self::ResetBeforeRequest,
            RetryCondition::ServerError => Self::ServerError,
            RetryCondition::GatewayError => Self::GatewayError,
            RetryCondition::Retriable4xx => Self::Retriable4xx,
            RetryCondition::GrpcCancelled => Self::GrpcCancelled,
            RetryCondition::GrpcDeadlineExceeded => Self::GrpcDeadlineExceeded,
            RetryCondition::GrpcInternal => Self::GrpcInternal,
            RetryCondition::GrpcResourceExhausted => Self::GrpcResourceExhausted,
            RetryCondition::GrpcUnavailable => Self::GrpcUnavailable,
        }
    }
}

impl TryFrom<proto::Rewrite> for Rewrite {
    type Error = Invalid;

    fn try_from(proto::Rewrite { uri, authority: host }: proto::Rewrite) -> Result<Self, Invalid> {
        Ok(Self {
            uri: path("uri", uri)?,
            authority: authority("authority", host)?,
        })
    }
}

impl From<Rewrite> for proto::Rewrite {
    fn from(Rewrite { uri, authority }: Rewrite) -> Self {
        Self {
            uri: uri.unwrap_or_default(),
            authority: authority.map(|a| a.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<proto::Redirect> for Redirect {
    type Error = Invalid;

    fn try_from(pb: proto::Redirect) -> Result<Self, Invalid> {
        let proto::Redirect {
            uri,
            authority: host,
            scheme,
            port: number,
            status: code,
        } = pb;
        let scheme = some(scheme)
            .map(|s| {
                Scheme::try_from(s.as_str())
                    .map_err(|_| Invalid::new("scheme", format!("{s:?} is not a scheme")))
            })
            .transpose()?;
        let status = match code {
            0 => StatusCode::MOVED_PERMANENTLY,
            301 | 302 | 303 | 307 | 308 => status("status", code)?,
            _ => {
                return Err(Invalid::new(
                    "status",
                    format!("{code} does not redirect: use 301, 302, 303, 307 or 308"),
                ));
            }
        };
        Ok(Self {
            uri: path("uri", uri)?,
            authority: authority("authority", host)?,
            scheme,
            port: (number != 0).then(|| port("port", number)).transpose()?,
            status,
        })
    }
}

impl From<Redirect> for proto::Redirect {
    fn from(
        Redirect {
            uri,
            authority,
            scheme,
            port,
            status,
        }: Redirect,
    ) -> Self {
        Self {
            uri: uri.unwrap_or_default(),
            authority: authority.map(|a| a.to_string()).unwrap_or_default(),
            scheme: scheme.map(|s| s.to_string()).unwrap_or_default(),
            port: port.map_or(0, u32::from),
            status: status.as_u16().into(),
        }
    }
}

impl TryFrom<proto::DirectResponse> for DirectResponse {
    type Error = Invalid;

    fn try_from(
        proto::DirectResponse { status: code, body }: proto::DirectResponse,
    ) -> Result<Self, Invalid> {
        if body.len() > limits::MAX_DIRECT_BODY {
            return Err(Invalid::new(
                "body",
                format!(
                    "has {} bytes, {} are allowed",
                    body.len(),
                    limits::MAX_DIRECT_BODY
                ),
            ));
        }
        Ok(Self {
            status: status("status", code)?,
            body: body.into(),
        })
    }
}

impl From<DirectResponse> for proto::DirectResponse {
    fn from(DirectResponse { status, body }: DirectResponse) -> Self {
        Self {
            status: status.as_u16().into(),
            body: body.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(weight: u32) -> WeightedCluster {
        WeightedCluster {
            weight,
            ..Split::to("c").clusters[0].clone()
        }
    }

    #[test]
    fn each_roll_falls_on_the_share_that_covers_it() {
        let split = Split::new(vec![share(90), share(0), share(10)]).unwrap();
        assert_eq!(split.index_of(0), 0);
        assert_eq!(split.index_of(89), 0);
        assert_eq!(split.index_of(90), 2);
        assert_eq!(split.index_of(99), 2);
    }

    #[test]
    fn weights_without_a_usable_sum_are_refused() {
        assert!(Split::new(vec![]).is_err());
        assert!(
            Split::new(vec![share(0), share(0)])
                .unwrap_err()
                .problem
                .contains("sum 0")
        );
        assert!(Split::new(vec![share(u32::MAX), share(1)]).is_err());
    }
}

//! What a rule does with a request it matches.

mod answer;
mod fault;
mod mirror;
mod retry;
mod rewrite;
mod split;

use std::time::Duration;

use http::StatusCode;
use http::uri::Authority;

use crate::invalid::{Invalid, Under, each, required, to_ms};
use crate::{limits, proto};

pub use answer::{DirectResponse, Redirect};
pub use fault::{Fault, FaultAbort, FaultDelay, Fraction};
pub use mirror::Mirror;
pub use retry::{Retry, RetryCondition};
pub use rewrite::{RegexRewrite, Rewrite};
pub use split::{Split, WeightedCluster};

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
    /// What goes wrong on purpose.
    pub fault: Option<Fault>,
    /// Clusters that get copies.
    pub mirrors: Vec<Mirror>,
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
            fault,
            mirrors,
        } = pb;
        if mirrors.len() > limits::MAX_MIRRORS {
            let (len, most) = (mirrors.len(), limits::MAX_MIRRORS);
            let problem = format!("{len} mirrors are more than the {most} allowed");
            return Err(Invalid::new("mirrors", problem));
        }
        Ok(Self {
            split: Split::new(each("clusters", clusters)?)?,
            timeout: timeout.map(|t| millis("timeout", t)).transpose()?,
            retry: required("retry", retry)?.try_into().under("retry")?,
            rewrite: rewrite.map(Rewrite::try_from).transpose().under("rewrite")?,
            fault: fault.map(Fault::try_from).transpose().under("fault")?,
            mirrors: each("mirrors", mirrors)?,
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
            fault,
            mirrors,
        }: Forward,
    ) -> Self {
        Self {
            clusters: split.into_proto(),
            timeout: timeout.map(to_millis),
            retry: Some(retry.into()),
            rewrite: rewrite.map(Into::into),
            fault: fault.map(Into::into),
            mirrors: mirrors.into_iter().map(Into::into).collect(),
        }
    }
}

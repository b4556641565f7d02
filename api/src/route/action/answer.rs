//! Answers that a rule gives itself, without an endpoint.

use bytes::Bytes;
use http::StatusCode;
use http::uri::{Authority, Scheme};

use super::{authority, path, some, status};
use crate::invalid::{Invalid, port};
use crate::{limits, proto};

/// Answer with a redirect; what is `None` stays as in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Path (and query).
    pub uri: Option<String>,
    /// Takes the place of the matched prefix, or of the whole path where the match was no prefix; never beside `uri`.
    pub prefix_rewrite: Option<String>,
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

impl TryFrom<proto::Redirect> for Redirect {
    type Error = Invalid;

    fn try_from(pb: proto::Redirect) -> Result<Self, Invalid> {
        let proto::Redirect {
            uri,
            authority: host,
            scheme,
            port: number,
            status: code,
            prefix_rewrite,
        } = pb;
        if !uri.is_empty() && !prefix_rewrite.is_empty() {
            return Err(Invalid::new("prefix_rewrite", "cannot stand beside uri"));
        }
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
            prefix_rewrite: path("prefix_rewrite", prefix_rewrite)?,
            authority: authority("authority", host)?,
            scheme,
            port: (number != 0).then(|| port("port", number)).transpose()?,
            status,
        })
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

impl From<Redirect> for proto::Redirect {
    fn from(
        Redirect {
            uri,
            prefix_rewrite,
            authority,
            scheme,
            port,
            status,
        }: Redirect,
    ) -> Self {
        Self {
            uri: uri.unwrap_or_default(),
            prefix_rewrite: prefix_rewrite.unwrap_or_default(),
            authority: authority.map(|a| a.to_string()).unwrap_or_default(),
            scheme: scheme.map(|s| s.to_string()).unwrap_or_default(),
            port: port.map_or(0, u32::from),
            status: status.as_u16().into(),
        }
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

//! One question to the API server: answered in bounded time, and its failure in words. Used wherever the operator reads or
//! writes a single object.

use std::fmt;
use std::time::Duration;

use kube::core::Status;

/// For one answer of the API server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The client or the API server said why.
    Said(Box<kube::Error>),
    /// Nothing came in time.
    Silent,
}

/// Waits for an answer, for as long as one may take.
pub(crate) async fn within<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failed> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answered) => answered.map_err(|error| Failed::Said(Box::new(error))),
        Err(_) => Err(Failed::Silent),
    }
}

impl Failed {
    /// The API server's refusal, if it is one.
    pub(crate) fn status(&self) -> Option<&Status> {
        match self {
            Self::Said(error) => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Silent => None,
        }
    }

    /// Whether asking again may help: not when the API server understood, and refused.
    pub(crate) fn passing(&self) -> bool {
        self.status()
            .is_none_or(|status| !(400..500).contains(&status.code) || status.code == 429)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "the API server gave no answer within {} s", PATIENCE.as_secs()),
            Self::Said(error) => match &**error {
                kube::Error::Api(status) => {
                    write!(f, "the API server refused: {} ({})", status.message, status.code)
                }
                // The innermost cause says most: that a connection was refused, rather than that a request failed.
                other => {
                    let mut cause: &dyn std::error::Error = other;
                    while let Some(inner) = cause.source() {
                        cause = inner;
                    }
                    write!(f, "the API server cannot be asked: {cause}")
                }
            },
        }
    }
}

//! Who is calling: the bearer of a token becomes a pod with its namespace and service account. `session` asks on every
//! call. Which kind of token counts follows from where the authority keeps its keys, never from what a client presents.

use std::time::SystemTime;

use super::review::Reviewer;
use super::token::TokenKey;
use crate::metrics::ReviewMetrics;

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Namespace of the pod.
    pub namespace: String,
    /// Service account of the pod.
    pub service_account: String,
    /// Name of the pod.
    pub pod: String,
}

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// It is not accepted.
    #[error("{0}")]
    Denied(String),
    /// Whoever knows could not be asked; trying again may help.
    #[error("{0}")]
    Unavailable(String),
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier(Kind);

#[derive(Debug)]
enum Kind {
    JoinTokens(Box<TokenKey>),
    TokenReview(Box<Reviewer>),
}

impl Verifier {
    /// Verifies join tokens of this key.
    #[must_use]
    pub fn join_tokens(key: TokenKey) -> Self {
        Self(Kind::JoinTokens(Box::new(key)))
    }

    /// Has Kubernetes review service-account tokens.
    #[must_use]
    pub fn token_review(client: kube::Client, metrics: ReviewMetrics) -> Self {
        Self(Kind::TokenReview(Box::new(Reviewer::new(client, metrics))))
    }

    /// Who the bearer of a token is.
    ///
    /// # Errors
    /// When the token is not accepted, or cannot be verified now.
    pub async fn verify(&self, token: &str) -> Result<Claims, Unverified> {
        match &self.0 {
            Kind::JoinTokens(key) => key
                .verify(token, SystemTime::now())
                .map_err(|e| Unverified::Denied(e.to_string())),
            Kind::TokenReview(reviewer) => reviewer.verify(token).await,
        }
    }
}

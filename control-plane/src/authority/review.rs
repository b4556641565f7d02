//! Tokens of Kubernetes service accounts: the API server says whose they are, by a TokenReview. Called by `verify`. An
//! answer is kept for a short while, so that many proxies that come back at once cost the API server little; a denial is
//! not kept, and neither is a token: only its hash.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::names::TOKEN_AUDIENCE;
use aws_lc_rs::digest;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::verify::{Claims, Unverified};
use crate::kubernetes::answer::within;
use crate::metrics::ReviewMetrics;

/// How long an answer counts. A pod that was deleted is known for so long at most.
const FRESH: Duration = Duration::from_secs(60);
/// Answers that are kept.
const KEPT: usize = 20_000;
/// Questions under way at the API server.
const AT_ONCE: usize = 32;
/// More than any token of Kubernetes; longer ones are refused unread.
const MAX_LEN: usize = 16 << 10;
/// What Kubernetes adds to the user of a token that is bound to a pod.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

type Hash = [u8; 32];

/// Has tokens reviewed.
pub(crate) struct Reviewer {
    reviews: Api<TokenReview>,
    known: Mutex<Known>,
    slots: Semaphore,
    metrics: ReviewMetrics,
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reviewer(..)")
    }
}

impl Reviewer {
    pub(crate) fn new(client: kube::Client, metrics: ReviewMetrics) -> Self {
        Self {
            reviews: Api::all(client),
            known: Mutex::new(Known::default()),
            slots: Semaphore::new(AT_ONCE),
            metrics,
        }
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<Claims, Unverified> {
        check_shape(token)?;
        let hash = hash(token);
        if let Some(claims) = self.known().get(&hash, Instant::now()) {
            self.metrics.known.inc();
            return Ok(claims);
        }
        let _slot = self.slots.acquire().await.map_err(|_| stopping())?;
        // While this one waited for its turn, another call with the same token may have been answered.
        if let Some(claims) = self.known().get(&hash, Instant::now()) {
            self.metrics.known.inc();
            return Ok(claims);
        }
        let answer = self.ask(token).await;
        match &answer {
            Ok(claims) => {
                self.metrics.accepted.inc();
                self.known().put(hash, claims.clone(), Instant::now());
            }
            Err(Unverified::Denied(_)) => {
                self.metrics.denied.inc();
            }
            Err(Unverified::Unavailable(_)) => {
                self.metrics.failed.inc();
            }
        }
        answer
    }

    async fn ask(&self, token: &str) -> Result<Claims, Unverified> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        match within(self.reviews.create(&params, &review)).await {
            Ok(review) => claims(review.status.unwrap_or_default()),
            Err(failed) => {
                let text = format!("the token cannot be reviewed now, try again: {failed}");
                Err(Unverified::Unavailable(text))
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is no JSON Web Token does not reach the API server.
fn check_shape(token: &str) -> Result<(), Unverified> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if token.len() <= MAX_LEN && token.split('.').count() == 3 && token.bytes().all(good) {
        return Ok(());
    }
    Err(Unverified::Denied(
        "the token is not one of a Kubernetes service account: in Kubernetes the proxy sends the projected token of its \
         pod, and no join token"
            .to_owned(),
    ))
}

/// What an answer proves. A pure function, and the whole decision.
fn claims(status: TokenReviewStatus) -> Result<Claims, Unverified> {
    let denied = |text: String| Err(Unverified::Denied(text));
    if status.authenticated != Some(true) {
        let reason = status.error.filter(|e| !e.is_empty());
        let reason = reason.unwrap_or_else(|| "it is not valid, or has expired".to_owned());
        return denied(format!("Kubernetes does not accept the token: {reason}"));
    }
    // A server that knows nothing of audiences accepts any token, and names none in its answer.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == TOKEN_AUDIENCE) {
        return denied(format!(
            "the token is not meant for Hauberk: it must be a projected token with the audience {TOKEN_AUDIENCE:?}, but \
             is accepted for {audiences:?}"
        ));
    }
    let user = status.user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    let account = username.strip_prefix("system:serviceaccount:");
    let Some((namespace, service_account)) = account.and_then(|rest| rest.split_once(':')) else {
        return denied(format!(
            "the token is of {username:?}, which is no service account: a proxy proves itself with that of its pod"
        ));
    };
    let pods = user
        .extra
        .unwrap_or_default()
        .remove(POD_NAME)
        .unwrap_or_default();
    let [pod] = &pods[..] else {
        return denied(format!(
            "the token of {namespace}/{service_account} is not bound to a pod: use a projected volume \
             (serviceAccountToken with the audience {TOKEN_AUDIENCE:?}), which binds it, and not a token made otherwise"
        ));
    };
    Ok(Claims {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        pod: pod.clone(),
    })
}

fn hash(token: &str) -> Hash {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn stopping() -> Unverified {
    Unverified::Unavailable("the operator is stopping".to_owned())
}

/// Answers of the last while.
#[derive(Default)]
struct Known {
    answers: HashMap<Hash, (Claims, Instant)>,
}

impl Known {
    fn get(&self, hash: &Hash, now: Instant) -> Option<Claims> {
        let (claims, at) = self.answers.get(hash)?;
        (now.duration_since(*at) < FRESH).then(|| claims.clone())
    }

    fn put(&mut self, hash: Hash, claims: Claims, now: Instant) {
        if self.answers.len() >= KEPT {
            self.answers.retain(|_, (_, at)| now.duration_since(*at) < FRESH);
        }
        // All of them fresh: more proxies than are kept here come at once. Then new ones are asked about each time.
        if self.answers.len() < KEPT {
            self.answers.insert(hash, (claims, now));
        }
    }
}

#[cfg(test)]
mod tests;

//! Keeps the certificate current. Runs on the background thread: asks for one at start, again at half of its life with
//! jitter, and with a back-off while that fails; takes over roots as they are pushed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::{SpiffeId, TrustBundle};
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::request::{self, Certificate, SignError};
use super::verify::Leaf;
use super::{Identity, roots_of};
use crate::config::Backoff;

/// Between tries while there is no certificate.
const BACKOFF_WITHOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Between tries while the one before still holds.
const BACKOFF_WITH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const SIGN_TIMEOUT: Duration = Duration::from_secs(10);
/// However short a certificate lives, or far off a clock is, the operator is not asked more often.
const SHORTEST: Duration = Duration::from_secs(5);

/// Keeps the certificate current; see the module.
#[derive(Debug)]
pub struct Renewal {
    pub(super) identity: Identity,
    pub(super) id: SpiffeId,
    pub(super) token_file: PathBuf,
    pub(super) trust: watch::Receiver<Option<Arc<TrustBundle>>>,
}

impl Renewal {
    /// Runs for as long as it is polled. `channel` is from [`crate::config::operator::channel`].
    pub async fn run(mut self, channel: Channel) {
        let mut backoff = Backoff::new(BACKOFF_WITHOUT.0, BACKOFF_WITHOUT.1);
        let mut held: Option<(Certificate, TrustBundle)> = None;
        let mut next = Instant::now();
        let mut pushes = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => match self.sign(&channel).await {
                    Ok(signed) => {
                        next = Instant::now() + renew_in(&signed.0.leaf, SystemTime::now(), jitter());
                        backoff = Backoff::new(BACKOFF_WITH.0, BACKOFF_WITH.1);
                        self.renewed(&signed.0.leaf, next);
                        self.install(&signed.0, &signed.1);
                        held = Some(signed);
                    }
                    Err(error) => {
                        let delay = backoff.next();
                        next = Instant::now() + delay;
                        self.failed(&error, delay);
                    }
                },
                changed = self.trust.changed(), if pushes => {
                    pushes = changed.is_ok();
                    if let Some((certificate, bundle)) = &held {
                        self.install(certificate, bundle);
                    }
                }
            }
        }
    }

    async fn sign(&self, channel: &Channel) -> Result<(Certificate, TrustBundle), SignError> {
        let asked = Instant::now();
        let signing = request::sign(channel, &self.token_file, &self.id);
        let signed = tokio::time::timeout(SIGN_TIMEOUT, signing).await;
        let signed = signed.unwrap_or(Err(SignError::Timeout));
        self.identity.answered(asked.elapsed(), signed.as_ref().err());
        signed
    }

    /// Puts the certificate to use with the roots that were pushed, or with those it came with until some are.
    fn install(&mut self, certificate: &Certificate, bundle: &TrustBundle) {
        let pushed = self.trust.borrow_and_update().clone();
        let bundle = pushed.as_deref().unwrap_or(bundle);
        let installed = roots_of(bundle).map_err(|e| e.to_string()).and_then(|roots| {
            self.identity
                .install(certificate, roots)
                .map_err(|e| e.to_string())
        });
        if let Err(error) = installed {
            tracing::error!(%error, "certificate and roots do not go together; those before stay in use");
        }
    }

    fn renewed(&self, leaf: &Leaf, next: Instant) {
        let metrics = &self.identity.shared.metrics.identity;
        metrics.renewals.inc();
        let expiry = leaf.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics
            .expiry
            .set(i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX));
        let again_in = next.saturating_duration_since(Instant::now());
        tracing::info!(identity = %leaf.id, ?again_in, "certificate received");
    }

    fn failed(&self, error: &SignError, again_in: Duration) {
        self.identity.shared.metrics.identity.renewal_failures.inc();
        match self.identity.expires() {
            Some(expires) => {
                let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
                tracing::warn!(%error, ?again_in, ?left, "renewing the certificate failed; the one before holds");
            }
            None => tracing::warn!(%error, ?again_in, "no certificate yet"),
        }
    }
}

/// From -0.1 to 0.1.
fn jitter() -> f64 {
    rand::rng().random_range(-0.1..=0.1)
}

/// Time until a certificate is renewed: half of its life, give or take `jitter` of that half. The start of its life is
/// when it was signed as this clock sees it, so that neither a back-dated start nor a clock that is off moves the renewal
/// beyond its end.
fn renew_in(leaf: &Leaf, now: SystemTime, jitter: f64) -> Duration {
    let life = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
    let left = leaf.not_after.duration_since(now).unwrap_or_default();
    let half = life.min(left) / 2;
    half.mul_f64(1.0 + jitter.clamp(-0.1, 0.1)).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use api::proto;
    use api::proto::identity_server::{Identity as IdentityService, IdentityServer};
    use rustls_pki_types::CertificateSigningRequestDer;
    use tonic::transport::Server;
    use tonic::{Request, Response, Status};

    use super::*;
    use crate::config::testing::{eventually, in_memory};
    use crate::identity::testing::{self, Ca};

    /// An operator that signs with `ca`, or does not.
    struct Signer {
        ca: Arc<Mutex<Option<Ca>>>,
        asked: Arc<AtomicU32>,
    }

    #[tonic::async_trait]
    impl IdentityService for Signer {
        async fn sign(
            &self,
            request: Request<proto::SignRequest>,
        ) -> Result<Response<proto::SignResponse>, Status> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let token = request
                .metadata()
                .get("authorization")
                .and_then(|t| t.to_str().ok());
            if token != Some("Bearer the-token") {
                return Err(Status::unauthenticated("whose token is this?"));
            }
            let csr = CertificateSigningRequestDer::from(request.into_inner().csr);
            let parsed = rcgen::CertificateSigningRequestParams::from_der(&csr);
            let parsed = parsed.map_err(|e| Status::invalid_argument(e.to_string()))?;
            let ca = self.ca.lock().expect("not poisoned");
            let ca = ca.as_ref().ok_or_else(|| Status::unavailable("no authority"))?;
            let leaf = ca.sign(&parsed.public_key, &testing::id("web"), |params| {
                params.not_before = SystemTime::now().into();
                params.not_after = (SystemTime::now() + LIFE).into();
            });
            Ok(Response::new(proto::SignResponse {
                chain: vec![leaf.to_vec()],
                trust_bundle: Some(ca.bundle().into()),
            }))
        }
    }

    const LIFE: Duration = Duration::from_secs(24 * 3600);

    fn signer(ca: Option<Ca>) -> (Channel, Arc<Mutex<Option<Ca>>>, Arc<AtomicU32>) {
        let (ca, asked) = (Arc::new(Mutex::new(ca)), Arc::new(AtomicU32::new(0)));
        let service = IdentityServer::new(Signer {
            ca: Arc::clone(&ca),
            asked: Arc::clone(&asked),
        });
        (in_memory(Server::builder().add_service(service)), ca, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_until_it_has_one_and_again_at_half_of_its_life() {
        let (settings, _token) = crate::config::testing::settings();
        let (channel, ca, asked) = signer(None);
        let (pushed, trust) = watch::channel(None);
        let metrics = testing::metrics();
        let (identity, renewal) =
            super::super::new(&settings, trust, Arc::clone(&metrics)).expect("an identity");
        tokio::spawn(renewal.run(channel));

        eventually("refused", || identity.status().last_error.is_some()).await;
        let error = identity.status().last_error.expect("refused");
        assert!(error.contains("no authority"), "{error}");
        assert!(!identity.is_ready());
        *ca.lock().expect("not poisoned") = Some(Ca::new());
        identity.ready().await;
        assert_eq!(metrics.identity.renewals.get(), 1);
        assert!(metrics.identity.renewal_failures.get() >= 1);
        assert_eq!(identity.status().last_error, None);

        // Half of its life, less the jitter, passes without a question; then it is renewed.
        let before = asked.load(Ordering::Relaxed);
        tokio::time::sleep(LIFE / 2 - LIFE / 20 - Duration::from_secs(60)).await;
        assert_eq!(asked.load(Ordering::Relaxed), before);
        tokio::time::sleep(LIFE / 10 + Duration::from_secs(120)).await;
        assert_eq!(metrics.identity.renewals.get(), 2);

        // Renewal fails: the one before goes on.
        *ca.lock().expect("not poisoned") = None;
        tokio::time::sleep(LIFE).await;
        assert!(identity.is_ready() && identity.status().last_error.is_some());

        // Roots that are pushed take effect without a new certificate.
        let other = Ca::new();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let caller = other.identity(&testing::id("caller"));
        let both = |identity: Identity| async move {
            let address = ([10, 0, 0, 1], 80).into();
            let web = testing::id("web");
            let dial = caller.connect(near.into(), &web, address, api::MeshProtocol::Tcp);
            tokio::join!(dial, identity.accept(far.into(), address))
                .1
                .map(|(_, peer, _)| peer)
        };
        pushed.send_replace(Some(Arc::new(other.bundle())));
        tokio::time::sleep(Duration::from_millis(10)).await;
        // The caller does not trust us, but we trust the caller: the failure is theirs.
        let error = both(identity)
            .await
            .expect_err("refused by the caller")
            .to_string();
        assert!(error.contains("the peer refused"), "{error}");
    }

    fn leaf(before: u64, after: u64) -> Leaf {
        Leaf {
            id: SpiffeId::new("cluster.local", "shop", "web").expect("an identity"),
            not_before: UNIX_EPOCH + Duration::from_secs(before),
            not_after: UNIX_EPOCH + Duration::from_secs(after),
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_give_or_take_a_tenth() {
        const HOUR: u64 = 3600;
        let start = 1_000_000;
        let fresh = leaf(start, start + 24 * HOUR);
        let cases = [
            // (seconds from the start of its life, jitter, hours until renewal)
            (0, 0.0, 12.0),
            (0, 0.1, 13.2),
            (0, -0.1, 10.8),
            (0, 7.0, 13.2),
            // Back-dated by an hour: half of what is left.
            (HOUR, 0.0, 11.5),
        ];
        for (now, jitter, hours) in cases {
            let now = UNIX_EPOCH + Duration::from_secs(start + now);
            let got = renew_in(&fresh, now, jitter).as_secs_f64() / 3600.0;
            assert!(
                (got - hours).abs() < 1e-6,
                "{now:?} {jitter}: {got} h, not {hours} h"
            );
        }
    }

    #[test]
    fn a_clock_far_off_does_not_make_it_ask_without_pause() {
        let leaf = leaf(1000, 2000);
        assert_eq!(
            renew_in(&leaf, UNIX_EPOCH + Duration::from_secs(9999), 0.0),
            SHORTEST
        );
        assert_eq!(
            renew_in(&leaf, UNIX_EPOCH + Duration::from_secs(1999), 0.0),
            SHORTEST
        );
        // A clock that is behind sees a longer rest of life than there is; the life itself bounds it.
        assert_eq!(renew_in(&leaf, UNIX_EPOCH, 0.0), Duration::from_secs(500));
    }
}

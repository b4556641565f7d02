//! The operator's gRPC server: `Identity.Sign` and `Config.Stream`, over TLS 1.3 with the authority's certificate. Every
//! call proves itself with a token. Whatever one client sends, the server and all other sessions live on.

mod decode;
mod greeting;
mod service;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use api::proto;
use api::proto::identity_server::{Identity, IdentityServer};
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::accept;
use crate::authority::{Authority, Claims, Refused, ServerIdentity, Unverified};
use crate::metrics::SessionMetrics;
use crate::push::{HubHandle, OutboxStream};

/// Streams on one connection: a proxy needs one for configuration and now and then one for a certificate.
const MAX_STREAMS: u32 = 32;
/// Bytes of one request's headers.
const MAX_HEADERS: u32 = 16 << 10;
/// A connection that does not answer a ping in time is dead.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(10);

/// What the server serves with.
#[derive(Debug, Clone)]
pub struct Server {
    /// Verifies tokens and signs certificates.
    pub authority: Arc<Authority>,
    /// Has what proxies ask for.
    pub hub: HubHandle,
    /// Counts.
    pub metrics: SessionMetrics,
    /// How long proxies stay.
    pub ages: Ages,
}

/// How long a proxy stays with one replica of the operator before it is asked to connect anew, by chance between two
/// bounds: so proxies spread over replicas that came later, and not all at once. It keeps what it has, and what it holds
/// already is not sent again.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// No stream is ended sooner, and by then its connection takes no new one, so that the next is dialled anew.
    pub least: Duration,
    /// No stream lasts longer.
    pub most: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            least: Duration::from_secs(24 * 60),
            most: Duration::from_secs(36 * 60),
        }
    }
}

impl Server {
    /// Serves until `stop`; then waits for the connections to close.
    ///
    /// # Errors
    /// When the server cannot go on; what single clients do is no such reason.
    pub async fn serve(
        self,
        listener: TcpListener,
        identity: Arc<ServerIdentity>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let least = self.ages.least;
        let failed = self.metrics.failed_handshakes.clone();
        let connections = accept::accept(listener, identity.tls(&[b"h2"]), failed, greeting::greet);
        let connections = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
        let config = service::ConfigService(self.clone());
        // A request for a certificate is small.
        let identity = IdentityServer::new(self).max_decoding_message_size(64 << 10);
        tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_ANSWER))
            // GOAWAY: streams there go on, and a new one needs a new connection.
            .max_connection_age(least)
            .add_service(config)
            .add_service(identity)
            .serve_with_incoming_shutdown(connections, stop)
            .await?;
        Ok(())
    }

    async fn bearer(&self, metadata: &MetadataMap) -> Result<Claims, Status> {
        let verified = match token(metadata) {
            Ok(token) => self.authority.verify(token).await,
            Err(reason) => Err(Unverified::Denied(reason)),
        };
        verified.map_err(|unverified| match unverified {
            Unverified::Denied(reason) => {
                self.metrics.refused_tokens.inc();
                tracing::warn!(reason, "refused a call");
                Status::unauthenticated(reason)
            }
            // Not the caller's fault: it comes again, and what it has holds on.
            Unverified::Unavailable(reason) => {
                self.metrics.unverified_tokens.inc();
                tracing::warn!(reason, "could not verify a call");
                Status::unavailable(reason)
            }
        })
    }
}

fn token(metadata: &MetadataMap) -> Result<&str, String> {
    let header = metadata
        .get("authorization")
        .ok_or("authorization: is missing; send \"Bearer <token>\"")?;
    let text = header
        .to_str()
        .map_err(|_| "authorization: has characters that no token has")?;
    Ok(text
        .strip_prefix("Bearer ")
        .ok_or("authorization: must be \"Bearer <token>\"")?)
}

#[tonic::async_trait]
impl Identity for Server {
    async fn sign(
        &self,
        request: Request<proto::SignRequest>,
    ) -> Result<Response<proto::SignResponse>, Status> {
        let claims = self.bearer(request.metadata()).await?;
        let proto::SignRequest { csr } = request.into_inner();
        match self.authority.sign(&claims, &csr) {
            Ok(signed) => {
                tracing::info!(namespace = %claims.namespace, pod = %claims.pod, "signed a certificate");
                Ok(Response::new(proto::SignResponse {
                    chain: signed.chain,
                    trust_bundle: Some(signed.bundle.into()),
                }))
            }
            Err(refused) => {
                tracing::warn!(
                    namespace = %claims.namespace, pod = %claims.pod, reason = %refused,
                    "refused to sign a certificate"
                );
                Err(match &refused {
                    Refused::Unreadable(_) | Refused::Signature | Refused::Identity(_) => {
                        Status::invalid_argument(refused.to_string())
                    }
                    Refused::Names { .. } => Status::permission_denied(refused.to_string()),
                    Refused::RootExpired => Status::failed_precondition(refused.to_string()),
                    Refused::Signing(_) => Status::internal(refused.to_string()),
                })
            }
        }
    }
}

impl Server {
    /// `Config.Stream`.
    async fn stream(
        &self,
        request: Request<Streaming<proto::ProxyMessage>>,
    ) -> Result<Response<OutboxStream>, Status> {
        let claims = self.bearer(request.metadata()).await?;
        let outbox = self.hub.outbox();
        let session = stream::run(
            claims,
            request.into_inner(),
            outbox.clone(),
            self.hub.clone(),
            self.metrics.clone(),
            rand::random_range(self.ages.least..=self.ages.most),
        );
        // Answered before the greeting is read: a client may wait for the answer before it speaks.
        tokio::spawn(session);
        Ok(Response::new(OutboxStream(outbox)))
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

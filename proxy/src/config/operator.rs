//! The connection to the operator: gRPC over TLS 1.3, whose certificate must carry the operator's SPIFFE identity. The
//! configuration stream and certificate signing share it. This proxy proves itself by its token, not by a certificate,
//! for it has none when it starts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{SpiffeId, names};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::identity::verify::{self, Roots};
use crate::settings::Settings;
use crate::upstream::connect;

/// Service account of the operator.
const SERVICE_ACCOUNT: &str = "hauberk-control-plane";
/// A dead operator, or a path that swallows packets, is noticed after both of these.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A setting of the operator's address that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("operator {operator:?}: {problem}")]
pub struct BadOperator {
    operator: String,
    problem: String,
}

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("token file {}: {problem}", file.display())]
pub struct TokenError {
    file: PathBuf,
    problem: String,
}

/// The connection to the operator that `settings` names. Nothing is dialled before it is used, and it dials anew after a
/// failure. `trust` adds the roots that the operator pushes to those of the file.
///
/// # Errors
/// When the address is not of the form `https://host:port`, or the trust domain is not one.
pub fn channel(
    settings: &Settings,
    trust: watch::Receiver<Option<Arc<api::TrustBundle>>>,
) -> Result<Channel, BadOperator> {
    let bad = |problem: String| BadOperator {
        operator: settings.operator.clone(),
        problem,
    };
    let uri: Uri = settings
        .operator
        .parse()
        .map_err(|e| bad(format!("is not a URL: {e}")))?;
    if uri.scheme_str() != Some("https") {
        return Err(bad("must begin with https://".to_owned()));
    }
    let host = uri.host().ok_or_else(|| bad("has no host".to_owned()))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let dialler = Dialler {
        host,
        port: uri.port_u16().unwrap_or(names::OPERATOR_PORT),
        roots_file: settings.operator_roots.clone(),
        identity: SpiffeId::new(&settings.trust_domain, names::ROOT_NAMESPACE, SERVICE_ACCOUNT)
            .map_err(|e| bad(format!("no identity to expect there: {e}")))?,
        trust,
        mark: settings.socket_mark,
    };
    // tonic would add TLS of its own to `https`, and refuse to go without; ours is inside the connector.
    let authority = uri.authority().map_or("operator", |a| a.as_str());
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|e| bad(e.to_string()))?;
    let endpoint = endpoint
        .origin(uri.clone())
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true);
    let dialler = Arc::new(dialler);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let dialler = Arc::clone(&dialler);
        async move { dialler.dial().await.map(TokioIo::new) }
    })))
}

/// The token as the value of `authorization`, read anew: the platform replaces it while the proxy runs.
pub(crate) fn bearer(file: &Path) -> Result<AsciiMetadataValue, TokenError> {
    let bad = |problem: String| TokenError {
        file: file.to_owned(),
        problem,
    };
    let token = std::fs::read_to_string(file).map_err(|e| bad(e.to_string()))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(bad("is empty".to_owned()));
    }
    let mut value = format!("Bearer {token}")
        .parse::<AsciiMetadataValue>()
        .map_err(|_| bad("holds bytes that no token has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Debug)]
struct Dialler {
    host: String,
    port: u16,
    roots_file: PathBuf,
    identity: SpiffeId,
    trust: watch::Receiver<Option<Arc<api::TrustBundle>>>,
    mark: Option<u32>,
}

impl Dialler {
    async fn dial(&self) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        let config = verify::operator_config(self.roots()?, &self.identity).map_err(io::Error::other)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses = addresses.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.host)))?;
        for address in addresses {
            let attempt = async {
                let stream = connect::dial(address, self.mark).await?;
                let name = ServerName::IpAddress(address.ip().into());
                connector.connect(name, stream).await.map_err(verify::explain)
            };
            match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => last = io::Error::new(e.kind(), format!("{address}: {e}")),
                Err(_) => {
                    let problem = format!("{address}: no connection within {CONNECT_TIMEOUT:?}");
                    last = io::Error::new(io::ErrorKind::TimedOut, problem);
                }
            }
        }
        tracing::debug!(error = %last, "dialling the operator failed");
        Err(last)
    }

    /// The roots of the file, read anew, and those that were pushed.
    fn roots(&self) -> io::Result<Roots> {
        let in_file = |problem: String| {
            let message = format!("operator roots {}: {problem}", self.roots_file.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let pem = std::fs::read(&self.roots_file).map_err(|e| in_file(e.to_string()))?;
        let mut roots = verify::pem_certificates(&pem).map_err(in_file)?;
        if let Some(bundle) = &*self.trust.borrow() {
            roots.extend(bundle.roots.iter().map(|der| der.to_vec().into()));
        }
        Roots::new(self.identity.trust_domain(), &roots).map_err(|e| in_file(e.to_string()))
    }
}

#[cfg(test)]
mod tests;

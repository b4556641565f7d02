//! From a listener to connections that have got through TLS: each handshake runs by itself, in bounded time and among a
//! bounded number, so a silent or broken client holds up nobody. `session` and `admission` serve what comes out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Time for TLS and the greeting together.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way; beyond this a new connection is closed at once.
const MAX_HANDSHAKES: usize = 1024;

/// Accepts connections for as long as the receiver is held. `greet` makes of each what is served, within the time of the
/// handshake; what does not get through is counted in `failed` and closed.
pub(crate) fn accept<T, F>(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    failed: Counter,
    greet: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
) -> mpsc::Receiver<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send,
{
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(tls);
        let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others will close.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                failed.inc();
                tracing::warn!(%peer, "closed a connection: too many handshakes are under way");
                continue;
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            let (failed, greet) = (failed.clone(), greet.clone());
            tokio::spawn(async move {
                let greeted = async {
                    tcp.set_nodelay(true)?;
                    greet(acceptor.accept(tcp).await?).await
                };
                let done = tokio::time::timeout(HANDSHAKE, greeted).await;
                drop(slot);
                match done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    // Nobody takes it when the server is stopping.
                    Ok(connection) => drop(ready.send(connection).await),
                    Err(error) => {
                        failed.inc();
                        tracing::debug!(%peer, %error, "a connection did not get through its handshake");
                    }
                }
            });
        }
    });
    connections
}

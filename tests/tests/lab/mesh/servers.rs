//! Servers that the test application is not: they run in the test itself, on sockets of a pod.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tests::lab::Lab;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Listens on a port of a pod.
pub(crate) async fn listen(lab: &Lab, pod: &str, port: u16) -> anyhow::Result<TcpListener> {
    let listener = lab
        .pod(pod)
        .run(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
        .await;
    listener.with_context(|| format!("port {port} of pod {pod}"))
}

/// Serves every connection to a port of a pod with `serve`, until the test ends. Returns the number of connections.
pub(crate) async fn each<F>(
    lab: &Lab,
    pod: &str,
    port: u16,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> anyhow::Result<Arc<AtomicU64>>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = listen(lab, pod, port).await?;
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let served = serve(stream);
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    eprintln!("a server of the test: {error:#}");
                }
            });
        }
    });
    Ok(taken)
}

/// A TLS server with a self-signed certificate for `name`, and a client that trusts it.
pub(crate) fn tls(name: &str) -> anyhow::Result<(TlsAcceptor, TlsConnector)> {
    let key = rcgen::generate_simple_self_signed([name.to_owned()])?;
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der())
        .map_err(|reason| anyhow::anyhow!(reason))
        .context("the generated key")?;
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    ))
}

/// Serves TLS for `name` on a port of a pod: sends `greeting` and echoes the rest. Returns a client that trusts it.
pub(crate) async fn serve_tls(
    lab: &Lab,
    pod: &str,
    port: u16,
    name: &str,
    greeting: &'static str,
) -> anyhow::Result<TlsConnector> {
    let (acceptor, connector) = tls(name)?;
    each(lab, pod, port, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            stream.write_all(greeting.as_bytes()).await?;
            let mut buffer = vec![0; 4096];
            loop {
                let length = stream.read(&mut buffer).await?;
                if length == 0 {
                    stream.shutdown().await?;
                    return Ok(());
                }
                stream.write_all(&buffer[..length]).await?;
            }
        }
    })
    .await?;
    Ok(connector)
}

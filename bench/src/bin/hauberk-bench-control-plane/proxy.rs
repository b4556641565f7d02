//! One simulated proxy: the real stream over a TLS connection of its own, and nothing behind it. It asks as a proxy does
//! whose application dials all that it uses at once: the destination, then the route it names, its clusters, their
//! endpoints. It acknowledges everything, keeps the versions, and comes back with them when its stream ends.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use api::proto::config_client::ConfigClient;
use api::proto::identity_client::IdentityClient;
use api::proto::operator_message::Body as FromOperator;
use api::proto::proxy_message::Body as FromProxy;
use api::proto::resource::Body;
use api::{SpiffeId, limits, names, proto};
use control_plane::authority::SERVER_NAME;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::fleet::{Fleet, Traffic};
use crate::mesh::{self, Identity, What};

/// As the proxy has them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How the operator is reached.
#[derive(Clone)]
pub(crate) struct Dialler {
    address: SocketAddr,
    tls: TlsConnector,
    traffic: Arc<Traffic>,
}

impl Dialler {
    /// Trusts the roots in the operator's state directory.
    pub(crate) fn new(
        address: SocketAddr,
        state: &std::path::Path,
        traffic: Arc<Traffic>,
    ) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(state.join("roots.pem")).context("no roots to trust")? {
            roots.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Proxies are processes of their own: none resumes what another began, and they keep nothing to resume.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            address,
            tls: TlsConnector::from(Arc::new(config)),
            traffic,
        })
    }

    async fn dial(self) -> io::Result<TokioIo<TlsStream<Counted>>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let counted = Counted {
            tcp,
            traffic: self.traffic,
        };
        let name = SERVER_NAME.try_into().expect("a DNS name");
        self.tls.connect(name, counted).await.map(TokioIo::new)
    }
}

impl tonic::codegen::Service<http::Uri> for Dialler {
    type Response = TokioIo<TlsStream<Counted>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

/// One simulated proxy.
pub(crate) struct Proxy {
    pub(crate) number: usize,
    pub(crate) identity: Identity,
    pub(crate) token: String,
    pub(crate) dialler: Dialler,
    pub(crate) fleet: Rc<Fleet>,
    /// What it is subscribed to, with the version it has.
    held: HashMap<(i32, String), u64>,
    missing: usize,
    certificate: bool,
}

impl Proxy {
    pub(crate) fn new(number: usize, token: String, dialler: Dialler, fleet: Rc<Fleet>) -> Self {
        let dialled = fleet.size.used_by(number).into_iter().map(mesh::address);
        let mut held: HashMap<_, _> = dialled
            .map(|address| ((proto::Kind::Destination.into(), address), 0))
            .collect();
        for (kind, name) in [
            (proto::Kind::Inbound, names::INBOUND_SELF),
            (proto::Kind::TrustBundle, names::TRUST_BUNDLE_MESH),
        ] {
            held.insert((kind.into(), name.to_owned()), 0);
        }
        Self {
            number,
            identity: fleet.size.identity(number),
            token,
            dialler,
            missing: fleet.size.subscriptions_each(),
            fleet,
            held,
            certificate: false,
        }
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut most = BACKOFF.0;
        loop {
            let Err(why) = self.stream(&mut most).await;
            self.fleet.ended(format!("{why:#}"));
            tokio::time::sleep(rand::random_range(Duration::ZERO..=most)).await;
            most = (most * 2).min(BACKOFF.1);
        }
    }

    /// One stream, to its end.
    async fn stream(&mut self, backoff: &mut Duration) -> anyhow::Result<std::convert::Infallible> {
        let endpoint = Endpoint::from_static("http://operator")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect_with_connector(self.dialler.clone()).await?;
        if !self.certificate {
            self.sign(channel.clone()).await?;
            self.certificate = true;
        }
        let (say, said) = mpsc::unbounded_channel();
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(said));
        let bearer = format!("Bearer {}", self.token).parse()?;
        request.metadata_mut().insert("authorization", bearer);
        let mut client = ConfigClient::new(channel)
            .max_decoding_message_size(limits::MAX_MESSAGE_SIZE)
            .max_encoding_message_size(limits::MAX_MESSAGE_SIZE);
        let tell = |body| say.send(proto::ProxyMessage { body: Some(body) });
        tell(FromProxy::Hello(proto::Hello {
            namespace: self.identity.namespace.clone(),
            pod: self.identity.pod.clone(),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: names::REVISION,
        }))?;
        let mut incoming = client.stream(request).await?.into_inner();
        loop {
            let message = incoming
                .message()
                .await?
                .context("the operator closed the stream")?;
            match message.body {
                Some(FromOperator::Welcome(_)) => {
                    *backoff = BACKOFF.0;
                    for some in self.known().chunks(limits::MAX_SUBSCRIPTIONS) {
                        let subscriptions = some.to_vec();
                        tell(FromProxy::Subscribe(proto::Subscribe { subscriptions }))?;
                    }
                }
                Some(FromOperator::Update(update)) => self.update(update, &tell)?,
                None => anyhow::bail!("a message without a body"),
            }
        }
    }

    fn known(&self) -> Vec<proto::Subscription> {
        let subscription = |((kind, name), version): (&(i32, String), &u64)| proto::Subscription {
            name: Some(proto::ResourceName {
                kind: *kind,
                name: name.clone(),
            }),
            known_version: *version,
        };
        self.held.iter().map(subscription).collect()
    }

    /// Asks for a certificate, as a proxy does once in its certificate's life.
    async fn sign(&self, channel: Channel) -> anyhow::Result<()> {
        let Identity {
            namespace,
            service_account,
            pod: _,
        } = &self.identity;
        let id = SpiffeId::new(names::TRUST_DOMAIN, namespace, service_account)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        let csr = params.serialize_request(&key)?.der().to_vec();
        let mut request = tonic::Request::new(proto::SignRequest { csr });
        let bearer = format!("Bearer {}", self.token).parse()?;
        request.metadata_mut().insert("authorization", bearer);
        IdentityClient::new(channel).sign(request).await?;
        Ok(())
    }

    fn update<E: Into<anyhow::Error>>(
        &mut self,
        update: proto::Update,
        tell: &impl Fn(FromProxy) -> Result<(), E>,
    ) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        let mut applied = Vec::new();
        for resource in update.resources {
            self.fleet.received();
            let proto::Resource { name, version, body } = resource;
            let name = name.context("a resource without a name")?;
            let slot = self.held.get_mut(&(name.kind, name.name.clone()));
            let slot = slot.with_context(|| format!("{name:?} was not asked for"))?;
            if std::mem::replace(slot, version) == 0 {
                self.missing -= 1;
                if self.missing == 0 {
                    self.fleet.complete();
                }
            }
            match body.context("a resource without a body")? {
                Body::Absent(absent) => {
                    let problem = format!("{} got {name:?}: {}", self.identity.pod, absent.reason);
                    self.fleet.problem(problem);
                }
                Body::Destination(destination) => wanted.extend(named_by_destination(destination)),
                Body::Route(route) => {
                    let generation = route
                        .http
                        .first()
                        .and_then(|rule| mesh::generation_of(&rule.name));
                    applied.extend(mark(What::Route, &name.name, generation));
                    wanted.extend(named_by_route(route));
                }
                Body::Cluster(cluster) => wanted.push((proto::Kind::Endpoints, cluster.endpoints)),
                Body::Endpoints(endpoints) => {
                    applied.extend(mark(What::Endpoint, &name.name, newest(&endpoints)));
                }
                Body::Inbound(_) | Body::TrustBundle(_) => {}
            }
            let name = Some(name);
            tell(FromProxy::Ack(proto::Ack { name, version })).map_err(Into::into)?;
        }
        for (what, service, generation) in applied {
            self.fleet.acknowledged(self.number, what, service, generation);
        }
        self.subscribe(wanted, tell)
    }

    fn subscribe<E: Into<anyhow::Error>>(
        &mut self,
        wanted: Vec<(proto::Kind, String)>,
        tell: &impl Fn(FromProxy) -> Result<(), E>,
    ) -> anyhow::Result<()> {
        let mut subscriptions = Vec::new();
        for (kind, name) in wanted {
            let kind = i32::from(kind);
            if let std::collections::hash_map::Entry::Vacant(place) = self.held.entry((kind, name.clone())) {
                place.insert(0);
                let name = Some(proto::ResourceName { kind, name });
                subscriptions.push(proto::Subscription {
                    name,
                    known_version: 0,
                });
            }
        }
        if subscriptions.is_empty() {
            return Ok(());
        }
        tell(FromProxy::Subscribe(proto::Subscribe { subscriptions })).map_err(Into::into)
    }
}

fn named_by_destination(destination: proto::Destination) -> Option<(proto::Kind, String)> {
    match destination.target? {
        proto::destination::Target::Route(route) => Some((proto::Kind::Route, route)),
        _ => None,
    }
}

fn named_by_route(route: proto::Route) -> impl Iterator<Item = (proto::Kind, String)> {
    use proto::http_rule::Action;
    let forwarded = route.http.into_iter().flat_map(|rule| match rule.action {
        Some(Action::Forward(forward)) => forward.clusters,
        _ => Vec::new(),
    });
    let relayed = route.tcp.into_iter().flat_map(|rule| rule.clusters);
    forwarded
        .chain(relayed)
        .map(|share| (proto::Kind::Cluster, share.cluster))
}

fn mark(what: What, resource: &str, generation: Option<u64>) -> Option<(What, usize, u64)> {
    Some((what, mesh::service_of(resource)?, generation?))
}

/// The newest generation among pods that are known to have a proxy.
fn newest(endpoints: &proto::Endpoints) -> Option<u64> {
    let known = endpoints.endpoints.iter().filter(|e| !e.identity.is_empty());
    known.filter_map(|e| mesh::generation_of(&e.pod)).max()
}

/// A socket that counts.
#[derive(Debug)]
pub(crate) struct Counted {
    tcp: TcpStream,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        self.traffic.received.fetch_add(count as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = &written {
            self.traffic.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

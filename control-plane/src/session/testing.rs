//! A real server on loopback and a real client over TLS, for the tests of sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::proto::config_client::ConfigClient;
use api::proto::identity_client::IdentityClient;
use api::proto::operator_message::Body;
use api::{Kind, ResourceName, proto};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::{Ages, Server};
use crate::authority::{Authority, AuthoritySettings, SERVER_NAME, ServerIdentity, Store, mint};
use crate::metrics::Metrics;
use crate::push::testing::Texts;
use crate::push::{Hub, HubHandle};
use crate::state::Touched;

/// Nothing that is awaited in these tests takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running operator.
pub(crate) struct Operator {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Arc<Authority>,
    pub(crate) hub: HubHandle,
    pub(crate) texts: Texts,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) serving: tokio::task::JoinHandle<anyhow::Result<()>>,
    dir: tempfile::TempDir,
}

impl Operator {
    pub(crate) async fn start() -> Self {
        Self::start_with(Ages::default()).await
    }

    pub(crate) async fn start_with(ages: Ages) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::directory(dir.path());
        Self::open(store, dir, ages).await
    }

    /// One whose keys are in Kubernetes, and that knows callers from there.
    pub(crate) async fn start_in(client: kube::Client) -> Self {
        Self::open(
            Store::secret(client),
            tempfile::tempdir().unwrap(),
            Ages::default(),
        )
        .await
    }

    async fn open(store: Store, dir: tempfile::TempDir, ages: Ages) -> Self {
        let metrics = Metrics::new();
        let settings = AuthoritySettings {
            trust_domain: "cluster.local".to_owned(),
            lifetime: Duration::from_secs(3600),
        };
        let authority = Authority::open(settings, store, metrics.authority.clone())
            .await
            .unwrap();
        let identity = ServerIdentity::new(&authority).unwrap();
        let texts = Texts::default();
        let push = metrics.push.clone();
        let (hub, running) = Hub::new(texts.compiler(), Arc::default(), authority.bundle(), push);
        tokio::spawn(running.run());
        let server = Server {
            authority: authority.clone(),
            hub: hub.clone(),
            metrics: metrics.session.clone(),
            ages,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(listener, identity, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            authority,
            hub,
            texts,
            metrics,
            stop: Some(stop),
            serving,
            dir,
        }
    }

    pub(crate) fn token(&self, pod: &str, lifetime: Duration) -> String {
        mint(self.dir.path(), "shop", "web", pod, lifetime).unwrap()
    }

    pub(crate) async fn change(&self, name: &str, text: &str) {
        let touched = self.texts.set(name, text);
        self.touch(touched).await;
    }

    pub(crate) async fn touch(&self, touched: Touched) {
        self.hub.world_changed(Arc::default(), touched).await;
    }

    /// A channel over TLS that trusts only the authority's roots.
    pub(crate) async fn channel(&self) -> Channel {
        self.counting_channel(Arc::default()).await
    }

    /// Such a channel, which counts the connections that it makes.
    pub(crate) async fn counting_channel(&self, made: Arc<AtomicUsize>) -> Channel {
        let mut roots = rustls::RootCertStore::empty();
        for root in self.authority.bundle().roots {
            roots.add(root.to_vec().into()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let address = self.address;
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            made.fetch_add(1, Ordering::Relaxed);
            async move {
                let tcp = TcpStream::connect(address).await?;
                let name = SERVER_NAME.try_into().expect("a DNS name");
                connector.connect(name, tcp).await.map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://operator")
            .connect_with_connector(connect)
            .await
            .unwrap()
    }

    pub(crate) async fn sign(
        &self,
        token: Option<&str>,
        csr: Vec<u8>,
    ) -> Result<proto::SignResponse, Status> {
        let mut request = Request::new(proto::SignRequest { csr });
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = IdentityClient::new(self.channel().await);
        client.sign(request).await.map(tonic::Response::into_inner)
    }

    /// A proxy that has said hello and been welcomed.
    pub(crate) async fn proxy(&self, pod: &str) -> Proxy {
        self.proxy_on(self.channel().await, pod).await
    }

    /// Such a proxy, on this channel.
    pub(crate) async fn proxy_on(&self, channel: Channel, pod: &str) -> Proxy {
        let mut proxy = self.stranger_on(channel, pod).await;
        proxy.hello("shop", pod).await;
        match proxy.next().await.unwrap() {
            Body::Welcome(welcome) => assert_eq!(welcome.revision, 1),
            Body::Update(update) => panic!("{update:?} before the welcome"),
        }
        proxy
    }

    /// A proxy that has a token but has said nothing yet.
    pub(crate) async fn stranger(&self, pod: &str) -> Proxy {
        self.stranger_on(self.channel().await, pod).await
    }

    async fn stranger_on(&self, channel: Channel, pod: &str) -> Proxy {
        let token = self.token(pod, Duration::from_secs(60));
        let (messages, outgoing) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let mut client = ConfigClient::new(channel);
        let incoming = client.stream(request).await.unwrap().into_inner();
        Proxy { messages, incoming }
    }
}

/// The proxy's side of a stream.
pub(crate) struct Proxy {
    messages: mpsc::Sender<proto::ProxyMessage>,
    incoming: Streaming<proto::OperatorMessage>,
}

impl Proxy {
    pub(crate) async fn say(&self, body: proto::proxy_message::Body) {
        // The stream may have ended already; what follows shows why.
        let _ = self.messages.send(proto::ProxyMessage { body: Some(body) }).await;
    }

    pub(crate) async fn hello(&self, namespace: &str, pod: &str) {
        let hello = proto::Hello {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            proxy_version: "0.1.0".to_owned(),
            revision: 7,
        };
        self.say(proto::proxy_message::Body::Hello(hello)).await;
    }

    pub(crate) async fn subscribe(&self, names: &[(&str, u64)]) {
        let one = |(name, known_version): &(&str, u64)| proto::Subscription {
            name: Some(ResourceName::new(Kind::Route, *name).into()),
            known_version: *known_version,
        };
        let subscriptions = names.iter().map(one).collect();
        let subscribe = proto::Subscribe { subscriptions };
        self.say(proto::proxy_message::Body::Subscribe(subscribe)).await;
    }

    pub(crate) async fn ack(&self, name: &str, version: u64) {
        let name = Some(ResourceName::new(Kind::Route, name).into());
        self.say(proto::proxy_message::Body::Ack(proto::Ack { name, version }))
            .await;
    }

    pub(crate) async fn next(&mut self) -> Result<Body, Status> {
        let message = tokio::time::timeout(PATIENCE, self.incoming.message())
            .await
            .expect("an answer in time")?;
        let message = message.ok_or_else(|| Status::ok("the stream ended"))?;
        Ok(message.body.expect("messages of the operator have a body"))
    }

    /// The next update: names, texts and versions.
    pub(crate) async fn update(&mut self) -> Vec<(String, String, u64)> {
        let Body::Update(update) = self.next().await.unwrap() else {
            panic!("not an update")
        };
        let shown = |resource: proto::Resource| {
            let name = ResourceName::try_from(resource.name).unwrap().name;
            match resource.body {
                Some(proto::resource::Body::Absent(absent)) => (name, absent.reason, resource.version),
                other => panic!("{other:?}"),
            }
        };
        update.resources.into_iter().map(shown).collect()
    }

    /// The status that the stream ends with.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// Waits until something holds, as long as it takes a busy machine.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

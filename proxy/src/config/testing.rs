//! An operator inside the test's process, and settings that lead to it.

use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::proto::config_server::{Config, ConfigServer};
use api::proto::operator_message::Body as FromOperator;
use api::proto::proxy_message::Body as FromProxy;
use api::{names, proto};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Router;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::identity::testing::TRUST_DOMAIN;
use crate::settings::{AccessLog, LogFormat, OnDiscoveryTimeout, Settings};

pub(crate) const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const DESTINATION_IDLE: Duration = Duration::from_secs(600);

/// Settings whose token file exists for as long as the second value.
pub(crate) fn settings() -> (Settings, tempfile::NamedTempFile) {
    let mut token = tempfile::NamedTempFile::new().expect("a file");
    token.write_all(b"the-token\n").expect("writes");
    let settings = Settings {
        operator: "https://operator.hauberk-system.svc:15010".to_owned(),
        operator_roots: "/nowhere/roots.pem".into(),
        token_file: token.path().to_owned(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        service_account: "web".to_owned(),
        pod_ips: Vec::new(),
        workers: 1,
        log: String::new(),
        settings: None,
        log_format: LogFormat::Text,
        access_log: AccessLog::Off,
        outbound_port: names::OUTBOUND_PORT,
        inbound_port: names::INBOUND_PORT,
        admin: ([127, 0, 0, 1], 0).into(),
        socket_mark: None,
        max_connections: 100,
        discovery_timeout: DISCOVERY_TIMEOUT,
        on_discovery_timeout: OnDiscoveryTimeout::Refuse,
        destination_idle: DESTINATION_IDLE,
        detect_timeout: Duration::from_secs(1),
        probes: crate::probes::Probes::default(),
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::ZERO,
    };
    (settings, token)
}

/// Waits until `what` holds; for state that another task publishes.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), all).await;
    assert!(done.is_ok(), "{what}: not within 30 s");
}

/// A channel to a server over in-memory connections.
pub(crate) fn in_memory(server: Router) -> Channel {
    let (dialled, connections) = mpsc::channel::<Result<DuplexStream, std::io::Error>>(16);
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(connections)));
    let connector = tower::service_fn(move |_| {
        let dialled = dialled.clone();
        async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let sent = dialled.send(Ok(far)).await;
            sent.map_err(|_| std::io::Error::other("the operator is gone"))?;
            Ok::<_, std::io::Error>(TokioIo::new(near))
        }
    });
    Endpoint::from_static("http://operator").connect_with_connector_lazy(connector)
}

/// The operator: streams that proxies open come out of `sessions`.
pub(crate) struct Operator {
    pub(crate) sessions: mpsc::Receiver<Session>,
}

/// One stream, seen from the operator.
pub(crate) struct Session {
    pub(crate) authorization: String,
    from_proxy: Streaming<proto::ProxyMessage>,
    to_proxy: mpsc::Sender<Result<proto::OperatorMessage, Status>>,
}

/// The service that hands its streams to the test.
pub(crate) struct Fake(mpsc::Sender<Session>);

impl Operator {
    pub(crate) fn new() -> (Self, ConfigServer<Fake>) {
        let (opened, sessions) = mpsc::channel(16);
        (Self { sessions }, ConfigServer::new(Fake(opened)))
    }

    /// An operator over in-memory connections, and a channel to it.
    pub(crate) fn in_memory() -> (Self, Channel) {
        let (this, service) = Self::new();
        let channel = in_memory(Server::builder().add_service(service));
        (this, channel)
    }

    pub(crate) async fn session(&mut self) -> Session {
        let next = tokio::time::timeout(Duration::from_secs(60), self.sessions.recv()).await;
        next.expect("a stream within a minute").expect("the server runs")
    }

    /// The next stream, greeted, with the subscriptions it begins with.
    pub(crate) async fn welcome(&mut self) -> (Session, Vec<proto::Subscription>) {
        let mut session = self.session().await;
        let hello = session.next().await;
        assert!(matches!(hello, FromProxy::Hello(_)), "{hello:?}");
        session.greet().await;
        let subscriptions = session.subscriptions().await;
        (session, subscriptions)
    }
}

impl Session {
    pub(crate) async fn next(&mut self) -> FromProxy {
        let next = tokio::time::timeout(Duration::from_secs(3600), self.from_proxy.message()).await;
        let message = next.expect("a message within an hour").expect("no error");
        message.expect("the stream is open").body.expect("a body")
    }

    pub(crate) async fn subscriptions(&mut self) -> Vec<proto::Subscription> {
        match self.next().await {
            FromProxy::Subscribe(proto::Subscribe { subscriptions }) => subscriptions,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn greet(&self) {
        self.send(FromOperator::Welcome(proto::Welcome {
            operator_version: "test".to_owned(),
            revision: names::REVISION,
        }))
        .await;
    }

    pub(crate) async fn update(&self, resources: Vec<proto::Resource>) {
        self.send(FromOperator::Update(proto::Update { resources })).await;
    }

    pub(crate) async fn send(&self, body: FromOperator) {
        self.send_raw(proto::OperatorMessage { body: Some(body) }).await;
    }

    pub(crate) async fn send_raw(&self, message: proto::OperatorMessage) {
        self.to_proxy.send(Ok(message)).await.expect("the stream is open");
    }
}

#[tonic::async_trait]
impl Config for Fake {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<proto::OperatorMessage, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<proto::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.and_then(|a| a.to_str().ok()).unwrap_or_default();
        let (to_proxy, messages) = mpsc::channel(64);
        let session = Session {
            authorization: authorization.to_owned(),
            from_proxy: request.into_inner(),
            to_proxy,
        };
        let gone = |_| Status::unavailable("the test is over");
        self.0.send(session).await.map_err(gone)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// A shared set of metrics over a fresh snapshot.
pub(crate) fn new(settings: &Settings) -> (super::Handle, super::Client, Arc<crate::metrics::Metrics>) {
    let current = super::Current::default();
    let metrics = Arc::new(crate::metrics::Metrics::new(current.clone()));
    let (handle, client) = super::new(settings, current, Arc::clone(&metrics));
    (handle, client, metrics)
}

//! One pod's proxy, with a configuration that the store of the real one made, and sockets of the loopback around it: all
//! in one thread, so that what happens between two system calls happens in the same order on every run.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use api::{Body, Kind, Resource, ResourceName, TlsPolicy, names, proto};
use clap::Parser as _;
use proxy::access_log::AccessLog;
use proxy::config::direct::Direct;
use proxy::config::{self, Current};
use proxy::drain::{self, Controller};
use proxy::io::Io;
use proxy::metrics::Metrics;
use proxy::settings::{Cli, Command, Settings};
use proxy::worker::{Shared, Worker};
use proxy::{identity, inbound, outbound};
use tokio::net::{TcpListener, TcpStream};

/// The address that the application dials.
const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 1], 80);
const PEER: ([u8; 4], u16) = ([10, 0, 0, 9], 41000);
const NAME: &str = "reviews.shop.svc.cluster.local:80";

/// Which side of the proxy connections are given to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Outbound,
    Inbound,
}

/// A worker, and what it needs to go on.
struct Pod {
    worker: Rc<Worker>,
    _client: config::Client,
    _drain: Controller,
}

/// Settings of a proxy that needs no operator.
pub(crate) fn settings() -> Settings {
    let command = [
        "hauberk-proxy",
        "run",
        "--operator=https://operator.hauberk-system.svc:15010",
        "--operator-roots=/nowhere/roots.pem",
        "--token-file=/nowhere/token",
        "--namespace=shop",
        "--pod=web-1",
        "--service-account=web",
    ];
    match Cli::try_parse_from(command).expect("flags of the proxy").command {
        Command::Run(settings) => *settings,
        Command::Init(_) | Command::Wait(_) => unreachable!("the arguments say run"),
    }
}

/// A resource as the operator sends it.
pub(crate) fn resource(kind: Kind, name: &str, body: Body) -> proto::Resource {
    Resource::new(ResourceName::new(kind, name), body).into()
}

/// What the operator says of one service behind `dialled`.
pub(crate) fn service(dialled: SocketAddr, name: &str, endpoints: &[SocketAddr]) -> Vec<proto::Resource> {
    let mut route = bench::route(1).spec.as_ref().clone();
    route.http = vec![bench::forward(name)];
    vec![
        resource(
            Kind::Destination,
            &dialled.to_string(),
            Body::Destination(api::Destination::Route(name.to_owned())),
        ),
        resource(Kind::Route, name, Body::Route(Box::new(route))),
        resource(
            Kind::Cluster,
            name,
            Body::Cluster(Box::new(api::Cluster::of(name))),
        ),
        resource(
            Kind::Endpoints,
            name,
            Body::Endpoints(bench::endpoints(endpoints)),
        ),
    ]
}

impl Pod {
    /// A pod whose application calls `reviews`, which has one endpoint.
    fn new(endpoint: SocketAddr) -> Self {
        let settings = settings();
        let current = Current::default();
        let metrics = Arc::new(Metrics::new(current.clone()));
        let (config, client) = config::new(&settings, current.clone(), Arc::clone(&metrics));
        let (identity, _renewal) =
            identity::new(&settings, config.trust(), Arc::clone(&metrics)).expect("a SPIFFE identity");
        let mut direct = Direct::new(&settings.trust_domain, current);
        direct.want(SERVICE.into());
        let inbound = api::Inbound {
            policy: TlsPolicy::Permissive,
            ports: Vec::new(),
            sources: Vec::new(),
            finished: false,
        };
        let mut resources = service(SERVICE.into(), NAME, &[endpoint]);
        resources.push(resource(
            Kind::Inbound,
            names::INBOUND_SELF,
            Body::Inbound(inbound),
        ));
        let active = direct
            .apply(proto::Update { resources })
            .expect("valid resources");
        assert_eq!(active, 5, "all of it is active");
        let (controller, drain) = drain::channel();
        let worker = Worker::new(Shared {
            settings: Arc::new(settings),
            config,
            identity,
            drain,
            metrics,
            access_log: AccessLog::off(),
        });
        Self {
            worker,
            _client: client,
            _drain: controller,
        }
    }

    /// Serves what connects to a socket of the loopback.
    async fn listen(self, side: Side, application: SocketAddr) -> SocketAddr {
        serve(move |stream| {
            let (worker, io) = (Rc::clone(&self.worker), Io::from(stream));
            // Keeps what the worker needs for as long as it serves.
            let _pod = &self;
            async move {
                match side {
                    Side::Outbound => outbound::serve_io(worker, io, PEER.into(), SERVICE.into()).await,
                    Side::Inbound => inbound::serve_io(worker, io, PEER.into(), application).await,
                }
            }
        })
        .await
    }
}

/// Serves each connection to a socket of the loopback.
async fn serve<F: Future<Output = ()> + 'static>(each: impl Fn(TcpStream) -> F + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port of the loopback");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(each(stream));
        }
    });
    address
}

/// Runs `client` with the address to connect to: of a proxy before `server`, or of `server` itself.
pub(crate) fn run<S, C>(
    through: Option<Side>,
    server: impl Fn(TcpStream) -> S + 'static,
    client: impl FnOnce(SocketAddr) -> C,
) where
    S: Future<Output = ()> + 'static,
    C: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .expect("a runtime");
    runtime.block_on(async {
        let server = serve(server).await;
        let address = match through {
            Some(side) => Pod::new(server).listen(side, server).await,
            None => server,
        };
        client(address).await;
    });
}

/// A connection as an application opens it.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let _ = stream.set_nodelay(true);
    stream
}

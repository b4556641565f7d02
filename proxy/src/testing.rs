//! What tests of the data path stand on: a worker over a hand-made snapshot, applications that talk to it over in-memory
//! streams, and scripted endpoints on the loopback that write down what reaches them. Time is real here, for there are
//! sockets; tests that need none may pause it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::{HttpRule, Protocol, TcpRule};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::access_log::AccessLog;
use crate::balancer::Weights;
use crate::config::snapshot::{Cluster, Destination, Endpoint, Entry, Route, Snapshot};
use crate::config::usage::Usage;
use crate::config::{self, Current};
use crate::drain::{self, Controller};
use crate::identity::{self, Identity};
use crate::io::Io;
use crate::live::{ClusterLive, EndpointLive};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::worker::{Local, Shared, Worker};
use crate::{inbound, outbound};

/// The address that tests dial.
pub(crate) const SERVICE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)), 80);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)), 41000);
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test as a worker runs, on one thread with tasks that need not be `Send`.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        timeout(PATIENCE, test).await.expect("the test ends in time");
    });
}

/// As [`run`], with time that passes when all tasks wait. Only for tests without sockets.
pub(crate) fn run_paused(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_all()
        .start_paused(true)
        .build_local(Default::default())
        .unwrap();
    runtime.block_on(test);
}

/// Waits until `what` holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        timeout(Duration::from_secs(10), all).await.is_ok(),
        "not in time: {what}"
    );
}

/// A cluster over endpoints outside the mesh.
pub(crate) fn cluster(addresses: &[SocketAddr], change: impl FnOnce(&mut api::Cluster)) -> Arc<Cluster> {
    let endpoint = |address: &SocketAddr| {
        Arc::new(Endpoint {
            spec: api::Endpoint {
                address: *address,
                weight: 1,
                identity: None,
                labels: Default::default(),
                zone: String::new(),
                pod: String::new(),
                topology: Default::default(),
            },
            live: Arc::new(EndpointLive::new()),
        })
    };
    let mut spec = api::Cluster::of("reviews.shop:80");
    // In order, so that tests know who is asked first.
    spec.balancer = api::Balancer::RoundRobin;
    change(&mut spec);
    let endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
    Arc::new(Cluster {
        name: "reviews.shop:80".into(),
        weights: Weights::prepared(&spec, &endpoints, None),
        spec: Arc::new(spec),
        endpoints,
        live: Arc::new(ClusterLive::new("reviews.shop:80")),
        absent: None,
    })
}

/// A route of rules with the cluster of each.
pub(crate) fn route(
    protocol: Option<Protocol>,
    http: Vec<(HttpRule, Arc<Cluster>)>,
    tcp: Vec<(TcpRule, Arc<Cluster>)>,
) -> Snapshot {
    let (http_rules, http) = http.into_iter().map(|(rule, c)| (rule, vec![c])).unzip();
    let (tcp_rules, tcp) = tcp.into_iter().map(|(rule, c)| (rule, vec![c])).unzip();
    let route = Route {
        name: "reviews.shop:80".into(),
        version: api::Version::from_wire(1).unwrap(),
        spec: Arc::new(api::Route {
            host: "reviews.shop".to_owned(),
            port: 80,
            protocol,
            http: http_rules,
            tcp: tcp_rules,
        }),
        http,
        tcp,
        index: None,
    };
    destination(Destination::Service(Arc::new(route)))
}

/// One rule that sends every request and every connection to `cluster`, changed as the test needs.
pub(crate) fn forward(
    protocol: Option<Protocol>,
    cluster: &Arc<Cluster>,
    change: impl FnOnce(&mut api::Forward),
) -> Snapshot {
    let mut rule = crate::route::testing::rule(Vec::new(), &[("reviews", 1)]);
    if let api::Action::Forward(forward) = &mut rule.action {
        change(forward);
    }
    let tcp = crate::route::testing::tcp_rule(&[], &[("reviews", 1)]);
    route(
        protocol,
        vec![(rule, Arc::clone(cluster))],
        vec![(tcp, Arc::clone(cluster))],
    )
}

/// A snapshot with one destination, at [`SERVICE`].
pub(crate) fn destination(destination: Destination) -> Snapshot {
    let usage = Usage::new(Instant::now());
    Snapshot {
        number: 1,
        destinations: HashMap::from([(SERVICE, Entry { destination, usage })]),
        ..Snapshot::default()
    }
}

/// A worker, and all that it needs to go on.
pub(crate) struct World {
    pub(crate) worker: Rc<Worker>,
    pub(crate) drain: Controller,
    current: Current,
    _client: config::Client,
    _token: tempfile::NamedTempFile,
}

impl World {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self::with(snapshot, identity::testing::empty(), |_| {})
    }

    pub(crate) fn with(snapshot: Snapshot, identity: Identity, change: impl FnOnce(&mut Settings)) -> Self {
        let (mut settings, token) = config::testing::settings();
        change(&mut settings);
        let current = Current::default();
        let metrics = Arc::new(Metrics::new(current.clone()));
        let (config, client) = config::new(&settings, current.clone(), Arc::clone(&metrics));
        current.store(Arc::new(snapshot));
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
            drain: controller,
            current,
            _client: client,
            _token: token,
        }
    }

    /// Makes `snapshot` the current one.
    pub(crate) fn push(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// A connection of the pod's application.
    pub(crate) fn dial(&self, dialled: SocketAddr) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let serving = outbound::serve_io(Rc::clone(&self.worker), Io::from(theirs), PEER, dialled);
        self.serve(serving);
        ours
    }

    /// A connection to the pod.
    pub(crate) fn arrive(&self, dialled: SocketAddr) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let serving = inbound::serve_io(Rc::clone(&self.worker), Io::from(theirs), PEER, dialled);
        self.serve(serving);
        ours
    }

    fn serve(&self, serving: impl Future<Output = ()> + 'static) {
        let open = self.worker.drain.open(100).expect("few connections are open");
        tokio::task::spawn_local(async move {
            serving.await;
            drop(open);
        });
    }

    /// An application that speaks HTTP/1.1.
    pub(crate) async fn http1(&self) -> http1::SendRequest<Full<Bytes>> {
        client1(self.dial(SERVICE)).await
    }

    /// An application that speaks HTTP/2.
    pub(crate) async fn http2(&self) -> http2::SendRequest<Full<Bytes>> {
        client2(self.dial(SERVICE)).await
    }

    /// How often errors with this flag were counted.
    pub(crate) fn errors(&self, flag: &str) -> u64 {
        let text = self.worker.recorder.metrics().encode().unwrap();
        let flag = format!("flag=\"{flag}\"");
        let counted = text
            .lines()
            .filter(|l| l.starts_with("hauberk_errors_total{") && l.contains(&flag));
        counted
            .map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

/// A client of HTTP/1.1 on a stream.
pub(crate) async fn client1(io: impl Into<Io>) -> http1::SendRequest<Full<Bytes>> {
    let (sender, connection) = http1::handshake(TokioIo::new(io.into())).await.unwrap();
    tokio::task::spawn_local(connection.with_upgrades());
    sender
}

/// A client of HTTP/2 on a stream.
pub(crate) async fn client2(io: impl Into<Io>) -> http2::SendRequest<Full<Bytes>> {
    let (sender, connection) = http2::handshake(Local, TokioIo::new(io.into())).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

/// A request to `reviews`, in the form of either version.
pub(crate) fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path);
    let request = if path.starts_with('/') {
        request.header("host", "reviews")
    } else {
        request
    };
    request.body(Full::from(body.to_owned())).unwrap()
}

/// A response that has ended.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, and why the proxy answers itself.
    pub(crate) fn told(&self) -> (u16, &str) {
        (self.status, self.header(api::names::REASON_HEADER))
    }
}

/// Sends a request and waits for the whole answer.
pub(crate) async fn ask(sender: &mut http1::SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Got {
    sender.ready().await.unwrap();
    Got::of(sender.send_request(request).await.unwrap()).await
}

/// A request as an endpoint saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// What a scripted endpoint does with a request.
pub(crate) enum Reply {
    /// Sends these bytes.
    Send(String),
    /// Sends these bytes, and closes.
    Last(String),
    /// Sends nothing, and waits for the end of the connection.
    Hang,
}

/// An answer 200 with a body.
pub(crate) fn ok(body: &str) -> Reply {
    answer("200 OK", body)
}

/// An answer with a status.
pub(crate) fn answer(status: &str, body: &str) -> Reply {
    Reply::Send(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A scripted endpoint of HTTP/1.1.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Rc<Log>,
}

#[derive(Default)]
struct Log {
    connections: Cell<usize>,
    open: Cell<usize>,
    seen: RefCell<Vec<Seen>>,
}

impl Server {
    /// An endpoint that does as `script` says with each request; they are numbered from 0.
    pub(crate) async fn start(script: impl Fn(usize, &Seen) -> Reply + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Rc::<Log>::default();
        let (shared, script) = (Rc::clone(&log), Rc::new(script));
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.set(shared.connections.get() + 1);
                shared.open.set(shared.open.get() + 1);
                let (log, script) = (Rc::clone(&shared), Rc::clone(&script));
                tokio::task::spawn_local(async move {
                    let _ = serve(stream, &log, &*script).await;
                    log.open.set(log.open.get() - 1);
                });
            }
        });
        Self { address, log }
    }

    /// Connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.get()
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.log.open.get()
    }

    /// Every request, whole.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.seen.borrow().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    log: &Log,
    script: &dyn Fn(usize, &Seen) -> Reply,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer).await? {
        let number = log.seen.borrow().len();
        log.seen.borrow_mut().push(seen.clone());
        match script(number, &seen) {
            Reply::Send(bytes) => stream.write_all(bytes.as_bytes()).await?,
            Reply::Last(bytes) => return stream.write_all(bytes.as_bytes()).await,
            Reply::Hang => {
                while stream.read_buf(&mut buffer).await? > 0 {}
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Seen>> {
    let head = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break buffer.drain(..end + 4).collect::<Vec<u8>>();
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let mut seen = Seen {
        head: String::from_utf8_lossy(&head).into_owned(),
        body: String::new(),
    };
    let length = seen
        .header("content-length")
        .map(|length| length.parse::<usize>().unwrap());
    let chunked = seen.header("transfer-encoding").is_some();
    let whole = |buffer: &[u8]| match length {
        Some(length) => (buffer.len() >= length).then_some(length),
        None if chunked => find(buffer, b"0\r\n\r\n").map(|end| end + 5),
        None => Some(0),
    };
    let length = loop {
        if let Some(length) = whole(buffer) {
            break length;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let body: Vec<u8> = buffer.drain(..length).collect();
    seen.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(seen))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

//! The operator's binary from outside: started on a folder of manifests, asked by a client that speaks the contract.
//! What is held here is the wiring; the parts have their own tests.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use api::proto::config_client::ConfigClient;
use api::proto::operator_message::Body;
use api::proto::proxy_message::Body as Say;
use api::{Kind, Resource, ResourceName, proto};
use control_plane::admin;
use control_plane::authority::SERVER_NAME;
use control_plane::status::Status;
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

/// Nothing that is awaited here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);
const REVIEWS: &str = "reviews.shop.svc.cluster.local:80";

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hauberk-control-plane"));
    command.env_remove("RUST_LOG").kill_on_drop(true);
    command
}

struct Operator {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    dir: tempfile::TempDir,
}

impl Operator {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config")).unwrap();
        write(dir.path(), "reviews", &service());
        write(dir.path(), "endpoints", &slice(&["10.1.0.1"]));
        write(dir.path(), "route", &virtual_service(1, 1));
        let mut child = binary()
            .args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--log-format", "json", "--log", "info"])
            .arg("--config-dir")
            .arg(dir.path().join("config"))
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut listen, mut admin) = (None, None);
        while listen.is_none() || admin.is_none() {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
            let line = line
                .expect("a line in time")
                .unwrap()
                .expect("the operator lives");
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            let fields = &event["fields"];
            let address = || fields["address"].as_str().unwrap().parse().unwrap();
            match fields["message"].as_str().unwrap() {
                "listen: listening" => listen = Some(address()),
                "admin: listening" => admin = Some(address()),
                _ => {}
            }
        }
        // The pipe must not fill.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            child,
            listen: listen.unwrap(),
            admin: admin.unwrap(),
            dir,
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn token(&self, pod: &str) -> String {
        let output = binary()
            .args([
                "token",
                "--namespace",
                "shop",
                "--service-account",
                "web",
                "--pod",
                pod,
            ])
            .arg("--state-dir")
            .arg(self.path().join("state"))
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A proxy, subscribed to these names.
    async fn proxy(&self, pod: &str, names: &[(Kind, &str)]) -> Proxy {
        let connect = connector(self.listen, &self.path().join("state/roots.pem"));
        let channel = Endpoint::from_static("http://operator")
            .connect_with_connector(connect)
            .await
            .unwrap();
        let (say, said) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(said));
        let bearer = format!("Bearer {}", self.token(pod).await).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let hear = ConfigClient::new(channel)
            .stream(request)
            .await
            .unwrap()
            .into_inner();
        let mut proxy = Proxy { say, hear };
        let hello = proto::Hello {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            proxy_version: "test".to_owned(),
            revision: 1,
        };
        proxy.say(Say::Hello(hello)).await;
        assert!(matches!(proxy.next().await, Body::Welcome(_)));
        let subscription = |(kind, name): &(Kind, &str)| proto::Subscription {
            name: Some(ResourceName::new(*kind, *name).into()),
            known_version: 0,
        };
        let subscriptions = names.iter().map(subscription).collect();
        proxy
            .say(Say::Subscribe(proto::Subscribe { subscriptions }))
            .await;
        proxy
    }

    /// The status, once it is as wanted.
    async fn status(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = admin::ask_status(self.admin).await.unwrap();
            if wanted(&status) {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "{status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// TLS to the operator, trusting what it wrote for proxies to start from.
fn connector(
    address: SocketAddr,
    roots_file: &Path,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>,
    Error = std::io::Error,
    Future: Send,
> + Send
+ 'static {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots_file).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = SERVER_NAME.try_into().expect("a DNS name");
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    })
}

struct Proxy {
    say: mpsc::Sender<proto::ProxyMessage>,
    hear: Streaming<proto::OperatorMessage>,
}

impl Proxy {
    async fn say(&self, body: Say) {
        let message = proto::ProxyMessage { body: Some(body) };
        self.say.send(message).await.unwrap();
    }

    async fn next(&mut self) -> Body {
        let message = tokio::time::timeout(PATIENCE, self.hear.message()).await;
        message
            .expect("a message in time")
            .unwrap()
            .unwrap()
            .body
            .unwrap()
    }

    /// The next update, acknowledged.
    async fn update(&mut self) -> Vec<Resource> {
        let Body::Update(update) = self.next().await else {
            panic!("not an update")
        };
        let mut resources = Vec::new();
        for resource in update.resources {
            let resource =
                Resource::try_from(resource).expect("what the operator sends, the contract accepts");
            self.say(Say::Ack(proto::Ack {
                name: Some(resource.name.clone().into()),
                version: resource.version.get(),
            }))
            .await;
            resources.push(resource);
        }
        resources
    }
}

fn kinds(resources: &[Resource]) -> Vec<Kind> {
    resources.iter().map(|r| r.name.kind).collect()
}

/// Written beside its place and moved there, as editors and Kubernetes do.
fn write(dir: &Path, name: &str, manifest: &serde_json::Value) {
    let draft = dir.join(format!("{name}.new"));
    std::fs::write(&draft, manifest.to_string()).unwrap();
    std::fs::rename(draft, dir.join(format!("config/{name}.yaml"))).unwrap();
}

fn service() -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "reviews", "namespace": "shop" },
        "spec": { "clusterIP": "10.0.0.1", "ports": [{ "name": "http", "port": 80 }] },
    })
}

fn slice(addresses: &[&str]) -> serde_json::Value {
    let endpoint = |address| serde_json::json!({ "addresses": [address], "conditions": { "ready": true } });
    let endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
    serde_json::json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "reviews-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "reviews" },
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

fn virtual_service(generation: i64, retries: u32) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "hauberk.dev/v1alpha1", "kind": "VirtualService",
        "metadata": { "name": "reviews", "namespace": "shop", "generation": generation },
        "spec": {
            "hosts": ["reviews"],
            "http": [{
                "route": [{ "destination": { "host": "reviews" } }],
                "retries": { "attempts": retries },
            }],
        },
    })
}

#[tokio::test]
async fn a_file_that_changes_reaches_the_proxies_that_use_it_and_the_status_says_so() {
    let operator = Operator::start().await;
    let names = [
        (Kind::Route, REVIEWS),
        (Kind::Endpoints, REVIEWS),
        (Kind::TrustBundle, "mesh"),
    ];
    let mut proxy = operator.proxy("web-0", &names).await;
    let first = proxy.update().await;
    assert_eq!(kinds(&first), [Kind::TrustBundle, Kind::Endpoints, Kind::Route]);
    let applied = |generation, says: &'static str| {
        move |status: &Status| {
            let mut objects = status.objects.iter();
            objects.any(|o| o.name == "reviews" && o.generation == generation && o.applied == says)
        }
    };
    operator.status(applied(1, "applied by 1 of 1 proxy")).await;

    write(operator.path(), "endpoints", &slice(&["10.1.0.1", "10.1.0.2"]));
    assert_eq!(kinds(&proxy.update().await), [Kind::Endpoints]);

    write(operator.path(), "route", &virtual_service(2, 7));
    assert_eq!(kinds(&proxy.update().await), [Kind::Route]);
    operator.status(applied(2, "applied by 1 of 1 proxy")).await;

    // What is wrong is told, and what was in force stays.
    let mut wrong = virtual_service(3, 1);
    wrong["spec"]["http"][0]["route"][0]["weight"] = serde_json::json!(-1);
    write(operator.path(), "route", &wrong);
    let says = "generation 2 stays in force, applied by 1 of 1 proxy";
    let status = operator.status(applied(3, says)).await;
    let notes = &status.objects[0].findings;
    assert!(notes.iter().any(|note| note.contains("weight")), "{notes:?}");
}

#[tokio::test]
async fn a_rotation_reaches_proxies_while_the_operator_runs() {
    let operator = Operator::start().await;
    let mut proxy = operator.proxy("web-0", &[(Kind::TrustBundle, "mesh")]).await;
    let roots = |resources: Vec<Resource>| match &resources[0].body {
        api::Body::TrustBundle(bundle) => bundle.roots.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(roots(proxy.update().await), 1);
    let rotate = binary()
        .arg("rotate-root")
        .arg("--state-dir")
        .arg(operator.path().join("state"))
        .output()
        .await
        .unwrap();
    assert!(rotate.status.success(), "{rotate:?}");
    assert_eq!(roots(proxy.update().await), 2);
}

#[tokio::test]
async fn the_operator_ends_in_order_when_told_to() {
    let mut operator = Operator::start().await;
    let mut proxy = operator.proxy("web-0", &[(Kind::TrustBundle, "mesh")]).await;
    proxy.update().await;
    let pid = nix::unistd::Pid::from_raw(operator.child.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let end = tokio::time::timeout(PATIENCE, proxy.hear.message())
        .await
        .unwrap();
    assert_eq!(end.unwrap_err().code(), tonic::Code::Unavailable);
    drop(proxy);
    let status = tokio::time::timeout(PATIENCE, operator.child.wait())
        .await
        .unwrap();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn wrong_settings_keep_the_operator_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    let state = ["--state-dir", &state];
    let here = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let config = |dir| ["--config-dir", dir];
    for (args, code, says) in [
        (
            [config("/"), ["--trust-domain", "a.b"]].concat(),
            2,
            "state-dir: must be set",
        ),
        ([config("/nowhere/at-all"), state].concat(), 1, "/nowhere/at-all"),
        (
            [config("/"), state, ["--log-format", "xml"]].concat(),
            2,
            "log-format: \"xml\"",
        ),
    ] {
        let output = binary().arg("run").args(here).args(args).output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .expect("it ends")
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(says), "{error}");
    }
}

//! The lab: pods as network namespaces on one machine, with real proxies, a real operator and real kernel redirects.
//!
//! ```no_run
//! use tests::lab::{self, Lab, ServiceSpec};
//!
//! # async fn example() -> anyhow::Result<()> {
//! lab::enter(); // the first line of main, before any thread
//! let lab = Lab::builder()
//!     .service(ServiceSpec::http("reviews").version("v1", 2).version("v2", 1))
//!     .client("web")
//!     .start()
//!     .await?;
//! let reply = lab.pod("web").get("http://reviews:8080/").await?;
//! println!("{} answered {}", reply.app_pod(), reply.status);
//! # Ok(())
//! # }
//! ```
//!
//! The hub is the namespace of the test process itself, with a bridge; each pod is a namespace of its own with a cable
//! to the bridge. Service addresses (10.96.0.0/16) are translated by nothing but the mesh: without a proxy they are
//! unreachable. Everything lives in namespaces and in memory, so that a crash leaves nothing behind.

mod binaries;
pub mod capture;
mod change;
mod enter;
mod hub;
mod launch;
mod logs;
mod manifests;
pub mod metrics;
mod names;
mod operator;
mod pod;
mod poll;
mod process;
mod proxy;
mod spec;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Context;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use binaries::{Binary, reachable};
pub use enter::{Privileges, enter, outside_pid};
pub(crate) use enter::{inside, within};
pub(crate) use hub::ip_batch;
pub use hub::{BRIDGE, GATEWAY, GATEWAY_V6, OPERATOR};
pub(crate) use logs::ends;
pub use manifests::{EndpointState, INJECTED};
pub use operator::{CONFIG_PORT, Operator, TRUST_DOMAIN};
pub use pod::{Pod, PodIdentity};
pub use poll::{eventually, eventually_every};
pub use process::{Process, Signal};
pub(crate) use proxy::while_running;
pub use proxy::{ADMIN_PORT, Proxy};
pub use spec::{App, Builder, NAMESPACE, PodSpec, PortSpec, ServiceSpec, Workload};
pub use trial::{run, trial};

use crate::app::{CONTROL_PORT, Control};
use crate::grpc::EchoClient;
use crate::load::{Load, Plan};
use hub::{Place, hub};
use manifests::{Family, Folder, PodFacts, families, file_name};
use names::Names;

/// The control port of the gRPC echo.
pub const GRPC_CONTROL_PORT: u16 = CONTROL_PORT + 1;
/// The control port of the TCP echo.
pub const TCP_CONTROL_PORT: u16 = CONTROL_PORT + 2;
const APP_CONTROL_PORTS: [u16; 3] = [CONTROL_PORT, GRPC_CONTROL_PORT, TCP_CONTROL_PORT];
/// How many log lines of each program [`Lab::dump_logs`] shows.
const DUMPED_LINES: usize = 40;

/// The operator has one address, so labs of one process take turns.
static TURN: Semaphore = Semaphore::const_new(1);

/// A running lab. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: programs first, their files last.
    members: Mutex<BTreeMap<String, Arc<Member>>>,
    operator: Option<Operator>,
    services: Mutex<BTreeMap<String, Service>>,
    proxy_env: BTreeMap<String, String>,
    names: Names,
    used_names: Mutex<BTreeSet<String>>,
    folder: Folder,
    places: Mutex<Vec<Place>>,
    dir: PathBuf,
    _files: Option<TempDir>,
    _turn: SemaphorePermit<'static>,
}

/// A pod with what runs in it.
#[derive(Debug)]
struct Member {
    service: Option<String>,
    apps: Mutex<Vec<Arc<Process>>>,
    spec: PodSpec,
    proxy: Option<Proxy>,
    pod: Pod,
    facts: Mutex<PodFacts>,
}

/// A service of a lab.
#[derive(Clone, Debug)]
pub struct Service {
    spec: ServiceSpec,
    addresses: Vec<IpAddr>,
}

impl Service {
    /// Its IPv4 address. A headless service has none.
    pub fn ip(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }

    /// All its addresses.
    pub fn ips(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its first port.
    pub fn port(&self) -> u16 {
        self.spec.ports[0].port
    }

    /// `name.namespace:port`, which every pod can resolve.
    pub fn authority(&self) -> String {
        format!("{}.{}:{}", self.spec.name, self.spec.namespace, self.port())
    }

    /// A URL of its first port.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority())
    }
}

impl Lab {
    /// Describes a lab.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A pod's handle.
    ///
    /// # Panics
    ///
    /// When there is no such pod: the test is wrong.
    pub fn pod(&self, name: &str) -> Pod {
        self.member(name).pod.clone()
    }

    /// Asks a pod's proxy something.
    ///
    /// # Panics
    ///
    /// When there is no such pod or it has no proxy: the test is wrong.
    pub fn proxy(&self, name: &str) -> ProxyRef {
        let member = self.member(name);
        assert!(member.proxy.is_some(), "pod {name} has no proxy");
        ProxyRef(member)
    }

    /// Controls the HTTP application in a pod.
    pub fn app(&self, pod: &str) -> Control {
        self.control(pod, CONTROL_PORT)
    }

    /// Controls the application with this control port in a pod.
    pub fn control(&self, pod: &str, port: u16) -> Control {
        Control::new(self.member(pod).pod.address(port))
    }

    /// A service.
    ///
    /// # Panics
    ///
    /// When there is no such service: the test is wrong.
    pub fn service(&self, name: &str) -> Service {
        let services = lock(&self.services);
        let known = || services.keys().cloned().collect::<Vec<_>>().join(", ");
        services
            .get(name)
            .cloned()
            .unwrap_or_else(|| panic!("no service {name}; there are: {}", known()))
    }

    /// The names of a service's pods.
    pub fn pods_of(&self, service: &str) -> Vec<String> {
        let members = lock(&self.members);
        let of = members
            .iter()
            .filter(|(_, member)| member.service.as_deref() == Some(service));
        of.map(|(name, _)| name.clone()).collect()
    }

    /// The operator.
    ///
    /// # Panics
    ///
    /// In a lab without a mesh: the test is wrong.
    pub fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("this lab was built without a mesh")
    }

    /// The folder of this lab's files, logs included.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a load from inside a pod.
    pub async fn load(&self, pod: &str, plan: Plan) -> anyhow::Result<Load> {
        let pod = self.pod(pod);
        let address = pod.resolve(&plan.authority()?)?;
        Ok(pod.run(async move { Load::start(plan, address) }).await)
    }

    /// Connects a gRPC client in a pod to `authority`, such as `ledger:50051`.
    pub async fn echo(&self, pod: &str, authority: &str) -> anyhow::Result<EchoClient> {
        let pod = self.pod(pod);
        let address = pod.resolve(authority)?;
        let authority = authority.to_owned();
        Ok(pod
            .run(async move { EchoClient::connect(address, &authority).await })
            .await?)
    }

    /// All that a program has written, over its restarts: `POD-PROGRAM`, such as `web-proxy`, `web-init`,
    /// `reviews-v1-0-http` or `operator-run`. Empty when there is no such program.
    pub fn log(&self, program: &str) -> String {
        let bytes = std::fs::read(self.logs().join(format!("{program}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Prints the end of every program's log to standard error.
    pub fn dump_logs(&self) {
        eprintln!("{}", logs::ends(&self.logs(), DUMPED_LINES));
    }

    async fn empty(proxy_env: BTreeMap<String, String>) -> anyhow::Result<Lab> {
        let turn = TURN.acquire().await.context("the lab's turn is never closed")?;
        let (dir, files) = files()?;
        let logs = dir.join("logs");
        for folder in [&dir, &logs] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            // The proxies' user must be able to pass.
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(Lab {
            members: Mutex::default(),
            operator: None,
            services: Mutex::default(),
            proxy_env,
            names: Names::default(),
            used_names: Mutex::default(),
            folder: Folder::create(dir.join("config"), dir.join("staging"))?,
            places: Mutex::default(),
            dir,
            _files: files,
            _turn: turn,
        })
    }

    /// Gives a service its addresses and writes its objects, without endpoints.
    fn declare(&self, spec: ServiceSpec) -> anyhow::Result<()> {
        let mut services = lock(&self.services);
        let number = u16::try_from(services.len() + 10).context("too many services")?;
        let addresses: Vec<IpAddr> = if spec.headless {
            Vec::new()
        } else {
            families(&spec)
                .iter()
                .map(|family| cluster_ip(*family, number))
                .collect()
        };
        if let Some(address) = addresses.first() {
            self.names.add(&spec.name, &spec.namespace, *address);
        }
        let file = file_name("service", &spec.namespace, &spec.name);
        self.folder
            .write_json(&file, &manifests::service(&spec, &addresses))?;
        let name = spec.name.clone();
        services.insert(name.clone(), Service { spec, addresses });
        drop(services);
        self.publish(&name)
    }

    fn add_member(&self, name: String, member: Member) {
        lock(&self.members).insert(name, Arc::new(member));
    }

    fn remember_place(&self, place: Place) {
        lock(&self.places).push(place);
    }

    fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    fn member(&self, name: &str) -> Arc<Member> {
        let members = lock(&self.members);
        let known = || members.keys().cloned().collect::<Vec<_>>().join(", ");
        members
            .get(name)
            .cloned()
            .unwrap_or_else(|| panic!("no pod {name}; there are: {}", known()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dump_logs();
        } else {
            logs::keep(logs::ends(&self.logs(), DUMPED_LINES));
        }
        lock(&self.members).clear();
        self.operator = None;
        // The kernel frees a namespace some time after its last user; the next lab's operator must not meet its cable.
        hub::unplug(&lock(&self.places));
    }
}

/// A pod's proxy, borrowed from its lab.
#[derive(Clone, Debug)]
pub struct ProxyRef(Arc<Member>);

impl std::ops::Deref for ProxyRef {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        self.0
            .proxy
            .as_ref()
            .expect("checked when the reference was made")
    }
}

/// What this process may do, for tests that need real user ids.
pub fn privileges() -> anyhow::Result<Privileges> {
    Ok(hub()?.privileges)
}

/// Whether pods have IPv6.
pub fn has_ipv6() -> anyhow::Result<bool> {
    Ok(hub()?.ipv6)
}

/// The lab's folder: in memory and gone with the process, or kept in `HAUBERK_LAB_DIR` to be read afterwards.
fn files() -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    hub()?;
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("lab-");
        builder
    };
    match std::env::var_os("HAUBERK_LAB_DIR") {
        Some(kept) => {
            let dir = builder().disable_cleanup(true).tempdir_in(&kept);
            let dir =
                dir.with_context(|| format!("cannot create a folder in HAUBERK_LAB_DIR {}", kept.display()))?;
            Ok((dir.path().to_owned(), None))
        }
        None => {
            let dir = builder()
                .tempdir_in(hub::RUN)
                .context("cannot create the lab's folder")?;
            Ok((dir.path().to_owned(), Some(dir)))
        }
    }
}

fn cluster_ip(family: Family, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, high, low).into(),
        Family::V6 => Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, number).into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked elsewhere must still be able to show its logs.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! How each program of a Kubernetes node is called, and the files that configure it. Pure but for writing those files.
//!
//! Called by [`Node::start`](super::Node). The programs are those of Kubernetes 1.20, etcd 3.4, containerd 1.6 and
//! dnsmasq; where a flag is there for the sake of a test, a comment says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::pki::Pki;
use super::{NODE, NODE_IP, POD_NETWORK, SERVICE_NETWORK};

/// Where everything of one node is.
#[derive(Debug)]
pub(super) struct Places {
    /// The programs of Kubernetes.
    pub(super) kubernetes: PathBuf,
    /// State, in memory.
    pub(super) run: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) pki: Pki,
    /// The control group of all pods.
    pub(super) group: String,
    /// The image whose container holds a pod's namespaces.
    pub(super) pause: String,
}

impl Places {
    pub(super) fn containerd_socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    fn pki(&self, file: &str) -> String {
        self.pki.file(file).display().to_string()
    }

    fn kubernetes(&self, program: &str) -> Command {
        Command::new(self.kubernetes.join(program))
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.run.join(file);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// etcd, whose data is in memory: it need not wait for any disk.
pub(super) fn etcd(places: &Places) -> Command {
    let mut command = Command::new("etcd");
    command
        .args([
            "--name=default",
            "--log-level=warn",
            "--logger=zap",
            "--unsafe-no-fsync",
        ])
        .args([
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
        ])
        .args([
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        ])
        .arg("--initial-cluster=default=http://127.0.0.1:2380")
        .arg(format!("--data-dir={}", places.run.join("etcd").display()));
    command
}

pub(super) fn api_server(places: &Places) -> Command {
    let mut command = places.kubernetes("kube-apiserver");
    let flags = [
        ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
        ("bind-address", "0.0.0.0".to_owned()),
        ("secure-port", "6443".to_owned()),
        ("advertise-address", NODE_IP.to_string()),
        ("tls-cert-file", places.pki("apiserver.crt")),
        ("tls-private-key-file", places.pki("apiserver.key")),
        ("client-ca-file", places.pki("ca.crt")),
        (
            "kubelet-client-certificate",
            places.pki("apiserver-kubelet-client.crt"),
        ),
        ("kubelet-client-key", places.pki("apiserver-kubelet-client.key")),
        ("kubelet-certificate-authority", places.pki("ca.crt")),
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("requestheader-client-ca-file", places.pki("front-proxy-ca.crt")),
        ("requestheader-allowed-names", "front-proxy-client".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
        ("proxy-client-cert-file", places.pki("front-proxy-client.crt")),
        ("proxy-client-key-file", places.pki("front-proxy-client.key")),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc.cluster.local".to_owned(),
        ),
        (
            "api-audiences",
            "https://kubernetes.default.svc.cluster.local".to_owned(),
        ),
        ("service-account-key-file", places.pki("sa.pub")),
        ("service-account-signing-key-file", places.pki("sa.key")),
        ("service-cluster-ip-range", SERVICE_NETWORK.to_owned()),
        ("allow-privileged", "true".to_owned()),
        // A restart is to end watches at once rather than after a minute.
        ("shutdown-delay-duration", "0s".to_owned()),
        // On by default since 1.22: the operator is to see endpoints that end.
        (
            "feature-gates",
            "EndpointSliceTerminatingCondition=true".to_owned(),
        ),
        ("v", "1".to_owned()),
    ];
    command.args(flags.map(|(name, value)| format!("--{name}={value}")));
    command
}

pub(super) fn controllers(places: &Places) -> Command {
    let mut command = places.kubernetes("kube-controller-manager");
    let config = places.pki("controller-manager.conf");
    let flags = [
        ("kubeconfig", config.clone()),
        ("authentication-kubeconfig", config.clone()),
        ("authorization-kubeconfig", config),
        ("bind-address", "127.0.0.1".to_owned()),
        ("port", "0".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
        ("service-account-private-key-file", places.pki("sa.key")),
        ("root-ca-file", places.pki("ca.crt")),
        ("client-ca-file", places.pki("ca.crt")),
        ("cluster-signing-cert-file", places.pki("ca.crt")),
        ("cluster-signing-key-file", places.pki("ca.key")),
        (
            "feature-gates",
            "EndpointSliceTerminatingCondition=true".to_owned(),
        ),
        ("kube-api-qps", "100".to_owned()),
        ("kube-api-burst", "200".to_owned()),
        ("v", "1".to_owned()),
    ];
    command.args(flags.map(|(name, value)| format!("--{name}={value}")));
    command
}

pub(super) fn scheduler(places: &Places) -> Command {
    let mut command = places.kubernetes("kube-scheduler");
    let config = places.pki("scheduler.conf");
    let flags = [
        ("kubeconfig", config.clone()),
        ("authentication-kubeconfig", config.clone()),
        ("authorization-kubeconfig", config),
        ("bind-address", "127.0.0.1".to_owned()),
        ("port", "0".to_owned()),
        ("leader-elect", "false".to_owned()),
    ];
    command.args(flags.map(|(name, value)| format!("--{name}={value}")));
    command
}

/// containerd, its images and containers in memory, with pods cabled one by one to the node: so traffic between two pods
/// of one node is routed, and kube-proxy's rules see it whether or not the kernel has br_netfilter.
pub(super) fn containerd(places: &Places) -> anyhow::Result<Command> {
    let run = places.run.display();
    let plugins = ["/usr/lib/cni", "/opt/cni/bin"];
    let Some(plugins) = plugins
        .into_iter()
        .find(|folder| Path::new(folder).join("ptp").exists())
    else {
        bail!("no CNI plugins: apt-get install containernetworking-plugins");
    };
    let network = format!(
        r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {{"type": "ptp", "ipMasq": false, "ipam": {{"type": "host-local", "dataDir": "{run}/addresses",
    "ranges": [[{{"subnet": "{POD_NETWORK}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
]}}
"#
    );
    places.write("cni/10-pods.conflist", &network)?;
    let socket = places.containerd_socket();
    let config = format!(
        r#"version = 2
root = "{run}/containerd"
state = "{run}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[debug]
  level = "warn"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE, as in some virtual machines, the score of a container cannot be lowered.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{run}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        socket = socket.display(),
        pause = places.pause,
    );
    let config = places.write("containerd.toml", &config)?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config);
    Ok(command)
}

pub(super) fn kubelet(places: &Places) -> anyhow::Result<Command> {
    let resolver = places.write("resolv.conf", &format!("nameserver {NODE_IP}\n"))?;
    let config = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\n\
         kind: KubeletConfiguration\n\
         address: 0.0.0.0\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {ca}}}}}\n\
         authorization: {{mode: Webhook}}\n\
         tlsCertFile: {certificate}\n\
         tlsPrivateKeyFile: {key}\n\
         cgroupDriver: cgroupfs\n\
         cgroupRoot: /{group}\n\
         enforceNodeAllocatable: [pods]\n\
         failSwapOn: false\n\
         clusterDomain: cluster.local\n\
         clusterDNS: [{dns}]\n\
         resolvConf: {resolver}\n\
         maxPods: 250\n\
         registryPullQPS: 0\n\
         eventRecordQPS: 0\n\
         kubeAPIQPS: 100\n\
         kubeAPIBurst: 200\n\
         serializeImagePulls: false\n\
         syncFrequency: 10s\n\
         nodeStatusUpdateFrequency: 1s\n\
         evictionHard: {{memory.available: 100Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%}}\n\
         imageGCHighThresholdPercent: 100\n\
         volumePluginDir: {plugins}\n",
        ca = places.pki("ca.crt"),
        certificate = places.pki("kubelet.crt"),
        key = places.pki("kubelet.key"),
        group = places.group,
        dns = super::DNS_IP,
        resolver = resolver.display(),
        plugins = places.run.join("volume-plugins").display(),
    );
    let config = places.write("kubelet.yaml", &config)?;
    let mut command = places.kubernetes("kubelet");
    let flags = [
        ("config", config.display().to_string()),
        ("kubeconfig", places.pki("kubelet.conf")),
        ("hostname-override", NODE.to_owned()),
        ("node-ip", NODE_IP.to_string()),
        ("root-dir", places.run.join("kubelet").display().to_string()),
        (
            "cert-dir",
            places.run.join("kubelet-certificates").display().to_string(),
        ),
        ("pod-infra-container-image", places.pause.clone()),
        ("container-runtime", "remote".to_owned()),
        (
            "container-runtime-endpoint",
            format!("unix://{}", places.containerd_socket().display()),
        ),
        ("v", "1".to_owned()),
    ];
    command.args(flags.map(|(name, value)| format!("--{name}={value}")));
    Ok(command)
}

pub(super) fn kube_proxy(places: &Places) -> anyhow::Result<Command> {
    let config = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
         kind: KubeProxyConfiguration\n\
         mode: iptables\n\
         clientConnection: {{kubeconfig: {config}}}\n\
         clusterCIDR: {POD_NETWORK}\n\
         hostnameOverride: {NODE}\n\
         bindAddress: 127.0.0.1\n\
         healthzBindAddress: 127.0.0.1:10256\n\
         metricsBindAddress: 127.0.0.1:10249\n\
         conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n\
         iptables: {{minSyncPeriod: 0s, syncPeriod: 30s}}\n",
        config = places.pki("kube-proxy.conf"),
    );
    let config = places.write("kube-proxy.yaml", &config)?;
    let mut command = places.kubernetes("kube-proxy");
    command.arg(format!("--config={}", config.display())).arg("--v=1");
    Ok(command)
}

/// dnsmasq, which answers from `hosts` and from the lines of `names`, and says of everything else that it is not there.
pub(super) fn dns(hosts: &Path, names: &Path) -> Command {
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--no-poll",
            "--bind-interfaces",
        ])
        .args([
            "--user=root",
            "--pid-file=",
            "--log-facility=-",
            "--cache-size=0",
            "--address=/#/",
        ])
        .arg(format!("--listen-address={NODE_IP}"))
        .arg(format!("--addn-hosts={}", hosts.display()))
        .arg(format!("--conf-file={}", names.display()));
    command
}

/// A call of containerd's own client.
pub(super) fn ctr(socket: &Path) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io"]);
    command
}

/// kubectl for `kubeconfig`.
pub(super) fn kubectl(program: &Path, kubeconfig: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("KUBECONFIG", kubeconfig);
    command
}

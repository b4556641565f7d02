//! Names that operator, proxy, charts and users share: ports, labels, annotations, headers. This is their one home.

/// Port on which a pod's outgoing connections arrive at its proxy.
pub const OUTBOUND_PORT: u16 = 15001;
/// Port on which a pod's incoming connections arrive at its proxy.
pub const INBOUND_PORT: u16 = 15006;
/// Health, metrics and configuration views, of proxy and operator.
pub const ADMIN_PORT: u16 = 15020;
/// The operator's gRPC port.
pub const OPERATOR_PORT: u16 = 15010;
/// User and group the proxy runs as; its own traffic is not redirected.
pub const PROXY_UID: u32 = 1337;

/// Name of the proxy's container in a pod.
pub const PROXY_CONTAINER: &str = "hauberk-proxy";
/// Start of the admin path that carries out one of the application's probes: the container's name, `/` and the
/// probe's kind follow.
pub const PROBE_PATH: &str = "/probe/";

/// Label of a pod that has a proxy.
pub const INJECTED_LABEL: &str = "hauberk.dev/injected";
/// Namespace whose policies hold for the whole mesh.
pub const ROOT_NAMESPACE: &str = "hauberk-system";
/// Trust domain unless the installation names another.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// Suffix of a Service's full name.
pub const SERVICE_SUFFIX: &str = "svc.cluster.local";

/// Name of the one Inbound resource of a proxy.
pub const INBOUND_SELF: &str = "self";
/// Name of the trust bundle of the mesh.
pub const TRUST_BUNDLE_MESH: &str = "mesh";

/// Response header with which the proxy says that an answer is its own, and why.
pub const REASON_HEADER: &str = "x-hauberk-reason";
/// Request header that tells an application how many tries came before this one.
pub const ATTEMPT_HEADER: &str = "x-hauberk-attempt";
/// Request header with the verified identity of the caller; always removed from what arrives from outside.
pub const PEER_HEADER: &str = "x-hauberk-peer";

/// Label of a namespace, label or annotation of a pod: whether pods get a proxy.
pub const INJECT_SWITCH: &str = "hauberk.dev/inject";
/// What labels and annotations of ours begin with.
pub const NAME_PREFIX: &str = "hauberk.dev/";
/// Annotation of a pod with its share of traffic, relative to the other endpoints of its Service.
pub const WEIGHT_ANNOTATION: &str = "hauberk.dev/weight";
/// Annotation of a pod: ports elsewhere that it calls without the proxy.
pub const SKIP_OUTBOUND_PORTS_ANNOTATION: &str = "hauberk.dev/skip-outbound-ports";
/// Annotation of a pod: ports of its own that bypass the proxy.
pub const SKIP_INBOUND_PORTS_ANNOTATION: &str = "hauberk.dev/skip-inbound-ports";
/// Annotation of a pod: networks that it calls without the proxy.
pub const SKIP_OUTBOUND_CIDRS_ANNOTATION: &str = "hauberk.dev/skip-outbound-cidrs";
/// Annotation of a pod: networks whose calls to it bypass the proxy.
pub const SKIP_INBOUND_CIDRS_ANNOTATION: &str = "hauberk.dev/skip-inbound-cidrs";
/// Annotation of a pod: CPU that its proxy asks for.
pub const PROXY_CPU_REQUEST_ANNOTATION: &str = "hauberk.dev/proxy-cpu-request";
/// Annotation of a pod: CPU that its proxy may use.
pub const PROXY_CPU_LIMIT_ANNOTATION: &str = "hauberk.dev/proxy-cpu-limit";
/// Annotation of a pod: memory that its proxy asks for.
pub const PROXY_MEMORY_REQUEST_ANNOTATION: &str = "hauberk.dev/proxy-memory-request";
/// Annotation of a pod: memory that its proxy may use.
pub const PROXY_MEMORY_LIMIT_ANNOTATION: &str = "hauberk.dev/proxy-memory-limit";
/// Annotation of a pod: filter of its proxy's log.
pub const LOG_LEVEL_ANNOTATION: &str = "hauberk.dev/log-level";
/// Annotation of a pod: form of its proxy's access log.
pub const ACCESS_LOG_ANNOTATION: &str = "hauberk.dev/access-log";
/// Annotation of a pod: image of its proxy.
pub const PROXY_IMAGE_ANNOTATION: &str = "hauberk.dev/proxy-image";
/// Annotation of a pod: how long its proxy accepts connections after it was told to stop.
pub const DRAIN_DELAY_ANNOTATION: &str = "hauberk.dev/drain-delay";
/// Annotation of a pod: how long open connections may go on after that.
pub const DRAIN_TIMEOUT_ANNOTATION: &str = "hauberk.dev/drain-timeout";

/// Name of the container that redirects a pod's traffic.
pub const INIT_CONTAINER: &str = "hauberk-init";
/// Volume of a pod with the token its proxy shows to the operator.
pub const TOKEN_VOLUME: &str = "hauberk-token";
/// Where the proxy finds that token.
pub const TOKEN_FOLDER: &str = "/var/run/secrets/hauberk";
/// The file of the token in that folder.
pub const TOKEN_FILE: &str = "token";
/// Volume of a pod with the roots its proxy verifies the operator against.
pub const ROOTS_VOLUME: &str = "hauberk-roots";
/// Where the proxy finds those roots.
pub const ROOTS_FOLDER: &str = "/var/run/hauberk/roots";
/// Name of the admin port of an injected proxy.
pub const ADMIN_PORT_NAME: &str = "hauberk-admin";
/// Audience of the service-account tokens that proxies show to the operator.
pub const TOKEN_AUDIENCE: &str = "hauberk";
/// How long such a token holds, in seconds; the kubelet renews it in time.
pub const TOKEN_SECONDS: i64 = 3600;
/// ConfigMap with the roots that proxies verify the operator against, in every namespace with meshed pods.
pub const TRUST_BUNDLE_CONFIG_MAP: &str = "hauberk-trust-bundle";
/// Key of the roots in that ConfigMap.
pub const TRUST_BUNDLE_KEY: &str = "roots.pem";
/// Where pods find the operator.
pub const OPERATOR_URL: &str = "https://hauberk-control-plane.hauberk-system.svc:15010";
/// Namespaces of the platform; their pods never get a proxy, and neither do those of [`ROOT_NAMESPACE`].
pub const PLATFORM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Contract revision that this build speaks.
pub const REVISION: u32 = 1;
/// The operator's port for the API server's webhooks.
pub const WEBHOOK_PORT: u16 = 15017;

/// Name of the operator's Deployment, Service, ServiceAccount, roles, webhook configurations and lease.
pub const OPERATOR: &str = "hauberk-control-plane";
/// Secret in the root namespace with the authority's roots and keys.
pub const AUTHORITY_SECRET: &str = "hauberk-authority";
/// Secret in the root namespace with an intermediate certificate of the user's own.
pub const ISSUER_SECRET: &str = "hauberk-issuer";

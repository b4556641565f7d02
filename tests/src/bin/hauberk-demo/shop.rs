//! The shop: who is in it, and the manifests that the stories apply.

use std::path::Path;
use std::time::Duration;

use tests::lab::{self, Builder, Lab, PortSpec, ServiceSpec, Workload, eventually};

use crate::tell::Teller;

/// Tells the manifest that the stories edit from those that the lab keeps for pods and services.
pub(crate) const REVIEWS: &str = "reviews-traffic";

/// What the database-like service says first.
pub(crate) const GREETING: &str = "220 stock ready";

pub(crate) fn builder() -> Builder {
    Lab::builder()
        .client("web")
        .outsider("legacy")
        .service(
            ServiceSpec::http("reviews")
                .version("v1", 1)
                .workload(Workload::new("v2", 2)),
        )
        .service(ServiceSpec::grpc("ledger").version("v1", 1))
        .service(
            ServiceSpec::new("stock")
                .port(PortSpec::greeting(5432, GREETING).named("db"))
                .version("v1", 1),
        )
        .manifest(REVIEWS, &traffic(90, 10))
}

/// The split of `reviews`, retries for what its endpoints fail with, and a breaker for each of them.
pub(crate) fn traffic(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: {{ name: reviews, namespace: shop }}
spec:
  hosts: [reviews]
  http:
    - name: split
      route:
        - destination: {{ host: reviews, subset: v1 }}
          weight: {v1}
        - destination: {{ host: reviews, subset: v2 }}
          weight: {v2}
      retries: {{ attempts: 2, retryOn: 'gateway-error,connect-failure,refused-stream,reset' }}
---
apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: {{ name: reviews, namespace: shop }}
spec:
  host: reviews
  trafficPolicy:
    circuitBreaker: {{ failureThreshold: 3, recoveryTimeout: 1s, halfOpenRequests: 1 }}
  subsets:
    - {{ name: v1, labels: {{ version: v1 }} }}
    - {{ name: v2, labels: {{ version: v2 }} }}
"
    )
}

pub(crate) const STRICT: &str = "apiVersion: hauberk.dev/v1alpha1
kind: PeerAuthentication
metadata: { name: reviews, namespace: shop }
spec:
  selector: { matchLabels: { app: reviews } }
  mtls: { mode: STRICT }
";

/// Waits until web's proxy knows every endpoint of `reviews`.
pub(crate) async fn open(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    teller.step("waiting for the shop to open");
    let known = |view: &serde_json::Value| {
        let clusters = view.as_array().into_iter().flatten();
        clusters
            .filter(|c| c["name"].as_str().is_some_and(|name| name.contains('|')))
            .filter_map(|c| c["endpoints"].as_array())
            .map(Vec::len)
            .sum::<usize>()
    };
    eventually(
        Duration::from_secs(20),
        "web's proxy knows the endpoints of reviews",
        async || {
            let reply = lab.pod("web").get(crate::story::URL).await?;
            let view: serde_json::Value = lab.proxy("web").admin("/clusters").await?.json()?;
            anyhow::ensure!(
                reply.status == 200 && known(&view) == 3,
                "{} and {} endpoints",
                reply.status,
                known(&view)
            );
            Ok(())
        },
    )
    .await
}

pub(crate) fn describe(lab: &Lab, teller: &mut Teller) {
    teller.note("the shop, each pod a network namespace of this machine:");
    for service in ["reviews", "ledger", "stock"] {
        let pods: Vec<String> = lab
            .pods_of(service)
            .iter()
            .map(|pod| format!("{pod} {}", lab.pod(pod).ip()))
            .collect();
        teller.note(&format!(
            "  {:<8} {:<22} {}",
            service,
            lab.service(service).authority(),
            pods.join(", ")
        ));
    }
    teller.note(&format!(
        "  web      a client in the mesh    {}",
        lab.pod("web").ip()
    ));
    teller.note(&format!(
        "  legacy   a pod outside the mesh  {}",
        lab.pod("legacy").ip()
    ));
}

/// Leaves the shop running until it is interrupted.
pub(crate) async fn keep(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    let manifest = lab.manifest_path(REVIEWS)?;
    let load = lab
        .load(
            "web",
            tests::load::Plan::get("http://reviews:8080/")
                .connections(2)
                .rate(20.0),
        )
        .await?;
    let pid =
        lab::outside_pid().ok_or_else(|| anyhow::anyhow!("the demo does not know its own process id"))?;
    let inside = match lab::privileges()? {
        lab::Privileges::Root => format!("nsenter -t {pid} -n"),
        lab::Privileges::Rootless => format!("nsenter -t {pid} -U -n --preserve-credentials"),
    };
    // The lab's files are in a file system that only its processes see, and go with them.
    let outside = |path: &Path| format!("/proc/{pid}/root{}", path.display());
    let web = lab.pod("web").ip();
    let operator = lab.operator().pod().ip();
    let status = std::env::current_exe()?.with_file_name("hauberk-control-plane");
    for line in [
        String::new(),
        "The shop goes on; `web` calls reviews 20 times a second. Ctrl-C ends it.".to_owned(),
        format!("edit     {}", outside(&manifest)),
        format!(
            "watch    {inside} {} status --admin {operator}:15020",
            status.display()
        ),
        format!("         {inside} curl -s http://{web}:15020/clusters   (or /config, /metrics, /health)"),
        format!("logs     {}", outside(&lab.dir().join("logs"))),
    ] {
        teller.note(&line);
    }
    let mut seen = 0;
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let report = load.so_far();
        let versions: Vec<String> = report
            .versions()
            .iter()
            .map(|(v, n)| format!("{v} {n}"))
            .collect();
        if report.total() > seen {
            seen = report.total();
            teller.step(&format!(
                "{seen} calls, {} failed: {}",
                report.errors(),
                versions.join(", ")
            ));
        }
    }
    teller.note("ending the shop");
    Ok(())
}

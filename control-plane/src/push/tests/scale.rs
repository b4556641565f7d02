//! What a change costs does not grow with the mesh: counted, not timed.

use crate::state::testing::objects;

use super::*;

/// Services, each of which two proxies use: as many as that, and one that all use.
struct Wide {
    hub: HubHandle,
    world: Arc<World>,
    metrics: Metrics,
    proxies: Vec<Proxied>,
    compiled: Arc<AtomicU64>,
}

fn service(number: usize) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s{number}, namespace: n{number}}},
          spec: {{clusterIP: 10.0.{}.{}, selector: {{app: s{number}}}, ports: [{{name: http, port: 80}}]}}}}",
        number / 250,
        number % 250 + 1
    )
}

fn slice(number: usize, last: u8) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
          metadata: {{name: s{number}, namespace: n{number}, labels: {{kubernetes.io/service-name: s{number}}}}},
          ports: [{{name: http, port: 8080}}], endpoints: [{{addresses: [10.1.0.{last}]}}]}}"
    )
}

fn steering(number: usize, rule: &str) -> String {
    format!(
        "{{apiVersion: hauberk.dev/v1alpha1, kind: VirtualService, metadata: {{name: s{number}, namespace: n{number}}},
          spec: {{hosts: [s{number}], http: [{rule}]}}}}"
    )
}

const TO_ALL: &str = "{timeout: 1s, route: [{destination: {host: s0}}]}";
const TO_LABELLED: &str = "{match: [{sourceLabels: {app: s1}}], route: [{destination: {host: s0}}]}";

fn pod(number: usize) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, spec: {{containers: []}}, status: {{podIP: 10.2.{}.{}}},
          metadata: {{name: p, namespace: n{number}, labels: {{app: s{number}}}}}}}",
        number / 250,
        number % 250 + 1
    )
}

fn of(number: usize, kind: Kind) -> ResourceName {
    ResourceName::new(kind, format!("s{number}.n{number}.svc.cluster.local:80"))
}

impl Wide {
    /// A mesh of `size` Services, each with a proxy in a namespace and with labels of its own.
    async fn new(size: usize) -> Self {
        let all: String = (0..size)
            .map(|n| [service(n), slice(n, 1), pod(n)].join("\n---\n") + "\n---\n")
            .collect();
        let world = World::default()
            .apply(objects(&all).into_iter().map(Change::Set))
            .0;
        let compiled = Arc::new(AtomicU64::new(0));
        let count = compiled.clone();
        let compiler = Compiler {
            compile: Box::new(move |world, proxy, name| {
                count.fetch_add(1, Ordering::Relaxed);
                compile::compile(world, proxy, name)
            }),
            ..Compiler::of_world()
        };
        let metrics = Metrics::new();
        let (hub, running) = Hub::new(compiler, world.clone(), bundle(&[]), metrics.push.clone());
        tokio::spawn(running.run());
        let mut wide = Self {
            hub,
            world,
            metrics,
            proxies: Vec::new(),
            compiled,
        };
        for number in 0..size {
            let mut proxy = wide.join(number).await;
            let used = [0, number, (number + 1) % size];
            let kinds = [Kind::Route, Kind::Cluster, Kind::Endpoints];
            proxy
                .subscribe(used.iter().flat_map(|n| kinds.map(|kind| of(*n, kind))))
                .await;
            proxy.waiting_names();
            wide.proxies.push(proxy);
        }
        wide
    }

    async fn join(&self, number: usize) -> Proxied {
        let joining = Joining {
            namespace: format!("n{number}"),
            pod: "p".to_owned(),
            service_account: "sa".to_owned(),
            proxy_version: "0.1.0".to_owned(),
            revision: 1,
        };
        let outbox = self.hub.outbox();
        let id = self.hub.join(joining, outbox.clone()).await.unwrap();
        Proxied {
            hub: self.hub.clone(),
            id,
            stream: OutboxStream(outbox),
        }
    }

    /// Makes a change; gives how much was compiled for it and how many proxies were sent something.
    async fn change(&mut self, yaml: &str) -> (u64, usize) {
        let before = self.compiled.load(Ordering::Relaxed);
        let (world, touched) = self.world.apply(objects(yaml).into_iter().map(Change::Set));
        self.world = world.clone();
        self.hub.world_changed(world, touched).await;
        settle().await;
        let sent = self
            .proxies
            .iter_mut()
            .filter_map(|p| (p.waiting_names() > 0).then_some(()))
            .count();
        (self.compiled.load(Ordering::Relaxed) - before, sent)
    }
}

impl Proxied {
    fn waiting_names(&mut self) -> usize {
        let Some(message) = self.stream.next().now_or_never() else {
            return 0;
        };
        let Message::Update(Update(resources)) = message.unwrap().unwrap() else {
            panic!("not an update")
        };
        resources.len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_one_service_compiles_what_is_made_of_it_once_however_large_the_mesh_is() {
    for size in [10, 200] {
        let mut mesh = Wide::new(size).await;
        let first = mesh.compiled.load(Ordering::Relaxed);
        assert_eq!(
            first,
            3 * size as u64,
            "each name once, however many proxies use it"
        );
        assert_eq!(
            mesh.change(&slice(5, 2)).await,
            (1, 2),
            "the endpoints, and those who use them"
        );
        assert_eq!(mesh.change(&slice(0, 2)).await, (1, size), "once also for all");
        let (compiled, sent) = mesh
            .change(&steering(5, "{timeout: 1s, route: [{destination: {host: s5}}]}"))
            .await;
        assert_eq!(
            (compiled, sent),
            (2, 2),
            "the route, and the cluster that might have changed"
        );
        assert_eq!(mesh.change(&service(5)).await, (0, 0), "nothing is different");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_split_when_a_rule_tells_proxies_apart_and_joined_when_none_does() {
    let mut mesh = Wide::new(10).await;
    let entries = mesh.metrics.push.entries.get();
    mesh.change(&steering(0, TO_ALL)).await;
    assert_eq!(mesh.metrics.push.entries.get(), entries);
    let (_, sent) = mesh.change(&steering(0, TO_LABELLED)).await;
    assert_eq!(sent, 10, "one gets the rule, the others no longer the one before");
    assert_eq!(
        mesh.metrics.push.entries.get(),
        entries + 9,
        "each has labels of its own"
    );
    let rules = async |mesh: &Wide, number: usize| {
        let detail = mesh.hub.proxy(&format!("n{number}"), "p").await.unwrap();
        let name = of(0, Kind::Route).to_string();
        let route = detail.resources.into_iter().find(|r| r.resource == name).unwrap();
        route.content.matches("HttpRule {").count()
    };
    assert_eq!((rules(&mesh, 1).await, rules(&mesh, 2).await), (1, 0));
    let (_, sent) = mesh.change(&steering(0, TO_ALL)).await;
    assert_eq!(sent, 10);
    assert_eq!(mesh.metrics.push.entries.get(), entries);
    assert_eq!((rules(&mesh, 1).await, rules(&mesh, 2).await), (1, 1));
    for proxy in &mesh.proxies {
        mesh.hub.leave(proxy.id).await;
    }
    assert_eq!(mesh.hub.view().await.unwrap().proxies.len(), 0);
    assert_eq!(mesh.metrics.push.entries.get(), 0, "what nobody uses is not kept");
}

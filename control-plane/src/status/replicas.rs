//! The other replicas of the operator, and what they last said of their proxies. Their addresses are those of the
//! operator's own Service; each is asked by itself and in bounded time, so a dead one holds up nobody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Local, Status};
use crate::admin;
use crate::authority::SERVICE_ACCOUNT;
use crate::state::{ServiceName, World};

/// Between two rounds …
const EVERY: Duration = Duration::from_secs(2);
/// … and at least so many times what the round before took, so that asking stays cheap …
const PAUSE: u32 = 20;
/// … but no longer than this: a replica that is gone takes its time and costs nothing.
const AT_MOST: Duration = Duration::from_secs(5);
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// For so long the last answer of a replica that has become silent counts: one lost answer is not to change every object.
const KEPT: Duration = Duration::from_secs(10);
/// Name of the admin server's port in the operator's Service.
const PORT: &str = "admin";

/// What the other replicas say.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// One of each that has answered.
    pub(super) statuses: Vec<Arc<Status>>,
    /// The addresses of those that have not.
    pub(super) silent: Vec<String>,
    /// Whether everybody has been asked once.
    pub(super) complete: bool,
}

/// The admin addresses of the other replicas, and whether each serves proxies: one that is about to start has none, and
/// so may be silent.
fn others(world: &World, own_pod: &str) -> BTreeMap<SocketAddr, bool> {
    let service = ServiceName::new(api::names::ROOT_NAMESPACE, SERVICE_ACCOUNT);
    let mut found = BTreeMap::new();
    for slice in world.slices_of(&service) {
        let named = slice.ports.iter().find(|(name, _)| name == PORT);
        let port = named.map_or(api::names::ADMIN_PORT, |(_, port)| *port);
        for entry in &slice.entries {
            let own = entry.pod.as_ref().is_some_and(|pod| pod.name == own_pod);
            if !own {
                found.insert(
                    SocketAddr::new(entry.address, port),
                    entry.ready || entry.terminating,
                );
            }
        }
    }
    found
}

/// Asks the others again and again; ends when nobody reads the answers any more.
pub(super) async fn ask(local: Local, own_pod: String, answers: watch::Sender<Answers>) {
    let mut last: BTreeMap<SocketAddr, (Instant, Arc<Status>)> = BTreeMap::new();
    loop {
        let start = Instant::now();
        let others = others(&local.world(), &own_pod);
        last.retain(|address, _| others.contains_key(address));
        let mut round = JoinSet::new();
        for address in others.keys().copied() {
            round.spawn(async move { (address, timeout(ANSWER, admin::ask_status(address)).await) });
        }
        while let Some(done) = round.join_next().await {
            match done {
                Ok((address, Ok(Ok(mut status)))) => {
                    // Only what is said of objects is kept: proxies are many.
                    status.proxies.clear();
                    last.insert(address, (Instant::now(), Arc::new(status)));
                }
                Ok((address, Ok(Err(error)))) => {
                    tracing::debug!(%address, error = format!("{error:#}"), "another replica gave no status");
                }
                Ok((address, Err(_))) => tracing::debug!(%address, "another replica has not answered"),
                Err(error) => tracing::error!(%error, "asking another replica crashed"),
            }
        }
        let now = Instant::now();
        last.retain(|_, (at, _)| now - *at < KEPT);
        let silent = others
            .iter()
            .filter(|(address, serves)| **serves && !last.contains_key(address));
        let next = Answers {
            silent: silent.map(|(address, _)| address.ip().to_string()).collect(),
            statuses: last.values().map(|(_, status)| status.clone()).collect(),
            complete: true,
        };
        if answers.send(next).is_err() {
            return;
        }
        sleep((start.elapsed() * PAUSE).clamp(EVERY, AT_MOST)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::world;

    #[test]
    fn the_others_are_those_of_the_operators_service_but_itself() {
        let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: hauberk-control-plane-1
  namespace: hauberk-system
  labels: {kubernetes.io/service-name: hauberk-control-plane}
addressType: IPv4
ports: [{name: grpc, port: 15010}, {name: admin, port: 15021}]
endpoints:
- {addresses: [10.1.0.1], targetRef: {kind: Pod, name: cp-a, namespace: hauberk-system}}
- {addresses: [10.1.0.2], targetRef: {kind: Pod, name: cp-b, namespace: hauberk-system}}
- {addresses: [10.1.0.3], conditions: {ready: false}, targetRef: {kind: Pod, name: cp-c, namespace: hauberk-system}}
- {addresses: [10.1.0.4], conditions: {ready: false, terminating: true}, targetRef: {kind: Pod, name: cp-d, namespace: hauberk-system}}
";
        let found = others(&world(slice), "cp-a");
        let found: Vec<_> = found.iter().map(|(a, serves)| (a.to_string(), *serves)).collect();
        let expected = [
            ("10.1.0.2:15021".to_owned(), true),
            ("10.1.0.3:15021".to_owned(), false),
            ("10.1.0.4:15021".to_owned(), true),
        ];
        assert_eq!(found, expected);
        assert!(others(&World::default(), "cp-a").is_empty());
    }

    #[tokio::test]
    async fn who_answers_is_heard_and_who_does_not_is_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Status {
            objects: vec![crate::status::tests::object_status()],
            proxies: vec![crate::status::tests::proxy("web-0")],
            ..Status::default()
        };
        let json = axum::Json(said.clone());
        let status = axum::routing::get(move || std::future::ready(json.clone()));
        let router = axum::Router::new().route("/status", status);
        tokio::spawn(async move { axum::serve(listener, router).await });
        // Nobody listens at the second address.
        let slice = format!(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: hauberk-control-plane-1
  namespace: hauberk-system
  labels: {{kubernetes.io/service-name: hauberk-control-plane}}
addressType: IPv4
ports: [{{name: admin, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}, {{addresses: [127.0.0.2]}}]
"
        );
        let world = world(&slice);
        let bundle = api::TrustBundle {
            trust_domain: "cluster.local".to_owned(),
            roots: Vec::new(),
        };
        let metrics = crate::metrics::Metrics::new().push;
        let (hub, _hub) =
            crate::push::Hub::new(crate::push::Compiler::of_world(), world.clone(), bundle, metrics);
        let (_source, source) = watch::channel(admin::SourceReport {
            world,
            ..admin::SourceReport::default()
        });
        let (sender, mut answers) = watch::channel(Answers::default());
        let asking = tokio::spawn(ask(Local { hub, source }, "cp-a".to_owned(), sender));
        let heard = timeout(ANSWER * 3, answers.wait_for(|answers| answers.complete)).await;
        let heard = heard.unwrap().unwrap().clone();
        assert_eq!(heard.silent, ["127.0.0.2"]);
        let [status] = heard.statuses.as_slice() else {
            panic!("{heard:?}")
        };
        assert_eq!((&status.objects, status.proxies.len()), (&said.objects, 0));
        asking.abort();
    }
}

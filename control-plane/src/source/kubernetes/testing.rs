//! A scripted API server with objects, versions, pages and watches, as far as a source sees them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::kubernetes::testing::{Answer, Asked, Script, status};

pub(super) const PODS: &str = "/api/v1/pods";
pub(super) const NAMESPACES: &str = "/api/v1/namespaces";
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub(super) const OLD_SLICES: &str = "/apis/discovery.k8s.io/v1beta1/endpointslices";
pub(super) const VIRTUAL_SERVICES: &str = "/apis/hauberk.dev/v1alpha1/virtualservices";
const OTHERS: [&str; 3] = [
    "/api/v1/services",
    "/apis/hauberk.dev/v1alpha1/destinationrules",
    "/apis/hauberk.dev/v1alpha1/peerauthentications",
];

/// The server.
#[derive(Clone)]
pub(super) struct Cluster {
    state: Arc<Mutex<State>>,
    pub(super) script: Script,
}

type Instead = dyn FnMut(&Asked) -> Option<Answer> + Send;

#[derive(Default)]
struct State {
    version: u64,
    collections: BTreeMap<&'static str, Collection>,
    /// Instead of what it would answer; `None` to let it answer.
    instead: Option<Box<Instead>>,
}

#[derive(Default)]
struct Collection {
    objects: BTreeMap<(String, String), Value>,
    log: Vec<(u64, Value)>,
    watchers: Vec<mpsc::UnboundedSender<Value>>,
    /// Versions before this are gone.
    oldest: u64,
}

impl Cluster {
    /// A server with every collection, all empty.
    pub(super) fn new() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let cluster = Self {
            state,
            script: Script::new(move |_, asked| shared.lock().unwrap().answer(asked)),
        };
        for url in [PODS, NAMESPACES, SLICES, VIRTUAL_SERVICES]
            .into_iter()
            .chain(OTHERS)
        {
            cluster.install(url);
        }
        cluster
    }

    pub(super) fn install(&self, url: &'static str) {
        let mut state = self.state.lock().unwrap();
        let oldest = state.version;
        let collection = Collection {
            oldest,
            ..Collection::default()
        };
        state.collections.insert(url, collection);
    }

    pub(super) fn uninstall(&self, url: &'static str) {
        self.state.lock().unwrap().collections.remove(url);
    }

    /// Creates or replaces an object.
    pub(super) fn set(&self, url: &'static str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let collection = state.collections.get_mut(url).unwrap();
        let event = match collection.objects.insert(key(&object), object.clone()) {
            None => "ADDED",
            Some(_) => "MODIFIED",
        };
        collection.happened(version, json!({"type": event, "object": object}));
    }

    pub(super) fn remove(&self, url: &'static str, namespace: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let collection = state.collections.get_mut(url).unwrap();
        let key = (namespace.to_owned(), name.to_owned());
        let mut object = collection.objects.remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        collection.happened(version, json!({"type": "DELETED", "object": object}));
    }

    /// Ends every watch of a collection; with `forget`, no version from before is known any more.
    pub(super) fn disconnect(&self, url: &'static str, forget: bool) {
        let mut state = self.state.lock().unwrap();
        let version = state.version;
        let collection = state.collections.get_mut(url).unwrap();
        collection.watchers.clear();
        if forget {
            collection.oldest = version + 1;
            collection.log.clear();
        }
    }

    /// Sends a line to every watch of a collection.
    pub(super) fn say(&self, url: &'static str, line: &Value) {
        let state = self.state.lock().unwrap();
        for watcher in &state.collections[url].watchers {
            let _ = watcher.send(line.clone());
        }
    }

    /// From now on this comes first.
    pub(super) fn instead(&self, answer: impl FnMut(&Asked) -> Option<Answer> + Send + 'static) {
        self.state.lock().unwrap().instead = Some(Box::new(answer));
    }

    pub(super) fn as_usual(&self) {
        self.state.lock().unwrap().instead = None;
    }

    /// The queries of what was asked of a collection: lists and watches.
    pub(super) fn asked(&self, url: &str) -> (Vec<String>, Vec<String>) {
        let asked = self.script.asked().into_iter().filter(|a| a.path == url);
        asked
            .map(|a| a.query)
            .partition(|query| !query.contains("watch="))
    }
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if let Some(answer) = self.instead.as_mut().and_then(|instead| instead(asked)) {
            return answer;
        }
        let now = self.version;
        let Some(collection) = self.collections.get_mut(asked.path.as_str()) else {
            return status(
                404,
                "NotFound",
                "the server could not find the requested resource",
            );
        };
        let parameter = |name: &str| {
            let pairs = asked.query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
                .next()
        };
        if parameter("watch").is_none() {
            return collection.list(now, &parameter("limit").unwrap(), parameter("continue"));
        }
        let from: u64 = parameter("resourceVersion").unwrap().parse().unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        if from + 1 < collection.oldest {
            // As real servers do: the answer is good, and the first event is not.
            let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired",
                "message": "too old resource version"});
            sender.send(json!({"type": "ERROR", "object": gone})).unwrap();
            return Answer::Watch(lines);
        }
        for (_, event) in collection.log.iter().filter(|(version, _)| *version > from) {
            sender.send(event.clone()).unwrap();
        }
        collection.watchers.push(sender);
        Answer::Watch(lines)
    }
}

impl Collection {
    fn happened(&mut self, version: u64, event: Value) {
        self.watchers
            .retain(|watcher| watcher.send(event.clone()).is_ok());
        self.log.push((version, event));
    }

    fn list(&self, version: u64, limit: &str, from: Option<String>) -> Answer {
        let (limit, from): (usize, usize) = (limit.parse().unwrap(), from.map_or(0, |f| f.parse().unwrap()));
        let items: Vec<_> = self.objects.values().skip(from).take(limit).collect();
        let rest = self.objects.len().saturating_sub(from + limit);
        let next = if rest > 0 {
            (from + limit).to_string()
        } else {
            String::new()
        };
        let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
        Answer::Json(200, json!({"kind": "List", "metadata": metadata, "items": items}))
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

pub(super) fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

pub(super) fn pod(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "managedFields": [{"operation": "Update"}]},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"podIP": address, "phase": "Running"},
    })
}

pub(super) fn virtual_service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "generation": 3, "uid": "u"}, "spec": spec})
}

pub(super) fn slice(endpoint: Value) -> Value {
    json!({
        "metadata": {"name": "a-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}],
        "endpoints": [endpoint],
    })
}

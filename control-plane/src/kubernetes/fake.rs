//! An API server for tests that keeps objects: with versions, conflicts, server-side apply of whole fields, and reviews of
//! tokens. No sockets, so that time can be paused.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::rbac;

type Change = Box<dyn FnOnce(&mut Value) + Send>;

/// The server.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// By path.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Method and path of each request.
    asked: Vec<(Method, String)>,
    /// Answers everything with this code.
    down: Option<u16>,
    /// Namespaces that are not there (404) or that are being deleted (403).
    gone: BTreeSet<String>,
    terminating: BTreeSet<String>,
    /// What a review of a token says, by the token.
    reviews: BTreeMap<String, Value>,
    /// What each creation waits at.
    creations: Option<Arc<Barrier>>,
    /// Done once, just before the next replacement.
    before_replace: Option<Change>,
}

impl Fake {
    pub(crate) fn client(&self) -> kube::Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics while it holds this")
    }

    /// Everything asked since the last call: `GET /api/v1/…`.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut self.inner().asked);
        asked.into_iter().map(|(m, p)| format!("{m} {p}")).collect()
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.inner().objects.get(path).cloned()
    }

    /// Puts an object there behind everybody's back; its version goes up.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.inner().store(path, object);
    }

    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.object(path).expect("the object is there");
        change(&mut object);
        self.put(path, object);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.inner().objects.remove(path);
    }

    pub(crate) fn down(&self, code: Option<u16>) {
        self.inner().down = code;
    }

    pub(crate) fn namespace_gone(&self, namespace: &str) {
        self.inner().gone.insert(namespace.to_owned());
    }

    pub(crate) fn namespace_terminating(&self, namespace: &str) {
        self.inner().terminating.insert(namespace.to_owned());
    }

    pub(crate) fn namespace_back(&self, namespace: &str) {
        self.inner().gone.remove(namespace);
    }

    pub(crate) fn review(&self, token: &str, status: Value) {
        self.inner().reviews.insert(token.to_owned(), status);
    }

    /// Creations wait until so many of them are there.
    pub(crate) fn creations_meet(&self, count: usize) {
        self.inner().creations = Some(Arc::new(Barrier::new(count)));
    }

    /// Before the next replacement someone else changes the object.
    pub(crate) fn before_replace(&self, change: impl FnOnce(&mut Value) + Send + 'static) {
        self.inner().before_replace = Some(Box::new(change));
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        rbac::hold(&head.method, &path, head.uri.query().unwrap_or_default());
        let bytes = body.collect().await.expect("the client's own body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let meet = {
            let mut inner = self.inner();
            inner.asked.push((head.method.clone(), path.clone()));
            inner.creations.clone().filter(|_| head.method == Method::POST)
        };
        if let Some(meet) = meet {
            meet.wait().await;
        }
        let (code, answer) = self.inner().decide(&head.method, &path, body);
        Response::builder()
            .status(code)
            .body(Body::from(answer.to_string().into_bytes()))
            .expect("a response")
    }
}

impl Inner {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn decide(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        if let Some(code) = self.down {
            return refusal(code, "InternalError", "the server is down");
        }
        if path.ends_with("/tokenreviews") {
            let token = body["spec"]["token"].as_str().unwrap_or_default();
            let mut review = body.clone();
            review["status"] = self
                .reviews
                .get(token)
                .cloned()
                .unwrap_or_else(|| json!({"authenticated": false, "error": "[invalid bearer token]"}));
            return (201, review);
        }
        let namespace = path.split('/').nth(4).unwrap_or_default();
        let known = self.objects.get(path).cloned();
        match *method {
            Method::GET => known.map_or_else(|| refusal(404, "NotFound", "not found"), |o| (200, o)),
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return refusal(409, "AlreadyExists", "exists already");
                }
                (201, self.store(&path, body))
            }
            Method::PUT => {
                if let (Some(change), Some(mut object)) = (self.before_replace.take(), known) {
                    change(&mut object);
                    self.store(path, object);
                }
                let Some(known) = self.objects.get(path) else {
                    return refusal(404, "NotFound", "not found");
                };
                if known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                    return refusal(409, "Conflict", "the object has been modified");
                }
                (200, self.store(path, body))
            }
            Method::PATCH if self.gone.contains(namespace) => {
                refusal(404, "NotFound", &format!("namespaces {namespace:?} not found"))
            }
            Method::PATCH if self.terminating.contains(namespace) => {
                let text = format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                );
                refusal(403, "Forbidden", &text)
            }
            Method::PATCH => {
                let mut object = known.unwrap_or_else(|| json!({"metadata": {}}));
                merge(&mut object, &body);
                (200, self.store(path, object))
            }
            _ => refusal(405, "MethodNotAllowed", "not of this server"),
        }
    }
}

fn merge(object: &mut Value, applied: &Value) {
    match (object, applied) {
        (Value::Object(object), Value::Object(applied)) => {
            for (key, value) in applied {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, applied) => *object = applied.clone(),
    }
}

fn refusal(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    (code, status)
}

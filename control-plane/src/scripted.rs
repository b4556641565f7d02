//! An API server for tests: what it answers is a function of the request, and every request is kept.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kubernetes::rbac;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and path, such as `GET /api/v1/pods`; without the query.
    pub(crate) call: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

/// Every request so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    /// Those whose call begins so, taken out.
    pub(crate) fn take(&self, start: &str) -> Vec<Seen> {
        let mut all = self.0.lock().unwrap();
        let (taken, left) = all.drain(..).partition(|seen| seen.call.starts_with(start));
        *all = left;
        taken
    }

    /// The calls that begin so, left where they are.
    pub(crate) fn calls(&self, start: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let calls = all.iter().map(|seen| seen.call.clone());
        calls.filter(|call| call.starts_with(start)).collect()
    }
}

/// A client of a server that answers so: a code and a body.
pub(crate) fn client(answer: impl Fn(&Seen) -> (u16, Value) + Send + Sync + 'static) -> (Client, Log) {
    let log = Log::default();
    let (kept, answer) = (log.clone(), Arc::new(answer));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (kept, answer) = (kept.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            rbac::hold(
                &head.method,
                head.uri.path(),
                head.uri.query().unwrap_or_default(),
            );
            let bytes = body.collect_bytes().await?;
            let seen = Seen {
                call: format!("{} {}", head.method, head.uri.path()),
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
                at: Instant::now(),
            };
            let (code, body) = answer(&seen);
            kept.0.lock().unwrap().push(seen);
            let response = Response::builder()
                .status(code)
                .body(Body::from(body.to_string().into_bytes()));
            Ok::<_, kube::Error>(response.unwrap())
        }
    });
    (Client::new(service, "default"), log)
}

/// How the API server says no.
pub(crate) fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    });
    (code, body)
}

//! An API server for tests: a function from what is asked to what is answered, behind a real `kube::Client`. No sockets,
//! so that time can be paused.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::rbac;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    /// `Null` without a body.
    pub(crate) body: Value,
}

/// What comes back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A code and a body.
    Json(u16, Value),
    /// A watch: each value becomes a line, until the sender is dropped.
    Watch(mpsc::UnboundedReceiver<Value>),
    /// A code and a text, whatever it is.
    Text(u16, &'static str),
    /// Nothing ever.
    Never,
    /// The connection breaks.
    Broken,
}

type Serve = dyn FnMut(usize, &Asked) -> Answer + Send;

/// The server.
#[derive(Clone)]
pub(crate) struct Script {
    serve: Arc<Mutex<Box<Serve>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Script {
    /// A server that answers so; the function gets the number of the request, from 0, and the request.
    pub(crate) fn new(serve: impl FnMut(usize, &Asked) -> Answer + Send + 'static) -> Self {
        Self {
            serve: Arc::new(Mutex::new(Box::new(serve))),
            asked: Arc::default(),
        }
    }

    /// Everything asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// A client of it.
    pub(crate) fn client(&self) -> kube::Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move { script.answer(request).await }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(
        &self,
        request: Request<Body>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let asked = Asked {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        rbac::hold(&asked.method, &asked.path, &asked.query);
        let number = {
            let mut all = self.asked.lock().unwrap();
            all.push(asked.clone());
            all.len() - 1
        };
        let answer = (self.serve.lock().unwrap())(number, &asked);
        let whole = |code: u16, text: String| {
            let body = Full::new(Bytes::from(text)).boxed();
            Ok(Response::builder().status(code).body(body).unwrap())
        };
        match answer {
            Answer::Json(code, value) => whole(code, value.to_string()),
            Answer::Text(code, text) => whole(code, text.to_owned()),
            Answer::Watch(lines) => {
                let frames = UnboundedReceiverStream::new(lines)
                    .map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))));
                Ok(Response::new(BoxBody::new(StreamBody::new(frames))))
            }
            Answer::Never => std::future::pending().await,
            Answer::Broken => Err(std::io::Error::other("connection reset")),
        }
    }
}

/// A refusal, as the server words it.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    Answer::Json(code, body)
}

/// A server of version 1.`minor` that has EndpointSlices at these versions.
pub(crate) fn offers(minor: &str, slices: &[&str], asked: &Asked) -> Answer {
    let group = |name: &str, versions: &[&str]| {
        let versions: Vec<_> = versions
            .iter()
            .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
            .collect();
        Answer::Json(
            200,
            json!({"kind": "APIGroup", "name": name, "versions": versions}),
        )
    };
    let number: u32 = minor.trim_end_matches('+').parse().unwrap();
    match asked.path.as_str() {
        "/version" => Answer::Json(
            200,
            json!({
                "major": "1", "minor": minor, "gitVersion": "", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
            }),
        ),
        "/apis/discovery.k8s.io" if !slices.is_empty() => group("discovery.k8s.io", slices),
        "/apis/policy" if number >= 21 => group("policy", &["v1", "v1beta1"]),
        "/apis/policy" => group("policy", &["v1beta1"]),
        other => status(404, "NotFound", &format!("there is no {other}")),
    }
}

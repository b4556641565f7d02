//! What a test and a caller say to each other: calls and loads that are to be made from inside a pod.
//!
//! `hauberk-testapp caller` listens on [`CALLER_PORT`] and does as it is asked; tests on a Kubernetes cluster ask through
//! [`Cluster::caller`](crate::cluster::Cluster::caller). Plain data, JSON on the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};

use crate::client::{Call, CallError, Reply};
use crate::load::{Failure, Plan, Summary, Window};

/// Where a caller listens. A mesh must leave this port alone, or a test could not ask when the mesh is broken.
pub const CALLER_PORT: u16 = 9910;

/// A call to make: POST it to `/calls`, and an [`Answered`] comes back.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The method.
    pub method: String,
    /// Where to, such as `http://reviews.shop:8080/`.
    pub url: String,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// Speak HTTP/2 without TLS.
    #[serde(default)]
    pub http2: bool,
    /// The whole call may take this many milliseconds.
    #[serde(default = "ten_seconds")]
    pub patience_ms: u64,
}

/// What became of a call.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answered {
    /// A complete answer came.
    Answer(Answer),
    /// None came.
    Failed {
        /// Its kind.
        failure: Failure,
        /// In words.
        reason: String,
    },
}

/// An answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header fields, those of one name joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// The body, as text.
    pub body: String,
    /// From sending to the end of the body, in milliseconds.
    pub took_ms: f64,
}

/// Many calls to make: POST it to `/loads`, and a [`Started`] comes back.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The call.
    pub call: Ask,
    /// Connections at once.
    pub connections: usize,
    /// Calls a second; as many as possible when absent.
    pub rate: Option<f64>,
    /// End after this many calls.
    pub requests: Option<u64>,
    /// End after this many milliseconds.
    pub duration_ms: Option<u64>,
    /// Open a connection for every call.
    pub fresh: bool,
    /// Sum up over this many milliseconds.
    pub window_ms: u64,
}

/// A load has begun.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Started {
    /// Its number: GET `/loads/ID` tells how it stands, DELETE ends it and tells how it went.
    pub id: u64,
}

/// How a load stands.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Standing {
    /// Whether all its calls are made.
    pub ended: bool,
    /// Everything until now.
    pub summary: Summary,
    /// Window by window, those without calls too.
    pub windows: Vec<Window>,
}

fn ten_seconds() -> u64 {
    10_000
}

impl Ask {
    /// A GET of `url`.
    pub fn get(url: &str) -> Ask {
        Ask {
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: String::new(),
            http2: false,
            patience_ms: ten_seconds(),
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The call, ready to be made.
    pub fn call(self) -> Result<Call, CallError> {
        let Ask {
            method,
            url,
            headers,
            body,
            http2,
            patience_ms,
        } = self;
        let method: Method = method
            .parse()
            .map_err(|_| CallError::BadCall(format!("method: {method} is none")))?;
        let mut call = Call::new(method, &url)
            .body(body)
            .patience(Duration::from_millis(patience_ms));
        for (name, value) in &headers {
            call = call.header(name, value);
        }
        Ok(if http2 { call.http2() } else { call })
    }
}

impl Order {
    /// Such calls over one connection, one after another, until stopped.
    pub fn new(call: Ask) -> Order {
        Order {
            call,
            connections: 1,
            rate: None,
            requests: None,
            duration_ms: None,
            fresh: false,
            window_ms: 100,
        }
    }

    /// Uses this many connections at once.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Order {
        self.connections = connections;
        self
    }

    /// Starts this many calls a second.
    #[must_use]
    pub fn rate(mut self, per_second: f64) -> Order {
        self.rate = Some(per_second);
        self
    }

    /// Opens a connection for every call.
    #[must_use]
    pub fn fresh_connections(mut self) -> Order {
        self.fresh = true;
        self
    }

    /// Ends after this many calls.
    #[must_use]
    pub fn requests(mut self, requests: u64) -> Order {
        self.requests = Some(requests);
        self
    }

    /// The plan that it describes.
    pub fn plan(self) -> Result<Plan, CallError> {
        let Order {
            call,
            connections,
            rate,
            requests,
            duration_ms,
            fresh,
            window_ms,
        } = self;
        let mut plan = Plan::new(call.call()?)
            .connections(connections)
            .window(Duration::from_millis(window_ms));
        if let Some(rate) = rate {
            plan = plan.rate(rate);
        }
        if let Some(requests) = requests {
            plan = plan.requests(requests);
        }
        if let Some(millis) = duration_ms {
            plan = plan.duration(Duration::from_millis(millis));
        }
        Ok(if fresh { plan.fresh_connections() } else { plan })
    }
}

impl Answer {
    /// The value of a header field, or `""`.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(&self.body)
            .map_err(|error| anyhow::anyhow!("not the expected JSON ({error}): {}", self.body))
    }
}

impl From<Result<Reply, CallError>> for Answered {
    fn from(result: Result<Reply, CallError>) -> Answered {
        match result {
            Ok(reply) => {
                let mut headers = BTreeMap::<String, String>::new();
                for (name, value) in &reply.headers {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    let all = headers.entry(name.to_string()).or_default();
                    if !all.is_empty() {
                        all.push_str(", ");
                    }
                    all.push_str(&value);
                }
                Answered::Answer(Answer {
                    status: reply.status,
                    headers,
                    body: reply.text(),
                    took_ms: reply.took.as_secs_f64() * 1000.0,
                })
            }
            Err(error) => Answered::Failed {
                failure: Failure::from(&error),
                reason: error.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_comes_back_from_the_wire_as_it_was() {
        let order = Order::new(Ask::get("http://reviews.shop:8080/x").header("host", "other"))
            .connections(3)
            .rate(50.0)
            .fresh_connections();
        let text = serde_json::to_string(&order).unwrap();
        let back: Order = serde_json::from_str(&text).unwrap();
        assert_eq!(text, serde_json::to_string(&back).unwrap());
        assert_eq!(back.plan().unwrap().authority().unwrap(), "reviews.shop:8080");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        assert!(
            serde_json::from_str::<Ask>(r#"{"method": "GET", "url": "http://a/", "retries": 3}"#).is_err()
        );
        let ask = Ask {
            method: "G T".to_owned(),
            ..Ask::get("http://a/")
        };
        assert!(ask.call().is_err());
    }
}

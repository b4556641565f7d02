//! Copies of requests for mirrors. `outbound::http` calls [`begin`] for the few rules that have one, when the request is as
//! its endpoint will get it. A copy is sent by a task of its own and its answer is dropped, so the original neither waits for
//! it nor hears of it; a copy counts as a request of the cluster that it goes to, under that cluster's limits.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::{Fraction, Mirror};
use http::uri::Authority;
use http::{Request, header, request};
use http_body::Body as _;
use hyper::body::Incoming;
use rand::RngExt as _;
use tokio::time::Instant;

use crate::balancer::Key;
use crate::config::snapshot::Cluster;
use crate::message;
use crate::outbound::Connection;
use crate::outbound::choice::Choice;
use crate::record;
use crate::tries::{self, App, Sending, Trace};
use crate::upstream::feed::{self, Feed, Watch};
use crate::worker::Worker;

/// How long a copy may take where its rule has no timeout: nobody waits for it who could give up.
const TIME: Duration = Duration::from_secs(15);

/// The mirrors of a rule.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mirrors<'a> {
    mirrors: &'a [Mirror],
    clusters: &'a [Arc<Cluster>],
}

impl<'a> Mirrors<'a> {
    /// Mirrors with the cluster of each.
    #[must_use]
    pub fn new(mirrors: &'a [Mirror], clusters: &'a [Arc<Cluster>]) -> Self {
        Self { mirrors, clusters }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.mirrors.is_empty()
    }
}

/// Sends copies of a request to the mirrors that chance falls on. What is returned is the original, which feeds them with
/// its body.
pub fn begin(
    connection: &Connection,
    app: App,
    choice: &Choice<'_>,
    request: Request<Incoming>,
    record: &record::Request,
) -> Request<Feed> {
    let authority = choice.authority.as_ref().map(Authority::as_str);
    let shadow = authority
        .or_else(|| message::authority(&request))
        .and_then(shadow);
    let (parts, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    let Mirrors { mirrors, clusters } = choice.mirrors;
    let mut copies = Vec::new();
    for (mirror, cluster) in mirrors.iter().zip(clusters) {
        let roll = connection
            .worker
            .rng
            .borrow_mut()
            .random_range(0..Fraction::WHOLE);
        if !mirror.share.contains(roll) {
            continue;
        }
        let (watch, feed) = if has_body {
            let (copying, copied) = feed::copy(body.size_hint());
            copies.push(copying);
            (Some(copied.watch()), Feed::Copy(copied))
        } else {
            (None, Feed::Nothing)
        };
        let mut record = record.of_copy(cluster);
        if let Some(shadow) = &shadow {
            record.named(shadow.as_str());
        }
        let copy = copy_of(&parts, feed);
        let client = connection.peer.ip();
        // The mirror has a balancer of its own: a key stays at an endpoint there too.
        let key = Key::of(cluster, &copy, client, &mut *connection.worker.rng.borrow_mut());
        let outgoing = Outgoing {
            worker: Rc::clone(&connection.worker),
            cluster: Arc::clone(cluster),
            request: copy,
            hash: key.hash,
            app,
            authority: shadow.clone(),
            client: connection.peer,
            dialled: connection.dialled,
            time: choice.timeout.unwrap_or(TIME),
        };
        tokio::task::spawn_local(outgoing.unless_broken(watch, record));
    }
    Request::from_parts(parts, Feed::mirrored(body, copies))
}

/// The authority that tells a copy from its original: `shop:8080` → `shop-shadow:8080`. An address in brackets stays.
fn shadow(authority: &str) -> Option<Authority> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() || host.ends_with(']') {
        return None;
    }
    let text = match port {
        Some(port) => format!("{host}-shadow:{port}"),
        None => format!("{host}-shadow"),
    };
    Authority::try_from(text).ok()
}

/// The head as it is sent on, with a body of its own. What belongs to the application's connection is left out.
fn copy_of(parts: &request::Parts, feed: Feed) -> Request<Feed> {
    let mut copy = Request::new(feed);
    copy.method_mut().clone_from(&parts.method);
    copy.uri_mut().clone_from(&parts.uri);
    copy.headers_mut().clone_from(&parts.headers);
    // Its body comes when the original's does, whatever the mirror says.
    copy.headers_mut().remove(header::EXPECT);
    *copy.version_mut() = parts.version;
    copy
}

struct Outgoing {
    worker: Rc<Worker>,
    cluster: Arc<Cluster>,
    request: Request<Feed>,
    hash: Option<u64>,
    app: App,
    authority: Option<Authority>,
    client: std::net::SocketAddr,
    dialled: std::net::SocketAddr,
    time: Duration,
}

impl Outgoing {
    /// Sends the copy; lets go of it at once when it breaks off, for a receiver that takes nothing would hold it till its
    /// time is over.
    async fn unless_broken(self, watch: Option<Watch>, record: record::Request) {
        let Some(watch) = watch else {
            return self.send(record).await;
        };
        let broken = poll_fn(|cx| watch.poll_broken(cx));
        tokio::select! {
            biased;
            () = self.send(record) => {}
            () = broken => {}
        }
    }

    async fn send(self, mut record: record::Request) {
        let Self {
            worker,
            cluster,
            request,
            hash,
            app,
            authority,
            client,
            dialled,
            time,
        } = self;
        let deadline = Instant::now() + time;
        let sending = Sending {
            cluster: &cluster,
            retry: tries::unless_told(),
            deadline: Some(deadline),
            received: record.count_body(request.body()),
            app,
            tunnel: None,
            authority,
            client: &client,
            dialled,
            hash,
        };
        let mut trace = Trace::default();
        let answer = tries::send(&worker, request, sending, &mut trace).await;
        record.tries = trace.tries;
        record.endpoint = trace.endpoint;
        let answer = answer.map(|answer| tries::finish(&worker, answer, None, Some(deadline)));
        let mut body = message::told(answer, record).into_body();
        // To its end, so that the connection can be used again.
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_by_its_authority() {
        for (authority, expected) in [
            ("shop", Some("shop-shadow")),
            ("shop:8080", Some("shop-shadow:8080")),
            ("10.0.0.1:80", Some("10.0.0.1-shadow:80")),
            ("[fd00::1]:80", None),
            ("[fd00::1]", None),
            ("", None),
        ] {
            assert_eq!(
                shadow(authority).as_ref().map(Authority::as_str),
                expected,
                "{authority}"
            );
        }
    }
}

//! What a rule decided, as `http` carries it out: where the request goes, how often, and what changes on the way; or the
//! answer that the rule gives itself.

use std::sync::Arc;
use std::time::Duration;

use ::http::uri::{Authority, PathAndQuery};
use ::http::{HeaderMap, Request, Response, header};
use api::{Fault, HeaderChanges, Retry};
use bytes::Bytes;

use crate::config::snapshot::Cluster;
use crate::error::Error;
use crate::message;
use crate::mirror::Mirrors;
use crate::route::{self, Chosen, Decision, Facts};
use crate::tries;

/// Where a request goes, how often, and what changes on the way.
#[derive(Debug)]
pub struct Choice<'a> {
    /// Where it goes.
    pub cluster: &'a Arc<Cluster>,
    /// How often.
    pub retry: &'a Retry,
    /// For how long.
    pub timeout: Option<Duration>,
    /// What goes wrong with it on purpose.
    pub fault: Option<&'a Fault>,
    /// Who gets copies of it.
    pub mirrors: Mirrors<'a>,
    /// In whose name, if not its own.
    pub authority: Option<Authority>,
    path: Option<PathAndQuery>,
    request_headers: [Option<&'a HeaderChanges>; 2],
    response_headers: [Option<&'a HeaderChanges>; 2],
}

impl<'a> Choice<'a> {
    /// To one cluster, with nothing changed.
    #[must_use]
    pub fn only(cluster: &'a Arc<Cluster>) -> Self {
        Self {
            cluster,
            retry: tries::unless_told(),
            timeout: None,
            fault: None,
            mirrors: Mirrors::default(),
            authority: None,
            path: None,
            request_headers: [None; 2],
            response_headers: [None; 2],
        }
    }

    /// As a rule decided.
    ///
    /// # Errors
    /// The rule's own answer, when it gives one; or that of the proxy, when its new path is no path.
    pub fn of<B>(decision: &Decision<'a>, request: &Request<B>) -> Result<Self, Box<Response<Bytes>>> {
        let rule = decision.rule;
        let (forward, share, cluster) = match decision.chosen {
            Chosen::Forward {
                forward,
                share,
                cluster,
            } => (forward, share, cluster),
            Chosen::Redirect(_) | Chosen::Direct(_) => {
                let mut answer = own_answer(decision, request);
                rule.response_headers.apply(answer.headers_mut());
                return Err(Box::new(answer));
            }
        };
        let rewrite = forward.rewrite.as_ref();
        let uri = request.uri();
        let path = rewrite
            .map_or(Ok(None), |r| {
                route::rewritten(r, decision.matched, uri.path(), uri.query())
            })
            .map_err(|error| Box::new(refusal(&error, request)))?;
        Ok(Self {
            cluster,
            retry: &forward.retry,
            timeout: forward.timeout,
            fault: forward.fault.as_ref(),
            mirrors: Mirrors::new(&forward.mirrors, decision.mirror_clusters()),
            authority: rewrite.and_then(|r| r.authority.clone()),
            path,
            request_headers: [Some(&rule.request_headers), Some(&share.request_headers)],
            response_headers: [Some(&rule.response_headers), Some(&share.response_headers)],
        })
    }

    /// Changes headers and path of the request.
    pub fn change_request<B>(&self, request: &mut Request<B>) {
        for changes in self.request_headers.into_iter().flatten() {
            changes.apply(request.headers_mut());
        }
        if let Some(path) = &self.path {
            let mut parts = request.uri().clone().into_parts();
            parts.path_and_query = Some(path.clone());
            if let Ok(uri) = ::http::Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }

    /// Changes headers of the response.
    pub fn change_response(&self, headers: &mut HeaderMap) {
        for changes in self.response_headers.into_iter().flatten() {
            changes.apply(headers);
        }
    }
}

fn refusal<B>(error: &Error, request: &Request<B>) -> Response<Bytes> {
    message::error_response(error, message::is_grpc(request.headers()))
}

fn own_answer<B>(decision: &Decision<'_>, request: &Request<B>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    match decision.chosen {
        Chosen::Redirect(redirect) => {
            let location = match route::location(redirect, decision.matched, &Facts::of(request)) {
                Ok(location) => location,
                Err(error) => return refusal(&error, request),
            };
            *response.status_mut() = redirect.status;
            response.headers_mut().insert(header::LOCATION, location);
        }
        Chosen::Direct(direct) => {
            *response.status_mut() = direct.status;
            response.body_mut().clone_from(&direct.body);
        }
        Chosen::Forward { .. } => {}
    }
    response
}

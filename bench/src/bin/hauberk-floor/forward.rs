//! One request: the head made fit for the upstream's protocol, the body passed on frame by frame.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use anyhow::anyhow;
use http::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response, Version};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use crate::Protocol;
use crate::pool::{Pool, Sender};

/// Runs hyper's own tasks on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Sends `request` upstream.
pub(crate) async fn forward(
    mut request: Request<Incoming>,
    pool: Rc<Pool>,
) -> anyhow::Result<Response<Returning>> {
    match pool.upstream() {
        Protocol::Http2 => for_http2(&mut request)?,
        _ => for_http1(&mut request)?,
    }
    let mut sender = pool.take().await?;
    let response = match &mut sender {
        Sender::Http1(sender) => sender.send_request(request).await?,
        Sender::Http2(sender) => sender.send_request(request).await?,
    };
    Ok(response.map(|body| Returning {
        body,
        lent: Some((sender, pool)),
    }))
}

fn for_http1(request: &mut Request<Incoming>) -> anyhow::Result<()> {
    if request.version() == Version::HTTP_2 {
        let authority = request
            .uri()
            .authority()
            .ok_or_else(|| anyhow!("a request without :authority"))?;
        let host = HeaderValue::from_str(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
        *request.version_mut() = Version::HTTP_11;
    }
    let path = path_of(request.uri());
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().remove(CONNECTION);
    Ok(())
}

fn for_http2(request: &mut Request<Incoming>) -> anyhow::Result<()> {
    if request.version() != Version::HTTP_2 {
        let host = request
            .headers_mut()
            .remove(HOST)
            .ok_or_else(|| anyhow!("a request without Host"))?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(Authority::try_from(host.as_bytes())?);
        parts.path_and_query = Some(path_of(request.uri()));
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(CONNECTION);
        request.headers_mut().remove(TRANSFER_ENCODING);
    }
    Ok(())
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// A response's body. When it has ended, the connection it came on goes back.
#[derive(Debug)]
pub(crate) struct Returning {
    body: Incoming,
    lent: Option<(Sender, Rc<Pool>)>,
}

impl Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some((sender, pool)) = self.lent.take() {
            pool.give_back(sender);
        }
    }
}

//! The response body that carries its request's record: it counts the bytes, reads the gRPC status from the trailers, and
//! finishes the record when the body ends. Dropped before its end, it records *aborted*.

use std::fmt::Display;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Request;
use crate::message::GRPC_STATUS;

/// A body with the record of its request.
#[derive(Debug)]
pub struct RecordedBody<B> {
    body: B,
    /// Until the body has ended.
    record: Option<Request>,
}

impl<B: Body<Data = Bytes>> RecordedBody<B> {
    /// Carries `record` to the end of `body`; a body that has nothing to send ends it now.
    pub fn new(body: B, record: Request) -> Self {
        let mut this = Self {
            body,
            record: Some(record),
        };
        this.finish_at_end();
        this
    }

    /// As [`RecordedBody::new`], with the gRPC status of a response whose headers are its trailers.
    pub fn of_response(headers: &HeaderMap, body: B, mut record: Request) -> Self {
        record.grpc_status = grpc_status(headers).or(record.grpc_status);
        Self::new(body, record)
    }

    /// hyper does not ask a body for more once it says that it has ended, so that must finish the record too.
    fn finish_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(record) = self.record.take()
        {
            record.finish();
        }
    }
}

impl<B> Body for RecordedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let polled = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(record) = &mut this.record {
                    if let Some(data) = frame.data_ref() {
                        record.bytes_sent += data.len() as u64;
                    } else if let Some(trailers) = frame.trailers_ref() {
                        record.grpc_status = grpc_status(trailers).or(record.grpc_status);
                    }
                }
                this.finish_at_end();
            }
            Some(Err(error)) => {
                if let Some(record) = this.record.take() {
                    record.broken(error.to_string());
                }
            }
            None => {
                if let Some(record) = this.record.take() {
                    record.finish();
                }
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.trim().parse().ok()
}

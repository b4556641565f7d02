//! `Config.Stream` on the wire. The generated server would encode every message from its parts, for every proxy anew; this
//! one writes resources as `push` has encoded them, once for all. Otherwise it is the generated one.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use api::limits::MAX_MESSAGE_SIZE;
use api::proto;
use prost::Message as _;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::Server;
use crate::push::{Message, OutboxStream};

/// The only call.
const STREAM: &str = "/hauberk.v1.Config/Stream";
/// What a stream's buffers hold at first. They grow with what goes through; most of the time nothing does, and every
/// proxy has two.
const BUFFER: usize = 1 << 10;
/// Messages that wait are put together up to so much.
const TOGETHER: usize = 32 << 10;

/// The service of the configuration stream.
#[derive(Debug, Clone)]
pub(super) struct ConfigService(pub(super) Server);

impl NamedService for ConfigService {
    const NAME: &'static str = "hauberk.v1.Config";
}

type Answering<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<http::Request<Body>> for ConfigService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != STREAM {
                return Ok(Status::unimplemented("there is no such call").into_http());
            }
            let mut grpc = Grpc::new(Wire)
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl StreamingService<proto::ProxyMessage> for ConfigService {
    type Response = Message;
    type ResponseStream = OutboxStream;
    type Future = Answering<Response<OutboxStream>, Status>;

    fn call(&mut self, request: Request<Streaming<proto::ProxyMessage>>) -> Self::Future {
        let server = self.0.clone();
        Box::pin(async move { server.stream(request).await })
    }
}

/// How messages are read and written.
#[derive(Debug, Clone, Copy, Default)]
struct Wire;

impl Codec for Wire {
    type Encode = Message;
    type Decode = proto::ProxyMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Wire {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, message: Message, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, TOGETHER)
    }
}

impl Decoder for Wire {
    type Item = proto::ProxyMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<proto::ProxyMessage>, Status> {
        proto::ProxyMessage::decode(buffer)
            .map(Some)
            // As the generated server has it.
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, TOGETHER)
    }
}

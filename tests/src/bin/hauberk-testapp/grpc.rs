//! The gRPC echo: one request or many, one answer or many, and errors with trailers on demand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tests::grpc::{ERROR_TRAILER, EchoRequest, EchoResponse, Method};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::{ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::accept::{Body, Connection};
use crate::http::{obey, plain};
use crate::state::State;

type Answer<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;
type Answers = ReceiverStream<Result<EchoResponse, Status>>;

/// Answers waiting to be sent in one stream: few, so that a slow client is felt.
const WAITING: usize = 4;

/// The echo, for one call.
#[derive(Clone, Debug)]
struct Echo(Arc<State>);

/// Answers one call, after the failure mode had its way.
pub(crate) async fn answer(
    state: Arc<State>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    state.request();
    let Some(method) = Method::from_path(request.uri().path()) else {
        return finish(Status::unimplemented("the echo has no such method").into_http::<tonic::body::Body>());
    };
    if request
        .headers()
        .get("content-type")
        .is_none_or(|kind| !kind.as_bytes().starts_with(b"application/grpc"))
    {
        return plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "expected content-type application/grpc\n",
        );
    }
    if let Some(status) = obey(&state, &connection).await {
        let status = Status::new(code_of(status), format!("told to fail as {status}"));
        return finish(status.into_http::<tonic::body::Body>());
    }
    let codec: ProstCodec<EchoResponse, EchoRequest> = ProstCodec::default();
    let mut grpc = Grpc::new(codec);
    let echo = Echo(state);
    finish(match method {
        Method::Unary => grpc.unary(echo, request).await,
        Method::ServerStream => grpc.server_streaming(echo, request).await,
        Method::ClientStream => grpc.client_streaming(echo, request).await,
        Method::Bidi => grpc.streaming(echo, request).await,
    })
}

fn finish(response: Response<tonic::body::Body>) -> Response<Body> {
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// The gRPC code that stands for an HTTP status, as gRPC's own mapping has it.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

impl Echo {
    fn respond(&self, text: String, index: u32) -> EchoResponse {
        EchoResponse {
            text,
            index,
            version: self.0.version.clone(),
            pod: self.0.pod.clone(),
        }
    }
}

/// The failure that a request asks for, with the trailer that every failure of the echo carries.
fn asked_failure(request: &EchoRequest) -> Result<(), Status> {
    if request.fail_code == 0 {
        return Ok(());
    }
    let mut trailers = MetadataMap::new();
    trailers.insert(ERROR_TRAILER, MetadataValue::from_static("asked for"));
    let message = format!("failed as asked: {}", request.text);
    Err(Status::with_metadata(
        Code::from_i32(request.fail_code),
        message,
        trailers,
    ))
}

async fn pause(request: &EchoRequest) {
    if request.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(u64::from(request.delay_ms))).await;
    }
}

impl UnaryService<EchoRequest> for Echo {
    type Response = EchoResponse;
    type Future = Answer<EchoResponse>;

    fn call(&mut self, request: tonic::Request<EchoRequest>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let request = request.into_inner();
            pause(&request).await;
            asked_failure(&request)?;
            Ok(tonic::Response::new(echo.respond(request.text, 0)))
        })
    }
}

impl ServerStreamingService<EchoRequest> for Echo {
    type Response = EchoResponse;
    type ResponseStream = Answers;
    type Future = Answer<Answers>;

    fn call(&mut self, request: tonic::Request<EchoRequest>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let request = request.into_inner();
            let (answers, stream) = mpsc::channel(WAITING);
            tokio::spawn(async move {
                for index in 0..request.count {
                    pause(&request).await;
                    if answers
                        .send(Ok(echo.respond(request.text.clone(), index)))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                if let Err(status) = asked_failure(&request) {
                    let _client_is_gone = answers.send(Err(status)).await;
                }
            });
            Ok(tonic::Response::new(ReceiverStream::new(stream)))
        })
    }
}

impl ClientStreamingService<EchoRequest> for Echo {
    type Response = EchoResponse;
    type Future = Answer<EchoResponse>;

    fn call(&mut self, request: tonic::Request<Streaming<EchoRequest>>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut requests = request.into_inner();
            let mut texts = Vec::new();
            while let Some(request) = requests.next().await {
                let request = request?;
                pause(&request).await;
                asked_failure(&request)?;
                texts.push(request.text);
            }
            let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
            Ok(tonic::Response::new(echo.respond(texts.join(" "), count)))
        })
    }
}

impl StreamingService<EchoRequest> for Echo {
    type Response = EchoResponse;
    type ResponseStream = Answers;
    type Future = Answer<Answers>;

    fn call(&mut self, request: tonic::Request<Streaming<EchoRequest>>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut requests = request.into_inner();
            let (answers, stream) = mpsc::channel(WAITING);
            tokio::spawn(async move {
                let mut index = 0;
                while let Some(request) = requests.next().await {
                    let answer = match request {
                        Ok(request) => {
                            pause(&request).await;
                            asked_failure(&request).map(|()| echo.respond(request.text, index))
                        }
                        Err(broken) => Err(broken),
                    };
                    let last = answer.is_err();
                    if answers.send(answer).await.is_err() || last {
                        return;
                    }
                    index += 1;
                }
            });
            Ok(tonic::Response::new(ReceiverStream::new(stream)))
        })
    }
}

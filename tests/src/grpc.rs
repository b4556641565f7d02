//! The gRPC echo: its messages, its paths and its client. The server is in `hauberk-testapp`.
//!
//! Written by hand rather than generated: two messages and five methods need no compiler.

use std::net::SocketAddr;

use http::uri::PathAndQuery;
use prost::Message;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// The service's name on the wire.
pub const SERVICE: &str = "hauberk.test.v1.Echo";
/// Trailer that every error of the echo carries.
pub const ERROR_TRAILER: &str = "x-echo-error";

/// What to echo, and how.
#[derive(Clone, PartialEq, Message)]
pub struct EchoRequest {
    /// Comes back.
    #[prost(string, tag = "1")]
    pub text: String,
    /// How many answers a streaming method gives.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// A pause before each answer.
    #[prost(uint32, tag = "3")]
    pub delay_ms: u32,
    /// Ends with this gRPC status after the answers, when it is not 0.
    #[prost(int32, tag = "4")]
    pub fail_code: i32,
}

/// An echo.
#[derive(Clone, PartialEq, Message)]
pub struct EchoResponse {
    /// The text that was sent; for a client stream all texts, joined with a space.
    #[prost(string, tag = "1")]
    pub text: String,
    /// The number of this answer in its stream, from 0.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// The version that answered.
    #[prost(string, tag = "3")]
    pub version: String,
    /// The pod that answered.
    #[prost(string, tag = "4")]
    pub pod: String,
}

/// The echo's methods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// One request, one answer.
    Unary,
    /// One request, `count` answers.
    ServerStream,
    /// Many requests, one answer when they end.
    ClientStream,
    /// An answer to each request as it comes.
    Bidi,
}

impl Method {
    /// All methods.
    pub const ALL: [Method; 4] = [
        Method::Unary,
        Method::ServerStream,
        Method::ClientStream,
        Method::Bidi,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Method::Unary => "Unary",
            Method::ServerStream => "ServerStream",
            Method::ClientStream => "ClientStream",
            Method::Bidi => "Bidi",
        }
    }

    /// The method that a request's path names.
    pub fn from_path(path: &str) -> Option<Method> {
        let name = path.strip_prefix('/')?.strip_prefix(SERVICE)?.strip_prefix('/')?;
        Method::ALL.into_iter().find(|method| method.name() == name)
    }

    fn path(self) -> PathAndQuery {
        let path = format!("/{SERVICE}/{}", self.name());
        PathAndQuery::try_from(path).expect("service and method names are valid in paths")
    }
}

/// A client of the echo on one connection.
#[derive(Clone, Debug)]
pub struct EchoClient {
    grpc: Grpc<Channel>,
}

impl EchoClient {
    /// Connects to `address` from the caller's network namespace, asking for `authority` (`name:port`).
    pub async fn connect(
        address: SocketAddr,
        authority: &str,
    ) -> Result<EchoClient, tonic::transport::Error> {
        let origin = http::Uri::try_from(format!("http://{authority}")).unwrap_or_default();
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .origin(origin)
            .connect()
            .await?;
        Ok(EchoClient {
            grpc: Grpc::new(channel),
        })
    }

    /// One request, one answer.
    pub async fn unary(
        &mut self,
        request: impl IntoRequest<EchoRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        self.ready().await?;
        let codec: ProstCodec<EchoRequest, EchoResponse> = ProstCodec::default();
        self.grpc
            .unary(request.into_request(), Method::Unary.path(), codec)
            .await
    }

    /// One request, many answers.
    pub async fn server_stream(
        &mut self,
        request: impl IntoRequest<EchoRequest>,
    ) -> Result<Response<Streaming<EchoResponse>>, Status> {
        self.ready().await?;
        let codec: ProstCodec<EchoRequest, EchoResponse> = ProstCodec::default();
        self.grpc
            .server_streaming(request.into_request(), Method::ServerStream.path(), codec)
            .await
    }

    /// Many requests, one answer.
    pub async fn client_stream(
        &mut self,
        requests: impl Stream<Item = EchoRequest> + Send + 'static,
    ) -> Result<Response<EchoResponse>, Status> {
        self.ready().await?;
        let codec: ProstCodec<EchoRequest, EchoResponse> = ProstCodec::default();
        self.grpc
            .client_streaming(Request::new(requests), Method::ClientStream.path(), codec)
            .await
    }

    /// Many requests, an answer to each.
    pub async fn bidi(
        &mut self,
        requests: impl Stream<Item = EchoRequest> + Send + 'static,
    ) -> Result<Response<Streaming<EchoResponse>>, Status> {
        self.ready().await?;
        let codec: ProstCodec<EchoRequest, EchoResponse> = ProstCodec::default();
        self.grpc
            .streaming(Request::new(requests), Method::Bidi.path(), codec)
            .await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unavailable(format!("no connection to the echo: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_path() {
        for method in Method::ALL {
            assert_eq!(Method::from_path(method.path().as_str()), Some(method));
        }
        for path in [
            "",
            "/",
            "/hauberk.test.v1.Echo",
            "/hauberk.test.v1.Echo/Nothing",
            "/other/Unary",
        ] {
            assert_eq!(Method::from_path(path), None, "{path}");
        }
    }
}

//! A gRPC probe: `grpc.health.v1.Health/Check` in the clear; only SERVING passes.

use ::http::HeaderValue;
use ::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::{Dialler, authority, whole};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn check(
    dialler: &Dialler,
    host: &str,
    port: u16,
    service: &str,
    agent: &HeaderValue,
) -> Result<String, String> {
    // Dialled before, so that a refusal is told as what it is.
    let stream = dialler.dial(host, port).await?;
    let mut stream = Some(TokioIo::new(stream));
    let endpoint = Endpoint::from_shared(format!("http://{}", authority(host, port)))
        .and_then(|endpoint| endpoint.user_agent(agent.clone()))
        .map_err(|e| whole(&e))?;
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("the connection was closed")) }
    });
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|e| whole(&e))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| whole(&e))?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let checked = client
        .unary(Request::new(request), PathAndQuery::from_static(CHECK), codec)
        .await;
    match checked {
        Ok(response) => verdict(response.into_inner().status),
        Err(status) => Err(match status.code() {
            Code::Unimplemented => "it does not implement grpc.health.v1.Health".to_owned(),
            Code::NotFound => format!("it does not know the service {service:?}"),
            code => format!("{code:?}: {}", status.message()),
        }),
    }
}

fn verdict(status: i32) -> Result<String, String> {
    match status {
        SERVING => Ok("SERVING".to_owned()),
        0 => Err("UNKNOWN".to_owned()),
        2 => Err("NOT_SERVING".to_owned()),
        3 => Err("SERVICE_UNKNOWN".to_owned()),
        other => Err(format!("status {other}, which is not SERVING")),
    }
}

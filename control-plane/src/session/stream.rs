//! One proxy's configuration stream, from its greeting to its end. Reads what the proxy says and hands it to the hub;
//! what goes out comes from the outbox. A proxy that breaks the protocol gets a status that names the field, and ends
//! only itself.

use std::sync::Arc;
use std::time::Duration;

use api::proto;
use tonic::{Status, Streaming};

use super::decode::{Hello, Message, decode};
use crate::authority::Claims;
use crate::metrics::SessionMetrics;
use crate::push::{HubHandle, Joining, Outbox};

/// Time to say hello.
const HELLO: Duration = Duration::from_secs(10);

/// What a proxy is told that has been here for long.
const MOVE: &str = "connect again, perhaps to another replica; go on with what you have";

/// Runs a session for at most `age`; `outbox` is what the proxy reads from.
pub(crate) async fn run(
    claims: Claims,
    mut messages: Streaming<proto::ProxyMessage>,
    outbox: Arc<Outbox>,
    hub: HubHandle,
    metrics: SessionMetrics,
    age: Duration,
) {
    let mut old = std::pin::pin!(tokio::time::sleep(age));
    let hello = match greeting(&mut messages, &claims).await {
        Ok(hello) => hello,
        Err(status) => {
            metrics.protocol_errors.inc();
            tracing::warn!(
                namespace = %claims.namespace, pod = %claims.pod, reason = status.message(),
                "refused a proxy"
            );
            outbox.end(Err(status));
            return;
        }
    };
    outbox.welcome(proto::Welcome {
        operator_version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: hello.revision,
    });
    let joining = Joining {
        namespace: claims.namespace,
        pod: claims.pod,
        service_account: claims.service_account,
        proxy_version: hello.proxy_version,
        revision: hello.revision,
    };
    let (namespace, pod) = (joining.namespace.clone(), joining.pod.clone());
    let Some(session) = hub.join(joining, outbox.clone()).await else {
        outbox.end(Err(Status::unavailable("the operator is shutting down")));
        return;
    };
    tracing::info!(%namespace, %pod, session, "a proxy connected");
    let end = loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = outbox.ended() => break Ok(()),
            () = &mut old => break Err(Status::unavailable(MOVE)),
        };
        match message {
            Ok(Some(message)) => match decode(message) {
                Ok(Message::Request(request)) => hub.request(session, request).await,
                Ok(Message::Hello(_)) => {
                    break Err(invalid("hello: was said already; once a stream is enough"));
                }
                Err(wrong) => break Err(invalid(&wrong.to_string())),
            },
            // The proxy has nothing more to say: it is leaving.
            Ok(None) => break Ok(()),
            Err(status) => break Err(unreadable(status)),
        }
    };
    hub.leave(session).await;
    match &end {
        Ok(()) => tracing::info!(%namespace, %pod, session, "a proxy left"),
        Err(status) if status.code() == tonic::Code::InvalidArgument => {
            metrics.protocol_errors.inc();
            tracing::warn!(%namespace, %pod, session, reason = %status, "a proxy sent what it must not; its stream was ended");
        }
        // A pod that ends takes its connection with it; that is how proxies leave.
        Err(status) => tracing::info!(%namespace, %pod, session, reason = %status, "a proxy's stream ended"),
    }
    outbox.end(end);
}

/// What could not be read as a message is the sender's fault; anything else (the connection broke) stays as it is.
fn unreadable(status: Status) -> Status {
    match status.code() {
        tonic::Code::Internal => invalid(status.message()),
        _ => status,
    }
}

fn invalid(text: &str) -> Status {
    Status::invalid_argument(text)
}

async fn greeting(messages: &mut Streaming<proto::ProxyMessage>, claims: &Claims) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO, messages.message())
        .await
        .map_err(|_| Status::deadline_exceeded(format!("hello: did not come within {} s", HELLO.as_secs())))?
        .map_err(unreadable)?;
    let first = first.ok_or_else(|| invalid("hello: the stream ended before it"))?;
    let hello = match decode(first).map_err(|wrong| invalid(&wrong.to_string()))? {
        Message::Hello(hello) => hello,
        Message::Request(_) => return Err(invalid("hello: must be the first message of a stream")),
    };
    for (field, said, proven) in [
        ("namespace", &hello.namespace, &claims.namespace),
        ("pod", &hello.pod, &claims.pod),
    ] {
        if said != proven {
            return Err(Status::permission_denied(format!(
                "hello.{field}: says {said:?}, but the token is for {proven:?}"
            )));
        }
    }
    Ok(hello)
}

//! `/ws`: a WebSocket that echoes text and binary, answers pings, and closes when asked to.

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tests::websocket::{Frame, Kind, Side, accept_key};

use crate::accept::Body;
use crate::http::{empty, plain};

/// Accepts the upgrade, or says what is missing.
pub(crate) fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let wants = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok());
    let (true, Some(key)) = (wants, key) else {
        return plain(
            StatusCode::UPGRADE_REQUIRED,
            "/ws: expected upgrade: websocket and a sec-websocket-key\n",
        );
    };
    let accept = HeaderValue::from_str(&accept_key(key)).expect("base64 is valid in a header");
    tokio::spawn(echo(hyper::upgrade::on(&mut request)));
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(upgrade: OnUpgrade) {
    let outcome = async {
        let mut io = TokioIo::new(upgrade.await?);
        while let Some(frame) = Frame::read(&mut io).await? {
            let answer = match frame.kind {
                Kind::Text | Kind::Binary | Kind::Close => frame,
                Kind::Ping => Frame::new(Kind::Pong, frame.payload),
                Kind::Pong => continue,
            };
            answer.write(&mut io, Side::Server).await?;
            if answer.kind == Kind::Close {
                break;
            }
        }
        anyhow::Ok(())
    };
    if let Err(error) = outcome.await {
        eprintln!("WebSocket: {error:#}");
    }
}

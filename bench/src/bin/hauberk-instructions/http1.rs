//! HTTP/1.1 as cheap as can be, in bytes made beforehand: what is counted is to be the proxy's share.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const REQUEST: &[u8] =
    b"GET /reviews/7?full=yes HTTP/1.1\r\nhost: reviews.shop\r\nuser-agent: curl/8.5.0\r\naccept: */*\r\n\
    x-request-id: 7b1f0c5e-4a86-4a6b-9a57-0f6f9f3b8d11\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nserver: reviews\r\ndate: Tue, 24 Nov 2026 06:00:00 GMT\r\n\
    content-type: application/json\r\ncontent-length: 49\r\n\r\n{\"id\":7,\"stars\":5,\"text\":\"as good as it can be\"}\n";
/// How a response ends, and nothing else in it.
const LAST: &[u8] = b"}\n";

/// Sends one request and reads its response.
pub(crate) async fn ask(stream: &mut TcpStream) {
    stream.write_all(REQUEST).await.expect("the connection is open");
    read_until(stream, LAST).await.expect("the connection is open");
}

/// Answers every request.
pub(crate) async fn answer(mut stream: TcpStream) {
    while read_until(&mut stream, b"\r\n\r\n").await.is_some() {
        stream.write_all(RESPONSE).await.expect("the connection is open");
    }
}

/// Reads until the bytes end with `end`; `None` when the connection did.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Option<()> {
    let mut buffer = [0; 2048];
    let mut length = 0;
    loop {
        match stream.read(&mut buffer[length..]).await {
            Ok(0) | Err(_) => return None,
            Ok(more) => length += more,
        }
        if buffer[..length].ends_with(end) {
            return Some(());
        }
    }
}

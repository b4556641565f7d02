//! A proxy's own word: one request to its admin address, over plain HTTP/1.1, as its probes and views are asked.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Settings;
use crate::settings::Format;

/// Time for all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the proxy at `address` says would become of the request.
pub(super) async fn ask(settings: &Settings, address: &str) -> anyhow::Result<String> {
    settings.target()?;
    let answer = timeout(PATIENCE, exchange(address, &path(settings))).await;
    let answer = answer.map_err(|_| anyhow::anyhow!("does not answer within {PATIENCE:?}"));
    let what = || format!("the admin server of a proxy at {address}");
    let (status, body) = answer.and_then(|answer| answer).with_context(what)?;
    anyhow::ensure!(status == 200, "{} answers {status}: {}", what(), body.trim_end());
    Ok(body)
}

fn path(settings: &Settings) -> String {
    let mut path = format!(
        "/explain?url={}&method={}",
        encoded(&settings.url.to_string()),
        encoded(settings.method.as_str())
    );
    for (name, value) in &settings.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        path += &format!("&header={}", encoded(&format!("{name}: {value}")));
    }
    if let Some(address) = settings.address {
        path += &format!("&address={}", encoded(&address.to_string()));
    }
    match settings.output {
        Format::Text => path,
        Format::Json => path + "&format=json",
    }
}

/// As forms encode it; what is not plain is written as bytes.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // A string takes everything.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

async fn exchange(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    read(&String::from_utf8_lossy(&answer)).context("what it answers is not HTTP/1.1")
}

/// Status and body of an answer that ends with its connection.
fn read(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_header_holds_is_encoded() {
        assert_eq!(
            encoded("http://a:1/b?c=d&e f"),
            "http%3A%2F%2Fa%3A1%2Fb%3Fc%3Dd%26e%20f"
        );
        assert_eq!(encoded("é~"), "%C3%A9~");
    }

    #[test]
    fn answers_are_read_and_other_bytes_are_not() {
        assert_eq!(
            read("HTTP/1.1 404 Not Found\r\na: b\r\n\r\nno\r\n\r\n"),
            Some((404, "no\r\n\r\n".to_owned()))
        );
        for wrong in [
            "",
            "220 ready\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}

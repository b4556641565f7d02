//! HTTP as bytes: what no well-behaved client sends, and answers as they stand on the wire.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// How a conversation ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// The other side closed, or reset.
    Closed,
    /// It still stood at the deadline.
    Open,
}

/// What came back for bytes that were sent.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
}

impl Heard {
    /// The status of the first HTTP/1 answer.
    pub(crate) fn status(&self) -> Option<u16> {
        let text = self.text();
        let rest = text.strip_prefix("HTTP/1.")?;
        rest.get(2..5)?.parse().ok()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Sends `bytes` and listens until the other side closes, at most `patience` long.
pub(crate) async fn say(stream: &mut TcpStream, bytes: &[u8], patience: Duration) -> Heard {
    let end = Instant::now() + patience;
    // A peer that closes early makes this fail; what it said before still counts.
    let _early_close = timeout_at(end, stream.write_all(bytes)).await;
    listen(stream, end).await
}

/// Listens until the other side closes, at most until `end`.
pub(crate) async fn listen(stream: &mut TcpStream, end: Instant) -> Heard {
    let mut heard = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match timeout_at(end, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => {
                return Heard {
                    bytes: heard,
                    end: End::Closed,
                };
            }
            Ok(Ok(length)) => heard.extend(&buffer[..length]),
            Err(_elapsed) => {
                return Heard {
                    bytes: heard,
                    end: End::Open,
                };
            }
        }
    }
}

/// Writes `piece` again and again until nothing more is taken for `still`, the connection breaks, or `most` bytes are
/// written. Returns how many were.
pub(crate) async fn pour(stream: &mut TcpStream, piece: &[u8], most: usize, still: Duration) -> usize {
    let mut written = 0;
    while written < most {
        match timeout(still, stream.write(piece)).await {
            Ok(Ok(length)) if length > 0 => written += length,
            Ok(_) | Err(_) => break,
        }
    }
    written
}

/// One HTTP/1 answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and header fields, as they came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Trailer fields, as they came.
    pub(crate) trailers: String,
}

impl Answer {
    /// The value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads one answer. `to_head`: it answers a HEAD request, so that no body follows.
pub(crate) async fn answer(from: &mut (impl AsyncBufRead + Unpin), to_head: bool) -> anyhow::Result<Answer> {
    let head = head(from).await?;
    let status = head
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("not a status line: {head}"))?;
    let mut answer = Answer {
        status,
        head,
        body: Vec::new(),
        trailers: String::new(),
    };
    if to_head || status < 200 || status == 204 || status == 304 {
        return Ok(answer);
    }
    if answer
        .header("transfer-encoding")
        .is_some_and(|coding| coding == "chunked")
    {
        while let Some(chunk) = chunk(from).await? {
            answer.body.extend(chunk);
        }
        answer.trailers = fields(from).await?;
    } else if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().context("content-length")?];
        from.read_exact(&mut answer.body).await?;
    } else {
        from.read_to_end(&mut answer.body).await?;
    }
    Ok(answer)
}

/// Reads up to the empty line that ends a head.
pub(crate) async fn head(from: &mut (impl AsyncBufRead + Unpin)) -> anyhow::Result<String> {
    let head = fields(from).await?;
    if head.is_empty() {
        bail!("the connection closed before an answer");
    }
    Ok(head)
}

async fn fields(from: &mut (impl AsyncBufRead + Unpin)) -> anyhow::Result<String> {
    let mut text = String::new();
    loop {
        let start = text.len();
        let length = from.read_line(&mut text).await?;
        if length == 0 || text[start..].trim_end().is_empty() {
            text.truncate(start);
            return Ok(text);
        }
    }
}

/// Reads one chunk of a chunked body; nothing at its end.
pub(crate) async fn chunk(from: &mut (impl AsyncBufRead + Unpin)) -> anyhow::Result<Option<Vec<u8>>> {
    let mut size = String::new();
    from.read_line(&mut size).await?;
    let length = usize::from_str_radix(size.trim(), 16).with_context(|| format!("chunk size {size:?}"))?;
    if length == 0 {
        return Ok(None);
    }
    let mut chunk = vec![0; length + 2];
    from.read_exact(&mut chunk).await?;
    chunk.truncate(length);
    Ok(Some(chunk))
}

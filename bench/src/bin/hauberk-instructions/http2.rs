//! HTTP/2 as cheap as can be: frames made beforehand, with header blocks that neither read nor write the dynamic table.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const BODY: &[u8] = b"{\"id\":7,\"stars\":5,\"text\":\"as good as it can be\"}\n";

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames are small");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A header that is not to be remembered, with its name written out (RFC 7541, 6.2.2).
fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        out.push(u8::try_from(text.len()).expect("under 127"));
        out.extend_from_slice(text.as_bytes());
    }
}

fn request_head() -> Vec<u8> {
    // `:method: GET`, `:scheme: http`, as the static table has them.
    let mut block = vec![0x82, 0x86];
    literal(&mut block, ":path", "/reviews/7?full=yes");
    literal(&mut block, ":authority", "reviews.shop");
    literal(&mut block, "user-agent", "curl/8.5.0");
    literal(&mut block, "accept", "*/*");
    literal(&mut block, "x-request-id", "7b1f0c5e-4a86-4a6b-9a57-0f6f9f3b8d11");
    block
}

fn response_head() -> Vec<u8> {
    // `:status: 200`
    let mut block = vec![0x88];
    literal(&mut block, "server", "reviews");
    literal(&mut block, "date", "Tue, 24 Nov 2026 06:00:00 GMT");
    literal(&mut block, "content-type", "application/json");
    block
}

/// One side of a connection.
struct Side {
    stream: TcpStream,
    received: Vec<u8>,
    /// To be written before the next read.
    outgoing: Vec<u8>,
}

/// What is worth knowing of a frame.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        let mut outgoing = Vec::new();
        frame(&mut outgoing, SETTINGS, 0, 0, &[]);
        // As much as may be: nothing here gives windows back.
        frame(&mut outgoing, WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
        Self {
            stream,
            received: Vec::new(),
            outgoing,
        }
    }

    /// Reads once and calls `each` for every whole frame with where answers go; `None` when the connection has ended.
    async fn turn(&mut self, mut each: impl FnMut(&Frame, &mut Vec<u8>)) -> Option<()> {
        if !self.outgoing.is_empty() {
            self.stream.write_all(&self.outgoing).await.ok()?;
            self.outgoing.clear();
        }
        if self.stream.read_buf(&mut self.received).await.ok()? == 0 {
            return None;
        }
        let mut rest = &self.received[..];
        while let [a, b, c, kind, flags, s0, s1, s2, s3, payload @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some(payload) = payload.get(..length) else {
                break;
            };
            let head = Frame {
                kind: *kind,
                flags: *flags,
                stream: u32::from_be_bytes([*s0, *s1, *s2, *s3]),
            };
            match head.kind {
                SETTINGS if head.flags & ACK == 0 => frame(&mut self.outgoing, SETTINGS, ACK, 0, &[]),
                PING if head.flags & ACK == 0 => frame(&mut self.outgoing, PING, ACK, 0, payload),
                RST_STREAM | GOAWAY => panic!("refused: frame {kind}, {payload:?}"),
                _ => each(&head, &mut self.outgoing),
            }
            rest = &rest[HEAD + length..];
        }
        let consumed = self.received.len() - rest.len();
        self.received.drain(..consumed);
        Some(())
    }
}

/// Sends `rounds` times as many requests as `at_once`, and waits for the answers of each round.
pub(crate) async fn ask(stream: TcpStream, rounds: u32, at_once: u32) {
    let head = request_head();
    let mut side = Side::new(stream);
    side.outgoing.splice(0..0, PREFACE.iter().copied());
    let mut next = 1;
    for _ in 0..rounds {
        for _ in 0..at_once {
            frame(&mut side.outgoing, HEADERS, END_STREAM | END_HEADERS, next, &head);
            next += 2;
        }
        let mut answered = 0;
        while answered < at_once {
            let count = |frame: &Frame, _: &mut Vec<u8>| {
                answered += u32::from(matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0);
            };
            side.turn(count).await.expect("the connection is open");
        }
    }
}

/// Answers every request.
pub(crate) async fn answer(mut stream: TcpStream) {
    let mut preface = [0; PREFACE.len()];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let head = response_head();
    let mut side = Side::new(stream);
    let respond = |received: &Frame, outgoing: &mut Vec<u8>| {
        if received.kind == HEADERS {
            frame(outgoing, HEADERS, END_HEADERS, received.stream, &head);
            frame(outgoing, DATA, END_STREAM, received.stream, BODY);
        }
    };
    while side.turn(respond).await.is_some() {}
}

//! The part of WebSocket (RFC 6455) that the lab needs: handshake keys and single frames, both directions.
//!
//! Used by the test application's echo and by tests that talk to it. It knows no extensions and no fragmentation.

use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest payload accepted.
const MAX_PAYLOAD: u64 = 16 * 1024 * 1024;
/// The suffix that RFC 6455, section 1.3, gives the handshake key.
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A kind of frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// The end, with a code and a reason.
    Close,
    /// Asks for a pong with the same payload.
    Ping,
    /// Answers a ping.
    Pong,
}

/// One unfragmented frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Its kind.
    pub kind: Kind,
    /// Its payload, unmasked.
    pub payload: Vec<u8>,
}

/// Who writes a frame: clients mask, servers do not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The side that opened the connection.
    Client,
    /// The side that accepted it.
    Server,
}

/// `sec-websocket-accept` for a `sec-websocket-key`.
pub fn accept_key(key: &str) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(SUFFIX.as_bytes());
    STANDARD.encode(context.finish().as_ref())
}

impl Kind {
    fn opcode(self) -> u8 {
        match self {
            Kind::Text => 0x1,
            Kind::Binary => 0x2,
            Kind::Close => 0x8,
            Kind::Ping => 0x9,
            Kind::Pong => 0xa,
        }
    }

    fn from_opcode(opcode: u8) -> anyhow::Result<Kind> {
        match opcode {
            0x1 => Ok(Kind::Text),
            0x2 => Ok(Kind::Binary),
            0x8 => Ok(Kind::Close),
            0x9 => Ok(Kind::Ping),
            0xa => Ok(Kind::Pong),
            0x0 => bail!("fragmented WebSocket messages are not supported"),
            other => bail!("opcode {other:#x} is not a WebSocket frame"),
        }
    }
}

impl Frame {
    /// A frame of `kind` with `payload`.
    pub fn new(kind: Kind, payload: impl Into<Vec<u8>>) -> Frame {
        Frame {
            kind,
            payload: payload.into(),
        }
    }

    /// Reads the next frame, or nothing when the peer closed the connection between two frames.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Option<Frame>> {
        let mut head = [0; 2];
        if from.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..]).await?;
        let [first, second] = head;
        if first & 0x70 != 0 {
            bail!("a WebSocket frame uses extensions that nobody agreed on");
        }
        if first & 0x80 == 0 {
            bail!("fragmented WebSocket messages are not supported");
        }
        let kind = Kind::from_opcode(first & 0x0f)?;
        let length = match second & 0x7f {
            126 => u64::from(from.read_u16().await?),
            127 => from.read_u64().await?,
            short => u64::from(short),
        };
        if length > MAX_PAYLOAD {
            bail!("a WebSocket frame of {length} bytes is longer than {MAX_PAYLOAD}");
        }
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            from.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; usize::try_from(length)?];
        from.read_exact(&mut payload).await?;
        apply(mask, &mut payload);
        Ok(Some(Frame { kind, payload }))
    }

    /// Writes this frame as `side` must.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin), side: Side) -> std::io::Result<()> {
        to.write_all(&self.encode(side)).await?;
        to.flush().await
    }

    fn encode(&self, side: Side) -> Vec<u8> {
        let masked = if side == Side::Client { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | self.kind.opcode()];
        match (
            u8::try_from(self.payload.len()),
            u16::try_from(self.payload.len()),
        ) {
            (Ok(length @ 0..=125), _) => bytes.push(masked | length),
            (_, Ok(length)) => {
                bytes.push(masked | 126);
                bytes.extend(length.to_be_bytes());
            }
            (_, Err(_)) => {
                bytes.push(masked | 127);
                bytes.extend((self.payload.len() as u64).to_be_bytes());
            }
        }
        let start = bytes.len();
        match side {
            Side::Server => bytes.extend(&self.payload),
            Side::Client => {
                let mask: [u8; 4] = rand::random();
                bytes.extend(mask);
                bytes.extend(&self.payload);
                apply(mask, &mut bytes[start + 4..]);
            }
        }
        bytes
    }
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_accept_key_is_the_one_in_the_standards_example() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    fn read(bytes: &[u8]) -> anyhow::Result<Option<Frame>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Frame::read(&mut &bytes[..]))
    }

    #[test]
    fn frames_of_every_length_class_survive_a_round_trip_from_both_sides() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            for side in [Side::Client, Side::Server] {
                for kind in [Kind::Text, Kind::Binary, Kind::Close, Kind::Ping, Kind::Pong] {
                    let frame = Frame::new(kind, vec![b'x'; length]);
                    assert_eq!(read(&frame.encode(side)).unwrap(), Some(frame));
                }
            }
        }
    }

    #[test]
    fn fragments_extensions_and_giants_are_refused() {
        for (bytes, reason) in [
            (&[0x01, 0x00][..], "fragmented"),
            (&[0x80, 0x00], "fragmented"),
            (&[0xc1, 0x00], "extensions"),
            (&[0x83, 0x00], "opcode"),
            (&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0], "longer than"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{bytes:?}: {error}");
        }
        assert!(read(&[0x81]).is_err(), "half a head is an error");
        assert_eq!(read(&[]).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _any_outcome = read(&bytes);
        }
    }
}

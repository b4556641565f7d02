//! One step of a TLS connection: what rustls says after it has dealt with what arrived, and what becomes of it.
//!
//! Used by [`super::TlsStream`] for each step. It reads from no stream and writes to none.

use bytes::BytesMut;
use rustls::{
    Error,
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus},
};
use tokio::io::ReadBuf;

/// What one record of ours carries. With all that TLS adds it stays below 8 KiB: copies from there on are made with an
/// instruction that some processors are slow at, which costs more than the additional records do.
const PIECE: usize = 8000;

/// What is wanted of the connection once it has dealt with what arrived.
pub(super) enum Job<'a> {
    Read,
    Encrypt(&'a [u8], &'a mut [u8]),
    Close(&'a mut [u8]),
}

/// Where what comes out of the connection goes.
pub(super) struct Out<'a, 'b> {
    pub(super) reader: Option<&'a mut ReadBuf<'b>>,
    pub(super) plain: &'a mut BytesMut,
    pub(super) unsent: &'a mut BytesMut,
    pub(super) peer_closed: &'a mut bool,
}

impl Out<'_, '_> {
    /// Takes what came out of one step: how much of what was received is done with, and once there is nothing left to
    /// deal with, how much the job has written.
    pub(super) fn take<Data>(
        &mut self,
        status: UnbufferedStatus<'_, '_, Data>,
        job: &mut Job<'_>,
    ) -> Result<(usize, Option<usize>), Error> {
        let UnbufferedStatus { mut discard, state } = status;
        let done = match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    self.read(record.payload);
                }
                None
            }
            ConnectionState::EncodeTlsData(mut data) => {
                append(self.unsent, |room| match data.encode(room) {
                    Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        Err(required_size)
                    }
                    done => Ok(done),
                })
                .map_err(|error| Error::General(error.to_string()))?;
                None
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                None
            }
            ConnectionState::PeerClosed => {
                *self.peer_closed = true;
                None
            }
            ConnectionState::Closed | ConnectionState::BlockedHandshake => Some(0),
            ConnectionState::WriteTraffic(mut traffic) => Some(match job {
                Job::Read => 0,
                Job::Encrypt(bytes, room) => {
                    let mut written = 0;
                    for piece in bytes.chunks(PIECE) {
                        written += traffic
                            .encrypt(piece, &mut room[written..])
                            .map_err(not_encrypted)?;
                    }
                    written
                }
                Job::Close(room) => traffic.queue_close_notify(room).map_err(not_encrypted)?,
            }),
            // Early data is neither offered nor taken.
            other => {
                return Err(Error::General(format!(
                    "TLS is in an unexpected state: {other:?}"
                )));
            }
        };
        Ok((discard, done))
    }

    /// After a failure: takes what the peer is to be told, if anything.
    pub(super) fn alert<Data>(&mut self, status: UnbufferedStatus<'_, '_, Data>) {
        if matches!(status.state, Ok(ConnectionState::EncodeTlsData(_))) {
            let _ = self.take(status, &mut Job::Read);
        }
    }

    fn read(&mut self, payload: &[u8]) {
        let mut rest = payload;
        // What was left over before goes first.
        if let (Some(reader), true) = (&mut self.reader, self.plain.is_empty()) {
            let (now, later) = rest.split_at(rest.len().min(reader.remaining()));
            reader.put_slice(now);
            rest = later;
        }
        self.plain.extend_from_slice(rest);
    }
}

/// Appends what `encode` writes, in as much room as it wants.
fn append<E>(
    unsent: &mut BytesMut,
    mut encode: impl FnMut(&mut [u8]) -> Result<Result<usize, E>, usize>,
) -> Result<(), E> {
    let start = unsent.len();
    let mut room = 1024;
    loop {
        unsent.resize(start + room, 0);
        match encode(&mut unsent[start..]) {
            Ok(Ok(written)) => {
                unsent.truncate(start + written);
                return Ok(());
            }
            Ok(Err(error)) => {
                unsent.truncate(start);
                return Err(error);
            }
            Err(wanted) => room = wanted,
        }
    }
}

fn not_encrypted(error: EncryptError) -> Error {
    match error {
        EncryptError::EncryptExhausted => Error::EncryptError,
        EncryptError::InsufficientSize(_) => Error::General(error.to_string()),
    }
}

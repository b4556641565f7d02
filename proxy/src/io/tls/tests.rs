//! Both ends are ours here; that they understand rustls as others use it is shown where `tokio_rustls` is on one end, here
//! and in the tests of identity and of both sides.

use super::*;
use crate::io::{
    calls,
    tests::{tls_configs, tls_pair},
};
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index.wrapping_mul(17) ^ (index >> 7) ^ seed) as u8)
        .collect()
}

/// Both ends of a TLS connection over pipes that hold `pipe` bytes, which is more than the tickets after a handshake.
async fn ends(pipe: usize) -> (Box<TlsStream>, Box<TlsStream>) {
    let (near, far) = duplex(pipe);
    pair(near.into(), far.into()).await
}

async fn pair(near: Io, far: Io) -> (Box<TlsStream>, Box<TlsStream>) {
    let (client, server) = handshakes(near, far);
    tokio::join!(client, server)
}

fn handshakes(
    near: Io,
    far: Io,
) -> (
    impl Future<Output = Box<TlsStream>>,
    impl Future<Output = Box<TlsStream>>,
) {
    let (server, client) = tls_configs();
    let name = ServerName::try_from("server.test").unwrap();
    let client = TlsStream::connect(client, name, Vec::new(), near);
    let server = TlsStream::accept(server, far);
    (async { client.await.unwrap() }, async { server.await.unwrap() })
}

/// Writes and closes, and meanwhile reads `at_once` bytes at a time.
async fn talk(side: Box<TlsStream>, bytes: &[u8], pieces: &[usize], at_once: usize) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(side);
    let write = async {
        let (mut rest, mut pieces) = (bytes, pieces.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
            writer.write_all(now).await.unwrap();
            rest = later;
        }
        writer.shutdown().await.unwrap();
    };
    let read = async {
        let (mut all, mut piece) = (Vec::new(), vec![0; at_once]);
        loop {
            match reader.read(&mut piece).await.unwrap() {
                0 => return all,
                read => all.extend_from_slice(&piece[..read]),
            }
        }
    };
    tokio::join!(write, read).1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn all_bytes_arrive_however_pipes_pieces_and_reads_are_cut(
        up in 0usize..300_000,
        down in 0usize..300_000,
        pieces in proptest::collection::vec(1usize..150_000, 1..6),
        pipe in prop_oneof![1 => 64usize..512, 9 => 512usize..200_000],
        at_once in 1usize..100_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (near, far) = duplex(pipe);
            let (client, server) = handshakes(near.into(), far.into());
            let (up, down) = (pattern(up, 1), pattern(down, 2));
            // The server's end begins with tickets, which may be more than the pipe holds before the client reads.
            let (got_down, got_up) = tokio::join!(
                async { talk(client.await, &up, &pieces, at_once).await },
                async { talk(server.await, &down, &pieces, at_once.div_ceil(7)).await },
            );
            assert!(got_up == up && got_down == down);
        });
    }

    #[test]
    fn bytes_that_were_changed_on_the_way_are_an_error_and_nothing_panics_after_it(at in 0usize..322, flip in 1u8..) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let ((near, mut wire), (mut back, far)) = (duplex(1 << 20), duplex(1 << 20));
            let (mut client, mut server) = tokio::select! {
                ends = pair(near.into(), far.into()) => ends,
                _ = tokio::io::copy_bidirectional(&mut wire, &mut back) => unreachable!("neither end closes"),
            };
            client.write_all(&pattern(300, 1)).await.unwrap();
            let mut record = vec![0; 322];
            wire.read_exact(&mut record).await.unwrap();
            record[at] ^= flip;
            back.write_all(&record).await.unwrap();
            back.shutdown().await.unwrap();
            let mut read = Vec::new();
            // A record that seems longer ends early; all else is noticed by itself.
            assert!(server.read_to_end(&mut read).await.is_err());
            // The version in a record's header means nothing and is not protected.
            assert!(read.is_empty() || read == pattern(300, 1), "bytes that are not those sent");
            assert!(server.read(&mut [0; 8]).await.is_err());
            let _ = server.write_all(b"more").await;
            let _ = server.flush().await;
            let _ = server.shutdown().await;
        });
    }
}

#[tokio::test]
async fn much_goes_in_few_calls() {
    let (client, server) = duplex(2 << 20);
    let (mut client, mut server) = tls_pair(client, server).await;
    let bytes = pattern(1 << 20, 1);
    calls::WRITES.set(0);
    let send = async {
        for piece in bytes.chunks(64 << 10) {
            client.write_all(piece).await.unwrap();
            client.flush().await.unwrap();
        }
    };
    let mut read = vec![0; 64 << 10];
    let mut left = bytes.len();
    let receive = async {
        tokio::task::yield_now().await;
        calls::READS.set(0);
        while left > 0 {
            left -= server.read(&mut read).await.unwrap();
        }
    };
    tokio::join!(send, receive);
    // Counted above TLS and below it. Pieces of 64 KiB are 16; what TLS adds to them makes one read more.
    let (writes, reads) = (calls::WRITES.get(), calls::READS.get());
    assert!(writes <= 2 * 16, "{writes} writes for 1 MiB");
    assert!(reads <= 2 * 18, "{reads} reads for 1 MiB");
}

#[tokio::test]
async fn a_head_and_its_body_are_one_record() {
    let (mut client, mut server) = ends(1 << 16).await;
    let slices = [
        IoSlice::new(b"a head, "),
        IoSlice::new(b""),
        IoSlice::new(b"a body"),
    ];
    let written =
        std::future::poll_fn(|context| Pin::new(&mut *client).poll_write_vectored(context, &slices)).await;
    assert_eq!(written.unwrap(), 14);
    let mut read = [0; 64];
    // One read returns what one record held.
    assert_eq!(server.read(&mut read).await.unwrap(), 14);
    assert_eq!(&read[..14], b"a head, a body");
}

#[tokio::test]
async fn a_connection_that_waits_holds_no_buffer() {
    let (mut client, mut server) = ends(1 << 20).await;
    for (from, to) in [(0, 1), (1, 0)] {
        let sides = [&mut client, &mut server];
        sides[from].write_all(&pattern(200_000, 3)).await.unwrap();
        sides[from].flush().await.unwrap();
        sides[to].read_exact(&mut vec![0; 200_000]).await.unwrap();
    }
    for side in [&client, &server] {
        let kept = side.received.capacity() + side.plain.capacity() + side.unsent.capacity();
        assert_eq!(kept, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_stream_below_does_not_take_is_kept_once_and_no_more() {
    let (mut client, _server) = ends(4096).await;
    let bytes = pattern(1 << 20, 1);
    let mut written = 0;
    let all = async {
        while written < bytes.len() {
            written += client.write(&bytes[written..]).await.unwrap();
        }
    };
    let stuck = tokio::time::timeout(Duration::from_secs(1), all).await;
    assert!(stuck.is_err(), "nobody reads");
    assert!(written <= PLAIN + 4096, "{written}");
}

#[tokio::test]
async fn a_peer_that_changes_its_keys_is_understood_and_answered() {
    let (near, far) = duplex(1 << 16);
    let (server, client) = tls_configs();
    let name = ServerName::try_from("server.test").unwrap();
    let connector = tokio_rustls::TlsConnector::from(client);
    let (theirs, ours) = tokio::join!(
        connector.connect(name, near),
        TlsStream::accept(server, far.into())
    );
    let (mut theirs, mut ours) = (theirs.unwrap(), ours.unwrap());
    for round in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        exchange(&mut theirs, &mut ours, round).await;
        exchange(&mut ours, &mut theirs, round).await;
    }
}

async fn exchange(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin), seed: usize) {
    let bytes = pattern(5000, seed);
    from.write_all(&bytes).await.unwrap();
    from.flush().await.unwrap();
    let mut read = vec![0; bytes.len()];
    to.read_exact(&mut read).await.unwrap();
    assert!(read == bytes);
}

#[tokio::test]
async fn one_side_may_say_that_it_is_done_while_the_other_goes_on() {
    let (mut client, mut server) = ends(1 << 16).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    exchange(&mut server, &mut client, 1).await;
    assert!(client.write(b"more").await.is_err(), "it said that it was done");
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_handshake_that_the_peer_leaves_is_an_error() {
    let (server, _) = tls_configs();
    let (near, far): (DuplexStream, _) = duplex(64);
    drop(near);
    let error = TlsStream::accept(server, far.into()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

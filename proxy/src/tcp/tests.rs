//! Relays between ends in memory with paused time, and between sockets where the kernel is what matters.

mod sockets;

use super::*;
use crate::io::tests::tls_pair;
use proptest::prelude::*;
use std::sync::{Arc, atomic::Ordering};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const SECOND: Duration = Duration::from_secs(1);

fn idle(limit: Duration) -> RelayOptions {
    RelayOptions {
        idle_timeout: Some(limit),
        max_duration: None,
    }
}

fn start(down: impl Into<Io>, up: impl Into<Io>, options: RelayOptions) -> JoinHandle<Relayed> {
    let (down, up) = (down.into(), up.into());
    tokio::spawn(async move { relay(down, up, options, &RelayCounters::default()).await })
}

/// The client's and the server's end of a relay over pipes that hold `size` bytes.
fn in_memory(size: usize, options: RelayOptions) -> (DuplexStream, DuplexStream, JoinHandle<Relayed>) {
    let ((client, down), (up, server)) = (duplex(size), duplex(size));
    (client, server, start(down, up, options))
}

async fn exchange(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin), text: &str) {
    let write = async {
        from.write_all(text.as_bytes()).await.unwrap();
        from.flush().await.unwrap();
    };
    let mut read = vec![0; text.len()];
    let arrives = tokio::time::timeout(Duration::from_secs(20), to.read_exact(&mut read));
    let ((), arrived) = tokio::join!(write, arrives);
    arrived.expect("it arrives").unwrap();
    assert_eq!(read, text.as_bytes());
}

async fn at_end(side: &mut (impl AsyncRead + Unpin)) -> bool {
    side.read(&mut [0; 8]).await.unwrap() == 0
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closed_its_half_still_hears_the_server() {
    let (mut client, mut server, relayed) = in_memory(64, RelayOptions::default());
    exchange(&mut client, &mut server, "question").await;
    client.shutdown().await.unwrap();
    assert!(at_end(&mut server).await);
    exchange(&mut server, &mut client, "a long answer").await;
    server.shutdown().await.unwrap();
    assert!(at_end(&mut client).await);
    let relayed = relayed.await.unwrap();
    assert!(matches!(relayed.ended, Ended::Closed), "{relayed:?}");
    assert_eq!((relayed.bytes_up, relayed.bytes_down), (8, 13));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closed_its_half_still_hears_the_client() {
    let (mut client, mut server, relayed) = in_memory(64, RelayOptions::default());
    server.shutdown().await.unwrap();
    assert!(at_end(&mut client).await);
    exchange(&mut client, &mut server, "still here").await;
    client.shutdown().await.unwrap();
    assert!(matches!(relayed.await.unwrap().ended, Ended::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_goes_first() {
    let ((mut client, down), (up, mut server)) = (duplex(64), duplex(64));
    let mut down = Io::from(down);
    client.write_all(b"looked at ").await.unwrap();
    down.fill(64).await.unwrap();
    let relayed = start(down, up, RelayOptions::default());
    client.write_all(b"and more").await.unwrap();
    drop(client);
    let mut read = String::new();
    server.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "looked at and more");
    drop(server);
    assert_eq!(relayed.await.unwrap().bytes_up, 18);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_limit_and_every_byte_starts_it_anew() {
    let started = Instant::now();
    let (mut client, mut server, relayed) = in_memory(64, idle(10 * SECOND));
    for _ in 0..5 {
        tokio::time::sleep(9 * SECOND).await;
        exchange(&mut server, &mut client, "tick").await;
    }
    let relayed = relayed.await.unwrap();
    assert!(matches!(relayed.ended, Ended::IdleTimeout), "{relayed:?}");
    assert_eq!(started.elapsed().as_secs(), 5 * 9 + 10);
    assert!(at_end(&mut client).await && at_end(&mut server).await);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_that_falls_silent_ends_too() {
    let (mut client, _server, relayed) = in_memory(64, idle(10 * SECOND));
    client.shutdown().await.unwrap();
    assert!(matches!(relayed.await.unwrap().ended, Ended::IdleTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_takes_nothing_counts_as_silence() {
    let (mut client, _server, relayed) = in_memory(8, idle(10 * SECOND));
    let writing = tokio::spawn(async move { client.write_all(&[0; 4096]).await });
    let relayed = relayed.await.unwrap();
    assert!(matches!(relayed.ended, Ended::IdleTimeout), "{relayed:?}");
    assert_eq!(relayed.bytes_up, 8, "what was taken, not what was read");
    assert!(writing.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_whole_may_be_limited_whatever_is_carried() {
    let started = Instant::now();
    let options = RelayOptions {
        idle_timeout: Some(10 * SECOND),
        max_duration: Some(30 * SECOND),
    };
    let (mut client, mut server, relayed) = in_memory(64, options);
    for _ in 0..5 {
        tokio::time::sleep(5 * SECOND).await;
        exchange(&mut client, &mut server, "tick").await;
    }
    let relayed = relayed.await.unwrap();
    assert!(matches!(relayed.ended, Ended::MaxDuration), "{relayed:?}");
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn without_limits_nothing_but_the_sides_end_it() {
    let (client, server, relayed) = in_memory(
        64,
        RelayOptions {
            idle_timeout: Some(Duration::MAX),
            max_duration: None,
        },
    );
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    assert!(!relayed.is_finished());
    drop((client, server));
    assert!(matches!(relayed.await.unwrap().ended, Ended::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_and_leaves_is_heard_although_the_client_goes_on_sending() {
    let (mut client, mut server, relayed) = in_memory(64, RelayOptions::default());
    server.write_all(b"413 too large").await.unwrap();
    drop(server);
    // The client notices nothing yet and goes on; the relay cannot deliver that, but does deliver the answer.
    client.write_all(b"more of the upload").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "413 too large");
    let relayed = relayed.await.unwrap();
    assert!(matches!(relayed.ended, Ended::UpstreamError(_)), "{relayed:?}");
    assert_eq!(relayed.bytes_down, 13);
}

/// A connection over loopback: the dialling and the accepting end.
async fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

#[tokio::test]
async fn a_reset_on_one_side_is_a_reset_on_the_other() {
    for client_resets in [true, false] {
        let ((mut client, down), (up, mut server)) = (socket_pair().await, socket_pair().await);
        let relayed = start(down, up, RelayOptions::default());
        exchange(&mut client, &mut server, "hello").await;
        let (resets, mut other) = if client_resets {
            (client, server)
        } else {
            (server, client)
        };
        resets.set_zero_linger().unwrap();
        drop(resets);
        assert_eq!(
            other.read(&mut [0; 8]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        let ended = relayed.await.unwrap().ended;
        let (Ended::DownstreamError(error) | Ended::UpstreamError(error)) = &ended else {
            panic!("{ended:?}")
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(
            matches!(ended, Ended::DownstreamError(_)),
            client_resets,
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_cut_by_the_clock_is_no_orderly_end() {
    let ((mut client, down), (up, mut server)) = (socket_pair().await, socket_pair().await);
    let options = RelayOptions {
        idle_timeout: None,
        max_duration: Some(SECOND / 20),
    };
    let relayed = start(down, up, options);
    exchange(&mut server, &mut client, "the first half").await;
    assert_eq!(
        client.read(&mut [0; 8]).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert!(matches!(relayed.await.unwrap().ended, Ended::MaxDuration));
}

#[tokio::test]
async fn silence_after_all_was_delivered_is_an_orderly_end() {
    let ((mut client, down), (up, mut server)) = (socket_pair().await, socket_pair().await);
    let relayed = start(down, up, idle(SECOND / 20));
    exchange(&mut server, &mut client, "all of it").await;
    assert!(at_end(&mut client).await && at_end(&mut server).await);
    assert!(matches!(relayed.await.unwrap().ended, Ended::IdleTimeout));
}

#[tokio::test]
async fn half_closing_works_over_sockets() {
    let ((mut client, down), (up, mut server)) = (socket_pair().await, socket_pair().await);
    let relayed = start(down, up, idle(60 * SECOND));
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    exchange(&mut server, &mut client, "answer").await;
    drop(server);
    assert!(at_end(&mut client).await);
    assert!(matches!(relayed.await.unwrap().ended, Ended::Closed));
}

#[tokio::test(start_paused = true)]
async fn half_closing_works_through_tls() {
    let ((client, down), (up, mut server)) = (duplex(512), duplex(64));
    let (mut client, down) = tls_pair(client, down).await;
    let relayed = start(down, up, RelayOptions::default());
    exchange(&mut client, &mut server, "question").await;
    client.shutdown().await.unwrap();
    assert!(at_end(&mut server).await);
    exchange(&mut server, &mut client, "answer").await;
    drop(server);
    assert!(at_end(&mut client).await);
    assert!(matches!(relayed.await.unwrap().ended, Ended::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_tls_could_not_send_at_once_follows_without_more_to_send() {
    let ((mut client, down), (up, server)) = (duplex(8192), duplex(512));
    let (up, mut server) = tls_pair(up, server).await;
    let _relayed = start(down, up, RelayOptions::default());
    exchange(&mut client, &mut server, &"longer than the pipe ".repeat(200)).await;
}

#[tokio::test(start_paused = true)]
async fn tls_that_breaks_off_is_an_error_not_an_end() {
    let ((client, down), (up, _server)) = (duplex(512), duplex(64));
    let (client, down) = tls_pair(client, down).await;
    let relayed = start(down, up, RelayOptions::default());
    drop(client);
    match relayed.await.unwrap().ended {
        Ended::DownstreamError(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_relay_stays_small_while_it_waits() {
    let counters = RelayCounters::default();
    let ((_, down), (up, _)) = (duplex(1), duplex(1));
    let future = relay(down.into(), up.into(), RelayOptions::default(), &counters);
    assert!(size_of_val(&future) <= 800, "{}", size_of_val(&future));
}

/// Writes `bytes` in pieces of these sizes, then closes; meanwhile reads all there is.
async fn talk(side: impl AsyncRead + AsyncWrite, bytes: Vec<u8>, pieces: Vec<usize>) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(side);
    let write = async {
        let (mut rest, mut pieces) = (&bytes[..], pieces.into_iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(pieces.next().unwrap().min(rest.len()));
            writer.write_all(now).await.unwrap();
            tokio::task::yield_now().await;
            rest = later;
        }
        writer.shutdown().await.unwrap();
    };
    let mut read = Vec::new();
    let (_, result) = tokio::join!(write, reader.read_to_end(&mut read));
    result.unwrap();
    read
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index.wrapping_mul(31) ^ (index >> 8) ^ seed) as u8)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn all_bytes_arrive_in_order_however_they_are_cut(
        up in 0usize..200_000,
        down in 0usize..200_000,
        up_pieces in proptest::collection::vec(1usize..40_000, 1..8),
        down_pieces in proptest::collection::vec(1usize..40_000, 1..8),
        client_pipe in 1usize..50_000,
        server_pipe in 1usize..50_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let ((client, ours_down), (ours_up, server)) = (duplex(client_pipe), duplex(server_pipe));
            let counters = RelayCounters::default();
            let (relayed, client, server) = tokio::join!(
                relay(ours_down.into(), ours_up.into(), idle(SECOND), &counters),
                talk(client, pattern(up, 1), up_pieces),
                talk(server, pattern(down, 2), down_pieces),
            );
            assert!(server == pattern(up, 1) && client == pattern(down, 2));
            assert!(matches!(relayed.ended, Ended::Closed), "{relayed:?}");
            assert_eq!((relayed.bytes_up, relayed.bytes_down), (up as u64, down as u64));
            assert_eq!(counters.bytes_up.load(Ordering::Relaxed), up as u64);
            assert_eq!(counters.bytes_down.load(Ordering::Relaxed), down as u64);
        });
    }
}

//! What holds when the kernel carries the bytes: the same as when they are copied, and nothing is carried so that is not
//! on bare sockets.

use super::*;
use crate::tcp::pipe;

/// Enough for a direction to have proved that it carries much, many times over.
const BULK: usize = 3 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// The client's and the server's end of a relay over sockets. The relay runs on this thread, as its pipes do.
async fn over_sockets(counters: Arc<RelayCounters>) -> (TcpStream, TcpStream, JoinHandle<Relayed>) {
    let ((client, down), (up, server)) = (socket_pair().await, socket_pair().await);
    // Small and fixed, so that what the kernel keeps is known.
    for socket in [&client, &down, &up, &server] {
        let socket = socket2::SockRef::from(socket);
        socket.set_recv_buffer_size(KERNEL).unwrap();
        socket.set_send_buffer_size(KERNEL).unwrap();
    }
    let relayed = tokio::spawn(async move {
        let (down, up) = (Io::from(down), Io::from(up));
        relay(down, up, RelayOptions::default(), &counters).await
    });
    (client, server, relayed)
}

/// Asked for; the kernel doubles it.
const KERNEL: usize = 128 * 1024;

#[track_caller]
fn same(arrived: &[u8], sent: &[u8]) {
    let differs = arrived.iter().zip(sent).position(|(a, b)| a != b);
    assert!(
        differs.is_none() && arrived.len() == sent.len(),
        "{} of {} bytes, other than sent from {differs:?} on",
        arrived.len(),
        sent.len()
    );
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it ends in time")
}

async fn send(side: &mut TcpStream, bytes: &[u8]) {
    side.write_all(bytes).await.unwrap();
    side.shutdown().await.unwrap();
}

async fn all(side: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    side.read_to_end(&mut read).await.unwrap();
    read
}

#[tokio::test]
async fn each_half_closes_by_itself_after_much_was_carried() {
    for client_first in [true, false] {
        let (mut client, mut server, relayed) = over_sockets(Arc::default()).await;
        let (first, second) = if client_first {
            (&mut client, &mut server)
        } else {
            (&mut server, &mut client)
        };
        let (there, back) = (pattern(BULK, 7), pattern(BULK, 9));
        let ((), arrived) = in_time(async { tokio::join!(send(first, &there), all(second)) }).await;
        same(&arrived, &there);
        let ((), arrived) = in_time(async { tokio::join!(send(second, &back), all(first)) }).await;
        same(&arrived, &back);
        let relayed = in_time(relayed).await.unwrap();
        assert!(matches!(relayed.ended, Ended::Closed), "{relayed:?}");
        assert_eq!((relayed.bytes_up, relayed.bytes_down), (BULK as u64, BULK as u64));
        assert!(pipe::idle() > 0, "the kernel carried it, and the pipe came back");
    }
}

#[tokio::test]
async fn a_side_that_does_not_read_stops_the_other_and_little_is_kept() {
    let counters = Arc::<RelayCounters>::default();
    let (mut client, mut server, relayed) = over_sockets(Arc::clone(&counters)).await;
    let bytes = pattern(4 * BULK, 3);
    let mut written = 0;
    // Until it has been stuck for a while.
    while let Ok(ready) = tokio::time::timeout(SECOND / 2, client.writable()).await {
        ready.unwrap();
        written += client.try_write(&bytes[written..]).unwrap_or(0);
        assert!(written < bytes.len(), "nobody reads, and all of it was taken");
    }
    let carried = counters.bytes_up.load(Ordering::Relaxed);
    assert!(
        carried > 0,
        "what the other side took is counted while the relay runs"
    );
    let kept = written - usize::try_from(carried).unwrap();
    // Two kernel buffers, doubled, with what the kernel allows beyond them, and one pipe.
    assert!(kept <= 2 * 3 * KERNEL + pipe::CAPACITY, "{kept} bytes are kept");
    let rest = async {
        let ((), arrived) = tokio::join!(send(&mut client, &bytes[written..]), all(&mut server));
        arrived
    };
    assert!(in_time(rest).await == bytes);
    drop((client, server));
    assert_eq!(in_time(relayed).await.unwrap().bytes_up, bytes.len() as u64);
}

#[tokio::test]
async fn a_small_piece_that_waits_in_the_pipe_keeps_its_place() {
    let ((mut client, down), (up, mut server)) = (socket_pair().await, socket_pair().await);
    // Nobody reads on this side, and it is full.
    let mut filler = 0;
    while let Ok(ready) = tokio::time::timeout(SECOND / 5, up.writable()).await {
        ready.unwrap();
        filler += up.try_write(&[0; 64 * 1024]).unwrap_or(0);
    }
    let (mut down, mut up) = (Io::from(down), Io::from(up));
    let mut direction = Direction::default();
    for _ in 0..2 {
        direction.pace.saw(64 * 1024);
    }
    // One that is small, so that the next would be copied; and the next.
    client.write_all(&[1; 500]).await.unwrap();
    let counter = AtomicU64::default();
    let moves = std::future::poll_fn(|context| direction.poll(context, &mut down, &mut up, &counter));
    assert!(tokio::time::timeout(SECOND / 5, moves).await.is_err());
    assert!(direction.is_stuck());
    client.write_all(&[2; 500]).await.unwrap();
    client.shutdown().await.unwrap();
    let moves = std::future::poll_fn(|context| direction.poll(context, &mut down, &mut up, &counter));
    let (moved, arrived) = in_time(async { tokio::join!(moves, all(&mut server)) }).await;
    assert!(moved.is_ok());
    same(&arrived, &[vec![0; filler], vec![1; 500], vec![2; 500]].concat());
}

#[tokio::test]
async fn a_reset_amid_much_is_a_reset_on_the_other_side_and_the_pipe_is_not_used_again() {
    for client_resets in [true, false] {
        let (client, server, relayed) = over_sockets(Arc::default()).await;
        let (mut sender, mut receiver) = if client_resets {
            (client, server)
        } else {
            (server, client)
        };
        let bytes = pattern(BULK, 5);
        // The receiver lags behind, so something is on its way when the sender goes.
        let lag = async {
            let mut some = vec![0; BULK / 3];
            receiver.read_exact(&mut some).await.unwrap();
            some
        };
        let ((), some) = in_time(async {
            tokio::join!(async { sender.write_all(&bytes[..BULK / 2]).await.unwrap() }, lag)
        })
        .await;
        assert!(some == bytes[..BULK / 3]);
        sender.set_zero_linger().unwrap();
        drop(sender);
        let rest = in_time(receiver.read_to_end(&mut Vec::new())).await;
        assert_eq!(rest.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let ended = in_time(relayed).await.unwrap().ended;
        assert_eq!(
            matches!(ended, Ended::DownstreamError(_)),
            client_resets,
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_receiver_that_resets_ends_the_sender() {
    let (mut client, mut server, relayed) = over_sockets(Arc::default()).await;
    let bytes = pattern(BULK, 6);
    let writing = tokio::spawn(async move { client.write_all(&bytes).await });
    server.read_exact(&mut vec![0; BULK / 4]).await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    assert!(in_time(writing).await.unwrap().is_err());
    let ended = in_time(relayed).await.unwrap().ended;
    assert!(matches!(ended, Ended::UpstreamError(_)), "{ended:?}");
}

#[tokio::test]
async fn what_was_read_ahead_goes_before_what_the_kernel_carries() {
    let ((mut client, down), (up, mut server)) = (socket_pair().await, socket_pair().await);
    let bytes = pattern(BULK, 8);
    client.write_all(&bytes[..1000]).await.unwrap();
    let mut down = Io::from(down);
    down.fill(600).await.unwrap();
    let relayed = start(down, up, RelayOptions::default());
    let ((), arrived) =
        in_time(async { tokio::join!(send(&mut client, &bytes[1000..]), all(&mut server)) }).await;
    assert!(arrived == bytes);
    drop((client, server));
    in_time(relayed).await.unwrap();
    assert!(pipe::idle() > 0);
}

#[tokio::test]
async fn the_kernel_never_carries_what_tls_is_to_change() {
    for tls_down in [true, false] {
        let ((client, down), (up, server)) = (socket_pair().await, socket_pair().await);
        let (mut client, down, up, mut server) = if tls_down {
            let (client, down) = tls_pair(client, down).await;
            (client, down, Io::from(up), Io::from(server))
        } else {
            let (up, server) = tls_pair(up, server).await;
            (Io::from(client), Io::from(down), up, server)
        };
        let relayed = start(down, up, RelayOptions::default());
        let bytes = pattern(BULK, 4);
        let sends = async {
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let mut arrived = Vec::new();
        let (_, read) = in_time(async { tokio::join!(sends, server.read_to_end(&mut arrived)) }).await;
        read.unwrap();
        assert!(arrived == bytes);
        server.shutdown().await.unwrap();
        in_time(relayed).await.unwrap();
        assert_eq!(pipe::idle(), 0, "no pipe was ever opened");
    }
}

#[tokio::test]
async fn small_messages_need_no_pipe() {
    let (mut client, mut server, _relayed) = over_sockets(Arc::default()).await;
    for _ in 0..50 {
        exchange(&mut client, &mut server, "a question").await;
        exchange(&mut server, &mut client, &"an answer ".repeat(800)).await;
    }
    assert_eq!(pipe::idle(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_bytes_arrive_in_order_whoever_carries_them(
        up in 0usize..2_000_000,
        down in 0usize..2_000_000,
        up_pieces in proptest::collection::vec(1usize..400_000, 1..8),
        down_pieces in proptest::collection::vec(1usize..400_000, 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let counters = Arc::<RelayCounters>::default();
            let (client, server, relayed) = over_sockets(Arc::clone(&counters)).await;
            let (client, server) = in_time(async {
                tokio::join!(
                    talk(client, pattern(up, 1), up_pieces),
                    talk(server, pattern(down, 2), down_pieces),
                )
            })
            .await;
            same(&server, &pattern(up, 1));
            same(&client, &pattern(down, 2));
            let relayed = in_time(relayed).await.unwrap();
            assert!(matches!(relayed.ended, Ended::Closed), "{relayed:?}");
            assert_eq!((relayed.bytes_up, relayed.bytes_down), (up as u64, down as u64));
            assert_eq!(counters.bytes_up.load(Ordering::Relaxed), up as u64);
            assert_eq!(counters.bytes_down.load(Ordering::Relaxed), down as u64);
        });
    }
}

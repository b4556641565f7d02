//! HTTP/2 floods, and clients that are slow on purpose.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::lab::Lab;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::super::group::Group;
use super::super::raw::{self, End};
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    frame, get, kinds, opening,
};
use super::{ANSWERED, Before, SERVER, Side, now, unharmed};

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial("a rapid reset flood ends its connection", rapid_reset),
        group.trial("a CONTINUATION flood ends its connection", continuation),
        group.trial("a SETTINGS flood fills no memory", settings),
        group.trial("a PING flood fills no memory", ping),
        group.trial("an oversized header list over HTTP/2 is refused", header_list),
        group.trial(
            "frames against the rules of HTTP/2 end their connection",
            nonsense,
        ),
        group.trial("a client that never finishes its head hinders nobody", slow_heads),
        group.trial("random bytes harm nobody", random),
    ]
}

/// How a flood ended.
struct Flood {
    /// Bytes written until it ended.
    written: usize,
    /// What the other side said.
    heard: Vec<u8>,
    end: End,
}

/// Writes what `piece` makes, over and over, reading along, until the other side closes, `most` bytes are written, or
/// time is up.
async fn flood(stream: TcpStream, mut piece: impl FnMut() -> Vec<u8>, most: usize) -> Flood {
    let end = Instant::now() + ANSWERED;
    let (mut reading, mut writing) = stream.into_split();
    let listening = tokio::spawn(async move {
        let mut heard = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match timeout_at(end, reading.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return (heard, End::Closed),
                Ok(Ok(length)) => heard.extend(&buffer[..length]),
                Err(_elapsed) => return (heard, End::Open),
            }
        }
    });
    let mut written = 0;
    while written < most && !listening.is_finished() {
        let piece = piece();
        match timeout_at(end, writing.write_all(&piece)).await {
            Ok(Ok(())) => written += piece.len(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    // What is still to be said comes before the end of our side is noticed.
    let _already_closed = writing.shutdown().await;
    let (heard, end) = listening.await.unwrap_or((Vec::new(), End::Open));
    Flood { written, heard, end }
}

/// A flood that must be stopped: by GOAWAY or a close, before all is written.
async fn stopped(
    lab: &Lab,
    name: &str,
    make: impl Fn() -> Box<dyn FnMut() -> Vec<u8>>,
) -> anyhow::Result<()> {
    const MOST: usize = 32 * 1024 * 1024;
    let before = now(lab)?;
    for side in Side::BOTH {
        for port in [8080, 8081] {
            let mut stream = side.dial(lab, port).await?;
            stream.write_all(&opening()).await?;
            let flood = flood(stream, make(), MOST).await;
            let told = kinds(&flood.heard).contains(&GOAWAY);
            ensure!(
                flood.written < MOST && (told || flood.end == End::Closed),
                "{side:?}, port {port}: {name} went on for {} bytes; GOAWAY: {told}, {:?}",
                flood.written,
                flood.end
            );
        }
    }
    unharmed(lab, &before).await
}

async fn rapid_reset(lab: &Lab) -> anyhow::Result<()> {
    stopped(lab, "rapid reset", || {
        let mut stream = 1;
        Box::new(move || {
            let mut bytes = Vec::new();
            for _ in 0..100 {
                bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &get()));
                bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                stream += 2;
            }
            bytes
        })
    })
    .await
}

async fn continuation(lab: &Lab) -> anyhow::Result<()> {
    stopped(lab, "CONTINUATION", || {
        let mut first = true;
        Box::new(move || {
            if std::mem::take(&mut first) {
                return frame(HEADERS, END_STREAM, 1, &get());
            }
            // A literal field that is never indexed, once more.
            let mut field = vec![0x10, 3];
            field.extend(b"x-a");
            field.push(100);
            field.extend([b'v'; 100]);
            frame(CONTINUATION, 0, 1, &field.repeat(20))
        })
    })
    .await
}

/// A flood that is within the rules: it may go on, but costs no memory, also when its answers are never read.
async fn costs_nothing(lab: &Lab, piece: &[u8]) -> anyhow::Result<()> {
    const MOST: usize = 16 * 1024 * 1024;
    let before = now(lab)?;
    let piece = piece.repeat(1_000);
    for side in Side::BOTH {
        let mut read = side.dial(lab, 8080).await?;
        read.write_all(&opening()).await?;
        let again = piece.clone();
        flood(read, move || again.clone(), MOST / 4).await;

        let mut unread = side.dial(lab, 8080).await?;
        unread.write_all(&opening()).await?;
        raw::pour(&mut unread, &piece, MOST, Duration::from_millis(700)).await;
        unharmed(lab, &before).await?;
    }
    Ok(())
}

async fn settings(lab: &Lab) -> anyhow::Result<()> {
    costs_nothing(lab, &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])).await
}

async fn ping(lab: &Lab) -> anyhow::Result<()> {
    costs_nothing(lab, &frame(PING, 0, 0, b"are you?")).await
}

async fn header_list(lab: &Lab) -> anyhow::Result<()> {
    let before = now(lab)?;
    let arrived = lab.app(SERVER).counters().await?.requests;
    for side in Side::BOTH {
        let mut stream = side.dial(lab, 8080).await?;
        let mut bytes = opening();
        bytes.extend(frame(HEADERS, END_STREAM, 1, &get()));
        let mut field = vec![0x10, 3];
        field.extend(b"x-a");
        field.push(100);
        field.extend([b'v'; 100]);
        for _ in 0..20 {
            bytes.extend(frame(CONTINUATION, 0, 1, &field.repeat(100)));
        }
        bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
        let heard = raw::say(&mut stream, &bytes, Duration::from_millis(800)).await;
        let kinds = kinds(&heard.bytes);
        // 431 in HEADERS, a reset of the stream, or the end of the connection.
        ensure!(
            kinds
                .iter()
                .any(|kind| [HEADERS, RST_STREAM, GOAWAY].contains(kind))
                || heard.end == End::Closed,
            "{side:?}: {kinds:?}, {:?}",
            heard.end
        );
        let after = lab.app(SERVER).counters().await?.requests;
        ensure!(
            after == arrived,
            "{side:?}: 200 KiB of headers reached the application"
        );
    }
    unharmed(lab, &before).await
}

async fn nonsense(lab: &Lab) -> anyhow::Result<()> {
    let before = now(lab)?;
    for side in Side::BOTH {
        for (name, bytes) in [
            ("DATA on an idle stream", frame(DATA, 0, 1, b"x")),
            (
                "a frame larger than allowed",
                frame(DATA, 0, 1, &vec![0; 100_000]),
            ),
            ("HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, &get())),
            (
                "HEADERS on an even stream",
                frame(HEADERS, END_HEADERS, 2, &get()),
            ),
            (
                "a header block that is none",
                frame(HEADERS, END_HEADERS, 1, &[0xff; 40]),
            ),
            ("SETTINGS of odd length", frame(SETTINGS, 0, 0, &[1, 2, 3])),
            ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
            (
                "a window beyond counting",
                frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            ),
            ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
            (
                "CONTINUATION out of nowhere",
                frame(CONTINUATION, END_HEADERS, 1, &get()),
            ),
            ("a short PING", frame(PING, 0, 0, b"x")),
        ] {
            let mut stream = side.dial(lab, 8080).await?;
            let mut all = opening();
            all.extend(&bytes);
            let heard = raw::say(&mut stream, &all, ANSWERED).await;
            ensure!(
                heard.end == End::Closed && kinds(&heard.bytes).contains(&GOAWAY),
                "{side:?}, {name}: {:?} {:?}",
                heard.end,
                kinds(&heard.bytes)
            );
        }
    }
    unharmed(lab, &before).await
}

async fn slow_heads(lab: &Lab) -> anyhow::Result<()> {
    let before = now(lab)?;
    let mut held = Vec::new();
    for side in Side::BOTH {
        for number in 0..150 {
            let mut stream = side.dial(lab, if number % 2 == 0 { 8080 } else { 8081 }).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: rev").await?;
            held.push(stream);
        }
    }
    unharmed(lab, &before).await?;
    for stream in held.iter_mut().take(20) {
        // One byte more, and nobody cares.
        let _may_be_closed = stream.write_all(b"i").await;
    }
    unharmed(lab, &before).await
}

/// How often the memory may grow before it counts as lost. What many connections at once have taken is kept for the next
/// ones, and how many they are at once is up to the machine; what leaks grows every time.
const ROUNDS: usize = 5;

async fn random(lab: &Lab) -> anyhow::Result<()> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let pids = now(lab)?.pids;
    let mut outcome = Ok(());
    for round in 1..=ROUNDS {
        let before = Before { pids, ..now(lab)? };
        let sent = throw(lab, &mut rng).await?;
        outcome = unharmed(lab, &before)
            .await
            .with_context(|| format!("seed {seed}, round {round}, {sent} connections"));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Random bytes for two seconds; how many connections that were.
async fn throw(lab: &Lab, rng: &mut StdRng) -> anyhow::Result<usize> {
    let end = Instant::now() + Duration::from_secs(2);
    let mut sent = 0;
    while Instant::now() < end {
        let side = Side::BOTH[sent % 2];
        let mut stream = side.dial(lab, [8080, 8081][sent / 2 % 2]).await?;
        let mut bytes = vec![0; 1 + rng.next_u32() as usize % 2_000];
        rng.fill_bytes(&mut bytes);
        // Half of them begin like something that is worth a closer look.
        let starts: [&[u8]; 6] = [
            b"",
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"",
            b"POST / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: chunked\r\n\r\n",
        ];
        let mut all = starts[sent % 6].to_vec();
        all.extend(bytes);
        let _may_be_closed = stream.write_all(&all).await;
        // Not waited for: whether and how each is answered is the business of other tests.
        let _may_be_closed = stream.shutdown().await;
        sent += 1;
    }
    ensure!(sent > 20, "only {sent} were sent");
    Ok(sent)
}

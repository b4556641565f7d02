use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::io::tests::tls_pair;
use crate::serve::http1;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// Longer than any look.
const LONG: Duration = Duration::from_secs(30);

/// Sends back the length of each request's body, and after it as much as the header `size` asks for, after `delay`.
async fn answer(request: Request<Incoming>, delay: Duration) -> Result<Response<Full<Bytes>>, Infallible> {
    let size = request
        .headers()
        .get("size")
        .map_or(0, |size| size.to_str().unwrap().parse().unwrap());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    sleep(delay).await;
    let said = format!("<{}>", body.len()) + &"x".repeat(size);
    Ok(Response::new(Full::from(said)))
}

struct Client {
    stream: DuplexStream,
    server: JoinHandle<()>,
}

impl Client {
    /// A client of a server that answers after `delay`, over a pipe of `room` bytes.
    fn new(room: usize, delay: Duration, limit: Option<Duration>) -> Self {
        Self::until(room, delay, limit, std::future::pending())
    }

    fn until(
        room: usize,
        delay: Duration,
        limit: Option<Duration>,
        closing: impl Future<Output = ()> + 'static,
    ) -> Self {
        let (stream, ours) = duplex(room);
        let service = service_fn(move |request| answer(request, delay));
        let server = spawn_local(http1(Io::from(ours), service, limit, closing));
        Self { stream, server }
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Everything up to `end`.
    async fn hear(&mut self, end: &str) -> String {
        let mut heard = String::new();
        while !heard.ends_with(end) {
            let mut byte = [0];
            let read = timeout(10 * LONG, self.stream.read_exact(&mut byte)).await;
            read.expect("an answer in time").expect("no end before it");
            heard.push(char::from(byte[0]));
        }
        heard
    }

    async fn has_ended(mut self) {
        assert_eq!(self.stream.read(&mut [0]).await.unwrap(), 0);
        self.server.await.unwrap();
    }
}

/// How often a connection went without hyper while `scene` was played.
async fn rests(scene: impl AsyncFnOnce()) -> u32 {
    let before = RESTS.get();
    LocalSet::new().run_until(scene()).await;
    RESTS.get() - before
}

#[tokio::test(start_paused = true)]
async fn a_connection_goes_without_hyper_between_two_requests_and_is_served_on() {
    let rests = rests(async || {
        let mut client = Client::new(4096, Duration::ZERO, None);
        for _ in 0..3 {
            client.say(GET).await;
            client.hear("<0>").await;
            sleep(LONG).await;
        }
        client.say(&GET.repeat(2)).await;
        client.hear("<0>").await;
        client.hear("<0>").await;
    });
    assert_eq!(rests.await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_keeps_hyper() {
    let rests = rests(async || {
        let mut client = Client::new(4096, Duration::ZERO, None);
        for _ in 0..20 {
            client.say(GET).await;
            client.hear("<0>").await;
            sleep(LOOK - Duration::from_secs(1)).await;
        }
    });
    assert_eq!(rests.await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_long() {
    let rests = rests(async || {
        let mut client = Client::new(4096, LONG, None);
        client.say(GET).await;
        client.hear("<0>").await;
    });
    assert_eq!(rests.await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_take_long() {
    let rests = rests(async || {
        let mut client = Client::new(4096, Duration::ZERO, None);
        client.say(GET).await;
        client.hear("<0>").await;
        client
            .say(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nGET")
            .await;
        sleep(LONG).await;
        client.say(b" / ").await;
        client.hear("<6>").await;
    });
    assert_eq!(rests.await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_arrives_after_its_answer_is_no_request() {
    let rests = rests(async || {
        let (mut stream, ours) = duplex(4096);
        // An answer at once, while somebody still waits for the body.
        let service = service_fn(|request: Request<Incoming>| {
            spawn_local(async move { drop(request.into_body().collect().await) });
            async { Ok::<_, Infallible>(Response::new(Full::from("early"))) }
        });
        spawn_local(http1(Io::from(ours), service, None, std::future::pending()));
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut heard = vec![0; 4096];
        let read = stream.read(&mut heard).await.unwrap();
        assert!(heard[..read].ends_with(b"early"));
        sleep(LONG).await;
        let _ = stream.write_all(GET).await;
        sleep(LONG).await;
        drop(stream.shutdown().await);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(String::from_utf8(rest).unwrap(), "");
    });
    assert_eq!(rests.await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_slow_to_read_gets_everything() {
    let rests = rests(async || {
        let mut client = Client::new(64, Duration::ZERO, None);
        client
            .say(b"GET / HTTP/1.1\r\nhost: a\r\nsize: 5000\r\n\r\n")
            .await;
        sleep(LONG).await;
        let heard = client.hear("<0>").await + &client.hear(&"x".repeat(5000)).await;
        assert!(heard.contains("content-length: 5003"), "{heard}");
    });
    assert_eq!(rests.await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_tls_has_taken_and_the_client_has_not_is_sent_on() {
    let rests = rests(async || {
        let (ours, theirs) = duplex(4096);
        let (mut client, server) = tls_pair(theirs, ours).await;
        let service = service_fn(|request| answer(request, Duration::ZERO));
        spawn_local(http1(server, service, None, std::future::pending()));
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nsize: 50000\r\n\r\n";
        client.write_all(request).await.unwrap();
        client.flush().await.unwrap();
        sleep(LONG).await;
        let mut heard = Vec::new();
        while !heard.ends_with(&[b'x'; 50000]) {
            let read = timeout(LONG, client.read_buf(&mut heard)).await;
            assert!(read.expect("the rest in time").unwrap() > 0, "it ended early");
        }
    });
    assert_eq!(rests.await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_arrives_bit_by_bit_keeps_its_one_limit() {
    let limit = Duration::from_secs(60);
    let rests = rests(async || {
        let mut client = Client::new(4096, Duration::ZERO, Some(limit));
        client.say(GET).await;
        client.hear("<0>").await;
        sleep(LONG).await;
        let began = Instant::now();
        for byte in GET {
            if client.stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(7)).await;
        }
        assert!(began.elapsed() <= limit + Duration::from_secs(14));
        client.has_ended().await;
    });
    assert_eq!(rests.await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_start_of_a_second_request_is_not_lost() {
    let rests = rests(async || {
        let mut client = Client::new(4096, Duration::ZERO, None);
        let (start, end) = GET.split_at(9);
        client.say(&[GET, start].concat()).await;
        client.hear("<0>").await;
        sleep(LONG).await;
        client.say(end).await;
        client.hear("<0>").await;
    });
    assert_eq!(rests.await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_at_its_limit() {
    let limit = Duration::from_secs(75);
    let rests = rests(async || {
        let mut client = Client::new(4096, Duration::ZERO, Some(limit));
        client.say(GET).await;
        client.hear("<0>").await;
        let began = Instant::now();
        client.has_ended().await;
        let took = began.elapsed();
        assert!(took >= limit && took <= limit + LOOK, "{took:?}");
    });
    assert_eq!(rests.await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_when_its_client_leaves_or_the_proxy_does() {
    let rests = rests(async || {
        let mut client = Client::new(4096, Duration::ZERO, None);
        client.say(GET).await;
        client.hear("<0>").await;
        sleep(LONG).await;
        client.stream.shutdown().await.unwrap();
        client.has_ended().await;

        let mut client = Client::until(4096, Duration::ZERO, None, sleep(LONG));
        client.say(GET).await;
        client.hear("<0>").await;
        let began = Instant::now();
        client.has_ended().await;
        assert_eq!(began.elapsed(), LONG);
    });
    assert_eq!(rests.await, 2);
}

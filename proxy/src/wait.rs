//! `hauberk-proxy wait`: returns when the proxy of this pod is ready. The kubelet runs it as the `postStart` hook of a
//! proxy that is an ordinary container, and starts the containers after it only when it has returned: the application's
//! first call finds a proxy that can carry it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(2);
/// What is read of an answer.
const ANSWER: u64 = 16 << 10;

/// The proxy was not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("the proxy is not ready after {after:?}: {last}; its log says more")]
pub struct NotReady {
    after: Duration,
    last: String,
}

/// Waits until the admin server at `admin` says that the proxy is ready. Nobody there yet is a reason to go on waiting.
///
/// # Errors
/// When `limit` has passed; the error holds what was seen last.
pub async fn until_ready(admin: SocketAddr, limit: Duration) -> Result<(), NotReady> {
    let deadline = Instant::now() + limit;
    let admin = reachable(admin);
    let mut last = "it was not asked".to_owned();
    loop {
        match timeout_at(deadline, timeout(LOOK, look(admin))).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(seen))) => last = seen,
            Ok(Err(_)) => last = format!("{admin} does not answer within {LOOK:?}"),
            Err(_) => return Err(NotReady { after: limit, last }),
        }
        if timeout_at(deadline, tokio::time::sleep(PAUSE)).await.is_err() {
            return Err(NotReady { after: limit, last });
        }
    }
}

/// A server that listens on every address is reached over loopback.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}

/// One look; what is seen when it is not ready.
async fn look(admin: SocketAddr) -> Result<(), String> {
    let answer = ask(admin).await.map_err(|e| format!("{admin}: {e}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some("503") => Err(body.trim().to_owned()),
        _ => {
            let line = head.lines().next().unwrap_or_default();
            Err(format!(
                "{admin} is no admin server of a proxy: it answers {line:?}"
            ))
        }
    }
}

async fn ask(admin: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /health/ready HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives these answers, one a connection, the last again and again.
    async fn serve(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = vec![0; 1024];
                let n_read = stream.read(&mut asked).await.unwrap();
                assert!(asked[..n_read].starts_with(b"GET /health/ready HTTP/1.1\r\n"));
                let answer = answers[answers.len().min(n + 1) - 1];
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    const READY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n";
    const STARTING: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 40\r\n\r\nnot ready: no certificate is held (why)\n";

    #[tokio::test]
    async fn it_returns_once_the_proxy_is_ready() {
        let admin = serve(&[STARTING, "", STARTING, READY]).await;
        until_ready(admin, Duration::from_secs(30)).await.unwrap();
    }

    #[tokio::test]
    async fn the_deadline_comes_with_what_was_seen_last() {
        let admin = serve(&[STARTING]).await;
        let error = until_ready(admin, Duration::from_millis(300)).await.unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("300ms")
                && error.contains("no certificate is held (why)")
                && !error.contains('\n'),
            "{error}"
        );
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let error = until_ready(closed, Duration::from_millis(150)).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        let other = serve(&["HTTP/1.1 404 Not Found\r\n\r\n"]).await;
        let error = until_ready(other, Duration::from_millis(150)).await.unwrap_err();
        assert!(error.to_string().contains("404 Not Found"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_not_waited_for_beyond_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = listener.local_addr().unwrap();
        let started = Instant::now();
        let error = until_ready(admin, Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
        assert_eq!(started.elapsed().as_secs(), 5);
    }

    #[test]
    fn a_server_on_every_address_is_asked_over_loopback() {
        for (admin, asked) in [
            ("0.0.0.0:15020", "127.0.0.1:15020"),
            ("[::]:15020", "[::1]:15020"),
            ("10.1.0.5:1", "10.1.0.5:1"),
        ] {
            assert_eq!(reachable(admin.parse().unwrap()).to_string(), asked);
        }
    }
}

//! Connections without visible requests: TLS of applications, servers that speak first, half-closed streams, pod
//! addresses, IPv6.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::app::Answer;
use tests::client::Call;
use tests::lab::capture::{Capture, Content};
use tests::lab::{Lab, TCP_CONTROL_PORT, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::super::group::Group;
use super::super::{SOON, servers};
use super::{ask, warm};

/// Far below the ten seconds after which detection gives up, far above what a busy machine needs.
const AT_ONCE: Duration = Duration::from_secs(3);

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial("an application's own TLS passes untouched", own_tls),
        group.trial(
            "a half-closed stream goes on the other way, whoever closed first",
            half_close,
        ),
        group.trial(
            "field_lesson: server speaks first, nothing is declared, nothing hangs",
            speaks_first,
        ),
        group.trial(
            "a server that speaks first on a declared port is heard at once",
            declared,
        ),
        group.trial(
            "a client that speaks first in an unknown protocol is heard at once",
            client_first,
        ),
        group.trial(
            "a silent client on an undeclared port is connected and may take its time",
            silent,
        ),
        group.trial(
            "field_lesson: a dialled pod address reaches that pod, with mutual TLS",
            pod_address,
        ),
        group.trial("IPv6 addresses of services and pods work like the others", ipv6),
        group.trial("field_lesson: UDP is left alone", datagrams),
        group.trial("a port that no one listens on is refused, not held", nobody),
    ]
}

async fn own_tls(lab: &Lab) -> anyhow::Result<()> {
    const SECRET: &str = "secret-of-the-application";
    let capture = Capture::start()?;
    for port in [8003, 8004] {
        let connector = servers::serve_tls(lab, "own-v1-0", port, "vault.test", "hello ").await?;
        let stream = lab.pod("web").connect(&format!("own:{port}")).await?;
        let handshake = connector.connect("vault.test".try_into()?, stream);
        let mut stream = timeout(AT_ONCE, handshake)
            .await
            .context("the handshake hangs")??;
        stream.write_all(SECRET.as_bytes()).await?;
        stream.shutdown().await?;
        let mut text = String::new();
        timeout(SOON, stream.read_to_string(&mut text)).await??;
        ensure!(text == format!("hello {SECRET}"), "{text:?}");
        for stream in capture.streams_of(port) {
            ensure!(
                matches!(stream.content(), Content::Tls { .. }),
                "{:?}",
                stream.content()
            );
        }
    }
    Ok(())
}

async fn half_close(lab: &Lab) -> anyhow::Result<()> {
    let web = lab.pod("web");
    let mut stream = web.connect("quiet:7000").await?;
    stream.write_all(b"one\ntwo\nunfinished").await?;
    stream.shutdown().await?;
    let mut rest = String::new();
    timeout(SOON, stream.read_to_string(&mut rest))
        .await
        .context("no end")??;
    ensure!(
        rest == "ONE\nTWO\nUNFINISHEDreceived 18 bytes in 3 lines\n",
        "{rest:?}"
    );

    let (tell, mut told) = mpsc::unbounded_channel();
    servers::each(lab, "own-v1-0", 8002, move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(b"bye").await?;
            stream.shutdown().await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            tell.send(text)?;
            Ok(())
        }
    })
    .await?;
    let mut stream = web.connect("own:8002").await?;
    let mut text = String::new();
    timeout(SOON, stream.read_to_string(&mut text))
        .await
        .context("the server's end does not arrive")??;
    ensure!(text == "bye", "{text:?}");
    stream.write_all(b"still here").await?;
    stream.shutdown().await?;
    let heard = timeout(SOON, told.recv())
        .await
        .context("the server waits for ever")?;
    ensure!(heard.as_deref() == Some("still here"), "{heard:?}");
    Ok(())
}

async fn greeting(stream: &mut TcpStream, expected: &str) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut text = vec![0; expected.len()];
    timeout(AT_ONCE, stream.read_exact(&mut text))
        .await
        .context("no greeting: somebody waits for the client to speak")??;
    ensure!(
        text == expected.as_bytes(),
        "{:?}",
        String::from_utf8_lossy(&text)
    );
    Ok(start.elapsed())
}

async fn speaks_first(lab: &Lab) -> anyhow::Result<()> {
    for number in 0..3 {
        let mut stream = lab.pod("web").connect("mail:2525").await?;
        greeting(&mut stream, "220 mail is ready\n")
            .await
            .with_context(|| format!("connection {number}"))?;
        stream.write_all(b"helo\n").await?;
        let mut text = [0; 5];
        timeout(SOON, stream.read_exact(&mut text)).await??;
        ensure!(&text == b"HELO\n", "{text:?}");
    }
    let log = lab.log("web-proxy");
    let hints = log.matches("speaks first").count();
    ensure!(
        hints == 1,
        "the user is told once how to declare it, not {hints} times"
    );
    Ok(())
}

async fn declared(lab: &Lab) -> anyhow::Result<()> {
    let mut stream = lab.pod("web").connect("bank:5432").await?;
    greeting(&mut stream, "220 bank is ready\n").await?;
    stream.write_all(b"select 1\n").await?;
    let mut text = [0; 9];
    timeout(SOON, stream.read_exact(&mut text)).await??;
    ensure!(&text == b"SELECT 1\n", "{text:?}");
    Ok(())
}

async fn client_first(lab: &Lab) -> anyhow::Result<()> {
    for (target, sent) in [
        ("guess:7001", &b"*1\r\n$4\r\nping\r\n"[..]),
        ("guess:7001", b"\x00\x00\x00\x08\x04\xd2\x16\x2f\n"),
        ("guess:7001", b"\n"),
        ("guess:7001", b"GETX not http\n"),
        ("quiet:7000", b"get / http/1.1\n"),
    ] {
        let mut stream = lab.pod("web").connect(target).await?;
        stream.write_all(sent).await?;
        let mut text = vec![0; sent.len()];
        timeout(AT_ONCE, stream.read_exact(&mut text))
            .await
            .with_context(|| format!("{target} hangs on {:?}", String::from_utf8_lossy(sent)))??;
        ensure!(text == sent.to_ascii_uppercase(), "{text:?}");
    }
    Ok(())
}

async fn silent(lab: &Lab) -> anyhow::Result<()> {
    let control = lab.control("guess-v1-0", TCP_CONTROL_PORT);
    let before = control.counters().await?.accepted;
    let mut stream = lab.pod("web").connect("guess:7001").await?;
    eventually(
        SOON,
        "the server has the connection, though nobody speaks",
        async || {
            let now = control.counters().await?.accepted;
            ensure!(now > before, "{now}");
            Ok(())
        },
    )
    .await?;
    stream.write_all(b"late\n").await?;
    let mut text = [0; 5];
    timeout(SOON, stream.read_exact(&mut text)).await??;
    ensure!(&text == b"LATE\n", "{text:?}");
    Ok(())
}

async fn pod_address(lab: &Lab) -> anyhow::Result<()> {
    let capture = Capture::start()?;
    for name in ["nodes-v1-0", "nodes-v1-1"] {
        let address = lab.pod(name).address(8080);
        let url = format!("http://{address}/marker-of-{name}");
        for _ in 0..3 {
            let answer = ask(lab, &url).await?;
            ensure!(
                answer.pod == name,
                "{address} is {name}, and {} answered",
                answer.pod
            );
            ensure!(
                answer.request.headers.get("x-hauberk-peer").map(String::as_str)
                    == Some("spiffe://cluster.local/ns/shop/sa/web"),
                "{answer:?}"
            );
        }
        ensure!(
            !capture.saw(format!("marker-of-{name}").as_bytes()),
            "{name} was reached in clear text"
        );
        let streams = capture.streams_to(address);
        ensure!(!streams.is_empty(), "nothing was captured");
    }
    Ok(())
}

async fn ipv6(lab: &Lab) -> anyhow::Result<()> {
    if !tests::lab::has_ipv6()? {
        println!("skipped: this machine's kernel has no IPv6");
        return Ok(());
    }
    let service = lab
        .service("six")
        .ips()
        .iter()
        .copied()
        .find(std::net::IpAddr::is_ipv6);
    let service = service.context("the service has an IPv6 address")?;
    let pod = lab
        .pod("six-v1-0")
        .ips()
        .into_iter()
        .find(std::net::IpAddr::is_ipv6);
    let pod = pod.context("the pod has an IPv6 address")?;
    for address in [service, pod] {
        let url = format!("http://[{address}]:8080/");
        warm(lab, &url).await?;
        let reply = lab.pod("web").send(Call::get(&url)).await?;
        let answer: Answer = reply.json()?;
        ensure!(answer.pod == "six-v1-0", "{answer:?}");
        ensure!(
            answer.request.headers.contains_key("x-hauberk-peer"),
            "mutual TLS over IPv6: {answer:?}"
        );
    }
    Ok(())
}

async fn datagrams(lab: &Lab) -> anyhow::Result<()> {
    let address = lab.pod("own-v1-0").address(5353);
    let server = lab.pod("own-v1-0").run(UdpSocket::bind(address)).await?;
    let client = lab.pod("web").run(UdpSocket::bind("0.0.0.0:0")).await?;
    let mut buffer = [0; 64];
    client.send_to(b"question", address).await?;
    let (length, from) = timeout(SOON, server.recv_from(&mut buffer))
        .await
        .context("it never arrives")??;
    ensure!(&buffer[..length] == b"question");
    ensure!(
        from.ip() == lab.pod("web").ip(),
        "it comes from {from}, not from the pod"
    );
    server.send_to(b"answer", from).await?;
    let (length, from) = timeout(SOON, client.recv_from(&mut buffer))
        .await
        .context("no answer arrives")??;
    ensure!(&buffer[..length] == b"answer" && from == address, "{from}");
    Ok(())
}

async fn nobody(lab: &Lab) -> anyhow::Result<()> {
    // A port of the service without a server.
    let reply = lab.pod("web").get("http://own:8000/").await?;
    ensure!(
        reply.status == 503 && reply.header("x-hauberk-reason") == "connect_failure",
        "{} {:?} {}",
        reply.status,
        reply.headers,
        reply.text()
    );
    // A port that the service does not have, and an address that nobody has.
    for authority in ["reviews:9".to_owned(), "10.96.255.254:80".to_owned()] {
        let attempt = async {
            let mut stream = lab.pod("web").connect(&authority).await?;
            stream.write_all(b"hello\n").await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
            anyhow::Ok(rest)
        };
        let ended = timeout(SOON, attempt)
            .await
            .with_context(|| format!("{authority} hangs"))?;
        ensure!(
            ended.as_ref().map_or(true, Vec::is_empty),
            "{authority}: {ended:?}"
        );
    }
    Ok(())
}

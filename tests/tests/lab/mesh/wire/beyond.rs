//! Servers outside the mesh that want to know who calls, and those that only an HTTP proxy leads to.

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::lab::{App, Builder, Lab, PortSpec, ServiceSpec, Workload, eventually};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::super::group::Group;
use super::super::rules::{all_to, destination_rule, policy};
use super::super::{SOON, servers};

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "a server outside the mesh is told who calls, by a PROXY header",
            announced,
        ),
        group.trial("bytes go through an HTTP proxy to a server beyond it", tunnelled),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(
            ServiceSpec::new("mail")
                .port(PortSpec::new("http", 8080, App::Nothing))
                .workload(Workload::new("v1", 1).meshed(false)),
        )
        .service(
            ServiceSpec::new("way-out")
                .port(PortSpec::new("tcp", 3128, App::Nothing))
                .workload(Workload::new("v1", 1).meshed(false)),
        )
        .client("web")
}

async fn announced(lab: &Lab) -> anyhow::Result<()> {
    // Answers with the header that it got.
    servers::each(lab, "mail-v1-0", 8080, move |stream| async move {
        let mut stream = BufReader::new(stream);
        let (mut header, mut line) = (String::new(), String::new());
        stream.read_line(&mut header).await?;
        while stream.read_line(&mut line).await? > 0 {
            if line == "\r\n" {
                let length = header.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{header}");
                stream.write_all(answer.as_bytes()).await?;
            }
            line.clear();
        }
        Ok(())
    })
    .await?;
    let spec = "trafficPolicy: {proxyProtocol: {version: V1}, tls: {mode: DISABLE}}";
    policy(lab, &["web"], "mail", spec, &all_to("mail")).await?;
    let mut ports = Vec::new();
    for _ in 0..2 {
        let said = lab.pod("web").get("http://mail:8080/").await?.text();
        let words: Vec<_> = said.trim_end().split(' ').collect();
        let client = lab.pod("web").ip().to_string();
        let service = lab
            .service("mail")
            .ip()
            .map(|ip| ip.to_string())
            .unwrap_or_default();
        ensure!(
            words.len() == 6 && words[..4] == ["PROXY", "TCP4", &client, &service] && words[5] == "8080",
            "{said}"
        );
        ports.push(words[4].to_owned());
    }
    ensure!(
        ports[0] != ports[1],
        "each client has a connection of its own: {ports:?}"
    );
    Ok(())
}

async fn tunnelled(lab: &Lab) -> anyhow::Result<()> {
    // An HTTP proxy that lets through to one server, which greets with what was asked for and sends back the rest.
    servers::each(lab, "way-out-v1-0", 3128, move |stream| async move {
        let mut stream = BufReader::new(stream);
        let (mut asked, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            ensure!(
                stream.read_line(&mut line).await? > 0,
                "the end of a head: {asked}"
            );
            asked.push_str(&line);
        }
        if !asked.starts_with("CONNECT db.example:5432 HTTP/1.1\r\n") {
            return Ok(stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await?);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n220 db\r\n").await?;
        let (mut from, mut to) = tokio::io::split(stream);
        tokio::io::copy(&mut from, &mut to).await?;
        Ok(to.shutdown().await?)
    })
    .await?;
    let rule = |target: &str| {
        let spec = format!("trafficPolicy: {{tunnel: {{targetHost: {target}, targetPort: 5432}}}}");
        destination_rule("way-out", &spec)
    };
    lab.apply("dr-way-out", &rule("db.example"))?;
    eventually(SOON, "bytes go through the tunnel", async || {
        let mut stream = lab.pod("web").connect("way-out:3128").await?;
        stream.write_all(b"select 1").await?;
        stream.shutdown().await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        ensure!(heard == "220 db\r\nselect 1", "{heard}");
        Ok(())
    })
    .await?;
    lab.apply("dr-way-out", &rule("other.example"))?;
    eventually(
        SOON,
        "what the proxy does not let through breaks off",
        async || {
            let mut stream = lab.pod("web").connect("way-out:3128").await?;
            // Either may come too late: the connection may have broken off.
            let _broken = stream.write_all(b"select 1").await;
            let _broken = stream.shutdown().await;
            let mut heard = String::new();
            let ended = stream.read_to_string(&mut heard).await;
            ensure!(ended.is_err() && heard.is_empty(), "{ended:?} {heard}");
            Ok(())
        },
    )
    .await
}

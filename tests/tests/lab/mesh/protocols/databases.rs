//! Real databases, where the machine has them, on ports that declare nothing.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::lab::{Lab, Process, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::SOON;
use super::super::group::Group;

const POD: &str = "own-v1-0";

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial("a real Redis works on a port that declares nothing", redis),
        group.trial(
            "a real PostgreSQL works on a port that declares nothing",
            postgres,
        ),
    ]
}

/// Whether the machine has a program.
fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|folder| folder.join(program).is_file());
    if !found {
        println!("skipped: {program} is not on this machine");
    }
    found
}

async fn listening(lab: &Lab, port: u16, server: &Process) -> anyhow::Result<()> {
    eventually(SOON, &format!("{} listens", server.name()), async || {
        ensure!(lab.pod(POD).listens(port).await, "{}", server.log_tail(5));
        Ok(())
    })
    .await
}

async fn redis(lab: &Lab) -> anyhow::Result<()> {
    if !has("redis-server") {
        return Ok(());
    }
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        "6379",
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
        "--save",
        "",
    ]);
    command.arg("--dir").arg(lab.dir());
    let server = lab.pod(POD).spawn("redis", command).await?;
    listening(lab, 6379, &server).await?;
    let mut stream = lab.pod("web").connect("own:6379").await?;
    for (sent, expected) in [
        ("PING\r\n", "+PONG\r\n"),
        ("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n", "+OK\r\n"),
        ("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "$5\r\nvalue\r\n"),
    ] {
        stream.write_all(sent.as_bytes()).await?;
        let mut text = vec![0; expected.len()];
        timeout(SOON, stream.read_exact(&mut text))
            .await
            .context("Redis does not answer")??;
        ensure!(
            text == expected.as_bytes(),
            "{:?}",
            String::from_utf8_lossy(&text)
        );
    }
    Ok(())
}

/// PostgreSQL refuses to run as root.
fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]);
    command
}

async fn postgres(lab: &Lab) -> anyhow::Result<()> {
    if !has("postgres") || !has("initdb") {
        return Ok(());
    }
    if tests::lab::privileges()? != tests::lab::Privileges::Root {
        println!("skipped: PostgreSQL needs a user of its own, which takes root");
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("pg").tempdir_in(lab.dir())?;
    std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534))?;
    let mut command = as_nobody("initdb");
    command
        .args(["--auth=trust", "--username=web", "--no-sync", "-D"])
        .arg(folder.path());
    let made = lab.pod(POD).spawn("initdb", command).await?;
    let status = made.wait(SOON * 3).await?;
    ensure!(status.success(), "initdb: {}", made.log_tail(10));
    let mut command = as_nobody("postgres");
    command.arg("-D").arg(folder.path());
    command.args(["-h", "0.0.0.0", "-p", "5432", "-k", ""]);
    // Pods of this lab are neighbours, not strangers.
    std::fs::write(folder.path().join("pg_hba.conf"), "host all all all trust\n")?;
    let server = lab.pod(POD).spawn("postgres", command).await?;
    listening(lab, 5432, &server).await?;

    let mut stream = eventually(SOON, "PostgreSQL lets its client in", async || log_in(lab).await).await?;
    let query = b"select 6 * 7\0";
    stream.write_all(b"Q").await?;
    stream
        .write_all(&u32::try_from(query.len() + 4)?.to_be_bytes())
        .await?;
    stream.write_all(query).await?;
    let messages = until_ready(&mut stream).await?;
    let row = messages
        .iter()
        .find(|(kind, _)| *kind == b'D')
        .context("no row")?;
    ensure!(row.1.ends_with(b"42"), "{row:?}");
    Ok(())
}

/// Connects as every client does: asks for TLS, is told no, and names its user.
async fn log_in(lab: &Lab) -> anyhow::Result<TcpStream> {
    let mut stream = lab.pod("web").connect("own:5432").await?;
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    let mut no = [0; 1];
    timeout(SOON / 2, stream.read_exact(&mut no))
        .await
        .context("no answer to SSLRequest")??;
    ensure!(&no == b"N", "{no:?}");
    let parameters = b"\0\x03\0\0user\0web\0database\0postgres\0\0";
    let length = u32::try_from(parameters.len() + 4)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(parameters).await?;
    until_ready(&mut stream).await?;
    Ok(stream)
}

/// Reads messages up to ReadyForQuery.
async fn until_ready(stream: &mut TcpStream) -> anyhow::Result<Vec<(u8, Vec<u8>)>> {
    let mut messages = Vec::new();
    loop {
        let mut head = [0; 5];
        timeout(SOON, stream.read_exact(&mut head))
            .await
            .context("PostgreSQL is silent")??;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length)?.saturating_sub(4)];
        timeout(SOON, stream.read_exact(&mut body)).await??;
        ensure!(head[0] != b'E', "an error: {}", String::from_utf8_lossy(&body));
        let ready = head[0] == b'Z';
        messages.push((head[0], body));
        if ready {
            return Ok(messages);
        }
    }
}

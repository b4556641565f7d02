//! `hauberk-floor`: the smallest sensible proxy on the same libraries, without any policy, and the backend that
//! all proxies are measured with. `hauberk-bench` starts both; neither is ever shipped.
//!
//! The distance between Hauberk and this is what its features cost.

mod backend;
mod forward;
mod pool;
mod proxy;
mod tcp;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "hauberk-floor", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pass on everything from one address to another.
    Proxy(Proxy),
    /// Answer on port 8080 (HTTP/1.1), 8081 (HTTP/2) and 9000 to 9002 (TCP: echo, source, sink).
    Backend,
}

/// One listener and one upstream.
#[derive(Args, Debug)]
struct Proxy {
    /// Listen here.
    #[arg(long)]
    listen: SocketAddr,
    /// Send everything there.
    #[arg(long)]
    to: SocketAddr,
    /// What is spoken downstream.
    #[arg(long)]
    downstream: Protocol,
    /// What is spoken upstream.
    #[arg(long)]
    upstream: Protocol,
    /// Mutual TLS downstream.
    #[arg(long)]
    downstream_tls: bool,
    /// Mutual TLS upstream.
    #[arg(long)]
    upstream_tls: bool,
    /// Make a full TLS handshake for every connection.
    #[arg(long)]
    no_resumption: bool,
    /// Where `root.pem`, `cert.pem` and `key.pem` are.
    #[arg(long, default_value = ".")]
    certificates: PathBuf,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Protocol {
    Http1,
    Http2,
    Tcp,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hauberk-floor: {error}");
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    let outcome = local.block_on(&runtime, async {
        match command {
            Command::Proxy(options) => proxy::run(options).await,
            Command::Backend => backend::run().await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hauberk-floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

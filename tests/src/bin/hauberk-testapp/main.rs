//! The application in the lab's pods: HTTP, gRPC and TCP servers that say who they are and fail on demand.
//!
//! Started by the lab, one process for each kind of port, and by tests on a cluster; `load` is a client for shells,
//! `caller` one for tests. Never shipped, and it trusts whoever reaches it.

mod accept;
mod caller;
mod control;
mod grpc;
mod http;
mod load;
mod state;
mod tcp;
mod upgrade;

use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use accept::{Server, Speaks};
use state::State;

/// The lab's test application.
#[derive(Debug, Parser)]
#[command(name = "hauberk-testapp", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// HTTP/1.1 and HTTP/2 without TLS.
    Http(Serve),
    /// A gRPC echo.
    Grpc(Serve),
    /// Echoes lines in upper case.
    Tcp {
        #[command(flatten)]
        serve: Serve,
        /// Sent before the client says anything.
        #[arg(long, default_value = "220 ready", conflicts_with = "silent")]
        greeting: String,
        /// Wait for the client to speak first.
        #[arg(long)]
        silent: bool,
    },
    /// Make many calls and print what became of them.
    Load(load::Options),
    /// Make calls and loads when asked to over HTTP.
    Caller {
        /// Listen here.
        #[arg(long, default_value_t = tests::caller::CALLER_PORT)]
        port: u16,
    },
    /// Do nothing until SIGTERM.
    Pause,
}

/// What all servers have in common.
#[derive(Args, Debug)]
struct Serve {
    /// Listen here; may be given several times.
    #[arg(long = "port", required = true)]
    ports: Vec<u16>,
    /// Listen here for control.
    #[arg(long)]
    control_port: Option<u16>,
    /// The service that answers belong to.
    #[arg(long, default_value = "app")]
    service: String,
    /// The version that answers name.
    #[arg(long, default_value = "none")]
    version: String,
    /// The pod that answers name.
    #[arg(long, default_value = "none")]
    pod: String,
    /// After SIGTERM: how long to go on serving while anybody is connected.
    #[arg(long, default_value_t = 10_000)]
    grace_ms: u64,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hauberk-testapp: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Http(options) => serve(options, Speaks::Http).await,
            Command::Grpc(options) => serve(options, Speaks::Grpc).await,
            Command::Tcp {
                serve: options,
                greeting,
                silent,
            } => {
                serve(
                    options,
                    Speaks::Lines {
                        greeting: (!silent).then_some(greeting),
                    },
                )
                .await
            }
            Command::Load(options) => load::run(options).await,
            Command::Caller { port } => caller::serve(listen(port).await?).await,
            Command::Pause => {
                signal(SignalKind::terminate())?.recv().await;
                Ok(())
            }
        }
    })
}

async fn serve(options: Serve, speaks: Speaks) -> anyhow::Result<()> {
    let Serve {
        ports,
        control_port,
        service,
        version,
        pod,
        grace_ms,
    } = options;
    let state = Arc::new(State::new(service, version, pod));
    let mut listeners = Vec::new();
    for port in ports {
        listeners.push(listen(port).await?);
    }
    if let Some(port) = control_port {
        tokio::spawn(control::serve(listen(port).await?, Arc::clone(&state)));
    }
    Server::new(state, speaks)
        .run(listeners, Duration::from_millis(grace_ms))
        .await
}

/// IPv6 sockets take IPv4 connections too; a kernel without IPv6 has only the latter.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match TcpListener::bind(both).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        Err(_no_ipv6) => TcpListener::bind(("0.0.0.0", port)).await,
        Ok(listener) => Ok(listener),
    }
    .with_context(|| format!("cannot listen on port {port}"))
}

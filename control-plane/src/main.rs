//! The operator's binary: reads settings and carries out one command. `run` wires the operator itself.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use control_plane::authority::{self, AuthoritySettings, Store};
use control_plane::settings::{self, Command, Format, KeysAt, RotateRoot, Run, SettingsError};
use control_plane::{admin, run, status};

/// More would not make pushes faster, and the operator is to leave room for others.
const MAX_WORKERS: usize = 2;

fn main() -> ExitCode {
    let command = match settings::read() {
        Ok(command) => command,
        // Also for `--help`, which is no failure; clap knows the code for each.
        Err(SettingsError::Usage(usage)) => usage.exit(),
        Err(error) => {
            eprintln!("hauberk-control-plane: {error}");
            return ExitCode::from(2);
        }
    };
    match carry_out(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hauberk-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(settings) => {
            log(&settings);
            runtime()?.block_on(run::run(*settings))
        }
        Command::Token(token) => {
            let text = authority::mint(
                &token.state_dir,
                &token.namespace,
                &token.service_account,
                &token.pod,
                token.lifetime,
            )?;
            println!("{text}");
            Ok(())
        }
        Command::Status(settings) => {
            let status = runtime()?.block_on(admin::ask_status(settings.admin))?;
            match settings.output {
                Format::Text => print!("{}", status::render(&status)),
                Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
            }
            Ok(())
        }
        Command::RotateRoot(settings) => runtime()?.block_on(rotate_root(settings)),
    }
}

async fn rotate_root(settings: RotateRoot) -> anyhow::Result<()> {
    let store = match settings.keys {
        KeysAt::Directory(path) => Store::directory(&path),
        KeysAt::Kubernetes => {
            let client = kube::Client::try_default().await;
            Store::secret(client.context("source: there is no way to a Kubernetes API server")?)
        }
    };
    let AuthoritySettings {
        trust_domain,
        lifetime,
    } = settings.authority;
    let now = std::time::SystemTime::now();
    let step = authority::rotate(&store, &trust_domain, lifetime, now).await?;
    println!("{step}");
    Ok(())
}

fn log(settings: &Run) {
    let filter = tracing_subscriber::EnvFilter::new(&settings.log);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        Format::Text => builder.init(),
        Format::Json => builder.json().init(),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.min(MAX_WORKERS))
        .enable_all()
        .build()
}

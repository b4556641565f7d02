//! `hauberk`, the command line of Hauberk's users: whether a cluster is fit and an installation healthy (`check`), what
//! became of objects and proxies (`status`), pods of a file with proxies in them (`inject`), and manifests for Istio as ours
//! (`convert`), and what would become of a request (`explain`). It reads and never changes anything in a cluster.

mod ask;
mod check;
mod connect;
mod convert;
mod explain;
mod facts;
mod file;
mod settings;
mod status;
mod table;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use settings::{Command, Format, Settings};

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(carry_out(settings)));
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hauberk: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn carry_out(settings: Settings) -> anyhow::Result<ExitCode> {
    let client = connect::client(&settings.connection);
    match settings.command {
        Command::Convert { file } => convert::convert(&file),
        Command::Explain(asked) => explain::explain(*asked).await,
        Command::Inject {
            file,
            config,
            image,
            native,
        } => file::inject(&file, &file::config(config.as_deref(), image, native)?),
        Command::Check { pre, output } => {
            let client = client.await?;
            let findings = if pre {
                check::before(&ask::before(&client).await)
            } else {
                check::installation(&ask::installation(&client).await)
            };
            match output {
                Format::Text => print!("{}", check::text(&findings)),
                Format::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
            }
            let failed = findings.iter().any(|f| f.outcome == check::Outcome::Fail);
            Ok(ExitCode::from(u8::from(failed)))
        }
        Command::Status { namespace, output } => {
            let client = client.await?;
            let replicas = ask::replicas(&client).await.map_err(anyhow::Error::msg)?;
            anyhow::ensure!(
                !replicas.is_empty(),
                "no operator runs in {}: `hauberk check` says more",
                api::names::ROOT_NAMESPACE
            );
            let mesh = status::join(&replicas, namespace.as_deref());
            match output {
                Format::Text => print!("{}", status::text(&mesh)),
                Format::Json => println!("{}", serde_json::to_string_pretty(&mesh)?),
            }
            // What could not be asked is missing above, which scripts must be able to tell.
            Ok(ExitCode::from(u8::from(!mesh.silent.is_empty())))
        }
    }
}

//! `hauberk-images`: writes a folder as a container image, one layer in an OCI archive, without Docker or a registry.
//!
//! `scripts/images.sh` calls it once an image. Equal folders give equal bytes: times, owners and order are fixed. The
//! archive can be read by `ctr images import`, `docker load`, `podman load` and `skopeo`.

mod archive;
mod image;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

use image::Image;

/// Writes a folder as an OCI image archive and prints its size and digest.
#[derive(Debug, Parser)]
#[command(name = "hauberk-images", version)]
struct Arguments {
    /// The folder that becomes the image's root.
    #[arg(long)]
    root: PathBuf,
    /// The archive to write.
    #[arg(long)]
    out: PathBuf,
    /// A full name with tag, such as `localhost/hauberk-proxy:dev`; may be given several times.
    #[arg(long = "name", required = true)]
    names: Vec<String>,
    /// What runs; may be given several times, word by word.
    #[arg(long)]
    entrypoint: Vec<String>,
    /// What runs is given these words where nobody says otherwise.
    #[arg(long)]
    command: Vec<String>,
    /// `user:group`, as numbers.
    #[arg(long)]
    user: String,
    /// `NAME=value` of the environment; may be given several times.
    #[arg(long)]
    env: Vec<String>,
    /// `name=value`; may be given several times.
    #[arg(long = "label")]
    labels: Vec<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hauberk-images: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        root,
        out,
        names,
        entrypoint,
        command,
        user,
        env,
        labels,
    } = arguments;
    for name in &names {
        // Docker would complete a short name, containerd would not find it again.
        if !name.contains('/') || !name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            bail!("--name {name}: expected registry, path and tag, such as localhost/app:dev");
        }
    }
    let pairs = |given: &[String]| -> anyhow::Result<Vec<(String, String)>> {
        let pair = |text: &String| {
            let (name, value) = text
                .split_once('=')
                .with_context(|| format!("{text}: expected name=value"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        given.iter().map(pair).collect()
    };
    pairs(&env)?;
    let image = Image {
        names,
        entrypoint,
        command,
        user,
        env,
        labels: pairs(&labels)?.into_iter().collect(),
    };
    let written = image.archive(archive::of_folder(&root)?)?;
    std::fs::write(&out, &written.bytes).with_context(|| format!("cannot write {}", out.display()))?;
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let mebibytes = written.layer as f64 / f64::from(1 << 20);
    println!("{:<46} {mebibytes:>6.1} MiB  {}", image.names[0], written.digest);
    Ok(())
}

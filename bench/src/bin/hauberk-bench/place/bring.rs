//! Makes the programs of the peers reachable for the proxies' user, who may not look into its builder's home.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tests::lab;

use crate::peer::{Peer, Programs};

/// Where they are, from the folder that `scripts/bench-peers.sh` printed.
pub(super) fn programs(brought: Option<&Path>) -> anyhow::Result<Programs> {
    let mut programs = Programs {
        floor: lab::reachable(&beside("hauberk-floor")?, "hauberk-floor")?,
        ..Programs::default()
    };
    let Some(brought) = brought else {
        return Ok(programs);
    };
    for peer in Peer::foreign() {
        let program = brought.join("bin").join(peer.name());
        if !program.is_file() {
            continue;
        }
        let real = program
            .canonicalize()
            .with_context(|| format!("cannot follow {}", program.display()))?;
        let path = Some(lab::reachable(&real, peer.name())?);
        match peer {
            Peer::Envoy => programs.envoy = path,
            Peer::Nginx => programs.nginx = path,
            Peer::Haproxy => programs.haproxy = path,
            Peer::Direct | Peer::Hauberk | Peer::Floor => {}
        }
    }
    let floor_folder = programs
        .floor
        .parent()
        .context("a program stands in a folder")?
        .to_owned();
    let unpacked = brought.join("unpacked/usr/lib");
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    programs.libraries = copy(&unpacked.join(triple), &floor_folder.join("libraries"))?;
    programs.modules = copy(&unpacked.join("nginx/modules"), &floor_folder.join("modules"))?;
    Ok(programs)
}

/// Copies the files of a folder, if there is one, for everyone to read.
fn copy(from: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_file() {
            std::fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(to.to_owned())
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        bail!("{} is not built: run `make bench`", path.display());
    }
    Ok(path)
}

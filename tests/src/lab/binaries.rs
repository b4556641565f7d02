//! Finds the programs that the lab runs.
//!
//! They stand beside the test's own program in Cargo's target folder, or in `HAUBERK_BIN_DIR`. Inside the lab each
//! is bound to a path that every user may reach, since a pod's proxy runs under another user id than its builder.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};

use super::hub::RUN;

/// A program of this workspace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Binary {
    /// The data plane.
    Proxy,
    /// The operator.
    ControlPlane,
    /// The application in the lab's pods.
    TestApp,
}

impl Binary {
    /// The program's file name.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Proxy => "hauberk-proxy",
            Binary::ControlPlane => "hauberk-control-plane",
            Binary::TestApp => "hauberk-testapp",
        }
    }

    /// A path to it that every user id in the lab may execute.
    pub fn path(self) -> anyhow::Result<PathBuf> {
        let built = find(self.name())?;
        reachable(&built, self.name())
    }
}

/// Binds `program` below the lab's `/run` as `name`, once, and returns that path.
pub fn reachable(program: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = Path::new(RUN).join("bin");
    let target = folder.join(name);
    if target.exists() {
        return Ok(target);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    File::create(&target).with_context(|| format!("cannot create {}", target.display()))?;
    let bound = mount(
        Some(program),
        &target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    );
    if let Err(error) = bound {
        // Without the mount the empty file would be taken for the program next time.
        std::fs::remove_file(&target).context("cannot remove an unused mount point")?;
        bail!(
            "cannot bind {} to {}: {error}",
            program.display(),
            target.display()
        );
    }
    Ok(target)
}

fn find(name: &str) -> anyhow::Result<PathBuf> {
    let folders = match std::env::var_os("HAUBERK_BIN_DIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => beside(&std::env::current_exe().context("cannot find this program's own path")?),
    };
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| {
        let looked: Vec<String> = folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        format!(
            "{name} is not built (looked in {}): run `make build`, or set HAUBERK_BIN_DIR",
            looked.join(", ")
        )
    })
}

/// The target folder's profile folder: tests run from `deps/` below it, programs from itself.
fn beside(program: &Path) -> Vec<PathBuf> {
    program.ancestors().skip(1).take(2).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_beside_a_test_and_one_folder_above() {
        let folders = beside(Path::new("/w/target/debug/deps/lab-1234"));
        assert_eq!(
            folders,
            [Path::new("/w/target/debug/deps"), Path::new("/w/target/debug")]
        );
    }

    #[test]
    fn a_missing_program_is_named_with_the_command_that_builds_it() {
        let error = find("hauberk-nothing").unwrap_err().to_string();
        assert!(
            error.contains("hauberk-nothing is not built") && error.contains("make build"),
            "{error}"
        );
    }
}

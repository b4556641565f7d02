//! The names of the images under test, and the archives they come from.
//!
//! On a cluster of the tests' own they are those that `make images` wrote. On the user's they must have been pushed:
//! `E2E_IMAGES` names the registry and path before `/proxy`, `/control-plane` and `/testapp`, `E2E_TAG` the tag.

use std::path::PathBuf;

use anyhow::{Context, bail};

const NAMES: [&str; 3] = ["proxy", "control-plane", "testapp"];

/// The images under test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Images {
    /// The proxy's.
    pub proxy: String,
    /// The operator's.
    pub control_plane: String,
    /// That of the test application.
    pub testapp: String,
}

impl Images {
    /// Those that `make images` wrote.
    pub(super) fn local() -> Images {
        Images::named(|name| format!("localhost/hauberk-{name}:dev"))
    }

    /// Those in the user's registry.
    pub(super) fn pushed() -> anyhow::Result<Images> {
        let prefix = std::env::var("E2E_IMAGES").context(
            "E2E_IMAGES is not set: push the images of `make images` to a registry that the cluster of KUBECONFIG \
             reads, and name what stands before /proxy, such as registry.example/hauberk",
        )?;
        let tag = std::env::var("E2E_TAG").unwrap_or_else(|_unset| env!("CARGO_PKG_VERSION").to_owned());
        Ok(Images::named(|name| {
            format!("{}/{name}:{tag}", prefix.trim_end_matches('/'))
        }))
    }

    fn named(name: impl Fn(&str) -> String) -> Images {
        let [proxy, control_plane, testapp] = NAMES.map(name);
        Images {
            proxy,
            control_plane,
            testapp,
        }
    }

    /// The archives that hold the local ones: those in `HAUBERK_IMAGES`.
    pub(super) fn archives() -> anyhow::Result<Vec<PathBuf>> {
        let folder = std::env::var_os("HAUBERK_IMAGES").context(
            "HAUBERK_IMAGES is not set: run `make e2e`, or set it to the folder that `make images` filled",
        )?;
        let folder = PathBuf::from(folder);
        let archives = NAMES.map(|name| folder.join(format!("{name}.tar")));
        if let Some(missing) = archives.iter().find(|archive| !archive.is_file()) {
            bail!("there is no {}: run `make images`", missing.display());
        }
        Ok(archives.into())
    }
}

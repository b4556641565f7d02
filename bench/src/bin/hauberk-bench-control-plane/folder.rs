//! The folder that the operator watches: written whole before it starts, then one change after another. Files are written
//! beside the folder and moved into their place, as editors and Kubernetes do.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::mesh::{self, Size, What};

/// The folder, with the newest generation of everything in it.
#[derive(Debug)]
pub(crate) struct Folder {
    size: Size,
    root: PathBuf,
    draft: PathBuf,
    generations: HashMap<(What, usize), u64>,
}

impl Folder {
    /// Writes a mesh into a new folder `config` below `dir`.
    pub(crate) fn write(dir: &Path, size: Size) -> anyhow::Result<Self> {
        let folder = Self {
            size,
            root: dir.join("config"),
            draft: dir.join("draft"),
            generations: HashMap::new(),
        };
        let mut namespaces = BTreeSet::new();
        for service in 0..size.services {
            let (file, text) = mesh::namespace_manifest(service);
            if namespaces.insert(file.clone()) {
                std::fs::create_dir_all(folder.root.join(file.trim_end_matches(".yaml")))?;
                folder.put((file, text))?;
            }
            folder.put(mesh::service_manifest(service))?;
            folder.put(mesh::route_manifest(service, 0))?;
            for replica in 0..size.endpoints_each {
                folder.put(mesh::pod_manifest(&size, service, replica, 0))?;
            }
            folder.put(mesh::slice_manifest(&size, service, 0))?;
        }
        Ok(folder)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The generation that the next change of this will have.
    pub(crate) fn next(&mut self, what: What, service: usize) -> u64 {
        let generation = self.generations.entry((what, service)).or_default();
        *generation += 1;
        *generation
    }

    /// Makes a change of a generation from [`Self::next`].
    pub(crate) fn change(&self, what: What, service: usize, generation: u64) -> anyhow::Result<()> {
        match what {
            What::Endpoint => {
                let last = self.size.endpoints_each - 1;
                self.put(mesh::pod_manifest(&self.size, service, last, generation))?;
                self.put(mesh::slice_manifest(&self.size, service, generation))
            }
            What::Route => self.put(mesh::route_manifest(service, generation)),
        }
    }

    fn put(&self, (file, text): (String, String)) -> anyhow::Result<()> {
        let place = self.root.join(file);
        std::fs::write(&self.draft, text)
            .with_context(|| format!("cannot write {}", self.draft.display()))?;
        std::fs::rename(&self.draft, &place).with_context(|| format!("cannot write {}", place.display()))
    }
}

//! An OCI image of one layer, and the archive that holds it. Pure: bytes in, bytes out.
//!
//! Layout as in the OCI image format specification 1.0, with Docker's `manifest.json` beside it, for versions of
//! `docker load` that do not read the layout.

use std::collections::BTreeMap;
use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::archive::Archive;

/// What an image says beside its files.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) names: Vec<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) user: String,
    pub(crate) env: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// An image as a file.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    /// The manifest's digest: what `image@sha256:…` names.
    pub(crate) digest: String,
    /// The layer's size in bytes.
    pub(crate) layer: usize,
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

impl Image {
    /// The OCI archive of this image with `layer`, a tar archive, as its files.
    pub(crate) fn archive(&self, layer: Vec<u8>) -> anyhow::Result<Written> {
        let layer_digest = sha256(&layer);
        let config = serde_json::to_vec(&self.config(&layer_digest))?;
        let config_digest = sha256(&config);
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer_digest,
                "size": layer.len(),
            }],
        }))?;
        let manifest_digest = sha256(&manifest);
        let named = self.names.iter().map(|name| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest_digest,
                "size": manifest.len(),
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name,
                },
            })
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": named.collect::<Vec<_>>(),
        });
        let docker = json!([{
            "Config": blob(&config_digest),
            "RepoTags": self.names,
            "Layers": [blob(&layer_digest)],
        }]);
        let mut archive = Archive::default();
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.file("index.json", &serde_json::to_vec(&index)?)?;
        archive.file("manifest.json", &serde_json::to_vec(&docker)?)?;
        archive.file(&blob(&manifest_digest), &manifest)?;
        archive.file(&blob(&config_digest), &config)?;
        archive.file(&blob(&layer_digest), &layer)?;
        Ok(Written {
            bytes: archive.finish(),
            digest: manifest_digest,
            layer: layer.len(),
        })
    }

    fn config(&self, layer_digest: &str) -> Value {
        json!({
            "created": EPOCH,
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": self.user,
                "Env": self.env,
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            "history": [{"created": EPOCH, "created_by": "hauberk-images"}],
        })
    }
}

/// This machine's architecture, as images call it: the programs were built for it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in digest(&SHA256, bytes).as_ref() {
        let _never_fails = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image {
            names: vec!["localhost/a:dev".to_owned(), "docker.io/h/a:1".to_owned()],
            entrypoint: vec!["/a".to_owned()],
            command: Vec::new(),
            user: "7:7".to_owned(),
            env: vec!["PATH=/bin".to_owned()],
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn every_digest_is_that_of_the_bytes_under_its_path() {
        let temp = tempfile::tempdir().unwrap();
        let written = image().archive(b"layer".to_vec()).unwrap();
        let file = temp.path().join("a.tar");
        std::fs::write(&file, &written.bytes).unwrap();
        let unpacked = std::process::Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .current_dir(temp.path())
            .status()
            .unwrap();
        assert!(unpacked.success());
        let read = |path: &str| std::fs::read(temp.path().join(path)).unwrap();
        let parse = |path: &str| serde_json::from_slice::<Value>(&read(path)).unwrap();
        let index = parse("index.json");
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        let manifest = &index["manifests"][0];
        assert_eq!(manifest["digest"], written.digest.as_str());
        let manifest = parse(&blob(&written.digest));
        for part in [&manifest["config"], &manifest["layers"][0]] {
            let digest = part["digest"].as_str().unwrap();
            let bytes = read(&blob(digest));
            assert_eq!(sha256(&bytes), digest);
            assert_eq!(part["size"], bytes.len());
        }
        let config = parse(&blob(manifest["config"]["digest"].as_str().unwrap()));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(parse("manifest.json")[0]["RepoTags"][0], "localhost/a:dev");
    }

    #[test]
    fn equal_images_have_equal_bytes_and_a_changed_layer_another_digest() {
        let one = image().archive(b"layer".to_vec()).unwrap();
        let two = image().archive(b"layer".to_vec()).unwrap();
        assert_eq!((one.bytes, &one.digest), (two.bytes, &two.digest));
        assert_ne!(one.digest, image().archive(b"other".to_vec()).unwrap().digest);
    }
}

//! Images made in memory, and a store in a temporary directory.
//! In: files. Out: layers, manifests, indexes as a registry serves them; an opened store.
//! Never: touches the network.

use crate::registry::FakeRegistry;
use lighter_image::{
    Digest, ImageStore, ImageStoreConfig, PullError, PullOptions, PullProgress, PulledImage, RegistryHost,
};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A layer's archive under construction.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn entry(
        mut self,
        kind: tar::EntryType,
        path: &str,
        mode: u32,
        owner: u64,
        data: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_600_000_000);
        if kind == tar::EntryType::Char {
            // /dev/null's.
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        self.0.append_data(&mut header, path, data).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, 0o644, 0, data)
    }

    pub(crate) fn dir(self, path: &str, mode: u32, owner: u64) -> Self {
        self.entry(tar::EntryType::Directory, path, mode, owner, b"")
    }

    pub(crate) fn link(mut self, kind: tar::EntryType, path: &str, to: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        self.0.append_link(&mut header, path, to).unwrap();
        self
    }

    pub(crate) fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A large layer that does not compress: `mib` files of 1 MiB.
pub(crate) fn large_layer(mib: usize, seed: u64) -> Vec<u8> {
    let mut layer = Layer::new();
    let mut state = seed | 1;
    for number in 0..mib {
        let mut data = Vec::with_capacity(1 << 20);
        while data.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            data.extend_from_slice(&state.to_le_bytes());
        }
        layer = layer.file(&format!("big/{seed}-{number}"), &data);
    }
    layer.tar()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image: tars bottom first, each with its compression (`gzip`, `zstd`, ``).
pub(crate) struct Image {
    pub(crate) layers: Vec<(Vec<u8>, &'static str)>,
    pub(crate) architecture: &'static str,
    pub(crate) docker: bool,
    pub(crate) config: Value,
}

/// What a registry serves of it.
pub(crate) struct Served {
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: &'static str,
    pub(crate) digest: Digest,
    /// Compressed layers, bottom first.
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
}

impl Image {
    pub(crate) fn of(layers: Vec<Vec<u8>>) -> Self {
        Self {
            layers: layers.into_iter().map(|l| (l, "gzip")).collect(),
            architecture: "amd64",
            docker: false,
            config: json!({"Cmd": ["/bin/true"], "Env": ["A=b"], "Volumes": {"/data": {}}}),
        }
    }

    pub(crate) fn serve(&self) -> Served {
        let diff_ids: Vec<String> = self.layers.iter().map(|(tar, _)| Digest::of(tar).to_string()).collect();
        let config = json!({"os": "linux", "architecture": self.architecture, "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into_bytes();
        let mut blobs = Vec::new();
        let mut descriptors = Vec::new();
        for (tar, compression) in &self.layers {
            let (blob, suffix) = match *compression {
                "gzip" => (gzip(tar), "+gzip"),
                "zstd" => (zstd::stream::encode_all(tar.as_slice(), 1).unwrap(), "+zstd"),
                _ => (tar.clone(), ""),
            };
            let media_type = match self.docker {
                true => "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned(),
                false => format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            };
            descriptors
                .push(json!({"mediaType": media_type, "digest": Digest::of(&blob), "size": blob.len()}));
            blobs.push(blob);
        }
        let (media_type, config_type) = match self.docker {
            true => (DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json"),
            false => (OCI_MANIFEST, "application/vnd.oci.image.config.v1+json"),
        };
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "layers": descriptors,
            "config": {"mediaType": config_type, "digest": Digest::of(&config), "size": config.len()}})
        .to_string()
        .into_bytes();
        Served { digest: Digest::of(&manifest), manifest, media_type, blobs, config }
    }
}

/// A store in a directory of its own, with the test's registries allowed over plain HTTP.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: ImageStoreConfig,
}

impl Fixture {
    pub(crate) fn new(registries: &[&FakeRegistry]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        let mut config = ImageStoreConfig::new(dir.path().join("images"));
        config.retry.first_backoff_ms = 5;
        config.retry.max_backoff_ms = 20;
        config.timeouts.inactivity_ms = 400;
        config.timeouts.connect_ms = 2000;
        for registry in registries {
            let host = RegistryHost { http_allowed: true, ..Default::default() };
            config.registries.hosts.insert(registry.host(), host);
        }
        Self { dir, config }
    }

    pub(crate) fn open(&self) -> ImageStore {
        ImageStore::open(self.config.clone()).unwrap()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.config.root.clone()
    }
}

/// Pulls with the platform of the images made here.
pub(crate) async fn pull(store: &ImageStore, reference: &str) -> Result<PulledImage, PullError> {
    store.resolve_and_pull(reference, &options(), |_: PullProgress| {}).await
}

pub(crate) fn options() -> PullOptions {
    let mut options = PullOptions::default();
    options.platform.architecture = "amd64".into();
    options.platform.variant = None;
    options
}

/// An error with all its causes, as the agent prints it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text.push_str(": ");
        text.push_str(&one.to_string());
        cause = one.source();
    }
    text
}

/// The directory a layer of an image is unpacked in.
pub(crate) fn layer_dir(root: &Path, image: &PulledImage, index: usize) -> PathBuf {
    root.join("layers").join(image.layers[index].as_str().trim_start_matches("sha256:")).join("diff")
}

/// Nothing half-made: temporary places are empty, every layer has its record.
pub(crate) fn assert_nothing_half_made(root: &Path) {
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(root.join(dir)).unwrap();
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    eventually("tmp and trash are empty", || names("tmp").is_empty() && names("trash").is_empty());
    for layer in names("layers") {
        assert!(root.join("layers").join(&layer).join("layer.json").is_file(), "{layer}");
    }
    assert!(names("damaged").is_empty(), "{:?}", names("damaged"));
}

/// Waits for a condition, with a deadline.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

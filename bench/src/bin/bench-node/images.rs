//! The benchmark's image and a registry to pull it from.
//! In: cc, tar, skopeo, docker-registry of Debian. Out: an OCI layout and its name in the registry.

use crate::probes::{self, Shell};
use crate::processes::{Daemon, command_ok};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// An OCI layout with one image of one layer.
pub(crate) struct Image {
    pub(crate) layout: PathBuf,
}

/// Compiles the program and lays it out as an OCI image, by hand, so that nothing but cc is needed.
pub(crate) fn build(scratch: &Path) -> Result<Image> {
    let root = scratch.join("rootfs");
    for dir in ["bench", "etc", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/bench-node/first_instruction.c");
    command_ok(Command::new("cc").args(["-static", "-O2", "-s", "-o"]).arg(root.join("first")).arg(source))?;
    for shell in probes::shells() {
        add_shell(&root, shell)?;
    }
    let layout = scratch.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let tar = scratch.join("layer.tar");
    command_ok(
        Command::new("tar")
            .args(["--numeric-owner", "--owner=0", "--group=0", "-cf"])
            .arg(&tar)
            .arg("-C")
            .arg(&root)
            .arg("."),
    )?;
    let diff_id = sha256(&tar)?;
    command_ok(Command::new("gzip").args(["-n", "-k"]).arg(&tar))?;
    let layer = put(&blobs, &std::fs::read(tar.with_extension("tar.gz"))?)?;
    let config = put(
        &blobs,
        serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["/first"], "Env": ["PATH=/:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        })
        .to_string()
        .as_bytes(),
    )?;
    let manifest = put(&blobs, serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer.0, "size": layer.1}],
    }).to_string().as_bytes())?;
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    std::fs::write(layout.join("index.json"), serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.0, "size": manifest.1,
            "annotations": {"org.opencontainers.image.ref.name": "bench"}}],
    }).to_string())?;
    Ok(Image { layout })
}

/// A shell of the host with the libraries that ldd(1) names, for health checks; it fails where there are none.
fn add_shell(root: &Path, shell: &Shell) -> Result<()> {
    let libraries = command_ok(Command::new("ldd").arg(shell.on_host)).unwrap_or_default();
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for (file, inside) in libraries.map(|file| (file, file)).chain([(shell.on_host, shell.inside)]) {
        let inside = root.join(inside.trim_start_matches('/'));
        std::fs::create_dir_all(inside.parent().context("a library lies in a directory")?)?;
        // A copy of what a link points to, under the name that is looked for.
        std::fs::copy(file, &inside).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let text = command_ok(Command::new("sha256sum").arg(path))?;
    Ok(text.split_whitespace().next().context("sha256sum prints a digest")?.to_owned())
}

/// Stores a blob under its digest.
fn put(blobs: &Path, bytes: &[u8]) -> Result<(String, usize)> {
    let temporary = blobs.join("new");
    std::fs::write(&temporary, bytes)?;
    let digest = sha256(&temporary)?;
    std::fs::rename(&temporary, blobs.join(&digest))?;
    Ok((format!("sha256:{digest}"), bytes.len()))
}

/// Debian's docker-registry on the loopback of our own network namespace.
pub(crate) struct Registry {
    _daemon: Daemon,
}

impl Registry {
    pub(crate) const ADDRESS: &'static str = "127.0.0.1:5000";
    /// The name under which the image is pulled.
    pub(crate) const REFERENCE: &'static str = "127.0.0.1:5000/bench:1";

    pub(crate) async fn start(scratch: &Path) -> Result<Self> {
        let config = scratch.join("registry.yml");
        let storage = scratch.join("registry");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {}}}\n",
                storage.display(),
                Self::ADDRESS
            ),
        )?;
        let log = scratch.join("registry.log");
        let daemon = Daemon::start(Command::new("docker-registry").arg("serve").arg(&config), &log)?;
        let began = Instant::now();
        while tokio::net::TcpStream::connect(Self::ADDRESS).await.is_err() {
            anyhow::ensure!(
                began.elapsed() < Duration::from_secs(20),
                "docker-registry does not answer, see {}",
                log.display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { _daemon: daemon })
    }

    pub(crate) fn push(&self, image: &Image) -> Result<()> {
        let source = format!("oci:{}:bench", image.layout.display());
        let target = format!("docker://{}", Self::REFERENCE);
        command_ok(Command::new("skopeo").args([
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &source,
            &target,
        ]))?;
        Ok(())
    }
}

//! The Debian guest: made once by guest/build-image.sh, kept under the hash of its inputs.
//! In: guest/*, Debian's current kernel version. Out: kernel, initrd, root disk, SSH key.
//! Owns: `vm-cache/image-<hash>`. Never: boots it.

use crate::host;
use anyhow::{Context, Result, bail};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The files of a guest that can be booted.
#[derive(Clone)]
pub struct GuestImage {
    pub folder: PathBuf,
}

impl GuestImage {
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.raw")
    }
    pub fn key(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// The cached image, made now if an input changed.
    pub fn ensure() -> Result<Self> {
        let folder = host::cache_dir().join(format!("image-{}", fingerprint()?));
        if !folder.join("root.raw").exists() {
            build(&folder)?;
        }
        Ok(Self { folder })
    }
}

fn guest_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest")
}

/// A hash of all that decides what the image holds.
fn fingerprint() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for name in ["build-image.sh", "packages.txt"] {
        let path = guest_folder().join(name);
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))?.hash(&mut hasher);
    }
    // A new kernel package is the one change of Debian's that matters to the scenarios.
    host::sh("apt-cache policy linux-image-cloud-amd64 | grep Candidate || true")?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// Builds beside the final place and renames, so that an interrupted build is never used.
fn build(folder: &Path) -> Result<()> {
    host::require(&["mmdebstrap", "mke2fs", "ssh-keygen"])?;
    let cache = host::cache_dir();
    std::fs::create_dir_all(&cache)?;
    remove_old(&cache, "image-");
    eprintln!("vm-test: making the Debian guest image (about a minute)");
    let began = Instant::now();
    let temporary = tempfile::Builder::new().prefix("new-image-").tempdir_in(&cache)?;
    let log = cache.join("image-build.txt");
    let status = Command::new("bash")
        .arg(guest_folder().join("build-image.sh"))
        .arg(temporary.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::File::create(&log)?)
        .stderr(std::fs::OpenOptions::new().append(true).open(&log)?)
        .status()?;
    if !status.success() {
        let words = std::fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<&str> = words.lines().rev().take(15).collect();
        bail!("build-image.sh ended with {status}; last lines, newest first:\n{}", tail.join("\n"));
    }
    match std::fs::rename(temporary.path(), folder) {
        Ok(()) => drop(temporary.keep()),
        // Another run was faster; its image is as good.
        Err(_) if folder.exists() => {}
        Err(error) => return Err(error).context("put the image in place"),
    }
    eprintln!("vm-test: guest image made in {} s", began.elapsed().as_secs());
    Ok(())
}

/// Removes what other inputs made: it only takes room.
pub(crate) fn remove_old(cache: &Path, prefix: &str) {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)) {
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

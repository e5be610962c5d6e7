//! The images of examples/: made once by packaging/demo/images.sh, kept under the hash of that script.
//! In: packaging/demo/*. Out: a folder of OCI layouts. Owns: `vm-cache/example-images-<hash>`.
//! Never: pushes them anywhere.

use crate::host;
use crate::image::remove_old;
use anyhow::{Context, Result};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

const PREFIX: &str = "example-images-";
/// All that the examples name.
const NAMES: &str = "busybox nginx postgres redis";

/// The cached layouts, made now if a script changed.
pub fn ensure() -> Result<PathBuf> {
    let scripts = host::workspace().join("packaging/demo");
    let mut hasher = DefaultHasher::new();
    for name in ["images.sh", "oci-layout.sh", "postgres-entrypoint.sh"] {
        let path = scripts.join(name);
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))?.hash(&mut hasher);
    }
    let cache = host::cache_dir();
    let folder = cache.join(format!("{PREFIX}{:016x}", hasher.finish()));
    if !folder.exists() {
        std::fs::create_dir_all(&cache)?;
        remove_old(&cache, PREFIX);
        let half = tempfile::Builder::new().prefix("new-example-images-").tempdir_in(&cache)?;
        host::sh(&format!("{}/images.sh {} {NAMES}", scripts.display(), half.path().display()))?;
        // Renamed when whole, so that an interrupted build is never used.
        std::fs::rename(half.keep(), &folder).context("put the images in place")?;
    }
    Ok(folder)
}

//! What goes into the guests: a read-only disk with the binaries, packaging/ and the images to serve.
//! In: folders and files of the host. Out: a disk image of fixed size.
//! Owns: the temporary disk file. Never: changes between two guests of one run.
//! A disk and not a copy through the shell: the shell moves 3 MB/s under emulation.

use crate::host;
use anyhow::Result;
use std::path::Path;
use tempfile::{NamedTempFile, TempDir};

/// A loaded machine has seen the size of the saved one, so it is always the same.
const SIZE: &str = "768M";

/// Mounts the disk at /payload in a guest that may have seen another one at the same place.
pub const MOUNT: &str = "blockdev --flushbufs /dev/vdb; mkdir -p /payload; mountpoint -q /payload || mount -t ext4 -o ro,noload /dev/vdb /payload";

/// An empty disk, for the machine that is saved.
pub fn blank() -> Result<NamedTempFile> {
    let folder = tempfile::tempdir()?;
    from_folder(folder.path())
}

/// A folder that becomes the disk.
pub struct Payload {
    folder: TempDir,
}

impl Payload {
    /// The three binaries (without debug information) in bin/, and packaging/ as it is in the checkout.
    pub fn with_lighter(bin_dir: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&host::temporary("payload")).tempdir()?;
        let to = folder.path().display();
        host::sh(&format!("mkdir {to}/bin"))?;
        for name in ["lighter", "lighter-shim", "lighter-oci"] {
            let from = bin_dir.join(name);
            anyhow::ensure!(from.exists(), "{} is missing; `make build` makes it", from.display());
            // Most of a development binary is line tables that no scenario reads.
            host::sh(&format!("strip --strip-debug -o {to}/bin/{name} {}", from.display()))?;
        }
        host::sh(&format!("cp -a {}/packaging {to}/packaging", host::workspace().display()))?;
        host::sh(&format!("cp -a {}/vm-test/guest {to}/guest", host::workspace().display()))?;
        Ok(Self { folder })
    }

    /// A folder with nothing but the guest's scripts, to try the harness without Lighter.
    pub fn bare() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&host::temporary("payload")).tempdir()?;
        host::sh(&format!(
            "cp -a {}/vm-test/guest {}/guest",
            host::workspace().display(),
            folder.path().display()
        ))?;
        Ok(Self { folder })
    }

    /// Adds a file or folder of the host under `name`.
    pub fn add(&self, from: &Path, name: &str) -> Result<()> {
        host::sh(&format!("cp -a {} {}/{name}", from.display(), self.folder.path().display())).map(drop)
    }

    /// The disk image.
    pub fn disk(&self) -> Result<NamedTempFile> {
        from_folder(self.folder.path())
    }
}

fn from_folder(folder: &Path) -> Result<NamedTempFile> {
    let file = tempfile::Builder::new().prefix(&host::temporary("payload")).suffix(".ext4").tempfile()?;
    host::sh(&format!(
        "truncate -s {SIZE} {0} && mke2fs -q -F -t ext4 -O ^has_journal -d {1} {0}",
        file.path().display(),
        folder.display()
    ))?;
    Ok(file)
}

//! A layer's tar stream becomes a directory as overlayfs wants it. The stream is hostile input.
//! In: compressed bytes as they arrive. Out: files below one directory, the diff id, what was counted.
//! Owns: one inflating thread a layer, joined before return; buffers of 2 MiB in all.
//! Never: writes outside the directory: every path is resolved by the kernel inside it (openat2 with
//! RESOLVE_IN_ROOT), the last component is made with O_EXCL and never followed. The tar crate gives
//! only the header type: its reader takes name records of any size into memory and splits PAX records
//! at newlines, which binary xattr values contain; its writer knows no whiteouts.

pub mod attributes;
pub mod below;
pub mod entry;
pub(crate) mod inherit;
pub(crate) mod pipeline;
pub(crate) mod place;
pub mod sparse;
pub(crate) mod split;
pub mod stream;
pub(crate) mod write;

use crate::digest::Digest;
use crate::manifest::Compression;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("the layer is not a valid tar archive: {problem}")]
    Format { problem: String },
    #[error("the layer is refused: entry {path:?} {problem}")]
    Hostile { path: String, problem: String },
    #[error("the layer has more than the {limit} {what} allowed")]
    Limit { what: &'static str, limit: u64 },
    #[error("the layer cannot be decompressed")]
    Decompress(#[source] io::Error),
    #[error("{action} {path:?} failed")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the disk fills up: {free_bytes} bytes are free, and {kept_bytes} are kept for running tasks")]
    NoRoom { free_bytes: u64, kept_bytes: u64 },
    #[error("the layer's bytes ended before the layer did")]
    Input,
}

impl UnpackError {
    /// The error of the operating system, if it was one.
    pub(crate) fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn format(problem: impl Into<String>) -> Self {
        Self::Format { problem: problem.into() }
    }

    pub(crate) fn hostile(path: &[u8], problem: impl Into<String>) -> Self {
        Self::Hostile { path: String::from_utf8_lossy(path).into_owned(), problem: problem.into() }
    }

    pub(crate) fn at(action: &'static str, path: &[u8]) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = String::from_utf8_lossy(path).into_owned();
        move |errno| Self::Io { action, path, source: errno.into() }
    }
}

/// What a layer may contain.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Of the decompressed stream, and of its files with their holes.
    pub max_bytes: u64,
    pub max_entries: u64,
}

/// What a layer contained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Of the decompressed stream.
    pub diff_id: Digest,
    /// Sum of the sizes of its files without their holes.
    pub bytes: u64,
    pub entries: u64,
    /// Directories that stand in the way of entries but have none of their own, parents first; the
    /// empty path is the root. They take owner, mode and times from the layers below.
    pub implicit_dirs: Vec<Vec<u8>>,
    /// Hard links to what is not in this layer, in the archive's order; made when those below are there.
    pub links_below: Vec<below::LinkBelow>,
}

/// Where a layer goes.
#[derive(Debug)]
pub(crate) struct Target {
    /// The directory that becomes the layer.
    pub(crate) diff: OwnedFd,
    /// Another directory of the same file system, for deleting what a later entry replaces.
    pub(crate) scratch: OwnedFd,
    /// Bytes that must stay free on that file system.
    pub(crate) min_free_bytes: u64,
}

impl Target {
    /// Makes `dir/diff`.
    pub(crate) fn make(dir: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("diff");
        std::fs::create_dir(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Self::open(dir, 0)
    }

    /// Opens what `make` made.
    pub(crate) fn open(dir: &Path, min_free_bytes: u64) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self {
            diff: rustix::fs::open(dir.join("diff"), flags, Mode::empty())?,
            scratch: rustix::fs::open(dir, flags, Mode::empty())?,
            min_free_bytes,
        })
    }

    /// Refuses to go on when what runs on this machine would soon have no room.
    pub(crate) fn check_room(&self) -> Result<(), UnpackError> {
        self.check_room_for(0)
    }

    /// The same before so many bytes are written.
    pub(crate) fn check_room_for(&self, bytes: u64) -> Result<(), UnpackError> {
        if self.min_free_bytes == 0 {
            return Ok(());
        }
        let stat = rustix::fs::fstatvfs(&self.scratch).map_err(UnpackError::at("measuring", b""))?;
        let (free_bytes, kept_bytes) = (stat.f_bavail * stat.f_frsize, self.min_free_bytes);
        match free_bytes < kept_bytes.saturating_add(bytes) {
            true => Err(UnpackError::NoRoom { free_bytes, kept_bytes }),
            false => Ok(()),
        }
    }
}

/// Unpacks a layer file into `dir/diff`, which must not exist. For benchmarks and tests; a pull does
/// the same while it downloads. The packing is told from the first bytes.
pub fn unpack_file(layer: &Path, dir: &Path, limits: UnpackLimits) -> Result<Unpacked, UnpackError> {
    let io_error = |action: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |source: io::Error| UnpackError::Io { action, path, source }
    };
    let mut input =
        BufReader::with_capacity(256 << 10, File::open(layer).map_err(io_error("opening", layer))?);
    let start = io::BufRead::fill_buf(&mut input).map_err(io_error("reading", layer))?;
    let compression = sniff(start);
    let target = Target::make(dir).map_err(io_error("making", dir))?;
    pipeline::unpack(input, compression, &target, limits)
}

/// How something is packed that begins so.
pub(crate) fn sniff(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Unpacks a tar stream that is not compressed, and reads it to its end.
pub(crate) fn unpack_tar(
    input: impl io::BufRead,
    target: &Target,
    limits: UnpackLimits,
) -> Result<write::Counted, UnpackError> {
    let split = split::SplitWriter::new(target.scratch.as_fd());
    let split =
        split.map_err(|source| UnpackError::Io { action: "making", path: split::SPLIT.into(), source })?;
    let mut stream = stream::TarStream::new(input, Some(split));
    let mut writer = write::Writer::new(target);
    let (mut entries, mut file_bytes) = (0, 0u64);
    while let Some(entry) = stream.next_entry()? {
        entries += 1;
        if entries > limits.max_entries {
            return Err(UnpackError::Limit { what: "entries", limit: limits.max_entries });
        }
        // Holes take no room here, but they do for whoever copies the file.
        file_bytes = file_bytes.saturating_add(entry.file_bytes());
        if file_bytes > limits.max_bytes {
            return Err(UnpackError::Limit {
                what: "bytes of files with their holes",
                limit: limits.max_bytes,
            });
        }
        writer.write(&entry, &mut stream)?;
    }
    stream.finish()?;
    writer.finish(entries)
}

#[cfg(test)]
mod tests;

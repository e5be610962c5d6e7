//! Opening paths below a directory and nowhere else, by the kernel (openat2(2)).
//! In: a descriptor, a path from a stranger. Out: a descriptor. Never: resolves a path itself.

use crate::ArchiveError;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstatfs};
use rustix::io::Errno;

/// File systems whose files are switches of the kernel; statfs(2).
const KERNEL_FILES: [i64; 8] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0xcafe_4a11, // bpf
    0x7363_6673, // securityfs
];

/// How links on the way are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// As if the directory were `/`: a link that leads out leads to the directory itself.
    InRoot,
    /// There must be none.
    None,
    /// As for any program: the path is a person's own.
    Trusted,
}

/// Opens `path` below `root`.
pub(crate) fn open_below(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    links: Links,
) -> Result<OwnedFd, Errno> {
    let resolve = match links {
        Links::InRoot => ResolveFlags::IN_ROOT,
        Links::None => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        Links::Trusted => ResolveFlags::empty(),
    };
    // Links of /proc lead anywhere.
    let resolve = if links == Links::Trusted { resolve } else { resolve | ResolveFlags::NO_MAGICLINKS };
    let path = if path.is_empty() { &b"."[..] } else { path };
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel could not prove that a `..` stayed inside while something was renamed
            // anywhere on the machine; it asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// Refuses what lies on /proc, /sys and their like: those files are switches of the kernel, in a
/// container of the host's namespaces even the host's own.
pub(crate) fn refuse_kernel_files(fd: impl AsFd, path: &[u8]) -> Result<(), ArchiveError> {
    let found = fstatfs(fd.as_fd()).map_err(ArchiveError::at("looking at the file system of", path))?;
    match KERNEL_FILES.contains(&found.f_type) {
        true => Err(ArchiveError::refused(path, "is no file but a switch of the kernel (/proc, /sys)")),
        false => Ok(()),
    }
}

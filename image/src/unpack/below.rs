//! Hard links of a layer to files of the layers below it: what a link(2) in the mounted image would make.
//! In: the links, in the archive's order; the layer's directory and the layers under it, all in place.
//! Out: the file copied up with all its attributes, and its second name, both in the layer.
//! The kernel's overlayfs does the copying, in a mount namespace of one thread that ends with it, so
//! that no crash leaves a mount. Never: replaces what a later entry of the layer has made.

use super::entry::split;
use super::place::open_inside;
use super::{Target, UnpackError};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::CString;
use std::io;
use std::path::Path;

/// Links of one layer to the layers below; more are refused.
pub(crate) const MAX_LINKS: usize = 10_000;

/// A hard link whose target is not in its own layer. Both paths are clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkBelow {
    pub path: Vec<u8>,
    pub target: Vec<u8>,
}

/// Where to work.
pub(crate) struct Layers<'a> {
    /// Everything else is named relative to it.
    pub(crate) base: &'a Path,
    /// Topmost first; not empty.
    pub(crate) lower: Vec<String>,
    /// The layer's own directory, which has `diff`.
    pub(crate) own: String,
}

/// Makes the links; gives the bytes that were copied up.
pub(crate) fn link(layers: &Layers<'_>, target: &Target, links: &[LinkBelow]) -> Result<u64, UnpackError> {
    let io_error =
        |source| UnpackError::Io { action: "mounting the layers below", path: layers.own.clone(), source };
    let work = || -> Result<u64, UnpackError> {
        let mounted = mount(layers).map_err(io_error)?;
        let mut copied = 0;
        for link in links {
            copied += one(mounted.as_fd(), target, link)?;
        }
        Ok(copied)
    };
    let copied = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("layer-links".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(io_error)?;
        thread.join().unwrap_or_else(|_| Err(io_error(io::Error::other("the linking thread panicked"))))
    })?;
    // Overlayfs's own: no part of the layer.
    let own = layers.base.join(&layers.own);
    for dir in ["merged", "work"] {
        std::fs::remove_dir_all(own.join(dir)).map_err(io_error)?;
    }
    Ok(copied)
}

/// Mounts the image up to this layer, visible to this thread only.
fn mount(layers: &Layers<'_>) -> io::Result<OwnedFd> {
    use nix::sched::CloneFlags;
    let own = layers.base.join(&layers.own);
    let merged = own.join("merged");
    std::fs::create_dir(&merged)?;
    std::fs::create_dir(own.join("work"))?;
    nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    std::env::set_current_dir(layers.base)?;
    let (lower, own) = (layers.lower.join(":"), &layers.own);
    let options = format!("index=off,metacopy=off,lowerdir={lower},upperdir={own}/diff,workdir={own}/work");
    let options = CString::new(options)?;
    rustix::mount::mount("overlay", &merged, "overlay", MountFlags::empty(), Some(options.as_c_str()))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, &merged, flags, Mode::empty())?)
}

fn one(merged: BorrowedFd<'_>, layer: &Target, link: &LinkBelow) -> Result<u64, UnpackError> {
    let refused = |problem: &str| {
        let target = String::from_utf8_lossy(&link.target);
        UnpackError::hostile(&link.path, format!("is a hard link to {target:?}, which {problem}"))
    };
    let at = |action| UnpackError::at(action, &link.path);
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    let (dir, name) = split(&link.path);
    if stat(layer.diff.as_fd(), &link.path).map_err(at("looking at"))?.is_some_and(|s| !is_whiteout(&s)) {
        // A later entry has taken the name.
        return Ok(0);
    }
    let found = stat(merged, &link.target).map_err(at("looking at"))?;
    let found = found.ok_or_else(|| refused("is neither in this layer nor in those below"))?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err(refused("is a directory"));
    }
    let is_here = stat(layer.diff.as_fd(), &link.target).map_err(at("looking at"))?.is_some();
    let copied = if is_here { 0 } else { found.st_blocks as u64 * 512 };
    layer.check_room_for(copied)?;
    let (target_dir, target_name) = split(&link.target);
    let from = open_inside(merged, target_dir, directory).map_err(at("opening"))?;
    let to = open_inside(merged, dir, directory).map_err(at("opening"))?;
    let before = rustix::fs::fstat(&to).map_err(at("looking at"))?;
    match rustix::fs::unlinkat(&to, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::ISDIR) => return Err(refused("would take the place of a directory")),
        Err(error) => return Err(at("replacing")(error)),
    }
    rustix::fs::linkat(&from, target_name, &to, name, AtFlags::empty()).map_err(at("linking"))?;
    let time = |s, ns| Timespec { tv_sec: s, tv_nsec: ns as _ };
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    rustix::fs::utimensat(CWD, super::write::proc_path(&to), &times, AtFlags::empty())
        .map_err(at("setting the time of"))?;
    Ok(copied)
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// What is at a path, its last component not followed.
fn stat(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<rustix::fs::Stat>, Errno> {
    let (dir, name) = split(path);
    let parent = match open_inside(root, dir, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(parent) => parent,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error),
    };
    match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

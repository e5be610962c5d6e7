//! The mount calls of overlayfs.
//! In: options relative to a directory, a mount point. Out: mounted or not. Works on Linux 6.1, where
//! the new mount API limits an overlay option to 256 bytes, and later: hence mount(2), run on a
//! throw-away thread whose working directory is its own (unshare CLONE_FS), with relative layer paths.
//! Never: changes the working directory of the process.

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// From linux/magic.h.
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// Mounts an overlay at `target` with options whose paths are relative to `base`.
pub(super) fn overlay(base: &Path, options: &str, target: &Path) -> io::Result<()> {
    let options = CString::new(options)?;
    let mounting = move || -> io::Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
        std::env::set_current_dir(base)?;
        Ok(rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))?)
    };
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("overlay-mount".into()).spawn_scoped(scope, mounting)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

/// Whether `dir` is the root of an overlay mount.
pub(super) fn is_overlay(dir: &Path) -> io::Result<bool> {
    let stat = match rustix::fs::statx(CWD, dir, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(e) => return Err(e.into()),
    };
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(false);
    }
    Ok(rustix::fs::statfs(dir)?.f_type as u64 == OVERLAYFS_SUPER_MAGIC)
}

/// Unmounts every overlay at `dir`. A busy one is detached: its users are gone with their cgroup, or
/// they are strangers who must not keep the task's files.
pub(super) fn unmount_overlay(dir: &Path) -> io::Result<()> {
    while is_overlay(dir)? {
        match rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(Errno::BUSY) => rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The mount point of the overlay whose upper directory ends in `upper`.
pub(super) fn find_by_upper(upper: &str) -> io::Result<Option<PathBuf>> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(table.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let options = right.strip_prefix("overlay ")?.split_whitespace().nth(1)?;
        let ours =
            options.split(',').any(|o| o.strip_prefix("upperdir=").is_some_and(|path| path.ends_with(upper)));
        ours.then(|| unescape(left.split(' ').nth(4).unwrap_or_default()))
    }))
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn mountinfo_escapes() {
        assert_eq!(super::unescape(r"/a\040b\134c"), std::path::Path::new("/a b\\c"));
        assert_eq!(super::unescape("/plain"), std::path::Path::new("/plain"));
    }
}

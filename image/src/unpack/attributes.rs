//! Owner, mode, extended attributes and times of what a layer contains.
//! In: an entry and the thing just made. Out: the thing with the entry's attributes.
//! The order matters: chown clears suid and capabilities, so mode and attributes come after it.
//! Never: sets attributes that steer overlayfs or the host's security module.

use super::UnpackError;
use super::entry::Entry;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// Whether an attribute is taken over, left out, or a reason to refuse the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Set,
    Skip,
    Refuse,
}

/// Capabilities, access lists and the user's own are part of an image; labels of the builder's
/// security module are not; attributes that overlayfs obeys would forge whiteouts and redirects.
pub fn fate(name: &[u8]) -> Fate {
    if name.starts_with(b"trusted.overlay.") {
        return Fate::Refuse;
    }
    if name.contains(&0) || name.len() > 255 || name.starts_with(b"user.overlay.") {
        return Fate::Skip;
    }
    let ours = name == b"security.capability"
        || name.starts_with(b"user.")
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default";
    if ours { Fate::Set } else { Fate::Skip }
}

/// Refuses an entry whose attributes are an attack, before anything is made of it.
pub(crate) fn check(entry: &Entry) -> Result<(), UnpackError> {
    match entry.xattrs.iter().find(|(name, _)| fate(name) == Fate::Refuse) {
        Some((name, _)) => Err(UnpackError::hostile(
            &entry.path,
            format!("has the attribute {}, which is overlayfs's own", String::from_utf8_lossy(name)),
        )),
        None => Ok(()),
    }
}

pub(crate) fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime_s, tv_nsec: entry.mtime_ns.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn ids(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

/// Owner, mode and attributes of an open file or directory; not its times.
pub(crate) fn set_open(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), UnpackError> {
    let (uid, gid) = ids(entry);
    rustix::fs::fchown(fd, uid, gid).map_err(UnpackError::at("chown of", &entry.path))?;
    rustix::fs::fchmod(fd, Mode::from(entry.mode)).map_err(UnpackError::at("chmod of", &entry.path))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| fate(name) == Fate::Set) {
        tolerate(rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()), entry)?;
    }
    Ok(())
}

/// All attributes of something that cannot be opened: symlink, fifo, device.
pub(crate) fn set_named(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    has_mode: bool,
) -> Result<(), UnpackError> {
    let (uid, gid) = ids(entry);
    rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(UnpackError::at("chown of", &entry.path))?;
    if has_mode {
        // Not a symlink: it was made with O_EXCL semantics by this thread just now.
        rustix::fs::chmodat(parent, name, Mode::from(entry.mode), AtFlags::empty())
            .map_err(UnpackError::at("chmod of", &entry.path))?;
    }
    for (attribute, value) in entry.xattrs.iter().filter(|(name, _)| fate(name) == Fate::Set) {
        // There is no setxattrat before Linux 6.13; the descriptor's own directory is as good.
        let mut path = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        let set = rustix::fs::lsetxattr(path.as_slice(), attribute.as_slice(), value, XattrFlags::empty());
        tolerate(set, entry)?;
    }
    rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(UnpackError::at("setting the time of", &entry.path))
}

/// A file system without such attributes, or a symlink that cannot have any, is no reason to fail.
fn tolerate(result: Result<(), Errno>, entry: &Entry) -> Result<(), UnpackError> {
    match result {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        Err(e) => Err(UnpackError::at("setting an attribute of", &entry.path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_steer_the_host_are_not_taken_over() {
        for (name, expected) in [
            ("security.capability", Fate::Set),
            ("user.mime_type", Fate::Set),
            ("system.posix_acl_access", Fate::Set),
            ("security.selinux", Fate::Skip),
            ("security.ima", Fate::Skip),
            ("trusted.other", Fate::Skip),
            ("user.overlay.opaque", Fate::Skip),
            ("trusted.overlay.opaque", Fate::Refuse),
            ("trusted.overlay.redirect", Fate::Refuse),
        ] {
            assert_eq!(fate(name.as_bytes()), expected, "{name}");
        }
    }
}

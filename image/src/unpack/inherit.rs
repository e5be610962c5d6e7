//! Directories a layer has only because something lies in them take their attributes from below.
//! In: the layer's implicit directories and the layers under it, topmost first. Out: the same
//! directories with the owner, mode, attributes and times the image had there before.
//! Without this an archive that lists `etc/app.conf` and not `etc` would make /etc root's with 0755.
//! Never: looks through symlinks or whiteouts of a layer: what is hidden there is not below.

use super::UnpackError;
use super::place::open_inside;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What one layer says about a path.
enum Found {
    Directory(OwnedFd),
    /// Nothing: ask the next layer.
    Absent,
    /// It, or something above it, is hidden or no directory: nothing below counts.
    Hidden,
}

/// Gives every directory of `implicit` (parents first) the attributes it has in `lower`.
pub(crate) fn inherit(
    diff: BorrowedFd<'_>,
    implicit: &[Vec<u8>],
    lower: &[OwnedFd],
) -> Result<(), UnpackError> {
    let mut times = Vec::new();
    for path in implicit {
        for layer in lower {
            match find(layer.as_fd(), path)? {
                Found::Directory(from) => {
                    times.push((path, copy(diff, path, &from)?));
                    break;
                }
                Found::Hidden => break,
                Found::Absent => {}
            }
        }
    }
    // Last, because nothing is made in them any more.
    for (path, time) in times {
        let to = open_inside(diff, path, DIRECTORY).map_err(UnpackError::at("opening", path))?;
        rustix::fs::futimens(&to, &time).map_err(UnpackError::at("setting the time of", path))?;
    }
    Ok(())
}

fn find(layer: BorrowedFd<'_>, path: &[u8]) -> Result<Found, UnpackError> {
    let mut at =
        rustix::fs::openat(layer, ".", DIRECTORY, Mode::empty()).map_err(UnpackError::at("opening", path))?;
    for component in path.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
        match rustix::fs::statat(&at, component, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(_) => return Ok(Found::Hidden),
            Err(Errno::NOENT) if is_opaque(&at) => return Ok(Found::Hidden),
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(e) => return Err(UnpackError::at("looking at", path)(e)),
        }
        at = rustix::fs::openat(&at, component, DIRECTORY, Mode::empty())
            .map_err(UnpackError::at("opening", path))?;
    }
    Ok(Found::Directory(at))
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0u8; 4];
    rustix::fs::fgetxattr(dir, "trusted.overlay.opaque", &mut value).is_ok_and(|n| value[..n] == *b"y")
}

/// Copies owner, mode and attributes; gives the times, which the caller sets at the end.
fn copy(diff: BorrowedFd<'_>, path: &[u8], from: &OwnedFd) -> Result<Timestamps, UnpackError> {
    let stat = rustix::fs::fstat(from).map_err(UnpackError::at("looking at", path))?;
    let to = open_inside(diff, path, DIRECTORY).map_err(UnpackError::at("opening", path))?;
    rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
        .map_err(UnpackError::at("chown of", path))?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode)).map_err(UnpackError::at("chmod of", path))?;
    for name in xattr_names(from, path)? {
        // `trusted.overlay.opaque` says something about the other layer, not about the directory.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(from, name.as_slice(), value.as_mut_slice())
            .map_err(UnpackError::at("reading an attribute of", path))?;
        rustix::fs::fsetxattr(&to, name.as_slice(), &value[..length], XattrFlags::empty())
            .map_err(UnpackError::at("setting an attribute of", path))?;
    }
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Ok(Timestamps { last_access: time, last_modification: time })
}

/// Names of the extended attributes of an open directory.
fn xattr_names(fd: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, UnpackError> {
    let mut list = vec![0u8; 64 << 10];
    match rustix::fs::flistxattr(fd, list.as_mut_slice()) {
        Ok(length) => {
            Ok(list[..length].split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
        }
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(UnpackError::at("reading the attributes of", path)(e)),
    }
}

/// For layers without implicit directories nothing is opened.
pub(crate) fn needed(implicit: &[Vec<u8>], lower: usize) -> bool {
    !implicit.is_empty() && lower > 0
}

/// Opens a layer's directory for `inherit`.
pub(crate) fn open_layer(path: &std::path::Path) -> Result<OwnedFd, UnpackError> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
        .map_err(UnpackError::at("opening", path.as_os_str().as_encoded_bytes()))
}

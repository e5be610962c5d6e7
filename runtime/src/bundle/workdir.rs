//! Makes a container's working directory when the image does not have it, as Docker does: owned by
//! root, mode 0755. In: the spec's request. Out: the directory, in the root file system or in the
//! bind mount that covers it. Every step is opened with RESOLVE_IN_ROOT, so that a link in a
//! hostile image cannot lead outside. Never: fails for a directory that is already there.

use super::BundleError;
use crate::spec::{SpecRequest, working_directory};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, mkdirat, openat, openat2};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

pub(super) fn ensure(request: &SpecRequest<'_>) -> Result<(), BundleError> {
    let path = working_directory(request)?;
    let (base, inner) = match covering(request, &path) {
        // Not even before the container sees it; libcontainer then says what is missing.
        Cover { read_only: true, .. } => return Ok(()),
        Cover { base, inner, .. } => (base, inner),
    };
    // Root of the task's user namespace; what a volume shows is root's on disk as well.
    let owner = request.user_namespace.filter(|_| base == request.rootfs).map(|user| user.ids.first);
    match make_in_root(base, inner, owner) {
        // Its file system is read-only: as above.
        Ok(()) | Err(Errno::ROFS) => Ok(()),
        Err(errno) => Err(BundleError::WorkingDirectory {
            container: request.container.name.to_string(),
            path: path.clone(),
            source: errno.into(),
        }),
    }
}

/// A directory of the host, a path in it, and whether the container may write to it.
struct Cover<'a> {
    base: &'a Path,
    inner: &'a str,
    read_only: bool,
}

/// The innermost bind mount that holds `path`, or the root file system. A read-only root file system is
/// this task's own, so what is missing is made all the same.
fn covering<'a>(request: &SpecRequest<'a>, path: &'a str) -> Cover<'a> {
    let mut best = Cover { base: request.rootfs, inner: path, read_only: false };
    let mut best_length = 0;
    for mount in request.mounts {
        let destination = mount.destination.trim_end_matches('/');
        if let Some(rest) = path.strip_prefix(destination)
            && (rest.is_empty() || rest.starts_with('/'))
            && destination.len() > best_length
            && mount.source.is_dir()
        {
            best = Cover { base: &mount.source, inner: rest, read_only: mount.read_only };
            best_length = destination.len();
        }
    }
    best
}

fn make_in_root(base: &Path, inner: &str, owner: Option<u32>) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, base, flags, Mode::empty())?;
    let open = |path: &str| -> Result<OwnedFd, Errno> {
        openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    };
    let relative = inner.trim_matches('/');
    if relative.is_empty() || open(relative).is_ok() {
        return Ok(());
    }
    let mut done = String::from(".");
    for part in relative.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let parent = open(&done)?;
        if part != ".." {
            match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
                Ok(()) => give(&parent, part, owner)?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        done = format!("{done}/{part}");
    }
    open(&done).map(drop)
}

fn give(parent: &OwnedFd, part: &str, owner: Option<u32>) -> Result<(), Errno> {
    let Some(owner) = owner else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    chownat(parent, part, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::make_in_root;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn missing_directories_are_made_inside_and_never_outside() {
        let base = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        make_in_root(base.path(), "/a/b/c", None).unwrap();
        make_in_root(base.path(), "/a/b/c", None).unwrap();
        assert!(base.path().join("a/b/c").is_dir());
        symlink(outside.path(), base.path().join("trap")).unwrap();
        // The link is absolute: inside the root it leads to nothing.
        assert!(make_in_root(base.path(), "/trap/x", None).is_err());
        make_in_root(base.path(), "/../../up", None).unwrap();
        assert!(base.path().join("up").is_dir());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

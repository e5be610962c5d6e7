//! Where an entry goes: its parent directory, found by the kernel inside the layer and nowhere else.
//! In: clean paths. Out: descriptors of directories, missing ones made on the way.
//! Owns: a bounded cache of parent descriptors, dropped whenever a directory or symlink is replaced.
//! Never: resolves a path itself; a symlink that leads out leads, by RESOLVE_IN_ROOT, to the root.

use super::UnpackError;
use super::entry::split;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Descriptors kept; archives list directory by directory, so few are needed at a time.
const MAX_CACHED: usize = 64;
/// As the kernel allows in one path.
const MAX_LINKS: u32 = 40;

const INSIDE: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// Opens `path` below `root`, following symlinks as if `root` were `/`.
pub(crate) fn open_inside(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { &b"."[..] } else { path };
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), INSIDE) {
            // The kernel could not prove that a `..` stayed inside while something was renamed
            // anywhere on the machine; it asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// The directories of one layer.
pub(crate) struct Place<'a> {
    root: BorrowedFd<'a>,
    cache: HashMap<Vec<u8>, Rc<OwnedFd>>,
    implicit: BTreeSet<Vec<u8>>,
}

impl<'a> Place<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        // The root counts as implicit until an entry describes it.
        Self { root, cache: HashMap::new(), implicit: BTreeSet::from([Vec::new()]) }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// The directory that holds the last component of an entry; made when missing.
    pub(crate) fn parent(&mut self, dir: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        if let Some(found) = self.cache.get(dir) {
            return Ok(found.clone());
        }
        let mut links_left = MAX_LINKS;
        let fd = Rc::new(self.ensure(dir, &mut links_left)?);
        if self.cache.len() >= MAX_CACHED {
            self.cache.clear();
        }
        self.cache.insert(dir.to_vec(), fd.clone());
        Ok(fd)
    }

    /// The same without making anything: `None` when it is not there.
    pub(crate) fn existing(&mut self, dir: &[u8]) -> Result<Option<OwnedFd>, UnpackError> {
        match open_inside(self.root, dir, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(UnpackError::at("opening", dir)(e)),
        }
    }

    /// A directory or symlink was replaced: descriptors may stand for what is no longer there.
    pub(crate) fn forget(&mut self) {
        self.cache.clear();
    }

    /// An entry of the archive describes this directory.
    pub(crate) fn described(&mut self, dir: &[u8]) {
        self.implicit.remove(dir);
    }

    /// Directories no entry described, parents before children.
    pub(crate) fn into_implicit(self) -> Vec<Vec<u8>> {
        self.implicit.into_iter().collect()
    }

    /// Opens `dir`, making what is missing. A symlink to a directory that is not in this layer is
    /// followed and its target made, as other tools do: `lib -> usr/lib`, then `lib/x`.
    fn ensure(&mut self, dir: &[u8], links_left: &mut u32) -> Result<OwnedFd, UnpackError> {
        let open = |path: &[u8]| open_inside(self.root, path, OFlags::PATH | OFlags::DIRECTORY);
        match open(dir) {
            Err(Errno::NOENT) if !dir.is_empty() => {}
            Err(Errno::NOTDIR) => {
                return Err(UnpackError::hostile(dir, "is used as a directory but is none"));
            }
            other => return other.map_err(UnpackError::at("opening", dir)),
        }
        let (above, name) = split(dir);
        let parent = self.ensure(above, links_left)?;
        if matches!(name, b"" | b"." | b"..") {
            // Part of a symlink's target; what was missing above it is there now.
            return open_inside(self.root, dir, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(UnpackError::at("opening", dir));
        }
        match rustix::fs::mkdirat(&parent, name, Mode::from(0o755)) {
            Ok(()) => {
                // Whatever the umask took away.
                rustix::fs::chmodat(&parent, name, Mode::from(0o755), AtFlags::empty())
                    .map_err(UnpackError::at("chmod of", dir))?;
                if dir.split(|b| *b == b'/').all(|c| !matches!(c, b"" | b"." | b"..")) {
                    self.implicit.insert(dir.to_vec());
                }
                // From its parent and not from the root: paths of thousands of parts stay linear.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&parent, name, flags, Mode::empty())
                    .map_err(UnpackError::at("opening", dir))
            }
            Err(Errno::EXIST) => self.ensure_target(dir, above, name, parent.as_fd(), links_left),
            Err(e) => Err(UnpackError::at("making", dir)(e)),
        }
    }

    /// `dir` is a symlink whose target is missing: make the target.
    fn ensure_target(
        &mut self,
        dir: &[u8],
        above: &[u8],
        name: &[u8],
        parent: BorrowedFd<'_>,
        links_left: &mut u32,
    ) -> Result<OwnedFd, UnpackError> {
        *links_left = links_left
            .checked_sub(1)
            .ok_or_else(|| UnpackError::hostile(dir, "leads through too many symlinks"))?;
        let target = rustix::fs::readlinkat(parent, name, Vec::new())
            .map_err(|_| UnpackError::hostile(dir, "is used as a directory but is none"))?
            .into_bytes();
        let target = match target.strip_prefix(b"/") {
            Some(absolute) => absolute.to_vec(),
            None => [above, b"/", &target].concat(),
        };
        if target.len() >= 4096 {
            return Err(UnpackError::hostile(&dir[..dir.len().min(64)], "leads to a name that is too long"));
        }
        let target = target.strip_prefix(b"/").unwrap_or(&target).to_vec();
        self.ensure(&target, links_left)
    }
}

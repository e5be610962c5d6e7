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
/// Of a path and of all that its symlinks stand for; one path of the kernel's length has half as many.
const MAX_PARTS: u32 = 4096;

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
        let fd = Rc::new(self.ensure(dir)?);
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
    /// followed and its target made, as other tools do: `lib -> usr/lib`, then `lib/x`. A loop over what
    /// is open, not a recursion: thirty links of two thousand parts each would need a stack of 60,000.
    fn ensure(&mut self, dir: &[u8]) -> Result<OwnedFd, UnpackError> {
        let (mut links_left, mut parts_left) = (MAX_LINKS, MAX_PARTS);
        let mut walk = self.begin(dir.to_vec())?;
        // Those that wait for the target of a link of theirs.
        let mut waiting: Vec<Walk> = Vec::new();
        loop {
            if walk.done == walk.path.len() {
                let Some(mut before) = waiting.pop() else { return Ok(walk.fd) };
                before.fd = walk.fd;
                walk = before;
                continue;
            }
            parts_left = parts_left
                .checked_sub(1)
                .ok_or_else(|| UnpackError::hostile(short(dir), "has too many parts"))?;
            if let Some(target) = self.step(&mut walk)? {
                links_left = links_left
                    .checked_sub(1)
                    .ok_or_else(|| UnpackError::hostile(short(dir), "leads through too many symlinks"))?;
                waiting.push(std::mem::replace(&mut walk, self.begin(target)?));
            }
        }
    }

    /// What of `path` is there.
    fn begin(&self, path: Vec<u8>) -> Result<Walk, UnpackError> {
        let mut done = path.len();
        loop {
            let there = &path[..done];
            match open_inside(self.root, there, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(fd) => return Ok(Walk { path, done, fd }),
                Err(Errno::NOENT) if done > 0 => done = split(there).0.len(),
                Err(Errno::NOTDIR) => {
                    return Err(UnpackError::hostile(there, "is used as a directory but is none"));
                }
                Err(e) => return Err(UnpackError::at("opening", there)(e)),
            }
        }
    }

    /// Makes the next part; the target, when it is a symlink whose target is missing.
    fn step(&mut self, walk: &mut Walk) -> Result<Option<Vec<u8>>, UnpackError> {
        let start = walk.done + usize::from(walk.path[walk.done] == b'/');
        let end = walk.path[start..].iter().position(|b| *b == b'/').map_or(walk.path.len(), |at| start + at);
        let (above, dir, name) = (&walk.path[..walk.done], &walk.path[..end], &walk.path[start..end]);
        let mut target = None;
        if matches!(name, b"" | b"." | b"..") {
            // Part of a symlink's target; what was missing above it is there now.
            walk.fd = open_inside(self.root, dir, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(UnpackError::at("opening", dir))?;
        } else {
            match rustix::fs::mkdirat(&walk.fd, name, Mode::from(0o755)) {
                Ok(()) => walk.fd = self.made(dir, name, walk.fd.as_fd())?,
                Err(Errno::EXIST) => target = Some(missing_target(dir, above, name, walk.fd.as_fd())?),
                Err(e) => return Err(UnpackError::at("making", dir)(e)),
            }
        }
        walk.done = end;
        Ok(target)
    }

    /// A directory that was just made.
    fn made(&mut self, dir: &[u8], name: &[u8], parent: BorrowedFd<'_>) -> Result<OwnedFd, UnpackError> {
        // Whatever the umask took away.
        rustix::fs::chmodat(parent, name, Mode::from(0o755), AtFlags::empty())
            .map_err(UnpackError::at("chmod of", dir))?;
        if dir.split(|b| *b == b'/').all(|c| !matches!(c, b"" | b"." | b"..")) {
            self.implicit.insert(dir.to_vec());
        }
        // From its parent and not from the root: paths of thousands of parts stay linear.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(UnpackError::at("opening", dir))
    }
}

/// A path on its way.
struct Walk {
    path: Vec<u8>,
    /// Bytes of it that are there.
    done: usize,
    /// The directory that they lead to.
    fd: OwnedFd,
}

/// Where the symlink `dir` leads, below the root.
fn missing_target(
    dir: &[u8],
    above: &[u8],
    name: &[u8],
    parent: BorrowedFd<'_>,
) -> Result<Vec<u8>, UnpackError> {
    let target = rustix::fs::readlinkat(parent, name, Vec::new())
        .map_err(|_| UnpackError::hostile(dir, "is used as a directory but is none"))?
        .into_bytes();
    let target = match target.strip_prefix(b"/") {
        Some(absolute) => absolute.to_vec(),
        None => [above, b"/", &target].concat(),
    };
    if target.len() >= 4096 {
        return Err(UnpackError::hostile(short(dir), "leads to a name that is too long"));
    }
    Ok(target.strip_prefix(b"/").unwrap_or(&target).to_vec())
}

/// The beginning of a name for people.
fn short(name: &[u8]) -> &[u8] {
    &name[..name.len().min(64)]
}

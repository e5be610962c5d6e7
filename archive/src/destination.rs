//! Where an archive's entries go: below a directory, or in place of one name.
//! In: a path as a person gave it, what is there. Out: a `Base`. Source of the rules: docker cp.
//! Never: makes anything but the one directory it is asked to.

use crate::ArchiveError;
use crate::ids::Ids;
use crate::root::{Links, open_below, refuse_kernel_files};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// What holds for every entry.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// `None`: the owners of the archive.
    pub owner: Option<(u32, u32)>,
    /// Whether setuid and setgid bits are taken over: a stranger's must not become one's own.
    pub keep_suid: bool,
    /// What the ids of the archive are here.
    pub ids: Ids,
}

/// A directory that entries go below.
#[derive(Debug)]
pub struct Base {
    pub(crate) dir: OwnedFd,
    /// Takes the place of the first component of every entry.
    pub(crate) rename: Option<Vec<u8>>,
    /// The destination was given as a directory, so a file cannot take its name.
    pub(crate) wants_directory: bool,
}

impl Base {
    /// Resolves `path` inside `root`. An existing directory is what entries go below; else its last
    /// name is that of the archive's first component. `into`: it is, or becomes, the directory.
    pub fn inside(root: BorrowedFd<'_>, path: &[u8], into: bool) -> Result<Self, ArchiveError> {
        Self::open(root, path, into, Links::InRoot)
    }

    /// The same for a path of a person's own machine.
    pub fn own(path: &[u8], into: bool) -> Result<Self, ArchiveError> {
        Self::open(rustix::fs::CWD, path, into, Links::Trusted)
    }

    fn open(root: BorrowedFd<'_>, path: &[u8], into: bool, links: Links) -> Result<Self, ArchiveError> {
        let directory = OFlags::RDONLY | OFlags::DIRECTORY;
        let wants_directory = into || path.ends_with(b"/") || path.ends_with(b"/.");
        match open_below(root, path, directory, links) {
            Ok(dir) => {
                refuse_kernel_files(&dir, path)?;
                return Ok(Self { dir, rename: None, wants_directory });
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) if !wants_directory => {}
            Err(Errno::NOTDIR) => return Err(ArchiveError::refused(path, "is no directory")),
            Err(error) => return Err(ArchiveError::at("opening", path)(error)),
        }
        let (above, name) = last(path).ok_or_else(|| ArchiveError::refused(path, "names nothing"))?;
        let above = open_below(root, above, directory, links)
            .map_err(ArchiveError::at("opening the directory of", path))?;
        refuse_kernel_files(&above, path)?;
        if into {
            rustix::fs::mkdirat(&above, name, Mode::from(0o755)).map_err(ArchiveError::at("making", path))?;
            let dir = open_below(above.as_fd(), name, directory, Links::None)
                .map_err(ArchiveError::at("opening", path))?;
            return Ok(Self { dir, rename: None, wants_directory });
        }
        Ok(Self { dir: above, rename: Some(name.to_vec()), wants_directory })
    }

    /// Where an entry of this clean path goes; empty: the base itself.
    pub(crate) fn place(&self, path: &[u8]) -> Vec<u8> {
        let Some(name) = &self.rename else { return path.to_vec() };
        match path.iter().position(|byte| *byte == b'/') {
            Some(slash) => [name, &path[slash..]].concat(),
            None => name.clone(),
        }
    }

    /// Whether something of this name is there, and what.
    pub(crate) fn kind(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileType>, Errno> {
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The directory and the last name of a path; `None` when it has no name.
fn last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let path = &path[..end];
    let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (&b"/"[..], &path[1..]),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b"."[..], path),
    };
    (!matches!(name, b"" | b"." | b"..")).then_some((above, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_of_a_path() {
        for (path, above, name) in
            [("/a/b", "/a", "b"), ("/a", "/", "a"), ("a", ".", "a"), ("a/b//", "a", "b"), ("./x", ".", "x")]
        {
            assert_eq!(last(path.as_bytes()), Some((above.as_bytes(), name.as_bytes())), "{path}");
        }
        for path in ["/", "", "a/..", "..", "a/."] {
            assert_eq!(last(path.as_bytes()), None, "{path}");
        }
    }
}

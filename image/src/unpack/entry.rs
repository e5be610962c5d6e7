//! One entry of a layer as the archive describes it, and its path made safe to split.
//! In: fields of a tar header and PAX records. Out: `Entry`, `Place::…` paths without `..`.
//! Never: touches the disk.

use super::UnpackError;
use super::sparse::{Extent, Sparse};
use std::borrow::Cow;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    CharDevice,
    BlockDevice,
}

/// An entry; its data, if it has any, follows in the stream.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As in the archive.
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with suid, sgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// Of the data in the stream.
    pub size: u64,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// A file with holes: where its data goes.
    pub sparse: Option<Sparse>,
}

impl Entry {
    /// Where the data in the stream belongs in the file, in its order.
    pub fn extents(&self) -> Cow<'_, [Extent]> {
        match &self.sparse {
            Some(sparse) => Cow::Borrowed(&sparse.extents),
            None => Cow::Owned(vec![Extent { offset: 0, length: self.size }]),
        }
    }

    /// Of the file, holes and all.
    pub fn file_bytes(&self) -> u64 {
        self.sparse.as_ref().map_or(self.size, |sparse| sparse.real_bytes)
    }
}

/// Longest path openat2 takes.
const PATH_MAX: usize = 4096;

/// `./a//b/` → `a/b`, `/a` → `a`, `.` → ``. What steps out or cannot be a path is refused.
pub fn clean(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut clean = Vec::with_capacity(path.len());
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(UnpackError::hostile(path, "steps out of its directory with ..")),
            _ => {}
        }
        if component.len() > 255 || component.contains(&0) {
            return Err(UnpackError::hostile(path, "is not a possible file name"));
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
    }
    if clean.len() >= PATH_MAX {
        return Err(UnpackError::hostile(&path[..64], "has a name that is too long"));
    }
    Ok(clean)
}

/// `a/b/c` → (`a/b`, `c`); `c` → (``, `c`).
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// What a file name means in a layer. Source: OCI image spec layer.md; the `.wh..wh.` names are
/// left over from aufs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    Ordinary,
    /// Hides the name in the layers below.
    Whiteout(&'a [u8]),
    /// Hides everything the layers below have in this directory.
    Opaque,
    /// Bookkeeping of aufs: no file of the image.
    Ignored,
}

pub(crate) fn meaning<'a>(path: &[u8], name: &'a [u8]) -> Result<Meaning<'a>, UnpackError> {
    match name.strip_prefix(b".wh.") {
        None => Ok(Meaning::Ordinary),
        Some(b".wh..opq") => Ok(Meaning::Opaque),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Meaning::Ignored),
        Some(b"" | b"." | b"..") => {
            Err(UnpackError::hostile(path, "is a whiteout of nothing that can exist"))
        }
        Some(hidden) => Ok(Meaning::Whiteout(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        for (path, expected) in [("./a//b/", "a/b"), ("/etc/x", "etc/x"), ("./", ""), ("a/./b", "a/b")] {
            assert_eq!(clean(path.as_bytes()).unwrap(), expected.as_bytes());
        }
        for wrong in ["..", "a/../b", "/..", "a/..", "a\0b"] {
            assert!(clean(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(clean(&[b'x'; 256]).is_err());
        assert!(clean("x/".repeat(3000).as_bytes()).is_err());
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }

    #[test]
    fn names_that_mean_something() {
        let of = |name: &'static str| meaning(b"p", name.as_bytes());
        assert_eq!(of("x").unwrap(), Meaning::Ordinary);
        assert_eq!(of(".wh.x").unwrap(), Meaning::Whiteout(b"x"));
        assert_eq!(of(".wh..wh..opq").unwrap(), Meaning::Opaque);
        assert_eq!(of(".wh..wh.plnk").unwrap(), Meaning::Ignored);
        for hostile in [".wh.", ".wh..", ".wh..."] {
            assert!(of(hostile).is_err(), "{hostile}");
        }
    }
}

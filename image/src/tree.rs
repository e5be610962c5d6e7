//! Deletes directory trees that strangers have filled.
//! In: a directory to empty and a directory of ours to move things to. Out: nothing left.
//! Holds two descriptors and constant stack, however deep the tree: images and containers can make
//! trees deeper than any stack or descriptor limit. Never: follows a symlink or leaves the tree.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Distinguishes hoisted directories of one process.
static HOISTED: AtomicU64 = AtomicU64::new(0);

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Deletes `name` in `parent`, whatever it is; not there is success. Subdirectories that are not
/// empty are moved into `trash` (same file system) and emptied from there, one level at a time.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr, trash: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let mut waiting: Vec<String> = Vec::new();
    empty(parent, name, trash, &mut waiting)?;
    remove_dir(parent, name)?;
    while let Some(hoisted) = waiting.pop() {
        let hoisted = std::ffi::CString::new(hoisted)?;
        empty(trash, &hoisted, trash, &mut waiting)?;
        remove_dir(trash, &hoisted)?;
    }
    Ok(())
}

fn remove_dir(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Takes everything out of one directory: files and empty directories are deleted, others hoisted.
fn empty(
    parent: BorrowedFd<'_>,
    name: &CStr,
    trash: BorrowedFd<'_>,
    waiting: &mut Vec<String>,
) -> io::Result<()> {
    let dir: OwnedFd = match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // Entries may be skipped when a directory changes while it is read: read again until it is empty.
    loop {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(dir.as_fd(), &mut buffer);
        let mut seen = 0u64;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let entry_name = entry.file_name();
            if entry_name == c"." || entry_name == c".." {
                continue;
            }
            seen += 1;
            remove_entry(dir.as_fd(), entry_name, entry.file_type(), trash, waiting)?;
        }
        if seen == 0 {
            return Ok(());
        }
        rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(0))?;
    }
}

fn remove_entry(
    dir: BorrowedFd<'_>,
    name: &CStr,
    file_type: FileType,
    trash: BorrowedFd<'_>,
    waiting: &mut Vec<String>,
) -> io::Result<()> {
    if file_type != FileType::Directory {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    loop {
        let hoisted = format!("h{:x}", HOISTED.fetch_add(1, Ordering::Relaxed));
        match rustix::fs::renameat_with(dir, name, trash, &hoisted, RenameFlags::NOREPLACE) {
            Ok(()) => {
                waiting.push(hoisted);
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Deletes everything in the directory `trash` itself.
pub(crate) fn empty_trash(trash: BorrowedFd<'_>) -> io::Result<()> {
    for entry in Dir::read_from(trash)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            remove(trash, entry.file_name(), trash)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn a_tree_deeper_than_any_limit_is_deleted_and_its_symlinks_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let trash = base.path().join("trash");
        let outside = base.path().join("outside");
        fs::create_dir(&trash).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), b"kept").unwrap();
        fs::create_dir(base.path().join("victim")).unwrap();
        let mut at: OwnedFd = File::open(base.path().join("victim")).unwrap().into();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::from(0o000)).unwrap();
            rustix::fs::symlinkat(&outside, &at, "link").unwrap();
            at = rustix::fs::openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        let parent: OwnedFd = File::open(base.path()).unwrap().into();
        let trash_fd: OwnedFd = File::open(&trash).unwrap().into();
        remove(parent.as_fd(), c"victim", trash_fd.as_fd()).unwrap();
        assert!(!base.path().join("victim").exists());
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
        remove(parent.as_fd(), c"victim", trash_fd.as_fd()).unwrap();
    }

    #[test]
    fn trash_is_emptied() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("a/b/c")).unwrap();
        fs::write(base.path().join("a/b/f"), b"x").unwrap();
        fs::write(base.path().join("g"), b"x").unwrap();
        let trash: OwnedFd = File::open(base.path()).unwrap().into();
        empty_trash(trash.as_fd()).unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}

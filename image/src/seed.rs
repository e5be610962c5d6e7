//! Fills a fresh volume with what the image has at its mount point, as Docker and ECS do.
//! In: a mounted root file system, a path in it, a directory that is empty or not there.
//! Out: the directory with the image's files: owner, mode, times, attributes, hard links, devices.
//! Whole or not at all: it is made under another name beside and renamed.
//! Never: resolves a path of the image outside the root file system, or touches a volume with content.

use crate::tree;
use crate::unpack::place::open_inside;
use lighter_model::resources::IdRange;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seeded {
    /// The mount point itself not counted.
    pub entries: u64,
    pub bytes: u64,
}

/// Why a volume cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("{path:?} in the image is not a directory, so no volume can be there")]
    NotADirectory { path: String },
    #[error("{action} {path:?} failed")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> SeedError {
    let path = String::from_utf8_lossy(path).into_owned();
    move |e| SeedError::Io { action, path, source: e.into() }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Inside the copied tree nothing is followed at all.
const STRICT: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Copies the image's files at `container_path` of the mounted `rootfs` to `dest`. `dest` also takes
/// owner and mode of the image's directory. A `dest` with content, and a path the image does not
/// have, are left alone. Blocks; call it from a blocking thread.
pub fn seed_volume(rootfs: &Path, container_path: &str, dest: &Path) -> Result<Seeded, SeedError> {
    seed_volume_mapped(rootfs, container_path, dest, None)
}

/// As `seed_volume`, from a root file system whose owners are mapped to `ids`; the copy has the image's.
pub fn seed_volume_mapped(
    rootfs: &Path,
    container_path: &str,
    dest: &Path,
    ids: Option<IdRange>,
) -> Result<Seeded, SeedError> {
    let root = rustix::fs::open(rootfs, DIRECTORY, Mode::empty())
        .map_err(failed("opening", rootfs.as_os_str().as_encoded_bytes()))?;
    let path = container_path.trim_start_matches('/').as_bytes();
    let from = match open_inside(root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(from) => from,
        Err(Errno::NOENT) => return Ok(Seeded::default()),
        Err(Errno::NOTDIR) => return Err(SeedError::NotADirectory { path: container_path.to_owned() }),
        Err(e) => return Err(failed("opening", path)(e)),
    };
    if has_content(dest)? {
        return Ok(Seeded::default());
    }
    let staging = Staging::make(dest)?;
    let mut copy = Copy { from, to: staging.open()?, ids, links: HashMap::new(), seeded: Seeded::default() };
    copy.run()?;
    staging.place(dest, copy.to.as_fd())?;
    Ok(copy.seeded)
}

fn has_content(dest: &Path) -> Result<bool, SeedError> {
    match std::fs::read_dir(dest) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SeedError::Io { action: "listing", path: dest.display().to_string(), source }),
    }
}

/// The directory that becomes the volume; deleted when it does not.
struct Staging {
    parent: OwnedFd,
    path: PathBuf,
    name: CString,
}

impl Staging {
    fn make(dest: &Path) -> Result<Self, SeedError> {
        let io_error = |action| {
            let path = dest.display().to_string();
            move |source| SeedError::Io { action, path, source }
        };
        let above = dest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = dest.file_name().ok_or_else(|| io_error("seeding")(io::ErrorKind::InvalidInput.into()))?;
        let name = format!(".{}.seeding", name.to_string_lossy());
        let path = above.join(&name);
        let parent = rustix::fs::open(above, DIRECTORY, Mode::empty())
            .map_err(|e| io_error("opening the parent of")(e.into()))?;
        let c_name = CString::new(name).map_err(|e| io_error("seeding")(e.into()))?;
        // Left behind by a crash.
        tree::remove(parent.as_fd(), &c_name, parent.as_fd()).map_err(io_error("sweeping beside"))?;
        std::fs::create_dir(&path).map_err(io_error("making the directory beside"))?;
        Ok(Self { parent, path, name: c_name })
    }

    fn open(&self) -> Result<OwnedFd, SeedError> {
        rustix::fs::open(&self.path, DIRECTORY, Mode::empty())
            .map_err(failed("opening", self.path.as_os_str().as_encoded_bytes()))
    }

    /// On the disk first, then under its name: a volume outlives a power cut.
    fn place(self, dest: &Path, made: BorrowedFd<'_>) -> Result<(), SeedError> {
        let bytes = dest.as_os_str().as_encoded_bytes();
        rustix::fs::syncfs(made).map_err(failed("syncing", bytes))?;
        rustix::fs::rename(&self.path, dest).map_err(failed("placing", bytes))?;
        rustix::fs::fsync(&self.parent).map_err(failed("syncing the parent of", bytes))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After `place` there is nothing of this name.
        if let Err(error) = tree::remove(self.parent.as_fd(), &self.name, self.parent.as_fd()) {
            tracing::warn!(path = %self.path.display(), %error, "deleting a half-seeded volume failed");
        }
    }
}

/// One copy; directories are opened by path from the top, so that depth costs no descriptors.
struct Copy {
    from: OwnedFd,
    to: OwnedFd,
    ids: Option<IdRange>,
    /// Where the first name of a file with several is.
    links: HashMap<(u64, u64), Vec<u8>>,
    seeded: Seeded,
}

impl Copy {
    /// With the owners that the image has.
    fn unmapped(&self, mut stat: Stat) -> Stat {
        if let Some(ids) = self.ids {
            stat.st_uid = ids.in_task(stat.st_uid).unwrap_or(stat.st_uid);
            stat.st_gid = ids.in_task(stat.st_gid).unwrap_or(stat.st_gid);
        }
        stat
    }

    fn run(&mut self) -> Result<(), SeedError> {
        let mut waiting: Vec<Vec<u8>> = vec![Vec::new()];
        let mut done: Vec<Vec<u8>> = Vec::new();
        while let Some(path) = waiting.pop() {
            self.directory(&path, &mut waiting)?;
            done.push(path);
        }
        // Owner, mode and times of directories last: nothing is made in them any more.
        for path in done.iter().rev() {
            let (from, to) = (open_dir(&self.from, path)?, open_dir(&self.to, path)?);
            let stat = rustix::fs::fstat(&from).map_err(failed("looking at", path))?;
            attributes(&from, &to, &self.unmapped(stat), path)?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &[u8], waiting: &mut Vec<Vec<u8>>) -> Result<(), SeedError> {
        let (from, to) = (open_dir(&self.from, path)?, open_dir(&self.to, path)?);
        for entry in Dir::read_from(&from).map_err(failed("listing", path))? {
            let entry = entry.map_err(failed("listing", path))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = if path.is_empty() {
                name.to_bytes().to_vec()
            } else {
                [path, b"/", name.to_bytes()].concat()
            };
            let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("looking at", &below))?;
            let stat = self.unmapped(stat);
            self.seeded.entries += 1;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                rustix::fs::mkdirat(&to, name, Mode::from(0o700)).map_err(failed("making", &below))?;
                waiting.push(below);
            } else if !self.linked(&to, name, &below, &stat)? {
                self.other(&from, &to, name, &below, &stat)?;
            }
        }
        Ok(())
    }

    /// Makes a second name of a file that is copied already.
    fn linked(&mut self, to: &OwnedFd, name: &CStr, path: &[u8], stat: &Stat) -> Result<bool, SeedError> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        match self.links.entry((stat.st_dev, stat.st_ino)) {
            std::collections::hash_map::Entry::Vacant(first) => {
                first.insert(path.to_vec());
                Ok(false)
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                rustix::fs::linkat(&self.to, first.get().as_slice(), to, name, AtFlags::empty())
                    .map_err(failed("linking", path))?;
                Ok(true)
            }
        }
    }

    fn other(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), SeedError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source =
                    rustix::fs::openat(from, name, flags, Mode::empty()).map_err(failed("opening", path))?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made =
                    rustix::fs::openat(to, name, flags, Mode::from(0o600)).map_err(failed("making", path))?;
                self.seeded.bytes += content(&source, &made, path)?;
                return attributes(&source, &made, stat, path);
            }
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(from, name, Vec::new()).map_err(failed("reading", path))?;
                rustix::fs::symlinkat(target.as_c_str(), to, name).map_err(failed("making", path))?;
            }
            _ => {
                rustix::fs::mknodat(to, name, kind, Mode::from(0o600), stat.st_rdev)
                    .map_err(failed("making", path))?;
            }
        }
        named_attributes(to, name, path, stat, kind)
    }
}

fn open_dir(top: &OwnedFd, path: &[u8]) -> Result<OwnedFd, SeedError> {
    let path = if path.is_empty() { &b"."[..] } else { path };
    rustix::fs::openat2(top, path, DIRECTORY, Mode::empty(), STRICT).map_err(failed("opening", path))
}

/// In the kernel where it can: a copy within one file system may share its blocks. Holes stay holes: an
/// image of some kilobytes may have files of terabytes that are nothing else.
fn content(from: &OwnedFd, to: &OwnedFd, path: &[u8]) -> Result<u64, SeedError> {
    let mut from = std::fs::File::from(from.try_clone().map_err(|e| io_failed(path, e))?);
    let mut to = std::fs::File::from(to.try_clone().map_err(|e| io_failed(path, e))?);
    copy_parts(&mut from, &mut to).map_err(|e| io_failed(path, e))
}

fn copy_parts(from: &mut std::fs::File, to: &mut std::fs::File) -> io::Result<u64> {
    use rustix::fs::SeekFrom::{Data, Hole};
    let length = from.metadata()?.len();
    let (mut at, mut copied) = (0, 0);
    while at < length {
        let start = match rustix::fs::seek(&*from, Data(at as _)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&*from, Hole(start as _))?;
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        copied += io::copy(&mut from.take(end - start), to)?;
        at = end;
    }
    to.set_len(length)?;
    Ok(copied)
}

fn io_failed(path: &[u8], source: io::Error) -> SeedError {
    SeedError::Io { action: "copying", path: String::from_utf8_lossy(path).into_owned(), source }
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner, mode, attributes and times of an open file or directory, in the order that keeps suid bits
/// and capabilities.
fn attributes(from: &OwnedFd, to: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), SeedError> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
        .map_err(failed("chown of", path))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode)).map_err(failed("chmod of", path))?;
    let mut list = vec![0u8; 64 << 10];
    let length = match rustix::fs::flistxattr(from, list.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other.map_err(failed("reading the attributes of", path))?,
    };
    for name in list[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        // What overlayfs notes about itself is not the image's.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::fgetxattr(from, name, value.as_mut_slice())
            .map_err(failed("reading an attribute of", path))?;
        match rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(failed("setting an attribute of", path)(e)),
        }
    }
    rustix::fs::futimens(to, &times(stat)).map_err(failed("setting the time of", path))
}

fn named_attributes(
    to: &OwnedFd,
    name: &CStr,
    path: &[u8],
    stat: &Stat,
    kind: FileType,
) -> Result<(), SeedError> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("chown of", path))?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())
            .map_err(failed("chmod of", path))?;
    }
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("setting the time of", path))
}

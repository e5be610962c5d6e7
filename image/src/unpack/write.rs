//! Makes the files of a layer.
//! In: entries in the order of the archive. Out: the directory, and what was counted.
//! A later entry replaces an earlier one of the same name; a directory over a directory only changes
//! its attributes; directories get their times last, when nothing is made in them any more.
//! Never: follows the last component of a path, or opens what it did not make itself.

use super::below::{LinkBelow, MAX_LINKS};
use super::entry::{Entry, Kind, Meaning, clean, meaning, split};
use super::place::{Place, open_inside};
use super::stream::TarStream;
use super::{Target, UnpackError, attributes};
use crate::tree;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dev, FileType, Mode, OFlags, SeekFrom, Timestamps, XattrFlags, makedev};
use rustix::io::Errno;
use std::ffi::CString;
use std::io::BufRead;

/// What was written.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) implicit_dirs: Vec<Vec<u8>>,
    pub(crate) links_below: Vec<LinkBelow>,
}

pub(crate) struct Writer<'a> {
    target: &'a Target,
    /// Written since the disk was looked at last.
    unmeasured_bytes: u64,
    place: Place<'a>,
    scratch: BorrowedFd<'a>,
    dir_times: Vec<(Vec<u8>, Timestamps)>,
    links_below: Vec<LinkBelow>,
    bytes: u64,
}

/// Overlayfs's whiteout. Source: kernel, filesystems/overlayfs.rst.
const WHITEOUT: Dev = 0;
/// How much may be written between two looks at the disk.
const MEASURE_EVERY_BYTES: u64 = 8 << 20;
const OPAQUE: &str = "trusted.overlay.opaque";

impl<'a> Writer<'a> {
    pub(crate) fn new(target: &'a Target) -> Self {
        Self {
            target,
            unmeasured_bytes: 0,
            place: Place::new(target.diff.as_fd()),
            scratch: target.scratch.as_fd(),
            dir_times: Vec::new(),
            links_below: Vec::new(),
            bytes: 0,
        }
    }

    /// Makes one entry; its data is taken from the stream.
    pub(crate) fn write<R: BufRead>(
        &mut self,
        entry: &Entry,
        stream: &mut TarStream<'_, R>,
    ) -> Result<(), UnpackError> {
        attributes::check(entry)?;
        let path = clean(&entry.path)?;
        if path.is_empty() {
            return self.root(entry);
        }
        let (dir, name) = split(&path);
        match meaning(&path, name)? {
            Meaning::Ignored => Ok(()),
            Meaning::Opaque => {
                self.place.parent(dir)?;
                self.make_opaque(dir)
            }
            Meaning::Whiteout(hidden) => self.whiteout(dir, hidden),
            Meaning::Ordinary => match entry.kind {
                Kind::File => self.file(entry, dir, name, stream),
                Kind::Directory => self.directory(entry, &path),
                Kind::HardLink => self.hard_link(entry, &path),
                Kind::Symlink => self.symlink(entry, dir, name),
                Kind::Fifo => self.node(entry, dir, name, FileType::Fifo),
                Kind::CharDevice => self.node(entry, dir, name, FileType::CharacterDevice),
                Kind::BlockDevice => self.node(entry, dir, name, FileType::BlockDevice),
            },
        }
    }

    /// Sets the times of directories and gives the counts.
    pub(crate) fn finish(self, entries: u64) -> Result<Counted, UnpackError> {
        for (path, times) in &self.dir_times {
            match open_inside(self.place.root(), path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                // Through /proc, because utimensat takes no O_PATH descriptor with an empty path before 5.8.
                Ok(fd) => rustix::fs::utimensat(CWD, proc_path(&fd), times, AtFlags::empty())
                    .map_err(UnpackError::at("setting the time of", path))?,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(UnpackError::at("opening", path)(e)),
            }
        }
        let implicit_dirs = self.place.into_implicit();
        Ok(Counted { bytes: self.bytes, entries, implicit_dirs, links_below: self.links_below })
    }

    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(UnpackError::hostile(&entry.path, "is the root but no directory"));
        }
        attributes::set_open(self.place.root(), entry)?;
        self.place.described(b"");
        self.dir_times.push((Vec::new(), attributes::times(entry)));
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        dir: &[u8],
        name: &[u8],
        stream: &mut TarStream<'_, R>,
    ) -> Result<(), UnpackError> {
        let parent = self.place.parent(dir)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = self.make(parent.as_fd(), name, &entry.path, || {
            rustix::fs::openat(&*parent, name, flags, Mode::from(0o600))
        })?;
        let path = join(dir, name);
        for extent in entry.extents().iter() {
            if entry.sparse.is_some() {
                rustix::fs::seek(&made, SeekFrom::Start(extent.offset))
                    .map_err(UnpackError::at("writing", &entry.path))?;
            }
            stream.content(&path, extent.offset, extent.length, |mut part| {
                while !part.is_empty() {
                    let written = match rustix::io::write(&made, part) {
                        Err(Errno::INTR) => continue,
                        other => other.map_err(UnpackError::at("writing", &entry.path))?,
                    };
                    part = &part[written..];
                }
                Ok(())
            })?;
        }
        if let Some(sparse) = &entry.sparse {
            // The last hole needs an end.
            rustix::fs::ftruncate(&made, sparse.real_bytes)
                .map_err(UnpackError::at("writing", &entry.path))?;
        }
        self.bytes += entry.size;
        self.wrote(entry.size)?;
        attributes::set_open(made.as_fd(), entry)?;
        rustix::fs::futimens(&made, &attributes::times(entry))
            .map_err(UnpackError::at("setting the time of", &entry.path))
    }

    /// Looks at the disk now and then; a file that is larger than that is looked at when it is whole.
    fn wrote(&mut self, bytes: u64) -> Result<(), UnpackError> {
        // Also for files without content, which take inodes.
        self.unmeasured_bytes += bytes.max(512);
        if self.unmeasured_bytes >= MEASURE_EVERY_BYTES {
            self.unmeasured_bytes = 0;
            self.target.check_room()?;
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry, path: &[u8]) -> Result<(), UnpackError> {
        let (dir, name) = split(path);
        let parent = self.place.parent(dir)?;
        let make = || rustix::fs::mkdirat(&*parent, name, Mode::from(0o700));
        let mut opaque = false;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => match kind_at(parent.as_fd(), name, &entry.path)? {
                Some((FileType::Directory, _)) | None => {}
                Some((kind, device)) => {
                    // A directory in place of what the same layer whited out hides what is below it.
                    opaque = kind == FileType::CharacterDevice && device == WHITEOUT;
                    self.clear(parent.as_fd(), name, &entry.path)?;
                    make().map_err(UnpackError::at("making", &entry.path))?;
                }
            },
            Err(e) => return Err(UnpackError::at("making", &entry.path)(e)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&*parent, name, flags, Mode::empty())
            .map_err(UnpackError::at("opening", &entry.path))?;
        attributes::set_open(made.as_fd(), entry)?;
        if opaque {
            set_opaque(made.as_fd(), path)?;
        }
        self.place.described(path);
        self.dir_times.push((path.to_vec(), attributes::times(entry)));
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, dir: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() >= 4096 {
            return Err(UnpackError::hostile(&entry.path, "is a symlink to nothing that can exist"));
        }
        let parent = self.place.parent(dir)?;
        self.make(parent.as_fd(), name, &entry.path, || {
            rustix::fs::symlinkat(entry.link.as_slice(), &*parent, name)
        })?;
        attributes::set_named(parent.as_fd(), name, entry, false)
    }

    fn node(&mut self, entry: &Entry, dir: &[u8], name: &[u8], kind: FileType) -> Result<(), UnpackError> {
        let parent = self.place.parent(dir)?;
        let device = makedev(entry.device.0, entry.device.1);
        self.make(parent.as_fd(), name, &entry.path, || {
            rustix::fs::mknodat(&*parent, name, kind, Mode::from(0o600), device)
        })?;
        attributes::set_named(parent.as_fd(), name, entry, true)
    }

    /// A second name for a file of this layer, or, when the layers are put together, of one below. Its
    /// target is found like any parent: inside, and its last component is not followed.
    fn hard_link(&mut self, entry: &Entry, path: &[u8]) -> Result<(), UnpackError> {
        let target = clean(&entry.link)?;
        let (target_dir, target_name) = split(&target);
        let Some(from) = self.place.existing(target_dir)? else { return self.link_below(path, target) };
        let target_stat = match rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(_) => return self.link_below(path, target),
        };
        if FileType::from_raw_mode(target_stat.st_mode) == FileType::Directory {
            return Err(UnpackError::hostile(&entry.path, "is a hard link to a directory"));
        }
        let (dir, name) = split(path);
        let parent = self.place.parent(dir)?;
        let same = rustix::fs::statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| (s.st_dev, s.st_ino) == (target_stat.st_dev, target_stat.st_ino));
        if same {
            return Ok(());
        }
        self.make(parent.as_fd(), name, &entry.path, || {
            rustix::fs::linkat(&from, target_name, &*parent, name, AtFlags::empty())
        })
    }

    /// The target is not in this layer, so it has to be below.
    fn link_below(&mut self, path: &[u8], target: Vec<u8>) -> Result<(), UnpackError> {
        if target.is_empty() {
            return Err(UnpackError::hostile(path, "is a hard link to a directory"));
        }
        if self.links_below.len() >= MAX_LINKS {
            return Err(UnpackError::Limit { what: "hard links to other layers", limit: MAX_LINKS as u64 });
        }
        let (dir, name) = split(path);
        let parent = self.place.parent(dir)?;
        if kind_at(parent.as_fd(), name, path)?.is_some() {
            self.clear(parent.as_fd(), name, path)?;
        }
        self.links_below.push(LinkBelow { path: path.to_vec(), target });
        Ok(())
    }

    /// Hides `name` of the layers below. A file of the same name in this layer stays: whiteouts
    /// speak of lower layers only, in whatever order the archive has them.
    fn whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        let parent = self.place.parent(dir)?;
        let path = join(dir, name);
        match kind_at(parent.as_fd(), name, &path)? {
            Some((FileType::Directory, _)) => return self.make_opaque(&path),
            Some(_) => return Ok(()),
            None => {}
        }
        rustix::fs::mknodat(&*parent, name, FileType::CharacterDevice, Mode::empty(), WHITEOUT)
            .map_err(UnpackError::at("making the whiteout", &path))
    }

    fn make_opaque(&mut self, dir: &[u8]) -> Result<(), UnpackError> {
        let fd = open_inside(self.place.root(), dir, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(UnpackError::at("opening", dir))?;
        set_opaque(fd.as_fd(), dir)
    }

    /// Runs `make`, which must fail with EEXIST rather than replace; clears the way and tries once more.
    fn make<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(parent, name, path)?;
                make().map_err(UnpackError::at("making", path))
            }
            other => other.map_err(UnpackError::at("making", path)),
        }
    }

    fn clear(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        self.place.forget();
        let c_name =
            CString::new(name).map_err(|_| UnpackError::hostile(path, "is not a possible file name"))?;
        tree::remove(parent, &c_name, self.scratch).map_err(|source| UnpackError::Io {
            action: "replacing",
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        })
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn set_opaque(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), UnpackError> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
        .map_err(UnpackError::at("hiding what is below", path))
}

fn kind_at(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Option<(FileType, Dev)>, UnpackError> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat.st_rdev))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(UnpackError::at("looking at", path)(e)),
    }
}

/// A path to exactly what a descriptor stands for.
pub(crate) fn proc_path(fd: &OwnedFd) -> String {
    use rustix::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

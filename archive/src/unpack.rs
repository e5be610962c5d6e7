//! A tar stream becomes files below a directory. The stream is hostile input.
//! In: bytes, a `Base`, `Rules`. Out: files, counted. Files are written under a name of their own
//! and renamed when they are whole; blocks of zeros become holes.
//! Never: writes through a symbolic link below the base, makes devices, or takes over a set-uid bit
//! that was not asked for.

use crate::destination::{Base, Rules};
use crate::root::{Links, open_below};
use crate::{ArchiveError, attributes, shown};
use lighter_image::unpack::entry::{Entry, Kind, clean, split};
use lighter_image::unpack::stream::TarStream;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};

/// A hole is worth it from here on.
const HOLE_BYTES: usize = 4096;
/// Directories get their mode and times when all is in them; more than these get them at once.
const DIRECTORIES_MAX: usize = 100_000;
const TEMPORARY: &[u8] = b".lighter-cp~";

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub entries: u64,
    /// Devices, which are not made.
    pub left_out: u64,
}

struct Unpacker<'a> {
    base: &'a Base,
    rules: Rules,
    unpacked: Unpacked,
    directories: Vec<(Vec<u8>, Entry)>,
}

/// Unpacks a stream below `base`.
pub fn unpack(input: impl BufRead, base: &Base, rules: Rules) -> Result<Unpacked, ArchiveError> {
    let mut stream = TarStream::plain(input);
    let unpacked = Unpacked::default();
    let mut unpacker = Unpacker { base, rules, unpacked, directories: Vec::new() };
    while let Some(entry) = stream.next_entry().map_err(ArchiveError::Format)? {
        unpacker.entry(&entry, &mut stream)?;
    }
    // Children before their parents, whose times they would change.
    while let Some((path, entry)) = unpacker.directories.pop() {
        unpacker.finish_directory(&path, &entry)?;
    }
    Ok(unpacker.unpacked)
}

impl Unpacker<'_> {
    fn entry<R: BufRead>(
        &mut self,
        entry: &Entry,
        stream: &mut TarStream<'_, R>,
    ) -> Result<(), ArchiveError> {
        let path = clean(&entry.path).map_err(ArchiveError::Format)?;
        attributes::check(&entry.xattrs, &path)?;
        if self.unpacked.entries == 0 && self.base.rename.is_some() && self.base.wants_directory {
            // `cp file TASK:/new/`: the directory would have to be there.
            if entry.kind != Kind::Directory {
                return Err(ArchiveError::refused(
                    &entry.path,
                    "is a file, and the destination no directory",
                ));
            }
        }
        self.unpacked.entries += 1;
        if path.is_empty() {
            // The base itself was there before, or has just been made.
            return Ok(());
        }
        let path = self.base.place(&path);
        let (above, name) = split(&path);
        let parent = self.parent(above)?;
        match entry.kind {
            Kind::Directory => self.directory(&parent, name, &path, entry),
            Kind::File => self.file(&parent, name, &path, entry, stream),
            Kind::Symlink => {
                self.replace(&parent, name, &path)?;
                rustix::fs::symlinkat(entry.link.as_slice(), &parent, name)
                    .map_err(ArchiveError::at("making the link", &path))?;
                self.attributes_of_named(&parent, name, &path, entry, false)
            }
            Kind::HardLink => self.hard_link(&parent, name, &path, entry),
            Kind::Fifo => {
                self.replace(&parent, name, &path)?;
                rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::from(0o600), 0)
                    .map_err(ArchiveError::at("making the pipe", &path))?;
                self.attributes_of_named(&parent, name, &path, entry, true)
            }
            Kind::CharDevice | Kind::BlockDevice => {
                self.unpacked.left_out += 1;
                Ok(())
            }
        }
    }

    /// The directory of an entry, without a link on the way; made when it is missing.
    fn parent(&self, above: &[u8]) -> Result<OwnedFd, ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let base = self.base.dir.as_fd();
        match open_below(base, above, flags, Links::None) {
            Ok(dir) => return Ok(dir),
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => return Err(ArchiveError::refused(above, "leads through a symbolic link")),
            Err(Errno::NOTDIR) => {
                return Err(ArchiveError::refused(above, "is used as a directory but is none"));
            }
            Err(error) => return Err(ArchiveError::at("opening", above)(error)),
        }
        let (further, name) = split(above);
        let parent = self.parent(further)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(ArchiveError::at("making", above)(error)),
        }
        open_below(parent.as_fd(), name, flags, Links::None).map_err(ArchiveError::at("opening", above))
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), ArchiveError> {
        match self.base.kind(parent.as_fd(), name).map_err(ArchiveError::at("looking at", path))? {
            Some(FileType::Directory) => {}
            Some(_) => return Err(ArchiveError::refused(path, "is there and no directory")),
            None => rustix::fs::mkdirat(parent, name, Mode::from(0o700))
                .map_err(ArchiveError::at("making", path))?,
        }
        self.directories.push((path.to_vec(), entry.clone()));
        if self.directories.len() > DIRECTORIES_MAX {
            let (path, entry) = self.directories.swap_remove(0);
            self.finish_directory(&path, &entry)?;
        }
        Ok(())
    }

    fn finish_directory(&self, path: &[u8], entry: &Entry) -> Result<(), ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match open_below(self.base.dir.as_fd(), path, flags, Links::None) {
            Ok(dir) => self.attributes(&File::from(dir), path, entry),
            // A later entry took its place.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(ArchiveError::at("opening", path)(error)),
        }
    }

    fn file<R: BufRead>(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        stream: &mut TarStream<'_, R>,
    ) -> Result<(), ArchiveError> {
        if self.base.kind(parent.as_fd(), name).map_err(ArchiveError::at("looking at", path))?
            == Some(FileType::Directory)
        {
            return Err(ArchiveError::refused(path, "is a directory here and a file in the archive"));
        }
        let temporary = [TEMPORARY, &name[..name.len().min(200)]].concat();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(parent, temporary.as_slice(), flags, Mode::from(0o600));
        let opened = open().or_else(|error| match error {
            // What an earlier copy left when it was cut off.
            Errno::EXIST => {
                rustix::fs::unlinkat(parent, temporary.as_slice(), AtFlags::empty()).and_then(|()| open())
            }
            error => Err(error),
        });
        let mut file = File::from(opened.map_err(ArchiveError::at("making", path))?);
        let written = fill(&mut file, path, entry, stream)
            .and_then(|()| self.attributes(&file, path, entry))
            .and_then(|()| put(parent, &temporary, name, path, &mut file));
        if written.is_err() {
            // The first error is the one to tell.
            let _ = rustix::fs::unlinkat(parent, temporary.as_slice(), AtFlags::empty());
        }
        written
    }

    fn hard_link(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), ArchiveError> {
        let target = self.base.place(&clean(&entry.link).map_err(ArchiveError::Format)?);
        let (above, target_name) = split(&target);
        let from = open_below(self.base.dir.as_fd(), above, OFlags::RDONLY | OFlags::DIRECTORY, Links::None)
            .map_err(ArchiveError::at("opening", above))?;
        // Only to what is a plain file: a link to a link would lead elsewhere.
        match self.base.kind(from.as_fd(), target_name).map_err(ArchiveError::at("looking at", &target))? {
            Some(FileType::RegularFile) => {}
            Some(_) => return Err(ArchiveError::refused(&target, "is no file to link to")),
            None => return Err(ArchiveError::NotFound { path: shown(&target) }),
        }
        if target == path {
            return Ok(());
        }
        self.replace(parent, name, path)?;
        rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty())
            .map_err(ArchiveError::at("linking", path))
    }

    /// Makes room for something that is no file and no directory.
    fn replace(&self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), ArchiveError> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => Err(ArchiveError::refused(path, "is a directory here")),
            Err(error) => Err(ArchiveError::at("replacing", path)(error)),
        }
    }

    /// As it is here.
    fn owner(&self, entry: &Entry, path: &[u8]) -> Result<(u32, u32), ArchiveError> {
        let (uid, gid) = self.rules.owner.unwrap_or((entry.uid, entry.gid));
        let ids = self.rules.ids;
        ids.here(uid)
            .zip(ids.here(gid))
            .ok_or_else(|| ArchiveError::refused(path, "has an owner that the container has not"))
    }

    fn mode(&self, entry: &Entry) -> Mode {
        // Sticky bits and permissions are harmless; the others give rights away.
        let kept = if self.rules.keep_suid { 0o7777 } else { 0o1777 };
        Mode::from(entry.mode & kept)
    }

    /// Owner first: changing it clears set-uid bits and capabilities.
    fn attributes(&self, file: &File, path: &[u8], entry: &Entry) -> Result<(), ArchiveError> {
        let (uid, gid) = self.owner(entry, path)?;
        let now = rustix::fs::fstat(file).map_err(ArchiveError::at("looking at", path))?;
        if (now.st_uid, now.st_gid) != (uid, gid) {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(ArchiveError::at("chown of", path))?;
        }
        rustix::fs::fchmod(file, self.mode(entry)).map_err(ArchiveError::at("chmod of", path))?;
        attributes::set(file, &entry.xattrs, self.rules, path)?;
        rustix::fs::futimens(file, &times(entry)).map_err(ArchiveError::at("setting the time of", path))
    }

    fn attributes_of_named(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        has_mode: bool,
    ) -> Result<(), ArchiveError> {
        let (uid, gid) = self.owner(entry, path)?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let now = rustix::fs::statat(parent, name, nofollow).map_err(ArchiveError::at("looking at", path))?;
        if (now.st_uid, now.st_gid) != (uid, gid) {
            rustix::fs::chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), nofollow)
                .map_err(ArchiveError::at("chown of", path))?;
        }
        if has_mode {
            rustix::fs::chmodat(parent, name, self.mode(entry), AtFlags::empty())
                .map_err(ArchiveError::at("chmod of", path))?;
        }
        rustix::fs::utimensat(parent, name, &times(entry), nofollow)
            .map_err(ArchiveError::at("setting the time of", path))
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime_s, tv_nsec: entry.mtime_ns.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Writes the entry's data; long runs of zeros are left out of the disk.
fn fill<R: BufRead>(
    file: &mut File,
    path: &[u8],
    entry: &Entry,
    stream: &mut TarStream<'_, R>,
) -> Result<(), ArchiveError> {
    // The reader of the archive knows its own errors only; ours is kept beside it.
    let mut failed = None;
    let mut write = |at: Option<u64>, piece: &[u8]| {
        let hole = piece.len() == HOLE_BYTES && piece.iter().all(|byte| *byte == 0);
        let place = at.map_or(Ok(0), |at| file.seek(SeekFrom::Start(at)));
        let step = place.and_then(|_| match hole {
            true => file.seek(SeekFrom::Current(HOLE_BYTES as i64)).map(drop),
            false => file.write_all(piece),
        });
        step.map_err(|source| {
            failed = Some(ArchiveError::Io { action: "writing", path: shown(path), source });
            lighter_image::unpack::UnpackError::Input
        })
    };
    let read = entry.extents().iter().try_for_each(|extent| {
        let mut at = Some(extent.offset);
        stream.content(path, extent.offset, extent.length, |part| {
            part.chunks(HOLE_BYTES).try_for_each(|piece| write(at.take(), piece))
        })
    });
    match (failed, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(ArchiveError::Format(error)),
        (None, Ok(())) => {
            // The last hole needs an end.
            file.set_len(entry.file_bytes()).map_err(|source| ArchiveError::Io {
                action: "writing",
                path: shown(path),
                source,
            })
        }
    }
}

/// Gives a whole file its name. A name that is a mount point of its own, like a container's
/// /etc/hosts, keeps its file and gets the contents.
fn put(
    parent: &OwnedFd,
    temporary: &[u8],
    name: &[u8],
    path: &[u8],
    file: &mut File,
) -> Result<(), ArchiveError> {
    match rustix::fs::renameat(parent, temporary, parent, name) {
        Ok(()) => return Ok(()),
        Err(Errno::BUSY) => {}
        Err(error) => return Err(ArchiveError::at("renaming to", path)(error)),
    }
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let into = rustix::fs::openat(parent, name, flags, Mode::empty());
    let mut into = File::from(into.map_err(ArchiveError::at("opening", path))?);
    let io = |source| ArchiveError::Io { action: "writing", path: shown(path), source };
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    std::io::copy(file, &mut into).map_err(io)?;
    rustix::fs::unlinkat(parent, temporary, AtFlags::empty()).map_err(ArchiveError::at("removing", temporary))
}

//! A file tree becomes a tar stream (POSIX ustar with GNU long names, PAX records for attributes).
//! In: a descriptor, a path inside it. Out: the stream, written as it is read.
//! Owns: one buffer, the list of files with several names. Sockets are left out and counted.
//! Never: follows a link but the one asked for; opens a pipe or a device; trusts a size it has read:
//! a file that shrinks is filled with zeros, one that grows is cut.

use crate::ids::Ids;
use crate::root::{Links, open_below, refuse_kernel_files};
use crate::{ArchiveError, attributes};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use tar::{EntryType, Header};

const BUFFER_BYTES: usize = 64 * 1024;
/// A tar name field; longer names have an entry of their own before.
const NAME_BYTES: usize = 100;
const BLOCK: usize = 512;
/// Directories in directories; each holds a descriptor open.
const DEPTH_MAX: usize = 256;
/// Files with several names that are remembered; of more the contents come several times.
const LINKS_MAX: usize = 100_000;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    pub entries: u64,
    /// Sockets and devices, which are no files to copy.
    pub left_out: u64,
}

struct Packer<'a, W> {
    out: &'a mut W,
    ids: Ids,
    packed: Packed,
    /// By device and inode, the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

/// Packs `path` of `root` under its last name; its contents only, when the path ends with `/.`.
/// `links`: how links on the way to it are taken; `follow`: when it is a link itself; `ids`: what the
/// owners are in the archive.
pub fn pack(
    root: BorrowedFd<'_>,
    path: &[u8],
    links: Links,
    follow: bool,
    ids: Ids,
    out: &mut impl Write,
) -> Result<Packed, ArchiveError> {
    let contents_only = path.ends_with(b"/.") || matches!(path, b"." | b"/" | b"");
    let nofollow =
        if follow || contents_only || path.ends_with(b"/") { OFlags::empty() } else { OFlags::NOFOLLOW };
    let found =
        open_below(root, path, OFlags::PATH | nofollow, links).map_err(ArchiveError::at("opening", path))?;
    refuse_kernel_files(&found, path)?;
    let name = match contents_only {
        true => Vec::new(),
        false => name_of(path),
    };
    let buffer = vec![0; BUFFER_BYTES];
    let mut packer = Packer { out, ids, packed: Packed::default(), links: HashMap::new(), buffer };
    packer.anything(found.as_fd(), b"", &name, 0)?;
    // Two empty blocks are the end.
    packer.write(&[0; 2 * BLOCK])?;
    packer.out.flush().map_err(ArchiveError::Stream)?;
    Ok(packer.packed)
}

/// The last name of a path; what has none (`..`) is called like a thing.
fn name_of(path: &[u8]) -> Vec<u8> {
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    match names.next_back() {
        None | Some(b"..") => b"files".to_vec(),
        Some(name) => name.to_vec(),
    }
}

impl<W: Write> Packer<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.out.write_all(bytes).map_err(ArchiveError::Stream)
    }

    /// `at` is a descriptor of the thing itself when `name` is empty, else of its directory.
    fn anything(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), ArchiveError> {
        let stat = match name {
            b"" => rustix::fs::fstat(at),
            name => rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW),
        };
        let stat = match stat {
            // Gone since its directory was read.
            Err(rustix::io::Errno::NOENT) if depth > 0 => return Ok(()),
            other => other.map_err(ArchiveError::at("looking at", path))?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(at, name, path, &stat, depth),
            FileType::RegularFile => self.file(at, name, path, &stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(at, name, Vec::new());
                let target = target.map_err(ArchiveError::at("reading the link", path))?;
                self.header(EntryType::Symlink, path, target.as_bytes(), &stat, 0)
            }
            FileType::Fifo => self.header(EntryType::Fifo, path, b"", &stat, 0),
            FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
                self.packed.left_out += 1;
                Ok(())
            }
        }
    }

    fn directory(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        depth: usize,
    ) -> Result<(), ArchiveError> {
        if depth > DEPTH_MAX {
            return Err(ArchiveError::refused(path, "lies too deep"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let own = if name.is_empty() { b"." } else { name };
        let dir: OwnedFd =
            open_below(at, own, flags, Links::None).map_err(ArchiveError::at("opening", path))?;
        refuse_kernel_files(&dir, path)?;
        let shown = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        self.extended(&attributes::records(&dir, path, self.ids)?)?;
        self.header(EntryType::Directory, &shown, b"", stat, 0)?;
        let entries = Dir::read_from(&dir).map_err(ArchiveError::at("reading", path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(ArchiveError::at("reading", path))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            let inner = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            self.anything(dir.as_fd(), &name, &inner, depth + 1)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        at: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), ArchiveError> {
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                let first = first.clone();
                return self.header(EntryType::Link, path, &first, stat, 0);
            }
            if self.links.len() < LINKS_MAX {
                self.links.insert(id, path.to_vec());
            }
        }
        // Never blocks: what was a file a moment ago may be a pipe now.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match name {
            b"" => reopen(at, flags),
            name => rustix::fs::openat(at, name, flags, Mode::empty()),
        };
        let fd = fd.map_err(ArchiveError::at("opening", path))?;
        let now = rustix::fs::fstat(&fd).map_err(ArchiveError::at("looking at", path))?;
        if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
            self.packed.left_out += 1;
            return Ok(());
        }
        let size = u64::try_from(now.st_size).unwrap_or(0);
        self.extended(&attributes::records(&fd, path, self.ids)?)?;
        self.header(EntryType::Regular, path, b"", &now, size)?;
        self.data(File::from(fd), path, size)
    }

    fn data(&mut self, mut file: File, path: &[u8], size: u64) -> Result<(), ArchiveError> {
        let mut left = size;
        let mut buffer = std::mem::take(&mut self.buffer);
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut buffer[..want]).map_err(|source| ArchiveError::Io {
                action: "reading",
                path: crate::shown(path),
                source,
            })?;
            let count = if count == 0 {
                buffer[..want].fill(0);
                want
            } else {
                count
            };
            self.write(&buffer[..count])?;
            left -= count as u64;
        }
        self.buffer = buffer;
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        self.write(&[0; BLOCK][..padding as usize])
    }

    fn header(
        &mut self,
        kind: EntryType,
        path: &[u8],
        link: &[u8],
        stat: &Stat,
        size: u64,
    ) -> Result<(), ArchiveError> {
        for (long, kind) in [(link, EntryType::GNULongLink), (path, EntryType::GNULongName)] {
            if long.len() > NAME_BYTES {
                self.long(long, kind)?;
            }
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(self.ids.inside(stat.st_uid).into());
        header.set_gid(self.ids.inside(stat.st_gid).into());
        header.set_size(size);
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        self.block(header, path, link)?;
        self.packed.entries += 1;
        Ok(())
    }

    /// PAX records that speak of the next header.
    fn extended(&mut self, records: &[u8]) -> Result<(), ArchiveError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        if let Some(fields) = header.as_ustar_mut() {
            copy(&mut fields.name, b"PaxHeaders/attributes");
        }
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(records)?;
        let padding = records.len().next_multiple_of(BLOCK) - records.len();
        self.write(&[0; BLOCK][..padding])
    }

    /// The name that the next header has no room for.
    fn long(&mut self, name: &[u8], kind: EntryType) -> Result<(), ArchiveError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(name.len() as u64 + 1);
        self.block(header, b"././@LongLink", b"")?;
        let mut data = name.to_vec();
        data.resize((name.len() + 1).next_multiple_of(BLOCK), 0);
        self.write(&data)
    }

    fn block(&mut self, mut header: Header, path: &[u8], link: &[u8]) -> Result<(), ArchiveError> {
        let fields = header.as_gnu_mut();
        if let Some(fields) = fields {
            copy(&mut fields.name, path);
            copy(&mut fields.linkname, link);
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }
}

fn copy(field: &mut [u8; NAME_BYTES], name: &[u8]) {
    let length = name.len().min(NAME_BYTES);
    field[..length].copy_from_slice(&name[..length]);
}

/// Opens for reading what an O_PATH descriptor stands for.
fn reopen(at: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::fd::AsRawFd;
    // The link of /proc leads to the very file, wherever it lies; it is to be followed.
    let path = format!("/proc/self/fd/{}", at.as_raw_fd());
    rustix::fs::open(path, flags - OFlags::NOFOLLOW, Mode::empty())
}

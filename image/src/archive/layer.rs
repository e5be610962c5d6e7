//! A layer's archive made again from its record and its directory.
//! In: the layer's directory. Out: the bytes of its tar, exactly those that were unpacked; how many.
//! Never: follows a symlink out of the layer; the caller compares the digest.

use crate::unpack::place::open_inside;
use crate::unpack::split::{Piece, SplitReader};
use rustix::fs::{CWD, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How long the archive is.
pub(crate) fn tar_bytes(layer: &Path) -> io::Result<u64> {
    let mut split = SplitReader::open(layer)?;
    let mut bytes = 0u64;
    while let Some(piece) = split.next()? {
        bytes += match piece {
            Piece::Raw(raw) => raw.len() as u64,
            Piece::Data { length, .. } => length,
        };
    }
    Ok(bytes)
}

/// Writes the archive.
pub(crate) fn write_tar(layer: &Path, out: &mut impl Write) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let diff = rustix::fs::openat(CWD, layer.join("diff"), flags, Mode::empty())?;
    let mut split = SplitReader::open(layer)?;
    let mut buffer = vec![0; 256 << 10];
    // A sparse file comes in several pieces.
    let mut open: Option<(Vec<u8>, File)> = None;
    while let Some(piece) = split.next()? {
        match piece {
            Piece::Raw(raw) => out.write_all(&raw)?,
            Piece::Data { path, offset, length } => {
                let file = match open.take() {
                    Some((before, file)) if before == path => file,
                    _ => open_file(&diff, &path)?,
                };
                copy(&file, offset, length, &mut buffer, out)?;
                open = Some((path, file));
            }
        }
    }
    Ok(())
}

fn open_file(diff: &OwnedFd, path: &[u8]) -> io::Result<File> {
    // NONBLOCK: a fifo that took the file's place must not make us wait.
    let file =
        File::from(open_inside(diff.as_fd(), path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "a file of the layer is no file any more")),
    }
}

fn copy(
    file: &File,
    mut offset: u64,
    length: u64,
    buffer: &mut [u8],
    out: &mut impl Write,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read_at(&mut buffer[..wanted], offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write_all(&buffer[..read])?;
        (offset, left) = (offset + read as u64, left - read as u64);
    }
    Ok(())
}

/// Counts what goes through, and cuts nothing.
pub(crate) struct Counted<R> {
    inner: R,
    pub(crate) bytes: std::rc::Rc<std::cell::Cell<u64>>,
}

impl<R> Counted<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, bytes: Default::default() }
    }
}

impl<R: io::BufRead> io::BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }
    fn consume(&mut self, amount: usize) {
        self.bytes.set(self.bytes.get() + amount as u64);
        self.inner.consume(amount);
    }
}

impl<R: io::BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = io::BufRead::fill_buf(self)?.read(into)?;
        io::BufRead::consume(self, length);
        Ok(length)
    }
}

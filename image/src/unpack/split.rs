//! What a layer's archive had besides the content of its files: headers, padding, order. With it and the
//! unpacked directory the archive is made again byte for byte, so that an exported image has the layers
//! it was pulled with, whiteouts, attributes, devices and long names included.
//! In: the stream's bytes as they are read; or the record. Out: `split.zst` beside the layer; or `Piece`s.
//! Format: zstd of records: 0 and a length, then so many bytes; 1, offset and length in a file, length
//! of its path, the path. Numbers are little-endian: u64, the path's u16.
//! Never: reads or writes a file of the layer itself; grows without bound.

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

/// Beside `diff` in the layer's directory.
pub(crate) const SPLIT: &str = "split.zst";
/// What repeats in headers is gone at the fastest level already.
const LEVEL: i32 = 1;
/// Bytes gathered before they are packed.
const GATHERED: usize = 64 << 10;
/// An archive with more than this besides its files' content is no image; its layer is used, and not
/// exported.
const MAX_RAW_BYTES: u64 = 2 << 30;
/// Longest path of an entry, see `entry::clean`.
const MAX_PATH: usize = 4096;

/// A part of the archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Raw(Vec<u8>),
    /// Content of a file of the layer.
    Data {
        path: Vec<u8>,
        offset: u64,
        length: u64,
    },
}

type Packer = zstd::stream::write::Encoder<'static, BufWriter<File>>;

/// Takes down one layer.
pub(crate) struct SplitWriter<'a> {
    dir: BorrowedFd<'a>,
    /// `None` when it was given up.
    out: Option<Packer>,
    raw: Vec<u8>,
    raw_bytes: u64,
}

impl<'a> SplitWriter<'a> {
    pub(crate) fn new(dir: BorrowedFd<'a>) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(dir, SPLIT, flags, Mode::from(0o600))?);
        let out = Packer::new(BufWriter::new(file), LEVEL)?;
        Ok(Self { dir, out: Some(out), raw: Vec::with_capacity(GATHERED), raw_bytes: 0 })
    }

    /// Bytes of the archive that are no file's content.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.out.is_none() {
            return Ok(());
        }
        self.raw_bytes += bytes.len() as u64;
        if self.raw_bytes > MAX_RAW_BYTES {
            return self.give_up();
        }
        self.raw.extend_from_slice(bytes);
        if self.raw.len() >= GATHERED { self.flush() } else { Ok(()) }
    }

    /// Here the archive has what the file has there.
    pub(crate) fn data(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.flush()?;
        let Some(out) = &mut self.out else { return Ok(()) };
        let path_length = u16::try_from(path.len()).map_err(io::Error::other)?;
        out.write_all(&[1])?;
        out.write_all(&offset.to_le_bytes())?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&path_length.to_le_bytes())?;
        out.write_all(path)
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(out) = self.out.as_mut().filter(|_| !self.raw.is_empty()) else { return Ok(()) };
        out.write_all(&[0])?;
        out.write_all(&(self.raw.len() as u64).to_le_bytes())?;
        out.write_all(&self.raw)?;
        self.raw.clear();
        Ok(())
    }

    fn give_up(&mut self) -> io::Result<()> {
        self.out = None;
        self.raw = Vec::new();
        Ok(rustix::fs::unlinkat(self.dir, SPLIT, AtFlags::empty())?)
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        match self.out.take() {
            Some(out) => out.finish()?.flush(),
            None => Ok(()),
        }
    }
}

/// Reads a record back.
pub(crate) struct SplitReader(zstd::stream::read::Decoder<'static, BufReader<File>>);

impl SplitReader {
    pub(crate) fn open(layer: &Path) -> io::Result<Self> {
        Ok(Self(zstd::stream::read::Decoder::new(File::open(layer.join(SPLIT))?)?))
    }

    /// The next piece, `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        let mut tag = [0];
        if self.0.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let first = self.number()?;
        match tag[0] {
            0 => {
                let length = usize::try_from(first).ok().filter(|length| *length <= GATHERED * 64);
                Ok(Some(Piece::Raw(self.bytes(length.ok_or_else(damaged)?)?)))
            }
            1 => {
                let length = self.number()?;
                let mut path_length = [0; 2];
                self.0.read_exact(&mut path_length)?;
                let path_length = usize::from(u16::from_le_bytes(path_length));
                if path_length > MAX_PATH {
                    return Err(damaged());
                }
                Ok(Some(Piece::Data { path: self.bytes(path_length)?, offset: first, length }))
            }
            _ => Err(damaged()),
        }
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = [0; 8];
        self.0.read_exact(&mut number)?;
        Ok(u64::from_le_bytes(number))
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the record of the layer's archive is damaged")
}

//! Reads a tar stream entry by entry: ustar, GNU long names, PAX, sparse files. Everything it holds is
//! bounded.
//! In: a buffered byte stream. Out: `Entry` values and their data, slice by slice, without copying.
//! Source: POSIX pax, GNU tar manual "Basic Tar Format". Never: touches the disk.

use super::UnpackError;
use super::entry::{Entry, Kind};
use super::sparse::{self, Extent, Format, MapReader, Sparse};
use super::split::{SPLIT, SplitWriter};
use std::io::BufRead;
use tar::{EntryType, Header};

/// Names and PAX records of one entry: a file name has at most 4 KiB, an xattr at most 64 KiB.
const MAX_EXTENSION: u64 = 1 << 20;
const BLOCK: usize = 512;

/// A tar stream.
pub struct TarStream<'a, R> {
    input: R,
    /// Takes down what is no file's content.
    split: Option<SplitWriter<'a>>,
    /// Data of the current entry not yet taken, and the padding after it.
    data_left: u64,
    padding_left: u64,
}

/// Records that stand before an entry and speak of it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: sparse::Records,
}

fn unreadable(_: std::io::Error) -> UnpackError {
    // The cause is known to whoever feeds the stream.
    UnpackError::Input
}

/// The record beside the layer cannot be written.
fn unrecorded(source: std::io::Error) -> UnpackError {
    UnpackError::Io { action: "writing", path: SPLIT.into(), source }
}

impl<'a, R: BufRead> TarStream<'a, R> {
    pub(crate) fn new(input: R, split: Option<SplitWriter<'a>>) -> Self {
        Self { input, split, data_left: 0, padding_left: 0 }
    }

    /// Reads an archive that nothing is taken down of.
    pub fn plain(input: R) -> Self {
        Self::new(input, None)
    }

    /// The next entry, `None` at the end of the archive. Data of the one before is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extensions = Extensions::default();
        // Of all of them together.
        let mut room = MAX_EXTENSION;
        loop {
            self.skip_data()?;
            let Some(block) = self.block()? else { return Ok(None) };
            if block.iter().all(|b| *b == 0) {
                return match self.block()? {
                    Some(second) if second.iter().any(|b| *b != 0) => {
                        Err(UnpackError::format("an empty block in the middle"))
                    }
                    _ => Ok(None),
                };
            }
            let header = Header::from_byte_slice(&block);
            check_sum(header, &block)?;
            let kind = header.entry_type();
            let size = header.entry_size().map_err(|_| UnpackError::format("a size that is no number"))?;
            match kind {
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension(size, &mut room)?)),
                EntryType::GNULongLink => {
                    extensions.link = Some(until_nul(self.extension(size, &mut room)?));
                }
                EntryType::XHeader => extensions.read_pax(&self.extension(size, &mut room)?)?,
                // Global records: nothing a layer's files depend on (writers put comments there).
                EntryType::XGlobalHeader => drop(self.extension(size, &mut room)?),
                _ => {
                    let mut records = std::mem::take(&mut extensions.sparse);
                    extensions.path = records.name.take().or(extensions.path);
                    let mut entry = extensions.apply(header, size)?;
                    let own = match kind {
                        EntryType::GNUSparse => Some(self.map_of_header(header)?),
                        _ => None,
                    };
                    self.begin_data(entry.size)?;
                    self.sparse(&mut entry, records, own)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// The map of a header of type S and of the blocks that follow it, and the size of the file.
    fn map_of_header(&mut self, header: &Header) -> Result<(Vec<Extent>, u64), UnpackError> {
        let (mut extents, mut more, real_bytes) = sparse::of_header(header)?;
        while more {
            let block = self.block()?.ok_or_else(|| UnpackError::format("it ends within a header"))?;
            more = sparse::of_block(&block, &mut extents)?;
        }
        Ok((extents, real_bytes))
    }

    /// Sets where the entry's data goes, if it has holes.
    fn sparse(
        &mut self,
        entry: &mut Entry,
        records: sparse::Records,
        own: Option<(Vec<Extent>, u64)>,
    ) -> Result<(), UnpackError> {
        let (extents, real_bytes) = match (own, records.format()?) {
            (Some(own), _) => own,
            (None, None) => return Ok(()),
            (None, Some(_)) if entry.kind != Kind::File => {
                return Err(UnpackError::format("a sparse file that is no file"));
            }
            (None, Some(Format::InData)) => {
                let mut map = MapReader::default();
                let mut last = false;
                while !last {
                    self.raw(BLOCK as u64, |part| {
                        last |= map.take(part)?;
                        Ok(())
                    })?;
                }
                entry.size = self.data_left;
                (map.extents, records.real_bytes()?)
            }
            (None, Some(Format::Listed)) => {
                let real_bytes = records.real_bytes()?;
                (records.extents, real_bytes)
            }
        };
        entry.sparse = Some(Sparse::checked(extents, real_bytes, entry.size)?);
        Ok(())
    }

    /// Hands the next `length` bytes of the current entry's data to `sink`, slice by slice, in order.
    /// They become those of the file at `path` from `offset` on.
    pub fn content(
        &mut self,
        path: &[u8],
        offset: u64,
        length: u64,
        sink: impl FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        if let Some(split) = &mut self.split {
            split.data(path, offset, length).map_err(unrecorded)?;
        }
        self.take(length, false, sink)
    }

    /// Hands over data that is of no file.
    pub(crate) fn raw(
        &mut self,
        length: u64,
        sink: impl FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        self.take(length, true, sink)
    }

    fn take(
        &mut self,
        length: u64,
        record: bool,
        mut sink: impl FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let mut left = length;
        if left > self.data_left {
            return Err(UnpackError::format("a file that says it has more data than it has"));
        }
        while left > 0 {
            let buffer = self.input.fill_buf().map_err(unreadable)?;
            if buffer.is_empty() {
                return Err(UnpackError::format("it ends within a file"));
            }
            let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&buffer[..length])?;
            if let Some(split) = self.split.as_mut().filter(|_| record) {
                split.raw(&buffer[..length]).map_err(unrecorded)?;
            }
            self.input.consume(length);
            left -= length as u64;
            self.data_left -= length as u64;
        }
        Ok(())
    }

    /// Reads what follows the archive to its end, so that all of it is hashed, and ends the record.
    pub(crate) fn finish(mut self) -> Result<(), UnpackError> {
        loop {
            let buffer = self.input.fill_buf().map_err(unreadable)?;
            let length = buffer.len();
            if length == 0 {
                return self.split.map_or(Ok(()), |split| split.finish().map_err(unrecorded));
            }
            if let Some(split) = &mut self.split {
                split.raw(buffer).map_err(unrecorded)?;
            }
            self.input.consume(length);
        }
    }

    fn begin_data(&mut self, size: u64) -> Result<(), UnpackError> {
        if size > i64::MAX as u64 {
            return Err(UnpackError::format("a size that is no size"));
        }
        self.data_left = size;
        self.padding_left = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), UnpackError> {
        self.raw(self.data_left, |_| Ok(()))?;
        self.data_left = std::mem::take(&mut self.padding_left);
        // Some writers (`umoci insert`) end with the last byte of the last file, and Go's reader takes it.
        if self.data_left > 0 && self.input.fill_buf().map_err(unreadable)?.is_empty() {
            self.data_left = 0;
        }
        self.raw(self.data_left, |_| Ok(()))
    }

    /// `room` is what is left for the records of one entry.
    fn extension(&mut self, size: u64, room: &mut u64) -> Result<Vec<u8>, UnpackError> {
        let left = room.checked_sub(size);
        *room = left.ok_or_else(|| {
            UnpackError::format(format!("a name or attribute record of {size} bytes where {room} are left"))
        })?;
        self.begin_data(size)?;
        let mut bytes = Vec::with_capacity(size as usize);
        self.raw(size, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// One block; `None` when the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.input.fill_buf().map_err(unreadable)?;
            if buffer.is_empty() {
                return match filled {
                    0 => Ok(None),
                    _ => Err(UnpackError::format("it ends within a header")),
                };
            }
            let length = buffer.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&buffer[..length]);
            self.input.consume(length);
            filled += length;
        }
        if let Some(split) = &mut self.split {
            split.raw(&block).map_err(unrecorded)?;
        }
        Ok(Some(block))
    }
}

fn check_sum(header: &Header, block: &[u8; BLOCK]) -> Result<(), UnpackError> {
    // The sum is of all bytes with its own field (148..156) as spaces.
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
    match header.cksum() {
        Ok(expected) if expected == sum => Ok(()),
        _ => Err(UnpackError::format("the checksum of a header is wrong")),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

impl Extensions {
    /// Records `<length> <key>=<value>\n`, where the length counts all of it and the value any bytes.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), UnpackError> {
        let wrong = || UnpackError::format("an attribute record is malformed");
        while !records.is_empty() && records[0] != 0 {
            let space = records.iter().take(21).position(|b| *b == b' ').ok_or_else(wrong)?;
            let digits = std::str::from_utf8(&records[..space]).map_err(|_| wrong())?;
            let length: usize = digits.parse().map_err(|_| wrong())?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(wrong());
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            self.read_record(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn read_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        let wrong = || UnpackError::format("an attribute record has a value that is no number");
        let number =
            |v: &[u8]| std::str::from_utf8(v).ok().and_then(|t| t.parse::<u64>().ok()).ok_or_else(wrong);
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(pax_time(value).ok_or_else(wrong)?),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.read(key, value)?;
                } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// The entry of `header` with these records over it.
    fn apply(self, header: &Header, header_size: u64) -> Result<Entry, UnpackError> {
        let wrong = |what: &str| UnpackError::format(format!("the {what} of an entry is no number"));
        let path = self.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = kind_of(header.entry_type(), &path)?;
        let link =
            self.link.unwrap_or_else(|| header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default());
        let id = |pax: Option<u64>, field: std::io::Result<u64>, what| {
            let id = pax.map_or_else(|| field.map_err(|_| wrong(what)), Ok)?;
            // The largest number means "no change" to chown.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| wrong(what))
        };
        let mtime = match self.mtime {
            Some(mtime) => mtime,
            None => (header_time(header).ok_or_else(|| wrong("time"))?, 0),
        };
        // Other writers leave the device fields of ordinary files empty.
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                let major = header.device_major().ok().flatten().ok_or_else(|| wrong("device"))?;
                let minor = header.device_minor().ok().flatten().ok_or_else(|| wrong("device"))?;
                (major, minor)
            }
            _ => (0, 0),
        };
        Ok(Entry {
            uid: id(self.uid, header.uid(), "owner")?,
            gid: id(self.gid, header.gid(), "group")?,
            mode: header.mode().map_err(|_| wrong("mode"))? & 0o7777,
            mtime_s: mtime.0,
            mtime_ns: mtime.1,
            // Only files have data, whatever the size field of the others says.
            size: if kind == Kind::File { self.size.unwrap_or(header_size) } else { 0 },
            xattrs: self.xattrs,
            sparse: None,
            path,
            link,
            kind,
            device,
        })
    }
}

fn kind_of(entry_type: EntryType, path: &[u8]) -> Result<Kind, UnpackError> {
    Ok(match entry_type {
        // Archives older than POSIX mark directories by their name alone.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        other => {
            return Err(UnpackError::format(format!(
                "an entry of unknown type {:?}",
                other.as_byte() as char
            )));
        }
    })
}

/// `-1.5` and the like: seconds and nanoseconds after them.
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = if whole == "-" { 0 } else { whole.parse().ok()? };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let ns: u32 = digits.parse().ok()?;
    match text.starts_with('-') && ns > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - ns)),
        false => Some((seconds, ns)),
    }
}

/// The header's time: octal, or two's complement in base 256 when its top bit is set.
fn header_time(header: &Header) -> Option<i64> {
    let field = &header.as_bytes()[136..148];
    if field[0] & 0x80 == 0 {
        return i64::try_from(header.mtime().ok()?).ok();
    }
    let start: i64 = if field[0] & 0x40 == 0 { 0 } else { -1 };
    let mut value = start;
    for byte in &field[1..] {
        value = value.checked_mul(256)? | i64::from(*byte);
    }
    Some(value)
}

#[cfg(test)]
mod tests;

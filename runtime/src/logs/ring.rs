//! A container's rotated log files as one sequence of numbered records: the ring on disk. In: the
//! directory, the number to begin with. Out: records in order, and how many are gone where rotation
//! has taken them. The numbers come from each file's first line; a file of an older shim has none
//! and is numbered on from the one before it.
//! Owns at most one open file between calls. Never: writes; gives a record twice; skips one that is
//! still there.

use super::line::{LogLine, header};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingItem {
    Record {
        number: u64,
        line: LogLine,
    },
    /// So many records before the next one are gone.
    Lost(u64),
}

/// A place between two records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Of the next record.
    pub number: u64,
    inode: u64,
    offset: u64,
}

/// Reads the ring of one container.
pub struct RingReader {
    current: PathBuf,
    next: u64,
    source: Option<Source>,
}

/// An open file; `offset` and `number` are those of the next line.
struct Source {
    reader: BufReader<File>,
    inode: u64,
    /// Records before this file, if its first line says so.
    before: Option<u64>,
    number: u64,
    offset: u64,
    /// The part of a line that was at its end.
    partial: Vec<u8>,
}

/// Most files of one log that are looked for; more than any configuration keeps.
const FILES_MAX: u32 = 1000;
/// A rotation under way leaves one number without a file for a moment.
const HOLES_MAX: u32 = 2;

/// How many bytes of a container's ring come after a place; all of it when its file is gone, or when
/// nothing was read yet. Only sizes are asked for.
pub fn bytes_after(directory: &Path, container: &str, place: Position) -> u64 {
    let current = directory.join(format!("{container}.log"));
    let (mut bytes, mut holes) = (0, 0);
    for number in 0..FILES_MAX {
        match fs::metadata(numbered(&current, number)) {
            Ok(meta) if meta.ino() == place.inode => return bytes + meta.len().saturating_sub(place.offset),
            Ok(meta) => (bytes, holes) = (bytes + meta.len(), 0),
            Err(_) if holes == HOLES_MAX => break,
            Err(_) => holes += 1,
        }
    }
    bytes
}

fn numbered(current: &Path, number: u32) -> PathBuf {
    let mut name = current.as_os_str().to_owned();
    if number > 0 {
        name.push(format!(".{number}"));
    }
    PathBuf::from(name)
}

impl RingReader {
    /// Begins with record `next`, or the oldest there is. A log without a file yet is empty.
    pub fn new(directory: &Path, container: &str, next: u64) -> Self {
        Self { current: directory.join(format!("{container}.log")), next, source: None }
    }

    /// The next item; `None` when there is none yet.
    pub fn read(&mut self) -> io::Result<Option<RingItem>> {
        loop {
            if let Some(line) = self.next_line()? {
                let number = line.0;
                if number < self.next {
                    continue;
                }
                self.next = number + 1;
                // What is no record still has a number.
                let Some(line) = LogLine::parse(&line.1) else { continue };
                return Ok(Some(RingItem::Record { number, line }));
            }
            if !self.is_at_end_of_file() {
                self.files_went_back();
                return Ok(None);
            }
            let Some(source) = self.following()? else { return Ok(None) };
            let lost = source.number.saturating_sub(self.next);
            self.next = self.next.max(source.number);
            self.source = Some(source);
            if lost > 0 {
                return Ok(Some(RingItem::Lost(lost)));
            }
        }
    }

    /// Where the next item is.
    pub fn position(&self) -> Position {
        let place = self.source.as_ref().map_or((0, 0), |source| (source.inode, source.offset));
        Position { number: self.next, inode: place.0, offset: place.1 }
    }

    /// Goes back to a position, which this reader gave.
    pub fn rewind(&mut self, position: Position) -> io::Result<()> {
        self.next = position.number;
        match self.source.as_mut().filter(|source| source.inode == position.inode) {
            Some(source) => source.seek(position),
            None => {
                self.source = None;
                Ok(())
            }
        }
    }

    /// The newest file and its size now.
    pub(super) fn end(&self) -> io::Result<Option<(u64, u64)>> {
        match fs::metadata(&self.current) {
            Ok(meta) => Ok(Some((meta.ino(), meta.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether everything up to there has been read.
    pub(super) fn has_reached(&self, (inode, offset): (u64, u64)) -> bool {
        self.source.as_ref().is_some_and(|source| source.inode == inode && source.offset >= offset)
    }

    fn next_line(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        let Some(source) = &mut self.source else { return Ok(None) };
        if let Some(line) = source.next_line()? {
            return Ok(Some(line));
        }
        if !is_rotated(&self.current, source.inode) {
            return Ok(None);
        }
        // Nothing is added to a file after its rotation, but something may have been before.
        source.next_line()
    }

    /// True when there is no file, or nothing will come any more in the one that is open.
    fn is_at_end_of_file(&self) -> bool {
        self.source.as_ref().is_none_or(|source| is_rotated(&self.current, source.inode))
    }

    /// A power cut may take records that were read already; what is written then has their numbers.
    fn files_went_back(&mut self) {
        if let Some(source) = &self.source {
            self.next = self.next.min(source.number);
        }
    }

    fn following(&mut self) -> io::Result<Option<Source>> {
        let mut files = self.files()?;
        let mut chosen = self.choose(&files);
        if chosen.is_some_and(|index| files[index].number > self.next) {
            // A rotation during the look may have hidden a file.
            files = self.files()?;
            chosen = self.choose(&files);
        }
        Ok(chosen.map(|index| files.swap_remove(index)))
    }

    /// Which of `files`, oldest first, has the next record, or the first one after it.
    fn choose(&self, files: &[Source]) -> Option<usize> {
        if let Some(open) = &self.source
            && let Some(at) = files.iter().position(|file| file.inode == open.inode)
        {
            return (at + 1 < files.len()).then_some(at + 1);
        }
        let holds = files.iter().rposition(|file| file.before.is_some() && file.number <= self.next);
        holds.or(if files.is_empty() { None } else { Some(0) })
    }

    /// The files that are there, oldest first.
    fn files(&self) -> io::Result<Vec<Source>> {
        let mut found: Vec<Source> = Vec::new();
        let mut holes = 0;
        // From the newest on: a rotation meanwhile moves a file to where it is still looked for.
        for number in 0..FILES_MAX {
            match Source::open(&numbered(&self.current, number))? {
                None if holes == HOLES_MAX => break,
                None => holes += 1,
                Some(source) => {
                    holes = 0;
                    if found.iter().all(|other| other.inode != source.inode) {
                        found.push(source);
                    }
                }
            }
        }
        found.reverse();
        let open = self.source.as_ref();
        let mut number = open.map_or(0, |open| open.number);
        for source in &mut found {
            match source.before {
                Some(before) => number = before,
                None if open.is_some_and(|open| open.inode == source.inode) => {}
                None => source.number = number,
            }
        }
        Ok(found)
    }
}

fn is_rotated(current: &Path, inode: u64) -> bool {
    fs::metadata(current).map_or(true, |meta| meta.ino() != inode)
}

impl Source {
    /// `None`: there is no such file, or not one whole line in it yet.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        let (reader, partial) = (BufReader::new(file), Vec::new());
        let mut source = Self { reader, inode, before: None, number: 0, offset: 0, partial };
        let Some((_, first)) = source.next_line()? else { return Ok(None) };
        match header(&first) {
            Some(before) => (source.before, source.number) = (Some(before), before),
            None => source.seek(Position { number: 0, inode, offset: 0 })?,
        }
        Ok(Some(source))
    }

    /// A whole line without its end, and its number; a part of one waits for the rest.
    fn next_line(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        self.reader.read_until(b'\n', &mut self.partial)?;
        if self.partial.pop_if(|last| *last == b'\n').is_none() {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.partial);
        self.offset += line.len() as u64 + 1;
        self.number += 1;
        Ok(Some((self.number - 1, line)))
    }

    fn seek(&mut self, position: Position) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(position.offset))?;
        (self.offset, self.number) = (position.offset, position.number);
        self.partial.clear();
        Ok(())
    }
}

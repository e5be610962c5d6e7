//! The output of one container: lines in, rotated files of dated records out.
//! A record is `<RFC 3339 with nanoseconds, UTC> <stdout|stderr> <F|P> <text>`: F ends a line, P is
//! a part of one that goes on (CRI's log format). Lines over 16 KiB are split.
//! A file opens with `<time> lighter H <number>`: how many records of this container came before it,
//! so that a reader can tell what it has missed (log drivers count by it).
//! With `files_max` 0 nothing is kept but a note that says so (log driver `none`).
//! A write that fails never stops the container: records are dropped and counted, and when writing
//! works again a record of stream `lighter` says how many are missing.
//! Never: blocks on the container, keeps more than one line of each stream in memory.

mod lines;
mod reopen;
mod time;

use lighter_shim_wire::LogPolicy;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

pub(crate) use lines::LineSplitter;

/// A stream of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The log of one container.
pub(crate) struct LogWriter {
    path: PathBuf,
    policy: LogPolicy,
    file: Option<File>,
    file_bytes: u64,
    /// Records in this file and in those before it.
    records: u64,
    /// Log driver `none`, and its note is written.
    noted: bool,
    /// Records lost since the last gap marker.
    missing: u64,
    /// Records lost since the start.
    pub(crate) dropped: u64,
}

impl LogWriter {
    /// Opens nothing yet: the first record does, and a failure then is a gap like any other.
    pub(crate) fn new(path: PathBuf, policy: LogPolicy) -> Self {
        Self { path, policy, file: None, file_bytes: 0, records: 0, noted: false, missing: 0, dropped: 0 }
    }

    /// Writes the records that `splitter` makes of `bytes`.
    pub(crate) fn output(&mut self, stream: Stream, splitter: &mut LineSplitter, bytes: &[u8]) {
        let stamp = time::stamp_now();
        let mut batch = Batch::default();
        splitter.push(bytes, &mut |text, whole| batch.add(&stamp, stream.name(), whole, text));
        self.write(&batch);
    }

    /// Writes what a stream left without a newline at its end.
    pub(crate) fn end_of_stream(&mut self, stream: Stream, splitter: &mut LineSplitter) {
        let stamp = time::stamp_now();
        let mut batch = Batch::default();
        splitter.finish(&mut |text, whole| batch.add(&stamp, stream.name(), whole, text));
        self.write(&batch);
    }

    fn write(&mut self, batch: &Batch) {
        if self.policy.files_max == 0 {
            return self.note_that_nothing_is_kept(batch);
        }
        if self.missing > 0 && self.write_gap_marker().is_err() {
            self.lose(&batch.bytes);
            return;
        }
        let mut rest = batch.bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(rest));
            if self.append(now).is_err() {
                self.lose(rest);
                return;
            }
            rest = later;
        }
    }

    fn note_that_nothing_is_kept(&mut self, batch: &Batch) {
        if !batch.bytes.is_empty() && !std::mem::replace(&mut self.noted, true) {
            let note = format!("{} lighter F log driver none: output is not kept\n", time::stamp_now());
            // It is no more than a hint for a person.
            let _ = fs::write(&self.path, note);
        }
    }

    /// Every record is one line.
    fn lose(&mut self, records: &[u8]) {
        self.missing += count(records);
        self.dropped += count(records);
    }

    fn write_gap_marker(&mut self) -> io::Result<()> {
        let text = format!(
            "{} lighter F {} records of output could not be written here\n",
            time::stamp_now(),
            self.missing
        );
        self.append(text.as_bytes())?;
        self.missing = 0;
        Ok(())
    }

    /// How many bytes of whole records the current file still takes, or else a new one; at least
    /// one record.
    fn fitting(&self, records: &[u8]) -> usize {
        let first = records.iter().position(|byte| *byte == b'\n').map_or(records.len(), |end| end + 1);
        let left = self.policy.file_bytes_max.saturating_sub(self.file_bytes);
        let fresh = self.policy.file_bytes_max.saturating_sub(HEADER_BYTES_MAX);
        let room = if (first as u64) <= left && self.file.is_some() { left } else { fresh };
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(records.len());
        records[..room].iter().rposition(|byte| *byte == b'\n').map_or(first, |end| end + 1).max(first)
    }

    /// Appends whole records or nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self.file.is_none() {
            self.open()?;
        }
        if self.file_bytes > HEADER_BYTES_MAX && self.file_bytes + length > self.policy.file_bytes_max {
            self.rotate();
            self.open()?;
        }
        self.write_or_take_back(bytes)?;
        self.records += count(bytes);
        Ok(())
    }

    /// Opens the current file; one that is there from before a restart is gone on with.
    fn open(&mut self) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(&self.path)?;
        let found = reopen::look_through(&mut file)?;
        self.records = self.records.max(found.records);
        self.file_bytes = found.bytes;
        self.file = Some(file);
        if self.file_bytes == 0 {
            let header = format!("{} lighter H {}\n", time::stamp_now(), self.records);
            if let Err(error) = self.write_or_take_back(header.as_bytes()) {
                // Without its header it is not used.
                self.file = None;
                return Err(error);
            }
        }
        Ok(())
    }

    fn write_or_take_back(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        match file.write_all(bytes) {
            Ok(()) => {
                self.file_bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Takes back a torn record, so that every line of the file is whole.
                let _ = file.set_len(self.file_bytes);
                Err(error)
            }
        }
    }

    /// `c.log` becomes `c.log.1`, and so on; the oldest goes. Errors show at the next write.
    fn rotate(&mut self) {
        self.file = None;
        self.file_bytes = 0;
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let older = self.policy.files_max.saturating_sub(1);
        if older == 0 {
            let _ = fs::remove_file(&self.path);
            return;
        }
        for number in (1..older).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        let _ = fs::rename(&self.path, numbered(1));
    }
}

/// Room for a header: 30 of time, 11 of marks, 20 digits.
const HEADER_BYTES_MAX: u64 = 61;

fn count(records: &[u8]) -> u64 {
    records.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The records of one read, written with one call where a file has room for them.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    fn add(&mut self, stamp: &str, stream: &str, whole: bool, text: &[u8]) {
        self.bytes.extend_from_slice(stamp.as_bytes());
        self.bytes.push(b' ');
        self.bytes.extend_from_slice(stream.as_bytes());
        self.bytes.extend_from_slice(if whole { b" F " } else { b" P " });
        self.bytes.extend_from_slice(text);
        self.bytes.push(b'\n');
    }
}

#[cfg(test)]
mod tests;

//! Reading a container's log across its rotated files, oldest record first, and following it.
//! In: the task's log directory, a container name, options. Out: `LogLine`s, one at a time.
//! Source of the format: lighter-shim's `log` module (CRI's log format).
//! Owns no task; a reader that is dropped holds nothing. Never: writes, or assumes that a file is
//! still there: rotation may take the oldest away while it is read.

mod follow;
mod line;

pub use line::{LogLine, LogStream};

use follow::Watch;
use lighter_model::ids::ContainerName;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Only the last so many records of those that are there.
    pub tail: Option<usize>,
    /// Only records of this time or later, in milliseconds since the Unix epoch.
    pub since_unix_ms: Option<u64>,
    /// Go on with what is written later, until this becomes true (or its sender is dropped): the
    /// container has ended. `None`: stop at the end of what is there.
    pub follow_until: Option<watch::Receiver<bool>>,
}

/// A reader of one container's log.
pub struct LogReader {
    current: PathBuf,
    options: LogOptions,
    /// What was there at the beginning is being read; `tail` counts that only.
    in_past: bool,
    /// Records that are read and still to be given out.
    ready: VecDeque<LogLine>,
    source: Option<Source>,
    watch: Option<Watch>,
}

/// An open file and the part of a line that was at its end.
struct Source {
    reader: BufReader<File>,
    inode: u64,
    partial: Vec<u8>,
}

/// Most files of one log that are looked for; more than any sensible configuration keeps.
const FILES_MAX: u32 = 1000;

/// Opens the log of `container` in `directory` (`<log_dir>/<task>`). A log without a file yet is
/// an empty log.
pub fn read(directory: &Path, container: &ContainerName, options: LogOptions) -> io::Result<LogReader> {
    let current = directory.join(format!("{container}.log"));
    // Before the first read, so that no change is missed.
    let watch = if options.follow_until.is_some() { Some(Watch::open(directory)?) } else { None };
    let mut reader =
        LogReader { current, options, in_past: true, ready: VecDeque::new(), source: None, watch };
    reader.read_past()?;
    reader.in_past = false;
    Ok(reader)
}

impl LogReader {
    /// The next record; `None` at the end. Cancel safe: a record is either returned or kept.
    pub async fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let Some(until) = self.options.follow_until.as_mut() else { return Ok(None) };
            // Looked at before reading: what was written before the end is then read.
            let ended = *until.borrow_and_update() || until.has_changed().is_err();
            self.read_on()?;
            if !self.ready.is_empty() {
                continue;
            }
            if ended {
                return Ok(None);
            }
            let (Some(watch), Some(until)) = (self.watch.as_ref(), self.options.follow_until.as_mut()) else {
                return Ok(None);
            };
            tokio::select! {
                changed = watch.changed() => changed?,
                _ = until.changed() => {}
            }
        }
    }

    /// Everything that is in the files now, cut to `tail`.
    fn read_past(&mut self) -> io::Result<()> {
        let oldest = (1..FILES_MAX).take_while(|number| self.numbered(*number).exists()).last().unwrap_or(0);
        for number in (1..=oldest).rev() {
            if let Some(mut source) = Source::open(&self.numbered(number))? {
                self.take_lines(&mut source)?;
            }
        }
        self.read_on()
    }

    /// What the current file has beyond what was read, and its successor when it was rotated away.
    fn read_on(&mut self) -> io::Result<()> {
        loop {
            let mut source = match self.source.take() {
                Some(source) => source,
                None => match Source::open(&self.current)? {
                    Some(source) => source,
                    None => return Ok(()),
                },
            };
            // Compared before the last read of the old file: nothing is added to it afterwards.
            let rotated = fs::metadata(&self.current).map_or(true, |meta| meta.ino() != source.inode);
            self.take_lines(&mut source)?;
            if !rotated {
                self.source = Some(source);
                return Ok(());
            }
        }
    }

    fn take_lines(&mut self, source: &mut Source) -> io::Result<()> {
        while let Some(bytes) = source.next_line()? {
            let Some(line) = LogLine::parse(&bytes) else { continue };
            if self.options.since_unix_ms.is_some_and(|since| line.unix_ns / 1_000_000 < since) {
                continue;
            }
            self.ready.push_back(line);
            if self.in_past && self.options.tail.is_some_and(|tail| self.ready.len() > tail) {
                self.ready.pop_front();
            }
        }
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.current.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

impl Source {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Some(Self { reader: BufReader::new(file), inode, partial: Vec::new() }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A whole line without its end; a part of one waits for the rest.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.reader.read_until(b'\n', &mut self.partial)?;
        if self.partial.pop_if(|last| *last == b'\n').is_some() {
            return Ok(Some(std::mem::take(&mut self.partial)));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;

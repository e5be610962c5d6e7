//! Reading a container's log across its rotated files, oldest record first, and following it.
//! In: the task's log directory, a container name, options. Out: `LogLine`s, one at a time.
//! Source of the format: lighter-shim's `log` module (CRI's log format).
//! Owns no task; a reader that is dropped holds nothing. Never: writes, reads ahead, or assumes that
//! a file is still there: rotation may take the oldest away while it is read.

mod follow;
mod line;
mod ring;

pub use follow::{Changed, LogWatch};
pub use line::{LogLine, LogStream};
pub use ring::{Position, RingItem, RingReader, bytes_after};

use lighter_model::ids::ContainerName;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
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
    ring: RingReader,
    options: LogOptions,
    /// Without following: file and size where what was there at the beginning ends.
    end: Option<(u64, u64)>,
    watch: Option<LogWatch>,
    /// The last record given; a gap before the first one is no news.
    last: Option<(String, u64)>,
}

/// Opens the log of `container` in `directory` (`<log_dir>/<task>`). A log without a file yet is
/// an empty log. Blocks while `tail` counts what is there.
pub fn read(directory: &Path, container: &ContainerName, options: LogOptions) -> io::Result<LogReader> {
    // Before the first read, so that no change is missed.
    let watch = if options.follow_until.is_some() { Some(LogWatch::of(directory)?) } else { None };
    let mut ring = RingReader::new(directory, container.as_str(), 0);
    let end = if watch.is_none() { ring.end()? } else { None };
    if let Some(tail) = options.tail {
        let from = number_of_tail(&mut ring, tail, options.since_unix_ms, end)?;
        ring = RingReader::new(directory, container.as_str(), from);
    }
    Ok(LogReader { ring, options, end, watch, last: None })
}

/// The number of the first of the last `tail` records that are wanted.
fn number_of_tail(
    ring: &mut RingReader,
    tail: usize,
    since_unix_ms: Option<u64>,
    end: Option<(u64, u64)>,
) -> io::Result<u64> {
    let mut numbers = VecDeque::new();
    while !end.is_some_and(|end| ring.has_reached(end)) {
        let Some(item) = ring.read()? else { break };
        let RingItem::Record { number, line } = item else { continue };
        if is_wanted(&line, since_unix_ms) {
            numbers.push_back(number);
        }
        if numbers.len() > tail {
            numbers.pop_front();
        }
    }
    Ok(numbers.front().copied().unwrap_or(ring.position().number))
}

fn is_wanted(line: &LogLine, since_unix_ms: Option<u64>) -> bool {
    since_unix_ms.is_none_or(|since| line.unix_ns / 1_000_000 >= since)
}

impl LogReader {
    /// The next record; `None` at the end. Cancel safe: a record is either returned or still to come.
    pub async fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            // Looked at before reading: what was written before the end is then read.
            let ended = self.has_ended();
            if let Some(line) = self.next_wanted()? {
                return Ok(Some(line));
            }
            if ended {
                return Ok(None);
            }
            let (Some(watch), Some(until)) = (self.watch.as_mut(), self.options.follow_until.as_mut()) else {
                return Ok(None);
            };
            tokio::select! {
                changed = watch.changed() => drop(changed?),
                _ = until.changed() => {}
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        let until = self.options.follow_until.as_mut();
        until.is_none_or(|until| *until.borrow_and_update() || until.has_changed().is_err())
    }

    fn next_wanted(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if self.end.is_some_and(|end| self.ring.has_reached(end)) {
                return Ok(None);
            }
            match self.ring.read()? {
                None => return Ok(None),
                Some(RingItem::Record { line, .. }) => {
                    if is_wanted(&line, self.options.since_unix_ms) {
                        self.last = Some((line.time.clone(), line.unix_ns));
                        return Ok(Some(line));
                    }
                }
                Some(RingItem::Lost(count)) => {
                    if let Some((time, unix_ns)) = &self.last {
                        return Ok(Some(LogLine::gap(time, *unix_ns, count)));
                    }
                }
            }
        }
    }
}

impl LogLine {
    /// A note that records are missing after those of this time.
    fn gap(time: &str, unix_ns: u64, count: u64) -> Self {
        let text = format!("{count} records are missing here: they were rotated away before they were read");
        Self {
            time: time.to_owned(),
            unix_ns,
            stream: LogStream::Lighter,
            partial: false,
            text: text.into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;

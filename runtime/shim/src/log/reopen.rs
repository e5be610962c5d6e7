//! Looks through a log file that an earlier start of the container left, so that its records are
//! numbered on. In: the open file. Out: its records and size. Takes back a record without an end, as
//! a power cut leaves one. Never: keeps more than one buffer of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// What is in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// In this file and, as its header says, before it.
    pub(super) records: u64,
    pub(super) bytes: u64,
}

pub(super) fn look_through(file: &mut File) -> io::Result<Found> {
    let mut buffer = [0; 16 * 1024];
    let (mut lines, mut at, mut whole) = (0, 0_u64, 0);
    let mut first = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        if at == 0 {
            first.extend_from_slice(&buffer[..count.min(128)]);
        }
        for (index, _) in buffer[..count].iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            (lines, whole) = (lines + 1, at + index as u64 + 1);
        }
        at += count as u64;
    }
    if whole < at {
        file.set_len(whole)?;
    }
    let before = header(&first);
    Ok(Found { records: before.map_or(lines, |before| before + lines - 1), bytes: whole })
}

/// The number in `<time> lighter H <number>`.
fn header(text: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let mut fields = std::str::from_utf8(line).ok()?.split(' ').skip(1);
    (fields.next()? == "lighter" && fields.next()? == "H").then_some(())?;
    fields.next()?.parse().ok()
}

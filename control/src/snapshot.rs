//! Snapshots: the whole state of one sequence in one file, checked when it is read.
//! In: what a store holds. Out: a file, and back. A first line names the format, a second says in JSON
//! of what the snapshot is; then each record with the lengths of key and value before it (32 bits,
//! little-endian); the SHA-256 of all that ends the file.
//! Never: leaves half a file under its name, or takes one for whole whose hash is not right.

pub mod schedule;

use crate::core::record::RecordError;
use crate::core::state::State;
use crate::format::{FormatError, Formats};
use crate::store::{Loaded, Reader, StoreError};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

const FORMAT: &[u8] = b"lighter-snapshot 1\n";

/// Reads a running store for snapshots; the schedule owns the reader, and with it the store is closed.
#[derive(Clone, Default)]
pub struct Source(Weak<Mutex<Box<dyn Reader>>>);

/// The owner's end of a `Source`.
pub(crate) struct Owned(Arc<Mutex<Box<dyn Reader>>>);

impl Owned {
    pub(crate) fn new(reader: Box<dyn Reader>) -> Self {
        Self(Arc::new(Mutex::new(reader)))
    }

    pub(crate) fn source(&self) -> Source {
        Source(Arc::downgrade(&self.0))
    }
}

impl Source {
    /// Everything at one sequence; it blocks. `None`: the control plane stops.
    pub fn load(&self) -> Option<Result<Loaded, StoreError>> {
        let reader = self.0.upgrade()?;
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        Some(reader.load())
    }
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub incarnation: String,
    pub term: u64,
    pub sequence: u64,
    pub records: usize,
    pub created_at_unix_ms: u64,
}

/// Why there is no snapshot, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot write {path:?}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} is no snapshot: {what}")]
    Damaged { path: PathBuf, what: &'static str },
    #[error("the records of {path:?} cannot be used")]
    Format {
        path: PathBuf,
        #[source]
        source: Box<FormatError>,
    },
    #[error("the records of {path:?} cannot be used")]
    Record {
        path: PathBuf,
        #[source]
        source: RecordError,
    },
}

/// Writes a file that only its owner reads, whole or not at all.
pub fn write(path: &Path, content: &Loaded, now_unix_ms: u64) -> Result<Header, SnapshotError> {
    let failed = |source| SnapshotError::Write { path: path.to_owned(), source };
    let (header, bytes) = file(content, now_unix_ms).map_err(failed)?;
    put(path, &bytes)?;
    Ok(header)
}

/// The bytes of a file, to be written elsewhere.
pub fn encoded(content: &Loaded, now_unix_ms: u64) -> io::Result<Vec<u8>> {
    file(content, now_unix_ms).map(|(_, bytes)| bytes)
}

/// Writes what another control plane gave, and reads it back; what is not whole leaves no file.
pub fn keep(path: &Path, bytes: &[u8]) -> Result<Header, SnapshotError> {
    decode(bytes).map_err(|what| SnapshotError::Damaged { path: path.to_owned(), what })?;
    put(path, bytes)?;
    read(path).map(|(header, _)| header)
}

fn file(content: &Loaded, now_unix_ms: u64) -> io::Result<(Header, Vec<u8>)> {
    let header = Header {
        incarnation: content.incarnation.clone(),
        term: content.term,
        sequence: content.sequence,
        records: content.records.len(),
        created_at_unix_ms: now_unix_ms,
    };
    let bytes = encode(&header, content)?;
    Ok((header, bytes))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::Write { path: path.to_owned(), source };
    let temporary = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn encode(header: &Header, content: &Loaded) -> io::Result<Vec<u8>> {
    let mut bytes = FORMAT.to_vec();
    serde_json::to_writer(&mut bytes, header)?;
    bytes.push(b'\n');
    for (key, value) in &content.records {
        for part in [key.as_bytes(), value] {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            bytes.extend(length.to_le_bytes());
        }
        bytes.extend(key.as_bytes());
        bytes.extend(value);
    }
    let hash = ring::digest::digest(&SHA256, &bytes);
    bytes.extend(hash.as_ref());
    Ok(bytes)
}

/// Reads a file back and proves it: its hash, its records, and that this program can use them.
pub fn read(path: &Path) -> Result<(Header, Loaded), SnapshotError> {
    let (header, content) = read_any(path)?;
    let ours = crate::format::all(Formats::THIS_PROGRAM, &content.records)
        .map_err(|source| SnapshotError::Format { path: path.to_owned(), source: Box::new(source) })?;
    State::from_records(ours).map_err(|source| SnapshotError::Record { path: path.to_owned(), source })?;
    Ok((header, content))
}

/// The same of whatever format its records are.
pub fn read_any(path: &Path) -> Result<(Header, Loaded), SnapshotError> {
    let bytes =
        std::fs::read(path).map_err(|source| SnapshotError::Read { path: path.to_owned(), source })?;
    decode(&bytes).map_err(|what| SnapshotError::Damaged { path: path.to_owned(), what })
}

fn decode(bytes: &[u8]) -> Result<(Header, Loaded), &'static str> {
    const CUT: &str = "it is cut off";
    if !bytes.starts_with(FORMAT) {
        return Err("its first line is another, or of a newer program");
    }
    let body = bytes.len().checked_sub(SHA256_OUTPUT_LEN).ok_or(CUT)?;
    let (body, hash) = bytes.split_at_checked(body).ok_or(CUT)?;
    let mut context = Context::new(&SHA256);
    context.update(body);
    if context.finish().as_ref() != hash {
        return Err("its hash is not that of its content");
    }
    let mut rest = body.get(FORMAT.len()..).ok_or(CUT)?;
    let line = rest.iter().position(|byte| *byte == b'\n').ok_or(CUT)?;
    let header: Header =
        serde_json::from_slice(rest.get(..line).ok_or(CUT)?).map_err(|_| "its header cannot be read")?;
    rest = rest.get(line + 1..).ok_or(CUT)?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (lengths, after) = rest.split_first_chunk::<8>().ok_or(CUT)?;
        let [a, b, c, d, e, f, g, h] = *lengths;
        let size = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let (key, after) = after.split_at_checked(size([a, b, c, d])).ok_or(CUT)?;
        let (value, after) = after.split_at_checked(size([e, f, g, h])).ok_or(CUT)?;
        let key = std::str::from_utf8(key).map_err(|_| "a key is no text")?;
        records.push((key.to_owned(), value.to_vec()));
        rest = after;
    }
    if records.len() != header.records {
        return Err("it has not as many records as it says");
    }
    let Header { incarnation, term, sequence, .. } = header.clone();
    Ok((header, Loaded { incarnation, term, sequence, records }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Loaded {
        let meta = br#"{"cluster_time_ms":1,"event_sequence":2}"#;
        let value = [&[crate::core::record::FORMAT_VERSION], meta.as_slice()].concat();
        let records = vec![("meta".to_owned(), value)];
        Loaded { incarnation: "one".to_owned(), term: 3, sequence: 4, records }
    }

    #[test]
    fn what_is_written_is_read_back_and_every_flipped_or_missing_byte_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.snapshot");
        let header = write(&path, &content(), 5).unwrap();
        assert_eq!((header.records, header.created_at_unix_ms), (1, 5));
        assert_eq!(read(&path).unwrap(), (header, content()));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(decode(&flipped).is_err(), "byte {at}");
            assert!(decode(&whole[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn a_snapshot_of_a_newer_program_is_refused_with_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.snapshot");
        let mut newer = content();
        newer.records[0].1[0] = crate::core::record::FORMAT_VERSION + 1;
        write(&path, &newer, 5).unwrap();
        let refused = read(&path).unwrap_err();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert!(cause.contains("newer"), "{cause}");
    }
}

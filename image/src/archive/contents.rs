//! What an archive has under which name, found in one pass; later read from where it lies.
//! In: a file. Out: `Contents`. Bounded: names and their number, and what is read into memory.
//! Never: writes, or follows a link of the archive.

use super::ArchiveError;
use super::layer::Counted;
use crate::digest::Digest;
use crate::unpack::entry::{Kind, clean};
use crate::unpack::stream::TarStream;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// More than any image has files in its archive.
const MAX_ENTRIES: usize = 100_000;

#[derive(Debug, Clone, Copy)]
enum Found {
    File { offset: u64, size: u64 },
    Link,
}

/// An archive that lies on the disk.
pub(crate) struct Contents {
    file: File,
    found: HashMap<String, Found>,
    max_json_bytes: u64,
}

impl Contents {
    pub(crate) fn read(mut file: File, max_json_bytes: u64) -> Result<Self, ArchiveError> {
        let mut start = [0; 4];
        file.seek(SeekFrom::Start(0)).map_err(ArchiveError::Read)?;
        let length = file.read(&mut start).map_err(ArchiveError::Read)?;
        if start[..length].starts_with(&[0x1f, 0x8b]) || start == [0x28, 0xb5, 0x2f, 0xfd] {
            return Err(ArchiveError::unusable("is compressed; decompress it first (gunzip, unzstd)"));
        }
        file.seek(SeekFrom::Start(0)).map_err(ArchiveError::Read)?;
        let counted = Counted::new(BufReader::with_capacity(1 << 20, &file));
        let position = counted.bytes.clone();
        let mut stream = TarStream::new(counted, None);
        let mut found = HashMap::new();
        while let Some(entry) = stream.next_entry().map_err(ArchiveError::Tar)? {
            let name = String::from_utf8_lossy(&clean(&entry.path).map_err(ArchiveError::Tar)?).into_owned();
            match entry.kind {
                Kind::File if entry.sparse.is_some() => {
                    return Err(ArchiveError::unusable(format!("has {name} as a sparse file")));
                }
                Kind::File => found.insert(name, Found::File { offset: position.get(), size: entry.size }),
                Kind::Directory => None,
                _ => found.insert(name, Found::Link),
            };
            if found.len() > MAX_ENTRIES {
                return Err(ArchiveError::unusable(format!("has more than {MAX_ENTRIES} files")));
            }
        }
        Ok(Self { file, found, max_json_bytes })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.found.contains_key(name)
    }

    pub(crate) fn size(&self, name: &str) -> Result<u64, ArchiveError> {
        match self.found.get(name) {
            Some(Found::File { size, .. }) => Ok(*size),
            Some(Found::Link) => Err(ArchiveError::unusable(format!(
                "has a link in place of {name}, as old releases of Docker write it; save the image with a newer one, or with skopeo"
            ))),
            None => Err(ArchiveError::unusable(format!("has no {name}"))),
        }
    }

    /// One file, from its beginning.
    pub(crate) fn open(&self, name: &str) -> Result<impl io::BufRead + Send + use<>, ArchiveError> {
        let size = self.size(name)?;
        let Some(Found::File { offset, .. }) = self.found.get(name).copied() else {
            return Err(ArchiveError::unusable(format!("has no {name}")));
        };
        let file = self.file.try_clone().map_err(ArchiveError::Read)?;
        Ok(BufReader::with_capacity(256 << 10, Part { file, offset, left: size }))
    }

    /// A small file.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let (size, limit) = (self.size(name)?, self.max_json_bytes);
        if size > limit {
            return Err(ArchiveError::unusable(format!(
                "has a {name} of {size} bytes, more than the {limit} allowed"
            )));
        }
        let mut bytes = Vec::new();
        self.open(name)?.read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        Ok(bytes)
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, ArchiveError> {
        serde_json::from_slice(&self.bytes(name)?)
            .map_err(|source| ArchiveError::Json { what: name.to_owned(), source })
    }

    /// A small blob of an OCI layout, verified.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<Vec<u8>, ArchiveError> {
        let name = blob_name(digest);
        let bytes = self.bytes(&name)?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(ArchiveError::WrongDigest { what: name, digest: digest.clone() }),
        }
    }
}

pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A region of a file; several may be read at a time.
struct Part {
    file: File,
    offset: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let length = self.file.read_at(&mut into[..wanted], self.offset)?;
        self.offset += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}

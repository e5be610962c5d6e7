//! Inflate on one thread, write on another, with a few buffers going round between them.
//! In: compressed bytes, from a file or from a download that is still running. Out: `Unpacked`.
//! Owns: the inflating thread, joined before return, and 8 buffers of 256 KiB.
//! Never: holds more than those buffers, whatever the layer claims to be.

use super::{Target, UnpackError, UnpackLimits, Unpacked};
use crate::digest::{Digest, RunningDigest};
use crate::manifest::Compression;
use bytes::Bytes;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Small enough to stay in the cache between inflating, hashing and writing.
const BUFFER_BYTES: usize = 256 << 10;
/// Enough that neither side waits for the other over one large write or one slow block.
const BUFFERS: usize = 8;

/// What a download hands over. An end must be said: a channel that just closes was cut.
#[derive(Debug)]
pub(crate) enum Chunk {
    Data(Bytes),
    End,
}

/// A download as a blocking reader.
pub(crate) struct ChunkReader {
    chunks: tokio::sync::mpsc::Receiver<Chunk>,
    current: Bytes,
    ended: bool,
}

impl ChunkReader {
    pub(crate) fn new(chunks: tokio::sync::mpsc::Receiver<Chunk>) -> Self {
        Self { chunks, current: Bytes::new(), ended: false }
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Chunk::Data(bytes)) => self.current = bytes,
                Some(Chunk::End) => self.ended = true,
                None => return Err(io::Error::other(Cut)),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.current.split_to(amount);
    }
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

/// The download ended early; its own error says why.
#[derive(Debug, thiserror::Error)]
#[error("the download ended early")]
struct Cut;

/// Decompresses and unpacks `input`; returns when all of it is read, or at the first error.
pub(crate) fn unpack(
    input: impl BufRead + Send,
    compression: Compression,
    target: &Target,
    limits: UnpackLimits,
) -> Result<Unpacked, UnpackError> {
    let (full_tx, full_rx) = sync_channel(BUFFERS);
    let (empty_tx, empty_rx) = channel();
    std::thread::scope(|scope| {
        let inflating = std::thread::Builder::new()
            .name("layer-inflate".into())
            .spawn_scoped(scope, move || inflate(input, compression, limits.max_bytes, &full_tx, &empty_rx))
            .map_err(|source| UnpackError::Io { action: "starting", path: "a thread".into(), source })?;
        let mut blocks = Blocks::new(full_rx, empty_tx);
        let written = super::unpack_tar(&mut blocks, target, limits);
        let diff_id = blocks.finish();
        // Closing our ends has made the thread stop if it had not.
        let inflated = inflating.join().unwrap_or(Err(UnpackError::Input));
        match (inflated, written) {
            // What went wrong first is on the inflating side: the writer only saw the end.
            (Err(error), Err(UnpackError::Input)) | (Err(error), Ok(_)) => Err(error),
            (_, Err(error)) => Err(error),
            (Ok(()), Ok(counted)) => Ok(Unpacked {
                diff_id,
                bytes: counted.bytes,
                entries: counted.entries,
                implicit_dirs: counted.implicit_dirs,
                links_below: counted.links_below,
            }),
        }
    })
}

fn inflate(
    input: impl BufRead,
    compression: Compression,
    max_bytes: u64,
    full: &SyncSender<Option<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<(), UnpackError> {
    let mut decoder = decoder(input, compression).map_err(UnpackError::Decompress)?;
    let mut total = 0u64;
    let mut made = 0;
    loop {
        let mut buffer = match empty.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if made < BUFFERS => {
                made += 1;
                vec![0; BUFFER_BYTES]
            }
            // The writer is gone when no buffer will ever come back.
            Err(_) => empty.recv().map_err(|_| UnpackError::Input)?,
        };
        buffer.resize(BUFFER_BYTES, 0);
        let length = fill(&mut decoder, &mut buffer)?;
        buffer.truncate(length);
        total += length as u64;
        if total > max_bytes {
            return Err(UnpackError::Limit { what: "bytes after decompression", limit: max_bytes });
        }
        let last = length == 0;
        full.send(if last { None } else { Some(buffer) }).map_err(|_| UnpackError::Input)?;
        if last {
            return Ok(());
        }
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(decoder: &mut impl Read, buffer: &mut [u8]) -> Result<usize, UnpackError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match decoder.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.get_ref().is_some_and(|inner| inner.is::<Cut>()) => return Err(UnpackError::Input),
            Err(e) => return Err(UnpackError::Decompress(e)),
        }
    }
    Ok(filled)
}

fn decoder<'a>(input: impl BufRead + 'a, compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        // A gzip file may have several members; parallel compressors write such.
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
    })
}

/// The decompressed stream on the writer's side; hashes it as it comes.
struct Blocks {
    full: Receiver<Option<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    taken: usize,
    ended: bool,
    digest: RunningDigest,
}

impl Blocks {
    fn new(full: Receiver<Option<Vec<u8>>>, empty: Sender<Vec<u8>>) -> Self {
        Self { full, empty, current: Vec::new(), taken: 0, ended: false, digest: RunningDigest::new() }
    }

    /// Lets the inflating thread go and gives the digest of what was read.
    fn finish(self) -> Digest {
        self.digest.finish()
    }
}

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.current.len() && !self.ended {
            let used = std::mem::take(&mut self.current);
            if used.capacity() > 0 {
                // The other side is gone when the stream has ended; the buffer is dropped then.
                let _ = self.empty.send(used);
            }
            self.taken = 0;
            match self.full.recv() {
                Ok(Some(block)) => {
                    self.digest.update(&block);
                    self.current = block;
                }
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::other(Cut)),
            }
        }
        Ok(&self.current[self.taken..])
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount;
    }
}

impl Read for Blocks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

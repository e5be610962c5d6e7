//! Chunks between an async stream and a thread that reads or writes files.
//! In: chunks of a channel. Out: `Read`; and the other way round. Owns one chunk.
//! Never: takes a stream that was cut off for one that has ended.

use std::io::{self, Read, Write};
use tokio::sync::mpsc;

/// A chunk, or the word that there are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    Data(Vec<u8>),
    End,
}

/// Reads what comes through a channel; for threads that may block.
#[derive(Debug)]
pub struct ChunkReader {
    from: mpsc::Receiver<Chunk>,
    current: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl ChunkReader {
    pub fn new(from: mpsc::Receiver<Chunk>) -> Self {
        Self { from, current: Vec::new(), taken: 0, ended: false }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.current.len() && !self.ended {
            match self.from.blocking_recv() {
                Some(Chunk::Data(data)) => (self.current, self.taken) = (data, 0),
                Some(Chunk::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream was cut off")),
            }
        }
        let count = into.len().min(self.current.len() - self.taken);
        into[..count].copy_from_slice(&self.current[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// Sends what is written through a channel, in chunks of one size; for threads that may block.
#[derive(Debug)]
pub struct ChunkWriter {
    to: mpsc::Sender<Vec<u8>>,
    current: Vec<u8>,
    size: usize,
}

impl ChunkWriter {
    pub fn new(to: mpsc::Sender<Vec<u8>>, size: usize) -> Self {
        Self { to, current: Vec::with_capacity(size), size }
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = data.len().min(self.size - self.current.len());
        self.current.extend_from_slice(&data[..count]);
        if self.current.len() == self.size {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.current, Vec::with_capacity(self.size));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the stream any more");
        self.to.blocking_send(chunk).map_err(gone)
    }
}

//! Frames: a length (u32, little-endian, of what follows), an id (u32) and a message.
//! An answer carries the id of its request; what is sent unasked carries id 0.
//! In: bytes as a socket delivers them. Out: whole frames. Messages are framed because a created,
//! unstarted container keeps a copy of the helper's socket open: waiting for its end would hang.
//! Never: keeps more than one longest frame of unread bytes.

use crate::codec::{DecodeError, Wire};
use std::fmt;

/// Longest frame accepted. A probe and an exec carry the program's whole environment, of which
/// execve(2) takes 2 MiB with the usual limit of the stack; all else is some KiB.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes before the message: length and id.
const HEADER_BYTES: usize = 8;

/// Why a stream of bytes cannot be read on; the connection is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    TooLong { length: usize },
    TooShort,
    Message(DecodeError),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length } => {
                write!(f, "a frame of {length} bytes is longer than {FRAME_BYTES_MAX}")
            }
            Self::TooShort => f.write_str("a frame has no room for its id"),
            Self::Message(_) => f.write_str("a frame holds no valid message"),
        }
    }
}

impl std::error::Error for FrameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Message(cause) => Some(cause),
            _ => None,
        }
    }
}

/// The bytes of one frame.
pub fn encode_frame<M: Wire>(id: u32, message: &M) -> Vec<u8> {
    let mut out = vec![0; 4];
    id.put(&mut out);
    message.put(&mut out);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_le_bytes());
    out
}

/// Collects bytes until frames are whole.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` when more bytes are needed.
    pub fn next_frame<M: Wire>(&mut self) -> Result<Option<(u32, M)>, FrameError> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { length });
        }
        if length < HEADER_BYTES - 4 {
            return Err(FrameError::TooShort);
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let id = u32::from_bytes(&self.bytes[4..HEADER_BYTES]).map_err(FrameError::Message)?;
        let message = M::from_bytes(&self.bytes[HEADER_BYTES..4 + length]);
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            // A shim is resident for months: it gives back the room of a large frame.
            self.bytes = Vec::new();
        }
        message.map(|message| Some((id, message))).map_err(FrameError::Message)
    }
}

//! Files as a tar archive and back: what `lighter cp` moves. Used by the agent inside a container's
//! root and by the command on a person's disk.
//! In: a directory to read or to write, given as a descriptor. Out: a tar stream, or files.
//! Owns: one file's buffer; nothing outlives a call. Blocks: for threads of their own.
//! Never: follows a link out of the directory it was given, whatever an archive or a container says;
//! makes a device; leaves half a file under its own name.

mod attributes;
mod chunks;
mod destination;
mod ids;
mod pack;
mod root;
mod unpack;

pub use chunks::{Chunk, ChunkReader, ChunkWriter};
pub use destination::{Base, Rules};
pub use ids::Ids;
pub use pack::{Packed, pack};
pub use root::Links;
pub use unpack::{Unpacked, unpack};

use std::io;

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{action} {path:?} failed")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} {problem}")]
    Refused { path: String, problem: &'static str },
    #[error("there is no {path:?}")]
    NotFound { path: String },
    #[error("the archive cannot be read")]
    Format(#[source] lighter_image::unpack::UnpackError),
    #[error("the archive ended early, or its reader has gone away")]
    Stream(#[source] io::Error),
}

impl ArchiveError {
    pub(crate) fn at(action: &'static str, path: &[u8]) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = shown(path);
        move |errno| match errno {
            rustix::io::Errno::NOENT => Self::NotFound { path },
            errno => Self::Io { action, path, source: errno.into() },
        }
    }

    pub(crate) fn refused(path: &[u8], problem: &'static str) -> Self {
        Self::Refused { path: shown(path), problem }
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

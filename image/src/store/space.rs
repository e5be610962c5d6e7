//! Room on the file system of the images: what there is, and what running pulls have been promised.
//! In: a need in bytes. Out: `Reservation`, or how much there is. A part of a reservation is given back
//! as soon as the layer it was for is written and the kernel counts it.
//! Owns: the sum of all promises. Never: deletes anything; `cleanup` decides about that.

use super::Inner;
use crate::manifest::{Compression, LayerDescriptor};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A file system as df(1) sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub used_bytes: u64,
    /// To us, without what is kept for root.
    pub available_bytes: u64,
}

impl Space {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self {
            used_bytes: (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
            available_bytes: stat.f_bavail * stat.f_frsize,
        })
    }
}

/// Promises of all running pulls, in bytes.
#[derive(Default)]
pub(crate) struct Promised(Mutex<u64>);

impl Promised {
    fn take(&self, bytes: u64) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.saturating_sub(bytes);
    }
}

/// There is not enough room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom {
    pub(crate) free_bytes: u64,
}

/// Room promised to one pull.
pub(crate) struct Reservation {
    inner: Arc<Inner>,
    left: Mutex<u64>,
}

impl Reservation {
    /// Promises `bytes` beside what is kept free and what others were promised.
    pub(crate) fn make(inner: &Arc<Inner>, bytes: u64) -> io::Result<Result<Self, NoRoom>> {
        let space = Space::of(inner.layout.root())?;
        let mut promised = inner.promised.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free_bytes =
            space.available_bytes.saturating_sub(inner.config.min_free_bytes).saturating_sub(*promised);
        if bytes > free_bytes {
            return Ok(Err(NoRoom { free_bytes }));
        }
        *promised += bytes;
        drop(promised);
        Ok(Ok(Self { inner: inner.clone(), left: Mutex::new(bytes) }))
    }

    /// Gives a part back: what it was for is on the disk.
    pub(crate) fn release(&self, bytes: u64) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.min(*left);
        *left -= bytes;
        self.inner.promised.take(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(u64::MAX);
    }
}

/// Layers pack to about a third; what a layer really needs is seen only while it is written, and
/// then `min_free_bytes` is the guard.
const UNPACKED_TO_PACKED: u64 = 3;
const ROUNDING: u64 = 64 << 10;

/// What a layer is expected to take when it is unpacked. It is never stored packed.
pub(crate) fn expected_bytes(layer: &LayerDescriptor) -> u64 {
    let ratio = if layer.compression == Compression::None { 1 } else { UNPACKED_TO_PACKED };
    layer.size.saturating_mul(ratio).saturating_add(ROUNDING)
}

//! What a pull tells whoever watches it, from the first question to the last layer.
//! In: nothing. Out: `PullProgress` values for a callback, which must not block.
//! Never: decides anything.

use crate::digest::Digest;
use std::time::Duration;

/// One step of a pull. Byte counts are of the layer as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullProgress {
    /// The registry is asked what the reference means.
    Resolving,
    /// Known now: what there is to fetch.
    Resolved { manifest_digest: Digest, layers: usize, layers_present: usize, bytes_to_fetch: u64 },
    /// A layer went on; sent at most every 100 ms for each layer, and at each change of phase.
    Layer { index: usize, digest: Digest, phase: LayerPhase, bytes_done: u64, bytes_total: u64 },
    /// Something failed that may work when tried again.
    Retrying { what: String, cause: String, failures: u32, pause: Duration },
    /// The registry cannot be reached; the copy on this machine is used.
    UsingCached { cause: String },
    /// Every layer is in place.
    Complete { manifest_digest: Digest },
}

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerPhase {
    /// Was here already.
    Present,
    /// Waits for a free download, or for another pull of the same layer.
    Waiting,
    /// Is downloaded, inflated and written, all at once.
    Downloading,
    /// Is written whole and verified; waits for the layers below it and for the disk.
    Committing,
    /// Is in place.
    Done,
}

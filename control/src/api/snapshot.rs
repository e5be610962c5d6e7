//! SaveSnapshot: the whole state in one file while the control plane runs.
//! In: nothing. Out: the file's bytes in chunks. Owns nothing.
//! Never: keeps the writer waiting; a standby's copy is never given away as the state.

use super::Context;
use crate::error::ApiError;
use crate::snapshot::encoded;
use crate::writer::Chain;

/// Bytes of one message.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The file; its writer reads it back.
pub async fn save(context: &Context) -> Result<Vec<u8>, ApiError> {
    context.writer.leadership().check()?;
    let (source, now) = (context.snapshots.clone(), context.environment.wall_unix_ms());
    let read = tokio::task::spawn_blocking(move || {
        let content = source.load().ok_or(ApiError::ShuttingDown)?;
        let failed = |error: &dyn std::error::Error| {
            tracing::error!(cause = %Chain(error), "a snapshot could not be given");
            ApiError::StoreUnavailable
        };
        let content = content.map_err(|error| failed(&error))?;
        encoded(&content, now).map_err(|error| failed(&error))
    });
    let bytes = read.await.map_err(|_| ApiError::ShuttingDown)??;
    // Read while another took the lead, it might be of the past.
    context.writer.leadership().check()?;
    Ok(bytes)
}

//! A blob that was unpacked on other layers before is unpacked again from there, not fetched again.
//! In: a blob and the diff id it has to have. Out: a fresh directory with its files, verified like a
//! download; or nothing, and then it is fetched. Attributes of directories that come from the layers
//! below are not taken over: the archive is made again and unpacked like one that came.
//! Never: fails a pull: what was found may be cleaned up at any moment.

use super::layer::TempDir;
use crate::archive::layer::write_tar;
use crate::digest::Digest;
use crate::manifest::{Compression, LayerDescriptor};
use crate::store::Inner;
use crate::unpack::pipeline;
use crate::unpack::{Target, UnpackLimits, Unpacked};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BUFFER_BYTES: usize = 256 << 10;

/// Looks in `places` and in the store.
pub(super) async fn find(
    inner: &Arc<Inner>,
    places: &[PathBuf],
    descriptor: &LayerDescriptor,
    diff_id: &Digest,
) -> Option<(TempDir, Unpacked)> {
    let mut places = places.to_vec();
    let known = inner.index().unpacked_from(&descriptor.digest, diff_id);
    places.extend(known.iter().map(|key| inner.layout.layer(key)));
    if places.is_empty() {
        return None;
    }
    let (inner, diff_id) = (inner.clone(), diff_id.clone());
    let found = tokio::task::spawn_blocking(move || {
        places.iter().find_map(|place| match again(&inner, place, &diff_id) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::debug!(place = %place.display(), %error, "the layer is not taken from there");
                None
            }
        })
    });
    found.await.ok().flatten()
}

fn again(inner: &Inner, place: &Path, diff_id: &Digest) -> io::Result<(TempDir, Unpacked)> {
    let dir = TempDir::make(inner)?;
    let mut target = Target::make(&dir.path())?;
    target.min_free_bytes = inner.config.min_free_bytes;
    let limits = UnpackLimits {
        max_bytes: inner.config.limits.max_unpacked_layer_bytes,
        max_entries: inner.config.limits.max_layer_entries,
    };
    let (from, to) = io::pipe()?;
    let unpacked = std::thread::scope(|scope| {
        let writing =
            std::thread::Builder::new().name("layer-again".into()).spawn_scoped(scope, move || {
                let mut out = BufWriter::with_capacity(BUFFER_BYTES, to);
                write_tar(place, &mut out).and_then(|()| out.flush())
            })?;
        let from = BufReader::with_capacity(BUFFER_BYTES, from);
        let unpacked = pipeline::unpack(from, Compression::None, &target, limits);
        writing.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")))?;
        unpacked.map_err(io::Error::other)
    })?;
    match unpacked.diff_id == *diff_id {
        true => Ok((dir, unpacked)),
        false => Err(io::Error::other("its content is another")),
    }
}

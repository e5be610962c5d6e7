//! Images as files: OCI archives (a tar of an OCI layout) in both directions, and in what `docker save`
//! writes inwards. Layers go out byte for byte as they came in, unpacked: `split.zst` of each layer
//! remembers what its directory does not. So configs, layers and image ids stay what they were, and
//! loading what was saved finds every layer here already.
//! In: a reference and where to write, or a file. Out: an archive, or images in the store.
//! Source: OCI image spec, image-layout.md; Docker image specification v1.2, "Combined Image JSON".
//! Never: keeps a second copy of a layer, or trusts a byte of an archive it did not verify.

pub(crate) mod contents;
pub(crate) mod layer;
pub(crate) mod load;
pub(crate) mod save;
pub(crate) mod spool;

use crate::digest::{Digest, InvalidDigest};
use crate::manifest::ManifestError;
use crate::pull::error::PullError;
use crate::unpack::UnpackError;
use std::io;
use std::path::PathBuf;

/// Names an image in an index. The second is containerd's, for names that are whole.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Why an archive cannot be written or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("there is no image {reference} here; pull it first")]
    NotHere { reference: String },
    #[error(
        "layer {layer} of {reference} was unpacked without a record of its archive; remove the image and pull it again"
    )]
    NoRecord { reference: String, layer: Digest },
    #[error(
        "layer {layer} of {reference} is not what it was when it was pulled; remove the image and pull it again"
    )]
    Changed { reference: String, layer: Digest },
    #[error("reading layer {layer} of {reference} failed")]
    Layer {
        reference: String,
        layer: Digest,
        #[source]
        source: io::Error,
    },
    #[error("writing the archive failed")]
    Write(#[source] io::Error),
    #[error("reading the archive failed")]
    Read(#[source] io::Error),
    #[error("the archive is not a tar file that can be read")]
    Tar(#[source] UnpackError),
    #[error("the archive {problem}")]
    Unusable { problem: String },
    #[error("{what} of the archive is not valid JSON of its kind")]
    Json {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{what} of the archive has another digest than {digest}")]
    WrongDigest { what: String, digest: Digest },
    #[error("the archive holds an image that cannot be used")]
    Manifest(#[source] ManifestError),
    #[error("unpacking layer {layer} of the archive failed")]
    Unpack {
        layer: Digest,
        #[source]
        source: UnpackError,
    },
    #[error("keeping the image of the archive failed")]
    Store(#[source] PullError),
    #[error("writing to the image store at {} failed", path.display())]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the work ended before it was done")]
    Interrupted,
}

impl ArchiveError {
    fn unusable(problem: impl Into<String>) -> Self {
        Self::Unusable { problem: problem.into() }
    }
}

impl From<InvalidDigest> for ArchiveError {
    fn from(error: InvalidDigest) -> Self {
        Self::unusable(format!("has a wrong digest: {error}"))
    }
}

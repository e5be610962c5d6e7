//! Why a pull failed, in words a person can act on.
//! In: errors of the parts. Out: `PullError` with what was being done; the cause is its source.
//! Never: repeats the cause in its own text.

use crate::digest::Digest;
use crate::manifest::ManifestError;
use crate::reference::InvalidReference;
use crate::registry::error::RegistryError;
use crate::unpack::UnpackError;
use std::io;
use std::path::PathBuf;

/// One variant for each thing that can go wrong with a pull.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("the image name is not valid")]
    Reference(#[source] InvalidReference),
    #[error("asking the registry for {reference} failed")]
    Resolve {
        reference: String,
        #[source]
        source: Box<RegistryError>,
    },
    #[error("the registry's answer for {reference} cannot be used")]
    Manifest {
        reference: String,
        #[source]
        source: ManifestError,
    },
    #[error("{reference} has no image for {wanted} (it has {offered})")]
    WrongPlatform { reference: String, wanted: String, offered: String },
    #[error("downloading layer {digest} of {reference} failed")]
    Layer {
        reference: String,
        digest: Digest,
        #[source]
        source: Box<RegistryError>,
    },
    #[error("unpacking layer {digest} of {reference} failed")]
    Unpack {
        reference: String,
        digest: Digest,
        #[source]
        source: UnpackError,
    },
    #[error("layer {digest} of {reference} unpacks to {actual}, its image says {expected}")]
    WrongDiffId { reference: String, digest: Digest, expected: Digest, actual: Digest },
    #[error(
        "{reference} needs about {} of room and there are {} beside the {} that are kept free for running tasks; \
         remove images or files, or see `lighter system df`", mib(*need_bytes), mib(*free_bytes), mib(*kept_bytes)
    )]
    NoRoom { reference: String, need_bytes: u64, free_bytes: u64, kept_bytes: u64 },
    #[error("{reference} took longer than {seconds} s to pull")]
    TooSlow { reference: String, seconds: u64 },
    #[error("writing to the image store at {} failed", path.display())]
    Store {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the login file cannot be used")]
    Login(#[source] crate::registry::docker_config::DockerConfigError),
    #[error("the pull ended before its work did")]
    Interrupted,
}

impl PullError {
    /// Whether the same pull may succeed later without anyone mending anything here or there.
    pub fn retriable(&self) -> bool {
        match self {
            Self::Resolve { source, .. } | Self::Layer { source, .. } => source.retriable(),
            Self::TooSlow { .. } | Self::Interrupted => true,
            Self::Reference(_)
            | Self::Manifest { .. }
            | Self::WrongPlatform { .. }
            | Self::Unpack { .. }
            | Self::WrongDiffId { .. }
            | Self::NoRoom { .. }
            | Self::Store { .. }
            | Self::Login(_) => false,
        }
    }

    /// Whether the registry said that it has no such tag or digest.
    pub fn missing(&self) -> bool {
        matches!(self, Self::Resolve { source, .. } if source.not_found())
    }

    /// What the pull would need on the disk, when that is why it failed.
    pub fn needs_room(&self) -> Option<u64> {
        match self {
            Self::NoRoom { need_bytes, .. } => Some(*need_bytes),
            _ => None,
        }
    }

    /// Whether the disk of the image store is full.
    pub fn disk_full(&self) -> bool {
        let full = |e: &io::Error| {
            e.kind() == io::ErrorKind::StorageFull || e.kind() == io::ErrorKind::QuotaExceeded
        };
        match self {
            Self::Store { source, .. } => full(source),
            Self::Unpack { source: UnpackError::NoRoom { .. }, .. } | Self::NoRoom { .. } => true,
            Self::Unpack { source, .. } => source.io().is_some_and(full),
            _ => false,
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

//! Reference in, mounted root file system out: pulls OCI and Docker images, keeps them, mounts them.
//! In: an image reference, a platform, an attachment key. Out: `PulledImage`, `RootfsMount`.
//! Owns the directory `images/` (layout in `store/layout.rs`); every change there is whole or absent,
//! also after a power cut. Owns no task of its own: work ends when the caller's future is dropped.
//! Never: knows the network of containers, the runtime or the wire protocol; trusts a byte of an image.

mod archive;
mod config;
mod digest;
mod manifest;
mod platform;
mod pull;
mod reference;
mod registry;
mod retry;
mod rootfs;
mod seed;
mod store;
mod tree;
pub mod unpack;

pub use archive::ArchiveError;
pub use archive::spool::Spool;
pub use config::{
    ImageStoreConfig, InvalidConfig, Limits, RegistriesConfig, RegistryHost, RetryConfig, Timeouts,
};
pub use digest::{Digest, InvalidDigest, LayerKey};
pub use manifest::ManifestError;
pub use platform::Platform;
pub use pull::error::PullError;
pub use pull::progress::{LayerPhase, PullProgress};
pub use pull::{PullOptions, PullPolicy, PulledImage};
pub use reference::{ImageReference, InvalidReference};
pub use registry::error::RegistryError;
pub use rootfs::{MappedLayers, RootfsError, RootfsMount, Snapshot};
pub use seed::{SeedError, Seeded, seed_volume, seed_volume_mapped};
pub use store::{
    CleanUpRules, CommitHook, CommitStep, DiskUsage, HeldImage, ImageStore, InUse, Inspected, KeptImage,
    OpenError, PruneError, Pruned, Space,
};

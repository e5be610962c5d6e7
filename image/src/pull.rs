//! Pulling an image: resolve, fetch what is missing, make it visible layer by layer.
//! In: a reference and options. Out: `PulledImage`, whose layers are all in place and durable.
//! Owns: the futures and threads of one pull; dropping the future ends them and leaves nothing visible.
//! Never: mounts, or trusts a size or digest it has not checked.

pub(crate) mod commit;
pub(crate) mod error;
pub(crate) mod fetch;
pub(crate) mod layer;
pub(crate) mod progress;
pub(crate) mod resolve;
pub(crate) mod run;
mod twin;

use crate::digest::{Digest, LayerKey};
use crate::platform::Platform;
use lighter_model::image_config::ImageConfig;
use serde::{Deserialize, Serialize};

/// When to ask the registry. Names and meanings are those of ECS_IMAGE_PULL_BEHAVIOR; a digest that
/// is here is asked about only by `Always`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// ECS's default: ask what the tag means now; when the pull fails, whatever the reason, and the
    /// image is here, use it.
    #[default]
    Default,
    /// Ask, and fail when the pull fails.
    Always,
    /// Use the image that an earlier pull brought here; ask when there was none, and fail when that
    /// pull fails.
    Once,
    /// Use the image that is here without asking; ask only when it is not.
    PreferCached,
}

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    pub platform: Platform,
    pub policy: PullPolicy,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { platform: Platform::host(), policy: PullPolicy::Default }
    }
}

/// An image that is whole on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledImage {
    /// The reference made whole, like `docker.io/library/nginx:latest`.
    pub reference: String,
    pub platform: Platform,
    /// What the registry answered to the reference: an index or the manifest itself.
    pub resolved_digest: Digest,
    /// The image manifest of this platform.
    pub manifest_digest: Digest,
    pub config_digest: Digest,
    pub config: ImageConfig,
    /// Bottom first.
    pub layers: Vec<LayerKey>,
    /// Of the layers after decompression, in bytes.
    pub size_bytes: u64,
    /// Pulled, and not loaded from an archive.
    #[serde(default = "yes")]
    pub from_registry: bool,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ImageStore;

    /// Callers spawn pulls: a guard held across an await would forbid it.
    #[test]
    fn a_pull_can_be_spawned() {
        fn is_send<T: Send>(_: impl FnOnce(&'static ImageStore, &'static PullOptions) -> T) {}
        is_send(|store, options| store.resolve_and_pull("a", options, |_| {}));
    }
}

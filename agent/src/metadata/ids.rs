//! Container ids as Docker's clients know them: 64 hex digits, and a secret of the container, because
//! the metadata endpoint takes them for a proof of who asks.
//! In: the node's key, task and container. Out: the same id for ever. Owns `<data_dir>/metadata.key`.
//! Never: an id that somebody without the key can work out.

use lighter_model::ids::{ContainerName, TaskId};
use ring::hmac::{HMAC_SHA256, Key, sign};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The node's key for ids.
#[derive(Debug, Clone)]
pub(crate) struct MetadataKey(Key);

impl MetadataKey {
    /// Reads the key, or makes one: ids in the environment of running containers go on to be right.
    /// Without a disk to keep it the key lives as long as this agent.
    pub(crate) fn load(data_dir: &Path) -> Self {
        let path = data_dir.join("metadata.key");
        let known = std::fs::read(&path).ok().filter(|bytes| bytes.len() == 32);
        let bytes = known.unwrap_or_else(|| {
            let bytes = random();
            if let Err(error) = write(&path, &bytes) {
                tracing::warn!(path = %path.display(), cause = %error, "the key of container ids is not kept; containers that run lose their metadata endpoint when the agent restarts");
            }
            bytes
        });
        Self(Key::new(HMAC_SHA256, &bytes))
    }
}

fn random() -> Vec<u8> {
    // Fails only when nothing of TLS works either.
    crate::random::bytes::<32>().unwrap_or_default().to_vec()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// The id of a container.
pub(crate) fn container_id(key: &MetadataKey, task: &TaskId, container: &ContainerName) -> String {
    let signed = sign(&key.0, format!("{task}/{container}").as_bytes());
    signed.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_and_differ() {
        let dir = tempfile::tempdir().unwrap();
        let (task, other) = (TaskId::from_parts(1, 0), TaskId::from_parts(2, 0));
        let (web, side) = ("web".parse().unwrap(), "side".parse().unwrap());
        let key = MetadataKey::load(dir.path());
        let id = container_id(&key, &task, &web);
        assert_eq!(id.len(), 64);
        assert_eq!(container_id(&MetadataKey::load(dir.path()), &task, &web), id);
        assert_ne!(container_id(&key, &task, &side), id);
        assert_ne!(container_id(&key, &other, &web), id);
        let elsewhere = tempfile::tempdir().unwrap();
        assert_ne!(container_id(&MetadataKey::load(elsewhere.path()), &task, &web), id);
    }
}

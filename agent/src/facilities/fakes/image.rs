//! Images of the fake machine: those of `World::images` can be pulled, others cannot.
//! In: references. Out: images without layers. Owns nothing. Never: a network.

use super::Machine;
use crate::facilities::{
    Answer, Image, ImageFacility, PrunedImages, PullFailure, PullStep, PullWatcher, UsageRow,
};
use lighter_model::ids::AttachmentKey;
use std::path::Path;
use std::sync::Arc;

impl ImageFacility for Machine {
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        _cached: bool,
        watch: PullWatcher,
    ) -> Answer<'a, Image, PullFailure> {
        Box::pin(async move {
            watch(PullStep { layers_total: 1, ..PullStep::default() });
            let retriable = self.with(|world| {
                let failing = world.retriable_pulls_failing > 0;
                world.retriable_pulls_failing = world.retriable_pulls_failing.saturating_sub(1);
                failing
            });
            let pulled = self.call("pull", reference.to_owned(), |world| match world.images.get(reference) {
                Some(_) if retriable => Err("the registry does not answer".to_owned()),
                Some(config) => Ok(config.clone()),
                None => Err("manifest unknown".to_owned()),
            });
            match pulled.await {
                Ok(config) => {
                    Ok(Image { manifest_digest: format!("sha256:{reference}"), config, own: Arc::new(()) })
                }
                Err(text) => {
                    Err(PullFailure { reference: reference.to_owned(), retriable, source: text.into() })
                }
            }
        })
    }

    fn prepare_rootfs<'a>(
        &'a self,
        key: &'a AttachmentKey,
        _image: &'a Image,
        dir: &'a Path,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let made = self.call("prepare_rootfs", key.to_string(), |world| {
                world.rootfs.insert(key.clone(), dir.to_path_buf());
                Ok(())
            });
            Ok(made.await?)
        })
    }

    fn remove_rootfs<'a>(&'a self, key: &'a AttachmentKey) -> Answer<'a, ()> {
        Box::pin(async move {
            let removed = self.call("remove_rootfs", key.to_string(), |world| {
                world.rootfs.remove(key);
                Ok(())
            });
            Ok(removed.await?)
        })
    }

    fn list_snapshots(&self) -> Answer<'_, Vec<AttachmentKey>> {
        Box::pin(async move { Ok(self.with(|world| world.rootfs.keys().cloned().collect())) })
    }

    fn seed_volume<'a>(
        &'a self,
        _rootfs: &'a Path,
        container_path: &'a str,
        dest: &'a Path,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let seeded = self.call("seed_volume", container_path.to_owned(), |_| {
                std::fs::write(dest.join("from-image"), container_path).map_err(|error| error.to_string())
            });
            Ok(seeded.await?)
        })
    }

    fn usage(&self) -> Answer<'_, Vec<UsageRow>> {
        Box::pin(async move {
            let count = self.with(|world| world.images.len() as u64);
            Ok(vec![UsageRow { kind: "images", count, ..UsageRow::default() }])
        })
    }

    fn prune<'a>(&'a self, references: &'a [String]) -> Answer<'a, PrunedImages> {
        Box::pin(async move {
            let images = self.with(|world| {
                let before = world.images.len();
                world.images.retain(|name, _| references.contains(name));
                (before - world.images.len()) as u64
            });
            Ok(PrunedImages { images, ..PrunedImages::default() })
        })
    }
}

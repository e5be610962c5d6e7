//! Images of the fake machine: those of `World::images` can be pulled, others cannot.
//! In: references. Out: images without layers. Owns nothing. Never: a network.

use super::Machine;
use crate::facilities::{
    Answer, Image, ImageDocuments, ImageFacility, ImageRow, ImagesInUse, PrunedImages, PullFailure,
    PullOrder, PullStep, PullWatcher, UsageRow,
};
use lighter_model::ids::AttachmentKey;
use lighter_model::image_config::ImageConfig;
use lighter_runtime::MappedIds;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

const FULL: &str = "there is no room";
const UNKNOWN: &str = "manifest unknown";

/// What the fake registry's tag means.
fn digest_of(reference: &str) -> String {
    format!("sha256:{reference}")
}

impl ImageFacility for Machine {
    fn pull<'a>(&'a self, order: &'a PullOrder, watch: PullWatcher) -> Answer<'a, Image, PullFailure> {
        Box::pin(async move {
            let reference = order.reference.as_str();
            self.with(|world| world.pulls.push(order.clone()));
            watch(PullStep { layers_total: 1, ..PullStep::default() });
            let retriable = self.with(|world| {
                let failing = world.retriable_pulls_failing > 0;
                world.retriable_pulls_failing = world.retriable_pulls_failing.saturating_sub(1);
                failing
            });
            let pulled = self.call("pull", reference.to_owned(), |world| match world.images.get(reference) {
                Some(_) if retriable => Err("the registry does not answer".to_owned()),
                Some(_) if world.room_missing.is_some() => Err(FULL.to_owned()),
                Some(config) => Ok(config.clone()),
                None => Err(UNKNOWN.to_owned()),
            });
            match pulled.await {
                Ok(config) => {
                    let digest =
                        reference.split_once('@').map_or_else(|| digest_of(reference), |(_, d)| d.to_owned());
                    Ok(Image { image_digest: Some(digest), config, own: Arc::new(()) })
                }
                Err(text) => {
                    let (reference, missing) = (reference.to_owned(), text == UNKNOWN);
                    let needs_room = self.with(|world| world.room_missing).filter(|_| text == FULL);
                    Err(PullFailure { reference, retriable, missing, needs_room, source: text.into() })
                }
            }
        })
    }

    fn prepare_rootfs<'a>(
        &'a self,
        key: &'a AttachmentKey,
        _image: &'a Image,
        dir: &'a Path,
        _mapped: Option<&'a MappedIds>,
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
        _mapped: Option<&'a MappedIds>,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let seeded = self.call("seed_volume", container_path.to_owned(), |_| {
                std::fs::write(dest.join("from-image"), container_path).map_err(|error| error.to_string())
            });
            Ok(seeded.await?)
        })
    }

    fn usage<'a>(&'a self, _in_use: &'a ImagesInUse) -> Answer<'a, Vec<UsageRow>> {
        Box::pin(async move {
            let count = self.with(|world| world.images.len() as u64);
            Ok(vec![UsageRow { kind: "images", count, ..UsageRow::default() }])
        })
    }

    fn prune<'a>(&'a self, in_use: &'a ImagesInUse) -> Answer<'a, PrunedImages> {
        Box::pin(async move {
            let images = self.with(|world| {
                let before = world.images.len();
                world.images.retain(|name, _| in_use.references.contains(name));
                (before - world.images.len()) as u64
            });
            Ok(PrunedImages { images, ..PrunedImages::default() })
        })
    }

    fn clean_up<'a>(&'a self, in_use: &'a ImagesInUse, wanted_bytes: u64) -> Answer<'a, PrunedImages> {
        Box::pin(async move {
            self.with(|world| {
                world.clean_ups.push((in_use.clone(), wanted_bytes));
                world.room_missing.take_if(|_| world.room_can_be_made);
            });
            Ok(PrunedImages::default())
        })
    }

    fn list<'a>(&'a self, in_use: &'a ImagesInUse) -> Answer<'a, Vec<ImageRow>> {
        Box::pin(async move {
            let row = |name: &String| ImageRow {
                reference: name.clone(),
                image_digest: digest_of(name),
                in_use: in_use.references.contains(name),
                ..ImageRow::default()
            };
            Ok(self.with(|world| world.images.keys().map(row).collect()))
        })
    }

    fn inspect<'a>(&'a self, image: &'a str, in_use: &'a ImagesInUse) -> Answer<'a, Option<ImageDocuments>> {
        Box::pin(async move {
            let rows = self.list(in_use).await?;
            let row = rows.into_iter().find(|row| row.reference == image);
            Ok(row.map(|row| ImageDocuments { row, manifest: "{}".to_owned(), config: "{}".to_owned() }))
        })
    }

    fn remove<'a>(&'a self, image: &'a str, in_use: &'a ImagesInUse) -> Answer<'a, PrunedImages> {
        Box::pin(async move {
            if in_use.references.contains(image) {
                return Err("it is in use".into());
            }
            match self.with(|world| world.images.remove(image)) {
                Some(_) => Ok(PrunedImages { images: 1, ..PrunedImages::default() }),
                None => Err("it is not here".into()),
            }
        })
    }

    fn load<'a>(
        &'a self,
        mut parts: mpsc::Receiver<Vec<u8>>,
        name: Option<String>,
    ) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            while let Some(part) = parts.recv().await {
                bytes.extend(part);
            }
            let name = name.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
            self.with(|world| world.images.insert(name.clone(), ImageConfig::default()));
            Ok(vec![name])
        })
    }

    fn save<'a>(&'a self, image: &'a str, parts: mpsc::Sender<Vec<u8>>) -> Answer<'a, ()> {
        Box::pin(async move {
            if !self.with(|world| world.images.contains_key(image)) {
                return Err("it is not here".into());
            }
            Ok(parts.send(image.as_bytes().to_vec()).await?)
        })
    }
}

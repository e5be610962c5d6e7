//! Cleaning up and making room, on a small file system of the test's own.
//! In: images of known size on a tmpfs in a mount namespace. Out: which are left, and how full it is by
//! statvfs. Never: leaves the mount: the namespace goes with its thread.

use crate::fixture::{Fixture, Image, Layer, assert_nothing_half_made, chain, large_layer, options, pull};
use crate::mounts::in_own_namespace;
use crate::registry::FakeRegistry;
use lighter_image::{CleanUpRules, ImageStore, InUse, PullError};
use lighter_model::ids::AttachmentKey;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A tmpfs below the fixture, unmounted when dropped so that the temporary directory can go.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(fixture: &mut Fixture, mib: u64) -> Self {
        let dir = fixture.dir.path().join("small");
        std::fs::create_dir(&dir).unwrap();
        let data = std::ffi::CString::new(format!("size={mib}m")).unwrap();
        mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), Some(data.as_c_str())).unwrap();
        fixture.config.root = dir.join("images");
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn free(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// Images of so many MiB each, in the order of their last use.
async fn pulled(registry: &FakeRegistry, store: &ImageStore, mib: usize, seeds: &[u64]) -> Vec<String> {
    let mut references = Vec::new();
    for seed in seeds {
        let reference = registry.put(&format!("n{seed}"), &Image::of(vec![large_layer(mib, *seed)]).serve());
        pull(store, &reference).await.unwrap();
        references.push(reference);
        // The order of use counts in milliseconds.
        let ms = || std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let now = ms();
        crate::fixture::eventually("the clock goes on", || ms() > now);
    }
    references
}

fn rules(high_percent: u8, low_percent: u8) -> CleanUpRules {
    CleanUpRules {
        high_percent,
        low_percent,
        min_free_bytes: 0,
        wanted_bytes: 0,
        minimum_age: Duration::ZERO,
        maximum_unused: None,
    }
}

fn left(store: &ImageStore) -> Vec<String> {
    store.images().into_iter().map(|image| image.reference).collect()
}

#[test]
fn the_least_recently_used_go_until_the_low_mark_and_what_is_in_use_stays() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let mut fixture = Fixture::new(&[&registry]);
        let small = Small::mount(&mut fixture, 40);
        let store = fixture.open();
        let images = pulled(&registry, &store, 4, &[1, 2, 3, 4, 5]).await;
        // Used again, the first is the newest; the second runs; the third is assigned.
        pull(&store, &images[0]).await.unwrap();
        let key = AttachmentKey {
            task: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            container: "c".parse().unwrap(),
        };
        let running = store.lookup(&images[1], &options().platform).unwrap();
        let rootfs = fixture.dir.path().join("rootfs");
        store.prepare_rootfs(&key, &running, &rootfs).await.unwrap();
        let assigned = store.lookup(&images[2], &options().platform).unwrap();
        let in_use = InUse { digests: [assigned.resolved_digest.clone()].into(), ..InUse::default() };

        assert!(
            store.clean_up(&rules(85, 80), &in_use).await.unwrap().images.is_empty(),
            "half full is not full"
        );
        let usage = store.usage(&in_use).await.unwrap();
        assert_eq!((usage.images, usage.images_in_use, usage.layers_in_use), (5, 2, 2));
        assert!((12 * MIB..13 * MIB).contains(&usage.reclaimable_bytes), "{usage:?}");

        // 20 of 40 MiB are used: down to 45 % two of 4 MiB go, in the order of use.
        let pruned = store.clean_up(&rules(50, 45), &in_use).await.unwrap();
        assert_eq!(pruned.images, [images[3].clone()]);
        assert_eq!(pruned.short_bytes, 0);
        let pruned = store.clean_up(&rules(15, 5), &in_use).await.unwrap();
        assert_eq!(pruned.images, [images[4].clone(), images[0].clone()]);
        assert!(pruned.short_bytes > 0, "what is in use stays although the mark is not reached");
        assert_eq!(left(&store), [images[1].clone(), images[2].clone()]);
        assert_eq!(
            store.clean_up(&rules(15, 5), &in_use).await.unwrap().images.len(),
            0,
            "again changes nothing"
        );

        let error = store.remove(&images[1].parse().unwrap(), &in_use).await.unwrap_err();
        assert!(chain(&error).contains("in use by container c of task 0123"), "{}", chain(&error));
        assert!(store.remove(&images[2].parse().unwrap(), &in_use).await.is_err());
        store.remove_rootfs(&key).await.unwrap();
        assert_eq!(store.remove(&images[1].parse().unwrap(), &in_use).await.unwrap().layers, 1);
        let error = store.remove(&images[1].parse().unwrap(), &in_use).await.unwrap_err();
        assert!(chain(&error).contains("there is no image"), "{}", chain(&error));
        assert_nothing_half_made(&fixture.root());
        drop((store, small));
    });
}

#[test]
fn age_counts_and_survives_a_restart() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let images = pulled(&registry, &store, 1, &[1, 2]).await;
        let full = CleanUpRules {
            min_free_bytes: u64::MAX,
            minimum_age: Duration::from_secs(3600),
            ..rules(100, 100)
        };
        assert!(store.clean_up(&full, &InUse::default()).await.unwrap().images.is_empty(), "both are young");
        drop(store);
        // The first was used two days ago, as its record says.
        let records = fixture.root().join("images");
        let old = std::fs::read_dir(&records).unwrap().map(|e| e.unwrap().path());
        let old: Vec<_> = old.filter(|p| std::fs::read_to_string(p).unwrap().contains(&images[0])).collect();
        let past = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
        std::fs::File::open(&old[0]).unwrap().set_modified(past).unwrap();
        let store = fixture.open();
        let unused = |hours: u64| CleanUpRules {
            maximum_unused: Some(Duration::from_secs(hours * 3600)),
            ..rules(100, 100)
        };
        assert!(store.clean_up(&unused(72), &InUse::default()).await.unwrap().images.is_empty());
        assert_eq!(store.clean_up(&unused(24), &InUse::default()).await.unwrap().images, [images[0].clone()]);
        assert_eq!(left(&store), [images[1].clone()]);
    });
}

#[test]
fn room_is_promised_before_a_pull_and_made_for_it() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let mut fixture = Fixture::new(&[&registry]);
        fixture.config.min_free_bytes = 2 * MIB;
        let small = Small::mount(&mut fixture, 24);
        let store = fixture.open();
        let images = pulled(&registry, &store, 4, &[1, 2]).await;
        // 8 of 24 MiB are used; packed 5 MiB are taken for 15 unpacked.
        let large = registry.put("large", &Image::of(vec![large_layer(5, 9)]).serve());
        let error = pull(&store, &large).await.unwrap_err();
        let need = error.needs_room().expect("there is no room");
        let words = chain(&error);
        assert!(
            words.contains("needs about 16 MiB of room and there are 14 MiB beside the 2 MiB"),
            "{words}"
        );
        assert!(!error.retriable() && error.disk_full());
        registry.log();

        // What can never fit costs nobody his cache.
        let hopeless = CleanUpRules { wanted_bytes: 100 * MIB, min_free_bytes: 2 * MIB, ..rules(85, 80) };
        assert!(store.clean_up(&hopeless, &InUse::default()).await.unwrap().images.is_empty());
        let making = CleanUpRules { wanted_bytes: need, ..hopeless };
        assert_eq!(store.clean_up(&making, &InUse::default()).await.unwrap().images, [images[0].clone()]);
        pull(&store, &large).await.unwrap();
        assert_eq!(left(&store).len(), 2);
        drop((store, small));
    });
}

#[test]
fn a_layer_that_is_larger_than_it_looks_does_not_fill_the_disk() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let mut fixture = Fixture::new(&[&registry]);
        fixture.config.min_free_bytes = 16 * MIB;
        let small = Small::mount(&mut fixture, 48);
        let store = fixture.open();
        let mut layer = Layer::new();
        for number in 0..40 {
            layer = layer.file(&format!("zeros-{number}"), &vec![0; MIB as usize]);
        }
        let reference = registry.put("zeros", &Image::of(vec![layer.tar()]).serve());
        let error = pull(&store, &reference).await.unwrap_err();
        assert!(matches!(error, PullError::Unpack { .. }) && error.disk_full(), "{}", chain(&error));
        assert!(chain(&error).contains("are kept for running tasks"), "{}", chain(&error));
        assert_nothing_half_made(&fixture.root());
        assert!(free(&small.0) > 40 * MIB, "what was written is gone again");
        drop((store, small));
    });
}

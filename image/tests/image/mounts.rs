//! Root file systems and volumes on the real kernel, in a mount namespace of the test's own thread.
//! In: pulled images. Out: merged trees as the kernel shows them, /proc/self/mountinfo, findmnt.
//! Never: leaves a mount: the namespace goes with its thread.

use crate::fixture::{Fixture, Image, Layer, assert_nothing_half_made, options, pull};
use crate::registry::FakeRegistry;
use lighter_image::{InUse, RootfsError, seed_volume};
use lighter_model::ids::AttachmentKey;
use rustix::mount::{MountPropagationFlags, mount_change};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

/// Runs a test in a mount namespace of its own, on a thread whose blocking threads share it.
pub(crate) fn in_own_namespace(test: impl Future<Output = ()> + Send) {
    std::thread::scope(|scope| {
        let run = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("these tests need root");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test);
        };
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn key(container: &str) -> AttachmentKey {
    AttachmentKey {
        task: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        container: container.parse().unwrap(),
    }
}

fn overlays(under: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let under = under.display().to_string();
    table.lines().filter(|l| l.contains(" - overlay ") && l.contains(&under)).map(str::to_owned).collect()
}

#[test]
fn layers_are_merged_with_whiteouts_and_opaque_directories() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let bottom = Layer::new()
            .dir("./", 0o751, 7)
            .dir("etc", 0o755, 0)
            .file("etc/gone", b"g")
            .file("etc/kept", b"k")
            .dir("opaque", 0o755, 0)
            .file("opaque/old", b"o")
            .file("replaced/inner", b"i")
            .tar();
        let top = Layer::new()
            .file("etc/.wh.gone", b"")
            .file("opaque/.wh..wh..opq", b"")
            .file("opaque/new", b"n")
            .file("replaced", b"r")
            .tar();
        let reference = registry.put("1", &Image::of(vec![bottom, top]).serve());
        let image = pull(&store, &reference).await.unwrap();
        let dir = fixture.dir.path().join("run/rootfs");
        let mount = store.prepare_rootfs(&key("web"), &image, &dir).await.unwrap();
        assert_eq!(mount.path, dir);
        let names = |path: &str| {
            let mut names: Vec<_> =
                fs::read_dir(dir.join(path)).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["etc", "opaque", "replaced"]);
        assert_eq!((names("etc"), names("opaque")), (vec!["kept".into()], vec!["new".into()]));
        assert_eq!(fs::read(dir.join("replaced")).unwrap(), b"r");
        let root = fs::metadata(&dir).unwrap();
        assert_eq!((root.mode() & 0o7777, root.uid()), (0o751, 7), "the image's own root directory");
        fs::write(dir.join("etc/kept"), b"changed").unwrap();
        fs::write(dir.join("etc/gone"), b"back").unwrap();

        let again = store.prepare_rootfs(&key("web"), &image, &dir).await.unwrap();
        assert_eq!((again, overlays(fixture.dir.path()).len()), (mount, 1));
        assert_eq!(fs::read(dir.join("etc/kept")).unwrap(), b"changed");
        let other = fixture.dir.path().join("run/other");
        let side = store.prepare_rootfs(&key("side"), &image, &other).await.unwrap();
        assert_eq!(fs::read(side.path.join("etc/kept")).unwrap(), b"k");
        assert!(matches!(
            store.prepare_rootfs(&key("web"), &image, &other).await,
            Err(RootfsError::Conflict { .. })
        ));

        // After a restart everything is found by its key.
        drop(store);
        let store = fixture.open();
        let snapshots = store.list_snapshots().await.unwrap();
        assert_eq!(snapshots.len(), 2);
        assert!(snapshots.iter().all(|s| s.mounted && s.layers == image.layers));
        assert_eq!(store.prune(&InUse::default()).await.unwrap().layers, 0, "snapshots keep their layers");
        assert!(store.usage(&InUse::default()).await.unwrap().snapshot_bytes > 0);
        // One of them is busy, as when a process of the container is still dying.
        let busy = fs::File::open(dir.join("etc/kept")).unwrap();
        store.remove_rootfs(&key("web")).await.unwrap();
        drop(busy);
        store.remove_rootfs(&key("side")).await.unwrap();
        store.remove_rootfs(&key("side")).await.unwrap();
        assert!(overlays(fixture.dir.path()).is_empty() && !dir.exists() && !other.exists());
        assert!(store.list_snapshots().await.unwrap().is_empty());
        assert_eq!(fs::read_dir(fixture.root().join("snapshots")).unwrap().count(), 0);
        assert_eq!(store.prune(&InUse::default()).await.unwrap().layers, 2);
        assert_nothing_half_made(&fixture.root());
    });
}

#[test]
fn an_image_of_127_layers_is_mounted_and_128_are_refused() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let layer = |n: usize| {
            Layer::new()
                .file(&format!("f{n}"), n.to_string().as_bytes())
                .file("top", n.to_string().as_bytes())
                .tar()
        };
        let reference = registry.put("127", &Image::of((0..127).map(layer).collect()).serve());
        let image = pull(&store, &reference).await.unwrap();
        let dir = fixture.dir.path().join("rootfs");
        store.prepare_rootfs(&key(&"c".repeat(255)), &image, &dir).await.unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 128);
        assert_eq!(fs::read(dir.join("top")).unwrap(), b"126");
        let seen =
            Command::new("findmnt").args(["-n", "-o", "FSTYPE"]).arg(&dir).output().expect("util-linux");
        assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), "overlay");
        store.remove_rootfs(&key(&"c".repeat(255))).await.unwrap();
        let too_many = registry.put("128", &Image::of((0..128).map(layer).collect()).serve());
        let error = pull(&store, &too_many).await.unwrap_err();
        assert!(crate::fixture::chain(&error).contains("128 layers, more than the 127 allowed"));
    });
}

#[test]
fn images_without_layers_and_layers_that_are_gone() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let empty = pull(&store, &registry.put("empty", &Image::of(vec![]).serve())).await.unwrap();
        let dir = fixture.dir.path().join("rootfs");
        store.prepare_rootfs(&key("a"), &empty, &dir).await.unwrap();
        fs::write(dir.join("file"), b"x").unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o755);
        store.remove_rootfs(&key("a")).await.unwrap();
        assert_eq!(fs::read_dir(fixture.root().join("empty")).unwrap().count(), 0);
        let image =
            pull(&store, &registry.put("1", &Image::of(vec![Layer::new().file("f", b"x").tar()]).serve()))
                .await
                .unwrap();
        store.prune(&InUse::default()).await.unwrap();
        assert!(store.lookup(&image.reference, &options().platform).is_none());
        let missing = store.prepare_rootfs(&key("b"), &image, &dir).await;
        assert!(matches!(missing, Err(RootfsError::LayerMissing { .. })));
        assert!(store.list_snapshots().await.unwrap().is_empty());
    });
}

#[test]
fn a_snapshot_that_lost_its_record_is_still_removed() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let image =
            pull(&store, &registry.put("1", &Image::of(vec![Layer::new().file("f", b"x").tar()]).serve()))
                .await
                .unwrap();
        let dir = fixture.dir.path().join("a b\\c");
        store.prepare_rootfs(&key("a"), &image, &dir).await.unwrap();
        let snapshot = fixture.root().join("snapshots/0123456789abcdef0123456789abcdef/a");
        fs::remove_file(snapshot.join("snapshot.json")).unwrap();
        assert_eq!(store.list_snapshots().await.unwrap()[0].mountpoint, None);
        store.remove_rootfs(&key("a")).await.unwrap();
        assert!(!snapshot.exists() && overlays(fixture.dir.path()).is_empty());
    });
}

#[test]
fn a_snapshot_whose_mount_a_reboot_took_away_is_mounted_again() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let image =
            pull(&store, &registry.put("1", &Image::of(vec![Layer::new().file("f", b"x").tar()]).serve()))
                .await
                .unwrap();
        let dir = fixture.dir.path().join("rootfs");
        store.prepare_rootfs(&key("a"), &image, &dir).await.unwrap();
        fs::write(dir.join("f"), b"changed").unwrap();
        assert!(Command::new("umount").arg(&dir).status().unwrap().success());
        assert!(!store.list_snapshots().await.unwrap()[0].mounted);
        store.prepare_rootfs(&key("a"), &image, &dir).await.unwrap();
        assert_eq!(fs::read(dir.join("f")).unwrap(), b"changed");
        store.remove_rootfs(&key("a")).await.unwrap();
        assert_nothing_half_made(&fixture.root());
    });
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let small = registry.put("small", &Image::of(vec![Layer::new().file("f", b"x").tar()]).serve());
        // Zeros pack so well that nobody can know before how large they are.
        let zeros = Layer::new().file("zeros", &vec![0; 8 << 20]).tar();
        let large = registry.put("large", &Image::of(vec![zeros]).serve());
        fs::create_dir(fixture.root()).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(fixture.root()).status();
        assert!(mounted.unwrap().success());
        let store = fixture.open();
        let error = pull(&store, &large).await.unwrap_err();
        assert!(error.disk_full() && !error.retriable(), "{error:?}");
        assert!(crate::fixture::chain(&error).contains("No space left on device"));
        pull(&store, &small).await.unwrap();
        assert_nothing_half_made(&fixture.root());
        drop(store);
        assert!(Command::new("umount").arg(fixture.root()).status().unwrap().success());
    });
}

#[test]
fn a_fresh_volume_gets_the_images_files() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let layer = Layer::new()
            .dir("data", 0o2770, 999)
            .dir("data/sub", 0o700, 998)
            .entry(tar::EntryType::Regular, "data/suid", 0o4711, 33, b"program")
            .link(tar::EntryType::Link, "data/sub/second", "data/suid")
            .link(tar::EntryType::Symlink, "data/out", "/etc/passwd")
            .entry(tar::EntryType::Fifo, "data/fifo", 0o640, 5, b"")
            .link(tar::EntryType::Symlink, "var/lib/alias", "/data")
            .link(tar::EntryType::Symlink, "escape", "/../../../../../../../../root")
            .file("plain", b"")
            .tar();
        let image = pull(&store, &registry.put("1", &Image::of(vec![layer]).serve())).await.unwrap();
        let rootfs = fixture.dir.path().join("rootfs");
        store.prepare_rootfs(&key("a"), &image, &rootfs).await.unwrap();
        let volume = fixture.dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let seeded = seed_volume(&rootfs, "/var/lib/alias", &volume).unwrap();
        assert_eq!((seeded.entries, seeded.bytes), (5, 7));
        let meta = |path: &str| fs::symlink_metadata(volume.join(path)).unwrap();
        for (path, mode, owner) in
            [("", 0o2770, 999), ("sub", 0o700, 998), ("suid", 0o4711, 33), ("fifo", 0o640, 5)]
        {
            let found = meta(path);
            assert_eq!(
                (found.mode() & 0o7777, found.uid(), found.gid(), found.mtime()),
                (mode, owner, owner, 1_600_000_000),
                "{path}"
            );
        }
        assert_eq!(meta("suid").ino(), meta("sub/second").ino());
        assert_eq!(fs::read_link(volume.join("out")).unwrap(), Path::new("/etc/passwd"));
        assert!(meta("fifo").file_type().is_fifo());
        assert!(!volume.with_file_name(".volume.seeding").exists());

        fs::write(volume.join("mine"), b"m").unwrap();
        assert_eq!(seed_volume(&rootfs, "/data", &volume).unwrap().entries, 0, "content is never touched");
        let fresh = fixture.dir.path().join("fresh");
        assert_eq!(seed_volume(&rootfs, "/nowhere", &fresh).unwrap().entries, 0);
        assert_eq!(seed_volume(&rootfs, "/escape", &fresh).unwrap().entries, 0, "links stay inside");
        assert!(seed_volume(&rootfs, "/plain", &fresh).is_err());
        fs::create_dir(fixture.dir.path().join(".fresh.seeding")).unwrap();
        assert_eq!(
            seed_volume(&rootfs, "data", &fresh).unwrap().entries,
            5,
            "a crash's leftovers do not hinder"
        );
        store.remove_rootfs(&key("a")).await.unwrap();
    });
}

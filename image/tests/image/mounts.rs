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

#[test]
fn a_hard_link_to_a_file_of_a_lower_layer_is_what_link_in_the_image_would_make() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let bottom = Layer::new()
            .dir("usr", 0o755, 0)
            .dir("usr/lib", 0o711, 5)
            .entry(tar::EntryType::Regular, "usr/lib/tool", 0o4755, 7, b"program")
            .file("usr/lib/other", b"other")
            .link(tar::EntryType::Symlink, "lib", "usr/lib")
            .dir("opt", 0o750, 9)
            .file("opt/taken", b"was here")
            .tar();
        let middle = Layer::new().file("between", b"b").tar();
        let hard = tar::EntryType::Link;
        let top = Layer::new()
            .link(hard, "opt/tool", "usr/lib/tool")
            .link(hard, "opt/again", "opt/tool")
            // Through a symlink of a lower layer, over a file of a lower layer.
            .link(hard, "opt/taken", "lib/other")
            // The name is taken by a later entry.
            .link(hard, "opt/late", "usr/lib/tool")
            .file("opt/late", b"late")
            .tar();
        let reference = registry.put("1", &Image::of(vec![bottom.clone(), middle, top.clone()]).serve());
        let image = pull(&store, &reference).await.unwrap();
        assert!(overlays(fixture.dir.path()).is_empty(), "the mount was for the pull alone");
        let dir = fixture.dir.path().join("rootfs");
        store.prepare_rootfs(&key("web"), &image, &dir).await.unwrap();
        let of = |path: &str| fs::symlink_metadata(dir.join(path)).unwrap();
        let tool = of("usr/lib/tool");
        assert_eq!(
            (tool.mode() & 0o7777, tool.uid(), tool.mtime(), tool.nlink()),
            (0o4755, 7, 1_600_000_000, 3)
        );
        for same in ["opt/tool", "opt/again"] {
            assert_eq!(of(same).ino(), tool.ino(), "{same}");
        }
        assert_eq!(of("opt/taken").ino(), of("usr/lib/other").ino());
        assert_eq!(fs::read(dir.join("opt/taken")).unwrap(), b"other");
        assert_eq!(fs::read(dir.join("opt/late")).unwrap(), b"late");
        for (path, mode, owner) in [("opt", 0o750, 9), ("usr/lib", 0o711, 5)] {
            assert_eq!(
                (of(path).mode() & 0o7777, of(path).uid(), of(path).mtime()),
                (mode, owner, 1_600_000_000),
                "{path}"
            );
        }
        store.remove_rootfs(&key("web")).await.unwrap();

        // What is given out is what was taken in.
        let archive = fixture.dir.path().join("saved.tar");
        let mut file = fs::File::create(&archive).unwrap();
        store.save(&reference.parse().unwrap(), &options().platform, &mut file).unwrap();
        let saved = fs::read(&archive).unwrap();
        assert!(saved.windows(top.len()).any(|part| part == top), "the layer is in the archive as it was");

        for (layers, words) in [
            (vec![Layer::new().link(hard, "a", "usr/nothing").tar()], "there is none"),
            (
                vec![bottom.clone(), Layer::new().link(hard, "a", "usr/nothing").tar()],
                "neither in this layer",
            ),
            (vec![bottom.clone(), Layer::new().link(hard, "a", "usr/lib").tar()], "is a directory"),
            (
                vec![bottom.clone(), Layer::new().link(hard, "opt", "usr/lib/tool").tar()],
                "place of a directory",
            ),
        ] {
            let reference = registry.put("wrong", &Image::of(layers).serve());
            let error = crate::fixture::chain(&pull(&store, &reference).await.unwrap_err());
            assert!(error.contains(words), "{error}");
        }
        assert_nothing_half_made(&fixture.root());
    });
}

#[test]
fn a_loaded_image_runs_without_a_registry() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        let fixture = Fixture::new(&[&registry]);
        let store = fixture.open();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
        let program = fs::read(busybox.expect("this test needs Debian's busybox-static")).unwrap();
        let base = Layer::new()
            .dir("bin", 0o755, 0)
            .entry(tar::EntryType::Regular, "bin/busybox", 0o755, 0, &program)
            .file("etc/gone", b"g");
        let top = Layer::new().file("etc/.wh.gone", b"").file("etc/said", b"from the archive\n");
        let reference = registry.put("1", &Image::of(vec![base.tar(), top.tar()]).serve());
        pull(&store, &reference).await.unwrap();
        let mut archive = Vec::new();
        store.save(&reference.parse().unwrap(), &options().platform, &mut archive).unwrap();

        // Another node, whose registry nobody answers for.
        let away = Fixture::new(&[]);
        let store = away.open();
        let mut spool = store.spool().unwrap();
        std::io::Write::write_all(&mut spool, &archive).unwrap();
        let name = "registry.test/loaded:1".parse().unwrap();
        store.load(spool, Some(&name), &options().platform).await.unwrap();
        let mut cached = options();
        cached.policy = lighter_image::PullPolicy::PreferCached;
        let image = store.resolve_and_pull("registry.test/loaded:1", &cached, |_| {}).await.unwrap();
        let dir = away.dir.path().join("rootfs");
        store.prepare_rootfs(&key("web"), &image, &dir).await.unwrap();
        let said =
            Command::new("chroot").arg(&dir).args(["/bin/busybox", "cat", "/etc/said"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "from the archive\n", "{said:?}");
        let gone = Command::new("chroot").arg(&dir).args(["/bin/busybox", "ls", "/etc"]).output().unwrap();
        assert_eq!(gone.stdout, b"said\n", "{gone:?}");
        store.remove_rootfs(&key("web")).await.unwrap();
    });
}

//! Power cuts and kills at every step of a commit.
//! In: a child process that pulls and stops at a given step; a file system on a loop device whose
//! backing file is copied at that moment, which is what a disk holds after the power went.
//! Out: the store opened again: everything whole or absent, and the same pull succeeding.
//! Never: leaves the child, the loop device or the mount: they go with the test.

use crate::fixture::{Fixture, Image, Layer, assert_nothing_half_made, large_layer, layer_dir, pull};
use crate::mounts::in_own_namespace;
use crate::registry::FakeRegistry;
use lighter_image::{CommitStep, ImageStore, InUse};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const STEPS: [CommitStep; 6] = [
    CommitStep::LayerUnpacked,
    CommitStep::LayersSynced,
    CommitStep::LayersRenamed,
    CommitStep::LayersVisible,
    CommitStep::BlobsWritten,
    CommitStep::ImageRecorded,
];

/// Run in the child: pulls, and at the step says so by a file and waits to be killed.
#[tokio::test]
async fn child_that_stops_in_a_commit() {
    let Ok(root) = std::env::var("LIGHTER_TEST_CRASH_ROOT") else { return };
    let host = std::env::var("LIGHTER_TEST_CRASH_HOST").unwrap();
    let step: usize = std::env::var("LIGHTER_TEST_CRASH_STEP").unwrap().parse().unwrap();
    let reached = PathBuf::from(std::env::var("LIGHTER_TEST_CRASH_REACHED").unwrap());
    let mut fixture = Fixture::new(&[]);
    fixture.config.root = root.into();
    fixture.config.timeouts.inactivity_ms = 30_000;
    let allowed = lighter_image::RegistryHost { http_allowed: true, ..Default::default() };
    fixture.config.registries.hosts.insert(host.clone(), allowed);
    let hook = move |at: CommitStep| {
        if STEPS.get(step) == Some(&at) {
            std::fs::write(&reached, b"").unwrap();
            loop {
                std::thread::park();
            }
        }
    };
    let store = ImageStore::open_with_hook(fixture.config.clone(), Some(Arc::new(hook))).unwrap();
    pull(&store, &format!("{host}/test/app:1")).await.unwrap();
}

struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_child(root: &Path, host: &str, step: usize, reached: &Path) -> Stopped {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_stops_in_a_commit", "--nocapture"])
        .env("LIGHTER_TEST_CRASH_ROOT", root)
        .env("LIGHTER_TEST_CRASH_HOST", host)
        .env("LIGHTER_TEST_CRASH_STEP", step.to_string())
        .env("LIGHTER_TEST_CRASH_REACHED", reached)
        // It is killed: what it makes has to go with this test.
        .env("TMPDIR", reached.parent().unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Stopped(child)
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn image() -> Image {
    Image::of(vec![Layer::new().dir("etc", 0o700, 9).file("etc/base", b"base").tar(), large_layer(4, 3)])
}

/// Opens the store as a restarted agent would and checks that what is visible is whole.
async fn assert_whole_and_usable(registry: &FakeRegistry, root: &Path) -> usize {
    let mut fixture = Fixture::new(&[registry]);
    fixture.config.root = root.to_owned();
    fixture.config.timeouts.inactivity_ms = 30_000;
    let store = fixture.open();
    assert_nothing_half_made(root);
    let found = store.usage(&InUse::default()).await.unwrap().layers;
    for image in store.images() {
        check_content(root, &image);
    }
    let pulled = pull(&store, &format!("{}/test/app:1", registry.host())).await.unwrap();
    check_content(root, &pulled);
    assert_nothing_half_made(root);
    found
}

fn check_content(root: &Path, image: &lighter_image::PulledImage) {
    assert_eq!(std::fs::read(layer_dir(root, image, 0).join("etc/base")).unwrap(), b"base");
    let again = large_layer(4, 3);
    let mut archive = tar::Archive::new(again.as_slice());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut data).unwrap();
        let path = layer_dir(root, image, 1).join(entry.path().unwrap());
        assert!(std::fs::read(&path).unwrap() == data, "{path:?} is not what the layer has");
    }
}

#[tokio::test]
async fn a_killed_process_leaves_everything_whole_or_absent() {
    let registry = FakeRegistry::start().await;
    registry.put("1", &image().serve());
    for step in 0..STEPS.len() {
        let dir = tempfile::tempdir().unwrap();
        let (root, reached) = (dir.path().join("images"), dir.path().join("reached"));
        let child = start_child(&root, &registry.host(), step, &reached);
        wait_for("the child reaches the step", || reached.exists()).await;
        drop(child);
        assert_whole_and_usable(&registry, &root).await;
    }
    // In the middle of a layer.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    registry.behave().hold_blobs_at = Some(2 << 20);
    let child = start_child(&root, &registry.host(), 99, &dir.path().join("reached"));
    let tmp = root.join("tmp");
    let half =
        || std::fs::read_dir(&tmp).is_ok_and(|d| d.flatten().any(|e| e.path().join("diff/big/3-0").exists()));
    wait_for("a layer is half unpacked", half).await;
    drop(child);
    registry.behave().hold_blobs_at = None;
    assert_whole_and_usable(&registry, &root).await;
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_power_cut_leaves_everything_whole_or_absent() {
    in_own_namespace(async {
        let registry = FakeRegistry::start().await;
        registry.put("1", &image().serve());
        let mut found = Vec::new();
        for step in 0..STEPS.len() {
            found.push(cut_power_at(&registry, step).await);
        }
        // Nothing counts before its rename; everything does from the fsync of its parent on.
        assert_eq!(found[..2], [0, 0], "{found:?}");
        assert!(found[3..].iter().all(|layers| *layers >= 1), "{found:?}");
    });
}

async fn cut_power_at(registry: &FakeRegistry, step: usize) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::File::create(path("disk")).unwrap().set_len(96 << 20).unwrap();
    run("mkfs.ext4", &[Path::new("-q"), &path("disk")]);
    std::fs::create_dir(path("mounted")).unwrap();
    // The longest commit interval: nothing gets to the disk but by what the store does.
    run("mount", &[Path::new("-o"), Path::new("loop,commit=300"), &path("disk"), &path("mounted")]);
    let child = start_child(&path("mounted").join("images"), &registry.host(), step, &path("reached"));
    wait_for("the child reaches the step", || path("reached").exists()).await;
    std::fs::copy(path("disk"), path("after")).unwrap();
    drop(child);
    run("umount", &[&path("mounted")]);
    run("mount", &[Path::new("-o"), Path::new("loop"), &path("after"), &path("mounted")]);
    let found = assert_whole_and_usable(registry, &path("mounted").join("images")).await;
    run("umount", &[&path("mounted")]);
    found
}

//! Pulls that go well: every kind of image, sharing, policies, logins, mirrors, prune.
//! In: images on the fake registry. Out: layers on the disk and the log of what was asked.
//! Never: mounts.

use crate::fixture::{
    Fixture, Image, Layer, assert_nothing_half_made, gzip, large_layer, layer_dir, options, pull,
};
use crate::registry::{Auth, FakeRegistry};
use lighter_image::{InUse, PullPolicy, PullProgress, RegistryHost};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

/// `eventually` for tests whose registry runs on the same thread.
async fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn app() -> Image {
    Image::of(vec![
        Layer::new().dir("etc", 0o700, 33).file("etc/base", b"base").tar(),
        Layer::new().file("etc/app", b"app").tar(),
    ])
}

#[tokio::test]
async fn an_image_is_pulled_whole_and_found_again_without_asking() {
    let registry = FakeRegistry::start().await;
    let served = app().serve();
    let reference = registry.put("1", &served);
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    assert!(store.lookup(&reference, &options().platform).is_none());
    let events = Mutex::new(Vec::new());
    let image =
        store.resolve_and_pull(&reference, &options(), |e| events.lock().unwrap().push(e)).await.unwrap();
    assert_eq!(image.manifest_digest, served.digest);
    assert_eq!((image.config.cmd.as_slice(), image.size_bytes), (&["/bin/true".to_owned()][..], 7));
    assert!(image.config.volumes.contains("/data"));
    let events = events.into_inner().unwrap();
    assert_eq!(events.first(), Some(&PullProgress::Resolving));
    assert!(matches!(events[1], PullProgress::Resolved { layers: 2, layers_present: 0, .. }));
    assert_eq!(events.last(), Some(&PullProgress::Complete { manifest_digest: served.digest.clone() }));
    // `etc` is not an entry of the upper layer: its owner and mode come from below.
    let etc = std::fs::metadata(layer_dir(&fixture.root(), &image, 1).join("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.uid()), (0o700, 33));
    assert_nothing_half_made(&fixture.root());
    registry.log();
    assert_eq!(store.lookup(&reference, &options().platform), Some(image.clone()));
    let cached = lighter_image::PullOptions { policy: PullPolicy::PreferCached, ..options() };
    assert_eq!(store.resolve_and_pull(&reference, &cached, |_| {}).await.unwrap(), image);
    let pinned = format!("{}/test/app@{}", registry.host(), served.digest);
    assert_eq!(pull(&store, &pinned).await.unwrap().layers, image.layers);
    assert!(registry.log().is_empty(), "nobody needed asking");
    assert_eq!(pull(&store, &reference).await.unwrap(), image);
    assert_eq!(registry.log(), ["HEAD /v2/test/app/manifests/1"]);
    drop(store);
    assert_eq!(fixture.open().lookup(&reference, &options().platform), Some(image));
}

#[tokio::test]
async fn every_packing_and_both_kinds_of_manifest() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    for (name, packing, docker) in
        [("gz", "gzip", false), ("zst", "zstd", false), ("tar", "", false), ("v2s2", "gzip", true)]
    {
        let mut image = Image::of(vec![Layer::new().file(name, b"x").tar()]);
        image.layers[0].1 = packing;
        image.docker = docker;
        let reference = registry.put(name, &image.serve());
        let pulled = pull(&store, &reference).await.unwrap();
        assert!(layer_dir(&fixture.root(), &pulled, 0).join(name).is_file(), "{name}");
    }
    let empty = registry.put("empty", &Image::of(vec![]).serve());
    assert!(pull(&store, &empty).await.unwrap().layers.is_empty());
}

#[tokio::test]
async fn an_index_is_resolved_by_platform_and_variant() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let of = |architecture: &'static str, name: &str| {
        let mut image = Image::of(vec![Layer::new().file(name, b"x").tar()]);
        image.architecture = architecture;
        image.serve()
    };
    let (amd, v6, v7) = (of("amd64", "amd"), of("arm", "v6"), of("arm", "v7"));
    let reference = registry.put_index(
        "multi",
        &[
            ("linux", "arm", Some("v6"), &v6),
            ("linux", "arm", Some("v7"), &v7),
            ("linux", "amd64", None, &amd),
        ],
    );
    let image = pull(&store, &reference).await.unwrap();
    assert_eq!(image.manifest_digest, amd.digest);
    assert_ne!(image.resolved_digest, image.manifest_digest);
    let mut arm = options();
    arm.platform.architecture = "arm".into();
    arm.platform.variant = Some("v7".into());
    let image = store.resolve_and_pull(&reference, &arm, |_| {}).await.unwrap();
    assert_eq!(image.manifest_digest, v7.digest);
    let pinned = format!("{}/test/app@{}", registry.host(), image.resolved_digest);
    registry.log();
    assert_eq!(pull(&store, &pinned).await.unwrap().manifest_digest, amd.digest);
    assert!(registry.log().is_empty());
}

#[tokio::test]
async fn layers_are_shared_and_concurrent_pulls_share_the_work() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let base = large_layer(3, 1);
    let images: Vec<String> = (0..4)
        .map(|n| {
            let own = Layer::new().file(&format!("own{n}"), b"x").tar();
            registry.put(&n.to_string(), &Image::of(vec![base.clone(), own]).serve())
        })
        .collect();
    let pulls: Vec<_> = images
        .iter()
        .chain(&images)
        .map(|reference| {
            let (store, reference) = (store.clone(), reference.clone());
            tokio::spawn(async move { pull(&store, &reference).await.unwrap() })
        })
        .collect();
    let mut bottoms = std::collections::HashSet::new();
    for pulled in pulls {
        bottoms.insert(pulled.await.unwrap().layers[0].clone());
    }
    assert_eq!(bottoms.len(), 1);
    let blob = lighter_image::Digest::of(&gzip(&base));
    let asked = registry.log().iter().filter(|line| line.contains(blob.as_str())).count();
    assert_eq!(asked, 1, "the shared layer was downloaded once");
    assert_nothing_half_made(&fixture.root());
}

#[tokio::test]
async fn one_blob_on_different_layers_is_fetched_once() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    // `etc` is only implied in it: its attributes are those of the layers below, each time others.
    let shared =
        Layer::new().file("etc/shared", b"s").link(tar::EntryType::Link, "etc/linked", "etc/shared").tar();
    let below = |mode: u32| Layer::new().dir("etc", mode, 3).file(&format!("etc/{mode}"), b"x").tar();
    let image = |mode| Image::of(vec![below(mode), shared.clone(), shared.clone()]).serve();
    let one = registry.put("one", &image(0o700));
    let two = registry.put("two", &image(0o750));
    let three = registry.put("three", &image(0o711));
    let (a, b) = tokio::join!(pull(&store, &one), pull(&store, &two));
    let (a, b, c) = (a.unwrap(), b.unwrap(), pull(&store, &three).await.unwrap());
    let blob = lighter_image::Digest::of(&gzip(&shared));
    let asked = registry.log().iter().filter(|line| line.contains(blob.as_str())).count();
    assert_eq!(asked, 1, "six layers of one blob");
    for (image, mode) in [(&a, 0o700), (&b, 0o750), (&c, 0o711)] {
        for index in 1..3 {
            let diff = layer_dir(&fixture.root(), image, index);
            assert_eq!(std::fs::read(diff.join("etc/linked")).unwrap(), b"s");
            let etc = diff.join("etc").metadata().unwrap();
            assert_eq!((etc.mode() & 0o7777, etc.uid()), (mode, 3), "{mode:o} {index}");
        }
    }
    assert_nothing_half_made(&fixture.root());
}

#[tokio::test]
async fn a_moved_tag_is_pulled_anew_and_the_old_layers_can_be_pruned() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let shared = Layer::new().file("shared", b"s").tar();
    let version = |n: &str| Image::of(vec![shared.clone(), Layer::new().file(n, b"v").tar()]).serve();
    let reference = registry.put("moving", &version("one"));
    let one = pull(&store, &reference).await.unwrap();
    registry.put("moving", &version("two"));
    registry.behave().no_head = true;
    let two = pull(&store, &reference).await.unwrap();
    assert_ne!(one.manifest_digest, two.manifest_digest);
    assert_eq!(store.usage(&InUse::default()).await.unwrap().layers, 3);
    let mut in_use = InUse::default();
    in_use.references.insert(two.reference.clone());
    let pruned = store.prune(&in_use).await.unwrap();
    // What the tag meant before went on under its digest until now.
    let before = format!("{reference}@{}", one.resolved_digest);
    assert_eq!((pruned.images, pruned.layers, pruned.blobs), (vec![before], 1, 2));
    assert!(store.lookup(&reference, &options().platform).is_some());
    let pruned = store.prune(&InUse::default()).await.unwrap();
    assert_eq!((pruned.images, pruned.layers, pruned.blobs), (vec![two.reference], 2, 2));
    let usage = store.usage(&InUse::default()).await.unwrap();
    assert_eq!((usage.images, usage.layers, usage.blobs, usage.layer_bytes), (0, 0, 0, 0));
    assert_nothing_half_made(&fixture.root());
}

#[tokio::test]
async fn logins_basic_bearer_and_identity_tokens() {
    let registry = FakeRegistry::start().await;
    let served = app().serve();
    let reference = registry.put("1", &served);
    let login = r#"{"auths":{"HOST":{"auth":"dTpw"}}}"#;
    let identity = r#"{"auths":{"HOST":{"identitytoken":"refresh-me"}}}"#;
    for (auth, file) in [
        (Auth::Basic("u", "p"), Some(login)),
        (Auth::Bearer(None), None),
        (Auth::Bearer(Some(("u", "p"))), Some(login)),
        (Auth::Bearer(Some(("any", "refresh-me"))), Some(identity)),
    ] {
        let mut fixture = Fixture::new(&[&registry]);
        if let Some(text) = file {
            let path = fixture.dir.path().join("config.json");
            std::fs::write(&path, text.replace("HOST", &registry.host())).unwrap();
            fixture.config.docker_config = Some(path);
        }
        registry.behave().auth = Some(auth);
        let image = pull(&fixture.open(), &reference).await.unwrap();
        assert_eq!(image.manifest_digest, served.digest);
    }
    let log = registry.log();
    assert!(
        log.iter()
            .any(|l| l.starts_with("GET /token?service=test-service&scope=repository%3Atest%2Fapp%3Apull")),
        "{log:?}"
    );
}

#[tokio::test]
async fn mirrors_are_asked_in_order_before_the_registry() {
    let (down, mirror, origin) =
        (FakeRegistry::start().await, FakeRegistry::start().await, FakeRegistry::start().await);
    let served = app().serve();
    let name = origin.put("1", &served);
    mirror.put("1", &served);
    let only_origin = origin.put("2", &Image::of(vec![Layer::new().file("f", b"2").tar()]).serve());
    let mut fixture = Fixture::new(&[&down, &mirror, &origin]);
    let mirrors = vec![down.host(), mirror.host()];
    let host = RegistryHost { mirrors, http_allowed: true, ..Default::default() };
    fixture.config.registries.hosts.insert(origin.host(), host);
    down.behave().statuses = vec![503; 100].into();
    let store = fixture.open();
    pull(&store, &name).await.unwrap();
    assert!(origin.log().is_empty(), "the mirror had everything");
    assert!(mirror.log().iter().all(|line| line.contains("?ns=127.0.0.1")));
    assert!(!down.log().is_empty());
    pull(&store, &only_origin).await.unwrap();
    assert!(!origin.log().is_empty());
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing_and_does_not_hinder_the_next() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let reference = registry.put("1", &Image::of(vec![large_layer(4, 9)]).serve());
    registry.behave().hold_blobs_at = Some(2 << 20);
    let (pulling, name) = (store.clone(), reference.clone());
    let pulled = tokio::spawn(async move { pull(&pulling, &name).await });
    let tmp = fixture.root().join("tmp");
    let unpacking = || std::fs::read_dir(&tmp).unwrap().next().is_some();
    wait("the layer is being written", unpacking).await;
    pulled.abort();
    assert!(pulled.await.unwrap_err().is_cancelled());
    wait("tmp is empty", || !unpacking()).await;
    registry.behave().hold_blobs_at = None;
    pull(&store, &reference).await.unwrap();
    assert_nothing_half_made(&fixture.root());
}

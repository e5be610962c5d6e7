//! Pulls that go wrong: every fault of a registry ends in words, nothing half-made stays visible,
//! and where trying again can help it does.
//! In: faults of the fake registry. Out: errors as a person reads them. Never: waits without end.

use crate::fixture::{
    Fixture, Image, Layer, OCI_MANIFEST, Served, assert_nothing_half_made, chain, large_layer, layer_dir,
    options, pull,
};
use crate::registry::{Auth, Behaviour, FakeRegistry};
use lighter_image::{
    Digest, ImageStore, OpenError, PullError, PullOptions, PullPolicy, PullProgress, RegistryHost,
};
use serde_json::json;
use std::sync::Mutex;

struct Scene {
    registry: FakeRegistry,
    fixture: Fixture,
    reference: String,
    served: Served,
}

impl Scene {
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        let served = Image::of(vec![Layer::new().file("base", b"b").tar(), large_layer(3, 5)]).serve();
        let reference = registry.put("1", &served);
        let fixture = Fixture::new(&[&registry]);
        Self { registry, fixture, reference, served }
    }

    /// Pulls, expecting a failure with these words, whose fault `retriable` is.
    async fn fails(&self, reference: &str, words: &str, retriable: bool) -> PullError {
        let store = self.fixture.open();
        let error = pull(&store, reference).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains(words), "{text:?} does not say {words:?}");
        assert_eq!(error.retriable(), retriable, "{text}");
        assert!(store.images().is_empty());
        let root = self.fixture.root();
        wait_clean(&root).await;
        assert_nothing_half_made(&root);
        assert!(std::fs::read_dir(root.join("blobs/sha256")).unwrap().next().is_none());
        error
    }
}

async fn wait_clean(root: &std::path::Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::fs::read_dir(root.join("tmp")).unwrap().next().is_some() {
        assert!(std::time::Instant::now() < deadline, "tmp stays full");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn unknown_names_and_registries_that_are_down() {
    let scene = Scene::new().await;
    let host = scene.registry.host();
    scene
        .fails(&format!("{host}/test/app:none"), &format!("{host} knows no image test/app:none"), false)
        .await;
    scene.fails("UPPER", "is not an image reference", false).await;
    let down = {
        let registry = FakeRegistry::start().await;
        registry.host()
    };
    // Not allowed by name: HTTPS is tried, never HTTP.
    scene.fails(&format!("{down}/a:1"), &format!("{down} cannot be reached"), true).await;
    scene.fails(&format!("{host}1/a:1"), "is not an image reference", false).await;
}

#[tokio::test]
async fn a_host_that_is_not_allowed_by_name_never_gets_plain_http() {
    let (scene, other) = (Scene::new().await, FakeRegistry::start().await);
    other.put("1", &scene.served);
    scene
        .fails(&format!("{}/test/app:1", other.host()), "does not speak TLS; if plain HTTP is meant", false)
        .await;
    assert!(other.log().is_empty(), "not one readable byte was sent");
    scene.registry.behave().redirect_blobs_to = Some(format!("http://{}", other.host()));
    scene.fails(&scene.reference, "without encryption", false).await;
    assert!(other.log().is_empty());
    scene.registry.behave().redirect_blobs_to = None;
    scene.registry.behave().auth = Some(Auth::Bearer(None));
    scene.registry.behave().token_realm = Some(format!("http://{}/token", other.host()));
    scene.fails(&scene.reference, "without encryption", false).await;
    assert!(other.log().is_empty());
}

#[tokio::test]
async fn redirected_blobs_are_fetched_without_the_login() {
    let (scene, storage) = (Scene::new().await, FakeRegistry::start().await);
    storage.put("1", &scene.served);
    let mut fixture = Fixture::new(&[&scene.registry, &storage]);
    let path = fixture.dir.path().join("config.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, scene.registry.host()))
        .unwrap();
    fixture.config.docker_config = Some(path);
    scene.registry.behave().auth = Some(Auth::Basic("u", "p"));
    scene.registry.behave().redirect_blobs_to = Some(format!("http://{}", storage.host()));
    pull(&fixture.open(), &scene.reference).await.unwrap();
    assert_eq!(storage.log().len(), 2);
    // With the login the storage would have been asked as someone: it must see none.
    storage.behave().auth = Some(Auth::Basic("u", "p"));
    let again = Fixture { config: fixture.config.clone(), dir: tempfile::tempdir().unwrap() };
    let mut again = again;
    again.config.root = again.dir.path().join("images");
    let error = pull(&again.open(), &scene.reference).await.unwrap_err();
    assert!(chain(&error).contains("refused access"), "{}", chain(&error));
}

#[tokio::test]
async fn a_login_is_not_sent_where_a_host_wants_it_that_blobs_are_redirected_to() {
    let (scene, storage, thief) =
        (Scene::new().await, FakeRegistry::start().await, FakeRegistry::start().await);
    let mut fixture = Fixture::new(&[&scene.registry, &storage, &thief]);
    let path = fixture.dir.path().join("config.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, scene.registry.host()))
        .unwrap();
    fixture.config.docker_config = Some(path);
    scene.registry.behave().auth = Some(Auth::Basic("u", "p"));
    scene.registry.behave().redirect_blobs_to = Some(format!("http://{}", storage.host()));
    storage.behave().auth = Some(Auth::Bearer(None));
    storage.behave().token_realm = Some(format!("http://{}/token", thief.host()));
    let error = pull(&fixture.open(), &scene.reference).await.unwrap_err();
    assert!(chain(&error).contains("refused access"), "{}", chain(&error));
    assert_eq!(thief.log(), Vec::<String>::new());
}

#[tokio::test]
async fn wrong_credentials() {
    let mut scene = Scene::new().await;
    scene.registry.behave().auth = Some(Auth::Basic("u", "right"));
    scene.fails(&scene.reference, "there is no login for it", false).await;
    let path = scene.fixture.dir.path().join("config.json");
    let write = |text: &str| std::fs::write(&path, text.replace("HOST", &scene.registry.host())).unwrap();
    scene.fixture.config.docker_config = Some(path.clone());
    write(r#"{"auths":{"HOST":{"auth":"dTpw"}}}"#);
    scene.fails(&scene.reference, "the login for it was refused", false).await;
    scene.registry.behave().auth = Some(Auth::Bearer(Some(("u", "right"))));
    scene.fails(&scene.reference, "its token server answered 401", false).await;
    write(r#"{"credHelpers":{"HOST":"ecr-login"}}"#);
    scene.fails(&scene.reference, "credential helper \"ecr-login\"", false).await;
    write("{");
    scene.fails(&scene.reference, "is not a Docker config.json", false).await;
}

#[tokio::test]
async fn content_that_is_not_what_the_manifest_says() {
    let scene = Scene::new().await;
    let digest = Digest::of(&scene.served.blobs[1]);
    type Fault = fn(&mut Behaviour);
    let faults: [(&str, Fault); 3] = [
        ("with other content", |b| b.corrupt = true),
        ("announced", |b| b.short_by = 10),
        ("sent more than", |b| b.extra = 5000),
    ];
    for (words, fault) in faults {
        *scene.registry.behave() = Behaviour::default();
        fault(&mut scene.registry.behave());
        scene.registry.log();
        scene.fails(&scene.reference, words, false).await;
        let asked = scene.registry.log().iter().filter(|l| l.contains(digest.as_str())).count();
        assert!(asked <= 2, "a wrong answer is not asked for again and again: {asked}");
    }
    let lie = scene.registry.put_raw_manifest("lie", OCI_MANIFEST, &scene.served.manifest);
    let wrong = format!("{}@{}", lie.trim_end_matches(":lie"), Digest::of(b"other"));
    scene.registry.put_raw_manifest(Digest::of(b"other").as_str(), OCI_MANIFEST, &scene.served.manifest);
    *scene.registry.behave() = Behaviour::default();
    scene.fails(&wrong, "with other content", false).await;
}

#[tokio::test]
async fn a_mirror_with_wrong_content_is_left_for_the_registry() {
    let (scene, mirror) = (Scene::new().await, FakeRegistry::start().await);
    mirror.put("1", &scene.served);
    mirror.behave().corrupt = true;
    let mut fixture = Fixture::new(&[&mirror, &scene.registry]);
    let host = RegistryHost { mirrors: vec![mirror.host()], http_allowed: true, ..Default::default() };
    fixture.config.registries.hosts.insert(scene.registry.host(), host);
    pull(&fixture.open(), &scene.reference).await.unwrap();
}

#[tokio::test]
async fn cut_downloads_are_resumed_where_they_were_cut() {
    let scene = Scene::new().await;
    scene.registry.behave().cut_blobs_at = [100, 1 << 20, 7].into();
    let store = scene.fixture.open();
    let events = Mutex::new(Vec::new());
    let image = store
        .resolve_and_pull(&scene.reference, &options(), |e| events.lock().unwrap().push(e))
        .await
        .unwrap();
    assert!(layer_dir(&scene.fixture.root(), &image, 1).join("big/5-2").is_file());
    let resumed = scene.registry.log().iter().filter(|l| l.contains(" bytes=")).count();
    assert!(resumed >= 2, "{resumed}");
    assert!(events.into_inner().unwrap().iter().any(|e| matches!(e, PullProgress::Retrying { .. })));
    // A server that knows no ranges sends all of it again; the result is the same.
    let other = Fixture::new(&[&scene.registry]);
    scene.registry.behave().cut_blobs_at = [1 << 20, 1 << 20].into();
    scene.registry.behave().ignore_range = true;
    assert_eq!(pull(&other.open(), &scene.reference).await.unwrap().layers, image.layers);
    // One that cuts for ever is given up.
    scene.registry.behave().cut_blobs_at = vec![10; 1000].into();
    let last = Fixture::new(&[&scene.registry]);
    let error = pull(&last.open(), &scene.reference).await.unwrap_err();
    assert!(chain(&error).contains("broke off after"), "{}", chain(&error));
    assert!(error.retriable());
}

#[tokio::test]
async fn faults_that_pass_are_outwaited_and_others_are_not() {
    let scene = Scene::new().await;
    scene.registry.behave().statuses = [503, 429, 500, 502].into();
    pull(&scene.fixture.open(), &scene.reference).await.unwrap();
    let scene = Scene::new().await;
    scene.registry.behave().statuses = vec![500; 100].into();
    scene.fails(&scene.reference, "answered 500: made to fail with 500", true).await;
    assert_eq!(scene.registry.log().len(), 5, "attempts are finite");
    scene.registry.behave().statuses = vec![400; 100].into();
    scene.fails(&scene.reference, "answered 400", false).await;
    assert_eq!(scene.registry.log().len(), 1);
}

#[tokio::test]
async fn silence_has_an_end() {
    let mut scene = Scene::new().await;
    scene.fixture.config.retry.attempts = 2;
    scene.registry.behave().silent = true;
    scene.fails(&scene.reference, "sent nothing for 1 s", true).await;
    *scene.registry.behave() = Behaviour { hold_blobs_at: Some(50_000), ..Behaviour::default() };
    scene.fails(&scene.reference, "sent nothing for 1 s", true).await;
    scene.fixture.config.timeouts.pull_ms = 300;
    scene.fails(&scene.reference, "took longer than 0 s", true).await;
}

#[tokio::test]
async fn images_of_the_wrong_kind() {
    let scene = Scene::new().await;
    let mut arm = Image::of(vec![Layer::new().file("f", b"x").tar()]);
    arm.architecture = "arm64";
    let arm = arm.serve();
    let single = scene.registry.put("arm", &arm);
    scene.fails(&single, "has no image for linux/amd64 (it has linux/arm64)", false).await;
    let index = scene
        .registry
        .put_index("index", &[("linux", "arm64", Some("v8"), &arm), ("windows", "amd64", None, &arm)]);
    scene.fails(&index, "it has linux/arm64/v8, windows/amd64", false).await;
    let schema1 = scene.registry.put_raw_manifest(
        "old",
        "application/vnd.docker.distribution.manifest.v1+json",
        b"{\"schemaVersion\":1}",
    );
    scene.fails(&schema1, "schema 1", false).await;
    let html = scene.registry.put_raw_manifest("html", "text/html", b"<html>");
    scene.fails(&html, "is not valid JSON", false).await;
    let xz = String::from_utf8(scene.served.manifest.clone()).unwrap().replace("tar+gzip", "tar+xz");
    let xz = scene.registry.put_raw_manifest("xz", OCI_MANIFEST, xz.as_bytes());
    scene.fails(&xz, "tar+xz", false).await;
    let huge = vec![b' '; 5 << 20];
    let huge = scene.registry.put_raw_manifest("huge", OCI_MANIFEST, &huge);
    scene.fails(&huge, "sent more than the 4194304 bytes allowed", false).await;
    let lost = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"lost"), "size": 4}});
    let lost = scene.registry.put_raw_manifest("lost", OCI_MANIFEST, lost.to_string().as_bytes());
    scene.fails(&lost, "although its manifest names it", false).await;
}

#[tokio::test]
async fn hostile_and_oversized_layers_are_refused() {
    let mut scene = Scene::new().await;
    let image = |tar: Vec<u8>| Image::of(vec![tar]).serve();
    let hostile = scene
        .registry
        .put("hostile", &image(Layer::new().link(tar::EntryType::Link, "h", "etc/passwd").tar()));
    scene.fails(&hostile, "of a layer below, and there is none", false).await;
    let garbage = scene.registry.put("garbage", &image(vec![7; 5000]));
    scene.fails(&garbage, "not a valid tar archive", false).await;
    let mut wrong = Image::of(vec![Layer::new().file("f", b"x").tar()]);
    let honest = wrong.serve();
    wrong.layers[0].0 = Layer::new().file("f", b"y").tar();
    let other = wrong.serve();
    let mixed = String::from_utf8(honest.manifest.clone()).unwrap();
    let mixed =
        mixed.replace(Digest::of(&honest.blobs[0]).as_str(), Digest::of(&other.blobs[0]).as_str()).replace(
            &format!("\"size\":{}", honest.blobs[0].len()),
            &format!("\"size\":{}", other.blobs[0].len()),
        );
    scene.registry.put("honest", &honest);
    scene.registry.put("other", &other);
    let mixed = scene.registry.put_raw_manifest("mixed", OCI_MANIFEST, mixed.as_bytes());
    scene.fails(&mixed, "its image says", false).await;
    scene.fixture.config.limits.max_unpacked_layer_bytes = 1 << 20;
    scene.fails(&scene.reference, "more than the 1048576 bytes after decompression", false).await;
    scene.fixture.config.limits.max_layer_bytes = 1000;
    scene.fails(&scene.reference, "more than the 1000 allowed", false).await;
}

#[tokio::test]
async fn a_cached_image_serves_while_the_registry_is_away() {
    let scene = Scene::new().await;
    let store = scene.fixture.open();
    let image = pull(&store, &scene.reference).await.unwrap();
    scene.registry.behave().statuses = vec![503; 100].into();
    scene.registry.log();
    let events = Mutex::new(Vec::new());
    let again = store
        .resolve_and_pull(&scene.reference, &options(), |e| events.lock().unwrap().push(e))
        .await
        .unwrap();
    assert_eq!(again, image);
    assert!(events.into_inner().unwrap().iter().any(|e| matches!(e, PullProgress::UsingCached { .. })));
    assert_eq!(scene.registry.log().len(), 1, "a start does not wait for retries");
    let always = PullOptions { policy: PullPolicy::Always, ..options() };
    let error = store.resolve_and_pull(&scene.reference, &always, |_| {}).await.unwrap_err();
    assert!(error.retriable(), "{}", chain(&error));
    // Who must not run what he may no longer pull says `always`; `default` is as in ECS.
    scene.registry.behave().statuses.clear();
    scene.registry.behave().auth = Some(Auth::Basic("u", "p"));
    assert_eq!(pull(&store, &scene.reference).await.unwrap(), image);
    let error = store.resolve_and_pull(&scene.reference, &always, |_| {}).await.unwrap_err();
    assert!(chain(&error).contains("refused access"), "{}", chain(&error));
}

#[test]
fn a_store_is_for_one_process_and_damage_is_set_aside() {
    let fixture = Fixture::new(&[]);
    let store = fixture.open();
    assert!(matches!(ImageStore::open(fixture.config.clone()), Err(OpenError::InUse { .. })));
    drop(store);
    let root = fixture.root();
    std::fs::write(root.join("images/junk.json"), b"{").unwrap();
    std::fs::create_dir_all(root.join("layers/junk/diff")).unwrap();
    std::fs::create_dir_all(root.join("tmp/7/diff/etc")).unwrap();
    std::fs::create_dir_all(root.join("trash/7/x")).unwrap();
    drop(fixture.open());
    let count = |dir: &str| std::fs::read_dir(root.join(dir)).unwrap().count();
    assert_eq!(
        (count("images"), count("layers"), count("tmp"), count("trash"), count("damaged")),
        (0, 0, 0, 0, 2)
    );
    std::fs::write(root.join("version"), b"99").unwrap();
    drop(fixture.open());
    assert_eq!(count("damaged"), 0);
    let aside = fixture.dir.path().join("images.damaged-1");
    assert_eq!(std::fs::read(aside.join("version")).unwrap(), b"99");
}

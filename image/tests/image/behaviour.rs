//! When a registry is asked, when its answer counts, and that many who ask are one.
//! In: pulls of every behaviour against registries in every state. Out: images, and what was asked.
//! Source: Amazon ECS developer guide, ECS_IMAGE_PULL_BEHAVIOR; amazon-ecs-agent, task_manager.go.

use crate::fixture::{Fixture, Image, Layer, Served, chain, gzip, large_layer, options, pull};
use crate::registry::FakeRegistry;
use lighter_image::{Digest, ImageStore, InUse, PullOptions, PullPolicy, PullProgress};

fn version(text: &str) -> Served {
    Image::of(vec![Layer::new().file(text, text.as_bytes()).tar()]).serve()
}

/// What the registry does when it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Now {
    Moved,
    Away,
    Refuses,
    Knows,
}

async fn ask(
    policy: PullPolicy,
    now: Now,
) -> (FakeRegistry, Result<Digest, String>, Vec<String>, [Digest; 2]) {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let (one, two) = (version("one"), version("two"));
    let reference = registry.put("t", &one);
    pull(&store, &reference).await.unwrap();
    registry.log();
    match now {
        Now::Moved => drop(registry.put("t", &two)),
        Now::Away => registry.behave().statuses = vec![503; 100].into(),
        Now::Refuses => registry.behave().statuses = vec![403; 100].into(),
        Now::Knows => {}
    }
    let pulled = store.resolve_and_pull(&reference, &PullOptions { policy, ..options() }, |_| {}).await;
    let log = registry.log();
    (registry, pulled.map(|i| i.manifest_digest).map_err(|e| chain(&e)), log, [one.digest, two.digest])
}

#[tokio::test]
async fn a_cached_image_is_used_exactly_when_ecs_uses_it() {
    use Now::{Away, Knows, Moved, Refuses};
    use PullPolicy::{Always, Default, Once, PreferCached};
    // Behaviour, state of the registry: which version runs (`None`: the pull fails), is it asked?
    for (policy, now, expected, asked) in [
        (Default, Knows, Some(0), true),
        (Default, Moved, Some(1), true),
        (Default, Away, Some(0), true),
        (Default, Refuses, Some(0), true),
        (Always, Knows, Some(0), true),
        (Always, Moved, Some(1), true),
        (Always, Away, None, true),
        (Always, Refuses, None, true),
        (Once, Moved, Some(0), false),
        (Once, Away, Some(0), false),
        (PreferCached, Moved, Some(0), false),
        (PreferCached, Away, Some(0), false),
    ] {
        let (_registry, pulled, log, versions) = ask(policy, now).await;
        assert_eq!(pulled.as_ref().ok(), expected.map(|at| &versions[at]), "{policy:?} {now:?}: {pulled:?}");
        assert_eq!(!log.is_empty(), asked, "{policy:?} {now:?}: {log:?}");
    }
}

#[tokio::test]
async fn once_asks_for_an_image_that_was_only_loaded_and_prefer_cached_does_not() {
    let registry = FakeRegistry::start().await;
    let (here, there) = (Fixture::new(&[&registry]), Fixture::new(&[&registry]));
    let (store, other) = (here.open(), there.open());
    let reference = registry.put("t", &version("one"));
    pull(&other, &reference).await.unwrap();
    let mut spool = store.spool().unwrap();
    other.save(&reference.parse().unwrap(), &options().platform, &mut spool).unwrap();
    let loaded = store.load(spool, None, &options().platform).await.unwrap();
    assert!(!loaded[0].from_registry);
    registry.log();
    let by = |policy| PullOptions { policy, ..options() };
    let of = async |policy| store.resolve_and_pull(&reference, &by(policy), |_| {}).await;
    registry.behave().statuses = vec![503; 100].into();
    assert!(of(PullPolicy::PreferCached).await.is_ok());
    assert!(registry.log().is_empty());
    assert!(of(PullPolicy::Once).await.is_err(), "an image that was never pulled does not count for `once`");
    assert!(of(PullPolicy::Default).await.is_ok());
    registry.behave().statuses.clear();
    assert!(of(PullPolicy::Once).await.unwrap().from_registry);
    registry.log();
    assert!(of(PullPolicy::Once).await.is_ok());
    assert!(registry.log().is_empty());
}

#[tokio::test]
async fn a_digest_is_found_after_its_tag_moved_and_missed_when_it_is_gone() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let (one, two) = (version("one"), version("two"));
    let reference = registry.put("t", &one);
    pull(&store, &reference).await.unwrap();
    registry.put("t", &two);
    pull(&store, &reference).await.unwrap();
    registry.log();
    let pinned = format!("{reference}@{}", one.digest);
    let image = pull(&store, &pinned).await.unwrap();
    assert_eq!((image.manifest_digest, image.reference), (one.digest.clone(), pinned.clone()));
    assert!(registry.log().is_empty(), "what the tag meant before is still here under its digest");
    store.prune(&InUse::default()).await.unwrap();
    assert_eq!(pull(&store, &pinned).await.unwrap().manifest_digest, one.digest);
    assert!(registry.log()[0].contains(one.digest.as_str()), "and comes by digest, whatever the tag means");
    store.prune(&InUse::default()).await.unwrap();
    registry.behave().statuses = vec![404; 9].into();
    let error = pull(&store, &pinned).await.unwrap_err();
    assert!(error.missing() && !error.retriable(), "{}", chain(&error));
}

fn count(log: &[String], what: &str) -> usize {
    log.iter().filter(|line| line.starts_with("GET ") && line.contains(what)).count()
}

async fn all_at_once(store: &ImageStore, references: Vec<String>) {
    let pulls = references.into_iter().map(|reference| {
        let store = store.clone();
        tokio::spawn(async move { pull(&store, &reference).await.map(drop).map_err(|e| chain(&e)) })
    });
    for pulled in pulls.collect::<Vec<_>>() {
        pulled.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_pulls_of_one_digest_are_one() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let layer = large_layer(2, 5);
    let served = Image::of(vec![layer.clone()]).serve();
    let (blob, config) = (Digest::of(&gzip(&layer)), Digest::of(&served.config));
    let reference = registry.put("one", &served);
    all_at_once(&store, vec![reference; 8]).await;
    let log = registry.log();
    let asked = (count(&log, "/manifests/"), count(&log, config.as_str()), count(&log, blob.as_str()));
    assert_eq!(asked, (1, 1, 1), "{log:#?}");

    // Several tags of one digest: each is asked for what it means, and no more.
    store.prune(&InUse::default()).await.unwrap();
    let tags = ["one", "two", "three"].map(|tag| registry.put(tag, &served));
    all_at_once(&store, tags.iter().chain(&tags).cloned().collect()).await;
    let log = registry.log();
    let asked = (count(&log, "/manifests/"), count(&log, config.as_str()), count(&log, blob.as_str()));
    assert_eq!(asked, (3, 1, 1), "{log:#?}");
    assert_eq!(store.images().len(), 3);
}

#[tokio::test]
async fn who_waited_for_a_pull_that_failed_pulls_for_himself() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let reference = registry.put("t", &version("one"));
    // The first one is refused; the second one's own question is answered.
    registry.behave().statuses = vec![403].into();
    let (first, second) = tokio::join!(pull(&store, &reference), pull(&store, &reference));
    assert_eq!([first.is_ok(), second.is_ok()].iter().filter(|ok| **ok).count(), 1);
}

#[tokio::test]
async fn falling_back_is_told() {
    let registry = FakeRegistry::start().await;
    let fixture = Fixture::new(&[&registry]);
    let store = fixture.open();
    let reference = registry.put("t", &version("one"));
    pull(&store, &reference).await.unwrap();
    registry.behave().statuses = vec![404; 9].into();
    let events = std::sync::Mutex::new(Vec::new());
    store.resolve_and_pull(&reference, &options(), |e| events.lock().unwrap().push(e)).await.unwrap();
    let told = |e: &PullProgress| matches!(e, PullProgress::UsingCached { cause } if cause.contains("knows no image"));
    assert!(events.into_inner().unwrap().iter().any(told));
}

//! Which image a task runs, when the registry is asked for it, and that room is made for it.
//! In: definitions and assignments. Out: what the image facility was asked for.

use super::bench::{Bench, local_client, task};
use crate::image_cleanup;
use lighter_model::task_definition::PullBehavior;
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;

const PINNED: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn definition(task: &str, container: &str) -> String {
    format!(
        r#"{{"family":"x","containerDefinitions":[{{"name":"side","image":"side","memory":16{container}}}]{task}}}"#
    )
}

/// Runs a task of this definition, pinned to a digest, and gives what was asked for.
fn asked(json: &str, prepare: impl FnOnce(&mut Bench)) -> Vec<(String, PullBehavior)> {
    let mut bench = Bench::new();
    bench.control.define("x:1", json);
    let side = bench.machine.with(|world| world.images["side"].clone());
    bench.machine.with(|world| world.images.insert(format!("side@{PINNED}"), side));
    prepare(&mut bench);
    bench.start();
    let id = task(1).to_string();
    bench.control.change(&id, |assignment| {
        assignment.task_definition = "x:1".to_owned();
        assignment.desired_status = v1::DesiredStatus::Running.into();
        assignment.image_digests.insert("side".to_owned(), PINNED.to_owned());
    });
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.machine.with(|world| world.pulls.iter().map(|p| (p.reference.clone(), p.behavior)).collect())
}

#[test]
fn a_task_runs_the_digest_its_revision_is_pinned_to() {
    let pinned = format!("side@{PINNED}");
    let nothing = |_: &mut Bench| {};
    assert_eq!(asked(&definition("", ""), nothing), [(pinned, PullBehavior::Default)]);
    let disabled = definition("", r#","versionConsistency":"disabled""#);
    assert_eq!(asked(&disabled, nothing)[0].0, "side");
}

#[test]
fn a_task_chooses_its_own_pull_behaviour() {
    let always = |bench: &mut Bench| bench.config.images.pull_behavior = PullBehavior::Always;
    assert_eq!(asked(&definition("", ""), always)[0].1, PullBehavior::Always);
    let once = definition(r#","pullBehavior":"once""#, "");
    assert_eq!(asked(&once, always)[0].1, PullBehavior::Once);
    let cached = definition(r#","pullBehavior":"prefer-cached""#, "");
    assert_eq!(asked(&cached, |_| {})[0].1, PullBehavior::PreferCached);
}

#[test]
fn a_pinned_digest_that_is_gone_is_explained() {
    let mut bench = Bench::new();
    bench.control.define("x:1", &definition("", ""));
    bench.start();
    let id = task(1).to_string();
    bench.control.change(&id, |assignment| {
        assignment.task_definition = "x:1".to_owned();
        assignment.desired_status = v1::DesiredStatus::Running.into();
        assignment.image_digests.insert("side".to_owned(), PINNED.to_owned());
    });
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    let reason = &stopped.stopped_reason;
    assert!(reason.starts_with("CannotPullContainerError: pull image side@sha256:aaa"), "{reason}");
    assert!(reason.contains("gone from the registry: register the task definition again"), "{reason}");
}

#[test]
fn room_is_made_once_for_a_pull_and_only_by_nodes_that_clean_up() {
    let run = |can_be_made, cleanup, expected| {
        let mut bench = Bench::new();
        bench.config.images.cleanup = Some(cleanup);
        bench.machine.with(|world| {
            world.room_missing = Some(77);
            world.room_can_be_made = can_be_made;
        });
        bench.start();
        let id = task(1).to_string();
        bench.control.assign(&id, "small:1");
        let ended = bench.control.wait_status(&id, expected);
        let (clean_ups, pulls) = bench.machine.with(|world| (world.clean_ups.clone(), world.pulls.len()));
        (ended.stopped_reason, clean_ups, pulls)
    };
    let (_, clean_ups, pulls) = run(true, true, TaskStatus::Running);
    assert_eq!((clean_ups.len(), clean_ups[0].1, pulls), (1, 77, 2));
    assert!(clean_ups[0].0.references.contains("side"), "the waiting task's image is in use");
    let (reason, clean_ups, _) = run(false, true, TaskStatus::Stopped);
    assert!(reason.starts_with("CannotPullContainerError") && reason.contains("no room"), "{reason}");
    assert_eq!(clean_ups.len(), 1);
    let (_, clean_ups, pulls) = run(true, false, TaskStatus::Stopped);
    assert_eq!((clean_ups.len(), pulls), (0, 2), "the second try is told the same");
}

#[test]
fn images_are_pulled_listed_loaded_saved_and_removed_on_the_socket() {
    let mut bench = Bench::new();
    bench.start();
    let socket = bench.config.socket();
    bench.runtime().block_on(async {
        let mut client = local_client(&socket).await;
        let pull = |image: &str, behavior: &str| v1::PullImageRequest {
            image: image.to_owned(),
            pull_behavior: behavior.to_owned(),
        };
        let mut said = client.pull_image(pull("web", "always")).await.unwrap().into_inner();
        let mut last = None;
        while let Some(message) = said.message().await.unwrap() {
            last = Some(message);
        }
        assert_eq!(last.unwrap().image_digest, "sha256:web");
        let mut said = client.pull_image(pull("nothing", "")).await.unwrap().into_inner();
        let ended = loop {
            match said.message().await {
                Ok(message) => assert!(message.is_some(), "an end without an image"),
                Err(status) => break status.code(),
            }
        };
        assert_eq!(ended, tonic::Code::NotFound);
        let refused = client.pull_image(pull("web", "sometimes")).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);

        let parts = ["lo", "ad", "ed"]
            .map(|part| v1::LoadImageRequest { name: String::new(), data: part.as_bytes().to_vec() });
        let loaded = client.load_image(tokio_stream::iter(parts)).await.unwrap().into_inner();
        assert_eq!(loaded.references, ["loaded"]);
        let save = |image: &str| v1::SaveImageRequest { image: image.to_owned() };
        let mut saved = client.save_image(save("loaded")).await.unwrap().into_inner();
        assert_eq!(saved.message().await.unwrap().unwrap().data, b"loaded");
        assert!(saved.message().await.unwrap().is_none());
        let mut saved = client.save_image(save("nothing")).await.unwrap().into_inner();
        assert_eq!(saved.message().await.unwrap_err().code(), tonic::Code::FailedPrecondition);

        let listed = client.list_images(v1::ListImagesRequest {}).await.unwrap().into_inner().images;
        assert_eq!(
            listed.iter().map(|image| image.reference.as_str()).collect::<Vec<_>>(),
            ["loaded", "side", "web"]
        );
        let inspect = |image: &str| v1::InspectImageRequest { image: image.to_owned() };
        assert_eq!(client.inspect_image(inspect("web")).await.unwrap().into_inner().config_json, "{}");
        assert_eq!(client.inspect_image(inspect("no")).await.unwrap_err().code(), tonic::Code::NotFound);
        let remove = v1::RemoveImageRequest { image: "loaded".to_owned() };
        assert_eq!(client.remove_image(remove.clone()).await.unwrap().into_inner().images, 1);
        assert_eq!(client.remove_image(remove).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    });
}

#[test]
fn images_of_tasks_that_have_not_stopped_are_in_use() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "small:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    let socket = bench.config.socket();
    bench.runtime().block_on(async {
        let mut client = local_client(&socket).await;
        let listed = client.list_images(v1::ListImagesRequest {}).await.unwrap().into_inner().images;
        let used: Vec<&str> = listed.iter().filter(|i| i.in_use).map(|i| i.reference.as_str()).collect();
        assert_eq!(used, ["side"]);
        let remove = v1::RemoveImageRequest { image: "side".to_owned() };
        let refused = client.remove_image(remove).await.unwrap_err();
        assert!(refused.message().contains("in use"), "{refused}");
    });
    assert_eq!(image_cleanup::in_use(&[]), crate::facilities::ImagesInUse::default());
}

//! Which image a task runs, when the registry is asked for it, and that room is made for it.
//! In: definitions and assignments. Out: what the image facility was asked for.

use super::bench::{Bench, local_client, task};
use super::control::wait;
use crate::image_cleanup;
use lighter_model::task_definition::PullBehavior;
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;
use lighter_proto::v1::image_order::Order as ImageOrder;
use lighter_proto::v1::image_report::Report;
use lighter_proto::v1::stream_ended::Result as Ended;
use lighter_proto::v1::stream_order::Order;
use lighter_proto::v1::stream_output::Output;

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

/// What the node says of an order of the control plane, and how it ended.
fn ordered(bench: &Bench, order: ImageOrder) -> (Vec<Report>, Ended) {
    let order = Order::Images(v1::ImageOrder { order: Some(order) });
    let mut stream = bench.control.open_stream("", "", order);
    let mut reports = Vec::new();
    loop {
        match stream.next() {
            Some(Output::Started(_)) => {}
            Some(Output::Images(v1::ImageReport { report: Some(report) })) => reports.push(report),
            Some(Output::Ended(ended)) => return (reports, ended.result.unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_control_plane_pulls_lists_and_prunes_images_on_a_node() {
    let mut bench = Bench::new();
    bench.config.images.pull_behavior = PullBehavior::Once;
    bench.start();
    let connected = || bench.control.with(|state| (!state.hellos.is_empty()).then_some(()));
    wait("the session", connected, String::new);
    let pull = |images: &[&str], behavior: &str| {
        let images = images.iter().map(|image| (*image).to_owned()).collect();
        ImageOrder::Pull(v1::ImagePull { images, pull_behavior: behavior.to_owned() })
    };
    let (said, ended) = ordered(&bench, pull(&["web", "side"], "always"));
    let pulled = |reports: Vec<Report>| -> Vec<(String, bool)> {
        let pulled = reports.into_iter().filter_map(|report| match report {
            Report::Pulled(pulled) => Some((pulled.image, pulled.error.is_empty())),
            _ => None,
        });
        pulled.collect()
    };
    assert_eq!(pulled(said), [("web".to_owned(), true), ("side".to_owned(), true)]);
    assert_eq!(ended, Ended::Done(v1::StreamDone { entries: 2 }));
    // One that is not there fails by name and keeps none of the others.
    let (said, ended) = ordered(&bench, pull(&["nothing", "web"], ""));
    assert_eq!(pulled(said), [("nothing".to_owned(), false), ("web".to_owned(), true)]);
    let Ended::Failed(failure) = ended else { panic!("{ended:?}") };
    assert_eq!(failure.reason, "IMAGE_NOT_PULLED");
    assert!(failure.message.starts_with("pull image nothing"), "{}", failure.message);
    let asked: Vec<_> = bench.machine.with(|world| world.pulls.iter().map(|p| p.behavior).collect());
    assert_eq!(asked, [PullBehavior::Always, PullBehavior::Always, PullBehavior::Once, PullBehavior::Once]);
    let (_, ended) = ordered(&bench, pull(&["web"], "sometimes"));
    assert!(matches!(&ended, Ended::Failed(failure) if failure.reason == "INVALID"), "{ended:?}");

    let (said, _) = ordered(&bench, ImageOrder::List(v1::ImageList {}));
    let [Report::Images(list)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(list.images.len(), 2);
    let (said, ended) = ordered(&bench, ImageOrder::Prune(v1::ImagePrune {}));
    assert!(matches!(said.as_slice(), [Report::Pruned(_)]), "{said:?}");
    assert!(matches!(ended, Ended::Done(_)), "{ended:?}");
}

//! What a tag means is settled by the first task of a revision that reports it; in a service by the first
//! of each deployment.
//! In: reports of a node. Out: the digests of definitions and assignments.

use crate::fake_node::{FakeSession, joined, report};
use crate::robot::{control, create, describe, messages, update};
use crate::support::{describe_task, register, run_request, start, until};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use tonic::transport::Channel;

const DEFINITION: &str = r#"{"family":"f","containerDefinitions":[
    {"name":"web","image":"r.test/web:1","memory":16},
    {"name":"loose","image":"r.test/loose:1","memory":16,"versionConsistency":"disabled"},
    {"name":"exact","image":"r.test/exact@sha256:1111111111111111111111111111111111111111111111111111111111111111",
     "memory":16}]}"#;

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

/// A report in which every container runs the image of this letter.
fn pulled(task: &str, sequence: u64, image_digest: &str) -> v1::TaskReport {
    let container = |name: &str| v1::Container {
        name: name.to_owned(),
        last_status: v1::ContainerStatus::Running.into(),
        image_digest: image_digest.to_owned(),
        ..Default::default()
    };
    let containers = ["web", "loose", "exact"].map(container).into();
    v1::TaskReport { containers, ..report(task, sequence, v1::TaskStatus::Running) }
}

async fn run(admin: &mut LighterClient<Channel>, session: &mut FakeSession) -> v1::Assignment {
    let tasks = admin.run_task(run_request("f", 1)).await.unwrap().into_inner().tasks;
    loop {
        if let Some(mine) = session.assignments().await.into_iter().find(|a| a.task_id == tasks[0].task_id) {
            return mine;
        }
    }
}

async fn pinned(admin: &mut LighterClient<Channel>, name: &str) -> Vec<(String, String)> {
    let request = v1::DescribeTaskDefinitionRequest { task_definition: name.to_owned() };
    let found = admin.describe_task_definition(request).await.unwrap().into_inner().task_definition.unwrap();
    found.image_digests.into_iter().collect()
}

#[tokio::test]
async fn a_tag_is_pinned_for_all_tasks_of_a_revision() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, DEFINITION).await;
    let mut node = joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    let (first, second) = (run(&mut admin, &mut session).await, run(&mut admin, &mut session).await);
    assert!(first.image_digests.is_empty() && second.image_digests.is_empty(), "nobody has asked yet");

    // What a node says that is no digest pins nothing; then the first one to say it wins.
    session.report(vec![pulled(&second.task_id, 1, "sha256:short")]).await;
    assert!(pinned(&mut admin, "f:1").await.is_empty());
    session.report(vec![pulled(&second.task_id, 2, &digest('b'))]).await;
    session.report(vec![pulled(&first.task_id, 1, &digest('a'))]).await;
    let web = vec![("web".to_owned(), digest('b'))];
    assert_eq!(pinned(&mut admin, "f:1").await, web, "only the container whose tag counts");
    let shown = describe_task(&mut admin, &first.task_id).await;
    assert_eq!(shown.containers[0].image_digest, digest('a'), "a task shows what it runs");

    let third = run(&mut admin, &mut session).await;
    assert_eq!(third.image_digests.into_iter().collect::<Vec<_>>(), web);
    session.report(vec![pulled(&third.task_id, 1, &digest('c'))]).await;
    assert_eq!(pinned(&mut admin, "f:1").await, web, "settled once");

    // Another revision asks anew, and a new session still hears of it.
    register(&mut admin, DEFINITION).await;
    assert!(pinned(&mut admin, "f:2").await.is_empty());
    drop(session);
    node.held = vec![v1::HeldTask { task_id: third.task_id.clone(), generation: 1, ..Default::default() }];
    let session = node.connect(&running).await.unwrap();
    let again = session.manifest.iter().find(|a| a.task_id == third.task_id).unwrap();
    assert_eq!(again.image_digests["web"], digest('b'));
}

/// The next tasks that are started, so many.
async fn started(session: &mut FakeSession, count: usize) -> Vec<v1::Assignment> {
    let mut started = Vec::new();
    while started.len() < count {
        let all = session.assignments().await.into_iter();
        started.extend(all.filter(|a| a.desired_status() == v1::DesiredStatus::Running));
    }
    started
}

/// What the deployments pin the tag to, the newest first.
async fn of_deployments(admin: &LighterClient<Channel>) -> Vec<Option<String>> {
    let deployments = describe(admin).await.deployments;
    deployments.into_iter().map(|mut deployment| deployment.image_digests.remove("web")).collect()
}

#[tokio::test]
async fn a_tag_is_pinned_for_all_tasks_of_a_deployment_and_the_next_asks_anew() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, DEFINITION).await;
    register(&mut admin, &DEFINITION.replace(r#""family":"f""#, r#""family":"web""#)).await;
    let mut session = joined(&running, "node").await.connect(&running).await.unwrap();
    create(&mut admin, r#","desiredCount":1,"deploymentConfiguration":{"minimumHealthyPercent":0}"#).await;
    let first = started(&mut session, 1).await.remove(0);
    assert!(first.image_digests.is_empty(), "nobody has asked yet");
    session.report(vec![pulled(&first.task_id, 1, &digest('a'))]).await;
    assert_eq!(of_deployments(&admin).await, [Some(digest('a'))]);

    // The tag moves; who comes later is told what it meant, whatever else a node says.
    update(&mut admin, r#","desiredCount":3"#).await.unwrap();
    for task in started(&mut session, 2).await {
        assert_eq!(task.image_digests.into_iter().collect::<Vec<_>>(), [("web".to_owned(), digest('a'))]);
        session.report(vec![pulled(&task.task_id, 1, &digest('b'))]).await;
    }
    assert_eq!(of_deployments(&admin).await, [Some(digest('a'))], "settled once");
    admin.stop_task(v1::StopTaskRequest { task: first.task_id.clone(), ..Default::default() }).await.unwrap();
    let stand_in = started(&mut session, 1).await.remove(0);
    assert_eq!(stand_in.image_digests["web"], digest('a'));
    assert!(pinned(&mut admin, "web:1").await.is_empty(), "the revision itself is left open");

    // Healthy, so that the deployment is completed and can be gone back to.
    session.report(vec![pulled(&stand_in.task_id, 1, &digest('a'))]).await;
    session.report(vec![crate::fake_node::stopped_report(&first.task_id, 9, 0)]).await;
    running.clock_ahead_ms.fetch_add(60_000, std::sync::atomic::Ordering::Relaxed);
    until("it is completed", async || {
        describe(&admin).await.deployments[0].rollout_state() == v1::RolloutState::Completed
    })
    .await;
    let forced = update(&mut admin, r#","forceNewDeployment":true"#).await.unwrap();
    assert_eq!(forced.deployments.len(), 2);
    let alone = started(&mut session, 1).await;
    assert!(alone.len() == 1 && alone[0].image_digests.is_empty(), "one asks anew");
    let asked = &alone[0].task_id;
    let shown = describe(&admin).await;
    let waits = format!("waits for the image digest of task {asked} before it starts others");
    let reason = &shown.deployments[0].rollout_state_reason;
    assert!(reason.contains(&waits), "{reason}");
    let told = format!("waits for the image digest of (task {asked}) before it starts others.");
    assert!(messages(&shown).iter().any(|message| message.ends_with(&told)), "{:?}", messages(&shown));
    // The tag moves between the first task and the others: they are told what it meant.
    session.report(vec![pulled(asked, 1, &digest('c'))]).await;
    for task in started(&mut session, 2).await {
        assert_eq!(task.image_digests["web"], digest('c'), "what the first of it ran");
        session.report(vec![pulled(&task.task_id, 1, &digest('d'))]).await;
    }
    assert_eq!(of_deployments(&admin).await, [Some(digest('c')), Some(digest('a'))]);
    let reason = describe(&admin).await.deployments.remove(0).rollout_state_reason;
    assert!(!reason.contains("waits"), "{reason}");
    let back = control(&mut admin, v1::DeploymentAction::Rollback).await.unwrap();
    assert_eq!(back.deployments[0].image_digests["web"], digest('a'), "with its images");
}

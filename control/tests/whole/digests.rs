//! What a tag means is settled by the first task of a revision that reports it.
//! In: reports of a node. Out: the digests of definitions and assignments.

use crate::fake_node::{FakeSession, joined, report};
use crate::support::{describe_task, register, run_request, start};
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

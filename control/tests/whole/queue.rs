//! The queue: tasks that fit nowhere wait, in turn, over restarts, until there is room or their time is over.

use crate::fake_node::{FakeNode, FakeSession, joined, stopped_report};
use crate::support::{Running, definition_json, describe_task, reason, register, run_request, start, until};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::sync::atomic::Ordering;
use tonic::transport::Channel;

/// One connected node of 1,024 units with definitions of several sizes, and a task that takes all of it.
async fn full() -> (Running, LighterClient<Channel>, FakeNode, FakeSession, String) {
    let running = start().await;
    let mut admin = running.admin().await;
    let mut node = joined(&running, "n0").await;
    node.resources = v1::Resources { cpu_units: 1024, memory_mib: 1024, ..Default::default() };
    let session = node.connect(&running).await.unwrap();
    for (family, cpu) in [("all", 1024), ("most", 900), ("some", 300)] {
        register(&mut admin, &definition_json(family, cpu, 6, None)).await;
    }
    let first = admin.run_task(run_request("all", 1)).await.unwrap().into_inner().tasks.remove(0);
    (running, admin, node, session, first.task_id)
}

fn queued(family: &str, priority: i32, time_limit_s: u32) -> v1::RunTaskRequest {
    let queue = Some(v1::QueueOptions { time_limit_s, priority });
    v1::RunTaskRequest { queue, ..run_request(family, 1) }
}

async fn run(admin: &mut LighterClient<Channel>, request: v1::RunTaskRequest) -> v1::Task {
    let answer = admin.run_task(request).await.unwrap().into_inner();
    assert!(answer.failures.is_empty(), "{:?}", answer.failures);
    answer.tasks.into_iter().next().unwrap()
}

/// Waits until the task has a node, or has ended.
async fn left_the_queue(admin: &LighterClient<Channel>, id: &str) -> v1::Task {
    until("the queue to let a task go", || {
        let (mut admin, id) = (admin.clone(), id.to_owned());
        async move { describe_task(&mut admin, &id).await.queue.is_none() }
    })
    .await;
    describe_task(&mut admin.clone(), id).await
}

async fn listed(admin: &mut LighterClient<Channel>) -> Vec<String> {
    let request = v1::ListTasksRequest { queued: true, ..Default::default() };
    admin.list_tasks(request).await.unwrap().into_inner().task_ids
}

#[tokio::test]
async fn what_fits_nowhere_waits_in_turn_and_says_for_what() {
    let (_running, mut admin, node, mut session, first) = full().await;
    let low = run(&mut admin, queued("most", 0, 0)).await;
    assert_eq!(low.last_status(), v1::TaskStatus::Provisioning);
    assert_eq!(low.container_instance_id, "");
    let request = v1::RunTaskRequest { client_token: "once".to_owned(), ..queued("most", 5, 60) };
    let high = run(&mut admin, request.clone()).await;
    let again = run(&mut admin, request.clone()).await;
    assert_eq!(again.task_id, high.task_id, "a client token means one entry");
    let other = v1::RunTaskRequest { queue: None, ..request };
    assert_eq!(reason(&admin.run_task(other).await.unwrap_err()), "CLIENT_TOKEN_CONFLICT");
    assert_eq!(listed(&mut admin).await.len(), 2);

    let shown = describe_task(&mut admin, &low.task_id).await;
    let wait = &shown.waits[0];
    assert_eq!(wait.kind, "QUEUE");
    assert!(wait.what.starts_with("room, number 2 of the queue, priority 0: "), "{}", wait.what);
    assert!(wait.what.contains("insufficient CPU units available (900 needed, 0 left)"), "{}", wait.what);
    assert_eq!(wait.until_unix_ms - wait.since_unix_ms, 86_400_000);

    session.report(vec![stopped_report(&first, 1, 0)]).await;
    let placed = left_the_queue(&admin, &high.task_id).await;
    assert_eq!(placed.container_instance_id, node.id, "the higher priority goes first");
    assert!(describe_task(&mut admin, &low.task_id).await.queue.is_some());
    // 124 units are left: what would take them has to wait behind, and a call without a queue is told why.
    register(&mut admin, &definition_json("tiny", 100, 6, None)).await;
    let refused = admin.run_task(run_request("tiny", 1)).await.unwrap().into_inner();
    assert_eq!(refused.failures[0].reason, "QUEUE");
    assert!(refused.failures[0].detail.contains(&low.task_id), "{}", refused.failures[0].detail);
    let tiny = run(&mut admin, queued("tiny", 0, 0)).await;
    assert!(tiny.queue.is_some(), "it does not pass: the head needs CPU there");

    session.report(vec![stopped_report(&high.task_id, 2, 0)]).await;
    left_the_queue(&admin, &low.task_id).await;
    left_the_queue(&admin, &tiny.task_id).await;
    assert!(listed(&mut admin).await.is_empty());
}

#[tokio::test]
async fn entries_outlive_a_restart_and_end_by_a_person_or_their_time() {
    let (running, mut admin, node, session, first) = full().await;
    let stopped = run(&mut admin, queued("some", 0, 0)).await;
    let late = run(&mut admin, queued("some", 0, 60)).await;
    let stays = run(&mut admin, queued("some", 0, 3_600)).await;
    let pause = v1::PauseTaskRequest { task: late.task_id.clone(), ..Default::default() };
    assert!(admin.pause_task(pause).await.is_err(), "nothing of it runs");
    let logs = v1::StreamTaskLogsRequest { task: late.task_id.clone(), ..Default::default() };
    assert_eq!(reason(&admin.stream_task_logs(logs).await.unwrap_err()), "TASK_NOT_RUNNING");
    let stats = v1::WatchStatsRequest { task: late.task_id.clone(), ..Default::default() };
    assert_eq!(reason(&admin.watch_stats(stats).await.unwrap_err()), "TASK_NOT_RUNNING");
    drop(session);
    let running = running.restart().await;
    let mut admin = running.admin().await;
    assert_eq!(listed(&mut admin).await.len(), 3);

    let request = v1::StopTaskRequest { task: stopped.task_id.clone(), ..Default::default() };
    let ended = admin.stop_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!(ended.last_status(), v1::TaskStatus::Stopped);
    assert_eq!(ended.stop_code(), v1::StopCode::UserInitiated);
    assert!(ended.queue.is_none() && ended.stopped_at_unix_ms > 0);

    running.clock_ahead_ms.store(61_000, Ordering::Relaxed);
    let ended = left_the_queue(&admin, &late.task_id).await;
    assert_eq!(ended.last_status(), v1::TaskStatus::Stopped);
    assert_eq!(ended.stop_code(), v1::StopCode::TaskFailedToStart);
    assert!(ended.stopped_reason.starts_with("Timeout waiting for room"), "{}", ended.stopped_reason);
    let delete = v1::DeleteClusterRequest { cluster: "default".to_owned() };
    assert!(admin.delete_cluster(delete).await.is_err(), "entries are tasks of the cluster");

    let mut node = FakeNode { revision: 0, ..node };
    node.held.clear();
    let mut session = node.connect(&running).await.unwrap();
    session.report(vec![stopped_report(&first, 1, 0)]).await;
    let placed = left_the_queue(&admin, &stays.task_id).await;
    assert_eq!(placed.container_instance_id, node.id);
}

//! How often and how much one caller may ask, as settings.

use crate::support::{definition_json, describe_task, reason, register, run_request, start_with, until};
use lighter_control::rate_limit::Rate;
use lighter_proto::v1;
use std::time::{Duration, Instant};
use tonic::Code;
use tonic_types::StatusExt;

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let reads = Some(Rate { per_second: 4, burst: 3 });
    let running = start_with(|config| config.rate_limits.reads = reads).await;
    let mut admin = running.admin().await;
    let begun = Instant::now();
    let mut given = 0;
    let refused = loop {
        match admin.list_tasks(v1::ListTasksRequest::default()).await {
            Ok(_) => given += 1,
            Err(refused) => break refused,
        }
        assert!(given < 1_000);
    };
    assert!(given >= 3 && given <= 3 + begun.elapsed().as_millis() as usize / 250, "{given}");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "THROTTLED"));
    assert!(refused.message().contains("rate_limits.reads"), "{}", refused.message());
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["ecs"], "ThrottlingException");
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(wait <= Duration::from_millis(250), "{wait:?}");
    // The same user on another connection has the same bucket; what is of another kind has its own.
    assert!(running.admin().await.list_tasks(v1::ListTasksRequest::default()).await.is_err());
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    tokio::time::sleep(wait).await;
    admin.list_tasks(v1::ListTasksRequest::default()).await.unwrap();
}

#[tokio::test]
async fn strangers_may_join_so_often_from_one_address_and_nodes_are_not_slowed() {
    let one = Some(Rate { per_second: 1, burst: 1 });
    let running = start_with(|config| {
        config.rate_limits.joins = one;
        config.rate_limits.reads = one;
    })
    .await;
    let node = crate::fake_node::joined(&running, "node").await;
    for _ in 0..3 {
        // Sessions, renewals and reports of a node are its own.
        node.connect(&running).await.unwrap();
    }
    let token = running.handle.create_join_token().await.unwrap();
    let stranger = || crate::fake_node::join(&running, "no token", "other");
    let refused = loop {
        // At once, and again when seconds have passed on a busy machine.
        let refused = tokio::join!(stranger(), stranger(), stranger());
        let refused = [refused.0, refused.1, refused.2].map(|refused| refused.err().unwrap());
        if let Some(refused) = refused.into_iter().find(|refused| reason(refused) == "THROTTLED") {
            break refused;
        }
    };
    let wait = refused.get_error_details().retry_info().unwrap().retry_delay.unwrap();
    tokio::time::sleep(wait).await;
    // One of the strangers may have had the next place.
    until("a join", async || crate::fake_node::join(&running, &token, "other").await.is_ok()).await;
}

#[tokio::test]
async fn how_much_one_call_may_ask_for_is_a_setting() {
    let running = start_with(|config| {
        config.quotas.tasks_per_run_task = 12;
        config.quotas.names_per_describe = 2;
        config.quotas.entries_per_page = 3;
    })
    .await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let node = crate::fake_node::joined(&running, "node").await;
    let _session = node.connect(&running).await.unwrap();
    let ran = admin.run_task(run_request("web", 12)).await.unwrap().into_inner().tasks;
    assert_eq!(ran.len(), 12);
    describe_task(&mut admin, &ran[0].task_id).await;
    let page = admin.list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner();
    assert_eq!(page.task_ids.len(), 3);
    let more = v1::ListTasksRequest { max_results: 4, ..Default::default() };
    let tasks = page.task_ids;
    let names = v1::DescribeTasksRequest { tasks, ..Default::default() };
    for (refused, setting) in [
        (admin.run_task(run_request("web", 13)).await.unwrap_err(), "quotas.tasks_per_run_task"),
        (admin.list_tasks(more).await.unwrap_err(), "quotas.entries_per_page"),
        (admin.describe_tasks(names).await.unwrap_err(), "quotas.names_per_describe"),
    ] {
        assert_eq!(reason(&refused), "INVALID_PARAMETER");
        assert!(refused.message().contains(setting), "{}", refused.message());
    }
}

//! Nodes that fall silent: what becomes of their tasks, told by a real control plane.

use crate::fake_node::{FakeNode, FakeSession, joined, report};
use crate::robot::{Temper, control, create, drain, obey, steady, tasks, update};
use crate::support::{
    Running, definition_json, describe_instance, describe_task, reason, register, run_request, start,
    start_with, until,
};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_message::Message as FromNode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Silent after 3 s, lost after 5 s at the earliest.
const BEAT: Duration = Duration::from_secs(1);

async fn world() -> (Running, LighterClient<Channel>) {
    let running = start_with(|config| config.heartbeat_interval_ms = 1_000).await;
    let mut admin = running.admin().await;
    let json =
        definition_json("web", 10, 6, None).replace(r#""essential""#, r#""stopTimeout":1,"essential""#);
    register(&mut admin, &json).await;
    (running, admin)
}

async fn session(running: &Running, node: &FakeNode) -> FakeSession {
    let hello = v1::NodeHello { features: vec!["leases".to_owned()], ..node.hello() };
    node.connect_saying(running, hello).await.unwrap()
}

/// Says heartbeats for as long as the test runs.
fn alive(session: FakeSession) {
    tokio::spawn(async move {
        for number in 1.. {
            session.say(FromNode::Heartbeat(v1::Heartbeat { number })).await;
            tokio::time::sleep(BEAT / 4).await;
        }
    });
}

fn policy(lease_s: u32) -> Option<v1::NodeSilencePolicy> {
    let exclusive = lease_s > 0;
    Some(v1::NodeSilencePolicy { lost_after_s: 5, replace: true, exclusive, lease_s })
}

async fn run(admin: &mut LighterClient<Channel>, count: u32, lease_s: u32) -> Vec<String> {
    let request = v1::RunTaskRequest { node_silence: policy(lease_s), ..run_request("web", count) };
    let answer = admin.run_task(request).await.unwrap().into_inner();
    assert!(answer.failures.is_empty(), "{:?}", answer.failures);
    answer.tasks.into_iter().map(|task| task.task_id).collect()
}

async fn cluster(admin: &mut LighterClient<Channel>) -> v1::Cluster {
    let request = v1::DescribeClustersRequest::default();
    admin.describe_clusters(request).await.unwrap().into_inner().clusters.remove(0)
}

/// Whether a task waits for something in these words, and ends by something in those.
async fn waits_for(admin: &LighterClient<Channel>, task: &str, what: &str, ends_by: &str) -> bool {
    let task = describe_task(&mut admin.clone(), task).await;
    let bounded =
        |wait: &v1::Wait| (wait.until_unix_ms > wait.since_unix_ms) != ends_by.contains("fell silent");
    task.waits.iter().any(|w| w.what.contains(what) && w.ends_by.contains(ends_by) && bounded(w))
}

#[tokio::test]
async fn lost_tasks_are_replaced_and_stopped_on_the_node_that_returns() {
    let (running, mut admin) = world().await;
    let mut lost = joined(&running, "lost").await;
    let mut first = session(&running, &lost).await;
    let kept = admin.run_task(run_request("web", 1)).await.unwrap().into_inner().tasks.remove(0).task_id;
    let plain = run(&mut admin, 1, 0).await.remove(0);
    let exclusive = run(&mut admin, 1, 8).await.remove(0);
    first.report(vec![report(&exclusive, 1, v1::TaskStatus::Running)]).await;
    let other = joined(&running, "other").await;
    alive(session(&running, &other).await);
    let since = Instant::now();
    first.say(FromNode::Heartbeat(v1::Heartbeat { number: 1 })).await;
    // What is only said may go with the session; from what was answered the lease counts.
    while !matches!(first.receive().await.unwrap(), FromControl::HeartbeatAnswer(_)) {}
    drop(first);
    for (task, words) in [(&exclusive, "its lease ends it there 8 s after"), (&plain, "is not connected")] {
        until("`why` says until when it waits", || waits_for(&admin, task, words, "takes this one's place"))
            .await;
    }
    for (task, earliest) in [(&plain, 5_000), (&exclusive, 8_800)] {
        until("the task is replaced", || {
            let mut admin = admin.clone();
            async move { !describe_task(&mut admin, task).await.replaced_by.is_empty() }
        })
        .await;
        assert!(since.elapsed() >= Duration::from_millis(earliest), "{:?}", since.elapsed());
        let old = describe_task(&mut admin, task).await;
        let new = describe_task(&mut admin, &old.replaced_by).await;
        assert_eq!(
            (new.replaces.as_str(), new.container_instance_id.as_str()),
            (task.as_str(), other.id.as_str())
        );
        assert_eq!(new.node_silence, old.node_silence);
        assert_eq!(
            (old.desired_status(), old.stop_code()),
            (v1::DesiredStatus::Stopped, v1::StopCode::InfrastructureHealth)
        );
        assert!(old.stopped_reason.contains("silent") && old.stopped_reason.contains(&new.task_id));
    }
    // What is known of it stays: it may run on there.
    assert_eq!(describe_task(&mut admin, &exclusive).await.last_status(), v1::TaskStatus::Running);
    assert!(describe_task(&mut admin, &kept).await.replaced_by.is_empty());
    // The node has what it was told to run, and says so.
    let held = |task: &String| v1::HeldTask { task_id: task.clone(), generation: 1, ..Default::default() };
    lost.held = [&kept, &plain, &exclusive].map(held).to_vec();
    let again = session(&running, &lost).await;
    let wanted = |id: &String| {
        let found = again.manifest.iter().find(|assignment| assignment.task_id == *id).unwrap();
        (found.desired_status(), found.lease_s)
    };
    assert_eq!(wanted(&kept), (v1::DesiredStatus::Running, 0));
    assert_eq!(wanted(&plain), (v1::DesiredStatus::Stopped, 0));
    assert_eq!(wanted(&exclusive), (v1::DesiredStatus::Stopped, 8));
}

/// What takes a service's task away before its node counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Stop,
    Deployment,
    Drain,
}

/// An exclusive service of one task whose node is cut off: whoever takes the task away, its lease is awaited.
async fn lease_is_awaited_after(takes: Takes, policy: &str) {
    let (running, mut admin) = world().await;
    let lost = joined(&running, "lost").await;
    let mut first = session(&running, &lost).await;
    let service = format!(
        r#","desiredCount":1,"deregistrationDelaySeconds":0,"nodeSilence":{policy},
            "deploymentConfiguration":{{"minimumHealthyPercent":0,"maximumPercent":100}}"#
    );
    create(&mut admin, &service).await;
    until("it has a task", async || !tasks(&admin).await.is_empty()).await;
    let task = tasks(&admin).await.remove(0).task_id;
    first.report(vec![report(&task, 1, v1::TaskStatus::Running)]).await;
    until("it runs", async || {
        describe_task(&mut admin.clone(), &task).await.last_status() == v1::TaskStatus::Running
    })
    .await;
    let other = joined(&running, "other").await;
    alive(session(&running, &other).await);
    let since = Instant::now();
    first.say(FromNode::Heartbeat(v1::Heartbeat { number: 1 })).await;
    while !matches!(first.receive().await.unwrap(), FromControl::HeartbeatAnswer(_)) {}
    drop(first);
    until("its node is silent", async || {
        !describe_instance(&mut admin.clone(), "lost").await.agent_connected
    })
    .await;
    match takes {
        Takes::Stop => {
            let stop = v1::StopTaskRequest { task: task.clone(), ..Default::default() };
            admin.stop_task(stop).await.unwrap();
        }
        Takes::Deployment => drop(update(&mut admin, r#","forceNewDeployment":true"#).await.unwrap()),
        Takes::Drain => drain(&mut admin, "lost").await,
    }
    until("another starts", async || tasks(&admin).await.iter().any(|other| other.task_id != task)).await;
    assert!(since.elapsed() >= Duration::from_millis(8_800), "{takes:?}: {:?}", since.elapsed());
    let old = describe_task(&mut admin, &task).await;
    assert_eq!(
        (old.desired_status(), old.last_status()),
        (v1::DesiredStatus::Stopped, v1::TaskStatus::Running)
    );
}

#[tokio::test]
async fn a_service_awaits_the_lease_of_a_task_that_somebody_stops_or_drains_or_replaces() {
    let replaced = r#"{"exclusive":true,"replace":true,"lostAfterSeconds":5,"leaseSeconds":8}"#;
    tokio::join!(
        lease_is_awaited_after(Takes::Stop, replaced),
        lease_is_awaited_after(Takes::Deployment, replaced),
        lease_is_awaited_after(Takes::Drain, replaced),
        // Lost after 300 s, or never: what is stopped makes room when the lease is over.
        lease_is_awaited_after(Takes::Stop, r#"{"exclusive":true,"leaseSeconds":8}"#),
        lease_is_awaited_after(Takes::Stop, r#"{"exclusive":true,"leaseSeconds":8,"replace":false}"#),
    );
}

#[tokio::test]
async fn the_lease_of_a_service_is_checked_against_the_revision_that_it_is_for() {
    let (running, mut admin) = world().await;
    let node = session(&running, &joined(&running, "node").await).await;
    let _beats = node.beats(BEAT / 4);
    tokio::spawn(obey(node, Arc::default(), |_| Temper::Good));
    let lease = |service: &v1::Service| service.node_silence.as_ref().unwrap().lease_s;
    let of = |lease_s: u32| format!(r#","nodeSilence":{{"exclusive":true,"leaseSeconds":{lease_s}}}"#);
    let made = create(&mut admin, r#","desiredCount":0,"nodeSilence":{"exclusive":true}"#).await;
    assert_eq!(lease(&made), 4, "the stop timeout and three heartbeats");
    let slow =
        definition_json("web", 10, 6, None).replace(r#""essential""#, r#""stopTimeout":30,"essential""#);
    register(&mut admin, &slow).await;
    // Nobody has asked for it: it is what the next revision needs.
    let longer = update(&mut admin, r#","taskDefinition":"web:2""#).await.unwrap();
    assert_eq!(lease(&longer), 60);
    // What was asked for is too short for the revision that it comes with, or that comes later.
    let short = format!(r#","taskDefinition":"web:1"{}"#, of(8));
    assert_eq!(lease(&update(&mut admin, &short).await.unwrap()), 8);
    for refused in
        [r#","taskDefinition":"web:2""#.to_owned(), format!(r#","taskDefinition":"web:2"{}"#, of(8))]
    {
        let refused = update(&mut admin, &refused).await.unwrap_err();
        assert!(refused.message().contains("twice the longest stopTimeout"), "{}", refused.message());
    }
    let both = format!(r#","desiredCount":1,"taskDefinition":"web:2"{}"#, of(70));
    assert_eq!(lease(&update(&mut admin, &both).await.unwrap()), 70);
    let first = steady(&running, &admin, 1).await;
    // What goes back to a revision that stops more slowly has a lease for it.
    update(&mut admin, &short).await.unwrap();
    let back = control(&mut admin, v1::DeploymentAction::Rollback).await.unwrap();
    assert_eq!(back.task_definition, first.task_definition);
    let task = tasks(&admin).await.remove(0).task_id;
    admin.stop_task(v1::StopTaskRequest { task: task.clone(), ..Default::default() }).await.unwrap();
    let another = async || {
        tasks(&admin).await.into_iter().find(|next| next.task_definition == "web:2" && next.task_id != task)
    };
    until("another of it starts", async || another().await.is_some()).await;
    assert_eq!(another().await.unwrap().node_silence.unwrap().lease_s, 60);
}

#[tokio::test]
async fn the_brake_holds_until_the_nodes_return_or_somebody_releases_it() {
    let (running, mut admin) = world().await;
    let mut sessions = Vec::new();
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        let node = joined(&running, name).await;
        sessions.push(session(&running, &node).await);
        nodes.push(node);
    }
    let tasks = run(&mut admin, 3, 0).await;
    let other = joined(&running, "other").await;
    alive(session(&running, &other).await);
    drop(sessions);
    until("the brake", || {
        let mut admin = admin.clone();
        async move { cluster(&mut admin).await.replacement_brake.is_some() }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(waits_for(&admin, &tasks[0], "is not connected", "(3 of 4 nodes fell silent)").await);
    for task in &tasks {
        assert!(describe_task(&mut admin, task).await.replaced_by.is_empty());
    }
    let brake = cluster(&mut admin).await.replacement_brake.unwrap();
    assert_eq!((brake.silent_container_instances, brake.container_instances), (3, 4));
    // One returns: two are no more than two.
    alive(session(&running, &nodes[0]).await);
    let replaced = |number: usize| {
        let (mut admin, task) = (admin.clone(), tasks[number].clone());
        async move { !describe_task(&mut admin, &task).await.replaced_by.is_empty() }
    };
    until("the other two's tasks are replaced", || async { replaced(1).await && replaced(2).await }).await;
    assert!(!replaced(0).await);
    assert_eq!(cluster(&mut admin).await.replacement_brake, None);
}

#[tokio::test]
async fn a_released_brake_replaces_what_is_lost() {
    let (running, mut admin) = world().await;
    let mut sessions = Vec::new();
    for name in ["a", "b", "c"] {
        sessions.push(session(&running, &joined(&running, name).await).await);
    }
    let tasks = run(&mut admin, 3, 0).await;
    alive(session(&running, &joined(&running, "other").await).await);
    drop(sessions);
    until("the brake", || {
        let mut admin = admin.clone();
        async move { cluster(&mut admin).await.replacement_brake.is_some() }
    })
    .await;
    let release_replacement_brake = true;
    let request = v1::UpdateClusterRequest {
        cluster: "default".into(),
        release_replacement_brake,
        ..Default::default()
    };
    admin.update_cluster(request).await.unwrap();
    for task in &tasks {
        until("replaced", || {
            let mut admin = admin.clone();
            async move { !describe_task(&mut admin, task).await.replaced_by.is_empty() }
        })
        .await;
    }
    assert_eq!(cluster(&mut admin).await.replacement_brake, None);
}

#[tokio::test]
async fn a_policy_without_effect_or_without_an_agent_for_it_is_refused() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 10, 6, None)).await;
    let node = joined(&running, "old").await;
    let _session = node.connect(&running).await.unwrap();
    let mut ask = async |policy: v1::NodeSilencePolicy| {
        admin.run_task(v1::RunTaskRequest { node_silence: Some(policy), ..run_request("web", 1) }).await
    };
    let short =
        ask(v1::NodeSilencePolicy { exclusive: true, lease_s: 2, ..Default::default() }).await.unwrap_err();
    assert_eq!(reason(&short), "INVALID_PARAMETER");
    assert!(short.message().contains("twice the longest stopTimeout"), "{}", short.message());
    ask(v1::NodeSilencePolicy { lost_after_s: 9, ..Default::default() }).await.unwrap_err();
    let exclusive =
        ask(v1::NodeSilencePolicy { exclusive: true, ..Default::default() }).await.unwrap().into_inner();
    assert!(exclusive.tasks.is_empty());
    assert_eq!(exclusive.failures[0].reason, "ATTRIBUTE");
}

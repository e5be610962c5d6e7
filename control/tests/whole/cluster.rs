//! Clusters, their instances and what can be said of them: made, changed, refused, deleted, and all
//! of it in the audit.

use crate::fake_node::{joined, report, stopped_report};
use crate::support::{
    Running, definition_json, describe_instance, describe_task, reason, register, run_request, start,
    start_with,
};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

type Admin = LighterClient<Channel>;

fn ecs(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.metadata["ecs"].clone()).unwrap_or_default()
}

fn tag(key: &str, value: &str) -> v1::Tag {
    v1::Tag { key: key.to_owned(), value: value.to_owned() }
}

async fn create(admin: &mut Admin, name: &str) -> Result<v1::Cluster, Status> {
    let request = v1::CreateClusterRequest { cluster_name: name.to_owned(), ..Default::default() };
    Ok(admin.create_cluster(request).await?.into_inner().cluster.unwrap())
}

async fn delete(admin: &mut Admin, name: &str) -> Result<v1::Cluster, Status> {
    let request = v1::DeleteClusterRequest { cluster: name.to_owned() };
    Ok(admin.delete_cluster(request).await?.into_inner().cluster.unwrap())
}

async fn describe(admin: &mut Admin, name: &str) -> v1::Cluster {
    let request = v1::DescribeClustersRequest { clusters: vec![name.to_owned()] };
    admin.describe_clusters(request).await.unwrap().into_inner().clusters.remove(0)
}

async fn deregister(admin: &mut Admin, name: &str, force: bool) -> Result<v1::ContainerInstance, Status> {
    let request = v1::DeregisterContainerInstanceRequest {
        container_instance: name.to_owned(),
        force,
        ..Default::default()
    };
    Ok(admin.deregister_container_instance(request).await?.into_inner().container_instance.unwrap())
}

#[tokio::test]
async fn a_cluster_is_made_changed_and_deleted_only_when_it_is_empty() {
    let running = start_with(|config| config.quotas.clusters = 2).await;
    let mut admin = running.admin().await;
    let made = create(&mut admin, "blue").await.unwrap();
    assert_eq!(made.status(), v1::ClusterStatus::Active);
    assert_eq!(create(&mut admin, "blue").await.unwrap(), made, "it is returned as it is");
    let full = create(&mut admin, "green").await.unwrap_err();
    assert_eq!((full.code(), ecs(&full).as_str()), (Code::ResourceExhausted, "LimitExceededException"));
    assert!(full.message().contains("quotas.clusters"), "{}", full.message());
    let setting = v1::ClusterSetting { name: "containerInsights".into(), value: "enabled".into() };
    let request =
        v1::UpdateClusterRequest { cluster: "blue".into(), settings: vec![setting], ..Default::default() };
    let refused = admin.update_cluster(request).await.unwrap_err();
    assert!(refused.message().contains("containerInsights"), "{}", refused.message());

    let node = joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    let task = admin.run_task(run_request("web", 1)).await.unwrap().into_inner().tasks.remove(0).task_id;
    let refused = delete(&mut admin, "default").await.unwrap_err();
    assert_eq!(ecs(&refused), "ClusterContainsContainerInstancesException");
    let counted = describe(&mut admin, "default").await;
    assert_eq!((counted.registered_container_instances_count, counted.pending_tasks_count), (1, 1));
    session.assignments().await;
    session.report(vec![stopped_report(&task, 1, 0)]).await;
    deregister(&mut admin, "node", false).await.unwrap();
    assert_eq!(delete(&mut admin, "default").await.unwrap().status(), v1::ClusterStatus::Inactive);
    assert_eq!(describe(&mut admin, "default").await.status(), v1::ClusterStatus::Inactive);
    let refused = admin.run_task(run_request("web", 1)).await.unwrap_err();
    assert_eq!(ecs(&refused), "ClusterNotFoundException");
    let listed = admin.list_clusters(v1::ListClustersRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.clusters, ["blue"]);
    assert_eq!(create(&mut admin, "default").await.unwrap().status(), v1::ClusterStatus::Active);
}

#[tokio::test]
async fn deregistering_by_force_orphans_tasks_and_tells_the_node_nothing() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    let node = joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    let tasks = admin.run_task(run_request("web", 10)).await.unwrap().into_inner().tasks;
    let mut assigned = 0;
    while assigned < 10 {
        assigned += session.assignments().await.len();
    }
    let reports = tasks.iter().map(|task| report(&task.task_id, 1, v1::TaskStatus::Running));
    session.report(reports.collect()).await;
    let refused = deregister(&mut admin, "node", false).await.unwrap_err();
    assert!(refused.message().starts_with("Found running tasks on the instance"), "{}", refused.message());
    let gone = deregister(&mut admin, "node", true).await.unwrap();
    assert_eq!(gone.status(), v1::ContainerInstanceStatus::Inactive);
    // `receive` inside `end` would meet an assignment with STOPPED if one came.
    let last = session.last_sequence;
    let ended = session.end().await;
    assert_eq!(reason(&ended), "INSTANCE_NOT_ACTIVE");
    assert_eq!(session.last_sequence, last, "the node was told nothing");
    for task in &tasks {
        let task = describe_task(&mut admin, &task.task_id).await;
        assert_eq!(task.last_status(), v1::TaskStatus::Stopped);
        assert!(task.stopped_reason.contains("orphan"), "{}", task.stopped_reason);
    }
    let refused = node.connect(&running).await.err().expect("an INACTIVE instance has no session");
    assert_eq!(reason(&refused), "INSTANCE_NOT_ACTIVE");
    assert_eq!(describe_instance(&mut admin, &node.id).await.status(), v1::ContainerInstanceStatus::Inactive);
}

fn attribute(instance: &str, name: &str, value: &str) -> v1::TargetAttribute {
    let text = str::to_owned;
    v1::TargetAttribute { container_instance: text(instance), name: text(name), value: text(value) }
}

async fn put(admin: &mut Admin, attributes: Vec<v1::TargetAttribute>) -> Result<(), Status> {
    let request = v1::PutAttributesRequest { attributes, ..Default::default() };
    admin.put_attributes(request).await.map(drop)
}

#[tokio::test]
async fn attributes_of_people_win_and_keep_ecs_s_limits() {
    let running = start().await;
    let mut admin = running.admin().await;
    let node = joined(&running, "node").await;
    let mut hello = node.hello();
    let own = |name: &str, value: &str| v1::Attribute {
        name: name.to_owned(),
        value: value.to_owned(),
        ..Default::default()
    };
    hello.state.as_mut().unwrap().attributes =
        vec![own("rack", "own"), own("ecs.os-type", "linux"), own("lighter.capacity-type", "reserved")];
    let _session = node.connect_saying(&running, hello).await.unwrap();
    put(
        &mut admin,
        vec![attribute("node", "rack", "r1"), attribute("node", "lighter.capacity-type", "spot")],
    )
    .await
    .unwrap();
    let seen = describe_instance(&mut admin, "node").await;
    assert_eq!(seen.capacity_type(), v1::CapacityType::Spot);
    let rack = seen.attributes.iter().find(|a| a.name == "rack").unwrap();
    assert_eq!((rack.value.as_str(), rack.source()), ("r1", v1::AttributeSource::Operator));
    for (name, value) in [("ecs.os-type", "x"), ("a b", "x"), ("x", " y"), ("lighter.capacity-type", "free")]
    {
        let refused = put(&mut admin, vec![attribute("node", name, value)]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}={value}");
    }
    let many = |from: u32| (from..from + 9).map(|n| attribute("node", &format!("a{n}"), "")).collect();
    let refused = put(&mut admin, many(0)).await.unwrap_err();
    assert_eq!(ecs(&refused), "AttributeLimitExceededException");
    let missing = put(&mut admin, vec![attribute("nobody", "a", "b")]).await.unwrap_err();
    assert_eq!(ecs(&missing), "TargetNotFoundException");

    let named = v1::ListAttributesRequest { attribute_name: "rack".into(), ..Default::default() };
    let listed = admin.list_attributes(named).await.unwrap().into_inner().attributes;
    assert_eq!(listed, [attribute(&node.id, "rack", "r1")]);
    let page = v1::ListAttributesRequest { max_results: 2, ..Default::default() };
    let first = admin.list_attributes(page).await.unwrap().into_inner();
    let next = v1::ListAttributesRequest { next_token: first.next_token, ..Default::default() };
    let rest = admin.list_attributes(next).await.unwrap().into_inner();
    assert_eq!((first.attributes.len(), rest.attributes.len(), rest.next_token.as_str()), (2, 1, ""));
    let attributes = vec![attribute("node", "rack", "")];
    admin.delete_attributes(v1::DeleteAttributesRequest { attributes, ..Default::default() }).await.unwrap();
    let seen = describe_instance(&mut admin, "node").await;
    assert!(
        seen.attributes.iter().any(|a| a.name == "rack" && a.value == "own"),
        "the node's own shows again"
    );
}

#[tokio::test]
async fn nodes_are_listed_by_the_query_language() {
    let running = start().await;
    let mut admin = running.admin().await;
    for (name, rack) in [("one", "r1"), ("two", "r2")] {
        let node = joined(&running, name).await;
        let session = node.connect_saying(&running, node.hello()).await.unwrap();
        put(&mut admin, vec![attribute(name, "rack", rack)]).await.unwrap();
        drop(session);
    }
    let two = describe_instance(&mut admin, "two").await.container_instance_id;
    let list = async |filter: &str| {
        let request = v1::ListContainerInstancesRequest { filter: filter.into(), ..Default::default() };
        let answer = running.admin().await.list_container_instances(request).await;
        answer.map(|answer| answer.into_inner().container_instance_ids)
    };
    assert_eq!(list("attribute:rack == r2 and runningTasksCount == 0").await.unwrap(), [two]);
    assert_eq!(list("attribute:rack exists and not (task:group exists)").await.unwrap().len(), 2);
    assert_eq!(list("registeredAt < 2018-06-18").await.unwrap().len(), 0);
    let refused = list("attribute:rack = r2").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("filter") && refused.message().contains("character 16"), "{refused}");
}

#[tokio::test]
async fn a_node_gets_only_what_it_can_do() {
    let running = start().await;
    let mut admin = running.admin().await;
    let json = r#"{"family":"checked","containerDefinitions":[{"name":"c","image":"i","memory":6,
        "healthCheck":{"command":["CMD","true"]}}]}"#;
    let registered = register(&mut admin, json).await;
    assert_eq!(registered.requires_attributes[0].name, "ecs.capability.container-health-check");
    let node = joined(&running, "node").await;
    let mut hello = node.hello();
    let capability = "ecs.capability.container-ordering".to_owned();
    hello.state.as_mut().unwrap().attributes = vec![v1::Attribute { name: capability, ..Default::default() }];
    let session = node.connect_saying(&running, hello).await.unwrap();
    let ran = admin.run_task(run_request("checked", 1)).await.unwrap().into_inner();
    assert_eq!(ran.failures[0].reason, "ATTRIBUTE");
    assert!(ran.failures[0].detail.contains("container-health-check"), "{:?}", ran.failures);
    drop(session);
    // An agent that names no capability is older than them.
    let other = joined(&running, "older").await;
    let _session = other.connect(&running).await.unwrap();
    assert_eq!(admin.run_task(run_request("checked", 1)).await.unwrap().into_inner().tasks.len(), 1);
}

async fn deleted(admin: &mut Admin, name: &str) -> v1::DeleteTaskDefinitionsResponse {
    let task_definitions = vec![name.to_owned()];
    let request = v1::DeleteTaskDefinitionsRequest { task_definitions };
    admin.delete_task_definitions(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_revision_is_never_used_again_also_when_it_was_deleted() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    assert_eq!(deleted(&mut admin, "web:1").await.failures[0].reason, "ACTIVE");
    assert_eq!(deleted(&mut admin, "web:9").await.failures[0].reason, "MISSING");
    let request = v1::DeregisterTaskDefinitionRequest { task_definition: "web:1".into() };
    admin.deregister_task_definition(request).await.unwrap();
    let gone = deleted(&mut admin, "web:1").await.task_definitions.remove(0);
    assert_eq!(gone.status(), v1::TaskDefinitionStatus::DeleteInProgress);
    let listed = v1::ListTaskDefinitionsRequest {
        status: v1::TaskDefinitionStatus::DeleteInProgress.into(),
        ..Default::default()
    };
    let listed = admin.list_task_definitions(listed).await.unwrap().into_inner().task_definitions;
    assert!(listed.is_empty() || listed == ["web:1"], "the sweep may have been here");
    assert_eq!(register(&mut admin, &definition_json("web", 1, 6, None)).await.revision, 2);
    let families = v1::ListTaskDefinitionFamiliesRequest::default();
    let families = admin.list_task_definition_families(families).await.unwrap().into_inner().families;
    assert_eq!(families, ["web"]);
}

#[tokio::test]
async fn tags_of_a_definition_are_kept_beside_it_and_handed_to_tasks() {
    let running = start_with(|config| config.quotas.tags_per_resource = 3).await;
    let mut admin = running.admin().await;
    let json = r#"{"family":"web","tags":[{"key":"team","value":"a"},{"key":"env","value":"test"}],
        "containerDefinitions":[{"name":"c","image":"i","memory":6}]}"#;
    let registered = register(&mut admin, json).await;
    assert_eq!(registered.tags, [tag("env", "test"), tag("team", "a")]);
    assert!(!registered.json.contains("team"), "{}", registered.json);
    let node = joined(&running, "node").await;
    let _session = node.connect(&running).await.unwrap();
    let mut request = run_request("web", 1);
    let plain = admin.run_task(request.clone()).await.unwrap().into_inner().tasks.remove(0);
    assert!(plain.tags.is_empty());
    request.propagate_tags = v1::PropagateTags::TaskDefinition.into();
    request.tags = vec![tag("team", "b")];
    let task = admin.run_task(request.clone()).await.unwrap().into_inner().tasks.remove(0);
    assert_eq!(task.tags, [tag("env", "test"), tag("team", "b")], "its own win");
    request.tags.extend([tag("x", ""), tag("y", "")]);
    let refused = admin.run_task(request.clone()).await.unwrap_err();
    assert!(refused.message().contains("quotas.tags_per_resource"), "{}", refused.message());
    request.tags = vec![tag("aws:x", "")];
    assert_eq!(admin.run_task(request.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    for wrong in [v1::PropagateTags::Service as i32, 77] {
        let request = v1::RunTaskRequest { propagate_tags: wrong, ..run_request("web", 1) };
        assert_eq!(admin.run_task(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    for resource in [
        "task-definition/web:1".to_owned(),
        "cluster/default".to_owned(),
        format!("arn:aws:ecs:eu-1:123:container-instance/default/{}", node.id),
        format!("task/default/{}", plain.task_id),
    ] {
        let tags = vec![tag("k", "v")];
        admin.tag_resource(v1::TagResourceRequest { resource: resource.clone(), tags }).await.unwrap();
        let list = v1::ListTagsForResourceRequest { resource: resource.clone() };
        let tags = admin.list_tags_for_resource(list.clone()).await.unwrap().into_inner().tags;
        assert!(tags.contains(&tag("k", "v")), "{resource}: {tags:?}");
        let tag_keys = vec!["k".to_owned(), "nothing".to_owned()];
        admin.untag_resource(v1::UntagResourceRequest { resource, tag_keys }).await.unwrap();
        let tags = admin.list_tags_for_resource(list).await.unwrap().into_inner().tags;
        assert!(!tags.contains(&tag("k", "v")), "{tags:?}");
    }
    let list = v1::ListTagsForResourceRequest { resource: "volume/x".into() };
    assert_eq!(admin.list_tags_for_resource(list).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn quotas_of_definitions_are_refused_by_name() {
    let running = start_with(|config| {
        config.quotas.containers_per_task_definition = 1;
        config.quotas.task_definition_bytes = 400;
        config.quotas.revisions_per_family = 1;
        config.quotas.container_instances_per_cluster = 1;
    })
    .await;
    let mut admin = running.admin().await;
    let containers = |count: usize, image: &str| {
        let one = |n| format!(r#"{{"name":"c{n}","image":"{image}","memory":6}}"#);
        let all: Vec<String> = (0..count).map(one).collect();
        format!(r#"{{"family":"f","containerDefinitions":[{}]}}"#, all.join(","))
    };
    register(&mut admin, &containers(1, "i")).await;
    for (json, setting) in [
        (containers(2, "i"), "containers_per_task_definition"),
        (containers(1, &"i".repeat(400)), "task_definition_bytes"),
        (containers(1, "i"), "revisions_per_family"),
    ] {
        let request = v1::RegisterTaskDefinitionRequest { json };
        let refused = admin.register_task_definition(request).await.unwrap_err();
        assert_eq!(reason(&refused), "QUOTA_EXCEEDED");
        assert!(refused.message().contains(&format!("quotas.{setting}")), "{}", refused.message());
    }
    joined(&running, "one").await;
    let token = running.handle.create_join_token().await.unwrap();
    let refused = crate::fake_node::join(&running, &token, "two").await.err().unwrap();
    assert!(refused.message().contains("container_instances_per_cluster"), "{}", refused.message());
}

async fn audit(running: &Running) -> Vec<v1::AuditRecord> {
    let mut admin = running.admin().await;
    let mut records = admin.list_audit(v1::ListAuditRequest::default()).await.unwrap().into_inner().records;
    records.reverse();
    records
}

#[tokio::test]
async fn every_change_that_somebody_asks_for_is_in_the_audit_and_a_refused_one_is_not() {
    let running = start().await;
    let mut admin = running.admin().await;
    let node = joined(&running, "node").await;
    let _session = node.connect(&running).await.unwrap();
    create(&mut admin, "blue").await.unwrap();
    create(&mut admin, "blue").await.unwrap();
    delete(&mut admin, "missing").await.unwrap_err();
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    let task = admin.run_task(run_request("web", 1)).await.unwrap().into_inner().tasks.remove(0).task_id;
    admin.stop_task(v1::StopTaskRequest { task: task.clone(), ..Default::default() }).await.unwrap();
    put(&mut admin, vec![attribute("node", "rack", "r1")]).await.unwrap();
    let resource = "cluster/blue".to_owned();
    admin.tag_resource(v1::TagResourceRequest { resource, tags: vec![tag("a", "b")] }).await.unwrap();
    delete(&mut admin, "blue").await.unwrap();
    let running = running.restart().await;
    let records = audit(&running).await;
    // Those of the cluster `default` and of none.
    let actions: Vec<&str> = records.iter().map(|record| record.action.as_str()).collect();
    let expected = [
        "CreateJoinToken",
        "Join",
        "RegisterTaskDefinition",
        "RunTask",
        "StopTask",
        "PutAttributes",
        "TagResource",
    ];
    assert_eq!(actions, expected);
    assert!(records[1].user.starts_with("join token ") && records[1].address.starts_with("127.0.0.1:"));
    assert_eq!((records[3].task_id.as_str(), records[3].user.as_str()), (task.as_str(), "admin"));
    assert_eq!((records[3].address.as_str(), records[3].result.as_str()), ("a Unix socket", "done"));
    assert_eq!(records[5].command, ["node: rack=r1"]);
    let mut admin = running.admin().await;
    let blue = v1::ListAuditRequest { cluster: "blue".into(), ..Default::default() };
    let records = admin.list_audit(blue).await.unwrap().into_inner().records;
    let actions: Vec<&str> = records.iter().map(|record| record.action.as_str()).collect();
    assert_eq!(actions, ["DeleteCluster", "TagResource", "RegisterTaskDefinition", "CreateCluster"]);
}

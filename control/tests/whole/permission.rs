//! Every method × {anonymous, user, own node, other node}, over real connections. A method that is
//! added to the contract has to get a row in `expected`, which does not compile without.

use crate::fake_node::{FakeNode, certificate_request, joined, report};
use crate::support::{Running, definition_json, reason, register, run_request, start};
use lighter_proto::Method;
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_client::NodeClient;
use tonic::Code::{self, NotFound, Ok as Fine, PermissionDenied, Unauthenticated, Unimplemented};
use tonic::transport::Channel;
use tonic::{Response, Status};

/// Codes for anonymous, user, the node that the request is about, another node.
fn expected(method: Method) -> [Code; 4] {
    const PEOPLE: [Code; 4] = [Unauthenticated, Fine, PermissionDenied, PermissionDenied];
    const OWN_NODE: [Code; 4] = [Unauthenticated, PermissionDenied, Fine, PermissionDenied];
    const ELSEWHERE: [Code; 4] = [Unimplemented; 4];
    match method {
        Method::LighterRegisterTaskDefinition
        | Method::LighterDescribeTaskDefinition
        | Method::LighterListTaskDefinitions
        | Method::LighterDeregisterTaskDefinition
        | Method::LighterRunTask
        | Method::LighterStopTask
        | Method::LighterListTasks
        | Method::LighterDescribeTasks
        | Method::LighterListTaskEvents
        | Method::LighterListContainerInstances
        | Method::LighterDescribeContainerInstances
        | Method::LighterUpdateContainerInstancesState
        | Method::LighterCreateJoinToken
        | Method::LighterWatchEvents
        | Method::LighterListAudit
        | Method::LighterListOrphans
        // The user is the administrator.
        | Method::LighterSaveSnapshot
        // Each node's failure is part of the answer.
        | Method::LighterOrderImages
        | Method::LighterPauseTask
        | Method::LighterUnpauseTask
        | Method::LighterDeleteTaskDefinitions
        | Method::LighterListTaskDefinitionFamilies
        | Method::LighterCreateCluster
        | Method::LighterDescribeClusters
        | Method::LighterListClusters
        | Method::LighterUpdateCluster
        | Method::LighterTagResource
        | Method::LighterUntagResource
        | Method::LighterListTagsForResource
        | Method::LighterPutAttributes
        | Method::LighterListAttributes
        | Method::LighterStreamClusterState
        | Method::LighterUpdateTask => PEOPLE,
        // Only people get as far as a request that lacks what it needs.
        Method::LighterStartTask | Method::LighterExplainPlacement | Method::LighterTestPlacementStrategy => {
            [Unauthenticated, Code::InvalidArgument, PermissionDenied, PermissionDenied]
        }
        // Only people get as far as a cluster in use, an instance with tasks, an attribute nobody set.
        Method::LighterDeleteCluster | Method::LighterDeregisterContainerInstance => {
            [Unauthenticated, Code::FailedPrecondition, PermissionDenied, PermissionDenied]
        }
        Method::LighterDeleteAttributes => {
            [Unauthenticated, Code::InvalidArgument, PermissionDenied, PermissionDenied]
        }
        // The node is not connected here, so nobody gets lines; only people get as far as that.
        Method::LighterStreamTaskLogs
        | Method::LighterExec
        | Method::LighterAttach
        | Method::LighterCopy
        | Method::LighterWatchStats => {
            [Unauthenticated, Code::Unavailable, PermissionDenied, PermissionDenied]
        }
        // Only people get as far as an orphan that is none.
        Method::LighterAdoptOrphan | Method::LighterStopOrphan => {
            [Unauthenticated, NotFound, PermissionDenied, PermissionDenied]
        }
        // Only people get as far as a service that has no ports, whose deployment has ended, with tasks
        // that are of none.
        Method::LighterWatchEndpoints => {
            [Unauthenticated, Code::InvalidArgument, PermissionDenied, PermissionDenied]
        }
        Method::LighterControlDeployment => {
            [Unauthenticated, Code::FailedPrecondition, PermissionDenied, PermissionDenied]
        }
        Method::LighterCreateService
        | Method::LighterUpdateService
        | Method::LighterDeleteService
        | Method::LighterDescribeServices
        | Method::LighterListServices
        | Method::LighterUpdateTaskProtection
        | Method::LighterGetTaskProtection => PEOPLE,
        Method::NodeJoin => [Fine; 4],
        Method::NodeSession => OWN_NODE,
        // Each node for itself: the request names nobody.
        Method::NodeRenewCertificate => [Unauthenticated, PermissionDenied, Fine, Fine],
        // The stream that the own node names is not open.
        Method::NodeSendLogs | Method::NodeStream => [Unauthenticated, PermissionDenied, NotFound, NotFound],
        Method::AgentGetAgentStatus
        | Method::AgentListLocalTasks
        | Method::AgentGetDiskUsage
        | Method::AgentPrune
        | Method::AgentStopTasks
        | Method::AgentSetNotice
        | Method::AgentPullImage
        | Method::AgentListImages
        | Method::AgentInspectImage
        | Method::AgentRemoveImage
        | Method::AgentLoadImage
        | Method::AgentSaveImage
        | Method::AgentStreamPullProgress => ELSEWHERE,
    }
}

struct World {
    running: Running,
    own: FakeNode,
    /// A task of `own`.
    task: String,
    /// Another, which nobody stops.
    spare_task: String,
}

fn code<T>(answer: Result<Response<T>, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Fine)
}

/// A call that needs no arguments to be refused.
async fn bare(channel: Channel, method: Method) -> Code {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(method.path());
    let codec: tonic_prost::ProstCodec<v1::PruneRequest, v1::PruneResponse> = Default::default();
    code(grpc.unary(tonic::Request::new(v1::PruneRequest::default()), path, codec).await)
}

/// One call, the same for every caller, about the node `own` and its task.
async fn call(world: &World, channel: Channel, method: Method) -> Code {
    let mut people = LighterClient::new(channel.clone());
    let mut node = NodeClient::new(channel.clone());
    let task = world.task.clone();
    match method {
        Method::LighterRegisterTaskDefinition => {
            let json = definition_json("spare", 1, 6, None);
            code(people.register_task_definition(v1::RegisterTaskDefinitionRequest { json }).await)
        }
        Method::LighterDescribeTaskDefinition => {
            let task_definition = "web:1".to_owned();
            code(people.describe_task_definition(v1::DescribeTaskDefinitionRequest { task_definition }).await)
        }
        Method::LighterListTaskDefinitions => {
            code(people.list_task_definitions(v1::ListTaskDefinitionsRequest::default()).await)
        }
        Method::LighterDeregisterTaskDefinition => {
            let task_definition = "old:1".to_owned();
            code(
                people
                    .deregister_task_definition(v1::DeregisterTaskDefinitionRequest { task_definition })
                    .await,
            )
        }
        Method::LighterRunTask => code(people.run_task(run_request("web:1", 1)).await),
        Method::LighterStartTask => code(people.start_task(v1::StartTaskRequest::default()).await),
        Method::LighterExplainPlacement => {
            code(people.explain_placement(v1::ExplainPlacementRequest::default()).await)
        }
        Method::LighterTestPlacementStrategy => {
            code(people.test_placement_strategy(v1::TestPlacementStrategyRequest::default()).await)
        }
        Method::LighterStopTask => {
            code(people.stop_task(v1::StopTaskRequest { task, ..Default::default() }).await)
        }
        Method::LighterListTasks => code(people.list_tasks(v1::ListTasksRequest::default()).await),
        Method::LighterDescribeTasks => code(
            people.describe_tasks(v1::DescribeTasksRequest { tasks: vec![task], ..Default::default() }).await,
        ),
        Method::LighterListTaskEvents => {
            code(people.list_task_events(v1::ListTaskEventsRequest { task, ..Default::default() }).await)
        }
        Method::LighterListContainerInstances
        | Method::LighterUpdateContainerInstancesState
        | Method::LighterDescribeContainerInstances
        | Method::LighterCreateJoinToken
        | Method::LighterStreamTaskLogs
        | Method::LighterExec
        | Method::LighterAttach
        | Method::LighterCopy
        | Method::LighterWatchStats
        | Method::LighterOrderImages
        | Method::LighterPauseTask
        | Method::LighterUnpauseTask
        | Method::LighterUpdateTask
        | Method::LighterListAudit
        | Method::LighterListOrphans
        | Method::LighterAdoptOrphan
        | Method::LighterStopOrphan
        | Method::LighterSaveSnapshot
        | Method::LighterWatchEvents => call_more(world, people, method).await,
        Method::LighterDeleteTaskDefinitions
        | Method::LighterListTaskDefinitionFamilies
        | Method::LighterCreateCluster
        | Method::LighterDescribeClusters
        | Method::LighterListClusters
        | Method::LighterUpdateCluster
        | Method::LighterTagResource
        | Method::LighterUntagResource
        | Method::LighterListTagsForResource
        | Method::LighterPutAttributes
        | Method::LighterListAttributes
        | Method::LighterStreamClusterState
        | Method::LighterDeleteCluster
        | Method::LighterDeregisterContainerInstance
        | Method::LighterDeleteAttributes => call_on_cluster(world, people, method).await,
        Method::LighterCreateService
        | Method::LighterUpdateService
        | Method::LighterDeleteService
        | Method::LighterDescribeServices
        | Method::LighterListServices
        | Method::LighterControlDeployment
        | Method::LighterUpdateTaskProtection
        | Method::LighterGetTaskProtection
        | Method::LighterWatchEndpoints => call_on_service(world, people, method).await,
        Method::NodeJoin => {
            let token = world.running.handle.create_join_token().await.unwrap();
            let (certificate_request_pem, _) = certificate_request();
            code(node.join(v1::JoinRequest { token, certificate_request_pem, ..Default::default() }).await)
        }
        Method::NodeRenewCertificate => {
            let (certificate_request_pem, _) = certificate_request();
            code(node.renew_certificate(v1::RenewCertificateRequest { certificate_request_pem }).await)
        }
        Method::NodeSession => session_about(world, &mut node).await,
        Method::NodeSendLogs => {
            let batch = v1::SendLogsRequest { stream_id: "none".to_owned(), ..Default::default() };
            code(node.send_logs(tokio_stream::once(batch)).await)
        }
        Method::NodeStream => {
            let frame = v1::NodeFrame { stream_id: "none".to_owned(), ..Default::default() };
            code(node.stream(tokio_stream::once(frame)).await)
        }
        Method::AgentGetAgentStatus
        | Method::AgentListLocalTasks
        | Method::AgentGetDiskUsage
        | Method::AgentPrune
        | Method::AgentStopTasks
        | Method::AgentSetNotice
        | Method::AgentPullImage
        | Method::AgentListImages
        | Method::AgentInspectImage
        | Method::AgentRemoveImage
        | Method::AgentLoadImage
        | Method::AgentSaveImage
        | Method::AgentStreamPullProgress => bare(channel, method).await,
    }
}

/// The rest of the service for people.
async fn call_more(world: &World, mut people: LighterClient<Channel>, method: Method) -> Code {
    let (task, own) = (world.task.clone(), world.own.id.clone());
    match method {
        Method::LighterListContainerInstances => {
            code(people.list_container_instances(v1::ListContainerInstancesRequest::default()).await)
        }
        Method::LighterDescribeContainerInstances => {
            let container_instances = vec![own];
            let request = v1::DescribeContainerInstancesRequest { container_instances, ..Default::default() };
            code(people.describe_container_instances(request).await)
        }
        Method::LighterUpdateContainerInstancesState => {
            let request = v1::UpdateContainerInstancesStateRequest {
                container_instances: vec![world.own.id.clone()],
                status: v1::ContainerInstanceStatus::Active.into(),
                ..Default::default()
            };
            code(people.update_container_instances_state(request).await)
        }
        Method::LighterCreateJoinToken => {
            code(people.create_join_token(v1::CreateJoinTokenRequest::default()).await)
        }
        Method::LighterStreamTaskLogs => {
            code(people.stream_task_logs(v1::StreamTaskLogsRequest { task, ..Default::default() }).await)
        }
        Method::LighterWatchEvents => code(people.watch_events(v1::WatchEventsRequest::default()).await),
        Method::LighterOrderImages => {
            let order = v1::image_order::Order::List(v1::ImageList {});
            let request = v1::OrderImagesRequest {
                container_instances: vec![own],
                order: Some(v1::ImageOrder { order: Some(order) }),
                ..Default::default()
            };
            code(people.order_images(request).await)
        }
        Method::LighterListOrphans => code(people.list_orphans(v1::ListOrphansRequest::default()).await),
        Method::LighterAdoptOrphan => {
            code(people.adopt_orphan(v1::AdoptOrphanRequest { task, ..Default::default() }).await)
        }
        Method::LighterStopOrphan => {
            code(people.stop_orphan(v1::StopOrphanRequest { task, ..Default::default() }).await)
        }
        Method::LighterSaveSnapshot => code(people.save_snapshot(v1::SaveSnapshotRequest {}).await),
        Method::LighterListAudit => code(people.list_audit(v1::ListAuditRequest::default()).await),
        Method::LighterExec
        | Method::LighterAttach
        | Method::LighterCopy
        | Method::LighterWatchStats
        | Method::LighterPauseTask
        | Method::LighterUnpauseTask
        | Method::LighterUpdateTask => call_on_running(world, people, method).await,
        other => panic!("{other:?} has no call"),
    }
}

/// Clusters, tags, attributes, deletion.
async fn call_on_cluster(world: &World, mut people: LighterClient<Channel>, method: Method) -> Code {
    let (cluster, resource) = ("default".to_owned(), "cluster/default".to_owned());
    let attribute = |name: &str| v1::TargetAttribute {
        container_instance: world.own.id.clone(),
        name: name.to_owned(),
        value: "v".to_owned(),
    };
    match method {
        Method::LighterDeleteTaskDefinitions => {
            let task_definitions = vec!["old:1".to_owned()];
            code(people.delete_task_definitions(v1::DeleteTaskDefinitionsRequest { task_definitions }).await)
        }
        Method::LighterListTaskDefinitionFamilies => {
            code(people.list_task_definition_families(v1::ListTaskDefinitionFamiliesRequest::default()).await)
        }
        Method::LighterCreateCluster => {
            code(people.create_cluster(v1::CreateClusterRequest::default()).await)
        }
        Method::LighterDescribeClusters => {
            code(people.describe_clusters(v1::DescribeClustersRequest::default()).await)
        }
        Method::LighterListClusters => code(people.list_clusters(v1::ListClustersRequest::default()).await),
        Method::LighterUpdateCluster => {
            code(people.update_cluster(v1::UpdateClusterRequest { cluster, ..Default::default() }).await)
        }
        Method::LighterDeleteCluster => {
            code(people.delete_cluster(v1::DeleteClusterRequest { cluster }).await)
        }
        Method::LighterTagResource => {
            code(people.tag_resource(v1::TagResourceRequest { resource, tags: Vec::new() }).await)
        }
        Method::LighterUntagResource => {
            code(people.untag_resource(v1::UntagResourceRequest { resource, tag_keys: Vec::new() }).await)
        }
        Method::LighterListTagsForResource => {
            code(people.list_tags_for_resource(v1::ListTagsForResourceRequest { resource }).await)
        }
        Method::LighterPutAttributes => {
            let attributes = vec![attribute("rack")];
            code(people.put_attributes(v1::PutAttributesRequest { cluster, attributes }).await)
        }
        Method::LighterDeleteAttributes => {
            let attributes = vec![attribute("nobody-set-this")];
            code(people.delete_attributes(v1::DeleteAttributesRequest { cluster, attributes }).await)
        }
        Method::LighterListAttributes => {
            code(people.list_attributes(v1::ListAttributesRequest::default()).await)
        }
        Method::LighterDeregisterContainerInstance => {
            let (container_instance, force) = (world.own.id.clone(), false);
            let request = v1::DeregisterContainerInstanceRequest { cluster, container_instance, force };
            code(people.deregister_container_instance(request).await)
        }
        Method::LighterStreamClusterState => {
            code(people.stream_cluster_state(v1::StreamClusterStateRequest { cluster }).await)
        }
        other => panic!("{other:?} has no call"),
    }
}

/// Services and protection.
async fn call_on_service(world: &World, mut people: LighterClient<Channel>, method: Method) -> Code {
    let (service, tasks) = ("web".to_owned(), vec![world.task.clone()]);
    let gone = "gone".to_owned();
    match method {
        Method::LighterCreateService => {
            let json = r#"{"serviceName":"new","taskDefinition":"web:1","desiredCount":0}"#.to_owned();
            code(people.create_service(v1::CreateServiceRequest { json }).await)
        }
        Method::LighterUpdateService => {
            let json = r#"{"service":"web","desiredCount":0}"#.to_owned();
            code(people.update_service(v1::UpdateServiceRequest { json, expected_version: 0 }).await)
        }
        Method::LighterDeleteService => code(
            people.delete_service(v1::DeleteServiceRequest { service: gone, ..Default::default() }).await,
        ),
        Method::LighterDescribeServices => {
            let request = v1::DescribeServicesRequest { services: vec![service], ..Default::default() };
            code(people.describe_services(request).await)
        }
        Method::LighterListServices => code(people.list_services(v1::ListServicesRequest::default()).await),
        Method::LighterControlDeployment => {
            let action = v1::DeploymentAction::Pause.into();
            let request = v1::ControlDeploymentRequest { service, action, ..Default::default() };
            code(people.control_deployment(request).await)
        }
        Method::LighterWatchEndpoints => {
            code(people.watch_endpoints(v1::WatchEndpointsRequest { service, ..Default::default() }).await)
        }
        Method::LighterUpdateTaskProtection => {
            let request = v1::UpdateTaskProtectionRequest { tasks, ..Default::default() };
            code(people.update_task_protection(request).await)
        }
        Method::LighterGetTaskProtection => {
            let request = v1::GetTaskProtectionRequest { tasks, ..Default::default() };
            code(people.get_task_protection(request).await)
        }
        other => panic!("{other:?} has no call"),
    }
}

/// What is done to a running task.
async fn call_on_running(world: &World, mut people: LighterClient<Channel>, method: Method) -> Code {
    // StopTask has come before: another task is needed.
    let (task, cluster) = (world.spare_task.clone(), String::new());
    let target = Some(v1::StreamTarget { task: task.clone(), ..Default::default() });
    match method {
        Method::LighterExec => {
            let order = Some(v1::ExecOrder { command: vec!["sh".to_owned()], ..Default::default() });
            let start = v1::exec_request::Message::Start(v1::ExecStart { target, order });
            code(people.exec(tokio_stream::once(v1::ExecRequest { message: Some(start) })).await)
        }
        Method::LighterAttach => {
            let start = v1::attach_request::Message::Start(v1::AttachStart { target, order: None });
            code(people.attach(tokio_stream::once(v1::AttachRequest { message: Some(start) })).await)
        }
        Method::LighterCopy => {
            let order = Some(v1::copy_start::Order::CopyOut(v1::CopyOutOrder::default()));
            let start = v1::copy_request::Message::Start(v1::CopyStart { target, order });
            code(people.copy(tokio_stream::once(v1::CopyRequest { message: Some(start) })).await)
        }
        Method::LighterWatchStats => {
            code(people.watch_stats(v1::WatchStatsRequest { task, ..Default::default() }).await)
        }
        Method::LighterPauseTask => code(people.pause_task(v1::PauseTaskRequest { cluster, task }).await),
        Method::LighterUnpauseTask => {
            code(people.unpause_task(v1::UnpauseTaskRequest { cluster, task }).await)
        }
        Method::LighterUpdateTask => {
            let request = v1::UpdateTaskRequest { task, memory_mib: Some(7), ..Default::default() };
            code(people.update_task(request).await)
        }
        other => panic!("{other:?} has no call"),
    }
}

/// A session that reports on the task of `own`.
async fn session_about(world: &World, client: &mut NodeClient<Channel>) -> Code {
    use v1::control_message::Message as FromControl;
    use v1::node_message::Message as FromNode;
    let task_reports = v1::TaskReports { reports: vec![report(&world.task, 1, v1::TaskStatus::Running)] };
    let said = [FromNode::Hello(world.own.hello()), FromNode::TaskReports(task_reports)];
    let (out, messages) = tokio::sync::mpsc::channel(4);
    for message in said {
        out.send(v1::NodeMessage { message: Some(message) }).await.unwrap();
    }
    let stream = client.session(tokio_stream::wrappers::ReceiverStream::new(messages)).await;
    let mut answers = match stream {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status.code(),
    };
    loop {
        match answers.message().await {
            Err(status) => return status.code(),
            Ok(None) => panic!("the session ended without a word"),
            Ok(Some(message)) if matches!(message.message, Some(FromControl::ReportsApplied(_))) => {
                return Fine;
            }
            Ok(Some(_)) => {}
        }
    }
}

/// Two nodes, of which only the first has room for tasks, and one task there.
async fn world() -> (World, FakeNode) {
    let running = start().await;
    let mut admin = running.admin().await;
    let own = joined(&running, "own").await;
    let mut other = joined(&running, "other").await;
    other.resources = v1::Resources::default();
    drop(own.connect(&running).await.unwrap());
    drop(other.connect(&running).await.unwrap());
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    register(&mut admin, &definition_json("old", 1, 6, None)).await;
    let ran = admin.run_task(run_request("web", 2)).await.unwrap().into_inner();
    assert_eq!(ran.tasks[0].container_instance_id, own.id);
    let task = ran.tasks[0].task_id.clone();
    let spare_task = ran.tasks[1].task_id.clone();
    for name in ["web", "gone"] {
        let json = format!(r#"{{"serviceName":"{name}","taskDefinition":"web:1","desiredCount":0}}"#);
        admin.create_service(v1::CreateServiceRequest { json }).await.unwrap();
    }
    crate::support::until("the deployment has ended", async || {
        let request = v1::DescribeServicesRequest { services: vec!["web".into()], ..Default::default() };
        let services = admin.clone().describe_services(request).await.unwrap().into_inner().services;
        services[0].deployments[0].rollout_state() == v1::RolloutState::Completed
    })
    .await;
    // The first sessions are to be gone, so that the log row finds no session.
    let logs = v1::StreamTaskLogsRequest { task: task.clone(), ..Default::default() };
    crate::support::until("the session has ended", async || {
        let answer = admin.clone().stream_task_logs(logs.clone()).await;
        answer.err().is_some_and(|status| reason(&status) == "NODE_NOT_CONNECTED")
    })
    .await;
    (World { running, own, task, spare_task }, other)
}

#[tokio::test]
async fn every_method_answers_every_kind_of_caller_as_the_table_says() {
    let (world, other) = world().await;
    let running = &world.running;
    let callers = [
        ("anonymous", running.tls(None).await),
        ("user", running.admin_tls().await),
        ("own node", running.tls(Some((&world.own.certificate, &world.own.key))).await),
        ("other node", running.tls(Some((&other.certificate, &other.key))).await),
    ];
    let mut wrong = Vec::new();
    // Sessions come last: with one open, the log row would wait for the node.
    let (sessions, others): (Vec<Method>, Vec<Method>) =
        Method::ALL.iter().partition(|method| **method == Method::NodeSession);
    for method in others.into_iter().chain(sessions) {
        for ((who, channel), expected) in callers.iter().zip(expected(method)) {
            let found = call(&world, channel.clone(), method).await;
            if found != expected {
                wrong.push(format!("{method:?} by {who}: {found:?} instead of {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn plaintext_loopback_is_anonymous_and_the_unix_socket_knows_root() {
    let running = start().await;
    let mut plain = LighterClient::new(running.plaintext().await);
    let refused = plain.list_tasks(v1::ListTasksRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Unauthenticated, "UNAUTHENTICATED"));
    running.admin().await.list_tasks(v1::ListTasksRequest::default()).await.unwrap();
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let running = start().await;
    let channel = running.tls(None).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    for service in ["", "lighter.v1.Lighter", "lighter.v1.Node"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
    }
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"lighter.v1.Lighter") && names.contains(&"lighter.v1.Node"), "{names:?}");
}

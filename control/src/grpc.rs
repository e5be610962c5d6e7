//! The gRPC services: each method converts, calls its handler, converts back.
//! In: requests that have passed the permission table. Out: messages, streams, statuses.
//! Never: decides anything; never sees a type of the model.

mod placement;
mod streams;

use crate::api::{
    Context, attribute, audit, cluster, events, images, instance, join, journal, logs, orphan, service,
    snapshot, state, stats, tag, task, task_definition,
};
use crate::convert;
use crate::error::ApiError;
use crate::identity::layer::{address, caller};
use crate::session::link::OUTGOING_DEPTH;
use crate::session::{convert as node_convert, run};
use futures_util::{Stream, StreamExt};
use lighter_proto::v1;
use lighter_proto::v1::lighter_server::Lighter;
use lighter_proto::v1::node_server::Node;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a node's log stream may wait for its first message.
const FIRST_BATCH: std::time::Duration = std::time::Duration::from_secs(10);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Outgoing = Result<v1::ControlMessage, Status>;
type Answer<T> = Result<Response<T>, Status>;

/// The service for people and tools.
pub struct LighterService(pub Context);

/// The service for nodes.
pub struct NodeService(pub Context);

#[tonic::async_trait]
impl Lighter for LighterService {
    async fn register_task_definition(
        &self,
        request: Request<v1::RegisterTaskDefinitionRequest>,
    ) -> Answer<v1::RegisterTaskDefinitionResponse> {
        let (asker, caller) = (convert::asker(request.extensions()), caller(request.extensions()));
        let record = task_definition::register(&self.0, asker, &caller, &request.into_inner().json).await?;
        let task_definition = Some(convert::definition(&record));
        Ok(Response::new(v1::RegisterTaskDefinitionResponse { task_definition }))
    }

    async fn describe_task_definition(
        &self,
        request: Request<v1::DescribeTaskDefinitionRequest>,
    ) -> Answer<v1::DescribeTaskDefinitionResponse> {
        let record = task_definition::describe(&self.0, &request.into_inner().task_definition)?;
        let task_definition = Some(convert::definition(&record));
        Ok(Response::new(v1::DescribeTaskDefinitionResponse { task_definition }))
    }

    async fn list_task_definitions(
        &self,
        request: Request<v1::ListTaskDefinitionsRequest>,
    ) -> Answer<v1::ListTaskDefinitionsResponse> {
        let filter = convert::definition_filter(request.into_inner())?;
        Ok(Response::new(convert::definition_page(task_definition::list(&self.0, &filter)?)))
    }

    async fn deregister_task_definition(
        &self,
        request: Request<v1::DeregisterTaskDefinitionRequest>,
    ) -> Answer<v1::DeregisterTaskDefinitionResponse> {
        let asker = convert::asker(request.extensions());
        let name = request.into_inner().task_definition;
        let record = task_definition::deregister(&self.0, asker, name).await?;
        let task_definition = Some(convert::definition(&record));
        Ok(Response::new(v1::DeregisterTaskDefinitionResponse { task_definition }))
    }

    async fn delete_task_definitions(
        &self,
        request: Request<v1::DeleteTaskDefinitionsRequest>,
    ) -> Answer<v1::DeleteTaskDefinitionsResponse> {
        let asker = convert::asker(request.extensions());
        let names = request.into_inner().task_definitions;
        let deleted = task_definition::delete(&self.0, asker, names).await?;
        Ok(Response::new(convert::deleted_definitions(deleted)))
    }

    async fn list_task_definition_families(
        &self,
        request: Request<v1::ListTaskDefinitionFamiliesRequest>,
    ) -> Answer<v1::ListTaskDefinitionFamiliesResponse> {
        let filter = convert::family_filter(request.into_inner())?;
        Ok(Response::new(convert::family_page(task_definition::families(&self.0, &filter)?)))
    }

    async fn create_cluster(
        &self,
        request: Request<v1::CreateClusterRequest>,
    ) -> Answer<v1::CreateClusterResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::create_cluster(request.into_inner())?;
        let cluster = cluster::create(&self.0, asker, wanted).await?;
        Ok(Response::new(v1::CreateClusterResponse { cluster: Some(convert::cluster(&cluster)) }))
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Answer<v1::UpdateClusterResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::update_cluster(request.into_inner())?;
        let cluster = cluster::update(&self.0, asker, wanted).await?;
        Ok(Response::new(v1::UpdateClusterResponse { cluster: Some(convert::cluster(&cluster)) }))
    }

    async fn delete_cluster(
        &self,
        request: Request<v1::DeleteClusterRequest>,
    ) -> Answer<v1::DeleteClusterResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::delete_cluster(&request.into_inner())?;
        let cluster = cluster::delete(&self.0, asker, wanted).await?;
        Ok(Response::new(v1::DeleteClusterResponse { cluster: Some(convert::cluster(&cluster)) }))
    }

    async fn describe_clusters(
        &self,
        request: Request<v1::DescribeClustersRequest>,
    ) -> Answer<v1::DescribeClustersResponse> {
        let described = cluster::describe(&self.0, request.into_inner().clusters)?;
        Ok(Response::new(convert::described_clusters(described)))
    }

    async fn list_clusters(
        &self,
        request: Request<v1::ListClustersRequest>,
    ) -> Answer<v1::ListClustersResponse> {
        let page = convert::cluster_page_request(request.into_inner());
        Ok(Response::new(convert::cluster_page(cluster::list(&self.0, &page)?)))
    }

    async fn tag_resource(
        &self,
        request: Request<v1::TagResourceRequest>,
    ) -> Answer<v1::TagResourceResponse> {
        let asker = convert::asker(request.extensions());
        tag::tag(&self.0, asker, convert::tag_resource(request.into_inner())?).await?;
        Ok(Response::new(v1::TagResourceResponse {}))
    }

    async fn untag_resource(
        &self,
        request: Request<v1::UntagResourceRequest>,
    ) -> Answer<v1::UntagResourceResponse> {
        let asker = convert::asker(request.extensions());
        tag::untag(&self.0, asker, convert::untag_resource(request.into_inner())).await?;
        Ok(Response::new(v1::UntagResourceResponse {}))
    }

    async fn list_tags_for_resource(
        &self,
        request: Request<v1::ListTagsForResourceRequest>,
    ) -> Answer<v1::ListTagsForResourceResponse> {
        let tags = convert::wire_tags(&tag::list(&self.0, &request.into_inner().resource)?);
        Ok(Response::new(v1::ListTagsForResourceResponse { tags }))
    }

    async fn deregister_container_instance(
        &self,
        request: Request<v1::DeregisterContainerInstanceRequest>,
    ) -> Answer<v1::DeregisterContainerInstanceResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::deregister_instance(request.into_inner())?;
        let now = instance::deregister(&self.0, asker, wanted).await?;
        let container_instance = Some(convert::instance(&now));
        Ok(Response::new(v1::DeregisterContainerInstanceResponse { container_instance }))
    }

    async fn put_attributes(
        &self,
        request: Request<v1::PutAttributesRequest>,
    ) -> Answer<v1::PutAttributesResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::put_attributes(request.into_inner())?;
        let attributes = convert::wire_attributes(attribute::put(&self.0, asker, wanted).await?);
        Ok(Response::new(v1::PutAttributesResponse { attributes }))
    }

    async fn delete_attributes(
        &self,
        request: Request<v1::DeleteAttributesRequest>,
    ) -> Answer<v1::DeleteAttributesResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::delete_attributes(request.into_inner())?;
        let attributes = convert::wire_attributes(attribute::delete(&self.0, asker, wanted).await?);
        Ok(Response::new(v1::DeleteAttributesResponse { attributes }))
    }

    async fn list_attributes(
        &self,
        request: Request<v1::ListAttributesRequest>,
    ) -> Answer<v1::ListAttributesResponse> {
        let filter = convert::attribute_filter(request.into_inner());
        Ok(Response::new(convert::attribute_page(attribute::list(&self.0, &filter)?)))
    }

    type StreamClusterStateStream = Streamed<v1::ClusterStateChunk>;

    async fn stream_cluster_state(
        &self,
        request: Request<v1::StreamClusterStateRequest>,
    ) -> Answer<Self::StreamClusterStateStream> {
        let state = state::state(&self.0, &request.into_inner().cluster)?;
        let chunks = futures_util::stream::iter(convert::state_chunks(state).map(Ok));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn run_task(&self, request: Request<v1::RunTaskRequest>) -> Answer<v1::RunTaskResponse> {
        let asker = convert::asker(request.extensions());
        let (metadata, _, request) = request.into_parts();
        Ok(Response::new(placement::run_task(&self.0, asker, request, &metadata).await?))
    }

    async fn start_task(&self, request: Request<v1::StartTaskRequest>) -> Answer<v1::StartTaskResponse> {
        let asker = convert::asker(request.extensions());
        let (metadata, _, request) = request.into_parts();
        Ok(Response::new(placement::start_task(&self.0, asker, request, &metadata).await?))
    }

    async fn explain_placement(
        &self,
        request: Request<v1::ExplainPlacementRequest>,
    ) -> Answer<v1::ExplainPlacementResponse> {
        let (metadata, _, request) = request.into_parts();
        Ok(Response::new(placement::explain_placement(&self.0, request, &metadata)?))
    }

    async fn test_placement_strategy(
        &self,
        request: Request<v1::TestPlacementStrategyRequest>,
    ) -> Answer<v1::TestPlacementStrategyResponse> {
        Ok(Response::new(placement::test_placement_strategy(&self.0, request.get_ref())?))
    }

    async fn stop_task(&self, request: Request<v1::StopTaskRequest>) -> Answer<v1::StopTaskResponse> {
        let asker = convert::asker(request.extensions());
        let stopped = task::stop(&self.0, asker, convert::stop_task(request.into_inner())?).await?;
        Ok(Response::new(v1::StopTaskResponse { task: Some(convert::task(&stopped)) }))
    }

    async fn list_tasks(&self, request: Request<v1::ListTasksRequest>) -> Answer<v1::ListTasksResponse> {
        let filter = convert::task_filter(request.into_inner())?;
        Ok(Response::new(convert::task_page(task::list(&self.0, &filter)?)))
    }

    async fn describe_tasks(
        &self,
        request: Request<v1::DescribeTasksRequest>,
    ) -> Answer<v1::DescribeTasksResponse> {
        let request = request.into_inner();
        let described = task::describe(&self.0, &request.cluster, &request.tasks)?;
        Ok(Response::new(convert::described_tasks(described)))
    }

    async fn list_task_events(
        &self,
        request: Request<v1::ListTaskEventsRequest>,
    ) -> Answer<v1::ListTaskEventsResponse> {
        let request = request.into_inner();
        let journal = journal::list(&self.0, &request.cluster, &request.task).await?;
        Ok(Response::new(convert::task_journal(journal)))
    }

    async fn list_container_instances(
        &self,
        request: Request<v1::ListContainerInstancesRequest>,
    ) -> Answer<v1::ListContainerInstancesResponse> {
        let filter = convert::instance_filter(request.into_inner())?;
        Ok(Response::new(convert::instance_page(instance::list(&self.0, &filter)?)))
    }

    async fn describe_container_instances(
        &self,
        request: Request<v1::DescribeContainerInstancesRequest>,
    ) -> Answer<v1::DescribeContainerInstancesResponse> {
        let request = request.into_inner();
        let described = instance::describe(&self.0, &request.cluster, &request.container_instances)?;
        Ok(Response::new(convert::described_instances(described)))
    }

    async fn update_container_instances_state(
        &self,
        request: Request<v1::UpdateContainerInstancesStateRequest>,
    ) -> Answer<v1::UpdateContainerInstancesStateResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::update_instances_state(request.into_inner())?;
        let updated = instance::update_state(&self.0, asker, wanted).await?;
        Ok(Response::new(convert::updated_instances(updated)))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Answer<v1::CreateJoinTokenResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::token_request(request.into_inner())?;
        Ok(Response::new(convert::new_token(join::create_token(&self.0, asker, wanted).await?)))
    }

    type StreamTaskLogsStream = Streamed<v1::StreamTaskLogsResponse>;

    async fn stream_task_logs(
        &self,
        request: Request<v1::StreamTaskLogsRequest>,
    ) -> Answer<Self::StreamTaskLogsStream> {
        let asker = convert::asker(request.extensions());
        let logs = logs::open(&self.0, &asker, convert::logs_request(request.into_inner())).await?;
        let stop = self.0.stop.clone();
        let batches = futures_util::stream::unfold(logs, |mut logs| async move {
            let batch = logs.next().await?;
            Some((batch.map(convert::logs).map_err(Status::from), logs))
        });
        Ok(Response::new(Box::pin(batches.take_until(stop.cancelled_owned()))))
    }

    type WatchEventsStream = Streamed<v1::Event>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let events::Watched { incarnation, events } =
            events::watch(&self.0, &convert::watch_request(request.into_inner()))?;
        let events = events.map(move |event| Ok(convert::event(event?.as_ref(), &incarnation)));
        Ok(Response::new(Box::pin(events)))
    }

    type ExecStream = Streamed<v1::StreamOutput>;

    async fn exec(&self, request: Request<Streaming<v1::ExecRequest>>) -> Answer<Self::ExecStream> {
        streams::open(&self.0, request, streams::exec).await
    }

    type AttachStream = Streamed<v1::StreamOutput>;

    async fn attach(&self, request: Request<Streaming<v1::AttachRequest>>) -> Answer<Self::AttachStream> {
        streams::open(&self.0, request, streams::attach).await
    }

    type CopyStream = Streamed<v1::StreamOutput>;

    async fn copy(&self, request: Request<Streaming<v1::CopyRequest>>) -> Answer<Self::CopyStream> {
        streams::open(&self.0, request, streams::copy).await
    }

    type WatchStatsStream = Streamed<v1::StatsSample>;

    async fn watch_stats(&self, request: Request<v1::WatchStatsRequest>) -> Answer<Self::WatchStatsStream> {
        let asker = convert::asker(request.extensions());
        let stats = stats::watch(&self.0, &asker, convert::stats_request(request.into_inner())).await?;
        let samples = futures_util::stream::unfold(stats, |mut stats| async move {
            let sample = stats.next().await?;
            Some((sample.map_err(Status::from), stats))
        });
        Ok(Response::new(Box::pin(samples.take_until(self.0.stop.clone().cancelled_owned()))))
    }

    type OrderImagesStream = Streamed<v1::NodeImageReport>;

    async fn order_images(
        &self,
        request: Request<v1::OrderImagesRequest>,
    ) -> Answer<Self::OrderImagesStream> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::images_request(request.into_inner())?;
        let said = images::order(&self.0, &asker, wanted).await?;
        let said = ReceiverStream::new(said).map(|said| Ok(convert::node_images(said)));
        Ok(Response::new(Box::pin(said)))
    }

    async fn list_orphans(
        &self,
        request: Request<v1::ListOrphansRequest>,
    ) -> Answer<v1::ListOrphansResponse> {
        let v1::ListOrphansRequest { cluster, container_instance } = request.into_inner();
        Ok(Response::new(convert::orphans(orphan::list(&self.0, &cluster, &container_instance)?)))
    }

    async fn adopt_orphan(
        &self,
        request: Request<v1::AdoptOrphanRequest>,
    ) -> Answer<v1::AdoptOrphanResponse> {
        let asker = convert::asker(request.extensions());
        let v1::AdoptOrphanRequest { cluster, task } = request.into_inner();
        let task = orphan::decide(&self.0, asker, &cluster, &task, None).await?;
        Ok(Response::new(v1::AdoptOrphanResponse { task: Some(convert::task(&task)) }))
    }

    async fn stop_orphan(&self, request: Request<v1::StopOrphanRequest>) -> Answer<v1::StopOrphanResponse> {
        let asker = convert::asker(request.extensions());
        let v1::StopOrphanRequest { cluster, task, reason } = request.into_inner();
        let reason = if reason.is_empty() { "Orphan stopped by user".to_owned() } else { reason };
        let task = orphan::decide(&self.0, asker, &cluster, &task, Some(reason)).await?;
        Ok(Response::new(v1::StopOrphanResponse { task: Some(convert::task(&task)) }))
    }

    type SaveSnapshotStream = Streamed<v1::SnapshotChunk>;

    async fn save_snapshot(
        &self,
        _request: Request<v1::SaveSnapshotRequest>,
    ) -> Answer<Self::SaveSnapshotStream> {
        let file = snapshot::save(&self.0).await?;
        let chunks: Vec<_> = file.chunks(snapshot::CHUNK_BYTES).map(<[u8]>::to_vec).collect();
        let chunks = futures_util::stream::iter(chunks).map(|data| Ok(v1::SnapshotChunk { data }));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn pause_task(&self, request: Request<v1::PauseTaskRequest>) -> Answer<v1::PauseTaskResponse> {
        let asker = convert::asker(request.extensions());
        let v1::PauseTaskRequest { cluster, task } = request.into_inner();
        let paused = task::pause(&self.0, convert::pause_task(asker, &cluster, task, true)?).await?;
        Ok(Response::new(v1::PauseTaskResponse { task: Some(convert::task(&paused)) }))
    }

    async fn unpause_task(
        &self,
        request: Request<v1::UnpauseTaskRequest>,
    ) -> Answer<v1::UnpauseTaskResponse> {
        let asker = convert::asker(request.extensions());
        let v1::UnpauseTaskRequest { cluster, task } = request.into_inner();
        let goes_on = task::pause(&self.0, convert::pause_task(asker, &cluster, task, false)?).await?;
        Ok(Response::new(v1::UnpauseTaskResponse { task: Some(convert::task(&goes_on)) }))
    }

    async fn update_task(&self, request: Request<v1::UpdateTaskRequest>) -> Answer<v1::UpdateTaskResponse> {
        let asker = convert::asker(request.extensions());
        let updated = task::update(&self.0, convert::update_task(asker, request.into_inner())?).await?;
        Ok(Response::new(v1::UpdateTaskResponse { task: Some(convert::task(&updated)) }))
    }

    async fn create_service(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Answer<v1::CreateServiceResponse> {
        let asker = convert::asker(request.extensions());
        let made = service::create(&self.0, asker, &request.into_inner().json).await?;
        let service = Some(convert::service::described_service(&made));
        Ok(Response::new(v1::CreateServiceResponse { service }))
    }

    async fn update_service(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Answer<v1::UpdateServiceResponse> {
        let asker = convert::asker(request.extensions());
        let v1::UpdateServiceRequest { json, expected_version } = request.into_inner();
        let updated = service::update(&self.0, asker, &json, expected_version).await?;
        let service = Some(convert::service::described_service(&updated));
        Ok(Response::new(v1::UpdateServiceResponse { service }))
    }

    async fn delete_service(
        &self,
        request: Request<v1::DeleteServiceRequest>,
    ) -> Answer<v1::DeleteServiceResponse> {
        let asker = convert::asker(request.extensions());
        let v1::DeleteServiceRequest { cluster, service, force } = request.into_inner();
        let deleted = service::delete(&self.0, asker, &cluster, service, force).await?;
        let service = Some(convert::service::described_service(&deleted));
        Ok(Response::new(v1::DeleteServiceResponse { service }))
    }

    async fn describe_services(
        &self,
        request: Request<v1::DescribeServicesRequest>,
    ) -> Answer<v1::DescribeServicesResponse> {
        let v1::DescribeServicesRequest { cluster, services } = request.into_inner();
        let described = service::describe(&self.0, &cluster, &services)?;
        Ok(Response::new(convert::service::described_services(described)))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Answer<v1::ListServicesResponse> {
        let filter = convert::service::filter(request.into_inner());
        Ok(Response::new(convert::service::service_page(service::list(&self.0, &filter)?)))
    }

    async fn control_deployment(
        &self,
        request: Request<v1::ControlDeploymentRequest>,
    ) -> Answer<v1::ControlDeploymentResponse> {
        let asker = convert::asker(request.extensions());
        let request = request.into_inner();
        let action = convert::service::action(request.action())?;
        let done = service::control(&self.0, asker, &request.cluster, request.service, action).await?;
        let service = Some(convert::service::described_service(&done));
        Ok(Response::new(v1::ControlDeploymentResponse { service }))
    }

    async fn update_task_protection(
        &self,
        request: Request<v1::UpdateTaskProtectionRequest>,
    ) -> Answer<v1::UpdateTaskProtectionResponse> {
        let asker = convert::asker(request.extensions());
        let wanted = convert::service::update_protection(request.into_inner())?;
        let done = service::protect(&self.0, asker, wanted).await?;
        Ok(Response::new(convert::service::updated_protection(done)))
    }

    async fn get_task_protection(
        &self,
        request: Request<v1::GetTaskProtectionRequest>,
    ) -> Answer<v1::GetTaskProtectionResponse> {
        let v1::GetTaskProtectionRequest { cluster, tasks } = request.into_inner();
        let found = service::protection_of(&self.0, &cluster, &tasks)?;
        Ok(Response::new(convert::service::protection(found)))
    }

    type WatchEndpointsStream = Streamed<v1::Endpoints>;

    async fn watch_endpoints(
        &self,
        request: Request<v1::WatchEndpointsRequest>,
    ) -> Answer<Self::WatchEndpointsStream> {
        let v1::WatchEndpointsRequest { cluster, service, container, container_port } = request.into_inner();
        let lists = service::watch_endpoints(&self.0, &cluster, &service, &container, container_port)?;
        let lists = lists.map(|list| list.map(convert::service::endpoints).map_err(Status::from));
        Ok(Response::new(Box::pin(lists)))
    }

    async fn list_audit(&self, request: Request<v1::ListAuditRequest>) -> Answer<v1::ListAuditResponse> {
        let page = audit::list(&self.0, &convert::audit_filter(request.into_inner()))?;
        Ok(Response::new(convert::audit_page(page)))
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Answer<v1::JoinResponse> {
        let address = address(request.extensions());
        let v1::JoinRequest { token, certificate_request_pem, name } = request.into_inner();
        let joined = join::join(&self.0, address, &token, &certificate_request_pem, name).await?;
        Ok(Response::new(convert::joined(joined)))
    }

    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Answer<v1::RenewCertificateResponse> {
        let me = convert::identity(request.extensions())?;
        let certificate_pem = join::renew(&self.0, &me, &request.into_inner().certificate_request_pem)?;
        Ok(Response::new(v1::RenewCertificateResponse { certificate_pem }))
    }

    type SessionStream =
        futures_util::stream::Map<ReceiverStream<node_convert::Sent>, fn(node_convert::Sent) -> Outgoing>;

    async fn session(&self, request: Request<Streaming<v1::NodeMessage>>) -> Answer<Self::SessionStream> {
        let me = convert::identity(request.extensions())?;
        let incoming = request.into_inner().map(|message| match message {
            Ok(message) => node_convert::node_said(message),
            Err(status) => Err(ApiError::ProtocolViolation { message: status.to_string() }),
        });
        let (out, answers) = mpsc::channel(OUTGOING_DEPTH);
        // The answer begins at once, so that an agent may wait for it before its hello.
        tokio::spawn(run::serve(self.0.clone(), me, incoming, out));
        let unboxed: fn(node_convert::Sent) -> Outgoing = |sent| sent.map(|message| *message);
        Ok(Response::new(ReceiverStream::new(answers).map(unboxed)))
    }

    type StreamStream = Streamed<v1::ControlFrame>;

    async fn stream(&self, request: Request<Streaming<v1::NodeFrame>>) -> Answer<Self::StreamStream> {
        streams::answered(&self.0, request).await
    }

    async fn send_logs(
        &self,
        request: Request<Streaming<v1::SendLogsRequest>>,
    ) -> Answer<v1::SendLogsResponse> {
        let me = convert::identity(request.extensions())?;
        let mut batches = request.into_inner();
        let first = tokio::time::timeout(FIRST_BATCH, batches.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the first message did not come"))??;
        let missing = || ApiError::ProtocolViolation { message: "no first message".to_owned() };
        let mut batch = first.ok_or_else(missing)?;
        let reader = self.0.logs.take(&batch.stream_id, &me.id)?;
        loop {
            let (last, ended) = (!batch.error.is_empty(), batch.ended);
            let item = match last {
                false => Ok(Some(batch.lines)),
                true => Err(ApiError::LogsUnreadable { message: batch.error }),
            };
            // A reader that is gone ends the stream; a slow one slows the node down.
            if reader.send(item).await.is_err() || last {
                break;
            }
            if ended {
                let _ = reader.send(Ok(None)).await;
                break;
            }
            tokio::select! {
                () = reader.closed() => break,
                // Without its word for the end, the reader knows that the node has gone away.
                next = batches.message() => match next? {
                    Some(next) => batch = next,
                    None => break,
                },
            }
        }
        Ok(Response::new(v1::SendLogsResponse {}))
    }
}

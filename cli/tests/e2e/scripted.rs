//! A control plane that plays a script: what `lighter run --wait` and its like meet with nodes, here
//! without any. In: the steps of a task's life. Out: the answers of the user-facing service.

use lighter_proto::v1::lighter_server::{Lighter, LighterServer};
use lighter_proto::v1::stream_output::Output;
use lighter_proto::v1::{self, event::Subject};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What the server knows and what it was asked.
#[derive(Default)]
pub struct State {
    pub task: v1::Task,
    /// Reasons of StopTask calls.
    pub stops: Vec<String>,
    /// Calls of these methods answer UNAVAILABLE so many times.
    pub describe_fails: u32,
    pub log_lines: Vec<v1::LogLine>,
    /// So many streams of logs break off after their lines.
    pub log_breaks: u32,
    /// So many streams of logs stay open after their lines.
    pub log_holds: u32,
    /// Those that do.
    log_held: Vec<Sender<Result<v1::StreamTaskLogsResponse, Status>>>,
    /// How every watch of events was asked for.
    pub event_requests: Vec<v1::WatchEventsRequest>,
    /// Who is in the cluster.
    pub nodes: Vec<v1::ContainerInstance>,
    /// What a watch of counters is told; then it stays open.
    pub samples: Vec<v1::StatsSample>,
    samples_held: Vec<Sender<Result<v1::StatsSample, Status>>>,
    /// What was asked for.
    pub log_requests: Vec<v1::StreamTaskLogsRequest>,
}

/// A scripted control plane on a Unix socket.
pub struct Scripted {
    pub state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::Task>,
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

/// Of every event.
pub const SEQUENCE: u64 = 7;
pub const INCARNATION: &str = "the-script";

pub const ID: &str = "0123456789abcdef0123456789abcdef";

impl Scripted {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (events, _) = broadcast::channel(64);
        let service = Service { state: state.clone(), events: events.clone() };
        let _in_runtime = runtime.enter();
        let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(LighterServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        drop(_in_runtime);
        Self { state, events, folder, _runtime: runtime }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many commands watch events.
    pub fn watchers(&self) -> usize {
        self.events.receiver_count()
    }

    /// Changes the task and tells the watchers.
    pub fn change(&self, change: impl FnOnce(&mut v1::Task)) {
        let task = self.quietly(change);
        // Nobody may be watching.
        let _ = self.events.send(task);
    }

    /// Changes the task and tells nobody.
    pub fn quietly(&self, change: impl FnOnce(&mut v1::Task)) -> v1::Task {
        let mut state = self.state.lock().unwrap();
        state.task.version += 1;
        change(&mut state.task);
        state.task.clone()
    }

    /// The task has stopped; its only container with this exit.
    pub fn stop(&self, stop_code: v1::StopCode, reason: &str, exit_code: Option<i32>) {
        self.change(|task| {
            task.last_status = v1::TaskStatus::Stopped as i32;
            task.stop_code = stop_code as i32;
            task.stopped_reason = reason.to_owned();
            task.containers =
                vec![v1::Container { name: "web".into(), essential: true, exit_code, ..Default::default() }];
        });
    }
}

struct Service {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::Task>,
}

fn frame(output: Output) -> v1::StreamOutput {
    v1::StreamOutput { output: Some(output) }
}

type Answer<T> = Result<Response<T>, Status>;

fn not_scripted<T>() -> Answer<T> {
    Err(Status::unimplemented("not in the script"))
}

#[tonic::async_trait]
impl Lighter for Service {
    async fn run_task(&self, request: Request<v1::RunTaskRequest>) -> Answer<v1::RunTaskResponse> {
        let mut state = self.state.lock().unwrap();
        state.task = v1::Task {
            task_id: ID.into(),
            task_definition: request.into_inner().task_definition,
            last_status: v1::TaskStatus::Pending as i32,
            desired_status: v1::DesiredStatus::Running as i32,
            waiting_reason: "pulling r/nginx:1".into(),
            version: 1,
            ..Default::default()
        };
        Ok(Response::new(v1::RunTaskResponse { tasks: vec![state.task.clone()], ..Default::default() }))
    }

    async fn stop_task(&self, request: Request<v1::StopTaskRequest>) -> Answer<v1::StopTaskResponse> {
        let mut state = self.state.lock().unwrap();
        state.stops.push(request.into_inner().reason);
        state.task.version += 1;
        state.task.desired_status = v1::DesiredStatus::Stopped as i32;
        Ok(Response::new(v1::StopTaskResponse { task: Some(state.task.clone()) }))
    }

    async fn describe_tasks(
        &self,
        _: Request<v1::DescribeTasksRequest>,
    ) -> Answer<v1::DescribeTasksResponse> {
        let mut state = self.state.lock().unwrap();
        if state.describe_fails > 0 {
            state.describe_fails -= 1;
            return Err(Status::unavailable("the script says so"));
        }
        let tasks = if state.task.task_id.is_empty() { Vec::new() } else { vec![state.task.clone()] };
        Ok(Response::new(v1::DescribeTasksResponse { tasks, failures: Vec::new() }))
    }

    type WatchEventsStream = ReceiverStream<Result<v1::Event, Status>>;
    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let mut changes = self.events.subscribe();
        tokio::spawn(async move {
            while let Ok(task) = changes.recv().await {
                let subject = Some(Subject::TaskStateChange(v1::TaskStateChange { task: Some(task) }));
                let (sequence, incarnation) = (SEQUENCE, INCARNATION.to_owned());
                let event = v1::Event { sequence, incarnation, subject, ..Default::default() };
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        // After the subscription: who sees the request may count on the events.
        self.state.lock().unwrap().event_requests.push(request.into_inner());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type StreamTaskLogsStream = ReceiverStream<Result<v1::StreamTaskLogsResponse, Status>>;
    async fn stream_task_logs(
        &self,
        request: Request<v1::StreamTaskLogsRequest>,
    ) -> Answer<Self::StreamTaskLogsStream> {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let mut state = self.state.lock().unwrap();
        state.log_requests.push(request.into_inner());
        let lines = state.log_lines.clone();
        sender.try_send(Ok(v1::StreamTaskLogsResponse { lines })).unwrap();
        if state.log_breaks > 0 {
            state.log_breaks -= 1;
            sender.try_send(Err(Status::unavailable("the node is away"))).unwrap();
        } else if state.log_holds > 0 {
            state.log_holds -= 1;
            state.log_held.push(sender);
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type OrderImagesStream = tokio_stream::Pending<Result<v1::NodeImageReport, Status>>;
    async fn order_images(&self, _: Request<v1::OrderImagesRequest>) -> Answer<Self::OrderImagesStream> {
        not_scripted()
    }
    async fn register_task_definition(
        &self,
        _: Request<v1::RegisterTaskDefinitionRequest>,
    ) -> Answer<v1::RegisterTaskDefinitionResponse> {
        not_scripted()
    }
    async fn describe_task_definition(
        &self,
        _: Request<v1::DescribeTaskDefinitionRequest>,
    ) -> Answer<v1::DescribeTaskDefinitionResponse> {
        not_scripted()
    }
    async fn list_task_definitions(
        &self,
        _: Request<v1::ListTaskDefinitionsRequest>,
    ) -> Answer<v1::ListTaskDefinitionsResponse> {
        not_scripted()
    }
    async fn deregister_task_definition(
        &self,
        _: Request<v1::DeregisterTaskDefinitionRequest>,
    ) -> Answer<v1::DeregisterTaskDefinitionResponse> {
        not_scripted()
    }
    async fn list_tasks(&self, _: Request<v1::ListTasksRequest>) -> Answer<v1::ListTasksResponse> {
        not_scripted()
    }
    async fn list_task_events(
        &self,
        _: Request<v1::ListTaskEventsRequest>,
    ) -> Answer<v1::ListTaskEventsResponse> {
        not_scripted()
    }
    async fn list_container_instances(
        &self,
        _: Request<v1::ListContainerInstancesRequest>,
    ) -> Answer<v1::ListContainerInstancesResponse> {
        let nodes = &self.state.lock().unwrap().nodes;
        let container_instance_ids = nodes.iter().map(|node| node.container_instance_id.clone()).collect();
        Ok(Response::new(v1::ListContainerInstancesResponse { container_instance_ids, ..Default::default() }))
    }
    async fn describe_container_instances(
        &self,
        _: Request<v1::DescribeContainerInstancesRequest>,
    ) -> Answer<v1::DescribeContainerInstancesResponse> {
        let container_instances = self.state.lock().unwrap().nodes.clone();
        Ok(Response::new(v1::DescribeContainerInstancesResponse {
            container_instances,
            failures: Vec::new(),
        }))
    }
    async fn update_container_instances_state(
        &self,
        _: Request<v1::UpdateContainerInstancesStateRequest>,
    ) -> Answer<v1::UpdateContainerInstancesStateResponse> {
        not_scripted()
    }
    async fn create_join_token(
        &self,
        _: Request<v1::CreateJoinTokenRequest>,
    ) -> Answer<v1::CreateJoinTokenResponse> {
        not_scripted()
    }

    type ExecStream = ReceiverStream<Result<v1::StreamOutput, Status>>;
    /// A terminal that says what it was told: sizes and keys; `q` ends it with 7.
    async fn exec(&self, request: Request<Streaming<v1::ExecRequest>>) -> Answer<Self::ExecStream> {
        use v1::exec_request::Message;
        use v1::stream_input::Input;
        let mut messages = request.into_inner();
        let Some(Message::Start(start)) = messages.message().await?.unwrap().message else {
            return Err(Status::invalid_argument("no start"));
        };
        let order = start.order.unwrap();
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let say = |text: String| Ok(frame(Output::Stdout(text.into_bytes())));
        sender.send(Ok(frame(Output::Started(v1::StreamStarted::default())))).await.unwrap();
        let began = match &order.terminal {
            Some(size) => format!("began {}x{}\r\n", size.rows, size.columns),
            None => "began\r\n".to_owned(),
        };
        sender.send(say(began)).await.unwrap();
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                let Some(Message::Input(input)) = message.message else { return };
                let (text, end) = match input.input {
                    Some(Input::Data(data)) => (format!("got {data:?}\r\n"), data.contains(&b'q')),
                    Some(Input::Resize(size)) => (format!("size {}x{}\r\n", size.rows, size.columns), false),
                    Some(Input::Signal(signal)) => (format!("signal {signal}\r\n"), false),
                    Some(Input::DataEnd(_)) | None => ("end\r\n".to_owned(), true),
                };
                let _ = sender.send(say(text)).await;
                if end {
                    let result = Some(v1::stream_ended::Result::Exited(7));
                    let _ = sender.send(Ok(frame(Output::Ended(v1::StreamEnded { result })))).await;
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type AttachStream = ReceiverStream<Result<v1::StreamOutput, Status>>;
    async fn attach(&self, _: Request<Streaming<v1::AttachRequest>>) -> Answer<Self::AttachStream> {
        not_scripted()
    }

    type CopyStream = ReceiverStream<Result<v1::StreamOutput, Status>>;
    async fn copy(&self, _: Request<Streaming<v1::CopyRequest>>) -> Answer<Self::CopyStream> {
        not_scripted()
    }

    type WatchStatsStream = ReceiverStream<Result<v1::StatsSample, Status>>;
    async fn watch_stats(&self, _: Request<v1::WatchStatsRequest>) -> Answer<Self::WatchStatsStream> {
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let mut state = self.state.lock().unwrap();
        for sample in state.samples.clone() {
            sender.try_send(Ok(sample)).unwrap();
        }
        state.samples_held.push(sender);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_orphans(&self, _: Request<v1::ListOrphansRequest>) -> Answer<v1::ListOrphansResponse> {
        not_scripted()
    }
    async fn adopt_orphan(&self, _: Request<v1::AdoptOrphanRequest>) -> Answer<v1::AdoptOrphanResponse> {
        not_scripted()
    }
    async fn stop_orphan(&self, _: Request<v1::StopOrphanRequest>) -> Answer<v1::StopOrphanResponse> {
        not_scripted()
    }
    type SaveSnapshotStream = tokio_stream::Pending<Result<v1::SnapshotChunk, Status>>;
    async fn save_snapshot(&self, _: Request<v1::SaveSnapshotRequest>) -> Answer<Self::SaveSnapshotStream> {
        not_scripted()
    }
    async fn pause_task(&self, _: Request<v1::PauseTaskRequest>) -> Answer<v1::PauseTaskResponse> {
        not_scripted()
    }
    async fn unpause_task(&self, _: Request<v1::UnpauseTaskRequest>) -> Answer<v1::UnpauseTaskResponse> {
        not_scripted()
    }
    async fn start_task(&self, _: Request<v1::StartTaskRequest>) -> Answer<v1::StartTaskResponse> {
        not_scripted()
    }

    async fn explain_placement(
        &self,
        _: Request<v1::ExplainPlacementRequest>,
    ) -> Answer<v1::ExplainPlacementResponse> {
        not_scripted()
    }

    async fn test_placement_strategy(
        &self,
        _: Request<v1::TestPlacementStrategyRequest>,
    ) -> Answer<v1::TestPlacementStrategyResponse> {
        not_scripted()
    }

    async fn update_task(&self, _: Request<v1::UpdateTaskRequest>) -> Answer<v1::UpdateTaskResponse> {
        not_scripted()
    }
    async fn create_service(
        &self,
        _: Request<v1::CreateServiceRequest>,
    ) -> Answer<v1::CreateServiceResponse> {
        not_scripted()
    }
    async fn update_service(
        &self,
        _: Request<v1::UpdateServiceRequest>,
    ) -> Answer<v1::UpdateServiceResponse> {
        not_scripted()
    }
    async fn delete_service(
        &self,
        _: Request<v1::DeleteServiceRequest>,
    ) -> Answer<v1::DeleteServiceResponse> {
        not_scripted()
    }
    async fn describe_services(
        &self,
        _: Request<v1::DescribeServicesRequest>,
    ) -> Answer<v1::DescribeServicesResponse> {
        not_scripted()
    }
    async fn list_services(&self, _: Request<v1::ListServicesRequest>) -> Answer<v1::ListServicesResponse> {
        not_scripted()
    }
    async fn control_deployment(
        &self,
        _: Request<v1::ControlDeploymentRequest>,
    ) -> Answer<v1::ControlDeploymentResponse> {
        not_scripted()
    }
    async fn update_task_protection(
        &self,
        _: Request<v1::UpdateTaskProtectionRequest>,
    ) -> Answer<v1::UpdateTaskProtectionResponse> {
        not_scripted()
    }
    async fn get_task_protection(
        &self,
        _: Request<v1::GetTaskProtectionRequest>,
    ) -> Answer<v1::GetTaskProtectionResponse> {
        not_scripted()
    }
    type WatchEndpointsStream = tokio_stream::Pending<Result<v1::Endpoints, Status>>;
    async fn watch_endpoints(
        &self,
        _: Request<v1::WatchEndpointsRequest>,
    ) -> Answer<Self::WatchEndpointsStream> {
        not_scripted()
    }
    async fn delete_task_definitions(
        &self,
        _: Request<v1::DeleteTaskDefinitionsRequest>,
    ) -> Answer<v1::DeleteTaskDefinitionsResponse> {
        not_scripted()
    }
    async fn list_task_definition_families(
        &self,
        _: Request<v1::ListTaskDefinitionFamiliesRequest>,
    ) -> Answer<v1::ListTaskDefinitionFamiliesResponse> {
        not_scripted()
    }
    async fn create_cluster(
        &self,
        _: Request<v1::CreateClusterRequest>,
    ) -> Answer<v1::CreateClusterResponse> {
        not_scripted()
    }
    async fn describe_clusters(
        &self,
        _: Request<v1::DescribeClustersRequest>,
    ) -> Answer<v1::DescribeClustersResponse> {
        not_scripted()
    }
    async fn list_clusters(&self, _: Request<v1::ListClustersRequest>) -> Answer<v1::ListClustersResponse> {
        not_scripted()
    }
    async fn update_cluster(
        &self,
        _: Request<v1::UpdateClusterRequest>,
    ) -> Answer<v1::UpdateClusterResponse> {
        not_scripted()
    }
    async fn delete_cluster(
        &self,
        _: Request<v1::DeleteClusterRequest>,
    ) -> Answer<v1::DeleteClusterResponse> {
        not_scripted()
    }
    async fn tag_resource(&self, _: Request<v1::TagResourceRequest>) -> Answer<v1::TagResourceResponse> {
        not_scripted()
    }
    async fn untag_resource(
        &self,
        _: Request<v1::UntagResourceRequest>,
    ) -> Answer<v1::UntagResourceResponse> {
        not_scripted()
    }
    async fn list_tags_for_resource(
        &self,
        _: Request<v1::ListTagsForResourceRequest>,
    ) -> Answer<v1::ListTagsForResourceResponse> {
        not_scripted()
    }
    async fn deregister_container_instance(
        &self,
        _: Request<v1::DeregisterContainerInstanceRequest>,
    ) -> Answer<v1::DeregisterContainerInstanceResponse> {
        not_scripted()
    }
    async fn put_attributes(
        &self,
        _: Request<v1::PutAttributesRequest>,
    ) -> Answer<v1::PutAttributesResponse> {
        not_scripted()
    }
    async fn delete_attributes(
        &self,
        _: Request<v1::DeleteAttributesRequest>,
    ) -> Answer<v1::DeleteAttributesResponse> {
        not_scripted()
    }
    async fn list_attributes(
        &self,
        _: Request<v1::ListAttributesRequest>,
    ) -> Answer<v1::ListAttributesResponse> {
        not_scripted()
    }
    type StreamClusterStateStream = ReceiverStream<Result<v1::ClusterStateChunk, Status>>;
    async fn stream_cluster_state(
        &self,
        _: Request<v1::StreamClusterStateRequest>,
    ) -> Answer<Self::StreamClusterStateStream> {
        not_scripted()
    }
    async fn list_audit(&self, _: Request<v1::ListAuditRequest>) -> Answer<v1::ListAuditResponse> {
        not_scripted()
    }
}

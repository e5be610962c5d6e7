//! A control plane that plays a script: what `lighter run --wait` and its like meet with nodes, here
//! without any. In: the steps of a task's life. Out: the answers of the user-facing service.

use lighter_proto::v1::lighter_server::{Lighter, LighterServer};
use lighter_proto::v1::{self, event::Subject};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

/// What the server knows and what it was asked.
#[derive(Default)]
pub struct State {
    pub task: v1::Task,
    /// Reasons of StopTask calls.
    pub stops: Vec<String>,
    /// Calls of these methods answer UNAVAILABLE so many times.
    pub describe_fails: u32,
    pub log_lines: Vec<v1::LogLine>,
}

/// A scripted control plane on a Unix socket.
pub struct Scripted {
    pub state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::Task>,
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

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
        Ok(Response::new(v1::RunTaskResponse { tasks: vec![state.task.clone()], failures: Vec::new() }))
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
    async fn watch_events(&self, _: Request<v1::WatchEventsRequest>) -> Answer<Self::WatchEventsStream> {
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let mut changes = self.events.subscribe();
        tokio::spawn(async move {
            while let Ok(task) = changes.recv().await {
                let subject = Some(Subject::TaskStateChange(v1::TaskStateChange { task: Some(task) }));
                if sender.send(Ok(v1::Event { subject, ..Default::default() })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type StreamTaskLogsStream = ReceiverStream<Result<v1::StreamTaskLogsResponse, Status>>;
    async fn stream_task_logs(
        &self,
        _: Request<v1::StreamTaskLogsRequest>,
    ) -> Answer<Self::StreamTaskLogsStream> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let lines = self.state.lock().unwrap().log_lines.clone();
        sender.try_send(Ok(v1::StreamTaskLogsResponse { lines })).unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
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
    async fn list_container_instances(
        &self,
        _: Request<v1::ListContainerInstancesRequest>,
    ) -> Answer<v1::ListContainerInstancesResponse> {
        not_scripted()
    }
    async fn describe_container_instances(
        &self,
        _: Request<v1::DescribeContainerInstancesRequest>,
    ) -> Answer<v1::DescribeContainerInstancesResponse> {
        not_scripted()
    }
    async fn create_join_token(
        &self,
        _: Request<v1::CreateJoinTokenRequest>,
    ) -> Answer<v1::CreateJoinTokenResponse> {
        not_scripted()
    }
}

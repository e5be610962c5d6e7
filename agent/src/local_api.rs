//! Local questions, on the Unix socket `<run_dir>/agent.sock` (0600) and nowhere else.
//! In: gRPC calls of lighter.v1.Agent. Out: what this node knows, whatever the control plane knows.
//! Owns: the socket, one tokio task that serves it.
//! Never: changes what a task is to do; that is the control plane's. Only the end of the whole node
//! is an operator's word here (`leave`).

pub(crate) mod images;
mod leave;
pub(crate) mod pulls;
mod usage;

use crate::notice;
use crate::reconcile::{CoreInput, LocalTask};
use crate::self_test::SelfTest;
use crate::session::{SessionStatus, convert};
use crate::store::records::InstanceStanding;
use crate::task::TaskContext;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use lighter_model::node::Notice;
use lighter_proto::v1;
use lighter_proto::v1::agent_server::{Agent, AgentServer};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status, Streaming};

/// What answers need besides the reconciler; cheap to clone.
#[derive(Clone)]
pub(crate) struct LocalApi {
    pub context: Arc<TaskContext>,
    pub container_instance_id: String,
    pub cluster: String,
    pub control_endpoint: String,
    pub offered: lighter_model::resources::Resources,
    pub self_test: watch::Receiver<SelfTest>,
    pub session: watch::Receiver<SessionStatus>,
    pub notices: watch::Receiver<Vec<Notice>>,
}

/// Binds the socket, for root only. A socket file that an earlier agent left is replaced; that there
/// is no living one is known from the store's lock.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the agent leaves.
pub(crate) async fn serve(api: LocalApi, listener: UnixListener) {
    let leaving = api.context.leaving.clone();
    let server = tonic::transport::Server::builder().add_service(AgentServer::new(api));
    let served = server
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), leaving.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(cause = %crate::errors::chain(&error), "the local socket is closed");
    }
}

impl LocalApi {
    async fn standing(&self) -> Result<Option<InstanceStanding>, Status> {
        let (answer, got) = oneshot::channel();
        let leaving = || Status::unavailable("the agent leaves");
        self.context.reconciler.send(CoreInput::Standing { answer }).await.map_err(|_| leaving())?;
        got.await.map_err(|_| leaving())
    }

    pub(crate) async fn tasks(&self) -> Result<Vec<LocalTask>, Status> {
        let (answer, got) = oneshot::channel();
        let leaving = || Status::unavailable("the agent leaves");
        self.context.reconciler.send(CoreInput::LocalTasks { answer }).await.map_err(|_| leaving())?;
        got.await.map_err(|_| leaving())
    }
}

fn failed(what: &str) -> impl FnOnce(crate::errors::Cause) -> Status + '_ {
    move |error| Status::internal(format!("{what}: {}", crate::errors::chain(error.as_ref())))
}

#[tonic::async_trait]
impl Agent for LocalApi {
    async fn get_agent_status(
        &self,
        _: Request<v1::GetAgentStatusRequest>,
    ) -> Result<Response<v1::GetAgentStatusResponse>, Status> {
        let standing = self.standing().await?;
        let notices = self.notices.borrow().iter().map(convert::notice).collect();
        let session = self.session.borrow().clone();
        let probes = self.self_test.borrow().probes.clone();
        let self_test = probes.into_iter().map(|probe| v1::SelfTestResult {
            name: probe.name.to_owned(),
            ok: probe.ok,
            detail: probe.detail,
            mend: probe.mend,
        });
        Ok(Response::new(v1::GetAgentStatusResponse {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            container_instance_id: self.container_instance_id.clone(),
            cluster: self.cluster.clone(),
            control_endpoint: self.control_endpoint.clone(),
            session_connected: session.connected,
            session_error: session.error,
            // The socket is served only after recovery.
            reconciled: true,
            resources: Some(convert::resources(&self.offered)),
            self_test: self_test.collect(),
            instance_status: standing
                .as_ref()
                .map_or(v1::ContainerInstanceStatus::Unspecified, |s| convert::instance_status(s.status))
                .into(),
            instance_status_deadline_unix_ms: standing
                .as_ref()
                .and_then(|standing| i64::try_from(standing.deadline_unix_ms?).ok())
                .unwrap_or_default(),
            instance_status_reason: standing.map(|standing| standing.reason).unwrap_or_default(),
            notices,
        }))
    }

    async fn list_local_tasks(
        &self,
        _: Request<v1::ListLocalTasksRequest>,
    ) -> Result<Response<v1::ListLocalTasksResponse>, Status> {
        let tasks = self.tasks().await?.into_iter();
        let tasks =
            tasks.map(|task| convert::local_task(task, &self.cluster, &self.container_instance_id)).collect();
        Ok(Response::new(v1::ListLocalTasksResponse { tasks }))
    }

    type StopTasksStream = BoxStream<'static, Result<v1::StopTasksProgress, Status>>;

    async fn stop_tasks(
        &self,
        request: Request<v1::StopTasksRequest>,
    ) -> Result<Response<Self::StopTasksStream>, Status> {
        Ok(Response::new(leave::stop_tasks(Arc::new(self.clone()), request.into_inner()).boxed()))
    }

    async fn set_notice(
        &self,
        request: Request<v1::SetNoticeRequest>,
    ) -> Result<Response<v1::SetNoticeResponse>, Status> {
        let run_dir = &self.context.config.run_dir;
        let written = match request.into_inner().notice {
            Some(notice) => {
                let notice = convert::notice_of(notice);
                let notice = notice.map_err(|error| Status::invalid_argument(error.to_string()))?;
                notice::write(run_dir, &notice)
            }
            None => notice::remove(run_dir),
        };
        written.map_err(|error| Status::internal(format!("write the notice: {error}")))?;
        Ok(Response::new(v1::SetNoticeResponse {}))
    }

    async fn get_disk_usage(
        &self,
        _: Request<v1::GetDiskUsageRequest>,
    ) -> Result<Response<v1::GetDiskUsageResponse>, Status> {
        let tasks = self.tasks().await?;
        let rows = usage::rows(&self.context, &tasks).await.map_err(failed("count what is on the disk"))?;
        let rows = rows.into_iter().map(|row| v1::DiskUsageRow {
            kind: row.kind.to_owned(),
            count: row.count,
            in_use: row.in_use,
            bytes: row.bytes,
            reclaimable_bytes: row.reclaimable_bytes,
        });
        Ok(Response::new(v1::GetDiskUsageResponse { rows: rows.collect() }))
    }

    async fn prune(&self, request: Request<v1::PruneRequest>) -> Result<Response<v1::PruneResponse>, Status> {
        let tasks = self.tasks().await?;
        let pruned = usage::prune(&self.context, &tasks, request.into_inner().volumes)
            .await
            .map_err(failed("prune"))?;
        Ok(Response::new(v1::PruneResponse {
            images: pruned.images.images,
            layers: pruned.images.layers,
            volumes: pruned.volumes,
            bytes: pruned.images.bytes + pruned.volume_bytes,
        }))
    }

    type StreamPullProgressStream = BoxStream<'static, Result<v1::PullProgress, Status>>;

    async fn stream_pull_progress(
        &self,
        request: Request<v1::StreamPullProgressRequest>,
    ) -> Result<Response<Self::StreamPullProgressStream>, Status> {
        let text = request.into_inner().task_id;
        let task = convert::task_id(&text).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Some(changes) = self.context.pulls.watch(&task) else {
            return Err(Status::not_found(format!("no image of task {text} is being pulled")));
        };
        // Ends when the task forgets its pulls: the watch's sender is dropped then.
        let steps = WatchStream::new(changes).flat_map(|images| {
            stream::iter(images.into_iter().map(|(image, step)| Ok(convert::pull_progress(&image, &step))))
        });
        Ok(Response::new(steps.boxed()))
    }

    type PullImageStream = images::Streamed<v1::PullImageResponse>;

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        Ok(Response::new(images::pull(self.context.clone(), request.into_inner())?))
    }

    async fn list_images(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        Ok(Response::new(images::list(self).await?))
    }

    async fn inspect_image(
        &self,
        request: Request<v1::InspectImageRequest>,
    ) -> Result<Response<v1::InspectImageResponse>, Status> {
        Ok(Response::new(images::inspect(self, &request.into_inner().image).await?))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::PruneResponse>, Status> {
        Ok(Response::new(images::remove(self, &request.into_inner().image).await?))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<v1::LoadImageRequest>>,
    ) -> Result<Response<v1::LoadImageResponse>, Status> {
        Ok(Response::new(images::load(self, request.into_inner()).await?))
    }

    type SaveImageStream = images::Streamed<v1::SaveImageResponse>;

    async fn save_image(
        &self,
        request: Request<v1::SaveImageRequest>,
    ) -> Result<Response<Self::SaveImageStream>, Status> {
        Ok(Response::new(images::save(self.context.clone(), request.into_inner().image)))
    }
}

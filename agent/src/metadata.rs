//! The task metadata endpoint, version 4, as stock ECS SDKs expect it at 169.254.170.2.
//! In: questions of containers. Out: ECS's JSON, from what task actors have published; only `stats`
//! reads files of the kernel. Owns: the listener's connections, the last stats sample of each
//! container that asks. A container is answered about its own task only: the id in the path cannot be
//! guessed, and the question has to come from the container's address.
//! Source: Amazon ECS Developer Guide, "Task metadata endpoint version 4".
//! Never: asks a shim or the store; answers an address that is not the container's.

pub(crate) mod ids;
pub(crate) mod introspection;
mod json;
mod stats;
mod throttle;

use crate::errors::chain;
use crate::facilities::Probe;
use crate::task::TaskContext;
use crate::telemetry::task_log::Snapshot;
use ids::container_id;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_definition::{ContainerDefinition, NetworkMode};
use lighter_net::METADATA_ADDRESS;
use lighter_telemetry::http::{Answer, Question};
use stats::Samples;
use std::net::IpAddr;
use std::sync::Arc;
use throttle::Throttle;
use tokio::net::TcpListener;

/// Where the agent itself listens; port 80 of the address leads here (ECS's agent has this one too).
pub(crate) const PORT: u16 = 51679;

/// Connections at a time: some for each of the 500 tasks a node may have.
const CONNECTIONS_MAX: usize = 512;

/// The variables by which a container finds the endpoint. Without a network there is none.
pub(crate) fn environment(
    context: &TaskContext,
    task: &TaskId,
    container: &ContainerDefinition,
    mode: NetworkMode,
) -> Vec<String> {
    if !context.config.task_metadata || mode == NetworkMode::None {
        return Vec::new();
    }
    let id = container_id(&context.metadata_key, task, &container.name);
    vec![format!("ECS_CONTAINER_METADATA_URI_V4=http://{METADATA_ADDRESS}/v4/{id}")]
}

/// What a question is answered from.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub context: Arc<TaskContext>,
    pub cluster: String,
    pub container_instance_id: String,
    throttle: Throttle,
    samples: Samples,
}

/// Who asks, once that is proven.
struct Asker {
    snapshot: Snapshot,
    container: ContainerName,
}

impl Endpoint {
    pub(crate) fn new(context: Arc<TaskContext>, cluster: String, container_instance_id: String) -> Self {
        Self {
            context,
            cluster,
            container_instance_id,
            throttle: Throttle::default(),
            samples: Samples::default(),
        }
    }

    /// Serves until the agent leaves. `None`: it does; else what keeps it from it, for the self-test.
    pub(crate) async fn start(&self) -> Option<Probe> {
        if !self.context.config.task_metadata {
            return None;
        }
        match TcpListener::bind((METADATA_ADDRESS, PORT)).await {
            Ok(listener) => {
                let (endpoint, leaving) = (self.clone(), self.context.leaving.clone());
                let handler = move |question| {
                    let endpoint = endpoint.clone();
                    async move { endpoint.answer(question).await }
                };
                // Ends when the agent leaves; nobody waits for it.
                tokio::spawn(lighter_telemetry::http::serve(listener, CONNECTIONS_MAX, handler, leaving));
                None
            }
            Err(error) => Some(Probe {
                name: "task-metadata",
                ok: false,
                detail: format!("{METADATA_ADDRESS}:{PORT} cannot be served: {}", chain(&error)),
                mend: "set task_metadata = false if another agent of this machine serves it".to_owned(),
                vital: false,
            }),
        }
    }

    async fn answer(&self, question: Question) -> Answer {
        if !self.throttle.allows(question.peer.ip()) {
            return Answer::json(429, "\"too many requests: 40 a second, 60 at once\"");
        }
        let Some((id, rest)) = split(&question.path) else {
            return Answer::json(404, "\"404 page not found\"");
        };
        let Some(asker) = self.asker(id, question.peer.ip()) else {
            tracing::debug!(peer = %question.peer, "a question for metadata came with no id of its container");
            return Answer::json(404, "\"no container of this address has this id\"");
        };
        let view = self.view(&asker.snapshot);
        let value = match rest {
            "" => json::container(&view, &asker.container),
            "/task" | "/taskWithTags" => Some(json::task(&view)),
            "/stats" => self.container_stats(&asker.snapshot, &asker.container).await,
            "/task/stats" => Some(self.task_stats(&asker.snapshot).await),
            _ => return Answer::json(404, "\"404 page not found\""),
        };
        match value {
            Some(value) => Answer::json(200, value.to_string()),
            None => Answer::json(500, "\"the container is not there any more\""),
        }
    }

    /// The container whose id this is, when the question comes from it.
    fn asker(&self, id: &str, peer: IpAddr) -> Option<Asker> {
        let (task, container) = self.context.telemetry.container(id)?;
        let snapshot = self.context.telemetry.snapshot(&task)?;
        let mut records = snapshot.record.containers.iter();
        let attachment = records.find(|c| c.name == container).and_then(|c| c.attachment.as_ref());
        let own = match snapshot.definition.network_mode {
            // Local to local: the kernel takes the address asked for the sender's too.
            NetworkMode::Host => peer.is_loopback() || peer == IpAddr::V4(METADATA_ADDRESS),
            NetworkMode::None => false,
            NetworkMode::Bridge => {
                attachment.and_then(|a| a.address).is_some_and(|address| peer == IpAddr::V4(address))
            }
        };
        own.then_some(Asker { snapshot, container })
    }

    fn view<'a>(&'a self, snapshot: &'a Snapshot) -> json::View<'a> {
        json::View {
            cluster: &self.cluster,
            key: &self.context.metadata_key,
            record: &snapshot.record,
            definition: &snapshot.definition,
            id: &snapshot.definition_id,
        }
    }
}

/// `/v4/<id><rest>`.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("/v4/")?;
    let path = path.strip_suffix('/').unwrap_or(path);
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

#[cfg(test)]
mod tests;

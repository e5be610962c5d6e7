//! The state of a cluster as a stream of chunks.
//! In: records at one sequence. Out: chunks of bounded size. Never: mixes two moments.

use super::{cluster, definition, instance, service, task};
use crate::api::state::ClusterState;
use crate::session::convert::CHUNK_BYTES;
use lighter_proto::v1;
use prost::Message;

/// A part of a cluster's state before it is a message.
enum Part {
    Definition(v1::TaskDefinition),
    Instance(v1::ContainerInstance),
    Task(v1::Task),
    Service(v1::Service),
}

impl Part {
    fn bytes(&self) -> usize {
        // With its tag and length.
        8 + match self {
            Self::Definition(part) => part.encoded_len(),
            Self::Instance(part) => part.encoded_len(),
            Self::Task(part) => part.encoded_len(),
            Self::Service(part) => part.encoded_len(),
        }
    }

    fn put(self, chunk: &mut v1::ClusterStateChunk) {
        match self {
            Self::Definition(part) => chunk.task_definitions.push(part),
            Self::Instance(part) => chunk.container_instances.push(part),
            Self::Task(part) => chunk.tasks.push(part),
            Self::Service(part) => chunk.services.push(part),
        }
    }
}

/// The state in chunks of at most `CHUNK_BYTES`, made as they are asked for.
pub fn state_chunks(state: ClusterState) -> impl Iterator<Item = v1::ClusterStateChunk> {
    let ClusterState { sequence, incarnation, cluster: described, definitions, instances, tasks, services } =
        state;
    let definitions = definitions.into_iter().map(|record| Part::Definition(definition(&record)));
    let instances = instances.into_iter().map(|snapshot| Part::Instance(instance(&snapshot)));
    let tasks = tasks.into_iter().map(|record| Part::Task(task(&record)));
    let services = services.into_iter().map(|snapshot| Part::Service(service::service(&snapshot)));
    let mut parts = definitions.chain(instances).chain(tasks).chain(services).peekable();
    let mut first = Some(cluster(&described));
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut chunk = v1::ClusterStateChunk {
            sequence,
            incarnation: incarnation.clone(),
            cluster: first.take(),
            ..Default::default()
        };
        let mut bytes = 16 + chunk.encoded_len();
        // One part alone is never larger: a definition has its own bound.
        while let Some(part) = parts.next_if(|part| bytes + part.bytes() <= CHUNK_BYTES) {
            bytes += part.bytes();
            part.put(&mut chunk);
        }
        done = parts.peek().is_none();
        chunk.last_chunk = done;
        Some(chunk)
    })
}

//! On-demand streams between a person and a node, met by a stream id.
//! In: a person's frames, the node's frames. Out: each to the other. Owns: which streams are open,
//! and how many of them each user and each node has.
//! Never: gives a stream to a node that was not asked; holds more than `FRAMES` frames each way, so
//! that a slow reader slows its own stream down and nothing else.

use super::convert::{StreamInput, StreamOrder, StreamOutput};
use crate::error::ApiError;
use lighter_model::ids::ContainerInstanceId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Frames that wait in each direction: one is written while the next is read. With `FRAME_BYTES`
/// and `ALL_STREAMS` all streams together hold at most 64 MiB here; HTTP/2's windows come on top.
const FRAMES: usize = 2;
/// The most bytes of one frame.
pub const FRAME_BYTES: usize = 64 << 10;
/// Open at once by one user, on one node, and in all.
pub const USER_STREAMS: usize = 64;
pub const NODE_STREAMS: usize = 64;
pub const ALL_STREAMS: usize = 256;

/// What a node is asked for.
#[derive(Debug, Clone)]
pub struct StreamRequest {
    pub stream_id: String,
    /// Empty: the node itself.
    pub task: String,
    /// Empty: every container.
    pub container: String,
    pub order: StreamOrder,
    pub user: String,
}

/// What a node's frame is, for who passes it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Started,
    /// So many bytes of a container.
    Data(usize),
    Stats,
    /// Something of the node's images.
    Images,
    /// The last frame: the result in words, or why it failed.
    Ended {
        result: Result<String, ApiError>,
    },
}

/// For whom a stream counts.
#[derive(Debug, Clone, Copy)]
pub enum Counted<'a> {
    /// One call of this user.
    Call(&'a str),
    /// One of many nodes of one call of this user; counts for the node and in all only.
    Part(&'a str),
}

impl<'a> Counted<'a> {
    /// The user it is for.
    pub fn user(self) -> &'a str {
        match self {
            Self::Call(user) | Self::Part(user) => user,
        }
    }
}

type Output = Result<StreamOutput, ApiError>;

/// What the node's connection reads and writes.
pub struct NodeEnd {
    pub input: mpsc::Receiver<StreamInput>,
    pub output: mpsc::Sender<Output>,
}

struct Waiting {
    instance: ContainerInstanceId,
    end: NodeEnd,
}

#[derive(Default)]
struct Open {
    waiting: BTreeMap<String, Waiting>,
    users: BTreeMap<String, usize>,
    nodes: BTreeMap<ContainerInstanceId, usize>,
    all: usize,
}

/// All streams; cheap to clone.
#[derive(Default, Clone)]
pub struct Streams(Arc<Mutex<Open>>);

/// The person's end; dropping it ends the node's.
pub struct UserEnd {
    pub input: mpsc::Sender<StreamInput>,
    pub output: mpsc::Receiver<Output>,
    _place: Place,
}

/// Counts for its user and node until it is dropped.
struct Place {
    id: String,
    /// `None`: it does not count for its user.
    user: Option<String>,
    instance: ContainerInstanceId,
    streams: Streams,
}

fn release<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.waiting.remove(&self.id);
        if let Some(user) = &self.user {
            release(&mut open.users, user);
        }
        release(&mut open.nodes, &self.instance);
        open.all -= 1;
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream that the instance is about to be asked for; refused beyond the limits.
    pub fn open(
        &self,
        id: String,
        counted: Counted<'_>,
        instance: &ContainerInstanceId,
    ) -> Result<UserEnd, ApiError> {
        let mut open = self.lock();
        let user = match counted {
            Counted::Call(user) => Some(user.to_owned()),
            Counted::Part(_) => None,
        };
        let of_user = user.as_ref().and_then(|user| open.users.get(user)).copied().unwrap_or(0);
        let of_node = open.nodes.get(instance).copied().unwrap_or(0);
        let limits = [
            (format!("user {}", counted.user()), of_user, USER_STREAMS),
            (format!("container instance {instance}"), of_node, NODE_STREAMS),
            ("the control plane".to_owned(), open.all, ALL_STREAMS),
        ];
        if let Some((who, _, limit)) = limits.into_iter().find(|(_, count, limit)| count >= limit) {
            return Err(ApiError::StreamLimit { who, limit });
        }
        if let Some(user) = &user {
            *open.users.entry(user.clone()).or_default() += 1;
        }
        *open.nodes.entry(instance.clone()).or_default() += 1;
        open.all += 1;
        let (input, node_input) = mpsc::channel(FRAMES);
        let (node_output, output) = mpsc::channel(FRAMES);
        let end = NodeEnd { input: node_input, output: node_output };
        open.waiting.insert(id.clone(), Waiting { instance: instance.clone(), end });
        let place = Place { id, user, instance: instance.clone(), streams: self.clone() };
        Ok(UserEnd { input, output, _place: place })
    }

    /// The node's end, once; only for the node that was asked.
    pub fn take(&self, id: &str, caller: &ContainerInstanceId) -> Result<NodeEnd, ApiError> {
        let mut open = self.lock();
        let not_found = || ApiError::StreamNotFound { stream: id.to_owned() };
        if open.waiting.get(id).ok_or_else(not_found)?.instance != *caller {
            return Err(ApiError::AccessDenied {
                caller: format!("container instance {caller}"),
                method: format!("stream {id} of another container instance"),
            });
        }
        open.waiting.remove(id).map(|waiting| waiting.end).ok_or_else(not_found)
    }

    /// Streams open now; a test compares it with nothing left.
    pub fn count(&self) -> usize {
        self.lock().all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_for_one_node_once_and_counts_until_it_is_dropped() {
        let streams = Streams::default();
        let [own, other] = [1, 2].map(|number| ContainerInstanceId::from_parts(number, 1));
        let end = streams.open("a".to_owned(), Counted::Call("admin"), &own).unwrap();
        assert!(matches!(streams.take("a", &other), Err(ApiError::AccessDenied { .. })));
        assert!(streams.take("a", &own).is_ok());
        assert!(matches!(streams.take("a", &own), Err(ApiError::StreamNotFound { .. })));
        drop(end);
        assert_eq!(streams.count(), 0);
        assert!(matches!(streams.take("a", &own), Err(ApiError::StreamNotFound { .. })));
    }

    #[test]
    fn each_limit_refuses_by_name_and_a_dropped_stream_makes_room() {
        let streams = Streams::default();
        let node = |number: usize| ContainerInstanceId::from_parts(number as u64 + 1, 1);
        let open = |count: usize, user: &str, spread: usize| -> Vec<_> {
            (0..count).map(|n| streams.open(n.to_string(), Counted::Call(user), &node(n % spread))).collect()
        };
        let mut held = open(USER_STREAMS, "a", 4);
        assert!(held.iter().all(Result::is_ok));
        let refused = streams.open("x".to_owned(), Counted::Call("a"), &node(9)).err();
        assert_eq!(refused, Some(ApiError::StreamLimit { who: "user a".to_owned(), limit: USER_STREAMS }));
        assert!(streams.open("part".to_owned(), Counted::Part("a"), &node(9)).is_ok());
        held.pop();
        assert!(streams.open("y".to_owned(), Counted::Call("a"), &node(9)).is_ok());
        drop(held);
        let held: Vec<_> = (0..NODE_STREAMS)
            .map(|n| streams.open(format!("n{n}"), Counted::Call(&format!("u{n}")), &node(0)))
            .collect();
        assert!(held.iter().all(Result::is_ok));
        assert!(matches!(
            streams.open("z".to_owned(), Counted::Part("b"), &node(0)),
            Err(ApiError::StreamLimit { .. })
        ));
        drop(held);
        assert_eq!(streams.count(), 0);
    }
}

//! Questions to the agent by topic, with JSON both ways: what only the node knows, asked from
//! anywhere. In: a topic, an argument. Out: JSON, or why not. Never: changes anything.

use super::convert::Fault;
use crate::task::TaskContext;
use lighter_model::ids::TaskId;

/// Answers one question. A topic of a newer control plane is refused by name.
pub(super) async fn answer(
    _context: &TaskContext,
    _task: Option<&TaskId>,
    topic: &str,
    _argument_json: &str,
) -> Result<String, Fault> {
    Err(Fault::new("NOT_SUPPORTED", format!("this node's agent knows no topic {topic:?}; upgrade it")))
}

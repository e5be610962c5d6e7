//! Opens one container's log. In: what is wanted. Out: its lines, and when it has ended for a follower.
//! Owns nothing. Never: sends.

use super::LogSource;
use super::merge::Opened;
use crate::facilities::LogQuery;
use crate::reconcile::CoreInput;
use crate::session::convert::LogRequest;
use lighter_model::ids::ContainerName;
use tokio::sync::oneshot;

pub(super) async fn open(source: &LogSource, request: &LogRequest, container: &ContainerName) -> Opened {
    let mut follow_until = None;
    if request.follow {
        let (answer, got) = oneshot::channel();
        let question =
            CoreInput::ContainerEnded { task: request.task.clone(), container: container.clone(), answer };
        let _ = source.reconciler.send(question).await;
        follow_until = got.await.ok();
    }
    let query = LogQuery {
        task: request.task.clone(),
        container: container.clone(),
        follow_until,
        tail_lines: request.tail_lines,
        since_unix_ms: request.since_unix_ms,
    };
    source.runtime.read_logs(query).await
}

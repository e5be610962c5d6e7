//! The node's own end, on an operator's word: all tasks stop in order, then the agent.
//! In: a request on the local socket. Out: progress, until nothing runs or the time is over.
//! Owns nothing. Never: ends the agent while a task runs that it was to stop; acts on the word of
//! anybody who may not open the socket.

use super::LocalApi;
use crate::reconcile::{CoreInput, LocalTask};
use crate::time::{BootInstant, sleep};
use futures_util::stream::{self, Stream};
use lighter_proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// Between two looks at what still runs.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// STOPPED reports that the control plane has not yet applied are waited for; they are in the store
/// and go out after the next start otherwise.
const LAST_REPORTS: Duration = Duration::from_secs(3);

/// Where a departure is.
enum Step {
    Begin,
    Stopping,
    Reporting { until: BootInstant },
    Over,
}

/// Stops all tasks and says how far it is.
pub(super) fn stop_tasks(
    api: Arc<LocalApi>,
    request: v1::StopTasksRequest,
) -> impl Stream<Item = Result<v1::StopTasksProgress, Status>> {
    let deadline = (request.timeout_s > 0)
        .then(|| BootInstant::now().after(Duration::from_secs(request.timeout_s.into())));
    let state = Departure { api, request, deadline, step: Step::Begin };
    stream::unfold(state, |mut departure| async move {
        let progress = departure.next().await?;
        Some((progress, departure))
    })
}

struct Departure {
    api: Arc<LocalApi>,
    request: v1::StopTasksRequest,
    deadline: Option<BootInstant>,
    step: Step,
}

impl Departure {
    async fn next(&mut self) -> Option<Result<v1::StopTasksProgress, Status>> {
        match self.step {
            Step::Over => {
                // Whoever asked has the last word already.
                if self.request.stop_agent {
                    self.api.context.leaving.cancel();
                }
                return None;
            }
            Step::Begin => {
                self.step = Step::Stopping;
                let input = CoreInput::StopAll { reason: self.reason() };
                if self.api.context.reconciler.send(input).await.is_err() {
                    return Some(Err(self.failed(Status::unavailable("the agent leaves"))));
                }
            }
            Step::Stopping | Step::Reporting { .. } => sleep(LOOK_AGAIN).await,
        }
        let tasks = match self.api.tasks().await {
            Ok(tasks) => tasks,
            Err(status) => return Some(Err(self.failed(status))),
        };
        let left: Vec<&LocalTask> = tasks.iter().filter(|task| task.runs).collect();
        if left.is_empty() {
            return Some(Ok(self.all_stopped(&tasks)));
        }
        if self.deadline.is_some_and(|deadline| deadline.until().is_zero()) {
            let ids: Vec<String> = left.iter().map(|task| task.assignment.task.to_string()).collect();
            let text =
                format!("the time is over and {} tasks have not stopped: {}", ids.len(), ids.join(", "));
            return Some(Err(self.failed(Status::deadline_exceeded(text))));
        }
        let left = left.into_iter().map(|task| v1::TaskLeft {
            task_id: task.assignment.task.to_string(),
            task_definition: task.assignment.definition.to_string(),
            group: task.assignment.group.clone(),
        });
        Some(Ok(v1::StopTasksProgress { left: left.collect(), done: false }))
    }

    /// The agent goes on, and so do its other tasks: nothing more is stopped.
    fn failed(&mut self, status: Status) -> Status {
        self.request.stop_agent = false;
        self.step = Step::Over;
        status
    }

    fn all_stopped(&mut self, tasks: &[LocalTask]) -> v1::StopTasksProgress {
        let unreported = self.api.session.borrow().connected && tasks.iter().any(LocalTask::has_stopped);
        let until = match self.step {
            Step::Reporting { until } => until,
            _ => BootInstant::now().after(LAST_REPORTS),
        };
        let done = !unreported || until.until().is_zero();
        self.step = if done { Step::Over } else { Step::Reporting { until } };
        v1::StopTasksProgress { left: Vec::new(), done }
    }

    fn reason(&self) -> String {
        match self.request.reason.as_str() {
            "" => "All tasks of the container instance were stopped on the instance itself".to_owned(),
            reason => reason.to_owned(),
        }
    }
}

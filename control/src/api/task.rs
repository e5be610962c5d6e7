//! RunTask, StopTask, PauseTask, UpdateTask, ListTasks, DescribeTasks.
//! In: checked requests. Out: task records, pages, failures. Never: shows a task before it is durable.

use super::page::{Page, PageRequest, fill};
use super::{Context, existing_cluster};
use crate::core::audit::Asker;
use crate::core::instance::find_instance;
use crate::core::journal;
use crate::core::quota::Quotas;
use crate::core::record::{PlacementFailure, TaskRecord};
use crate::core::run_task::{RunTask, RunTaskAnswer};
use crate::core::stop_task::{StopTask, find_task};
use crate::core::update_task::{PauseTask, UpdateTask};
use crate::error::ApiError;
use lighter_model::ids::TaskId;
use lighter_model::status::DesiredStatus;
use lighter_model::wait::Wait;
use std::ops::Bound;
use std::sync::Arc;

/// Places and creates tasks.
pub async fn run(context: &Context, asker: Asker, request: RunTask) -> Result<RunTaskAnswer, ApiError> {
    context.change(asker, request).await
}

/// Wants a task stopped.
pub async fn stop(context: &Context, asker: Asker, request: StopTask) -> Result<Arc<TaskRecord>, ApiError> {
    context.change(asker, request).await
}

/// Pauses a task, or lets it go on.
pub async fn pause(context: &Context, request: PauseTask) -> Result<Arc<TaskRecord>, ApiError> {
    context.writer.submit(request).await
}

/// Gives a container of a running task other limits.
pub async fn update(context: &Context, request: UpdateTask) -> Result<Arc<TaskRecord>, ApiError> {
    context.writer.submit(request).await
}

/// What to list; empty texts match all.
#[derive(Debug, Clone)]
pub struct Filter {
    pub cluster: String,
    pub container_instance: String,
    pub family: String,
    pub started_by: String,
    pub desired_status: DesiredStatus,
    /// Only those that wait in the queue.
    pub queued: bool,
    pub page: PageRequest,
}

/// Lists task ids, oldest first.
pub fn list(context: &Context, filter: &Filter) -> Result<Page, ApiError> {
    let limit = filter.page.limit(&context.quotas)?;
    let after: Option<TaskId> = filter.page.after_as()?;
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, &filter.cluster)?;
        let instance = match filter.container_instance.as_str() {
            "" => None,
            name => Some(find_instance(&shown.state, &cluster, name)?.id.clone()),
        };
        let wanted = |task: &&Arc<TaskRecord>| {
            task.cluster == cluster
                && task.desired == filter.desired_status
                && (!filter.queued || task.queue.is_some())
                && instance.as_ref().is_none_or(|id| task.instance == *id)
                && (filter.family.is_empty() || task.definition.family.as_str() == filter.family)
                && (filter.started_by.is_empty()
                    || task.started_by.as_deref() == Some(filter.started_by.as_str()))
        };
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tasks = shown.state.tasks.range((bound, Bound::Unbounded)).map(|(_, task)| task);
        Ok(fill(tasks.filter(wanted).map(|task| task.id.to_string()), limit))
    })
}

/// A task with all that it waits for, also what only the control plane sees.
#[derive(Debug, Clone)]
pub struct DescribedTask {
    pub task: Arc<TaskRecord>,
    pub waits: Vec<Wait>,
}

/// What was found, and what was not.
#[derive(Debug, Clone)]
pub struct Described<T> {
    pub found: Vec<T>,
    pub failures: Vec<PlacementFailure>,
}

/// Looks every name up; one that is not there is a failure with reason MISSING.
pub(super) fn describe_all<T>(
    quotas: &Quotas,
    field: &'static str,
    names: &[String],
    look_up: impl Fn(&str) -> Result<T, ApiError>,
) -> Result<Described<T>, ApiError> {
    quotas.names(field, names.len())?;
    let mut described = Described { found: Vec::new(), failures: Vec::new() };
    for name in names {
        match look_up(name) {
            Ok(found) => described.found.push(found),
            Err(error @ ApiError::AmbiguousPrefix { .. }) => return Err(error),
            Err(error) => described.failures.push(PlacementFailure {
                id: name.clone(),
                reason: "MISSING".to_owned(),
                detail: error.to_string(),
            }),
        }
    }
    Ok(described)
}

/// Describes 1 to 100 tasks by id, ARN or unique prefix.
pub fn describe(
    context: &Context,
    cluster: &str,
    names: &[String],
) -> Result<Described<DescribedTask>, ApiError> {
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        describe_all(&context.quotas, "tasks", names, |name| {
            let task = find_task(&shown.state, &cluster, name)?;
            let waits = journal::waits(&shown.state, &context.settings, &task);
            Ok(DescribedTask { task, waits })
        })
    })
}

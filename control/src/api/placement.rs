//! StartTask; ExplainPlacement and RunTask with dryRun; TestPlacementStrategy.
//! In: checked requests. Out: tasks, explanations, scores. Never: changes anything but by StartTask.

use super::{Context, existing_cluster};
use crate::core::audit::Asker;
use crate::core::queue::Waiting;
use crate::core::run_task::{RunTask, RunTaskAnswer};
use crate::core::service::change::find_service;
use crate::core::start_task::StartTask;
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use crate::scheduler::choose::Ask;
use crate::scheduler::explain::{Explanation, explain};
use crate::scheduler::strategy::Scores;
use lighter_model::ids::ContainerInstanceId;
use lighter_model::overrides::TaskOverride;
use lighter_model::placement::{Placement, PlacementText, Strategy, StrategyText};
use lighter_model::score::Refused;

/// Creates tasks on named instances.
pub async fn start(context: &Context, asker: Asker, request: StartTask) -> Result<RunTaskAnswer, ApiError> {
    context.change(asker, request).await
}

/// Where the tasks of a call would go now, or why nowhere.
pub fn dry_run(context: &Context, run: &RunTask) -> Result<Explanation, ApiError> {
    context.settings.quotas.count(run.count)?;
    let luck = context.environment.moment().random;
    context.view.read(|shown| {
        let prepared = run.prepare(&shown.state, &context.settings)?;
        let nodes = shown.state.columns().of(&run.cluster).clone();
        let ask = prepared.need.ask(&context.settings, &prepared.group, &run.placement, luck);
        let first = Waiting::first(&shown.state, &context.settings, &run.cluster);
        let head = first.as_ref().map(|first| first.head(&nodes, &context.settings));
        let ask = Ask { head: head.as_ref(), ..ask };
        Ok(explain(nodes, &ask, run.count))
    })
}

/// What is asked for a task that is there already, as if it were to be run again.
pub fn again(context: &Context, cluster: &str, task: &str) -> Result<RunTask, ApiError> {
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        let task = find_task(&shown.state, &cluster, task)?;
        Ok(RunTask {
            group: Some(task.group.clone()),
            placement: task.placement(),
            overrides: TaskOverride::clone(&task.overrides),
            ..RunTask::new(cluster, &task.definition.to_string())
        })
    })
}

/// What is asked for the next task of a service's newest deployment.
pub fn of_service(context: &Context, cluster: &str, service: &str) -> Result<RunTask, ApiError> {
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        let service = find_service(&shown.state, &cluster, service)?;
        let deployment = service.primary().ok_or_else(|| ApiError::ServiceNotFound {
            service: service.name.to_string(),
            cluster: cluster.to_string(),
        })?;
        Ok(RunTask {
            group: Some(service.group()),
            placement: shown.state.placement_of(&service.key()),
            ..RunTask::new(cluster, &deployment.definition.to_string())
        })
    })
}

/// What a custom strategy gives to an instance.
#[derive(Debug, Clone)]
pub struct Scored {
    pub instance: ContainerInstanceId,
    pub name: String,
    pub millionths: Result<i64, Refused>,
}

/// The score of every instance of a cluster for a group, the best first, ties by id, refused ones last.
pub fn test_strategy(
    context: &Context,
    cluster: &str,
    expression: &str,
    group: &str,
) -> Result<Vec<Scored>, ApiError> {
    let (kind, expression) = ("custom".to_owned(), expression.to_owned());
    let strategies = vec![StrategyText { kind, expression, field: String::new() }];
    let placement = Placement::read(PlacementText { strategies, ..PlacementText::default() })
        .map_err(|error| ApiError::invalid("expression", error.problem))?;
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        let nodes = shown.state.columns().of(&cluster);
        let strategy = placement.strategies().first().unwrap_or(&Strategy::Random);
        let scores = Scores::new(nodes, group, strategy);
        let mut all: Vec<(Option<i64>, Scored)> = (0..nodes.len())
            .map(|row| {
                let (instance, name) = (nodes.id(row).clone(), nodes.record(row).name.clone());
                let millionths = scores.score(row);
                (scores.key(row).ok(), Scored { instance, name, millionths })
            })
            .collect();
        // Stable: rows are in the order of ids.
        all.sort_by_key(|(key, _)| (key.is_none(), *key));
        Ok(all.into_iter().map(|(_, scored)| scored).collect())
    })
}

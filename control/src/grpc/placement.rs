//! The calls about placement: each converts, calls its handler, converts back.
//! In: requests that have passed the permission table. Out: messages. Never: decides anything.

use crate::api::{Context, placement, task};
use crate::convert;
use crate::core::audit::Asker;
use crate::core::run_task::RunTask;
use crate::core::start_task::StartTask;
use crate::error::ApiError;
use crate::scheduler::explain::Explanation;
use lighter_proto::v1;
use tonic::metadata::MetadataMap;

pub(super) async fn run_task(
    context: &Context,
    asker: Asker,
    request: v1::RunTaskRequest,
    metadata: &MetadataMap,
) -> Result<v1::RunTaskResponse, ApiError> {
    let dry_run = request.dry_run;
    let run = convert::run_task(request, metadata)?;
    if dry_run {
        run.check_group()?;
        let explanation = Some(explanation(placement::dry_run(context, &run)?));
        return Ok(v1::RunTaskResponse { explanation, ..Default::default() });
    }
    // Who is told that nothing was found is told why, as far as it still holds.
    let again = RunTask { count: 1, client_token: None, ..run.clone() };
    let answer = task::run(context, asker, run).await?;
    let explained = match answer.failures.is_empty() {
        true => None,
        false => placement::dry_run(context, &again).ok().map(explanation),
    };
    Ok(v1::RunTaskResponse { explanation: explained, ..convert::run_task_response(answer) })
}

pub(super) async fn start_task(
    context: &Context,
    asker: Asker,
    request: v1::StartTaskRequest,
    metadata: &MetadataMap,
) -> Result<v1::StartTaskResponse, ApiError> {
    let run = v1::RunTaskRequest {
        cluster: request.cluster,
        task_definition: request.task_definition,
        group: request.group,
        started_by: request.started_by,
        tags: request.tags,
        propagate_tags: request.propagate_tags,
        overrides_json: request.overrides_json,
        node_silence: request.node_silence,
        ..Default::default()
    };
    let run = convert::run_task(run, metadata)?;
    let start = StartTask { run, instances: request.container_instances };
    let v1::RunTaskResponse { tasks, failures, .. } =
        convert::run_task_response(placement::start(context, asker, start).await?);
    Ok(v1::StartTaskResponse { tasks, failures })
}

pub(super) fn explain_placement(
    context: &Context,
    request: v1::ExplainPlacementRequest,
    metadata: &MetadataMap,
) -> Result<v1::ExplainPlacementResponse, ApiError> {
    let named = [&request.task, &request.service, &request.task_definition];
    if named.into_iter().filter(|text| !text.is_empty()).count() != 1 {
        return Err(ApiError::invalid("task", "give one of task, service and taskDefinition"));
    }
    let run = match (request.task.as_str(), request.service.as_str()) {
        ("", "") => convert::run_task(
            v1::RunTaskRequest {
                cluster: request.cluster,
                task_definition: request.task_definition,
                group: request.group,
                placement_constraints: request.placement_constraints,
                placement_strategy: request.placement_strategy,
                ..Default::default()
            },
            metadata,
        )?,
        ("", service) => placement::of_service(context, &request.cluster, service)?,
        (task, _) => placement::again(context, &request.cluster, task)?,
    };
    let explanation = Some(explanation(placement::dry_run(context, &run)?));
    Ok(v1::ExplainPlacementResponse { explanation })
}

pub(super) fn test_placement_strategy(
    context: &Context,
    request: &v1::TestPlacementStrategyRequest,
) -> Result<v1::TestPlacementStrategyResponse, ApiError> {
    let family = || request.task_definition.rsplit('/').next()?.split(':').next();
    let group = match request.group.as_str() {
        "" => format!("family:{}", family().unwrap_or_default()),
        group => group.to_owned(),
    };
    let scored = placement::test_strategy(context, &request.cluster, &request.expression, &group)?;
    let scores = scored.into_iter().map(|scored| v1::PlacementScore {
        container_instance_id: scored.instance.to_string(),
        container_instance_name: scored.name,
        millionths: *scored.millionths.as_ref().unwrap_or(&0),
        refused: scored.millionths.err().map(|refused| refused.to_string()).unwrap_or_default(),
    });
    Ok(v1::TestPlacementStrategyResponse { scores: scores.collect() })
}

fn explanation(found: Explanation) -> v1::PlacementExplanation {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let filters = found.filters.into_iter();
    let choices = found.choices.into_iter();
    let (id, name, lacks) =
        found.closest.map_or_else(Default::default, |(id, name, lacks)| (id.to_string(), name, lacks));
    v1::PlacementExplanation {
        container_instances: number(found.container_instances),
        filters: filters
            .map(|(reason, count)| v1::PlacementFilter { reason, fell_out: number(count) })
            .collect(),
        closest_container_instance_id: id,
        closest_container_instance_name: name,
        closest_lacks: lacks,
        choices: choices
            .map(|choice| v1::PlacementChoice {
                container_instance_id: choice.instance.to_string(),
                container_instance_name: choice.name,
                scores: choice.scores,
            })
            .collect(),
    }
}

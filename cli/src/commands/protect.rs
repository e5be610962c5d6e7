//! `lighter task protect`, `lighter start`, `lighter why`: single calls about tasks and services.
//! In: names. Out: what the control plane answered.

use crate::args::{Format, Global, OneTask, ProtectArgs, StartArgs, WhyArgs};
use crate::client::Client;
use crate::commands::{placement, service, task};
use crate::failure::{Failure, of_failures};
use crate::{json, output, time, words};
use lighter_proto::v1;
use serde_json::{Value, json};

pub async fn protect(global: &Global, client: &mut Client, args: ProtectArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.cluster);
    let (protected, failures) = if args.show {
        let request = v1::GetTaskProtectionRequest { cluster, tasks: args.tasks };
        let answer =
            client.get_task_protection(request).await.map_err(Failure::rpc("look at the protection"))?;
        let answer = answer.into_inner();
        (answer.protected_tasks, answer.failures)
    } else {
        let request = v1::UpdateTaskProtectionRequest {
            cluster,
            tasks: args.tasks,
            protection_enabled: !args.off,
            expires_in_minutes: match args.off {
                true => 0,
                // A part of a minute counts as a whole one; 0 would mean the default.
                false => u32::try_from(args.lasting.as_secs().div_ceil(60).max(1)).unwrap_or(u32::MAX),
            },
        };
        let answer =
            client.update_task_protection(request).await.map_err(Failure::rpc("protect the tasks"))?;
        let answer = answer.into_inner();
        (answer.protected_tasks, answer.failures)
    };
    if global.output == Format::Json {
        output::json(&json::service::protected(&protected))?;
    } else {
        for task in &protected {
            let until = time::rfc3339(task.expires_at_unix_ms).unwrap_or_default();
            let state = if task.protection_enabled {
                format!("protected until {until}")
            } else {
                "not protected".into()
            };
            output::line(&format!("{}  {state}", task.task_id))?;
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(of_failures("protect all of them", &failures)) }
}

pub async fn start(global: &Global, client: &mut Client, args: StartArgs) -> Result<(), Failure> {
    let what = format!("start {}", args.task_definition);
    let request = v1::StartTaskRequest {
        cluster: super::cluster(args.cluster),
        task_definition: args.task_definition,
        container_instances: args.nodes,
        group: args.group,
        started_by: args.started_by,
        overrides_json: args.overrides,
        ..Default::default()
    };
    let answer = client.start_task(request).await.map_err(Failure::rpc(what.as_str()))?.into_inner();
    if global.output == Format::Json {
        let tasks: Vec<Value> = answer.tasks.iter().map(json::task).collect();
        let failures: Vec<Value> = answer.failures.iter().map(json::failure).collect();
        output::json(&json!({"tasks": tasks, "failures": failures}))?;
    } else {
        for task in &answer.tasks {
            output::line(&task.task_id)?;
        }
    }
    if answer.failures.is_empty() { Ok(()) } else { Err(of_failures(&what, &answer.failures)) }
}

/// A service of this name, else a task.
pub async fn why(global: &Global, client: &mut Client, args: WhyArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.cluster.clone());
    // A task's id is no service's name that anybody gave; a refusal says the same as none found.
    let Some(found) = service::find(client, &cluster, &args.what).await? else {
        return task::why::run(global, client, OneTask { task: args.what, cluster: args.cluster }).await;
    };
    let request = v1::ExplainPlacementRequest { cluster, service: args.what, ..Default::default() };
    let answer = client.explain_placement(request).await.map_err(Failure::rpc("explain the placement"))?;
    let explanation = answer.into_inner().explanation.unwrap_or_default();
    if global.output == Format::Json {
        return output::json(&json!({
            "service": json::service::service(&found),
            "placement": json::service::explanation(&explanation),
        }));
    }
    let primary = found.deployments.first().cloned().unwrap_or_default();
    let rollout = words::rollout_state(primary.rollout_state);
    output::line(&format!(
        "service {}: {} of {} tasks run, {} pending; {} {rollout} {}",
        found.service_name,
        found.running_count,
        found.desired_count,
        found.pending_count,
        found.task_definition,
        primary.rollout_state_reason
    ))?;
    if let Some(until) = time::rfc3339(found.throttled_until_unix_ms) {
        output::line(&format!("its tasks failed soon: none is started before {until}"))?;
    }
    if let Some(event) = found.events.first() {
        output::line(&format!("last event: {}", event.message))?;
    }
    output::line("another task of it, now:")?;
    output::line(&placement::text(&explanation))
}

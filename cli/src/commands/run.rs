//! `lighter run`: starts tasks of a definition, and with --wait follows them to their end.
//! In: a family, a revision or a file. Out: task ids, or the exit code of the essential container.
//! Owns: the tasks only with --rm: then Ctrl-C stops them.

mod wait;

use crate::args::{Format, Global, RunArgs, SilenceArgs};
use crate::client::{self, Client};
use crate::commands::{placement, task_definition};
use crate::failure::{self, EXIT_NOT_RUN, Exit, Failure};
use crate::{json, output};
use lighter_proto::v1;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

pub async fn run(global: &Global, args: RunArgs) -> Result<ExitCode, Failure> {
    let wait = args.wait || args.rm;
    match attempt(global, args).await {
        // The exit codes below 125 are the container's.
        Err(failure) if wait && !matches!(failure, Failure::OutputClosed) => {
            failure::report(&failure);
            Ok(ExitCode::from(EXIT_NOT_RUN))
        }
        other => other,
    }
}

async fn attempt(global: &Global, args: RunArgs) -> Result<ExitCode, Failure> {
    let mut client = client::connect(global).await?;
    let client = &mut client;
    let (name, registered) = definition(global, client, &args).await?;
    let outcome = start(global, client, &args, name).await;
    if let Some(registered) = registered.filter(|_| args.rm || args.dry_run)
        && let Err(failure) = take_back(client, registered, args.dry_run).await
    {
        failure::report(&failure);
    }
    outcome
}

/// What a file was registered as; a dry run leaves nothing but the gap in the numbers.
async fn take_back(client: &mut Client, registered: String, delete: bool) -> Result<(), Failure> {
    let request = v1::DeregisterTaskDefinitionRequest { task_definition: registered.clone() };
    let gone = client.deregister_task_definition(request).await;
    gone.map_err(Failure::rpc("deregister what the file registered"))?;
    if delete {
        let request = v1::DeleteTaskDefinitionsRequest { task_definitions: vec![registered] };
        let gone = client.delete_task_definitions(request).await;
        gone.map_err(Failure::rpc("delete what the file registered"))?;
    }
    Ok(())
}

/// What to run; and the revision that a file was registered as.
async fn definition(
    global: &Global,
    client: &mut Client,
    args: &RunArgs,
) -> Result<(String, Option<String>), Failure> {
    let what = args.what.as_str();
    if !is_file(what) {
        return Ok((what.to_owned(), None));
    }
    let registered = task_definition::register(client, task_definition::read(what)?).await?;
    let name = task_definition::name(&registered);
    if !global.quiet && !args.dry_run && global.output != Format::Json {
        output::note(&format!("registered {name}"));
    }
    Ok((name.clone(), Some(name)))
}

/// A family has neither a slash nor a dot in its name.
fn is_file(what: &str) -> bool {
    what == "-" || what.contains(['/', '.']) || Path::new(what).is_file()
}

async fn start(
    global: &Global,
    client: &mut Client,
    args: &RunArgs,
    name: String,
) -> Result<ExitCode, Failure> {
    let cluster = super::cluster(args.cluster.clone());
    let request = v1::RunTaskRequest {
        cluster: cluster.clone(),
        task_definition: name.clone(),
        count: args.count,
        group: args.group.clone().unwrap_or_default(),
        started_by: args.started_by.clone().unwrap_or_default(),
        client_token: args.client_token.clone().unwrap_or_default(),
        tags: super::cluster::tags(args.tag.clone()),
        propagate_tags: match args.propagate_tags {
            None => v1::PropagateTags::Unspecified,
            Some(true) => v1::PropagateTags::TaskDefinition,
            Some(false) => v1::PropagateTags::None,
        }
        .into(),
        node_silence: silence(&args.silence),
        placement_constraints: placement::constraints(&args.placement),
        placement_strategy: placement::strategies(&args.placement),
        overrides_json: args.overrides.clone(),
        dry_run: args.dry_run,
        queue: args.queue.then(|| v1::QueueOptions {
            time_limit_s: args.queue_timeout.unwrap_or_default(),
            priority: args.priority,
        }),
    };
    if args.dry_run {
        return dry_run(global, client, request).await;
    }
    let what = format!("run {name}");
    if !(args.wait || args.rm) {
        let answer = client.run_task(request).await.map_err(Failure::rpc(what.as_str()))?.into_inner();
        return started(global, &what, &answer);
    }
    // The watch begins before the tasks do, so that no change is missed.
    let mut watch = wait::Watch::begin(global, client, cluster).await?;
    let answer = client.run_task(request).await.map_err(Failure::rpc(what.as_str()))?.into_inner();
    if answer.tasks.is_empty() {
        return Err(failure::of_failures(&what, &answer.failures));
    }
    if !answer.failures.is_empty() {
        failure::report(&failure::of_failures("run all of them", &answer.failures));
    }
    let all_placed = answer.failures.is_empty();
    let code = watch.until_the_end(client, answer.tasks, args.rm).await?;
    Ok(ExitCode::from(if all_placed || code != 0 { code } else { EXIT_NOT_RUN }))
}

/// Where the tasks would go; fails when one would go nowhere.
async fn dry_run(
    global: &Global,
    client: &mut Client,
    request: v1::RunTaskRequest,
) -> Result<ExitCode, Failure> {
    let (count, waits) = (request.count as usize, request.queue.is_some());
    let answer =
        client.run_task(request).await.map_err(Failure::rpc("ask where tasks would go"))?.into_inner();
    let explanation = answer.explanation.unwrap_or_default();
    placement::print(global, &explanation)?;
    let placed = explanation.choices.len();
    if placed >= count {
        return Ok(Exit::Done.into());
    }
    let left = count - placed;
    if waits {
        output::note(&format!("{left} would wait in the queue"));
        return Ok(Exit::Done.into());
    }
    let message = format!("{left} of {count} would go nowhere");
    Err(Failure::Unavailable { message, next: "--queue lets them wait for room".to_owned() })
}

fn silence(args: &SilenceArgs) -> Option<v1::NodeSilencePolicy> {
    let policy = v1::NodeSilencePolicy {
        lost_after_s: args.lost_after.unwrap_or_default(),
        replace: args.replace,
        exclusive: args.exclusive,
        lease_s: args.lease.unwrap_or_default(),
    };
    (policy != v1::NodeSilencePolicy::default()).then_some(policy)
}

fn started(global: &Global, what: &str, answer: &v1::RunTaskResponse) -> Result<ExitCode, Failure> {
    if global.output == Format::Json {
        let tasks: Vec<_> = answer.tasks.iter().map(json::task).collect();
        let failures: Vec<_> = answer.failures.iter().map(json::failure).collect();
        output::json(&json!({"tasks": tasks, "failures": failures}))?;
    } else {
        for task in &answer.tasks {
            output::line(&task.task_id)?;
        }
    }
    let waiting = answer.tasks.iter().filter(|task| task.queue.is_some()).count();
    if waiting > 0 && !global.quiet {
        output::note(&format!("{waiting} of {} in the queue: lighter queue ls", answer.tasks.len()));
    }
    if let Some(explanation) = answer.explanation.as_ref().filter(|_| !global.quiet) {
        output::note(&placement::text(explanation));
    }
    match answer.failures.is_empty() {
        true => Ok(Exit::Done.into()),
        // Of `start` the instances may be missing; a task never is.
        false => Err(failure::of_failures_among(what, &answer.failures, "lighter node ls")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_families_are_told_apart() {
        for file in ["-", "web.json", "./web", "/tmp/x", "dir/web"] {
            assert!(is_file(file), "{file}");
        }
        for family in ["web", "web:3", "web-1_x"] {
            assert!(!is_file(family), "{family}");
        }
    }
}

//! `lighter task-definition register|ls|families|show|deregister|rm`.
//! In: a file, or names. Out: what the control plane registered. Never: reads meaning into the file;
//! it is sent as it is, and the control plane names what it refuses.

use crate::args::{Format, Global, TaskDefinitionCommand};
use crate::client::Client;
use crate::failure::{Failure, of_failures_among};
use crate::table::Table;
use crate::{json, output, time, words};
use lighter_proto::v1;
use serde_json::Value;
use std::io::Read;

/// The API's bound on revisions in one Delete call.
const BATCH: usize = 10;

pub async fn run(
    global: &Global,
    client: &mut Client,
    command: TaskDefinitionCommand,
) -> Result<(), Failure> {
    match command {
        TaskDefinitionCommand::Register { file } => {
            let definition = register(client, read(&file)?).await?;
            if global.output == Format::Json {
                return output::json(&json::task_definition(&definition));
            }
            output::line(&name(&definition))
        }
        TaskDefinitionCommand::Ls { prefix, inactive } => list(global, client, prefix, inactive).await,
        TaskDefinitionCommand::Deregister { task_definition } => {
            let request = v1::DeregisterTaskDefinitionRequest { task_definition };
            let answer = client.deregister_task_definition(request).await;
            let answer = answer.map_err(Failure::rpc("deregister the task definition"))?.into_inner();
            told(global, &answer.task_definition.unwrap_or_default())
        }
        TaskDefinitionCommand::Rm { task_definitions } => remove(global, client, task_definitions).await,
        TaskDefinitionCommand::Families { prefix } => families(global, client, prefix).await,
        TaskDefinitionCommand::Show { task_definition } => show(global, client, task_definition).await,
    }
}

fn told(global: &Global, definition: &v1::TaskDefinition) -> Result<(), Failure> {
    if global.output == Format::Json {
        return output::json(&json::task_definition(definition));
    }
    if global.quiet {
        return output::line(&name(definition));
    }
    output::line(&format!("{} {}", name(definition), words::definition_status(definition.status)))
}

async fn remove(global: &Global, client: &mut Client, names: Vec<String>) -> Result<(), Failure> {
    for task_definitions in names.chunks(BATCH) {
        let request = v1::DeleteTaskDefinitionsRequest { task_definitions: task_definitions.to_vec() };
        let answer = client.delete_task_definitions(request).await;
        let answer = answer.map_err(Failure::rpc("delete the task definitions"))?.into_inner();
        for definition in &answer.task_definitions {
            told(global, definition)?;
        }
        if !answer.failures.is_empty() {
            return Err(of_failures_among(
                "delete all of them",
                &answer.failures,
                "lighter task-definition ls",
            ));
        }
    }
    Ok(())
}

async fn families(global: &Global, client: &mut Client, prefix: Option<String>) -> Result<(), Failure> {
    let family_prefix = prefix.unwrap_or_default();
    let mut request = v1::ListTaskDefinitionFamiliesRequest { family_prefix, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let answer = client.list_task_definition_families(request.clone()).await;
        let answer = answer.map_err(Failure::rpc("list the families"))?.into_inner();
        names.extend(answer.families);
        if answer.next_token.is_empty() {
            break;
        }
        request.next_token = answer.next_token;
    }
    if global.output == Format::Json {
        return output::json(&Value::from(names));
    }
    output::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// `family:revision`.
pub fn name(definition: &v1::TaskDefinition) -> String {
    format!("{}:{}", definition.family, definition.revision)
}

/// The text of a file, or of standard input for `-`.
pub fn read(file: &str) -> Result<String, Failure> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|source| Failure::io("read standard input", source))?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(|source| Failure::io(format!("read {file:?}"), source))
}

/// Registers a definition and gives the new revision.
pub async fn register(client: &mut Client, json: String) -> Result<v1::TaskDefinition, Failure> {
    let request = v1::RegisterTaskDefinitionRequest { json };
    let answer = client.register_task_definition(request).await;
    let answer = answer.map_err(Failure::rpc("register the task definition"))?.into_inner();
    Ok(answer.task_definition.unwrap_or_default())
}

async fn list(
    global: &Global,
    client: &mut Client,
    prefix: Option<String>,
    inactive: bool,
) -> Result<(), Failure> {
    let status = if inactive { v1::TaskDefinitionStatus::Inactive } else { v1::TaskDefinitionStatus::Active };
    let mut request = v1::ListTaskDefinitionsRequest {
        family_prefix: prefix.unwrap_or_default(),
        status: status as i32,
        ..Default::default()
    };
    let mut names = Vec::new();
    loop {
        let answer = client.list_task_definitions(request.clone()).await;
        let answer = answer.map_err(Failure::rpc("list the task definitions"))?.into_inner();
        names.extend(answer.task_definitions);
        if answer.next_token.is_empty() {
            break;
        }
        request.next_token = answer.next_token;
    }
    if global.output == Format::Json {
        return output::json(&Value::from(names));
    }
    if global.quiet {
        return output::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
    }
    let mut table = Table::new(&["TASK DEFINITION", "REVISION"]);
    for name in &names {
        let (family, revision) = name.rsplit_once(':').unwrap_or((name, ""));
        table.row([family.to_owned(), revision.to_owned()]);
    }
    super::print_table(global, &table)
}

async fn show(global: &Global, client: &mut Client, task_definition: String) -> Result<(), Failure> {
    let request = v1::DescribeTaskDefinitionRequest { task_definition };
    let answer = client.describe_task_definition(request).await;
    let answer = answer.map_err(Failure::rpc("show the task definition"))?.into_inner();
    let definition = answer.task_definition.unwrap_or_default();
    if global.quiet {
        return output::line(&name(&definition));
    }
    let shown = json::task_definition(&definition);
    if global.output == Format::Json {
        return output::json(&shown);
    }
    let by = if definition.registered_by.is_empty() {
        String::new()
    } else {
        format!(" by {}", definition.registered_by)
    };
    let when = time::rfc3339(definition.registered_at_unix_ms).unwrap_or_default();
    // To standard error, so that standard output is a file that `register` takes.
    output::note(&format!(
        "{} {}, registered {when}{by}",
        name(&definition),
        words::definition_status(definition.status)
    ));
    for (container, digest) in &definition.image_digests {
        output::note(&format!(
            "container {container}: its tag means {digest} for all tasks of this revision"
        ));
    }
    output::json(&shown["definition"])
}

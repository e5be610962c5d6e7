//! `lighter deploy FILE`: brings task definitions and services to what a file says.
//! In: a file; what is deployed. Out: a plan field by field, then the change and its progress.
//! Never: changes what somebody else changed since the plan, or anything before the person agreed.

mod diff;
pub mod file;

use self::diff::Change;
use self::file::Document;
use crate::args::{DeployArgs, Format, Global};
use crate::client::Client;
use crate::commands::{service, task_definition};
use crate::failure::Failure;
use crate::{json, output, table, terminal};
use lighter_proto::v1;
use serde_json::{Map, Value, json};
use std::io::Write;

/// Members of create-service that no update takes.
const ONLY_AT_CREATION: [&str; 4] = ["schedulingStrategy", "launchType", "clientToken", "tags"];

/// What one document comes to.
#[derive(Debug, Default)]
struct Plan {
    document: Document,
    /// Of the task definition; none when it stays.
    definition: Vec<Change>,
    /// The definition that is there, `family:revision`.
    reference: String,
    /// Of the service; none when it stays.
    service: Vec<Change>,
    /// The service that is there.
    deployed: Option<v1::Service>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.definition.is_empty() && self.service.is_empty()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut part = |title: String, changes: &[Change]| {
            if !changes.is_empty() {
                lines.push(title);
                lines.extend(changes.iter().map(|change| format!("  {}", table::clean(&change.to_string()))));
            }
        };
        part("task definition, a new revision:".to_owned(), &self.definition);
        let name = self.document.service.as_ref().map(name_of).unwrap_or_default();
        let verb = if self.deployed.is_some() { "update" } else { "create" };
        part(format!("{verb} service {name}:"), &self.service);
        lines
    }
}

pub async fn run(global: &Global, client: &mut Client, args: DeployArgs) -> Result<(), Failure> {
    let mut plans = Vec::new();
    for document in file::parse(&task_definition::read(&args.file)?)? {
        plans.push(plan(client, document).await?);
    }
    show(global, &plans)?;
    if args.plan || plans.iter().all(Plan::is_empty) {
        return Ok(());
    }
    if !args.yes && !agreed(&args.file)? {
        output::note("nothing was changed");
        return Ok(());
    }
    for plan in plans.into_iter().filter(|plan| !plan.is_empty()) {
        carry_out(global, client, plan, &args).await?;
    }
    Ok(())
}

fn show(global: &Global, plans: &[Plan]) -> Result<(), Failure> {
    let lines: Vec<String> = plans.iter().flat_map(Plan::lines).collect();
    if global.output == Format::Json {
        return output::json(&json!({ "plan": lines }));
    }
    match lines.is_empty() {
        true => output::line("nothing to change"),
        false => output::line(&lines.join("\n")),
    }
}

/// y or N at the terminal; without one nobody can agree.
fn agreed(file: &str) -> Result<bool, Failure> {
    if file == "-" || !terminal::stdin_is_terminal() {
        let message = "nobody can be asked: standard input is no terminal".to_owned();
        return Err(Failure::Refused { message, next: "lighter deploy FILE --yes".to_owned() });
    }
    let ask = || -> std::io::Result<String> {
        let mut answer = String::new();
        write!(std::io::stderr(), "change this? [y/N] ")?;
        std::io::stdin().read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|source| Failure::io("ask at the terminal", source))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn text_of(members: &Map<String, Value>, name: &str) -> String {
    members.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn name_of(service: &Map<String, Value>) -> String {
    text_of(service, "serviceName")
}

async fn plan(client: &mut Client, document: Document) -> Result<Plan, Failure> {
    let mut plan = Plan { document, ..Plan::default() };
    if let Some(wanted) = &plan.document.task_definition {
        (plan.reference, plan.definition) = definition(client, wanted).await?;
    }
    let Some(mut wanted) = plan.document.service.clone() else { return Ok(plan) };
    let cluster = text_of(&wanted, "cluster");
    plan.deployed = service::find(client, &cluster, &name_of(&wanted)).await?;
    plan.deployed = plan.deployed.filter(|found| found.status != v1::ServiceStatus::Inactive as i32);
    if plan.document.task_definition.is_some() {
        let next =
            if plan.definition.is_empty() { plan.reference.clone() } else { "the new revision".to_owned() };
        wanted.insert("taskDefinition".to_owned(), next.into());
    }
    let deployed = plan.deployed.as_ref().map_or(json!({}), json::service::service);
    wanted.retain(|name, _| !matches!(name.as_str(), "cluster" | "clientToken"));
    if let Some(found) = &plan.deployed {
        // Without a revision the newest is meant; with a family alone nothing can differ but that.
        wanted.retain(|name, value| !(name == "launchType" && value == "EC2"));
        let family =
            wanted.get("taskDefinition").and_then(Value::as_str).filter(|text| !text.contains([':', ' ']));
        if let Some(family) = family.map(str::to_owned) {
            wanted.insert("taskDefinition".to_owned(), newest(client, &family, found).await?.into());
        }
    }
    plan.service = diff::diff(&deployed, &Value::Object(wanted), true);
    let fixed =
        |change: &&Change| ONLY_AT_CREATION.iter().any(|name| change.path.first().is_some_and(|p| p == name));
    if let (Some(change), true) = (plan.service.iter().find(fixed), plan.deployed.is_some()) {
        let message = format!("a service keeps this for life: {change}");
        return Err(Failure::Refused { message, next: "give the new service another name".to_owned() });
    }
    Ok(plan)
}

async fn newest(client: &mut Client, family: &str, service: &v1::Service) -> Result<String, Failure> {
    let request = v1::DescribeTaskDefinitionRequest { task_definition: family.to_owned() };
    let answer = client
        .describe_task_definition(request)
        .await
        .map_err(Failure::rpc("look at the task definition"))?;
    let found = answer.into_inner().task_definition;
    Ok(found.map_or_else(|| service.task_definition.clone(), |found| task_definition::name(&found)))
}

/// The newest revision of the family, and what the file changes about it.
async fn definition(client: &mut Client, wanted: &Value) -> Result<(String, Vec<Change>), Failure> {
    let family = wanted.get("family").and_then(Value::as_str).unwrap_or_default().to_owned();
    let request = v1::DescribeTaskDefinitionRequest { task_definition: family };
    let found = match client.describe_task_definition(request).await {
        Ok(answer) => answer.into_inner().task_definition,
        Err(status) if status.code() == tonic::Code::NotFound => None,
        Err(status) => return Err(Failure::rpc("look at the task definition")(status)),
    };
    let wanted = normal(&wanted.to_string());
    Ok(match found {
        Some(found) => (task_definition::name(&found), diff::diff(&normal(&found.json), &wanted, false)),
        None => (String::new(), diff::diff(&json!({}), &wanted, false)),
    })
}

/// A definition as the control plane keeps it, so that `"cpu": "256"` is no change of 256. What it
/// will refuse is shown as it is; it names the member itself.
fn normal(json: &str) -> Value {
    let kept = lighter_control::api::task_definition::with_defaults(json);
    serde_json::from_str(kept.as_deref().unwrap_or(json)).unwrap_or_default()
}

async fn carry_out(
    global: &Global,
    client: &mut Client,
    plan: Plan,
    args: &DeployArgs,
) -> Result<(), Failure> {
    let mut reference = plan.reference;
    if let Some(wanted) = plan.document.task_definition.filter(|_| !plan.definition.is_empty()) {
        let registered = task_definition::register(client, wanted.to_string()).await?;
        reference = task_definition::name(&registered);
        if !global.quiet {
            output::note(&format!("registered {reference}"));
        }
    }
    let Some(mut input) = plan.document.service.filter(|_| !plan.service.is_empty()) else { return Ok(()) };
    if !reference.is_empty() {
        input.insert("taskDefinition".to_owned(), reference.into());
    }
    let changed = match plan.deployed {
        None => service::send_create(client, input).await?,
        Some(found) => {
            let cluster = text_of(&input, "cluster");
            input.retain(|name, _| name != "serviceName" && !ONLY_AT_CREATION.contains(&name.as_str()));
            input.extend(service::named(&found.service_name, &cluster));
            service::send_update(client, input, found.version).await?
        }
    };
    service::wait::until_steady(global, client, changed, &args.wait).await
}

//! `lighter service …`: services, their rollouts, events and endpoints.
//! In: names, options, files with ECS's inputs. Out: services, and progress until they are steady.
//! Never: decides about tasks; the control plane does.

mod look;
pub mod wait;

use crate::args::{
    ControlDeploymentArgs, CreateServiceArgs, Global, OneService, RemoveServiceArgs, RolloutArgs, ScaleArgs,
    ServiceCommand, UpdateServiceArgs,
};
use crate::client::Client;
use crate::commands::{deploy, placement, task_definition};
use crate::failure::{Failure, of_failures_among};
use crate::json;
use lighter_proto::v1;
pub use look::{list_all, table};
use serde_json::{Map, Value, json};
use std::path::Path;

pub async fn run(global: &Global, client: &mut Client, command: ServiceCommand) -> Result<(), Failure> {
    match command {
        ServiceCommand::Create(args) => create(global, client, args).await,
        ServiceCommand::Update(args) => update(global, client, args).await,
        ServiceCommand::Scale(args) => scale(global, client, args).await,
        ServiceCommand::Rollback(args) => {
            control(global, client, args, v1::DeploymentAction::Rollback, "roll the service back").await
        }
        ServiceCommand::Resume(args) => {
            control(global, client, args, v1::DeploymentAction::Resume, "resume the rollout").await
        }
        ServiceCommand::Pause(args) => pause(global, client, args).await,
        ServiceCommand::Events(args) => look::events(global, client, args).await,
        ServiceCommand::Rm(args) => remove(global, client, args).await,
        ServiceCommand::Ls { cluster } => look::ls(global, client, cluster).await,
        ServiceCommand::Describe(args) => look::show(global, client, args).await,
        ServiceCommand::Endpoints(args) => look::endpoints(global, client, args).await,
    }
}

/// One service; `None` when there is none of this name.
pub async fn find(client: &mut Client, cluster: &str, name: &str) -> Result<Option<v1::Service>, Failure> {
    let request =
        v1::DescribeServicesRequest { cluster: cluster.to_owned(), services: vec![name.to_owned()] };
    let answer = client.describe_services(request).await;
    let mut answer = answer.map_err(Failure::rpc("describe the service"))?.into_inner();
    match (answer.services.pop(), answer.failures.iter().any(|failure| failure.reason != "MISSING")) {
        (None, true) => {
            Err(of_failures_among("describe the service", &answer.failures, "lighter service ls"))
        }
        (found, _) => Ok(found),
    }
}

/// One service that must be there.
pub async fn get(client: &mut Client, cluster: &str, name: &str) -> Result<v1::Service, Failure> {
    find(client, cluster, name).await?.ok_or_else(|| Failure::NotFound {
        message: format!("there is no service {name:?}"),
        next: "lighter service ls".to_owned(),
    })
}

async fn create(global: &Global, client: &mut Client, args: CreateServiceArgs) -> Result<(), Failure> {
    let is_file = args.what == "-" || args.what.contains(['/', '.']) || Path::new(&args.what).is_file();
    let mut input = if is_file {
        deploy::file::one(&task_definition::read(&args.what)?)?
    } else {
        Map::from_iter([("serviceName".to_owned(), Value::from(args.what.clone()))])
    };
    members(&mut input, args.task_definition, args.count, &args.rollout);
    if args.daemon {
        input.insert("schedulingStrategy".to_owned(), "DAEMON".into());
    }
    if let Some(cluster) = args.cluster {
        input.insert("cluster".to_owned(), cluster.into());
    }
    let created = send_create(client, input).await?;
    wait::until_steady(global, client, created, &args.wait).await
}

/// Creates a service from the input of `aws ecs create-service`.
pub async fn send_create(client: &mut Client, input: Map<String, Value>) -> Result<v1::Service, Failure> {
    let request = v1::CreateServiceRequest { json: Value::Object(input).to_string() };
    let answer = client.create_service(request).await.map_err(Failure::rpc("create the service"))?;
    Ok(answer.into_inner().service.unwrap_or_default())
}

/// Changes a service by the input of `aws ecs update-service`.
pub async fn send_update(
    client: &mut Client,
    input: Map<String, Value>,
    expected_version: u64,
) -> Result<v1::Service, Failure> {
    let request = v1::UpdateServiceRequest { json: Value::Object(input).to_string(), expected_version };
    let answer = client.update_service(request).await.map_err(Failure::rpc("update the service"))?;
    Ok(answer.into_inner().service.unwrap_or_default())
}

/// The members that options give.
fn members(
    input: &mut Map<String, Value>,
    task_definition: Option<String>,
    count: Option<u32>,
    rollout: &RolloutArgs,
) {
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            input.insert(name.to_owned(), value);
        }
    };
    set("taskDefinition", task_definition.map(Value::from));
    set("desiredCount", count.map(Value::from));
    let mut configuration = Map::new();
    if let Some(percent) = rollout.min_healthy {
        configuration.insert("minimumHealthyPercent".to_owned(), percent.into());
    }
    if let Some(percent) = rollout.max {
        configuration.insert("maximumPercent".to_owned(), percent.into());
    }
    if rollout.circuit_breaker {
        let breaker = json!({"enable": true, "rollback": true});
        configuration.insert("deploymentCircuitBreaker".to_owned(), breaker);
    }
    set("deploymentConfiguration", (!configuration.is_empty()).then_some(Value::Object(configuration)));
    let constraints: Vec<Value> =
        placement::constraints(&rollout.placement).iter().map(json::service::constraint).collect();
    let strategies: Vec<Value> =
        placement::strategies(&rollout.placement).iter().map(json::service::strategy).collect();
    set("placementConstraints", (!constraints.is_empty()).then(|| constraints.into()));
    set("placementStrategy", (!strategies.is_empty()).then(|| strategies.into()));
}

/// The beginning of an update's input.
pub fn named(service: &str, cluster: &str) -> Map<String, Value> {
    let mut input = Map::from_iter([("service".to_owned(), Value::from(service))]);
    if !cluster.is_empty() {
        input.insert("cluster".to_owned(), cluster.into());
    }
    input
}

async fn update(global: &Global, client: &mut Client, args: UpdateServiceArgs) -> Result<(), Failure> {
    let mut input = named(&args.service.service, &super::cluster(args.service.cluster));
    members(&mut input, args.task_definition, args.count, &args.rollout);
    if args.force_new_deployment {
        input.insert("forceNewDeployment".to_owned(), true.into());
    }
    let updated = send_update(client, input, 0).await?;
    wait::until_steady(global, client, updated, &args.wait).await
}

async fn scale(global: &Global, client: &mut Client, args: ScaleArgs) -> Result<(), Failure> {
    let mut input = named(&args.service, &super::cluster(args.cluster));
    input.insert("desiredCount".to_owned(), args.count.into());
    let updated = send_update(client, input, 0).await?;
    wait::until_steady(global, client, updated, &args.wait).await
}

async fn act(
    client: &mut Client,
    service: OneService,
    action: v1::DeploymentAction,
    what: &str,
) -> Result<v1::Service, Failure> {
    let request = v1::ControlDeploymentRequest {
        cluster: super::cluster(service.cluster),
        service: service.service,
        action: action.into(),
    };
    let answer = client.control_deployment(request).await.map_err(Failure::rpc(what))?;
    Ok(answer.into_inner().service.unwrap_or_default())
}

async fn control(
    global: &Global,
    client: &mut Client,
    args: ControlDeploymentArgs,
    action: v1::DeploymentAction,
    what: &str,
) -> Result<(), Failure> {
    let service = act(client, args.service, action, what).await?;
    wait::until_steady(global, client, service, &args.wait).await
}

async fn pause(global: &Global, client: &mut Client, args: OneService) -> Result<(), Failure> {
    let service = act(client, args, v1::DeploymentAction::Pause, "pause the rollout").await?;
    look::print(global, &service)
}

async fn remove(global: &Global, client: &mut Client, args: RemoveServiceArgs) -> Result<(), Failure> {
    let request = v1::DeleteServiceRequest {
        cluster: super::cluster(args.service.cluster),
        service: args.service.service,
        force: args.force,
    };
    let answer = client.delete_service(request).await.map_err(Failure::rpc("delete the service"))?;
    let service = answer.into_inner().service.unwrap_or_default();
    if args.wait.detach {
        return look::print(global, &service);
    }
    wait::until_gone(global, client, service, &args.wait).await
}

//! `lighter service ls|describe|events|endpoints`: what services are, without changing them.
//! In: names. Out: tables, facts, JSON; with --follow whatever comes.

use crate::args::{EndpointsArgs, Format, Global, OneService, ServiceEventsArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::table::{Table, clean, facts};
use crate::{json, output, time, words};
use lighter_proto::v1;
use serde_json::Value;
use std::time::Duration;

/// The API's bound on services in one call.
const BATCH: usize = 10;
/// Between two looks at the events.
const POLL: Duration = Duration::from_secs(1);
/// Lines of history that `describe` shows.
const EVENTS_SHOWN: usize = 10;

/// Every service of a cluster.
pub async fn list_all(client: &mut Client, cluster: &str) -> Result<Vec<v1::Service>, Failure> {
    let mut request = v1::ListServicesRequest { cluster: cluster.to_owned(), ..Default::default() };
    let mut names = Vec::new();
    loop {
        let answer = client.list_services(request.clone()).await;
        let answer = answer.map_err(Failure::rpc("list the services"))?.into_inner();
        names.extend(answer.services);
        if answer.next_token.is_empty() {
            break;
        }
        request.next_token = answer.next_token;
    }
    let mut services = Vec::with_capacity(names.len());
    for batch in names.chunks(BATCH) {
        let request = v1::DescribeServicesRequest { cluster: cluster.to_owned(), services: batch.to_vec() };
        let answer =
            client.describe_services(request).await.map_err(Failure::rpc("describe the services"))?;
        services.extend(answer.into_inner().services);
    }
    Ok(services)
}

pub async fn ls(global: &Global, client: &mut Client, cluster: Option<String>) -> Result<(), Failure> {
    let services = list_all(client, &super::super::cluster(cluster)).await?;
    if global.output == Format::Json {
        return output::json(&Value::from(services.iter().map(json::service::service).collect::<Vec<_>>()));
    }
    if global.quiet {
        return output::print(&services.iter().map(|s| format!("{}\n", s.service_name)).collect::<String>());
    }
    super::super::print_table(global, &table(&services))
}

/// A line for each service.
pub fn table(services: &[v1::Service]) -> Table {
    let mut table = Table::new(&["SERVICE", "DEFINITION", "TASKS", "PENDING", "STATUS", "ROLLOUT", "REASON"]);
    for service in services {
        let primary = service.deployments.first().cloned().unwrap_or_default();
        table.row([
            service.service_name.clone(),
            service.task_definition.clone(),
            format!("{}/{}", service.running_count, service.desired_count),
            service.pending_count.to_string(),
            words::service_status(service.status).to_owned(),
            words::rollout_state(primary.rollout_state).to_owned(),
            primary.rollout_state_reason,
        ]);
    }
    table
}

pub async fn show(global: &Global, client: &mut Client, args: OneService) -> Result<(), Failure> {
    let service = super::get(client, &super::super::cluster(args.cluster), &args.service).await?;
    if global.output == Format::Json {
        return output::json(&json::service::service(&service));
    }
    let percent = format!("{} % to {} %", service.minimum_healthy_percent, service.maximum_percent);
    let breaker = match service.circuit_breaker.as_ref().filter(|breaker| breaker.enable) {
        Some(breaker) if breaker.rollback => {
            format!("after {} failed tasks, with rollback", breaker.threshold)
        }
        Some(breaker) => format!("after {} failed tasks", breaker.threshold),
        None => "off".to_owned(),
    };
    output::print(&facts(&[
        ("Service", service.service_name.clone()),
        ("Cluster", service.cluster.clone()),
        ("Status", words::service_status(service.status).to_owned()),
        ("Kind", words::scheduling_strategy(service.scheduling_strategy).to_owned()),
        ("Task definition", service.task_definition.clone()),
        (
            "Tasks",
            format!(
                "{} wanted, {} running, {} pending",
                service.desired_count, service.running_count, service.pending_count
            ),
        ),
        ("Healthy and at most", percent),
        ("Circuit breaker", breaker),
        ("No task before", time::rfc3339(service.throttled_until_unix_ms).unwrap_or_default()),
        ("Created by", service.created_by.clone()),
        ("Version", service.version.to_string()),
    ]))?;
    output::line("")?;
    let mut table = Table::new(&[
        "DEPLOYMENT",
        "STATUS",
        "DEFINITION",
        "TASKS",
        "HEALTHY",
        "FAILED",
        "ROLLOUT",
        "REASON",
    ]);
    for deployment in &service.deployments {
        table.row([
            deployment.id.clone(),
            words::deployment_status(deployment.status).to_owned(),
            deployment.task_definition.clone(),
            format!("{}/{}", deployment.running_count, deployment.desired_count),
            deployment.healthy_count.to_string(),
            deployment.failed_tasks.to_string(),
            words::rollout_state(deployment.rollout_state).to_owned(),
            deployment.rollout_state_reason.clone(),
        ]);
    }
    super::super::print_table(global, &table)?;
    output::line("")?;
    for event in service.events.iter().take(EVENTS_SHOWN).rev() {
        output::line(&event_text(event))?;
    }
    Ok(())
}

fn event_text(event: &v1::ServiceEvent) -> String {
    format!("{} {}", time::rfc3339(event.created_at_unix_ms).unwrap_or_default(), clean(&event.message))
}

pub async fn events(global: &Global, client: &mut Client, args: ServiceEventsArgs) -> Result<(), Failure> {
    let cluster = super::super::cluster(args.service.cluster);
    let mut last = String::new();
    loop {
        let service = super::get(client, &cluster, &args.service.service).await?;
        // The newest first: those before the one that was shown last.
        let new: Vec<_> = service.events.iter().take_while(|event| event.id != last).collect();
        for event in new.iter().rev() {
            match global.output {
                Format::Json => output::json_line(&json::service::service_event(event))?,
                _ => output::line(&event_text(event))?,
            }
        }
        if let Some(newest) = service.events.first() {
            last.clone_from(&newest.id);
        }
        if !args.follow {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

pub async fn endpoints(global: &Global, client: &mut Client, args: EndpointsArgs) -> Result<(), Failure> {
    let request = v1::WatchEndpointsRequest {
        cluster: super::super::cluster(args.service.cluster),
        service: args.service.service,
        container: args.container,
        container_port: args.container_port,
    };
    let what = "watch the endpoints";
    let mut lists = client.watch_endpoints(request).await.map_err(Failure::rpc(what))?.into_inner();
    while let Some(list) = lists.message().await.map_err(Failure::rpc(what))? {
        if global.output == Format::Json {
            output::json_line(&json::service::endpoints(&list))?;
        } else {
            let text = |e: &v1::Endpoint| format!("{}:{}", e.address, e.port);
            let shown: Vec<String> = list.endpoints.iter().map(text).collect();
            match args.follow {
                true => output::line(&format!("#{} {}", list.sequence, shown.join(" ")))?,
                false => output::print(&shown.iter().map(|line| format!("{line}\n")).collect::<String>())?,
            }
        }
        if !args.follow {
            break;
        }
    }
    Ok(())
}

/// A service after a change.
pub fn print(global: &Global, service: &v1::Service) -> Result<(), Failure> {
    if global.output == Format::Json {
        return output::json(&json::service::service(service));
    }
    if global.quiet {
        return output::line(&service.service_name);
    }
    let primary = service.deployments.first().cloned().unwrap_or_default();
    output::line(&format!(
        "{} {}/{} tasks of {}, {}",
        service.service_name,
        service.running_count,
        service.desired_count,
        service.task_definition,
        match words::rollout_state(primary.rollout_state) {
            "" => words::service_status(service.status),
            state => state,
        }
    ))
}

//! Waits for what a change of a service comes to, with a line whenever something moves.
//! In: the service as the change left it. Out: progress; done when it is steady, a failure that says
//! why when its rollout failed, was rolled back or superseded.
//! Source: `aws ecs wait services-stable`.

use super::look;
use crate::args::{Global, WaitArgs};
use crate::client::Client;
use crate::failure::{Failure, is_break};
use crate::{duration, output};
use lighter_proto::v1::{self, RolloutState};
use std::time::{Duration, Instant};

/// Between two looks.
const POLL: Duration = Duration::from_millis(500);

/// What a look at a service says of the rollout that is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Underway,
    Steady,
    /// It will not come; why.
    Never(String),
}

/// Waits, unless told not to.
pub async fn until_steady(
    global: &Global,
    client: &mut Client,
    mut service: v1::Service,
    args: &WaitArgs,
) -> Result<(), Failure> {
    let target = service.deployments.first().map(|deployment| deployment.id.clone()).unwrap_or_default();
    let (begun, mut said) = (Instant::now(), String::new());
    if args.detach {
        return look::print(global, &service);
    }
    loop {
        let progress = progress(&service);
        if progress != said && !global.quiet {
            output::note(&format!("[{:>4}] {progress}", duration::short(begun.elapsed())));
            said = progress;
        }
        match outcome(&service, &target) {
            Outcome::Underway => (),
            Outcome::Steady => break,
            Outcome::Never(message) => {
                let next = format!("lighter service events {}", service.service_name);
                return Err(Failure::Unavailable { message, next });
            }
        }
        if begun.elapsed() > args.timeout {
            let message = format!("service {} is not steady: {said}", service.service_name);
            let next = format!("lighter why {}", service.service_name);
            return Err(Failure::Unavailable { message, next });
        }
        tokio::time::sleep(POLL).await;
        service = match super::get(client, &service.cluster, &service.service_name).await {
            Ok(service) => service,
            // A control plane that is away for a moment ends no rollout.
            Err(Failure::Rpc { status, .. }) if is_break(&status) => service,
            Err(failure) => return Err(failure),
        };
    }
    look::print(global, &service)
}

/// Waits until the tasks of a deleted service are gone.
pub async fn until_gone(
    global: &Global,
    client: &mut Client,
    mut service: v1::Service,
    args: &WaitArgs,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut said = None;
    while service.status == v1::ServiceStatus::Draining as i32 {
        let left = service.running_count + service.pending_count;
        if said.replace(left) != Some(left) && !global.quiet {
            output::note(&format!("[{:>4}] {left} tasks left", duration::short(begun.elapsed())));
        }
        if begun.elapsed() > args.timeout {
            let message = format!("service {} still has {left} tasks", service.service_name);
            return Err(Failure::Unavailable { message, next: "lighter ps".to_owned() });
        }
        tokio::time::sleep(POLL).await;
        match super::find(client, &service.cluster, &service.service_name).await? {
            Some(found) => service = found,
            None => break,
        }
    }
    look::print(global, &service)
}

fn outcome(service: &v1::Service, target: &str) -> Outcome {
    if service.status != v1::ServiceStatus::Active as i32 {
        return Outcome::Never(format!("service {} is being deleted", service.service_name));
    }
    let Some(primary) = service.deployments.first() else { return Outcome::Underway };
    if primary.rollout_state() == RolloutState::InProgress {
        return Outcome::Underway;
    }
    if primary.id != target {
        let old = service.deployments.iter().find(|deployment| deployment.id == target);
        let why = old.map(|old| old.rollout_state_reason.clone()).filter(|why| !why.is_empty());
        let how = if primary.rollback_of == target { "was rolled back to" } else { "was superseded by" };
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        return Outcome::Never(format!("the deployment {how} {}{why}", primary.task_definition));
    }
    match primary.rollout_state() {
        RolloutState::Paused => Outcome::Never(format!(
            "the deployment is paused; lighter service resume {}",
            service.service_name
        )),
        RolloutState::Failed | RolloutState::RolledBack | RolloutState::Superseded => {
            Outcome::Never(format!("the deployment failed: {}", primary.rollout_state_reason))
        }
        _ => {
            let others =
                service.deployments.iter().skip(1).any(|old| old.running_count + old.pending_count > 0);
            let steady =
                service.running_count == service.desired_count && service.pending_count == 0 && !others;
            if steady { Outcome::Steady } else { Outcome::Underway }
        }
    }
}

/// `web:4 2/3 running, 1 healthy, 1 pending; web:3 2 running`.
fn progress(service: &v1::Service) -> String {
    let mut parts = Vec::new();
    for (place, d) in service.deployments.iter().enumerate() {
        if place == 0 {
            let pending =
                if d.pending_count > 0 { format!(", {} pending", d.pending_count) } else { String::new() };
            let failed =
                if d.failed_tasks > 0 { format!(", {} failed", d.failed_tasks) } else { String::new() };
            let (running, wanted, healthy) = (d.running_count, d.desired_count, d.healthy_count);
            let back = if d.rollback_of.is_empty() { "" } else { "back to " };
            let name = &d.task_definition;
            parts
                .push(format!("{back}{name} {running}/{wanted} running, {healthy} healthy{pending}{failed}"));
        } else if d.running_count + d.pending_count > 0 {
            parts.push(format!("old {}: {} left", d.task_definition, d.running_count + d.pending_count));
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(id: &str, state: RolloutState, running: u32) -> v1::Deployment {
        v1::Deployment {
            id: id.into(),
            task_definition: format!("web:{id}"),
            rollout_state: state as i32,
            desired_count: 3,
            running_count: running,
            healthy_count: running,
            ..Default::default()
        }
    }

    fn service(deployments: Vec<v1::Deployment>) -> v1::Service {
        v1::Service {
            service_name: "web".into(),
            status: v1::ServiceStatus::Active as i32,
            desired_count: 3,
            running_count: deployments.iter().map(|d| d.running_count).sum(),
            deployments,
            ..Default::default()
        }
    }

    #[test]
    fn steady_is_completed_with_the_wanted_number_and_no_old_tasks() {
        let done = RolloutState::Completed;
        assert_eq!(outcome(&service(vec![deployment("2", done, 3)]), "2"), Outcome::Steady);
        assert_eq!(outcome(&service(vec![deployment("2", done, 2)]), "2"), Outcome::Underway);
        let two = service(vec![deployment("2", RolloutState::InProgress, 2), deployment("1", done, 1)]);
        assert_eq!(outcome(&two, "2"), Outcome::Underway);
        assert_eq!(progress(&two), "web:2 2/3 running, 2 healthy; old web:1: 1 left");
    }

    #[test]
    fn a_rollback_is_waited_for_and_then_said() {
        let failed = v1::Deployment {
            rollout_state_reason: "tasks failed to start".into(),
            ..deployment("2", RolloutState::RolledBack, 0)
        };
        let back = |state| v1::Deployment { rollback_of: "2".into(), ..deployment("3", state, 3) };
        let during = service(vec![back(RolloutState::InProgress), failed.clone()]);
        assert_eq!(outcome(&during, "2"), Outcome::Underway);
        let after = service(vec![back(RolloutState::Completed), failed]);
        let said = "the deployment was rolled back to web:3: tasks failed to start".to_owned();
        assert_eq!(outcome(&after, "2"), Outcome::Never(said));
    }
}

//! One service with a health check on all nodes of a bed: what its update and its drain begin with.
//! In: a bed. Out: a service at its desired count. Owns the running processes.
//! A health check that has passed with the first report, and no port: neither the 40 s rule nor a
//! deregistrationDelay is in any time.

pub(crate) mod drain;
pub(crate) mod rolling;

use super::bed::{Bed, PATIENCE, Running};
use super::callers::verify_ids;
use super::placements::cpu;
use super::plan::Plan;
use anyhow::{Context, Result};
use lighter_proto::v1;
use std::time::{Duration, Instant};

const NAME: &str = "web";
const FAMILY: &str = "served";

/// How often the service is looked at.
const LOOK: Duration = Duration::from_millis(20);

struct Served {
    running: Running,
    desired: usize,
}

impl Served {
    async fn start(bed: &Bed, plan: &Plan) -> Result<Self> {
        let mut served = Self { running: bed.start().await?, desired: plan.service_tasks };
        let revision = served.register().await?;
        let json = serde_json::json!({
            "serviceName": NAME,
            "taskDefinition": revision,
            "desiredCount": served.desired,
            // A move between nodes would be in whichever time it falls.
            "availabilityZoneRebalancing": "DISABLED",
            "deploymentConfiguration": {"minimumHealthyPercent": 100, "maximumPercent": 200},
            "placementStrategy": [
                {"type": "spread", "field": "attribute:ecs.availability-zone"},
                {"type": "spread", "field": "instanceId"},
            ],
        });
        let request = v1::CreateServiceRequest { json: json.to_string() };
        served.running.client.create_service(request).await?;
        served.completed(&revision).await?;
        Ok(served)
    }

    /// A further revision of the service's family, as `family:revision`.
    async fn register(&mut self) -> Result<String> {
        let json = serde_json::json!({
            "family": FAMILY,
            "containerDefinitions": [{
                "name": "web", "image": "registry.example/web:1", "cpu": 128, "memory": 128,
                "healthCheck": {"command": ["CMD-SHELL", "true"]},
            }],
        });
        let request = v1::RegisterTaskDefinitionRequest { json: json.to_string() };
        let answer = self.running.client.register_task_definition(request).await?.into_inner();
        let definition = answer.task_definition.context("no task definition")?;
        Ok(format!("{}:{}", definition.family, definition.revision))
    }

    async fn describe(&mut self) -> Result<v1::Service> {
        let request = v1::DescribeServicesRequest { services: vec![NAME.to_owned()], ..Default::default() };
        let answer = self.running.client.describe_services(request).await?.into_inner();
        answer.services.into_iter().next().context("the service is missing")
    }

    /// Waits until the deployment of a revision is COMPLETED and nothing but its tasks is left: the fewest
    /// RUNNING tasks that were seen meanwhile. Fails when the deployment ends otherwise.
    async fn completed(&mut self, revision: &str) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        let mut fewest = usize::MAX;
        loop {
            let service = self.describe().await?;
            fewest = fewest.min(service.running_count as usize);
            let own = service.deployments.iter().find(|deployment| deployment.task_definition == revision);
            let own = own.with_context(|| format!("no deployment of {revision}"))?;
            match own.rollout_state() {
                v1::RolloutState::Completed if self.is_at_desired(&service) => return Ok(fewest),
                v1::RolloutState::Completed | v1::RolloutState::InProgress => {}
                other => anyhow::bail!("the deployment is {other:?}: {}", own.rollout_state_reason),
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the deployment took longer than {PATIENCE:?}: of the service {} run and {} are pending, of {revision} {}",
                service.running_count,
                service.pending_count,
                own.running_count
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_at_desired(&self, service: &v1::Service) -> bool {
        service.running_count as usize == self.desired && service.pending_count == 0
    }

    /// Every task of the service that shall run, looked up: all are RUNNING, of this revision if one is named,
    /// and as many as desired; the nodes hold these and no others.
    async fn verify(&mut self, revision: Option<&str>) -> Result<Vec<v1::Task>> {
        let (mut ids, mut next_token) = (Vec::new(), String::new());
        loop {
            let request =
                v1::ListTasksRequest { family: FAMILY.to_owned(), next_token, ..Default::default() };
            let page = self.running.client.list_tasks(request).await?.into_inner();
            ids.extend(page.task_ids);
            if page.next_token.is_empty() {
                break;
            }
            next_token = page.next_token;
        }
        let tasks = verify_ids(&mut self.running.client, &ids).await?;
        anyhow::ensure!(tasks.len() == self.desired, "{} tasks run of {}", tasks.len(), self.desired);
        let others =
            tasks.iter().filter(|task| revision.is_some_and(|wanted| task.task_definition != wanted));
        let others = others.count();
        anyhow::ensure!(others == 0, "{others} tasks are of another revision");
        let desired = self.desired;
        self.running
            .fleet
            .wait("forgetting what was stopped", PATIENCE, |status| status.held == desired)
            .await?;
        Ok(tasks)
    }

    /// CPU seconds of each process since `before`, in words.
    fn cpu_since(&self, before: [f64; 4]) -> Result<String> {
        let after = cpu(&self.running)?;
        let seconds = |which: usize| after[which] - before[which];
        Ok(format!("CPU s: server {:.2}, nodes {:.2}, callers {:.2}", seconds(0), seconds(1), seconds(2)))
    }
}

//! Arguments of the commands about services and placement. In: arguments. Out: values. Never: acts.

use super::duration;
use clap::{Args, Subcommand};
use std::time::Duration;

/// Whether a change is waited for.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Come back at once; the change goes on
    #[arg(long)]
    pub detach: bool,
    /// How long to wait for the service to be steady
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// A service by name.
#[derive(Debug, Args)]
pub struct OneService {
    /// Its name
    pub service: String,
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Make a service that keeps tasks running
    Create(CreateServiceArgs),
    /// Change a service; a new task definition is rolled out
    Update(UpdateServiceArgs),
    /// Change how many tasks it keeps running
    Scale(ScaleArgs),
    /// Go back to the deployment that was completed last
    Rollback(ControlDeploymentArgs),
    /// Hold the rollout where it is
    Pause(OneService),
    /// Let a paused rollout go on
    Resume(ControlDeploymentArgs),
    /// What happened to it, the newest last
    Events(ServiceEventsArgs),
    /// Delete it; its tasks are stopped
    Rm(RemoveServiceArgs),
    /// List services
    Ls {
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Everything about a service
    Describe(OneService),
    /// Where its healthy tasks are reached, for a load balancer
    Endpoints(EndpointsArgs),
}

#[derive(Debug, Args)]
pub struct CreateServiceArgs {
    /// Name of the service; or a JSON or YAML file with the input of `aws ecs create-service`
    pub what: String,
    /// family or family:revision
    #[arg(long, value_name = "FAMILY")]
    pub task_definition: Option<String>,
    /// How many tasks
    #[arg(long)]
    pub count: Option<u32>,
    /// One task on every node instead of a count
    #[arg(long, conflicts_with = "count")]
    pub daemon: bool,
    #[command(flatten)]
    pub rollout: RolloutArgs,
    #[arg(long)]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Members that create and update share.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    /// Percentage of the count that stays healthy during a rollout
    #[arg(long, value_name = "PERCENT")]
    pub min_healthy: Option<u32>,
    /// Percentage of the count that may be there during a rollout
    #[arg(long, value_name = "PERCENT")]
    pub max: Option<u32>,
    /// End a rollout whose tasks fail, and go back
    #[arg(long)]
    pub circuit_breaker: bool,
    #[command(flatten)]
    pub placement: PlacementArgs,
}

/// Where tasks may go, and where rather.
#[derive(Debug, Args)]
pub struct PlacementArgs {
    /// distinctInstance, or memberOf:EXPRESSION in the cluster query language; may be repeated
    #[arg(long, value_name = "CONSTRAINT")]
    pub constraint: Vec<String>,
    /// random, spread:FIELD, binpack:cpu, binpack:memory or custom:EXPRESSION; may be repeated, in order
    #[arg(long, value_name = "STRATEGY")]
    pub strategy: Vec<String>,
}

#[derive(Debug, Args)]
pub struct UpdateServiceArgs {
    #[command(flatten)]
    pub service: OneService,
    /// family or family:revision
    #[arg(long, value_name = "FAMILY")]
    pub task_definition: Option<String>,
    /// How many tasks
    #[arg(long)]
    pub count: Option<u32>,
    /// New tasks even when nothing changed
    #[arg(long)]
    pub force_new_deployment: bool,
    #[command(flatten)]
    pub rollout: RolloutArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// Its name
    pub service: String,
    /// How many tasks
    pub count: u32,
    #[arg(long)]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct ControlDeploymentArgs {
    #[command(flatten)]
    pub service: OneService,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct ServiceEventsArgs {
    #[command(flatten)]
    pub service: OneService,
    /// Go on as events come
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct RemoveServiceArgs {
    #[command(flatten)]
    pub service: OneService,
    /// Also when it shall have tasks
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct EndpointsArgs {
    #[command(flatten)]
    pub service: OneService,
    /// Go on with the whole list whenever it changes
    #[arg(short, long)]
    pub follow: bool,
    /// Of this container [default: the only one with ports]
    #[arg(long, value_name = "NAME", default_value = "")]
    pub container: String,
    /// Of this port of the container [default: the only one]
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub container_port: u32,
}

#[derive(Debug, Subcommand)]
pub enum StrategyCommand {
    /// Show what a scoring expression gives each node
    Test {
        /// A file with the expression, or `-` for standard input
        file: String,
        /// Whose task is to be placed [default: one that needs nothing]
        #[arg(long, value_name = "FAMILY", default_value = "")]
        task_definition: String,
        /// Task group [default: family:<family>]
        #[arg(long, default_value = "")]
        group: String,
        #[arg(long)]
        cluster: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// A task, or a service
    pub what: String,
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Debug, Args)]
pub struct StartArgs {
    /// family or family:revision
    pub task_definition: String,
    /// Nodes: names, ids or beginnings of them; one task on each, without asking the scheduler
    #[arg(required = true)]
    pub nodes: Vec<String>,
    #[arg(long)]
    pub cluster: Option<String>,
    /// Task group [default: family:<family>]
    #[arg(long, default_value = "")]
    pub group: String,
    /// Free text that `ps` can filter by
    #[arg(long, default_value = "")]
    pub started_by: String,
    /// The `overrides` of `aws ecs start-task`, as JSON
    #[arg(long, value_name = "JSON", default_value = "")]
    pub overrides: String,
}

#[derive(Debug, Args)]
pub struct ProtectArgs {
    /// Task ids or beginnings of them
    #[arg(required = true)]
    pub tasks: Vec<String>,
    #[arg(long)]
    pub cluster: Option<String>,
    /// How long, 1m to 48h
    #[arg(long = "for", value_name = "TIME", default_value = "2h", value_parser = duration::parse)]
    pub lasting: Duration,
    /// Take the protection back
    #[arg(long)]
    pub off: bool,
    /// Only show it
    #[arg(long, conflicts_with = "off")]
    pub show: bool,
}

#[derive(Debug, Args)]
#[command(after_help = DEPLOY_AFTER_HELP)]
pub struct DeployArgs {
    /// A JSON or YAML file, or `-` for standard input
    pub file: String,
    /// Only show what would change
    #[arg(long)]
    pub plan: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

const DEPLOY_AFTER_HELP: &str = "\
Each document has `taskDefinition:`, the input of register-task-definition, and `service:`, the input
of create-service, which then needs no taskDefinition; or it is the input of create-service alone.
What is deployed is compared with it; a service that somebody changed since then is not touched.";

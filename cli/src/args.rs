//! What may be typed: every command and option, with the help that people read.
//! In: arguments and LIGHTER_* variables. Out: `Cli`. Never: acts, or reads anything but its input.

mod cluster;
mod node;
#[cfg(test)]
mod page;
mod service;

use crate::detach::DetachKeys;
pub use cluster::{AttributeArgs, ClusterCommand, OrphanCommand, RemoveNodeArgs, TagCommand};
pub use node::{DrainArgs, NoticeArgs, NoticeKind, StopAgentArgs};
pub use service::{
    ControlDeploymentArgs, CreateServiceArgs, DeployArgs, EndpointsArgs, OneService, PlacementArgs,
    ProtectArgs, RemoveServiceArgs, RolloutArgs, ScaleArgs, ServiceCommand, ServiceEventsArgs, StartArgs,
    StrategyCommand, UpdateServiceArgs, WaitArgs, WhyArgs,
};

use crate::duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Where the control plane is found: --endpoint, else LIGHTER_ENDPOINT, else the socket
/run/lighter/control.sock, else https://127.0.0.1:7443. Who you are: --key, else LIGHTER_KEY, else
~/.config/lighter/admin.pem, else /var/lib/lighter/admin.pem. The socket needs no key.

Exit codes but those of `exec`: 0 done, 1 failure, 2 wrong usage, 3 refused or invalid, 4 not found, 5 not available now,
6 not permitted. `run --wait` ends with the exit code of the task's essential container; 125 when
Lighter could not run it, 126 when its program could not be started, 127 when it was not found.

LIGHTER_LOG=debug shows what happens inside; NO_COLOR turns colours off.";

/// Containers on your own machines: ECS task definitions, no Docker.
#[derive(Debug, Parser)]
#[command(name = "lighter", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The control plane: https://host:port, host, or unix:///path; several with commas between them
    #[arg(long, env = "LIGHTER_ENDPOINT", global = true, value_name = "URL", hide_env_values = true)]
    pub endpoint: Option<String>,
    /// Your certificate, key and CA in one PEM file (mode 0600), as the control plane made it
    #[arg(long, env = "LIGHTER_KEY", global = true, value_name = "FILE", hide_env_values = true)]
    pub key: Option<PathBuf>,
    /// How to print: a table of at most 100 columns, JSON, YAML, or a table as wide as it gets
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Print ids only, and no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
    Wide,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The daemon of a node, and joining a cluster
    Agent(AgentArgs),
    /// The control plane's daemon
    Control(ControlArgs),
    /// Control plane and agent on this machine, for trying things out (root)
    Dev(DevArgs),
    /// Clusters: create, list, show, update, remove
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Tags of clusters, nodes, tasks and task definitions
    #[command(subcommand)]
    Tag(TagCommand),
    /// Tokens with which nodes join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Task definitions: register, list, show, deregister, remove
    #[command(subcommand, visible_alias = "td")]
    TaskDefinition(TaskDefinitionCommand),
    /// Run a task of a task definition, or of a file with one
    Run(RunArgs),
    /// Start a task on nodes that you name
    Start(StartArgs),
    /// Services: keep tasks running, and roll out new ones
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Bring a task definition and a service to what a file says; shows what changes, then asks
    Deploy(DeployArgs),
    /// The cluster on one screen: what is wrong first, then nodes, services and tasks
    Status {
        #[arg(long)]
        cluster: Option<String>,
    },
    /// What a task or a service waits for, and why its tasks fit nowhere
    Why(WhyArgs),
    /// Tasks that wait for room
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Custom placement strategies
    #[command(subcommand)]
    Strategy(StrategyCommand),
    /// List tasks
    Ps(PsArgs),
    /// One task: address, ports, limits as the kernel has them
    #[command(subcommand)]
    Task(TaskCommand),
    /// The output of a task's containers
    Logs(LogsArgs),
    /// Run a program in a container
    Exec(ExecArgs),
    /// Join the input and output of a container's own program
    Attach(AttachArgs),
    /// Copy files between this machine and a container
    Cp(CpArgs),
    /// What containers use now: CPU, memory, network, disk, pressure
    Top(TopArgs),
    /// Let no process of a task run until `unpause`
    Pause(PauseArgs),
    /// Let a paused task go on
    Unpause(PauseArgs),
    /// Stop tasks
    Stop(StopArgs),
    /// Nodes (container instances)
    #[command(subcommand)]
    Node(NodeCommand),
    /// Tasks on nodes that the control plane's store does not know, after it was set back: list, adopt, stop
    #[command(subcommand)]
    Orphan(OrphanCommand),
    /// What happens in the cluster
    Events(EventsArgs),
    /// Who changed what, and who looked into which running task
    Audit(AuditArgs),
    /// Images of this node, through its agent's socket, or of others: pull, list, remove, load, save
    #[command(subcommand)]
    Image(ImageCommand),
    /// Disk use of this node, through its agent's socket
    #[command(subcommand)]
    System(SystemCommand),
    /// Print a completion script for a shell
    Completion { shell: clap_complete::Shell },
}

impl Command {
    /// Daemons log to standard error from the start; other commands only when asked.
    pub fn is_daemon(&self) -> bool {
        match self {
            Self::Agent(args) => args.command.is_none(),
            Self::Control(args) => args.command.is_none(),
            Self::Dev(_) => true,
            _ => false,
        }
    }

    /// Whether this process starts tasks.
    pub fn runs_an_agent(&self) -> bool {
        self.is_daemon() && !matches!(self, Self::Control(_))
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Every key of the file may be given as LIGHTER_<KEY> too, like LIGHTER_DATA_DIR.")]
pub struct AgentArgs {
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// Settings file [default: /etc/lighter/agent.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "LIGHTER_AGENT_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// State of this node
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Sockets and what lives as long as the machine runs
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Any key of the settings file, over the file's value
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Make this machine a node of a cluster, with a token from `lighter token create`
    Join(JoinArgs),
    /// Stop every task of this node, then its agent
    Stop(StopAgentArgs),
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The control plane, like https://control.example:7443
    pub control: String,
    /// The one-use token; `-` reads it from standard input
    #[arg(long, env = "LIGHTER_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Name of this node [default: the host name]
    #[arg(long)]
    pub name: Option<String>,
    /// State of this node
    #[arg(long, value_name = "DIR", env = "LIGHTER_DATA_DIR", default_value = "/var/lib/lighter")]
    pub data_dir: PathBuf,
    /// Give up the identity this machine has
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ControlArgs {
    #[command(subcommand)]
    pub command: Option<ControlCommand>,
    /// Settings file [default: /etc/lighter/control.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "LIGHTER_CONTROL_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// State: store, CA, administrator key
    #[arg(long, value_name = "DIR", env = "LIGHTER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address served with TLS; may be repeated
    #[arg(long, value_name = "ADDRESS", env = "LIGHTER_LISTEN", value_delimiter = ',')]
    pub listen: Option<Vec<SocketAddr>>,
    /// Unix socket, or loopback address, served without TLS; may be repeated
    #[arg(long, value_name = "ADDRESS", env = "LIGHTER_LISTEN_PLAINTEXT", value_delimiter = ',')]
    pub listen_plaintext: Option<Vec<String>>,
    /// DNS name or address for the server's certificate; may be repeated
    #[arg(long, value_name = "NAME", env = "LIGHTER_SERVER_NAMES", value_delimiter = ',')]
    pub server_name: Option<Vec<String>>,
    /// How often nodes say that they live, in milliseconds
    #[arg(long, value_name = "MS", env = "LIGHTER_HEARTBEAT_INTERVAL_MS")]
    pub heartbeat_interval_ms: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub enum ControlCommand {
    /// The whole state in one file: save, restore, verify
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Copy the state to another store; no control plane may run meanwhile
    MigrateStore {
        /// Settings file of the control plane that shall have the state
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Replace what is in that store
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Write a snapshot, and read it back; a control plane that runs gives it
    Save { file: PathBuf },
    /// Put a snapshot's content into the store; no control plane may run meanwhile
    Restore {
        file: PathBuf,
        /// Replace what is in the store
        #[arg(long)]
        force: bool,
    },
    /// Read a snapshot and say whether it is whole
    Verify { file: PathBuf },
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// State of control plane and agent
    #[arg(long, value_name = "DIR", default_value = "/var/lib/lighter-dev")]
    pub data_dir: PathBuf,
    /// Sockets and what lives as long as the machine runs
    #[arg(long, value_name = "DIR", default_value = "/run/lighter")]
    pub run_dir: PathBuf,
    /// Any key of the agent's settings file
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a one-use token for `lighter agent join`
    Create {
        #[arg(long)]
        cluster: Option<String>,
        /// How long it is good for, like 30m or 1h; at most a day
        #[arg(long, default_value = "1h", value_parser = duration::parse)]
        ttl: Duration,
        /// An attribute of the node that it cannot change; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        attribute: Vec<(String, String)>,
    },
}

#[derive(Debug, Subcommand)]
pub enum TaskDefinitionCommand {
    /// Register a file: the input of `aws ecs register-task-definition`, as it is
    Register {
        /// A JSON file, or `-` for standard input
        file: String,
    },
    /// List revisions
    Ls {
        /// Only families that begin so
        prefix: Option<String>,
        /// Deregistered revisions instead
        #[arg(long)]
        inactive: bool,
    },
    /// Let no new tasks be made of a revision
    Deregister {
        /// family:revision
        task_definition: String,
    },
    /// Delete deregistered revisions; one that tasks use goes with the last of them
    Rm {
        /// family:revision
        #[arg(required = true)]
        task_definitions: Vec<String>,
    },
    /// List families
    Families {
        /// Only families that begin so
        prefix: Option<String>,
    },
    /// Show one, as JSON that can be registered again
    Show {
        /// family, or family:revision
        task_definition: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List them in the order of their turns
    Ls {
        #[arg(long)]
        cluster: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// family, family:revision, a JSON file, or `-` for standard input; a file is registered first
    pub what: String,
    /// Wait until the tasks have ended; exit with the exit code of the essential container
    #[arg(long)]
    pub wait: bool,
    /// Implies --wait; Ctrl-C stops the tasks, and what the file registered is deregistered
    #[arg(long)]
    pub rm: bool,
    /// How many tasks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    #[command(flatten)]
    pub placement: PlacementArgs,
    /// The `overrides` of `aws ecs run-task`, as JSON
    #[arg(long, value_name = "JSON", default_value = "")]
    pub overrides: String,
    /// Change nothing; say where the tasks would go, or why nowhere
    #[arg(long, conflicts_with_all = ["wait", "rm"])]
    pub dry_run: bool,
    /// Let a task that fits nowhere wait in the queue for room
    #[arg(long)]
    pub queue: bool,
    /// With --queue: it fails when it found no room after so long [default: 24h]
    #[arg(long, value_name = "TIME", requires = "queue", value_parser = duration::seconds)]
    pub queue_timeout: Option<u32>,
    /// With --queue: higher goes first
    #[arg(long, default_value_t = 0, requires = "queue", allow_negative_numbers = true)]
    pub priority: i32,
    #[arg(long)]
    pub cluster: Option<String>,
    /// Task group [default: family:<family>]
    #[arg(long)]
    pub group: Option<String>,
    /// Free text that `ps` can filter by
    #[arg(long)]
    pub started_by: Option<String>,
    /// Makes a repeated run safe: one token, one run
    #[arg(long, value_name = "TEXT")]
    pub client_token: Option<String>,
    /// A tag of the tasks; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub tag: Vec<(String, String)>,
    /// Whether the tasks take over their definition's tags [default: as the cluster's setting says]
    #[arg(long)]
    pub propagate_tags: Option<bool>,
    #[command(flatten)]
    pub silence: SilenceArgs,
}

/// What becomes of a task whose node falls silent
#[derive(Debug, Args)]
pub struct SilenceArgs {
    /// Run another in place of a task whose node is silent for --lost-after
    #[arg(long)]
    pub replace: bool,
    /// With --replace: how long the node is silent [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = duration::seconds, requires = "replace")]
    pub lost_after: Option<u32>,
    /// Never two at any instant: a node cut off from the control plane stops the task itself
    #[arg(long)]
    pub exclusive: bool,
    /// With --exclusive: how long it runs on a node that is cut off; at least twice the stopTimeout
    /// [default: as short as may be]
    #[arg(long, value_name = "DURATION", value_parser = duration::seconds, requires = "exclusive")]
    pub lease: Option<u32>,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Stopped tasks too
    #[arg(short, long)]
    pub all: bool,
    #[arg(long)]
    pub cluster: Option<String>,
    /// Only tasks of this family
    #[arg(long)]
    pub family: Option<String>,
    /// Only tasks on this node: name, id or the beginning of one
    #[arg(long)]
    pub node: Option<String>,
    #[arg(long)]
    pub started_by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Everything about a task
    Show(OneTask),
    /// Give a container of a running task other limits, without a restart
    Update(UpdateArgs),
    /// What happened to a task, in order: the control plane's lines and the node's
    Events(OneTask),
    /// What a task waits for, since when, until when, and what would end it
    Why(OneTask),
    /// Keep tasks of services from scale-in, deployments and rebalancing
    Protect(ProtectArgs),
}

/// A task: its id, the beginning of it, or the family when one task of it runs.
#[derive(Debug, Args)]
pub struct OneTask {
    /// Task id, the beginning of it, or a family with one task
    pub task: String,
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = EXEC_AFTER_HELP)]
pub struct ExecArgs {
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// As whom: name, uid, name:group or uid:gid [default: the container's]
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Where [default: the container's working directory]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// A variable beside the container's; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    #[command(flatten)]
    pub task: OneTask,
    /// In which container [default: the first essential one]
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

const EXEC_AFTER_HELP: &str = "\
Ends with the exit code of the program, 128 and the signal when one ended it; 125 when Lighter could
not run it, 126 when it could not be started, 127 when it was not found. The program ends when this
command does: it is hung up, and killed after five seconds.

lighter exec -it web -- sh
lighter exec web -c sidecar -- cat /etc/hosts";

#[derive(Debug, Args)]
pub struct AttachArgs {
    #[command(flatten)]
    pub task: OneTask,
    /// Which container [default: the first essential one]
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Only look
    #[arg(long)]
    pub no_stdin: bool,
    /// Keys that leave and let the container go on, when it has a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    pub detach_keys: DetachKeys,
}

#[derive(Debug, Args)]
#[command(after_help = CP_AFTER_HELP)]
pub struct CpArgs {
    /// Keep owners, and set-user-id bits of what comes from a container
    #[arg(short, long)]
    pub archive: bool,
    /// When the source is a symbolic link, copy what it leads to
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// PATH, TASK[/CONTAINER]:PATH, or `-` for a tar archive on standard input
    #[arg(value_name = "SOURCE")]
    pub from: String,
    /// PATH, TASK[/CONTAINER]:PATH, or `-` for a tar archive on standard output
    #[arg(value_name = "DESTINATION")]
    pub to: String,
    #[arg(long)]
    pub cluster: Option<String>,
}

const CP_AFTER_HELP: &str = "\
As with cp -r: into an existing directory, else under the new name; SOURCE/. copies what is in it. The
image needs no tar. Without --archive files belong to root in a container, and to you here.

lighter cp web:/var/log/nginx ./logs
lighter cp nginx.conf web/app:/etc/nginx/
tar -c site | lighter cp - web:/srv";

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Task id, the beginning of it, or a family with one task [default: every task]
    pub task: Option<String>,
    #[arg(long)]
    pub cluster: Option<String>,
    /// Print once and end
    #[arg(long)]
    pub once: bool,
    /// Between two looks, like 500ms or 2s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::commands::top::interval)]
    pub interval: Duration,
}

#[derive(Debug, Args)]
pub struct PauseArgs {
    #[command(flatten)]
    pub task: OneTask,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    pub task: OneTask,
    /// Which container [default: the only one]
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// CPU units, 1024 to a core
    #[arg(long, value_name = "UNITS", required_unless_present = "memory")]
    pub cpu: Option<u32>,
    /// Hard limit in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only this task: its id, or the beginning of it; the task may be gone
    pub task: Option<String>,
    #[arg(long)]
    pub cluster: Option<String>,
    /// Only what this user did
    #[arg(long)]
    pub user: Option<String>,
    /// The newest so many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub task: OneTask,
    /// Go on as lines come, until the task has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines of each container
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Only lines since then: 10m, 2h, or a time like 2026-01-02T15:04:05Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only this container
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// The time before each line
    #[arg(short, long)]
    pub timestamps: bool,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Task ids, beginnings of them, or families with one task
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// Why; kept with the task
    #[arg(long)]
    pub reason: Option<String>,
    /// Kill at once, without the stop signal and its time; also what is stopping already
    #[arg(long)]
    pub force: bool,
    /// Wait until they have stopped
    #[arg(long)]
    pub wait: bool,
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    Ls {
        #[arg(long)]
        cluster: Option<String>,
        /// Only those that match, in ECS's cluster query language: 'attribute:ecs.instance-type =~ t3.*'
        #[arg(long, value_name = "EXPRESSION")]
        filter: Option<String>,
    },
    /// Everything about a node
    Show {
        /// Name, id, or the beginning of one
        node: String,
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Give a node no new tasks; those it has go on unless --stop-tasks is given
    Drain(DrainArgs),
    /// Give a drained node tasks again
    Activate {
        /// Name, id, or the beginning of one
        node: String,
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Attributes of a node: list, set, take away
    Attribute(AttributeArgs),
    /// Take a node out of its cluster
    Rm(RemoveNodeArgs),
    /// On a node: tell it that its machine will not be there for long
    Notice(NoticeArgs),
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on as events come; without it, print those still kept
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this sequence number
    #[arg(long, value_name = "SEQUENCE")]
    pub after: Option<u64>,
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// What takes how much room on this node
    Df(AgentSocket),
    /// Remove images, layers and leftovers that nothing uses
    Prune {
        #[command(flatten)]
        socket: AgentSocket,
        /// Shared volumes that no task uses, too
        #[arg(long)]
        volumes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Bring an image here before a task wants it
    Pull {
        /// Like nginx, registry.example/app:1, or with @sha256:…
        #[arg(required_unless_present = "task_definition")]
        image: Option<String>,
        /// When to ask the registry [default: the node's setting]
        #[arg(long, value_name = "BEHAVIOR", value_parser = ["default", "always", "once", "prefer-cached"])]
        pull_behavior: Option<String>,
        /// On nodes: every image of this task definition, as its tasks would pull them
        #[arg(long, value_name = "FAMILY:REVISION", requires = "where")]
        task_definition: Option<String>,
        #[command(flatten)]
        nodes: ImageNodes,
        #[command(flatten)]
        socket: AgentSocket,
    },
    /// List images
    Ls {
        #[command(flatten)]
        nodes: ImageNodes,
        #[command(flatten)]
        socket: AgentSocket,
    },
    /// Remove every image that no task uses
    Prune {
        #[command(flatten)]
        nodes: ImageNodes,
        #[command(flatten)]
        socket: AgentSocket,
    },
    /// Everything about an image, as JSON: manifest and config too
    Inspect {
        image: String,
        #[command(flatten)]
        socket: AgentSocket,
    },
    /// Remove images that no task uses
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        socket: AgentSocket,
    },
    /// Load the images of an archive: OCI (skopeo, podman, `image save`), or docker save's
    Load {
        /// A tar file, not compressed, or `-` for standard input
        file: String,
        /// What to call an image that brings no name, or to call it otherwise
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        socket: AgentSocket,
    },
    /// Write an image as an OCI archive that skopeo, podman and docker load
    Save {
        image: String,
        /// A file, or `-` for standard output
        file: String,
        #[command(flatten)]
        socket: AgentSocket,
    },
}

/// Through the control plane, on other nodes; each goes its own way, and those that fail are named.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ImageNodes {
    /// On this node instead: name, id, or the beginning of one; may be repeated
    #[arg(long, value_name = "NODE", group = "where")]
    pub node: Vec<String>,
    /// On every active node of the cluster instead
    #[arg(long, group = "where")]
    pub all: bool,
    #[arg(long, requires = "where")]
    pub cluster: Option<String>,
}

impl ImageNodes {
    /// Whether other nodes than this machine are meant.
    pub fn elsewhere(&self) -> bool {
        self.all || !self.node.is_empty()
    }
}

#[derive(Debug, Args)]
pub struct AgentSocket {
    /// The agent's socket
    #[arg(
        long,
        value_name = "PATH",
        env = "LIGHTER_AGENT_SOCKET",
        default_value = "/run/lighter/agent.sock"
    )]
    pub agent_socket: PathBuf,
}

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_agent_runs_without_a_subcommand_and_joins_with_one() {
        let daemon = Cli::try_parse_from(["lighter", "agent", "--set", "bridge=x"]).unwrap();
        assert!(daemon.command.is_daemon() && daemon.command.runs_an_agent());
        let control = Cli::try_parse_from(["lighter", "control"]).unwrap();
        assert!(control.command.is_daemon() && !control.command.runs_an_agent());
        let join = Cli::try_parse_from(["lighter", "agent", "join", "https://c:1", "--token", "t"]).unwrap();
        assert!(!join.command.is_daemon() && !join.command.runs_an_agent());
    }
}

//! One file per command; here the way from the parsed arguments to it.
//! In: `Cli`. Out: an exit code or a failure. Never: does a command's work itself.

mod agent;
mod attach;
mod attribute;
mod audit;
mod cluster;
mod completion;
mod control;
mod cp;
mod deploy;
mod dev;
mod drain;
mod events;
mod exec;
mod image;
mod logs;
mod node;
mod orphan;
mod pause;
mod placement;
mod protect;
mod ps;
mod queue;
mod run;
mod service;
mod status;
mod stop;
mod system;
mod task;
mod task_definition;
mod token;
pub mod top;

use crate::args::{
    AgentCommand, Cli, Command, Format, Global, NodeCommand, QueueCommand, SystemCommand, TaskCommand,
    TokenCommand,
};
use crate::failure::{Exit, Failure};
use crate::table::{Table, WIDTH_MAX};
use crate::{client, output};
use std::process::ExitCode;

/// Runs the command.
pub async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Agent(args) => match args.command {
            Some(AgentCommand::Join(join)) => agent::join(global, join).await?,
            Some(AgentCommand::Stop(stop)) => agent::stop(global, stop).await?,
            None => agent::run(args).await?,
        },
        Command::Control(args) => control::run(global, args).await?,
        Command::Dev(args) => dev::run(args).await?,
        Command::Run(args) => return run::run(global, args).await,
        Command::Exec(args) => return Ok(exec::run(global, args).await),
        Command::Attach(args) => {
            return attach::run(global, &mut client::connect(global).await?, args).await;
        }
        Command::Node(NodeCommand::Notice(args)) => drain::notice(global, args).await?,
        Command::Completion { shell } => completion::run(shell)?,
        Command::Image(command) => image::run(global, command).await?,
        Command::System(SystemCommand::Df(socket)) => system::df(global, &socket).await?,
        Command::System(SystemCommand::Prune { socket, volumes }) => {
            system::prune(global, &socket, volumes).await?
        }
        command => with_control_plane(global, command).await?,
    }
    Ok(Exit::Done.into())
}

/// The commands that are one conversation with the control plane.
async fn with_control_plane(global: &Global, command: Command) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    let client = &mut client;
    match command {
        Command::Token(TokenCommand::Create { cluster, ttl, attribute }) => {
            token::create(global, client, cluster, ttl, attribute).await
        }
        Command::Cluster(command) => cluster::run(global, client, command).await,
        Command::Tag(command) => cluster::tag(global, client, command).await,
        Command::TaskDefinition(command) => task_definition::run(global, client, command).await,
        Command::Ps(args) => ps::run(global, client, args).await,
        Command::Task(TaskCommand::Show(args)) => task::show(global, client, args).await,
        Command::Task(TaskCommand::Update(args)) => pause::update(global, client, args).await,
        Command::Pause(args) => pause::pause(global, client, args).await,
        Command::Unpause(args) => pause::unpause(global, client, args).await,
        Command::Cp(args) => cp::run(global, client, args).await,
        Command::Top(args) => top::run(global, client, args).await,
        Command::Audit(args) => audit::run(global, client, args).await,
        Command::Task(TaskCommand::Events(args)) => task::events::run(global, client, args).await,
        Command::Task(TaskCommand::Why(args)) => task::why::run(global, client, args).await,
        Command::Task(TaskCommand::Protect(args)) => protect::protect(global, client, args).await,
        Command::Start(args) => protect::start(global, client, args).await,
        Command::Why(args) => protect::why(global, client, args).await,
        Command::Service(command) => service::run(global, client, command).await,
        Command::Deploy(args) => deploy::run(global, client, args).await,
        Command::Status { cluster } => status::run(global, client, cluster).await,
        Command::Queue(QueueCommand::Ls { cluster }) => queue::ls(global, client, cluster).await,
        Command::Strategy(command) => placement::strategy(global, client, command).await,
        Command::Logs(args) => logs::run(global, client, args).await,
        Command::Stop(args) => stop::run(global, client, args).await,
        Command::Node(NodeCommand::Ls { cluster, filter }) => node::ls(global, client, cluster, filter).await,
        Command::Node(NodeCommand::Show { node, cluster }) => {
            node::show(global, client, &node, cluster).await
        }
        Command::Node(NodeCommand::Attribute(args)) => attribute::run(global, client, args).await,
        Command::Node(NodeCommand::Rm(args)) => attribute::remove(global, client, args).await,
        Command::Node(NodeCommand::Drain(args)) => drain::drain(global, client, args).await,
        Command::Node(NodeCommand::Activate { node, cluster }) => {
            drain::activate(global, client, node, cluster).await
        }
        Command::Orphan(command) => orphan::run(global, client, command).await,
        Command::Events(args) => events::run(global, client, args).await,
        // `run` above has taken these.
        Command::Node(NodeCommand::Notice(_))
        | Command::Agent(_)
        | Command::Control(_)
        | Command::Dev(_)
        | Command::Run(_)
        | Command::Exec(_)
        | Command::Attach(_)
        | Command::Completion { .. }
        | Command::Image(_)
        | Command::System(_) => Ok(()),
    }
}

/// The API takes an empty cluster for `default`.
fn cluster(given: Option<String>) -> String {
    given.unwrap_or_default()
}

/// Prints a table as the person wants it.
fn print_table(global: &Global, table: &Table) -> Result<(), Failure> {
    let width = (global.output != Format::Wide).then_some(WIDTH_MAX);
    output::print(&table.render(width, output::colour()))
}

//! `lighter agent`, the daemon of a node, `lighter agent join` and `lighter agent stop`.
//! In: /etc/lighter/agent.toml, LIGHTER_<KEY> variables, flags; the later wins. Out: containers.
//! Owns: the time between start and SIGTERM. Tasks go on without it.

use crate::args::{AgentArgs, Format, Global, JoinArgs, StopAgentArgs};
use crate::client;
use crate::commands::task_definition;
use crate::daemon::{self, Interrupts};
use crate::failure::{Exit, Failure};
use crate::output;
use lighter_agent::{Agent, AgentConfig, ConfigOverrides, JoinError, JoinOptions, StartError};
use lighter_proto::v1;
use serde_json::json;

const WHAT: &str = "run the agent";

pub async fn run(args: AgentArgs) -> Result<(), Failure> {
    let config = AgentConfig::load(args.config.as_deref(), &overrides(&args))
        .map_err(|source| Failure::daemon(WHAT, Exit::Refused, source))?;
    // Before the start, so that a SIGTERM during it is not lost.
    let mut interrupts = Interrupts::new()?;
    let handle = Agent::start(config).await.map_err(not_running)?;
    daemon::ready();
    let (stop, mut ended) = (handle.stopper(), Box::pin(handle.join()));
    tokio::select! {
        ended = &mut ended => return ended.map_err(not_running),
        () = interrupts.next() => {}
    }
    tracing::info!("the agent leaves; tasks go on");
    stop();
    ended.await.map_err(not_running)
}

/// Why there is no agent.
pub fn not_running(source: StartError) -> Failure {
    let exit = match &source {
        StartError::NotRoot { .. } => Exit::NotPermitted,
        StartError::NotJoined | StartError::Config(_) | StartError::SelfTest(_) => Exit::Refused,
        _ => Exit::Failed,
    };
    Failure::daemon(WHAT, exit, source)
}

fn overrides(args: &AgentArgs) -> ConfigOverrides {
    // Variables that are not UTF-8 are none of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut overrides = ConfigOverrides::from_env(variables);
    let directories = [("data_dir", &args.data_dir, "--data-dir"), ("run_dir", &args.run_dir, "--run-dir")];
    for (key, directory, flag) in directories {
        if let Some(directory) = directory {
            overrides.set(key, directory.to_string_lossy(), flag);
        }
    }
    for (key, value) in &args.set {
        overrides.set(key, value, &format!("--set {key}"));
    }
    overrides
}

pub async fn join(global: &Global, args: JoinArgs) -> Result<(), Failure> {
    let token = if args.token == "-" { task_definition::read("-")?.trim().to_owned() } else { args.token };
    let options = JoinOptions {
        endpoint: args.control,
        token,
        name: args.name.unwrap_or_default(),
        data_dir: args.data_dir,
        force: args.force,
    };
    let joined = lighter_agent::join(options).await.map_err(not_joined)?;
    if global.output == Format::Json {
        return output::json(&json!({
            "containerInstanceId": joined.container_instance_id.as_str(),
            "cluster": joined.cluster.as_str(),
            "credentials": joined.credentials,
        }));
    }
    output::line(joined.container_instance_id.as_str())?;
    if !global.quiet {
        output::note(&format!(
            "joined cluster {}; now start the agent:\n  systemctl enable --now lighter-agent",
            joined.cluster
        ));
    }
    Ok(())
}

/// Stops every task of this node, and then the agent.
pub async fn stop(global: &Global, args: StopAgentArgs) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&args.socket.agent_socket).await?;
    let request = v1::StopTasksRequest {
        stop_agent: !args.keep_agent,
        timeout_s: args.timeout.map_or(0, |time| u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX)),
        reason: args.reason,
    };
    let what = "stop the tasks of this node";
    let mut progress = agent.stop_tasks(request).await.map_err(Failure::rpc(what))?.into_inner();
    let mut said = String::new();
    while let Some(step) = progress.message().await.map_err(Failure::rpc(what))? {
        let text = match step.left.as_slice() {
            [] if step.done => "no task is left".to_owned(),
            [] => "all tasks have stopped; telling the control plane".to_owned(),
            left => {
                let named = left.iter().take(3).map(|task| task.task_definition.as_str());
                let more = if left.len() > 3 { ", …" } else { "" };
                format!("{} tasks left: {}{more}", left.len(), named.collect::<Vec<_>>().join(", "))
            }
        };
        if text != said && !global.quiet {
            output::note(&text);
        }
        said = text;
        if step.done {
            return Ok(());
        }
    }
    let message = "the agent ended before its tasks had stopped".to_owned();
    Err(Failure::Unavailable { message, next: "journalctl -u lighter-agent".to_owned() })
}

/// Why this machine is no node now.
pub fn not_joined(source: JoinError) -> Failure {
    let exit = match &source {
        JoinError::Endpoint { .. } => Exit::Usage,
        JoinError::Connect { .. } | JoinError::NotLeader { .. } => Exit::Unavailable,
        JoinError::Token(_) | JoinError::AlreadyJoined { .. } | JoinError::Refused { .. } => Exit::Refused,
        JoinError::Request(_) | JoinError::Answer { .. } | JoinError::Store { .. } => Exit::Failed,
    };
    Failure::daemon("join the cluster", exit, source)
}

//! `lighter agent`, the daemon of a node, and `lighter agent join`.
//! In: /etc/lighter/agent.toml, LIGHTER_<KEY> variables, flags; the later wins. Out: containers.
//! Owns: the time between start and SIGTERM. Tasks go on without it.

use crate::args::{AgentArgs, Format, Global, JoinArgs};
use crate::commands::task_definition;
use crate::daemon::{self, Interrupts};
use crate::failure::Failure;
use crate::output;
use lighter_agent::{Agent, AgentConfig, ConfigOverrides, JoinOptions};
use serde_json::json;
use std::error::Error;

pub async fn run(args: AgentArgs) -> Result<(), Failure> {
    let failed = |source: Box<dyn Error + Send + Sync>| Failure::Daemon { what: "run the agent", source };
    let config = AgentConfig::load(args.config.as_deref(), &overrides(&args))
        .map_err(|source| failed(source.into()))?;
    // Before the start, so that a SIGTERM during it is not lost.
    let mut interrupts = Interrupts::new()?;
    let handle = Agent::start(config).await.map_err(|source| failed(source.into()))?;
    daemon::ready();
    let (stop, mut ended) = (handle.stopper(), Box::pin(handle.join()));
    tokio::select! {
        ended = &mut ended => return ended.map_err(|source| failed(source.into())),
        () = interrupts.next() => {}
    }
    tracing::info!("the agent leaves; tasks go on");
    stop();
    ended.await.map_err(|source| failed(source.into()))
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
    let joined = lighter_agent::join(options)
        .await
        .map_err(|source| Failure::Daemon { what: "join the cluster", source: source.into() })?;
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

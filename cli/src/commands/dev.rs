//! `lighter dev`: control plane and agent in one process, for trying things out on one machine.
//! In: two directories. Out: a cluster of one node, reached through the usual socket without a key.
//! Owns: nothing that a real cluster uses; its state is in directories of its own.

use crate::args::DevArgs;
use crate::client;
use crate::commands::agent;
use crate::daemon::{self, Interrupts};
use crate::failure::{Exit, Failure};
use crate::output;
use lighter_agent::{Agent, AgentConfig, AgentHandle, ConfigOverrides, JoinOptions};
use lighter_control::config::PlaintextListen;
use lighter_control::{Control, ControlConfig, ControlHandle};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

pub async fn run(args: DevArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    let control = start_control(&args).await?;
    let agent = match start_agent(&args, &control).await {
        Ok(agent) => agent,
        Err(failure) => {
            control.shutdown();
            control.join().await;
            return Err(failure);
        }
    };
    daemon::ready();
    how_to_go_on(&control);
    let (stop, mut ended) = (agent.stopper(), Box::pin(agent.join()));
    let outcome = tokio::select! {
        outcome = &mut ended => outcome,
        () = interrupts.next() => {
            output::note("leaving; tasks go on until they are stopped (start `lighter dev` again to see them)");
            stop();
            ended.await
        }
    };
    control.shutdown();
    control.join().await;
    outcome.map_err(agent::not_running)
}

async fn start_control(args: &DevArgs) -> Result<ControlHandle, Failure> {
    std::fs::create_dir_all(&args.run_dir)
        .map_err(|source| Failure::io(format!("make the directory {:?}", args.run_dir), source))?;
    let config = ControlConfig {
        data_dir: args.data_dir.join("control"),
        // Only this machine; any free port.
        listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        listen_plaintext: vec![PlaintextListen::Unix(args.run_dir.join("control.sock"))],
        ..ControlConfig::default()
    };
    Control::start(config)
        .await
        .map_err(|source| Failure::daemon("run the control plane", Exit::Failed, source))
}

async fn start_agent(args: &DevArgs, control: &ControlHandle) -> Result<AgentHandle, Failure> {
    let endpoint =
        control.addresses().first().map(|address| format!("https://{address}")).unwrap_or_default();
    let data_dir = args.data_dir.join("agent");
    if !data_dir.join("node.pem").exists() {
        let token = control.create_join_token().await;
        let token = token.map_err(|source| Failure::daemon("make a join token", Exit::Failed, source))?;
        let options = JoinOptions {
            endpoint: endpoint.clone(),
            token,
            name: String::new(),
            data_dir: data_dir.clone(),
            force: true,
        };
        lighter_agent::join(options).await.map_err(agent::not_joined)?;
    }
    let config = agent_config(args, &endpoint, &data_dir)?;
    Agent::start(config).await.map_err(agent::not_running)
}

fn agent_config(args: &DevArgs, endpoint: &str, data_dir: &Path) -> Result<AgentConfig, Failure> {
    let mut overrides = ConfigOverrides::default();
    // The port is another one at each start; what `join` wrote down is not used.
    overrides.set("control_endpoint", endpoint, "lighter dev");
    overrides.set("data_dir", data_dir.to_string_lossy(), "--data-dir");
    overrides.set("run_dir", args.run_dir.to_string_lossy(), "--run-dir");
    for (key, value) in &args.set {
        overrides.set(key, value, &format!("--set {key}"));
    }
    AgentConfig::load(None, &overrides)
        .map_err(|source| Failure::daemon("run the agent", Exit::Refused, source))
}

fn how_to_go_on(control: &ControlHandle) {
    let socket = control.unix_socket().unwrap_or(Path::new(client::CONTROL_SOCKET));
    let endpoint = match socket == Path::new(client::CONTROL_SOCKET) {
        true => String::new(),
        false => format!(" --endpoint unix://{}", socket.display()),
    };
    output::note(&format!(
        "\nLighter runs on this machine: one node, no key needed for root. In another terminal:\n\
         \x20 lighter{endpoint} node ls\n\
         \x20 lighter{endpoint} run FILE --wait        a task definition as `aws ecs register-task-definition` takes it\n\
         \x20 lighter{endpoint} ps\n\
         \x20 lighter{endpoint} logs -f TASK\n\
         Ctrl-C ends it.\n"
    ));
}

//! `lighter control`: the control plane as a daemon.
//! In: /etc/lighter/control.toml, LIGHTER_* variables, flags; the later wins. Out: a server.
//! Owns: the time between start and SIGTERM. Nodes and their tasks go on without it.

use crate::args::ControlArgs;
use crate::daemon::{self, Interrupts};
use crate::failure::{Exit, Failure};
use lighter_control::{Control, ControlConfig, ControlOverrides};
use std::path::{Path, PathBuf};

/// Read when no other is named and it exists.
const DEFAULT_CONFIG: &str = "/etc/lighter/control.toml";

const WHAT: &str = "run the control plane";

pub async fn run(args: ControlArgs) -> Result<(), Failure> {
    let config = config(args).map_err(|source| Failure::daemon(WHAT, Exit::Refused, source))?;
    // Before the start, so that a SIGTERM during it is not lost.
    let mut interrupts = Interrupts::new()?;
    let handle =
        Control::start(config).await.map_err(|source| Failure::daemon(WHAT, Exit::Failed, source))?;
    daemon::ready();
    let (stop, mut ended) = (handle.stopper(), Box::pin(handle.join()));
    tokio::select! {
        () = &mut ended => {
            return Err(Failure::daemon(WHAT, Exit::Failed, "it ended by itself; the log says why"));
        }
        () = interrupts.next() => {}
    }
    tracing::info!("the control plane ends; nodes and tasks go on");
    stop();
    ended.await;
    Ok(())
}

fn config(args: ControlArgs) -> Result<ControlConfig, lighter_control::ConfigError> {
    let file =
        args.config.or_else(|| Path::new(DEFAULT_CONFIG).exists().then(|| PathBuf::from(DEFAULT_CONFIG)));
    let plaintext = args.listen_plaintext.map(|texts| texts.iter().map(|text| text.parse()).collect());
    let overrides = ControlOverrides {
        data_dir: args.data_dir,
        listen: args.listen,
        listen_plaintext: plaintext.transpose()?,
        server_names: args.server_name,
        heartbeat_interval_ms: args.heartbeat_interval_ms,
    };
    ControlConfig::load(file.as_deref(), overrides)
}

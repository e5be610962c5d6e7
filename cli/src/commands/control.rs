//! `lighter control`: the control plane as a daemon.
//! In: /etc/lighter/control.toml, LIGHTER_* variables, flags; the later wins. Out: a server.
//! Owns: the time between start and SIGTERM. Nodes and their tasks go on without it.

use crate::args::{ControlArgs, ControlCommand, SnapshotCommand};
use crate::daemon::{self, Interrupts};
use crate::failure::{Exit, Failure};
use crate::output;
use lighter_control::snapshot::{self, Header};
use lighter_control::{Control, ControlConfig, ControlOverrides, transfer};
use std::path::{Path, PathBuf};

/// Read when no other is named and it exists.
const DEFAULT_CONFIG: &str = "/etc/lighter/control.toml";

const WHAT: &str = "run the control plane";

pub async fn run(mut args: ControlArgs) -> Result<(), Failure> {
    let command = args.command.take();
    let config = config(args).map_err(|source| Failure::daemon(WHAT, Exit::Refused, source))?;
    if let Some(command) = command {
        // The store's calls block.
        let done = tokio::task::spawn_blocking(move || offline(&config, command)).await;
        return done.map_err(|source| Failure::daemon("work on the store", Exit::Failed, source))?;
    }
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

/// What is done to a store that no control plane leads.
fn offline(config: &ControlConfig, command: ControlCommand) -> Result<(), Failure> {
    fn failed<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Failure {
        move |source| Failure::daemon(what, Exit::Refused, source)
    }
    match command {
        ControlCommand::Snapshot(SnapshotCommand::Save { file }) => {
            let header = transfer::save(config, &file).map_err(failed("save a snapshot"))?;
            tell("saved", &file, &header)?;
        }
        ControlCommand::Snapshot(SnapshotCommand::Restore { file, force }) => {
            let header = transfer::restore(config, &file, force).map_err(failed("restore a snapshot"))?;
            tell("restored", &file, &header)?;
        }
        ControlCommand::Snapshot(SnapshotCommand::Verify { file }) => {
            let (header, _) = snapshot::read(&file).map_err(failed("verify a snapshot"))?;
            tell("whole", &file, &header)?;
        }
        ControlCommand::MigrateStore { to, force } => {
            let target = ControlConfig::load(Some(&to), ControlOverrides::default());
            let target = target.map_err(failed("read the settings of the other store"))?;
            let records = transfer::migrate(config, &target, force).map_err(failed("migrate the store"))?;
            output::line(&format!("migrated: {records} records"))?;
        }
    }
    Ok(())
}

fn tell(done: &str, file: &Path, header: &Header) -> Result<(), Failure> {
    let Header { records, sequence, created_at_unix_ms, .. } = header;
    let taken = i64::try_from(*created_at_unix_ms).ok().and_then(crate::time::rfc3339).unwrap_or_default();
    output::line(&format!(
        "{done}: {}: {records} records as of sequence {sequence}, taken {taken}",
        file.display()
    ))
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

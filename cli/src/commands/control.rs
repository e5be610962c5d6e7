//! `lighter control`: the control plane as a daemon.
//! In: /etc/lighter/control.toml, LIGHTER_* variables, flags; the later wins. Out: a server.
//! Owns: the time between start and SIGTERM. Nodes and their tasks go on without it.

use crate::args::{ControlArgs, ControlCommand, Global, SnapshotCommand};
use crate::client::{self, Client};
use crate::daemon::{self, Interrupts};
use crate::failure::{Exit, Failure};
use crate::output;
use lighter_control::config::PlaintextListen;
use lighter_control::environment::Environment;
use lighter_control::snapshot::{self, Header};
use lighter_control::transfer::TransferError;
use lighter_control::{
    Control, ControlConfig, ControlHandle, ControlOverrides, Patience, StartError, transfer,
};
use lighter_proto::v1;
use std::path::{Path, PathBuf};

/// Read when no other is named and it exists.
const DEFAULT_CONFIG: &str = "/etc/lighter/control.toml";

const WHAT: &str = "run the control plane";

pub async fn run(global: &Global, mut args: ControlArgs) -> Result<(), Failure> {
    let command = args.command.take();
    let config = config(args).map_err(|source| Failure::daemon(WHAT, Exit::Refused, source))?;
    if let Some(ControlCommand::Snapshot(SnapshotCommand::Save { file })) = command {
        return save(global, config, file).await;
    }
    if let Some(command) = command {
        // The store's calls block.
        let done = tokio::task::spawn_blocking(move || offline(&config, command)).await;
        return done.map_err(|source| Failure::daemon("work on the store", Exit::Failed, source))?;
    }
    // Before the start, so that a SIGTERM during it is not lost.
    let mut interrupts = Interrupts::new()?;
    let Some(handle) = start(config, &mut interrupts).await? else { return Ok(()) };
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

/// `None` when it was asked to end while it waited for its store.
async fn start(config: ControlConfig, interrupts: &mut Interrupts) -> Result<Option<ControlHandle>, Failure> {
    // It runs, and may wait for long: systemd and what is ordered behind it shall not.
    let patience = Patience::telling(daemon::ready);
    let give_up = patience.stopper();
    let mut starting = Box::pin(Control::start_patiently(config, Environment::default(), patience));
    let (started, asked_to_end) = tokio::select! {
        started = &mut starting => (started, false),
        () = interrupts.next() => {
            give_up();
            (starting.await, true)
        }
    };
    match started {
        Ok(handle) if asked_to_end => {
            handle.shutdown();
            handle.join().await;
            Ok(None)
        }
        Ok(handle) => Ok(Some(handle)),
        Err(StartError::GivenUp) => {
            tracing::info!("the control plane ends; its store has not answered");
            Ok(None)
        }
        Err(source) => Err(Failure::daemon(WHAT, Exit::Failed, source)),
    }
}

/// From the store itself, or from the control plane that has it.
async fn save(global: &Global, config: ControlConfig, file: PathBuf) -> Result<(), Failure> {
    const WHAT: &str = "save a snapshot";
    let socket = config.listen_plaintext.iter().find_map(|listen| match listen {
        PlaintextListen::Unix(path) => Some(format!("unix://{}", path.display())),
        PlaintextListen::Loopback(_) => None,
    });
    let path = file.clone();
    // The store's calls block.
    let saved = tokio::task::spawn_blocking(move || transfer::save(&config, &path)).await;
    let header = match saved.map_err(|source| Failure::daemon(WHAT, Exit::Failed, source))? {
        Ok(header) => header,
        Err(error @ (TransferError::Store { .. } | TransferError::Led { .. })) => {
            tracing::debug!(%error, "asking the control plane that runs");
            let global = Global { endpoint: global.endpoint.clone().or(socket), ..global.clone() };
            let bytes = given(&mut client::connect(&global).await?).await.map_err(Failure::rpc(WHAT))?;
            snapshot::keep(&file, &bytes).map_err(|source| Failure::daemon(WHAT, Exit::Failed, source))?
        }
        Err(error) => return Err(Failure::daemon(WHAT, Exit::Refused, error)),
    };
    tell("saved", &file, &header)
}

/// The file as the control plane gives it.
async fn given(client: &mut Client) -> Result<Vec<u8>, tonic::Status> {
    let mut chunks = client.save_snapshot(v1::SaveSnapshotRequest {}).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        bytes.extend(chunk.data);
    }
    Ok(bytes)
}

/// What is done to a store that no control plane leads.
fn offline(config: &ControlConfig, command: ControlCommand) -> Result<(), Failure> {
    fn failed<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Failure {
        move |source| Failure::daemon(what, Exit::Refused, source)
    }
    match command {
        // Taken by `run`.
        ControlCommand::Snapshot(SnapshotCommand::Save { .. }) => {}
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

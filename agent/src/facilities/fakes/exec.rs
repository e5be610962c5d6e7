//! Probes and sessions of the fake machine. In: orders. Out: what `World::probes` and
//! `World::execs` say; calls are named `probe`, `exec`, `attach` and can be made to fail.
//! Owns: one tokio task for each session. Never: a process.

use super::{ContainerState, FakeExec, FakeProbe, Machine, World};
use crate::errors::Cause;
use lighter_model::exit::ExitStatus;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_runtime::exec::{SessionCommand, SessionDriver};
use lighter_runtime::{
    ExecError, ExecSession, ProbeEnd, ProbeOutcome, RequestError, SessionControl, WindowSize,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn runs(world: &World, task: &TaskId, container: &ContainerName) -> Result<(), String> {
    let state = world.shims.get(task).filter(|shim| shim.alive).and_then(|s| s.containers.get(container));
    match state {
        Some(ContainerState::Running { .. }) => Ok(()),
        _ => Err(format!("container {container} does not run")),
    }
}

pub(super) async fn probe(
    machine: &Machine,
    task: &TaskId,
    container: &ContainerName,
    argv: &[String],
    timeout: Duration,
) -> Result<ProbeOutcome, Cause> {
    let next = machine.call("probe", format!("{task}/{container} {}", argv.join(" ")), |world| {
        runs(world, task, container)?;
        Ok(world.probes.get_mut(container).and_then(|list| list.pop_front()))
    });
    match next.await?.unwrap_or_else(|| FakeProbe::exits(0, "")) {
        FakeProbe::Ends { delay, .. } if delay > timeout => {
            tokio::time::sleep(timeout).await;
            Ok(ProbeOutcome { end: ProbeEnd::TimedOut, output: Vec::new() })
        }
        FakeProbe::Ends { outcome, delay } => {
            tokio::time::sleep(delay).await;
            Ok(outcome)
        }
    }
}

pub(super) async fn session(
    machine: &Machine,
    call: &'static str,
    task: &TaskId,
    container: &ContainerName,
    words: String,
    terminal: Option<WindowSize>,
) -> Result<ExecSession, ExecError> {
    let found = machine.call(call, format!("{task}/{container} {words}"), |world| {
        runs(world, task, container)?;
        Ok(world.execs.get(container).cloned())
    });
    let exec = found.await.map_err(|message| match message {
        text if text.contains("does not run") => RequestError::NotRunning(container.to_string()).into(),
        message => ExecError::CannotStart { message },
    })?;
    let (control, driver) = SessionControl::new(terminal.is_some());
    let ((stdin, input), (stdout, output), (stderr, errors)) = (pipe(), pipe(), pipe());
    tokio::spawn(run(machine.clone(), exec, driver, input, output, errors));
    let stderr = terminal.is_none().then(|| Box::new(stderr) as _);
    Ok(ExecSession { stdin: Some(Box::new(stdin)), stdout: Box::new(stdout), stderr, control })
}

/// As much as a pipe of the kernel holds.
fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 * 1024)
}

async fn run(
    machine: Machine,
    exec: Option<FakeExec>,
    mut driver: SessionDriver,
    mut input: DuplexStream,
    mut output: DuplexStream,
    mut errors: DuplexStream,
) {
    let work = async {
        let Some(exec) = exec else {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = input.read(&mut chunk).await {
                let _ = output.write_all(&chunk[..count]).await;
            }
            return 0;
        };
        let _ = output.write_all(&exec.stdout).await;
        let _ = errors.write_all(&exec.stderr).await;
        exec.code
    };
    tokio::pin!(work);
    let end = loop {
        tokio::select! {
            code = &mut work => break ExitStatus::Exited(code),
            command = driver.next_command() => match command {
                Some(SessionCommand::Signal(signal)) => {
                    machine.with(|world| world.exec_signals.push(signal));
                    break ExitStatus::Signaled(signal);
                }
                Some(SessionCommand::Resize(_)) => {}
                None => return,
            }
        }
    };
    driver.finish(Ok(end));
}

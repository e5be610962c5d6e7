//! One connected shim behind the agent's trait, and its words in the agent's.
//! In: a handle. Out: `ShimLink`, `ShimStatus`. Owns: the task that hands events on, which ends when
//! the connection or the agent's end of the channel does.
//! Never: retries; a lost connection is an event.

use crate::errors::{Cause, words};
use crate::facilities::{
    Answer, BindFailure, Bundle, ContainerPhase, LeaseAnswer, Shim, ShimEvent, ShimLink, ShimStatus,
    StartFailure, StartFault, Started,
};
use lighter_model::ids::ContainerName;
use lighter_model::resources::HostPort;
use lighter_runtime::{
    BindError, ExecError, ExecOrder, ExecSession, HostPortBind, LeaseOrder, Phase, ProbeOutcome,
    RequestError, ShimHandle, StartError, TaskStatus, WindowSize,
};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// ESRCH, EADDRINUSE: errno(3).
const NO_SUCH_PROCESS: i32 = 3;
const ADDRESS_IN_USE: i32 = 98;

/// A task has at most ten containers, each of which exits once.
const EVENTS_DEPTH: usize = 32;

struct RealShim(ShimHandle);

pub(super) fn link(handle: ShimHandle) -> ShimLink {
    let mut from = handle.events();
    let (to, events) = mpsc::channel(EVENTS_DEPTH);
    tokio::spawn(async move {
        loop {
            let event = match from.recv().await {
                Ok(lighter_runtime::ShimEvent::Exited { container, exit }) => {
                    ShimEvent::Exited { container, exit }
                }
                Ok(lighter_runtime::ShimEvent::LeaseOver) => ShimEvent::LeaseOver,
                // What was missed is in the status, which adoption asks for.
                Ok(lighter_runtime::ShimEvent::Disconnected)
                | Err(RecvError::Lagged(_) | RecvError::Closed) => ShimEvent::Disconnected,
            };
            let last = event == ShimEvent::Disconnected;
            if to.send(event).await.is_err() || last {
                return;
            }
        }
    });
    ShimLink { shim: Arc::new(RealShim(handle)), events }
}

pub(super) fn status(status: &TaskStatus) -> ShimStatus {
    let containers = status.containers.iter().map(|container| {
        let started = Started { pid: container.pid.unwrap_or(0), limits: container.limits.clone() };
        let phase = match (container.phase, &container.exit) {
            (_, Some(exit)) => ContainerPhase::Exited(exit.clone()),
            (Phase::Starting, None) => ContainerPhase::Starting,
            (Phase::Running | Phase::Exited, None) => ContainerPhase::Running(started),
        };
        (container.name.clone(), phase)
    });
    let ports = status.ports.iter().map(|port| HostPort { protocol: port.protocol, port: port.port });
    ShimStatus { containers: containers.collect(), ports: ports.collect() }
}

fn wanted(port: &HostPort) -> HostPortBind {
    HostPortBind { protocol: port.protocol, ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: port.port }
}

/// What has ended already is what was wanted.
fn ended_is_fine(result: Result<(), RequestError>) -> Result<(), Cause> {
    match result {
        Err(RequestError::System(error)) if error.raw_os_error() == Some(NO_SUCH_PROCESS) => Ok(()),
        other => Ok(other?),
    }
}

impl Shim for RealShim {
    fn bind_ports<'a>(&'a self, ports: &'a [HostPort]) -> Answer<'a, (), BindFailure> {
        Box::pin(async move {
            let binds: Vec<HostPortBind> = ports.iter().map(wanted).collect();
            let first = || ports.first().copied();
            match self.0.bind_ports(&binds).await {
                Ok(_) => Ok(()),
                Err(BindError::Port { port, protocol, errno, source, .. }) => {
                    let in_use = errno == ADDRESS_IN_USE;
                    Err(BindFailure { port: HostPort { protocol, port }, in_use, source: source.into() })
                }
                Err(error @ BindError::Request(_)) => {
                    let port = first().unwrap_or(HostPort { protocol: Default::default(), port: 0 });
                    Err(BindFailure { port, in_use: false, source: error.into() })
                }
            }
        })
    }

    fn start<'a>(
        &'a self,
        container: &'a ContainerName,
        bundle: &'a Bundle,
    ) -> Answer<'a, Started, StartFailure> {
        Box::pin(async move {
            let failed = |fault, source| StartFailure { container: container.clone(), fault, source };
            let Some(own) = bundle.own.downcast_ref::<lighter_runtime::Bundle>() else {
                return Err(failed(StartFault::CannotCreate, words("a bundle of another runtime")));
            };
            match self.0.start_container(own).await {
                Ok(started) => Ok(Started { pid: started.pid, limits: started.limits }),
                Err(error) => {
                    let fault = match &error {
                        StartError::CannotStart { .. } => StartFault::CannotStart,
                        StartError::CannotCreate { .. }
                        | StartError::HelperDied { .. }
                        | StartError::Request(_) => StartFault::CannotCreate,
                        StartError::Limits { .. } => StartFault::Limits,
                    };
                    Err(failed(fault, error.into()))
                }
            }
        })
    }

    fn signal<'a>(&'a self, container: &'a ContainerName, signal: i32) -> Answer<'a, ()> {
        Box::pin(async move { ended_is_fine(self.0.signal(container, signal).await) })
    }

    fn kill<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ()> {
        Box::pin(async move { ended_is_fine(self.0.kill(container).await) })
    }

    fn probe<'a>(
        &'a self,
        container: &'a ContainerName,
        argv: &'a [String],
        timeout: Duration,
    ) -> Answer<'a, ProbeOutcome> {
        Box::pin(async move { Ok(self.0.probe(container, argv, timeout).await?) })
    }

    fn exec<'a>(
        &'a self,
        container: &'a ContainerName,
        order: &'a ExecOrder,
        terminal: Option<WindowSize>,
        stdin: bool,
    ) -> Answer<'a, ExecSession, ExecError> {
        Box::pin(self.0.exec(container, order, terminal, stdin))
    }

    fn attach<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ExecSession, ExecError> {
        Box::pin(self.0.attach(container))
    }

    fn lease<'a>(&'a self, order: &'a LeaseOrder) -> Answer<'a, LeaseAnswer> {
        Box::pin(async move {
            match self.0.lease(order).await {
                Err(RequestError::NoLeases) => Ok(LeaseAnswer::CannotKeep),
                leased => Ok(LeaseAnswer::Kept(leased?)),
            }
        })
    }

    fn remove_container<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.0.remove_container(container).await?) })
    }

    fn shutdown(&self) -> Answer<'_, ()> {
        Box::pin(async move { Ok(self.0.shutdown().await?) })
    }
}

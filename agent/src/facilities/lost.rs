//! Stands in for a shim that lives and does not answer, until the real connection is made.
//! In: requests. Out: that it does not answer. Owns nothing. Never: waits.

use super::{Answer, BindFailure, Bundle, LeaseAnswer, Shim, StartFailure, StartFault, Started};
use crate::errors::{Cause, words};
use lighter_model::ids::ContainerName;
use lighter_model::resources::HostPort;
use lighter_model::task_definition::TransportProtocol;
use lighter_runtime::{
    ExecError, ExecOrder, ExecSession, LeaseOrder, ProbeOutcome, RequestError, WindowSize,
};
use std::time::Duration;

pub(super) struct LostShim;

fn silence() -> Cause {
    words("the task's monitor does not answer")
}

impl Shim for LostShim {
    fn bind_ports<'a>(&'a self, ports: &'a [HostPort]) -> Answer<'a, (), BindFailure> {
        let none = HostPort { protocol: TransportProtocol::Tcp, port: 0 };
        let port = ports.first().copied().unwrap_or(none);
        Box::pin(async move { Err(BindFailure { port, in_use: false, source: silence() }) })
    }

    fn start<'a>(&'a self, container: &'a ContainerName, _: &'a Bundle) -> Answer<'a, Started, StartFailure> {
        let container = container.clone();
        Box::pin(
            async move { Err(StartFailure { container, fault: StartFault::CannotStart, source: silence() }) },
        )
    }

    fn signal<'a>(&'a self, _: &'a ContainerName, _: i32) -> Answer<'a, ()> {
        Box::pin(async { Err(silence()) })
    }

    fn kill<'a>(&'a self, _: &'a ContainerName) -> Answer<'a, ()> {
        Box::pin(async { Err(silence()) })
    }

    fn probe<'a>(&'a self, _: &'a ContainerName, _: &'a [String], _: Duration) -> Answer<'a, ProbeOutcome> {
        Box::pin(async { Err(silence()) })
    }

    fn exec<'a>(
        &'a self,
        _: &'a ContainerName,
        _: &'a ExecOrder,
        _: Option<WindowSize>,
        _: bool,
    ) -> Answer<'a, ExecSession, ExecError> {
        Box::pin(async { Err(RequestError::Disconnected.into()) })
    }

    fn attach<'a>(&'a self, _: &'a ContainerName) -> Answer<'a, ExecSession, ExecError> {
        Box::pin(async { Err(RequestError::Disconnected.into()) })
    }

    fn lease<'a>(&'a self, _: &'a LeaseOrder) -> Answer<'a, LeaseAnswer> {
        Box::pin(async { Err(silence()) })
    }

    fn remove_container<'a>(&'a self, _: &'a ContainerName) -> Answer<'a, ()> {
        Box::pin(async { Err(silence()) })
    }

    fn shutdown(&self) -> Answer<'_, ()> {
        Box::pin(async { Err(silence()) })
    }
}

//! Host ports that the task owns: bound, never listening, held until the shim ends.
//! In: lists of ports. Out: bound ports, or which one failed and why. All of a list or none.
//! Owns one socket for each port. Never: accepts a connection; traffic is redirected before it
//! reaches these sockets.

use crate::sys;
use lighter_shim_wire::message::BindFailure;
use lighter_shim_wire::{PortBind, PortProtocol};
use std::os::fd::OwnedFd;

#[derive(Default)]
pub(crate) struct Ports {
    held: Vec<(PortBind, OwnedFd)>,
}

impl Ports {
    /// Binds every port of the list; one that is already held stays as it is.
    pub(crate) fn bind(&mut self, list: &[PortBind]) -> Result<Vec<PortBind>, BindFailure> {
        let mut fresh = Vec::new();
        let mut answer = Vec::new();
        for wanted in list {
            if wanted.port != 0 && self.held.iter().any(|(held, _)| held == wanted) {
                answer.push(wanted.clone());
                continue;
            }
            let udp = wanted.protocol == PortProtocol::Udp;
            let bound = sys::bound_socket(udp, wanted.ip, wanted.port)
                .and_then(|socket| Ok((sys::bound_port(&socket)?, socket)))
                .map_err(|error| BindFailure {
                    port: wanted.clone(),
                    errno: error.raw_os_error().unwrap_or(libc::EIO),
                });
            // An early return drops `fresh`, which gives back what this list had bound.
            let (port, socket) = bound?;
            let bind = PortBind { port, ..wanted.clone() };
            answer.push(bind.clone());
            fresh.push((bind, socket));
        }
        self.held.append(&mut fresh);
        Ok(answer)
    }

    pub(crate) fn list(&self) -> Vec<PortBind> {
        self.held.iter().map(|(bind, _)| bind.clone()).collect()
    }
}

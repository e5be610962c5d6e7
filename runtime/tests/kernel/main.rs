//! The runtime on a real kernel: containers from a busybox root file system, seen through /proc,
//! the cgroup files and the logs. Needs root and Debian's busybox-static; takes cgroup v2 when the
//! machine has it and the v1 hybrid driver otherwise. Every test has its own run directory and
//! cgroup root, and asserts at its end that nothing of it is left.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adjust;
mod adoption;
mod attach;
mod confinement;
mod exec;
mod faults;
mod lease;
mod lifecycle;
mod limits;
mod logging;
mod namespaces;
mod old_shim;
mod ports;
mod probe;
mod resident;
mod support;
mod user_namespace;

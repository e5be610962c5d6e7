//! The agent's side of running containers: bundles and OCI specs from task definitions, one
//! resident monitor (lighter-shim) for each task, cgroups, logs.
//! In: `RuntimeConfig`, definitions, image configurations, mounted root file systems.
//! Out: `ShimHandle`s with their events; exits; limits as the kernel has them.
//! Owns one tokio task for each connection to a shim. A container does not need this process:
//! `Runtime::adopt` takes up again what an earlier agent left running.
//! Never: libcontainer, images, networks, gRPC; decides what should run.

pub mod apparmor;
pub mod bundle;
pub mod cgroup;
pub mod config;
pub mod connection;
pub mod exec;
pub mod handle;
pub mod ids;
pub mod lease;
pub mod logs;
pub mod runtime;
pub mod selftest;
pub mod signal;
pub mod spec;
pub mod user;

pub use bundle::{Bundle, BundleError, BundleRequest, OpenBundleError};
pub use cgroup::stats::{
    ContainerStats, CpuStats, HostCpu, IoStats, MemoryStats, Pressure, PressureStats, host_cpu,
};
pub use cgroup::{CgroupError, CgroupRoot, TaskLimits};
pub use config::{LogConfig, RuntimeConfig};
pub use exec::{
    AttachSession, ExecError, ExecOrder, ExecSession, ProbeEnd, ProbeOutcome, SessionControl, SessionError,
    WindowSize,
};
pub use handle::{
    BindError, ContainerStatus, HostPortBind, Phase, RequestError, ShimEvent, ShimHandle, StartError,
    Started, TaskStatus,
};
pub use ids::{MapIdsError, MappedIds};
pub use lease::{LeaseOrder, Leased};
pub use runtime::{
    AdjustError, AdoptError, Adopted, OpenError, RemoveError, Runtime, ShareError, SharedNamespaces,
    StartShimError,
};
pub use selftest::{SelfTestError, SelfTestReport};
pub use signal::{SignalError, stop_signal};
pub use spec::{BindMount, Privileges, SpecError};

//! What shim and helper (lighter-oci) say to each other over the helper's standard input.
//! The shim sends one `HelperRequest`; the helper reports `Created` before it lets the container
//! go on, then `Started` or `Failed`. A shim may be a release older than its helper: the request
//! stays as it is, and what is new is in the helper's arguments.
//! Never: carries container output; that flows through the pipes the container inherits.

use crate::codec::{wire_enum, wire_struct};
use crate::limits::{CgroupPaths, Limits};

/// Set in the helper's environment by whoever started its program from a read-only mount; a variable,
/// because a helper of an older release would refuse an argument.
pub const READ_ONLY_VARIABLE: &str = "LIGHTER_OCI_READ_ONLY";

wire_struct!(
    /// Create and start one container.
    HelperRequest {
        container_id: String,
        bundle: String,
        state_root: String,
        cgroup: CgroupPaths,
        expected: Limits,
        seccomp_filter: Option<String>,
    }
);

wire_enum!(
    /// Which of ECS's errors a failed start is.
    #[derive(Copy)]
    FailureKind {
        /// The program could not be executed: CannotStartContainerError.
        1 => CannotStart,
        /// libcontainer could not create it: CannotCreateContainerError.
        2 => CannotCreate,
        /// A limit is not in force: ResourceInitializationError.
        3 => Limits,
        /// The helper ended without an answer.
        4 => HelperDied,
    }
);

wire_struct!(HelperCreated { pid: i32, limits: Limits });
wire_struct!(HelperFailed { kind: FailureKind, message: String });

wire_enum!(
    HelperReport {
        1 => Created(HelperCreated),
        /// The container's program has replaced libcontainer's code (execve returned).
        2 => Started,
        3 => Failed(HelperFailed),
        /// Sent by the container's process before `Started`, with the master of its terminal.
        4 => Terminal,
    }
);

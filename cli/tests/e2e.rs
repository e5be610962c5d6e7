//! The `lighter` program as a person runs it: against a real control plane in this process, and against
//! a scripted one that can fail, for what needs a node. Observed: exit codes, standard output and error.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod e2e {
    pub mod control_plane;
    pub mod daemons;
    pub mod drain;
    pub mod node;
    pub mod program;
    pub mod queue;
    pub mod readme;
    pub mod scripted;
    pub mod service;
    pub mod terminal;
    pub mod top;
    pub mod waiting;
}

//! The deterministic core: commands in, mutations out, one writer.
//! In: a command and the `Moment` it is decided at. Out: an answer and the mutations it takes.
//! Owns: the state ahead of the store. Never: reads a clock, draws a random number, awaits, uses a
//! float or walks a HashMap; the same commands at the same moments give the same state.

pub mod attribute;
pub mod audit;
pub mod cluster;
pub mod columns;
pub mod definition;
pub mod deregister;
pub mod drain;
pub mod instance;
pub mod join;
pub mod journal;
pub mod mutation;
pub mod named;
pub mod orphan;
pub mod query;
pub mod queue;
pub mod quota;
pub mod record;
pub mod recorded;
pub mod recovery;
pub mod report;
pub mod run_task;
pub mod service;
pub mod shared;
pub mod silence;
pub mod start_task;
pub mod state;
pub mod stop_task;
pub mod sweep;
pub mod tag;
pub mod update_task;

use crate::error::ApiError;
use mutation::Changes;
use std::fmt::Debug;

/// When and with which luck a command is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the Unix epoch; the core never lets its time fall below what it has seen.
    pub wall_unix_ms: u64,
    /// 128 random bits; ids are made of them.
    pub random: u128,
}

/// What an operator set and decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub reserve_cpu_units: u32,
    pub reserve_memory_mib: u64,
    pub events_kept: usize,
    /// How long a STOPPED task is kept, in milliseconds.
    pub stopped_tasks_kept_ms: u64,
    /// Beyond so many STOPPED tasks of a cluster the oldest go before their time.
    pub stopped_tasks_per_cluster: usize,
    pub audit_kept: usize,
    /// Between two heartbeats of a node.
    pub heartbeat_ms: u64,
    pub quotas: quota::Quotas,
    /// The store it is (`store::mark`); not the operator's to set.
    pub store: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reserve_cpu_units: 0,
            reserve_memory_mib: 0,
            events_kept: 4_096,
            stopped_tasks_kept_ms: sweep::STOPPED_KEPT_MS,
            stopped_tasks_per_cluster: sweep::STOPPED_PER_CLUSTER,
            audit_kept: 4_096,
            heartbeat_ms: 5_000,
            quotas: quota::Quotas::default(),
            store: 0,
        }
    }
}

/// A change somebody wants. Deciding either fails without any mutation or succeeds with all of them.
pub trait Command: Debug + Send + 'static {
    type Answer: Send + 'static;
    /// Whether a full store refuses it. What nodes report and what clocks bring about is no new work.
    fn is_new_work(&self, _ahead: &state::State) -> bool {
        false
    }
    /// Decides against the state ahead and records the mutations in `changes`.
    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError>;
}

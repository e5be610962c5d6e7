//! The life of one task on this node: one tokio task owns it from its assignment to its end.
//!
//! ```text
//!            admit           prepare              launch            watch
//!  Waiting ────────► Admitted ──────► Prepared ──────────► Running ───────► Stopping
//!     │                  │  a step fails │  (its own order,     the essential    │ stop
//!     │ stop, refusal    ▼               │   see `order`)       container ended, ▼
//!     │            TearingDown ◄──────────────────────────── or told to stop ───┘
//!     ▼                  │ every step gave back what it had (else: again, later)
//!  Stopped ◄─────────────┘
//!     │ the STOPPED report is applied
//!     ▼
//!  Forgotten
//! ```
//! Each arrow is a file in `task/`. In: `Orders` (level-triggered, from the reconciler), events of
//! the shim. Out: reports and a `Known` for the reconciler. Owns what the variant of `TaskPhase`
//! lists, and the task's record. Dropped anywhere (the agent leaves or is killed), it is taken up
//! again by `recover`. Never: decides whether there is room for it.

pub(crate) mod adjust;
mod admit;
mod attach;
pub(crate) mod board;
mod bundle;
pub(crate) mod copy;
mod devices;
mod environment;
mod forget;
pub(crate) mod health;
pub(crate) mod journal;
mod launch;
mod lease;
mod names;
pub(crate) mod order;
mod prepare;
mod pull;
pub(crate) mod restart;
pub(crate) mod rootfs;
mod stop;
mod teardown;
mod turn;
mod unable;
pub(crate) mod volumes;
pub(crate) mod watch;

use crate::config::AgentConfig;
use crate::facilities::{Bundle, Facilities, ShimLink};
use crate::lease::Lease;
use crate::leases::Leases;
use crate::local_api::pulls::PullBoard;
use crate::log_driver::LogDelivery;
use crate::metadata::ids::MetadataKey;
use crate::reconcile::CoreInput;
use crate::resources::Waiting;
use crate::store::Store;
use crate::telemetry::Telemetry;
use board::{Monitor, MonitorBoard};
use journal::{Clock, Journal};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::status::StopCode;
use lighter_model::task_definition::TaskDefinition;
use restart::limiter::StartLimiter;
use restart::{BACKOFF, Backoff};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch::Receiver;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// What every task of this node uses.
pub(crate) struct TaskContext {
    pub config: Arc<AgentConfig>,
    pub facilities: Facilities,
    pub store: Store,
    pub leases: Leases,
    pub logs: LogDelivery,
    pub reconciler: mpsc::Sender<CoreInput>,
    pub pulls: PullBoard,
    /// Monitors of tasks that have one, for exec, attach, copies and counters.
    pub monitors: MonitorBoard,
    pub telemetry: Telemetry,
    /// Of the ids by which containers ask for their metadata.
    pub metadata_key: MetadataKey,
    pub boot_id: String,
    pub pace: Pace,
    pub limiter: StartLimiter,
    /// Permits for health checks under way on this node.
    pub checks: Arc<Semaphore>,
    /// "The agent leaves." Nothing is stopped by it; see `StopOrder` for that.
    pub leaving: CancellationToken,
}

/// Health checks that run at once on this node; the rest wait, which their interval covers.
pub(crate) const CHECKS_AT_ONCE: usize = 8;

/// How long the things take that people give in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// 1000; shorter in tests.
    pub second_ms: u64,
    pub backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self { second_ms: 1000, backoff: BACKOFF }
    }
}

/// Bundles that this agent has written; the others are opened when they are needed.
pub(crate) type Bundles = BTreeMap<ContainerName, Bundle>;

/// Whether the task may begin.
#[derive(Clone, Default)]
pub(crate) enum Start {
    #[default]
    NotYet,
    /// Why it must wait.
    Wait(Waiting),
    /// It never will.
    Refused(String),
    Admitted(Arc<TaskDefinition>),
}

/// "The task must die."
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StopOrder {
    pub code: Option<StopCode>,
    pub reason: String,
    /// SIGKILL at once.
    pub force: bool,
}

/// What the reconciler wants of a task: the newest state of it, never a queue.
#[derive(Clone, Default)]
pub(crate) struct Orders {
    pub start: Start,
    pub stop: Option<StopOrder>,
    /// What the tags of these containers mean for this task; from the assignment, never changed.
    pub image_digests: Arc<BTreeMap<ContainerName, String>>,
    /// Highest sequence the control plane has applied.
    pub applied: u64,
    pub forget: bool,
    pub adjust: adjust::Adjust,
    pub lease: Lease,
}

/// What a task holds of the node. Attachments are in the task's record; root file systems, volumes
/// and bundles are found by the definition's names.
pub(crate) struct Held {
    pub definition: Arc<TaskDefinition>,
    /// `None`: the monitor is gone or was not started.
    pub link: Option<ShimLink>,
}

/// What an earlier agent left of a task that it had begun and not launched.
pub(crate) struct Begun {
    pub link: ShimLink,
}

/// Where a task is, and what it holds there.
pub(crate) enum TaskPhase {
    /// Holds nothing.
    Waiting,
    /// Holds its needs in the ledger, and what an earlier agent had begun.
    Admitted {
        definition: Arc<TaskDefinition>,
        begun: Option<Begun>,
    },
    /// Holds everything, and a bundle for each container that has yet to start.
    Prepared {
        held: Held,
        bundles: Bundles,
    },
    /// Containers run, or wait for one another.
    Running {
        held: Held,
        bundles: Bundles,
    },
    /// Containers are told to end. Why is in the record.
    Stopping {
        held: Held,
    },
    /// No container runs; `left` is what is still to be given back.
    TearingDown {
        left: Held,
    },
    /// Nothing is left but the record.
    Stopped,
    Forgotten,
}

impl TaskPhase {
    fn held(&self) -> Option<&Held> {
        match self {
            Self::Prepared { held, .. } | Self::Running { held, .. } | Self::Stopping { held } => Some(held),
            Self::Waiting
            | Self::Admitted { .. }
            | Self::TearingDown { .. }
            | Self::Stopped
            | Self::Forgotten => None,
        }
    }

    fn definition(&self) -> Option<&Arc<TaskDefinition>> {
        match self {
            Self::Admitted { definition, .. } => Some(definition),
            Self::Prepared { held, .. }
            | Self::Running { held, .. }
            | Self::Stopping { held }
            | Self::TearingDown { left: held } => Some(&held.definition),
            Self::Waiting | Self::Stopped | Self::Forgotten => None,
        }
    }
}

/// The owner of one task.
pub(crate) struct TaskActor {
    pub(crate) context: Arc<TaskContext>,
    pub(crate) journal: Journal,
    pub(crate) orders: Receiver<Orders>,
}

impl TaskActor {
    /// Goes on with a task of an earlier agent: what is known may not have been sent.
    pub(crate) async fn resume(mut self, phase: TaskPhase) {
        if !matches!(phase, TaskPhase::Stopped) {
            self.journal.tell().await;
        }
        if let TaskPhase::Running { held, .. } | TaskPhase::Stopping { held } = &phase {
            // Known already, unless the store was lost.
            self.context.logs.begin(self.task(), &held.definition).await;
        }
        self.run(phase).await;
    }

    /// Runs the task from `phase` to its end, or until the agent leaves.
    pub(crate) async fn run(mut self, mut phase: TaskPhase) {
        let leaving = self.context.leaving.clone();
        loop {
            self.note_monitor(phase.held());
            if let Some(definition) = phase.definition() {
                self.journal.log.define(definition, &self.context.metadata_key);
            }
            phase = tokio::select! {
                // Dropping a step half-way is what a killed agent does; recovery knows every place.
                () = leaving.cancelled() => return,
                next = self.advance(phase) => next,
            };
            if matches!(phase, TaskPhase::Forgotten) {
                return;
            }
        }
    }

    async fn advance(&mut self, phase: TaskPhase) -> TaskPhase {
        match phase {
            TaskPhase::Waiting => self.admit().await,
            TaskPhase::Admitted { definition, begun } => self.prepare(definition, begun).await,
            TaskPhase::Prepared { held, bundles } => self.launch(held, bundles).await,
            TaskPhase::Running { held, bundles } => self.watch(held, bundles).await,
            TaskPhase::Stopping { held } => self.stop(held).await,
            TaskPhase::TearingDown { left } => self.teardown(left).await,
            TaskPhase::Stopped => self.forget().await,
            TaskPhase::Forgotten => TaskPhase::Forgotten,
        }
    }

    /// Shows others how to reach the task's monitor, or that there is none.
    fn note_monitor(&self, held: Option<&Held>) {
        let monitor = held.and_then(|held| {
            let shim = held.link.as_ref()?.shim.clone();
            let attachments = self.journal.record.attachments().cloned().collect();
            Some(Monitor { shim, definition: held.definition.clone(), attachments })
        });
        self.context.monitors.note(self.task(), monitor);
    }

    pub(crate) fn task(&self) -> &TaskId {
        &self.journal.record.task
    }

    fn clock(&self) -> Clock {
        Clock::now(self.context.pace)
    }

    /// The order to stop, if there is one.
    fn stop_order(&self) -> Option<StopOrder> {
        self.orders.borrow().stop.clone()
    }
}

/// Waits for an order to kill at once; for ever if none comes. May be dropped at any time.
async fn told_to_kill(orders: &mut Receiver<Orders>) {
    // The guard of the value is not kept over an await.
    let forced = orders.wait_for(|orders| orders.stop.as_ref().is_some_and(|stop| stop.force)).await.is_ok();
    if !forced {
        // The reconciler has ended: the agent leaves.
        std::future::pending::<()>().await;
    }
}

/// Waits for an order to stop; for ever if none comes. May be dropped at any time.
async fn told_to_stop(orders: &mut Receiver<Orders>) -> StopOrder {
    let order = match orders.wait_for(|orders| orders.stop.is_some()).await {
        Ok(orders) => orders.stop.clone(),
        // The reconciler has ended: the agent leaves.
        Err(_) => None,
    };
    match order {
        Some(order) => order,
        None => std::future::pending().await,
    }
}

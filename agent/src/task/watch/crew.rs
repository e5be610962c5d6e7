//! What is under way in a running task: starts, turns waited for, health checks, containers being
//! ended for their health. In: jobs. Out: what each came to. Owns the futures of the jobs; dropping
//! the crew drops them, and only starts must not be dropped while the agent stays.
//! Never: decides.

use crate::errors::Cause;
use crate::facilities::{Bundle, StartFailure, Started};
use crate::store::records::{ContainerRecord, TaskRecord};
use crate::task::order::{self, Phase, Place, View};
use crate::task::stop::Ending;
use crate::task::{Bundles, TaskContext};
use crate::time::{Alarm, BootInstant};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lighter_model::exit::ContainerExit;
use lighter_model::ids::ContainerName;
use lighter_model::status::ContainerStatus;
use lighter_model::task_definition::TaskDefinition;
use lighter_runtime::ProbeOutcome;
use std::collections::{BTreeMap, BTreeSet};

/// What a job came to.
pub(super) enum Done {
    Started {
        container: ContainerName,
        result: Result<Started, StartFailure>,
    },
    /// The node's limiter lets it start again.
    Turn {
        container: ContainerName,
    },
    Checked {
        container: ContainerName,
        pid: i32,
        began: BootInstant,
        result: Result<ProbeOutcome, Cause>,
    },
}

/// The checks of one run of a container.
pub(super) struct Check {
    /// Of the run they belong to.
    pub pid: i32,
    /// Since the status was last unknown.
    pub count: u32,
    pub next_at: BootInstant,
    pub under_way: bool,
}

/// See the header.
pub(super) struct Crew {
    pub places: Vec<Place>,
    pub bundles: Bundles,
    pub jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    pub starting: BTreeSet<ContainerName>,
    /// Those that wait for the limiter.
    pub turns: BTreeSet<ContainerName>,
    /// Exits that came before the answer to their start.
    pub early_exits: BTreeMap<ContainerName, ContainerExit>,
    pub checks: BTreeMap<ContainerName, Check>,
    /// Unhealthy containers that were told to end.
    pub endings: Vec<Ending>,
    /// What containers wait for before their first start.
    pub waits: Vec<order::Wait>,
    /// Of `next_timer`.
    pub alarm: Alarm,
    /// Something is to be reported; to be written down.
    pub news: bool,
    pub keep: bool,
}

impl Crew {
    pub(super) fn new(context: &TaskContext, definition: &TaskDefinition, bundles: Bundles) -> Self {
        Self {
            places: order::places(definition, context.pace.second_ms),
            bundles,
            jobs: FuturesUnordered::new(),
            starting: BTreeSet::new(),
            turns: BTreeSet::new(),
            early_exits: BTreeMap::new(),
            checks: BTreeMap::new(),
            endings: Vec::new(),
            waits: Vec::new(),
            alarm: Alarm::default(),
            news: false,
            keep: false,
        }
    }

    /// What each place's container is doing.
    pub(super) fn views(&self, record: &TaskRecord) -> Vec<View> {
        let find = |place: &Place| record.containers.iter().find(|c| c.name == place.name);
        self.places.iter().map(|place| find(place).map_or(UNKNOWN, |c| self.view(c))).collect()
    }

    fn view(&self, container: &ContainerRecord) -> View {
        let began = container.life.started_boot_ms.is_some();
        let phase = match container.status {
            ContainerStatus::Running => Phase::Running,
            ContainerStatus::Stopped if container.exit.is_some() || began => {
                Phase::Ended { exit_code: container.exit.as_ref().map(|exit| exit.status.exit_code()) }
            }
            ContainerStatus::Stopped => Phase::NeverStarted,
            ContainerStatus::Pending if began => Phase::Running,
            ContainerStatus::Pending if self.starting.contains(&container.name) => Phase::Starting,
            ContainerStatus::Pending => Phase::Pending,
        };
        let health = container.life.health.as_ref().map(|health| health.status).unwrap_or_default();
        // A record of before the first start was kept apart has the last one.
        let started_boot_ms = container.life.first_started_boot_ms.or(container.life.started_boot_ms);
        View { phase, health, started_boot_ms }
    }

    /// As ECS has RUNNING: no container is still to be started for the first time.
    pub(super) fn all_begun(&self, record: &TaskRecord) -> bool {
        let open = |view: &View| matches!(view.phase, Phase::Pending | Phase::Starting);
        !self.views(record).iter().any(open)
    }

    pub(super) fn bundle(&self, container: &ContainerName) -> Option<Bundle> {
        self.bundles.get(container).cloned()
    }

    /// When the next thing is due that no event announces.
    pub(super) fn next_timer(&self, record: &TaskRecord) -> Option<BootInstant> {
        // A paused task is not checked.
        let checks = self.checks.values().filter(|check| !check.under_way && !record.paused);
        let checks = checks.map(|check| check.next_at);
        let endings = self.endings.iter().map(|ending| ending.deadline);
        let waits = self.waits.iter().filter_map(|wait| wait.deadline_boot_ms).map(BootInstant::at_ms);
        let free = |c: &&ContainerRecord| !self.turns.contains(&c.name) && !self.starting.contains(&c.name);
        // Nor is one of its containers started again.
        let free = |c: &&ContainerRecord| free(c) && !record.paused;
        let again = record.containers.iter().filter(free).filter_map(|c| c.life.again_at_boot_ms);
        checks.chain(endings).chain(waits).chain(again.map(BootInstant::at_ms)).min()
    }

    /// Turns and checks change nothing; starts do.
    pub(super) fn drop_what_may_be_dropped(&mut self) {
        self.turns.clear();
        self.checks.clear();
        if self.starting.is_empty() {
            self.jobs.clear();
        }
    }

    /// The shim is gone, and everything that was under way with it.
    pub(super) fn forget(&mut self) {
        self.starting.clear();
        self.jobs.clear();
    }
}

/// A place without a record; recovery from a lost store may know less than the definition.
const UNKNOWN: View = View {
    phase: Phase::NeverStarted,
    health: lighter_model::health::HealthStatus::Unknown,
    started_boot_ms: None,
};

//! A machine that exists only in memory: shims, root file systems, attachments, ports, images.
//! It outlives the agents that are tested on it, as a real one does. In: the facilities' calls.
//! Out: effects on `World`, failures on demand, and a halt at any call: the agent is then killed
//! there. Owns: `World`, behind a lock that is held for one change at a time.
//! Never: forgiving: a port bound twice, a container started twice, a mount left over are recorded.

mod exec;
mod image;
mod network;
mod runtime;

use super::{Facilities, ImagesInUse, PullOrder, ShimEvent};
use lighter_model::exit::{ContainerExit, ExitStatus};
use lighter_model::ids::{AttachmentKey, ContainerName, TaskId};
use lighter_model::image_config::ImageConfig;
use lighter_model::resources::HostPort;
use lighter_runtime::{ProbeEnd, ProbeOutcome};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How a container's program behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Until it is told to stop; then it ends with this code.
    Runs {
        on_stop: i32,
    },
    /// Only SIGKILL ends it.
    IgnoresStop,
    /// Ends by itself at once.
    Exits {
        code: i32,
        oom: bool,
    },
    CannotStart,
    /// Its start is not answered until it is killed.
    HangsAtStart,
}

/// One probe to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FakeProbe {
    /// Ends so after `delay`, or at its timeout when that is earlier.
    Ends { outcome: ProbeOutcome, delay: Duration },
}

impl FakeProbe {
    pub(crate) fn exits(code: i32, output: &str) -> Self {
        let outcome = ProbeOutcome { end: ProbeEnd::Exited(code), output: output.into() };
        Self::Ends { outcome, delay: Duration::ZERO }
    }
}

/// What an exec does: writes this, and ends with this code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeExec {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub code: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContainerState {
    Running { pid: i32 },
    Exited(ContainerExit),
}

#[derive(Default)]
pub(crate) struct ShimState {
    pub containers: BTreeMap<ContainerName, ContainerState>,
    pub ports: BTreeSet<HostPort>,
    pub alive: bool,
    /// It lives and does not answer new connections.
    pub silent: bool,
    /// Its processes stand still.
    pub frozen: bool,
    /// On the boot-time clock; 0: none.
    pub lease_ends_ms: u64,
    pub lease_over: bool,
    /// Of a release that keeps no lease.
    pub old: bool,
    listeners: Vec<mpsc::Sender<ShimEvent>>,
}

/// Everything on the machine.
#[derive(Default)]
pub(crate) struct World {
    pub images: BTreeMap<String, ImageConfig>,
    pub programs: BTreeMap<ContainerName, Program>,
    pub shims: BTreeMap<TaskId, ShimState>,
    /// Tasks with ids of their own.
    pub mapped: BTreeSet<TaskId>,
    pub rootfs: BTreeMap<AttachmentKey, PathBuf>,
    pub attachments: BTreeSet<String>,
    pub foreign_ports: BTreeSet<HostPort>,
    /// How the next probes of each container go; none left: they succeed.
    pub probes: BTreeMap<ContainerName, VecDeque<FakeProbe>>,
    /// What an exec of each container does; none: it echoes its input and ends with 0 after it.
    pub execs: BTreeMap<ContainerName, FakeExec>,
    /// Signals sent to programs of exec and attach.
    pub exec_signals: Vec<i32>,
    /// How often each container's program was started.
    pub starts: BTreeMap<(TaskId, ContainerName), u32>,
    /// Signals sent, in order.
    pub signals: Vec<(TaskId, ContainerName, i32)>,
    /// Every call, in order.
    pub calls: Vec<String>,
    /// Calls of these names fail so many times more.
    pub failing: BTreeMap<&'static str, u32>,
    pub retriable_pulls_failing: u32,
    /// What was asked for, in order.
    pub pulls: Vec<PullOrder>,
    /// Pulls fail for want of so much room, until a clean-up makes it.
    pub room_missing: Option<u64>,
    pub room_can_be_made: bool,
    pub clean_ups: Vec<(ImagesInUse, u64)>,
    /// Things that must not happen on a real machine.
    pub offences: Vec<String>,
    next_pid: i32,
    last_exit_unix_ms: u64,
}

/// A handle to the machine.
#[derive(Clone)]
pub(crate) struct Machine {
    world: Arc<Mutex<World>>,
    points: Arc<Mutex<Points>>,
    halted: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct Points {
    passed: usize,
    halt_at: Option<usize>,
    names: Vec<String>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let world = World { next_pid: 100, ..World::default() };
        Self {
            world: Arc::new(Mutex::new(world)),
            points: Arc::default(),
            halted: Arc::new(watch::channel(false).0),
        }
    }

    pub(crate) fn facilities(&self) -> Facilities {
        Facilities {
            image: Arc::new(self.clone()),
            network: Arc::new(self.clone()),
            runtime: Arc::new(self.clone()),
        }
    }

    /// Looks at or changes the machine, as nobody's agent.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The agent stops dead when it has passed so many points.
    pub(crate) fn halt_at(&self, point: Option<usize>) {
        let mut points = self.points.lock().unwrap();
        (points.passed, points.halt_at) = (0, point);
        points.names.clear();
        self.halted.send_replace(false);
    }

    /// No point halts from here on; true when one has, though nobody may have seen it yet.
    pub(crate) fn disarm(&self) -> bool {
        let mut points = self.points.lock().unwrap();
        let passed = points.passed;
        points.halt_at.take().is_some_and(|at| passed > at)
    }

    /// True when the agent stands still at the point.
    pub(crate) fn halted(&self) -> watch::Receiver<bool> {
        self.halted.subscribe()
    }

    /// Names of the points passed since `halt_at`.
    pub(crate) fn points(&self) -> Vec<String> {
        self.points.lock().unwrap().names.clone()
    }

    /// A place where the agent may be killed: before and after each effect.
    pub(crate) async fn point(&self, name: String) {
        let halt = {
            let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
            points.passed += 1;
            points.names.push(name);
            points.halt_at.is_some_and(|at| points.passed > at)
        };
        if halt {
            // Whatever else the agent does concurrently stands still at its own next point.
            self.halted.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    /// One call: points around its effect, and a failure if one is due.
    async fn call<T>(
        &self,
        name: &'static str,
        of: String,
        effect: impl FnOnce(&mut World) -> Result<T, String>,
    ) -> Result<T, String> {
        self.point(format!("before {name} {of}")).await;
        let result = self.with(|world| {
            world.calls.push(format!("{name} {of}"));
            if let Some(left) = world.failing.get_mut(name).filter(|left| **left > 0) {
                *left -= 1;
                return Err(format!("{name} was made to fail"));
            }
            effect(world)
        });
        self.point(format!("after {name} {of}")).await;
        result
    }

    /// A container ends by itself, whether an agent looks or not.
    pub(crate) fn exit(&self, task: &TaskId, container: &str, status: ExitStatus) {
        let container: ContainerName = container.parse().unwrap();
        self.with(|world| world.exit(task, &container, status, false));
    }

    /// The task's lease is over, as its shim finds it: everything is ended, whether an agent looks or not.
    pub(crate) fn end_lease(&self, task: &TaskId) {
        self.with(|world| {
            let Some(shim) = world.shims.get_mut(task) else { return };
            shim.lease_over = true;
            shim.listeners.retain(|listener| listener.try_send(ShimEvent::LeaseOver).is_ok());
            let names: Vec<ContainerName> = shim.containers.keys().cloned().collect();
            names.iter().for_each(|name| world.exit(task, name, ExitStatus::Signaled(9), false));
        });
    }

    /// The shim dies, and its containers with it when somebody notices.
    pub(crate) fn kill_shim(&self, task: &TaskId) {
        self.with(|world| {
            let Some(shim) = world.shims.get_mut(task) else { return };
            shim.alive = false;
            shim.ports.clear();
            shim.listeners.clear();
        });
    }

    /// Everything but the disk is gone.
    pub(crate) fn reboot(&self) {
        self.with(|world| {
            world.shims.clear();
            world.mapped.clear();
            world.attachments.clear();
        });
    }

    /// What is left of any task.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.with(|world| {
            let shims = world.shims.keys().map(|task| format!("shim {task}"));
            let rootfs = world.rootfs.keys().map(|key| format!("rootfs {key}"));
            let networks = world.attachments.iter().map(|name| format!("attachment {name}"));
            let ids = world.mapped.iter().map(|task| format!("ids {task}"));
            shims.chain(rootfs).chain(networks).chain(ids).collect()
        })
    }
}

impl World {
    pub(super) fn exit(&mut self, task: &TaskId, container: &ContainerName, status: ExitStatus, oom: bool) {
        let Some(shim) = self.shims.get_mut(task) else { return };
        let Some(state) = shim.containers.get_mut(container) else { return };
        if matches!(state, ContainerState::Exited(_)) {
            return;
        }
        // Never the same twice, like a real clock's.
        self.last_exit_unix_ms = crate::time::unix_ms().max(self.last_exit_unix_ms + 1);
        let finished_at_unix_ms = self.last_exit_unix_ms;
        let exit = ContainerExit { status, oom_killed: oom, finished_at_unix_ms };
        *state = ContainerState::Exited(exit.clone());
        let event = ShimEvent::Exited { container: container.clone(), exit };
        shim.listeners.retain(|listener| listener.try_send(event.clone()).is_ok());
    }

    pub(super) fn program(&self, container: &ContainerName) -> Program {
        self.programs.get(container).copied().unwrap_or(Program::Runs { on_stop: 0 })
    }

    pub(super) fn listen(&mut self, task: &TaskId) -> mpsc::Receiver<ShimEvent> {
        let (sender, receiver) = mpsc::channel(64);
        if let Some(shim) = self.shims.get_mut(task) {
            shim.listeners.push(sender);
        }
        receiver
    }

    pub(super) fn new_pid(&mut self) -> i32 {
        self.next_pid += 1;
        self.next_pid
    }
}

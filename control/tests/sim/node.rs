//! A simulated node: the agent's side of the session as agent/src/{session,reconcile,assignment,report}
//! have it, and tasks that take simulated time.
//! In: a world, messages of the control plane, faults. Out: messages, started tasks.
//! Owns: its disk (what it has recorded) and what a run of the agent forgets.
//! Never: acts on what it has not recorded; stops a task on the word of a store that was set back.

use crate::disk::{Disk, Step};
use crate::executor::Handle;
use crate::plane::{NodeEnd, Plane};
use crate::world::World;
use lighter_control::session::hello::{PROTOCOL_MAX, PROTOCOL_MIN};
use lighter_control::time::sleep_until;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::status::TaskStatus;
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::node_message::Message as FromNode;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Decision 7: 100 ms to 5 s.
const FIRST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 5_000;
/// A connection on which no hello comes is given up.
const HELLO_MS: u64 = 15_000;
const SILENT_BEATS_MAX: u64 = 3;
const REPORTS_MAX: usize = 128;

pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) id: RefCell<ContainerInstanceId>,
    pub(crate) disk: RefCell<Disk>,
    /// Times its disk was lost.
    pub(crate) wiped: Cell<u64>,
    runs: Cell<u64>,
    /// No packet passes.
    pub(crate) cut_off: Cell<bool>,
    pub(crate) cut_since: Cell<Option<u64>>,
    /// Reads slowly.
    pub(crate) slow: Cell<bool>,
    /// Which agent runs on it.
    pub(crate) speaks: Cell<Speaks>,
    /// An operator is giving it a new identity.
    pub(crate) joining: Cell<bool>,
    /// The session there is: plane and number.
    pub(crate) session: Cell<Option<(usize, u64)>>,
    sessions: Cell<u64>,
    connection: RefCell<Option<Rc<crate::plane::Connection>>>,
    /// Sends reports of this task, which is another's.
    pub(crate) forge: RefCell<Option<TaskId>>,
    /// Sends an old report again.
    pub(crate) replay: Cell<bool>,
    main: RefCell<Option<Handle>>,
}

/// What an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Says nothing of features: an agent of before.
    Before,
    Present,
    /// Knows the next version of the protocol too.
    Next,
    /// Knows only versions that no control plane here speaks.
    Unknown,
}

impl Speaks {
    fn protocol(self) -> v1::ProtocolRange {
        match self {
            Self::Before => v1::ProtocolRange { min: 1, max: PROTOCOL_MIN },
            Self::Present => v1::ProtocolRange { min: PROTOCOL_MIN, max: PROTOCOL_MAX },
            Self::Next => v1::ProtocolRange { min: PROTOCOL_MAX, max: PROTOCOL_MAX + 1 },
            Self::Unknown => v1::ProtocolRange { min: PROTOCOL_MAX + 1, max: PROTOCOL_MAX + 2 },
        }
    }
}

/// What one session knows.
struct Session {
    end: NodeEnd,
    number: u64,
    greeted: bool,
    incarnation: String,
    term: u64,
    sequence: u64,
    manifest: Vec<v1::Assignment>,
    asked: BTreeSet<TaskId>,
    /// By task, the last report sent.
    sent: BTreeMap<TaskId, u64>,
    heartbeat_ms: u64,
    beats: u64,
    silent: u64,
    /// When hello (0) and heartbeats that are not answered were sent.
    sent_at: BTreeMap<u64, u64>,
}

impl Node {
    pub(crate) fn new(index: usize, id: ContainerInstanceId, speaks: Speaks) -> Rc<Self> {
        Rc::new(Self {
            index,
            id: RefCell::new(id),
            disk: RefCell::new(Disk::new(crate::lease::rate(index))),
            wiped: Cell::new(0),
            runs: Cell::new(0),
            cut_off: Cell::new(false),
            cut_since: Cell::new(None),
            slow: Cell::new(false),
            speaks: Cell::new(speaks),
            joining: Cell::new(false),
            session: Cell::new(None),
            sessions: Cell::new(0),
            connection: RefCell::default(),
            forge: RefCell::default(),
            replay: Cell::new(false),
            main: RefCell::default(),
        })
    }

    /// Starts the agent.
    pub(crate) fn start(self: &Rc<Self>, world: &Rc<World>) {
        if self.joining.get() {
            return;
        }
        if let Some(main) = self.main.borrow_mut().take() {
            main.kill();
        }
        self.runs.set(self.runs.get() + 1);
        let (node, at) = (self.clone(), world.clone());
        *self.main.borrow_mut() = Some(world.spawn(async move { node.live(at).await }));
    }

    /// kill -9 of the agent: its tasks go on, its connection breaks.
    pub(crate) fn kill(&self, world: &Rc<World>) {
        if let Some(main) = self.main.borrow_mut().take() {
            main.kill();
        }
        self.hang_up(world);
    }

    /// The connection breaks; the other side learns of it soon, or not before it gives up.
    pub(crate) fn hang_up(&self, world: &Rc<World>) {
        self.session.set(None);
        let Some(connection) = self.connection.borrow_mut().take() else { return };
        connection.node_end.cancel();
        let half_open = world.luck.borrow_mut().percent(25);
        let ms = world.luck.borrow_mut().between(0, if half_open { 40_000 } else { 50 });
        let at = world.clone();
        world.spawn(async move {
            at.sleep(ms).await;
            connection.control_end.cancel();
        });
    }

    async fn live(self: Rc<Self>, world: Rc<World>) {
        let mut ceiling = FIRST_PAUSE_MS;
        loop {
            let planes = world.planes.borrow().clone();
            let plane = world.luck.borrow_mut().pick(&planes);
            if !self.cut_off.get()
                && let Some(plane) = plane
                && self.session(&world, &plane).await
            {
                ceiling = FIRST_PAUSE_MS;
            }
            self.hang_up(&world);
            let pause = world.luck.borrow_mut().below(ceiling);
            ceiling = (ceiling * 2).min(LONGEST_PAUSE_MS);
            let until = world.now_ms() + pause;
            while world.now_ms() < until {
                let next = self.disk.borrow().next_step().unwrap_or(until).min(until);
                world.sleep(next.saturating_sub(world.now_ms())).await;
                self.steps(&world);
            }
        }
    }

    /// One session; whether the hello was answered.
    async fn session(&self, world: &Rc<World>, plane: &Rc<Plane>) -> bool {
        let id = self.id.borrow().clone();
        let Some(end) = plane.connect(world, self.index, &id) else { return false };
        self.sessions.set(self.sessions.get() + 1);
        *self.connection.borrow_mut() = Some(end.connection.clone());
        let mut session = Session::new(end, self.sessions.get());
        session.say(FromNode::Hello(self.hello(&format!("run {} of {}", self.runs.get(), self.index))));
        session.sent_at.insert(0, world.now_ms());
        let mut beat = world.now_ms() + HELLO_MS;
        loop {
            let step = self.disk.borrow().next_step().unwrap_or(u64::MAX).max(world.now_ms());
            let wait = Duration::from_millis(beat.min(step).saturating_sub(world.now_ms()));
            let gone = session.end.connection.node_end.clone();
            tokio::select! {
                biased;
                message = session.end.receive.recv() => {
                    let Some(Ok(message)) = message else { break };
                    if !self.take(world, plane.id, &mut session, message) {
                        break;
                    }
                }
                () = gone.cancelled() => break,
                () = sleep_until(lighter_control::time::now() + wait) => {
                    self.steps(world);
                    if world.now_ms() >= beat {
                        if !session.greeted || session.silent >= SILENT_BEATS_MAX {
                            break;
                        }
                        beat = world.now_ms() + session.heartbeat_ms;
                        session.beats += 1;
                        session.silent += 1;
                        session.sent_at.insert(session.beats, world.now_ms());
                        session.say(FromNode::Heartbeat(v1::Heartbeat { number: session.beats }));
                    }
                }
            }
            if session.greeted {
                if session.beats == 0 && beat > world.now_ms() + session.heartbeat_ms {
                    beat = world.now_ms() + session.heartbeat_ms;
                }
                self.flush(world, &mut session);
            }
        }
        session.greeted
    }

    /// What this node says first.
    pub(crate) fn hello(&self, run_id: &str) -> v1::NodeHello {
        let disk = self.disk.borrow();
        let features = ["instance-state", "streams", "journals", "leases"].map(ToOwned::to_owned);
        v1::NodeHello {
            protocol: Some(self.speaks.get().protocol()),
            features: if self.speaks.get() == Speaks::Before { Vec::new() } else { features.to_vec() },
            agent_version: "0.0.1".to_owned(),
            boot_id: format!("boot {}", self.wiped.get()),
            agent_run_id: run_id.to_owned(),
            term: disk.term,
            incarnation: disk.incarnation.clone(),
            revision: disk.revision,
            state: Some(v1::NodeState {
                resources: Some(v1::Resources { cpu_units: 4096, memory_mib: 8192, ..Default::default() }),
                ..Default::default()
            }),
            tasks: disk.held(),
            ..Default::default()
        }
    }

    fn steps(&self, world: &World) {
        let now = world.now_ms();
        self.disk.borrow_mut().expire(now);
        loop {
            let due = self.disk.borrow().due(now);
            let Some((task, step)) = due else { return };
            if step == Step::Run {
                world.model.borrow_mut().starts(world, &task, self.index, self.wiped.get());
            }
            self.disk.borrow_mut().make(&task, step, now, world.over.get(), &mut world.luck.borrow_mut());
            world.say(format_args!("node {}: {task} {step:?}", self.index));
        }
    }

    fn flush(&self, world: &World, session: &mut Session) {
        let mut reports = Vec::new();
        for (task, running) in &self.disk.borrow().tasks {
            let last = session.sent.get(task).copied().unwrap_or(running.applied);
            if running.sequence > last && reports.len() < REPORTS_MAX {
                session.sent.insert(task.clone(), running.sequence);
                reports.push(running.report(task));
            }
        }
        if self.replay.take()
            && let Some((task, running)) = self.disk.borrow().tasks.iter().find(|(_, t)| t.sequence > 1)
        {
            let old = running.report(task);
            let status = v1::TaskStatus::Pending.into();
            reports.push(v1::TaskReport { sequence: running.sequence - 1, last_status: status, ..old });
            world.say(format_args!("node {} repeats an old report of {task}", self.index));
        }
        if let Some(task) = self.forge.borrow_mut().take() {
            let task_id = task.to_string();
            let last_status = v1::TaskStatus::Running.into();
            let sequence = crate::model::FORGED;
            reports.push(v1::TaskReport { task_id, sequence, last_status, ..Default::default() });
            world.say(format_args!("node {} forges a report of {task}", self.index));
        }
        if !reports.is_empty() {
            session.say(FromNode::TaskReports(v1::TaskReports { reports }));
        }
    }

    /// Takes one message; `false` ends the session.
    fn take(&self, world: &World, plane: usize, session: &mut Session, message: v1::ControlMessage) -> bool {
        session.silent = 0;
        let sequence = message.sequence;
        if sequence > 0 {
            world.check(sequence == session.sequence + 1, || format!("message {sequence} out of order"));
            session.sequence = sequence;
        }
        let mut disk = self.disk.borrow_mut();
        match message.message.unwrap() {
            FromControl::Hello(hello) => {
                if hello.term < disk.term {
                    world.say(format_args!("node {}: term {} is old", self.index, hello.term));
                    return false;
                }
                disk.term = hello.term;
                disk.renew(session.sent_at[&0], world.now_ms());
                (session.term, session.greeted) = (hello.term, true);
                session.incarnation = hello.incarnation;
                session.heartbeat_ms = u64::from(hello.heartbeat_interval_ms);
                self.session.set(Some((plane, session.number)));
                world.say(format_args!("node {}: session with plane {plane}", self.index));
                return true;
            }
            FromControl::HeartbeatAnswer(answer) => {
                let fell = answer.term < session.term;
                world.check(!fell, || format!("node {} heard term {} fall", self.index, answer.term));
                if let Some(sent) = session.sent_at.remove(&answer.number) {
                    disk.renew(sent, world.now_ms());
                }
                return true;
            }
            FromControl::Manifest(manifest) => {
                session.manifest.extend(manifest.assignments);
                if manifest.last_chunk {
                    let all = std::mem::take(&mut session.manifest);
                    world.say(format_args!("node {}: manifest of {}", self.index, all.len()));
                    let (ask, set_back) = disk.manifest(world, all, &session.incarnation, manifest.revision);
                    session.ask(ask);
                    if set_back {
                        session.sent.clear();
                    }
                }
            }
            FromControl::Assignments(assignments) => {
                for assignment in assignments.assignments {
                    disk.accept(world, assignment, &session.incarnation);
                }
                disk.revision = disk.revision.max(assignments.revision);
            }
            FromControl::Definitions(definitions) => {
                disk.definitions.extend(definitions.definitions.into_iter().map(|d| d.task_definition));
            }
            FromControl::ReportsApplied(applied) => applied.applied.iter().for_each(|one| disk.applied(one)),
            FromControl::StopConfirmed(confirmed) => {
                for id in confirmed.task_ids {
                    let id: TaskId = id.parse().unwrap();
                    if session.asked.remove(&id) {
                        disk.disown(world, &id);
                    }
                }
            }
            _ => {}
        }
        disk.act(world.now_ms(), &mut world.luck.borrow_mut());
        session.say(FromNode::Acknowledge(v1::Acknowledge { sequence }));
        true
    }

    /// Tasks that run here.
    pub(crate) fn running(&self, task: &TaskId) -> bool {
        self.disk.borrow().tasks.get(task).is_some_and(|task| task.status == TaskStatus::Running)
    }
}

impl Session {
    fn new(end: NodeEnd, number: u64) -> Self {
        Self {
            end,
            number,
            greeted: false,
            incarnation: String::new(),
            term: 0,
            sequence: 0,
            manifest: Vec::new(),
            asked: BTreeSet::new(),
            sent: BTreeMap::new(),
            heartbeat_ms: HELLO_MS,
            beats: 0,
            silent: 0,
            sent_at: BTreeMap::new(),
        }
    }

    fn say(&self, message: FromNode) {
        // A connection that is gone shows when it is read.
        let _ = self.end.send.send(v1::NodeMessage { message: Some(message) });
    }

    fn ask(&mut self, tasks: Vec<TaskId>) {
        if tasks.is_empty() {
            return;
        }
        let task_ids = tasks.iter().map(ToString::to_string).collect();
        self.asked.extend(tasks);
        self.say(FromNode::ConfirmStop(v1::ConfirmStop { task_ids }));
    }
}

//! The core under random commands, with the store as a map: what must hold after each of them.

use lighter_control::core::definition::{DeregisterDefinition, RegisterDefinition};
use lighter_control::core::instance::{EnsureClusters, NodeConnected, NodeFacts, NodeSilent};
use lighter_control::core::join::{CreateJoinToken, Join};
use lighter_control::core::mutation::{Changes, Mutation};
use lighter_control::core::recovery::Learned;
use lighter_control::core::report::ApplyReports;
use lighter_control::core::run_task::RunTask;
use lighter_control::core::state::State;
use lighter_control::core::stop_task::StopTask;
use lighter_control::core::sweep::Sweep;
use lighter_control::core::{Command, Moment, Settings};
use lighter_control::error::ApiError;
use lighter_model::ids::{ClusterName, ContainerInstanceId, Generation, TaskId};
use lighter_model::report::{ContainerReport, KernelLimits, TaskReport};
use lighter_model::resources::{HostPort, Resources};
use lighter_model::status::{ContainerInstanceStatus, ContainerStatus, DesiredStatus, TaskStatus};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One step; numbers pick among what is there.
#[derive(Debug, Clone)]
enum Step {
    Register { family: u8, cpu: u32, memory: u64, port: u16 },
    Deregister { family: u8, revision: u32 },
    Join { name: u8, token: usize },
    Connect { node: usize, holds: u8, trusted: bool },
    Silent { node: usize },
    Run { family: u8, count: u32, token: Option<u8> },
    Stop { task: usize },
    Report { task: usize, ahead: i64, status: usize, by: usize },
    Sweep,
    Wait { minutes: u64, backward: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..3, 0u32..400, 6u64..400, 0u16..4).prop_map(|(family, cpu, memory, port)| Step::Register { family, cpu, memory, port }),
        1 => (0u8..3, 0u32..5).prop_map(|(family, revision)| Step::Deregister { family, revision }),
        2 => (0u8..4, any::<usize>()).prop_map(|(name, token)| Step::Join { name, token }),
        3 => (any::<usize>(), any::<u8>(), any::<bool>()).prop_map(|(node, holds, trusted)| Step::Connect { node, holds, trusted }),
        1 => any::<usize>().prop_map(|node| Step::Silent { node }),
        6 => (0u8..3, 0u32..12, proptest::option::of(0u8..3)).prop_map(|(family, count, token)| Step::Run { family, count, token }),
        3 => any::<usize>().prop_map(|task| Step::Stop { task }),
        8 => (any::<usize>(), -1i64..3, 0usize..8, any::<usize>()).prop_map(|(task, ahead, status, by)| Step::Report { task, ahead, status, by }),
        1 => Just(Step::Sweep),
        1 => (0u64..120, any::<bool>()).prop_map(|(minutes, backward)| Step::Wait { minutes, backward }),
    ]
}

struct World {
    state: State,
    store: BTreeMap<String, Vec<u8>>,
    settings: Settings,
    wall_unix_ms: u64,
    random: u128,
    tokens: Vec<String>,
}

impl World {
    fn new() -> Self {
        let settings = Settings { events_kept: 40, ..Settings::default() };
        let mut world = Self {
            state: State::default(),
            store: BTreeMap::new(),
            settings,
            wall_unix_ms: 1_700_000_000_000,
            random: 1,
            tokens: Vec::new(),
        };
        world.decide(EnsureClusters { clusters: vec![cluster()] }).unwrap();
        world
    }

    /// Decides as the writer does, and checks what must hold after every command.
    fn decide<C: Command>(&mut self, command: C) -> Result<C::Answer, ApiError> {
        let before = self.state.clone();
        self.random = self.random.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645).wrapping_add(99);
        let moment = Moment { wall_unix_ms: self.wall_unix_ms, random: self.random };
        let mut changes = Changes::new(&mut self.state, &self.settings, moment);
        let answer = command.decide(&mut changes);
        let mutations = changes.finish();
        assert!(answer.is_ok() || mutations.is_empty(), "a refusal changes nothing");
        assert!(mutations.len() <= 64, "one command stays far within a group: {}", mutations.len());
        for mutation in &mutations {
            match mutation.put_or_delete().unwrap() {
                (key, Some(value)) => self.store.insert(key, value),
                (key, None) => self.store.remove(&key),
            };
        }
        self.check(&before, &mutations);
        answer
    }

    fn check(&self, before: &State, mutations: &[Mutation]) {
        let state = &self.state;
        assert_eq!(state.ledger(), &state.recount(), "reservations are what the tasks take");
        assert_eq!(*state, State::from_records(self.records()).unwrap(), "memory is the store");
        assert!(state.meta.cluster_time_ms >= before.meta.cluster_time_ms, "cluster time never falls");
        for (id, old) in &before.tasks {
            let Some(new) = state.tasks.get(id) else {
                assert_eq!(old.last, TaskStatus::Stopped, "only stopped tasks go");
                continue;
            };
            assert!(new.last >= old.last && new.desired >= old.desired, "no status runs backward");
            assert!(new.version >= old.version && new.generation >= old.generation);
            assert!(old.stop_code.is_none() || new.stop_code == old.stop_code, "the first stop code stays");
            assert!(new.last != TaskStatus::Stopped || new.desired == DesiredStatus::Stopped);
        }
        for (id, old) in &before.definitions {
            let new = &state.definitions[id].image_digests;
            let kept = old.image_digests.iter().all(|(name, digest)| new.get(name) == Some(digest));
            assert!(kept, "what a revision's tag means is settled once");
        }
        for (id, instance) in &state.instances {
            let reserved = state.reserved(id);
            if instance.status == ContainerInstanceStatus::Active && instance.offered.cpu_units > 0 {
                assert!(
                    reserved.cpu_units <= u64::from(instance.offered.cpu_units),
                    "never more than there is"
                );
                assert!(reserved.memory_mib <= instance.offered.memory_mib);
            }
            let ports: usize =
                reserved.tasks.iter().map(|id| state.tasks[id].resources.host_ports.len()).sum();
            assert_eq!(ports, reserved.host_ports.len(), "no host port twice on one node");
        }
        let events: Vec<u64> = state.events.keys().copied().collect();
        assert!(events.windows(2).all(|pair| pair[1] == pair[0] + 1), "events have no gaps");
        assert_eq!(events.last().copied().unwrap_or_default(), state.meta.event_sequence);
        let told = mutations.iter().filter(|m| matches!(m, Mutation::Event(_))).count() as u64;
        assert_eq!(state.meta.event_sequence, before.meta.event_sequence + told);
        assert!(events.len() <= self.settings.events_kept);
    }

    fn records(&self) -> Vec<(String, Vec<u8>)> {
        self.store.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn node(&self, pick: usize) -> Option<ContainerInstanceId> {
        let all: Vec<_> = self.state.instances.keys().collect();
        (!all.is_empty()).then(|| all[pick % all.len()].clone())
    }

    fn task(&self, pick: usize) -> Option<TaskId> {
        let all: Vec<_> = self.state.tasks.keys().collect();
        (!all.is_empty()).then(|| all[pick % all.len()].clone())
    }
}

fn cluster() -> ClusterName {
    "default".parse().unwrap()
}

fn apply(world: &mut World, step: Step) {
    match step {
        Step::Register { family, cpu, memory, port } => register(world, family, cpu, memory, port),
        Step::Deregister { family, revision } => {
            let _ = world.decide(DeregisterDefinition { task_definition: format!("f{family}:{revision}") });
        }
        Step::Join { name, token } => join(world, name, token),
        Step::Connect { node, holds, trusted } => connect(world, node, holds, trusted),
        Step::Silent { node } => {
            if let Some(instance) = world.node(node) {
                world.decide(NodeSilent { instance }).unwrap();
            }
        }
        Step::Run { family, count, token } => run(world, family, count, token),
        Step::Stop { task } => {
            if let Some(id) = world.task(task) {
                let stop = StopTask { cluster: cluster(), task: id.to_string(), reason: None, force: false };
                assert_eq!(world.decide(stop).unwrap().desired, DesiredStatus::Stopped);
            }
        }
        Step::Report { task, ahead, status, by } => report(world, task, ahead, status, by),
        Step::Sweep => while world.decide(Sweep).unwrap() {},
        Step::Wait { minutes, backward: false } => world.wall_unix_ms += minutes * 60_000,
        Step::Wait { minutes, backward: true } => world.wall_unix_ms -= minutes * 60_000,
    }
}

fn register(world: &mut World, family: u8, cpu: u32, memory: u64, port: u16) {
    let port = (port > 0).then_some(port);
    let json = crate::support::definition_json(&format!("f{family}"), cpu, memory, port);
    let definition = lighter_model::task_definition::input::parse(&json).unwrap();
    let known: BTreeSet<_> = world.state.definitions.keys().cloned().collect();
    let new = world.decide(RegisterDefinition { definition, registered_by: String::new() }).unwrap();
    assert!(!known.contains(&new.id), "revisions are never used again");
}

fn join(world: &mut World, name: u8, token: usize) {
    let secret_sha256 = "00".to_owned();
    let create = CreateJoinToken {
        cluster: cluster(),
        time_to_live_s: 60,
        attributes: BTreeMap::new(),
        secret_sha256: secret_sha256.clone(),
    };
    let made = world.decide(create).unwrap().id.clone();
    world.tokens.push(made);
    let token_id = world.tokens[token % world.tokens.len()].clone();
    let spent = world.state.join_tokens.get(&token_id).is_none_or(|token| token.used.is_some());
    let public_key_sha256 = world.random.to_string();
    let joined = world.decide(Join { token_id, secret_sha256, public_key_sha256, name: format!("n{name}") });
    assert!(!(spent && joined.is_ok()), "a token is spent once");
}

fn connect(world: &mut World, node: usize, holds: u8, trusted: bool) {
    let Some(instance) = world.node(node) else { return };
    let tasks = world.state.reserved(&instance).tasks.iter().enumerate();
    let held: BTreeMap<TaskId, Generation> = tasks
        .filter(|(index, _)| holds & (1 << (index % 8)) != 0)
        .map(|(_, id)| (id.clone(), Generation(u64::from(holds))))
        .collect();
    let reserved_port = HostPort { protocol: Default::default(), port: 3 };
    let offered = Resources {
        cpu_units: 1000,
        memory_mib: 1000,
        host_ports: BTreeSet::from([reserved_port]),
        ..Resources::default()
    };
    let connected = NodeConnected {
        instance: instance.clone(),
        facts: NodeFacts { offered, ..NodeFacts::default() },
        agent_version: "1".to_owned(),
        boot_id: "b".to_owned(),
        address: None,
        leases: false,
        held: held.clone(),
        trusted,
        learned: Learned::default(),
    };
    loop {
        match world.decide(connected.clone()) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                assert!(matches!(error, ApiError::InstanceNotActive { .. }), "{error}");
                return;
            }
        }
    }
    for id in &world.state.reserved(&instance).tasks {
        assert!(
            world.state.tasks[id].report_sequence == 0 || held.contains_key(id),
            "lost tasks are stopped"
        );
    }
}

fn run(world: &mut World, family: u8, count: u32, token: Option<u8>) {
    let request = RunTask {
        count,
        client_token: token.map(|token| token.to_string()),
        ..RunTask::new(cluster(), &format!("f{family}"))
    };
    let used =
        token.and_then(|token| world.state.client_tokens.get(&(cluster(), token.to_string()))).cloned();
    let known: BTreeSet<TaskId> = world.state.tasks.keys().cloned().collect();
    let Ok(answer) = world.decide(request) else { return };
    let ids: Vec<TaskId> = answer.tasks.iter().map(|task| task.id.clone()).collect();
    match used {
        Some(used) => assert!(ids.iter().all(|id| used.tasks.contains(id)), "the same tasks again"),
        None => {
            assert!(ids.iter().all(|id| !known.contains(id)));
            assert!(known.last().is_none_or(|last| ids.iter().all(|id| id > last) || ids.is_empty()));
            assert_eq!(ids.len() as u32 == count, answer.failures.is_empty());
        }
    }
}

/// The only container of every definition here, with an image of this digest.
fn running(digest: String) -> ContainerReport {
    ContainerReport {
        name: "web".parse().unwrap(),
        status: ContainerStatus::Running,
        exit: None,
        reason: None,
        pid: None,
        image_digest: Some(format!("sha256:{digest}")),
        address: None,
        network_bindings: Vec::new(),
        limits: KernelLimits::default(),
        health: Default::default(),
        last_exit: None,
        devices: Vec::new(),
        restart_count: 0,
    }
}

fn report(world: &mut World, task: usize, ahead: i64, status: usize, by: usize) {
    let (Some(id), Some(by)) = (world.task(task), world.node(by)) else { return };
    let record = world.state.tasks[&id].clone();
    let sequence = record.report_sequence.saturating_add_signed(ahead);
    let by_digest = ["a", "b"][status % 2].repeat(64);
    let report = TaskReport {
        task: id.clone(),
        sequence,
        status: TaskStatus::ALL[status],
        stop_code: None,
        stopped_reason: None,
        waiting_reason: None,
        waits: Vec::new(),
        containers: vec![running(by_digest)],
        paused: false,
        settled: Default::default(),
        refusal: None,
        pull_started_at_unix_ms: None,
        pull_stopped_at_unix_ms: None,
        started_at_unix_ms: None,
        stopping_at_unix_ms: None,
        execution_stopped_at_unix_ms: None,
        stopped_at_unix_ms: None,
    };
    let own = record.instance == by;
    let answer = world.decide(ApplyReports { instance: by, reports: vec![report] });
    assert_eq!(answer.is_ok(), own, "a node speaks of its own tasks only");
    if own && ahead <= 0 {
        assert_eq!(world.state.tasks[&id], record, "an old report changes nothing");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, ..ProptestConfig::default() })]
    #[test]
    fn the_core_keeps_its_promises(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            apply(&mut world, step);
        }
    }
}

#[test]
fn stopped_tasks_stay_for_an_hour_unless_their_cluster_has_too_many() {
    let mut world = World::new();
    world.settings.stopped_tasks_per_cluster = 33;
    register(&mut world, 0, 0, 6, 0);
    join(&mut world, 0, 0);
    connect(&mut world, 0, 0, true);
    (0..4).for_each(|_| run(&mut world, 0, 10, None));
    let tasks: Vec<TaskId> = world.state.tasks.keys().cloned().collect();
    assert_eq!(tasks.len(), 40);
    for index in 0..40 {
        world.wall_unix_ms += 1;
        report(&mut world, index, 1, TaskStatus::ALL.len() - 1, 0);
    }
    let sweep = |world: &mut World| {
        while world.decide(Sweep).unwrap() {}
        world.state.tasks.keys().cloned().collect::<Vec<TaskId>>()
    };
    assert_eq!(sweep(&mut world), tasks[7..], "the oldest beyond 33 go at once");
    world.wall_unix_ms += 3_600_000 - 20;
    assert_eq!(sweep(&mut world), tasks[19..], "an hour is over for those that stopped first");
    world.wall_unix_ms += 25;
    // However many have gathered, one command removes a few of them.
    let before = world.store.clone();
    assert!(world.decide(Sweep).unwrap(), "more is left");
    let removed = before.keys().filter(|key| !world.store.contains_key(*key) && key.starts_with("task/"));
    assert_eq!(removed.count(), 5);
    assert_eq!(sweep(&mut world), [], "an hour is over for all");
}

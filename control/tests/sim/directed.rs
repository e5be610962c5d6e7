//! Races that seeds reach seldom, and rules of services that depend on exact times, one command after another
//! on the core alone.
//! In: a state with one node. Out: what must have come of each order. Never: time that passes by itself, or luck.

mod digests;

use lighter_control::convert::task_status;
use lighter_control::core::deregister::DeregisterInstance;
use lighter_control::core::drain::UpdateInstancesState;
use lighter_control::core::instance::{EnsureClusters, NodeConnected, NodeFacts};
use lighter_control::core::join::{CreateJoinToken, Join};
use lighter_control::core::mutation::Changes;
use lighter_control::core::record::TaskRecord;
use lighter_control::core::report::ApplyReports;
use lighter_control::core::run_task::RunTask;
use lighter_control::core::service::change::{CreateService, DeleteService, UpdateService};
use lighter_control::core::service::protection::UpdateProtection;
use lighter_control::core::service::record::{RolloutState, ServiceKey, ServiceRecord};
use lighter_control::core::service::tend::Tend;
use lighter_control::core::state::State;
use lighter_control::core::stop_task::StopTask;
use lighter_control::core::sweep::Sweep;
use lighter_control::core::{Command, Moment, Settings, definition::RegisterDefinition};
use lighter_control::error::ApiError;
use lighter_control::session::convert::{NodeSaid, node_said};
use lighter_model::ids::{ContainerInstanceId, Generation, TaskId};
use lighter_model::resources::Resources;
use lighter_model::service::{parse_create, parse_update};
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, StopCode, TaskStatus};
use lighter_proto::v1::{self, node_message};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::plane::cluster;

/// A core with one ACTIVE node.
struct Core {
    state: State,
    now_ms: u64,
    random: u128,
    node: ContainerInstanceId,
}

impl Core {
    fn new() -> Self {
        let node = ContainerInstanceId::from_parts(0, 0);
        let mut core = Self { state: State::default(), now_ms: 1_800_000_000_000, random: 1, node };
        core.give(EnsureClusters { clusters: vec![cluster()] }).unwrap();
        core.node = core.join("n");
        core.connect(&[]).unwrap();
        // Its tasks may run what they like, so that they start at once.
        core.register(
            r#"{"family":"f","containerDefinitions":[{"name":"web","image":"registry.test/web:1",
                "versionConsistency":"disabled","memory":64}]}"#,
        );
        core
    }

    fn register(&mut self, json: &str) {
        let definition = lighter_model::task_definition::input::parse(json).unwrap();
        self.give(RegisterDefinition { definition, registered_by: String::new() }).unwrap();
    }

    fn give<C: Command>(&mut self, command: C) -> Result<C::Answer, ApiError> {
        self.random += 1;
        let moment = Moment { wall_unix_ms: self.now_ms, random: self.random };
        let settings = Settings::default();
        let mut changes = Changes::new(&mut self.state, &settings, moment);
        let answer = command.decide(&mut changes);
        changes.finish();
        assert_eq!(*self.state.ledger(), self.state.recount(), "the ledger is what the tasks take");
        answer
    }

    fn join(&mut self, name: &str) -> ContainerInstanceId {
        let create = CreateJoinToken {
            cluster: cluster(),
            time_to_live_s: 60,
            attributes: BTreeMap::new(),
            secret_sha256: "00".to_owned(),
        };
        let token_id = self.give(create).unwrap().id.clone();
        let (secret_sha256, public_key_sha256) = ("00".to_owned(), format!("key of {name}"));
        let join = Join { token_id, secret_sha256, public_key_sha256, name: name.to_owned() };
        self.give(join).unwrap().id.clone()
    }

    fn connect(&mut self, held: &[TaskId]) -> Result<bool, ApiError> {
        self.connect_with(8_192, held)
    }

    fn connect_with(&mut self, memory_mib: u64, held: &[TaskId]) -> Result<bool, ApiError> {
        let offered = Resources { cpu_units: 4_096, memory_mib, ..Default::default() };
        let hello = NodeConnected {
            instance: self.node.clone(),
            facts: NodeFacts { offered, ..Default::default() },
            agent_version: String::new(),
            boot_id: String::new(),
            address: None,
            leases: false,
            held: held.iter().map(|id| (id.clone(), Generation(1))).collect(),
            trusted: true,
            learned: Default::default(),
        };
        self.give(hello)
    }

    fn run(&mut self, count: u32) -> Vec<TaskId> {
        let request = RunTask { count, ..crate::callers::request_of("f", None) };
        self.give(request).unwrap().tasks.iter().map(|task| task.id.clone()).collect()
    }

    fn report(&mut self, task: &TaskId, sequence: u64, status: TaskStatus) {
        let last_status = task_status(status).into();
        self.say(v1::TaskReport { task_id: task.to_string(), sequence, last_status, ..Default::default() });
    }

    /// It never came to run.
    fn fail(&mut self, task: &TaskId) {
        self.say(v1::TaskReport {
            task_id: task.to_string(),
            sequence: 9,
            last_status: v1::TaskStatus::Stopped.into(),
            stop_code: v1::StopCode::TaskFailedToStart.into(),
            ..Default::default()
        });
    }

    fn say(&mut self, report: v1::TaskReport) {
        let message = node_message::Message::TaskReports(v1::TaskReports { reports: vec![report] });
        let NodeSaid::Reports(reports) = node_said(v1::NodeMessage { message: Some(message) }).unwrap()
        else {
            panic!("another message");
        };
        let task = self.state.tasks.get(&reports[0].task);
        let instance = task.map_or(self.node.clone(), |task| task.instance.clone());
        self.give(ApplyReports { instance, reports }).unwrap();
    }

    /// Makes the service `web` of this input.
    fn create(&mut self, more: &str) -> ServiceKey {
        self.create_of("f", more)
    }

    fn create_of(&mut self, definition: &str, more: &str) -> ServiceKey {
        let input = format!(r#"{{"serviceName":"web","taskDefinition":"{definition}"{more}}}"#);
        let create = CreateService {
            cluster: cluster(),
            input: parse_create(&input).unwrap(),
            created_by: String::new(),
            fingerprint: String::new(),
        };
        self.give(create).unwrap().key()
    }

    fn update(&mut self, more: &str) -> Result<Arc<ServiceRecord>, ApiError> {
        let input = parse_update(&format!(r#"{{"service":"web"{more}}}"#)).unwrap();
        self.give(UpdateService { cluster: cluster(), input, expected_version: 0 })
    }

    /// Tends until nothing is left to be done now: the tasks that are not STOPPED.
    fn tend(&mut self, key: &ServiceKey) -> Vec<TaskId> {
        while self.give(Tend { key: key.clone(), may_start: true }).unwrap().more {}
        let tasks = self.state.tasks_of_service(key);
        tasks.filter(|task| task.last != TaskStatus::Stopped).map(|task| task.id.clone()).collect()
    }

    fn drain(&mut self, draining: bool) -> Vec<String> {
        let command = UpdateInstancesState {
            cluster: cluster(),
            instances: vec!["n".to_owned()],
            draining,
            reason: None,
            deadline_unix_ms: None,
            stop_tasks: draining,
        };
        self.give(command).unwrap().failures.into_iter().map(|failure| failure.reason).collect()
    }

    fn status(&self) -> ContainerInstanceStatus {
        self.state.instances[&self.node].status
    }

    fn task(&self, id: &TaskId) -> Arc<TaskRecord> {
        self.state.tasks[id].clone()
    }
}

#[test]
fn a_node_that_is_deregistered_by_force_while_it_drains_does_not_come_back() {
    let mut core = Core::new();
    let tasks: Vec<TaskId> = (0..3).flat_map(|_| core.run(5)).collect();
    assert_eq!(core.drain(true), Vec::<String>::new());
    let instance = core.node.to_string();
    let away = core.give(DeregisterInstance { cluster: cluster(), instance, force: true });
    assert_eq!(away.unwrap().instance.status, ContainerInstanceStatus::Deregistering);
    for draining in [true, false] {
        assert_eq!(core.drain(draining), ["DEREGISTERING"]);
        assert_eq!(core.status(), ContainerInstanceStatus::Deregistering);
    }
    assert!(core.connect(&tasks).is_err(), "it has no session any more");
    while core.give(Sweep).unwrap() && core.status() != ContainerInstanceStatus::Inactive {}
    assert_eq!(core.status(), ContainerInstanceStatus::Inactive);
    assert!(tasks.iter().all(|id| core.task(id).last == TaskStatus::Stopped));
}

#[test]
fn of_a_node_back_with_an_empty_disk_only_what_it_never_heard_of_still_runs() {
    let mut core = Core::new();
    let tasks = core.run(2);
    core.report(&tasks[0], 1, TaskStatus::Pending);
    assert!(!core.connect(&[]).unwrap());
    let (told, new) = (core.task(&tasks[0]), core.task(&tasks[1]));
    assert_eq!((told.last, told.stop_code), (TaskStatus::Stopped, Some(StopCode::InfrastructureHealth)));
    assert_eq!((new.last, new.desired), (TaskStatus::Pending, DesiredStatus::Running));
    // Both are held by a disk that comes back after all: what was given up stays so.
    assert!(!core.connect(&tasks).unwrap());
    core.report(&tasks[0], 2, TaskStatus::Running);
    assert_eq!(core.task(&tasks[0]).last, TaskStatus::Stopped);
}

#[test]
fn a_stop_and_a_report_of_running_come_to_the_same_in_either_order() {
    let stop = |core: &mut Core, task: &TaskId| {
        let request = StopTask { cluster: cluster(), task: task.to_string(), reason: None, force: false };
        core.give(request).unwrap();
    };
    for stop_first in [true, false] {
        let mut core = Core::new();
        let task = core.run(1).remove(0);
        if stop_first {
            stop(&mut core, &task);
        }
        core.report(&task, 2, TaskStatus::Running);
        if !stop_first {
            stop(&mut core, &task);
        }
        let now = core.task(&task);
        assert_eq!((now.desired, now.last), (DesiredStatus::Stopped, TaskStatus::Running));
        assert_eq!((now.generation, now.stop_code), (Generation(2), Some(StopCode::UserInitiated)));
    }
}

#[test]
fn what_is_stopped_has_a_code_and_a_reason_even_if_its_node_says_none() {
    let mut core = Core::new();
    let task = core.run(1).remove(0);
    core.report(&task, 1, TaskStatus::Stopped);
    let now = core.task(&task);
    assert!(now.stop_code.is_some() && now.stopped_reason.is_some() && now.desired == DesiredStatus::Stopped);
}

#[test]
fn of_a_service_s_events_the_last_hundred_are_kept() {
    let mut core = Core::new();
    let key = core.create(r#","desiredCount":0"#);
    for _ in 0..60 {
        core.update(r#","desiredCount":1"#).unwrap();
        let task = core.tend(&key).remove(0);
        core.update(r#","desiredCount":0"#).unwrap();
        core.tend(&key);
        core.report(&task, 1, TaskStatus::Stopped);
    }
    let last = core.state.services[&key].event_number;
    assert!(last >= 120, "each round has told of a start and a stop: {last}");
    let kept: Vec<u64> = core.state.service_events.keys().map(|(_, number)| *number).collect();
    assert_eq!(kept, (last - 99..=last).collect::<Vec<_>>());
}

#[test]
fn a_healthy_task_sets_the_breaker_back_unless_it_is_not_to() {
    for (more, state) in [
        ("", RolloutState::InProgress),
        (r#","resetOnHealthyTask":true"#, RolloutState::InProgress),
        (r#","resetOnHealthyTask":false"#, RolloutState::Failed),
    ] {
        let mut core = Core::new();
        let key = core.create(&format!(
            r#","desiredCount":2,"deploymentConfiguration":{{"deploymentCircuitBreaker":{{"enable":true,
                "rollback":false,"thresholdConfiguration":{{"type":"COUNT","value":3}}{more}}}}}"#
        ));
        core.tend(&key).iter().for_each(|task| core.fail(task));
        assert!(core.tend(&key).is_empty(), "it waits after a failure");
        core.now_ms += 10_000;
        let (good, bad) = (core.tend(&key).remove(0), core.tend(&key).remove(1));
        core.report(&good, 1, TaskStatus::Running);
        core.now_ms += 39_999;
        core.tend(&key);
        let count = |core: &Core| core.state.services[&key].deployments[0].breaker_count;
        assert_eq!(count(&core), 2, "it is healthy after 40 seconds, not before");
        core.now_ms += 1;
        core.tend(&key);
        assert_eq!(count(&core), if state == RolloutState::Failed { 2 } else { 0 });
        core.fail(&bad);
        core.tend(&key);
        assert_eq!(core.state.services[&key].deployments[0].state, state, "{more}");
    }
}

#[test]
fn what_cannot_be_said_of_a_daemon_is_refused_and_changes_nothing() {
    let mut core = Core::new();
    let key = core.create(r#","schedulingStrategy":"DAEMON""#);
    assert_eq!(core.tend(&key).len(), 1);
    let before = core.state.services[&key].clone();
    for more in [
        r#","desiredCount":2"#,
        r#","deploymentConfiguration":{"maximumPercent":200}"#,
        r#","placementStrategy":[{"type":"random"}]"#,
        r#","nodeSilence":{"replace":true,"lostAfterSeconds":60}"#,
    ] {
        assert!(matches!(core.update(more), Err(ApiError::InvalidParameter { .. })), "{more}");
        assert_eq!(core.state.services[&key], before);
    }
    core.update(r#","deploymentConfiguration":{"minimumHealthyPercent":50,"maximumPercent":100}"#).unwrap();
}

#[test]
fn a_daemon_tells_of_the_instance_that_is_meant_also_beyond_the_first_twenty() {
    let mut core = Core::new();
    let mut nodes = vec![core.node.clone()];
    for number in 1..25 {
        core.node = core.join(&format!("n{number}"));
        // The last but one of 25 has no room; the others would take the task.
        core.connect_with(if number == 23 { 32 } else { 8_192 }, &[]).unwrap();
        nodes.push(core.node.clone());
    }
    let key = core.create(r#","schedulingStrategy":"DAEMON""#);
    let tasks = core.tend(&key);
    let on: Vec<_> = tasks.iter().map(|task| core.task(task).instance.clone()).collect();
    let without: Vec<_> = nodes.iter().filter(|node| !on.contains(node)).collect();
    assert_eq!((tasks.len(), without), (24, vec![&nodes[23]]));
    let told = core.state.service_events.values().filter(|event| event.message.contains("unable to place"));
    // Told again after each chunk of tasks that were started.
    let told: BTreeSet<_> = told.map(|event| event.message.as_str()).collect();
    let words = "(service web) was unable to place a task because no container instance met all of its \
        requirements. The closest matching (container-instance";
    let told: Vec<_> = told.into_iter().collect();
    assert_eq!(told, [format!("{words} {}) has insufficient memory available.", nodes[23])]);
}

/// A RUNNING task whose only container is judged so.
fn judged(task: &TaskId, sequence: u64, status: v1::HealthStatus) -> v1::TaskReport {
    let health = Some(v1::ContainerHealth { status: status.into(), ..Default::default() });
    let container = v1::Container {
        name: "web".to_owned(),
        last_status: v1::ContainerStatus::Running.into(),
        essential: true,
        health,
        ..Default::default()
    };
    v1::TaskReport {
        task_id: task.to_string(),
        sequence,
        last_status: v1::TaskStatus::Running.into(),
        containers: vec![container],
        ..Default::default()
    }
}

#[test]
fn a_task_that_was_never_healthy_counts_for_the_breaker_however_long_it_was_left_alone() {
    for (first, state) in [
        (v1::HealthStatus::Unknown, RolloutState::Failed),
        (v1::HealthStatus::Healthy, RolloutState::InProgress),
    ] {
        let mut core = Core::new();
        let key = core.create(
            r#","desiredCount":2,"healthCheckGracePeriodSeconds":60,"deploymentConfiguration":{
                "deploymentCircuitBreaker":{"enable":true,"rollback":false,
                "thresholdConfiguration":{"type":"COUNT","value":1}}}"#,
        );
        let task = core.tend(&key).remove(0);
        core.say(judged(&task, 1, first));
        core.tend(&key);
        core.say(judged(&task, 2, v1::HealthStatus::Unhealthy));
        core.now_ms += 59_999;
        assert_eq!(core.tend(&key).len(), 2, "it is left alone");
        core.now_ms += 1;
        // Another starts beside it and is healthy: then it goes.
        let other = core.tend(&key).remove(2);
        core.say(judged(&other, 1, v1::HealthStatus::Healthy));
        let second = core.tend(&key).remove(1);
        core.say(judged(&second, 1, v1::HealthStatus::Healthy));
        core.tend(&key);
        assert_eq!(core.task(&task).desired, DesiredStatus::Stopped);
        core.tend(&key);
        assert_eq!(core.state.services[&key].deployments[0].state, state, "first it was {first:?}");
    }
}

#[test]
fn nothing_starts_in_the_decision_that_takes_unhealthy_tasks_away() {
    let mut core = Core::new();
    let bounds =
        r#","desiredCount":3,"deploymentConfiguration":{"minimumHealthyPercent":0,"maximumPercent":134}"#;
    let key = core.create(bounds);
    let tasks = core.tend(&key);
    core.now_ms += 1_000;
    tasks[..2].iter().for_each(|task| core.say(judged(task, 1, v1::HealthStatus::Unhealthy)));
    core.say(judged(&tasks[2], 1, v1::HealthStatus::Healthy));
    let goes =
        |core: &Core| tasks.iter().filter(|task| core.task(task).desired == DesiredStatus::Stopped).count();
    core.tend(&key);
    assert!(goes(&core) > 0, "one makes room");
    let until = core.state.services[&key].throttle.until_unix_ms;
    assert!(until > core.now_ms, "it has failed");
    assert_eq!(core.state.tasks_of_service(&key).count(), 3, "the next waits");
    core.now_ms = until;
    core.tend(&key);
    assert!(core.state.tasks_of_service(&key).count() > 3);
}

/// Two tasks on the first of two nodes; one is moved to the second: the one that goes, the one that comes.
fn moving(core: &mut Core) -> (ServiceKey, TaskId, TaskId) {
    let key = core.create(r#","desiredCount":2"#);
    let two = core.tend(&key);
    two.iter().for_each(|task| core.report(task, 1, TaskStatus::Running));
    core.now_ms += 40_000;
    assert_eq!(core.tend(&key), two);
    core.node = core.join("second");
    core.connect(&[]).unwrap();
    let three = core.tend(&key);
    let old = three.iter().find(|task| core.task(task).service.as_ref().unwrap().moving).cloned();
    (key, old.expect("one moves"), three[2].clone())
}

#[test]
fn what_was_to_move_stays_when_the_maximum_leaves_no_room_for_another_any_more() {
    let mut core = Core::new();
    let (key, old, new) = moving(&mut core);
    core.update(r#","deploymentConfiguration":{"minimumHealthyPercent":50,"maximumPercent":100}"#).unwrap();
    core.fail(&new);
    core.tend(&key);
    core.now_ms += 60_000;
    assert_eq!(core.tend(&key).len(), 2);
    assert!(!core.task(&old).service.as_ref().unwrap().moving, "it is wanted where it is");
    assert!(!core.state.services[&key].told.blocked && core.state.services[&key].told.steady);
}

#[test]
fn nothing_is_moved_while_a_service_waits_after_failures() {
    let mut core = Core::new();
    let key = core.create(r#","desiredCount":3"#);
    let three = core.tend(&key);
    three.iter().for_each(|task| core.report(task, 1, TaskStatus::Running));
    core.now_ms += 40_000;
    assert_eq!(core.tend(&key).len(), 3);
    core.fail(&three[0]);
    core.node = core.join("second");
    core.connect(&[]).unwrap();
    assert_eq!(core.tend(&key), three[1..], "it waits");
    assert!(core.give(Tend { key: key.clone(), may_start: false }).is_ok_and(|tended| !tended.more));
    core.now_ms += 1_000;
    assert_eq!(core.tend(&key).len(), 3);
}

#[test]
fn protection_keeps_no_unhealthy_task_and_none_of_a_deleted_service() {
    let mut core = Core::new();
    let key = core.create(r#","desiredCount":2"#);
    let tasks = core.tend(&key);
    tasks.iter().for_each(|task| core.say(judged(task, 1, v1::HealthStatus::Healthy)));
    assert_eq!(core.tend(&key).len(), 2);
    let protect = UpdateProtection {
        cluster: cluster(),
        tasks: tasks.iter().map(ToString::to_string).collect(),
        enabled: true,
        minutes: 0,
    };
    assert_eq!(core.give(protect).unwrap().tasks.len(), 2);
    core.update(r#","desiredCount":0"#).unwrap();
    core.tend(&key);
    assert!(tasks.iter().all(|task| core.task(task).desired == DesiredStatus::Running), "scale-in waits");
    core.update(r#","desiredCount":2"#).unwrap();
    core.say(judged(&tasks[0], 2, v1::HealthStatus::Unhealthy));
    let three = core.tend(&key);
    assert_eq!(three.len(), 3, "another is started first");
    core.say(judged(&three[2], 1, v1::HealthStatus::Healthy));
    core.tend(&key);
    assert_eq!(core.task(&tasks[0]).desired, DesiredStatus::Stopped);
    assert_eq!(core.task(&tasks[1]).desired, DesiredStatus::Running);
    let delete = DeleteService { cluster: cluster(), service: "web".to_owned(), force: true };
    core.give(delete).unwrap();
    core.tend(&key);
    assert!(three.iter().all(|task| core.task(task).desired == DesiredStatus::Stopped));
}

//! A deployment starts one task to find out what its images' tags mean, the others with what that one found.
//! In: a core with nodes. Out: what came of each way in which this may go. Never: luck.

use super::*;
use lighter_control::core::instance::NodeSilent;
use lighter_control::core::record::ImageDigests;
use lighter_control::core::service::control::{Action, ControlDeployment};

/// How long one task is waited for.
const PATIENCE_MS: u64 = 600_000;
const TAGGED: &str = r#"{"family":"tagged","containerDefinitions":[
    {"name":"web","image":"registry.test/web:1","memory":64},
    {"name":"side","image":"registry.test/side:1","memory":64,"essential":false},
    {"name":"loose","image":"registry.test/loose:1","memory":64,"versionConsistency":"disabled","essential":false}]}"#;
const EXACT: &str = r#"{"family":"exact","containerDefinitions":[{"name":"web","memory":64,"image":
    "registry.test/web@sha256:1111111111111111111111111111111111111111111111111111111111111111"}]}"#;

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

/// What is settled of the container `web`.
fn web(digests: &ImageDigests) -> Option<String> {
    digests.iter().find(|(name, _)| name.as_ref() == "web").map(|(_, digest)| digest.to_string())
}

/// What a node says of the images of a task.
fn images(task: &TaskId, sequence: u64, status: v1::TaskStatus, found: &[(&str, char)]) -> v1::TaskReport {
    let container = |(name, letter): &(&str, char)| v1::Container {
        name: (*name).to_owned(),
        last_status: v1::ContainerStatus::Pending.into(),
        image_digest: digest(*letter),
        ..Default::default()
    };
    v1::TaskReport {
        task_id: task.to_string(),
        sequence,
        last_status: status.into(),
        containers: found.iter().map(container).collect(),
        ..Default::default()
    }
}

fn tagged(nodes: &[&str], more: &str) -> (Core, ServiceKey) {
    let mut core = Core::new();
    core.register(TAGGED);
    core.register(EXACT);
    nodes.iter().for_each(|name| core.come(name));
    let key = core.create_of("tagged", more);
    (core, key)
}

const BOTH: [(&str, char); 2] = [("web", 'a'), ("side", 'b')];

impl Core {
    /// Another ACTIVE node.
    fn come(&mut self, name: &str) {
        self.node = self.join(name);
        self.connect(&[]).unwrap();
    }

    fn told(&self, words: &str) -> usize {
        self.state.service_events.values().filter(|event| event.message.contains(words)).count()
    }

    fn finds(&mut self, task: &TaskId, found: &[(&str, char)]) {
        self.say(images(task, 1, v1::TaskStatus::Activating, found));
    }

    /// All of these run what the first deployment has found.
    fn same(&self, tasks: &[TaskId], letter: char) -> bool {
        tasks.iter().all(|id| web(&self.task(id).image_digests) == Some(digest(letter)))
    }

    fn stop(&mut self, task: &TaskId) {
        let request = StopTask { cluster: cluster(), task: task.to_string(), reason: None, force: false };
        self.give(request).unwrap();
    }

    fn control(&mut self, action: Action) {
        self.give(ControlDeployment { cluster: cluster(), service: "web".to_owned(), action }).unwrap();
    }

    fn silent(&mut self, task: &TaskId) {
        let instance = self.task(task).instance.clone();
        self.give(NodeSilent { instance }).unwrap();
    }
}

const UNPINNED: &str = "tasks ended or run without the digest";

#[test]
fn one_task_finds_out_and_the_others_start_with_it() {
    let (mut core, key) = tagged(&[], r#","desiredCount":5"#);
    let first = core.tend(&key);
    assert_eq!((first.len(), core.told("waits for the image digest of (task")), (1, 1));
    core.report(&first[0], 1, TaskStatus::Pending);
    assert_eq!(core.tend(&key), first, "it has said nothing of images");
    core.say(images(&first[0], 2, v1::TaskStatus::Activating, &BOTH[..1]));
    assert_eq!(core.tend(&key), first, "one of its two tags is open");
    core.say(images(&first[0], 3, v1::TaskStatus::Activating, &BOTH));
    let all = core.tend(&key);
    assert!(all.len() == 5 && core.same(&all[1..], 'a'), "though it is not yet RUNNING");
    assert!(all[1..].iter().all(|id| core.task(id).image_digests.len() == 2));
    // Another deployment asks anew, and makes room for one at a time.
    core.update(r#","forceNewDeployment":true,"deploymentConfiguration":{"minimumHealthyPercent":0,"maximumPercent":100}"#)
        .unwrap();
    core.tend(&key);
    let stopping =
        |core: &Core| all.iter().filter(|id| core.task(id).desired == DesiredStatus::Stopped).count();
    assert_eq!(
        (stopping(&core), core.told(UNPINNED)),
        (5, 0),
        "PENDING tasks of the one before are of no use"
    );
}

#[test]
fn what_names_its_digest_or_need_not_be_the_same_waits_for_nothing() {
    for definition in ["exact", "f"] {
        let (mut core, _) = tagged(&[], r#","desiredCount":0"#);
        core.update(&format!(r#","desiredCount":5,"taskDefinition":"{definition}""#)).unwrap();
        let key = core.state.services.keys().next().unwrap().clone();
        assert_eq!((core.tend(&key).len(), core.told("waits for the image digest")), (5, 0), "{definition}");
    }
}

#[test]
fn after_three_that_found_nothing_out_the_events_say_so_and_all_start() {
    let breaker = r#","desiredCount":8,"deploymentConfiguration":{"deploymentCircuitBreaker":{"enable":true,
        "rollback":false,"thresholdConfiguration":{"type":"COUNT","value":4}}}"#;
    let (mut core, key) = tagged(&[], breaker);
    for number in 0..3 {
        let one = core.tend(&key);
        assert_eq!((one.len(), core.told(UNPINNED)), (1, 0), "{number}");
        core.fail(&one[0]);
        assert!(core.tend(&key).is_empty(), "it waits after a failure");
        core.now_ms += 10_000;
    }
    let all = core.tend(&key);
    assert_eq!((all.len(), core.told(UNPINNED)), (8, 1));
    let deployment = |core: &Core| core.state.services[&key].deployments[0].clone();
    assert_eq!((deployment(&core).breaker_count, deployment(&core).unpinned), (3, true));
    core.fail(&all[0]);
    core.tend(&key);
    assert_eq!((deployment(&core).state, core.told(UNPINNED)), (RolloutState::Failed, 1));
}

#[test]
fn tasks_that_run_without_a_digest_are_three_at_the_most() {
    let (mut core, key) = tagged(&[], r#","desiredCount":6"#);
    for count in 1..=3 {
        let tasks = core.tend(&key);
        assert_eq!(tasks.len(), count, "an image from an archive has no digest");
        core.report(&tasks[count - 1], 1, TaskStatus::Running);
    }
    assert_eq!((core.tend(&key).len(), core.told(UNPINNED)), (6, 1));
}

#[test]
fn a_task_whose_node_is_away_is_not_waited_for_and_is_replaced_if_it_found_something_else() {
    let (mut core, key) = tagged(&["m"], r#","desiredCount":3"#);
    let first = core.tend(&key).remove(0);
    core.silent(&first);
    let two = core.tend(&key);
    assert_eq!(two.len(), 2, "another finds out elsewhere");
    let second = two.into_iter().find(|id| *id != first).unwrap();
    core.finds(&second, &BOTH);
    assert_eq!(core.tend(&key).len(), 3);
    core.node = core.task(&first).instance.clone();
    core.connect(std::slice::from_ref(&first)).unwrap();
    core.say(images(&first, 5, v1::TaskStatus::Running, &[("web", 'f')]));
    let now = core.tend(&key);
    let live: Vec<_> = now.into_iter().filter(|id| core.task(id).desired == DesiredStatus::Running).collect();
    assert!(live.len() == 4 && live.contains(&first), "another takes its place first");
    let others: Vec<_> = live.into_iter().filter(|id| *id != first).collect();
    others.iter().for_each(|id| core.report(id, 9, TaskStatus::Running));
    core.now_ms += 60_000;
    core.tend(&key);
    assert_eq!(core.task(&first).desired, DesiredStatus::Stopped);
    assert_eq!(web(&core.state.services[&key].deployments[0].image_digests), Some(digest('a')));
}

#[test]
fn a_task_that_is_stopped_lost_or_drained_is_followed_by_another() {
    // Stopped by hand: not before it has ended, for it may still say what it found.
    let (mut core, key) = tagged(&["m"], r#","desiredCount":4"#);
    let first = core.tend(&key).remove(0);
    core.stop(&first);
    assert_eq!(core.tend(&key).len(), 1);
    core.report(&first, 3, TaskStatus::Stopped);
    let second = core.tend(&key);
    assert!(second.len() == 1 && second[0] != first);
    // Its node drains.
    let instance = core.task(&second[0]).instance.to_string();
    let command = UpdateInstancesState {
        cluster: cluster(),
        instances: vec![instance.clone()],
        draining: true,
        reason: None,
        deadline_unix_ms: None,
        stop_tasks: true,
    };
    core.give(command).unwrap();
    core.tend(&key);
    assert_eq!(core.task(&second[0]).desired, DesiredStatus::Stopped);
    core.report(&second[0], 3, TaskStatus::Stopped);
    let third = core.tend(&key).remove(0);
    assert_ne!(core.task(&third).instance.to_string(), instance);
    // Its node is gone for good: that was the third.
    let (instance, force) = (core.task(&third).instance.to_string(), true);
    core.give(DeregisterInstance { cluster: cluster(), instance, force }).unwrap();
    core.come("o");
    while core.give(Sweep).unwrap() && core.task(&third).last != TaskStatus::Stopped {}
    let all = core.tend(&key);
    assert!(all.len() == 4 && !all.contains(&third) && core.told(UNPINNED) == 1, "{all:?}");
}

#[test]
fn a_task_is_not_waited_for_for_ever_nor_one_that_was_never_placed() {
    let (mut core, key) = tagged(&[], r#","desiredCount":3"#);
    for count in 1..=3 {
        assert_eq!(core.tend(&key).len(), count);
        core.now_ms += PATIENCE_MS - 1;
        assert_eq!(core.tend(&key).len(), count);
        core.now_ms += 1;
    }
    // Where nothing fits nobody counts as tried.
    let mut core = Core::new();
    core.register(&TAGGED.replace("64", "6000"));
    let key = core.create_of("tagged", r#","desiredCount":2"#);
    (0..5).for_each(|_| assert!(core.tend(&key).is_empty()));
    assert_eq!((core.state.services[&key].deployments[0].digest_tasks, core.told(UNPINNED)), (0, 0));
}

#[test]
fn paused_superseded_or_rolled_back_each_deployment_finds_out_for_itself() {
    let (mut core, key) = tagged(&[], r#","desiredCount":3"#);
    let first = core.tend(&key).remove(0);
    core.control(Action::Pause);
    core.finds(&first, &BOTH);
    core.tend(&key);
    core.control(Action::Resume);
    let all = core.tend(&key);
    assert!(all.len() == 3 && core.same(&all[1..], 'a'));
    all.iter().for_each(|id| core.report(id, 9, TaskStatus::Running));
    core.now_ms += 60_000;
    core.tend(&key);
    assert_eq!(core.state.services[&key].deployments[0].state, RolloutState::Completed);
    // The next waits, and the one after it as well: whoever waited before is stopped.
    let mut waits = Vec::new();
    for _ in 0..2 {
        core.update(r#","forceNewDeployment":true"#).unwrap();
        let tasks = core.tend(&key);
        let new: Vec<_> = tasks.into_iter().filter(|id| !all.contains(id) && !waits.contains(id)).collect();
        assert_eq!(new.len(), 1);
        waits.extend(new);
    }
    assert_eq!(core.task(&waits[0]).desired, DesiredStatus::Stopped);
    // What is gone back to is known.
    core.stop(&all[0]);
    core.report(&all[0], 10, TaskStatus::Stopped);
    core.control(Action::Rollback);
    let now = core.tend(&key);
    let stand_in: Vec<_> = now.into_iter().filter(|id| !all.contains(id) && !waits.contains(id)).collect();
    assert!(stand_in.len() == 1 && core.same(&stand_in, 'a'));
    assert_eq!(core.task(&waits[1]).desired, DesiredStatus::Stopped, "it may find something else");
}

#[test]
fn a_daemon_s_first_task_finds_out_for_all_nodes() {
    let (mut core, key) = tagged(&["m", "o", "p"], r#","schedulingStrategy":"DAEMON""#);
    let first = core.tend(&key);
    assert_eq!((first.len(), core.told("waits for the image digest of (task")), (1, 1));
    core.finds(&first[0], &BOTH);
    let all = core.tend(&key);
    assert!(all.len() == 4 && core.same(&all[1..], 'a'));
    all.iter().for_each(|id| core.report(id, 9, TaskStatus::Running));
    core.now_ms += 60_000;
    core.tend(&key);
    // The next deployment takes one task away to find out, then all.
    core.update(r#","forceNewDeployment":true"#).unwrap();
    core.tend(&key);
    let ending =
        |core: &Core| all.iter().filter(|id| core.task(id).desired == DesiredStatus::Stopped).count();
    assert_eq!(ending(&core), 1);
    let gone = all.iter().find(|id| core.task(id).desired == DesiredStatus::Stopped).unwrap().clone();
    core.report(&gone, 10, TaskStatus::Stopped);
    let now = core.tend(&key);
    assert_eq!((now.len(), ending(&core)), (4, 1), "one is exchanged");
    let new = now.into_iter().find(|id| !all.contains(id)).unwrap();
    core.finds(&new, &[("web", 'c'), ("side", 'd')]);
    core.tend(&key);
    assert_eq!(ending(&core), 4);
}

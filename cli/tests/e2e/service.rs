//! Services by the commands a person types, against a real control plane and nodes that do what they
//! are told. Containers are checked and HEALTHY at once, so that nothing waits for its 40 seconds.

use super::control_plane::{Cluster, definition};
use super::node;
use super::program::{Done, spawn, until};
use serde_json::{Value, json};
use std::io::{BufRead, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn checked(image: &str) -> Value {
    definition(json!({"image": image, "healthCheck": {"command": ["CMD-SHELL", "true"]}}))
}

/// A cluster of one node that knows `web:1`.
fn cluster() -> Cluster {
    let cluster = Cluster::start();
    node::join(&cluster, "n1");
    register(&cluster, "r/nginx:1");
    until("the node is there", || json_of(&cluster, &["node", "show", "n1"])["status"] == "ACTIVE");
    cluster
}

fn register(cluster: &Cluster, image: &str) {
    let file = cluster.file("definition.json", &checked(image).to_string());
    ok(cluster.run(&["task-definition", "register", &file]));
}

#[track_caller]
fn ok(done: Done) -> Done {
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    done
}

#[track_caller]
fn json_of(cluster: &Cluster, arguments: &[&str]) -> Value {
    let done = ok(cluster.run(&[arguments, &["-o", "json"]].concat()));
    serde_json::from_str(&done.out).unwrap()
}

fn described(cluster: &Cluster) -> Value {
    json_of(cluster, &["service", "describe", "web"])
}

#[test]
fn a_service_is_made_changed_and_removed_and_each_change_waits_until_it_holds() {
    let cluster = cluster();
    let made = ok(cluster.run(&["service", "create", "web", "--task-definition", "web", "--count", "2"]));
    assert_eq!(made.out, "web 2/2 tasks of web:1, COMPLETED\n");
    assert!(made.err.contains("web:1 2/2 running, 2 healthy"), "{}", made.err);
    // As in ECS: the same once more is no change, something else is refused.
    ok(cluster.run(&["service", "create", "web", "--task-definition", "web", "--count", "2"]));
    let other = cluster.run(&["service", "create", "web", "--task-definition", "web", "--count", "1"]);
    assert!(other.code != 0 && other.err.contains("idempotent"), "{}", other.err);
    ok(cluster.run(&["service", "scale", "web", "3"]));
    assert_eq!(
        (&described(&cluster)["runningCount"], &described(&cluster)["pendingCount"]),
        (&3.into(), &0.into())
    );
    // Quiet: the name alone, and no progress.
    let quiet = ok(cluster.run(&["service", "scale", "web", "2", "-q"]));
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("web\n", ""));
    register(&cluster, "r/nginx:2");
    ok(cluster.run(&["service", "update", "web", "--task-definition", "web"]));
    assert_eq!(described(&cluster)["taskDefinition"], "web:2");
    let back = ok(cluster.run(&["service", "rollback", "web"]));
    assert!(back.err.contains("back to web:1"), "{}", back.err);
    assert_eq!(described(&cluster)["taskDefinition"], "web:1");
    let events = ok(cluster.run(&["service", "events", "web"])).out;
    assert!(events.contains("(service web) has reached a steady state."), "{events}");
    let refused = cluster.run(&["service", "rm", "web"]);
    assert!(refused.code != 0 && refused.err.contains("--force"), "{}", refused.err);
    ok(cluster.run(&["service", "rm", "web", "--force"]));
    assert_eq!(json_of(&cluster, &["ps"]), json!([]), "its tasks are gone");
    let late = cluster.run(&["service", "scale", "web", "1"]);
    assert!(late.code == 3 && late.err.contains("lighter service ls"), "{}", late.err);
    assert_eq!(cluster.run(&["service", "describe", "nothing"]).code, 4);
}

#[test]
fn a_rollout_is_paused_and_resumed_and_detached_commands_come_back_at_once() {
    let cluster = cluster();
    ok(cluster.run(&["service", "create", "web", "--task-definition", "web", "--count", "2"]));
    register(&cluster, "r/nginx:2");
    // Nothing may start and nothing may stop: it stays in the middle.
    let stuck = ["--min-healthy", "100", "--max", "100", "--detach"];
    let update = ["service", "update", "web", "--task-definition", "web:2"];
    let detached = ok(cluster.run(&[&update[..], &stuck].concat()));
    assert!(detached.out.contains("IN_PROGRESS"), "{}", detached.out);
    let paused = ok(cluster.run(&["service", "pause", "web"]));
    assert!(paused.out.contains("PAUSED"), "{}", paused.out);
    let waited = cluster.run(&["service", "scale", "web", "2"]);
    assert!(waited.code != 0 && waited.err.contains("lighter service resume web"), "{}", waited.err);
    let status = ok(cluster.run(&["status"]));
    assert!(status.out.contains("PAUSED") && status.out.contains("1 ACTIVE"), "{}", status.out);
    ok(cluster.run(&["service", "resume", "web", "--detach"]));
    let late = cluster.run(&["service", "update", "web", "--count", "2", "--timeout", "1s"]);
    assert!(late.code != 0 && late.err.contains("lighter why web"), "{}", late.err);
    ok(cluster.run(&["service", "update", "web", "--max", "200"]));
    assert_eq!(described(&cluster)["deployments"][0]["rolloutState"], "COMPLETED");
}

#[test]
fn every_command_about_services_speaks_json_and_yaml_and_no_colour() {
    let cluster = cluster();
    let create = ["service", "create", "web", "--task-definition", "web", "--count", "1", "-o", "json"];
    let made: Value = serde_json::from_str(&ok(cluster.run(&create)).out).unwrap();
    assert_eq!((&made["serviceName"], &made["runningCount"]), (&"web".into(), &1.into()));
    for arguments in [
        &["service", "ls"][..],
        &["service", "describe", "web"],
        &["status"],
        &["why", "web"],
        &["queue", "ls"],
    ] {
        json_of(&cluster, arguments);
        let yaml = ok(cluster.run(&[arguments, &["-o", "yaml"]].concat())).out;
        assert!(!yaml.contains('{') || yaml.contains("{}"), "{arguments:?}: {yaml}");
        let plain = ok(cluster.run(arguments));
        assert!(!plain.out.contains('\u{1b}') && !plain.err.contains('\u{1b}'), "{arguments:?}");
    }
    let wide = ok(cluster.run(&["service", "ls", "-o", "wide"])).out;
    assert!(wide.starts_with("SERVICE") && wide.contains("web:1"), "{wide}");
}

/// A file with a definition and its service, as YAML.
fn written(cluster: &Cluster, image: &str, count: u32) -> String {
    let text = format!(
        "taskDefinition:\n  family: web\n  containerDefinitions:\n  - name: web\n    image: {image}\n    \
         memory: 64\n    healthCheck: {{command: [CMD-SHELL, 'true']}}\nservice:\n  serviceName: web\n  \
         desiredCount: {count}\n"
    );
    cluster.file("web.yaml", &text)
}

#[test]
fn a_file_is_planned_field_by_field_deployed_and_then_changes_nothing() {
    let cluster = cluster();
    let file = written(&cluster, "r/nginx:1", 1);
    let plan = ok(cluster.run(&["deploy", &file, "--plan"])).out;
    assert!(plan.contains("create service web:\n") && plan.contains("+ desiredCount: 1"), "{plan}");
    assert!(!plan.contains("task definition"), "web:1 is there as the file has it: {plan}");
    assert_eq!(json_of(&cluster, &["service", "ls"]), json!([]), "a plan changes nothing");
    let unasked = cluster.run(&["deploy", &file]);
    assert!(unasked.code != 0 && unasked.err.contains("--yes"), "{}", unasked.err);
    ok(cluster.run(&["deploy", &file, "--yes"]));
    assert_eq!(ok(cluster.run(&["deploy", &file, "--yes"])).out, "nothing to change\n");
    let changed = ok(cluster.run(&["deploy", &written(&cluster, "r/nginx:2", 2), "--yes"]));
    assert!(
        changed.out.contains("~ containerDefinitions.0.image: \"r/nginx:1\" → \"r/nginx:2\""),
        "{}",
        changed.out
    );
    assert!(changed.out.contains("~ desiredCount: 1 → 2"), "{}", changed.out);
    assert!(changed.err.contains("registered web:2"), "{}", changed.err);
    assert_eq!(
        (&described(&cluster)["taskDefinition"], &described(&cluster)["runningCount"]),
        (&"web:2".into(), &2.into())
    );
    // The same as JSON.
    let json =
        json!({"taskDefinition": checked("r/nginx:2"), "service": {"serviceName": "web", "desiredCount": 1}});
    let plan = ok(cluster.run(&["deploy", &cluster.file("web.json", &json.to_string()), "--plan"])).out;
    assert_eq!(plan, "update service web:\n  ~ desiredCount: 2 → 1\n");
}

/// `deploy FILE` at a terminal of script(1), up to its question.
fn asked(cluster: &Cluster, file: &str) -> Child {
    let socket = cluster.folder.path().join("control.sock");
    let lighter = env!("CARGO_BIN_EXE_lighter");
    let line = format!("{lighter} --endpoint unix://{} deploy {file}", socket.display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("HOME", "/nonexistent");
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(b"[y/N] ") {
        assert_eq!(
            child.stdout.as_mut().unwrap().read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&said)
        );
        said.push(byte[0]);
    }
    child
}

fn answered(mut child: Child, answer: &[u8]) -> Done {
    child.stdin.as_mut().unwrap().write_all(answer).unwrap();
    let stdin = child.stdin.take();
    let done = child.wait_with_output().unwrap().into();
    drop(stdin);
    done
}

#[test]
fn a_plan_is_agreed_to_or_not_and_is_refused_when_the_service_changed_since() {
    let cluster = cluster();
    ok(cluster.run(&["deploy", &written(&cluster, "r/nginx:1", 1), "--yes"]));
    let file = written(&cluster, "r/nginx:1", 2);
    let no = answered(asked(&cluster, &file), b"n\n");
    assert!(no.code == 0 && no.out.contains("nothing was changed"), "{}", no.out);
    let planned = asked(&cluster, &file);
    ok(cluster.run(&["service", "scale", "web", "3"]));
    let refused = answered(planned, b"y\n");
    assert!(refused.code != 0 && refused.out.contains("changed"), "{}", refused.out);
    assert_eq!(described(&cluster)["desiredCount"], 3, "what somebody else wanted stands");
    let yes = answered(asked(&cluster, &file), b"y\n");
    assert_eq!((yes.code, &described(&cluster)["desiredCount"]), (0, &2.into()), "{}", yes.out);
}

#[test]
fn a_drain_waits_for_a_protected_task_and_says_so() {
    let cluster = cluster();
    ok(cluster.run(&["service", "create", "web", "--task-definition", "web", "--count", "2"]));
    let ids = ok(cluster.run(&["ps", "-q"])).out;
    let first = ids.lines().next().unwrap();
    ok(cluster.run(&["task", "protect", first]));
    node::join(&cluster, "n2");
    until("the other node is there", || json_of(&cluster, &["node", "show", "n2"])["status"] == "ACTIVE");
    let socket = cluster.folder.path().join("control.sock");
    let mut drain = spawn(&socket, &["node", "drain", "n1", "--wait"]);
    let left = || json_of(&cluster, &["node", "show", "n1"])["runningTasksCount"].clone();
    until("all but the protected one are gone", || left() == 1);
    assert!(drain.try_wait().unwrap().is_none(), "it waits for that");
    ok(cluster.run(&["task", "protect", first, "--off"]));
    let done: Done = drain.wait_with_output().unwrap().into();
    assert_eq!((done.code, left()), (0, 0.into()), "{}", done.err);
    assert!(done.err.contains(&format!("{} (web:1, protected until 20", &first[..8])), "{}", done.err);
}

#[test]
fn a_scoring_expression_is_tried_on_every_node_and_tasks_start_on_those_that_are_named() {
    let cluster = cluster();
    node::join(&cluster, "n2");
    until("the other is there", || json_of(&cluster, &["node", "show", "n2"])["status"] == "ACTIVE");
    let started = json_of(&cluster, &["start", "web", "n2"]);
    assert_eq!(started["tasks"].as_array().map(Vec::len), Some(1), "{started}");
    let nobody = cluster.run(&["start", "web", "nobody"]);
    assert!(nobody.code != 0 && nobody.err.contains("MISSING"), "{}{}", nobody.out, nobody.err);
    let file = cluster.file("score", "10 / (1 - group:tasks) - 0.5\n");
    let test = ["strategy", "test", &file, "--task-definition", "web"];
    let table = ok(cluster.run(&test)).out;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [vec!["NODE", "SCORE", "REFUSED"], vec!["n1", "9.5"], vec!["n2", "-", "division", "by", "zero"]]
    );
    assert_eq!(json_of(&cluster, &test).as_array().map(Vec::len), Some(2));
    let wrong = cluster.run(&["strategy", "test", &cluster.file("wrong", "1 +")]);
    assert_eq!(wrong.code, 3, "{}", wrong.err);
}

#[test]
fn the_events_of_a_service_are_followed() {
    let cluster = cluster();
    ok(cluster.run(&["service", "create", "web", "--task-definition", "web", "--count", "1"]));
    let socket = cluster.folder.path().join("control.sock");
    let mut child = spawn(&socket, &["service", "events", "web", "-f"]);
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let (say, lines) = std::sync::mpsc::channel();
    let reading =
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
    let mut seen = Vec::new();
    let mut heard = |words: &str| {
        while !seen.last().is_some_and(|line: &String| line.contains(words)) {
            seen.push(
                lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{words}: {seen:?}")),
            );
        }
    };
    heard("has started 1 tasks");
    heard("has reached a steady state.");
    ok(cluster.run(&["service", "scale", "web", "3"]));
    heard("has started 2 tasks");
    heard("has reached a steady state.");
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = reading.join().unwrap();
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "nothing is told twice: {seen:?}");
}

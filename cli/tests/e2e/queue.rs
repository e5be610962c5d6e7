//! The queue as a person sees it: against a real control plane without nodes, so that everything waits.

use super::control_plane::Cluster;
use serde_json::Value;

/// The cells of each line of a table but the first.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .skip(1)
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

#[test]
fn what_fits_nowhere_waits_is_listed_in_turn_explained_and_stopped() {
    let cluster = Cluster::start();
    let first = cluster.run(&["run", &cluster.web(), "--queue"]);
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.err.contains("1 of 1 in the queue: lighter queue ls"), "{}", first.err);
    let arguments = ["run", "web", "--queue", "--priority", "5", "--queue-timeout", "90s", "-q"];
    let urgent = cluster.run(&arguments);
    assert_eq!((urgent.code, urgent.err.as_str()), (0, ""));
    let (first, urgent) = (first.out.trim(), urgent.out.trim());

    let listed = cluster.run(&["queue", "ls"]);
    let rows = rows(&listed.out);
    assert!(listed.out.lines().all(|line| line.chars().count() <= 100), "{}", listed.out);
    assert!(urgent.starts_with(rows[0][0]) && first.starts_with(rows[1][0]), "{}", listed.out);
    assert_eq!(rows.iter().map(|row| row[2]).collect::<Vec<_>>(), ["5", "0"]);
    assert!(rows[0][4].starts_with("1m") && rows[1][4].starts_with("23h59m"), "{}", listed.out);
    assert!(rows[0][5].starts_with("Reason: No Container Instances"), "{}", listed.out);
    assert_eq!(cluster.run(&["queue", "ls", "-q"]).out, format!("{urgent}\n{first}\n"));
    let json: Value = serde_json::from_str(&cluster.run(&["queue", "ls", "-o", "json"]).out).unwrap();
    assert_eq!((&json[0]["taskId"], &json[0]["queue"]["priority"]), (&urgent.into(), &5.into()));
    assert_eq!(json[1]["lastStatus"], "PROVISIONING");

    for command in [vec!["task", "why", first], vec!["why", first]] {
        let why = cluster.run(&command).out;
        assert!(why.contains("room, number 2 of the queue, priority 0: no container instance met"), "{why}");
        assert!(why.contains("Kind       QUEUE") && why.contains("(in 23h59m"), "{why}");
    }
    let shown = cluster.run(&["task", "show", urgent]).out;
    assert!(shown.contains("waits for room, priority 5, fails in 1m"), "{shown}");

    let stopped = cluster.run(&["stop", urgent]);
    assert_eq!((stopped.code, stopped.out), (0, format!("{urgent}  STOPPED\n")));
    assert_eq!(cluster.run(&["queue", "ls", "-q"]).out, format!("{first}\n"));
    let all = cluster.run(&["ps", "-a"]).out;
    assert!(all.contains("stopped by lighter stop"), "{all}");
    let events = cluster.run(&["task", "events", urgent]).out;
    assert!(events.contains("created of web:1, waits in the queue"), "{events}");
    assert!(events.contains("STOPPED, left the queue"), "{events}");
}

#[test]
fn a_run_that_waits_ends_when_its_time_in_the_queue_is_over() {
    let cluster = Cluster::start();
    let waited = cluster.run(&["run", &cluster.web(), "--queue", "--queue-timeout", "1s", "--wait"]);
    assert_eq!(waited.code, 125, "{}", waited.err);
    assert!(waited.err.contains("Timeout waiting for room in the queue after 1 s"), "{}", waited.err);
    assert_eq!(cluster.run(&["queue", "ls", "-q"]).out, "");
}

#[test]
fn options_of_the_queue_are_refused_by_name_and_a_dry_run_says_who_would_wait() {
    let cluster = Cluster::start();
    let registered = cluster.run(&["task-definition", "register", &cluster.web()]);
    assert_eq!(registered.code, 0, "{}", registered.err);
    for option in [["--queue-timeout", "5s"], ["--priority", "1"]] {
        let refused = cluster.run(&[&["run", "web"], option.as_slice()].concat());
        assert!(refused.code == 2 && refused.err.contains("--queue"), "{}", refused.err);
    }
    let long = cluster.run(&["run", "web", "--queue", "--queue-timeout", "31d"]);
    assert_eq!(long.code, 3, "{}", long.err);
    assert!(long.err.contains("queue.timeLimitS: must be at most 2592000 seconds (30 days)"), "{}", long.err);
    let nowhere = cluster.run(&["run", "web", "--dry-run"]);
    assert_eq!((nowhere.code, nowhere.out.as_str()), (5, "0 nodes in the cluster\n"));
    assert!(nowhere.err.contains("1 of 1 would go nowhere"), "{}", nowhere.err);
    let waits = cluster.run(&["run", "web", "--dry-run", "--queue", "-q"]);
    assert!(waits.code == 0 && waits.err.contains("1 would wait in the queue"), "{}", waits.err);
    assert_eq!(cluster.run(&["queue", "ls", "-q"]).out, "", "a dry run changes nothing");
    let known = cluster.run(&["task-definition", "ls", "--inactive", "-q"]).out;
    let of_a_file = cluster.run(&["run", &cluster.web(), "--dry-run"]);
    assert_eq!((of_a_file.code, of_a_file.out.as_str()), (5, "0 nodes in the cluster\n"));
    assert!(!of_a_file.err.contains("registered"), "{}", of_a_file.err);
    assert_eq!(cluster.run(&["task-definition", "ls", "--inactive", "-q"]).out, known);
}

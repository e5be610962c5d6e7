//! `run --wait`, `stop --wait`, `logs`: what happens while and after a task runs.

use super::program::{Done, run, signal, spawn, until};
use super::scripted::{ID, INCARNATION, SEQUENCE, Scripted};
use lighter_proto::v1::{self, StopCode};
use std::io::{BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex};

/// Starts `lighter run web …` and lets it come to the point where it waits.
fn waiting(control: &Scripted, options: &[&str]) -> Child {
    let child = spawn(&control.socket(), &[&["run", "web:1"], options].concat());
    until("the task was asked for", || !control.state.lock().unwrap().task.task_id.is_empty());
    child
}

fn finish(child: Child) -> Done {
    child.wait_with_output().unwrap().into()
}

#[test]
fn the_exit_code_is_the_containers() {
    for (stop_code, reason, exit, code, words) in [
        (StopCode::EssentialContainerExited, "Essential container in task exited", Some(0), 0, "exit 0"),
        (
            StopCode::EssentialContainerExited,
            "Essential container in task exited",
            Some(42),
            42,
            "try: lighter logs 0123456789abcdef",
        ),
        (
            StopCode::TaskFailedToStart,
            "CannotPullContainerError: no such image",
            None,
            125,
            "CannotPullContainerError",
        ),
        (
            StopCode::TaskFailedToStart,
            "CannotStartContainerError: /x: no such file or directory",
            None,
            127,
            "try: lighter task show",
        ),
        (
            StopCode::TaskFailedToStart,
            "CannotStartContainerError: /x: permission denied",
            None,
            126,
            "permission denied",
        ),
    ] {
        let control = Scripted::start();
        let child = waiting(&control, &["--wait"]);
        control.change(|task| task.last_status = v1::TaskStatus::Running as i32);
        control.stop(stop_code, reason, exit);
        let done = finish(child);
        assert_eq!(done.code, code, "{reason}: {done:?}");
        assert!(done.out.starts_with(ID) && (done.out.clone() + &done.err).contains(words), "{done:?}");
        assert!(done.err.contains("0123456789abcdef PENDING: pulling r/nginx:1"), "{done:?}");
    }
}

#[test]
fn json_and_quiet_have_nothing_else_on_standard_output() {
    for (option, expect) in [("-q", format!("{ID}\n")), ("-ojson", String::new())] {
        let control = Scripted::start();
        let child = waiting(&control, &["--wait", option]);
        control.stop(StopCode::EssentialContainerExited, "Essential container in task exited", Some(7));
        let done = finish(child);
        assert_eq!((done.code, done.err.as_str()), (7, ""));
        if option == "-q" {
            assert_eq!(done.out, expect);
        } else {
            let value: serde_json::Value = serde_json::from_str(&done.out).unwrap();
            assert_eq!(value["tasks"][0]["containers"][0]["exitCode"], 7);
        }
    }
}

#[test]
fn a_stop_that_the_watch_missed_is_found() {
    let control = Scripted::start();
    let child = waiting(&control, &["--wait"]);
    control.quietly(|task| {
        task.last_status = v1::TaskStatus::Stopped as i32;
        task.containers = vec![v1::Container { essential: true, exit_code: Some(5), ..Default::default() }];
    });
    assert_eq!(finish(child).code, 5);
}

#[test]
fn a_control_plane_that_is_away_for_a_while_is_waited_for() {
    let control = Scripted::start();
    control.state.lock().unwrap().describe_fails = 2;
    let child = waiting(&control, &["--wait"]);
    until("the looks failed", || control.state.lock().unwrap().describe_fails == 0);
    control.stop(StopCode::EssentialContainerExited, "Essential container in task exited", Some(0));
    let done = finish(child);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains("does not answer"), "{done:?}");
}

#[test]
fn ctrl_c_with_rm_stops_the_task() {
    let control = Scripted::start();
    let child = waiting(&control, &["--rm"]);
    until("it watches", || control.watchers() == 1);
    signal(&child, "INT");
    until("the stop was asked for", || !control.state.lock().unwrap().stops.is_empty());
    control.stop(StopCode::UserInitiated, "interrupted: lighter run --rm", Some(143));
    let done = finish(child);
    assert_eq!(done.code, 143, "{done:?}");
    assert_eq!(control.state.lock().unwrap().stops, ["interrupted: lighter run --rm"]);
}

#[test]
fn ctrl_c_without_rm_leaves_the_task() {
    let control = Scripted::start();
    let child = waiting(&control, &["--wait"]);
    until("it watches", || control.watchers() == 1);
    signal(&child, "INT");
    let done = finish(child);
    assert_eq!(done.code, 130, "{done:?}");
    assert!(done.err.contains(&format!("lighter stop {ID}")), "{done:?}");
    assert!(control.state.lock().unwrap().stops.is_empty());
}

#[test]
fn stop_waits_for_the_end() {
    let control = Scripted::start();
    control.quietly(|task| {
        task.task_id = ID.into();
        task.last_status = v1::TaskStatus::Running as i32;
    });
    let child = spawn(&control.socket(), &["stop", "0123", "--reason", "enough", "--wait"]);
    until("the stop was asked for", || !control.state.lock().unwrap().stops.is_empty());
    control.stop(StopCode::UserInitiated, "enough", Some(137));
    let done = finish(child);
    assert_eq!((done.code, done.out.trim()), (0, format!("{ID}  STOPPED, exit 137").as_str()), "{done:?}");
    assert_eq!(control.state.lock().unwrap().stops, ["enough"]);
}

#[test]
fn logs_go_to_the_stream_they_came_from() {
    let control = Scripted::start();
    let line = |container: &str, source: v1::LogSource, text: &str, partial: bool| v1::LogLine {
        container: container.into(),
        source: source as i32,
        line: text.as_bytes().to_vec(),
        partial,
        time_unix_ns: 1_000_000,
    };
    control.quietly(|task| {
        task.task_id = ID.into();
        task.containers = vec![v1::Container { name: "web".into(), ..Default::default() }];
    });
    control.state.lock().unwrap().log_lines = vec![
        line("web", v1::LogSource::Stdout, "a long ", true),
        line("web", v1::LogSource::Stdout, "line", false),
        line("web", v1::LogSource::Stderr, "oops", false),
        line("web", v1::LogSource::Marker, "12 lines dropped", false),
    ];
    let done = run(&control.socket(), &["logs", "0123"]);
    assert_eq!((done.code, done.out.as_str()), (0, "a long line\n"));
    assert_eq!(done.err, "oops\n[lighter] 12 lines dropped\n");
    control.quietly(|task| task.containers.push(v1::Container { name: "side".into(), ..Default::default() }));
    let done = run(&control.socket(), &["logs", "0123", "-t"]);
    assert!(done.out.starts_with("1970-01-01T00:00:00.001Z web | a long \n"), "{}", done.out);
    let json = run(&control.socket(), &["logs", "0123", "-o", "json"]);
    let first: serde_json::Value = serde_json::from_str(json.out.lines().next().unwrap()).unwrap();
    assert_eq!((&first["line"], &first["source"]), (&"a long ".into(), &"stdout".into()));
    assert!(control.folder().exists());
}

/// Connections to `to` through a socket of its own, in the folder of `to`; what it gives back ends them
/// all, as a process does that is killed.
fn through(to: PathBuf) -> (PathBuf, impl Fn()) {
    let socket = to.with_extension("through");
    let listener = UnixListener::bind(&socket).unwrap();
    let ends: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
    let cut = ends.clone();
    std::thread::spawn(move || {
        for here in listener.incoming().flatten() {
            let there = UnixStream::connect(&to).unwrap();
            for (mut from, mut to) in [
                (here.try_clone().unwrap(), there.try_clone().unwrap()),
                (there.try_clone().unwrap(), here.try_clone().unwrap()),
            ] {
                // Either end may go at any moment.
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
            ends.lock().unwrap().extend([here, there]);
        }
    });
    (socket, move || cut.lock().unwrap().drain(..).for_each(|end| end.shutdown(Shutdown::Both).unwrap()))
}

#[test]
fn a_follower_goes_on_when_the_control_plane_was_killed() {
    let control = Scripted::start();
    control.quietly(|task| {
        task.task_id = ID.into();
        task.containers = vec![v1::Container { name: "web".into(), ..Default::default() }];
    });
    let line = v1::LogLine {
        container: "web".into(),
        line: b"one".to_vec(),
        time_unix_ns: 5_000_000,
        ..Default::default()
    };
    {
        let mut state = control.state.lock().unwrap();
        (state.log_lines, state.log_holds) = (vec![line], 1);
    }
    let (socket, cut) = through(control.socket());
    let mut child = spawn(&socket, &["logs", "-f", "0123"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    out.read_line(&mut printed).unwrap();
    cut();
    let done = finish(child);
    out.read_to_string(&mut printed).unwrap();
    assert_eq!((done.code, printed.as_str()), (0, "one\n"), "{done:?}");
    assert!(done.err.contains("[lighter] the log broke off"), "{done:?}");
}

#[test]
fn events_go_on_after_the_last_one_when_the_control_plane_was_killed() {
    let control = Scripted::start();
    let (socket, cut) = through(control.socket());
    let mut child = spawn(&socket, &["events", "-f"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let asked = || control.state.lock().unwrap().event_requests.clone();
    let mut printed = String::new();
    until("the events are watched", || asked().len() == 1);
    control.change(|task| task.task_id = ID.into());
    out.read_line(&mut printed).unwrap();
    cut();
    until("they are asked for again", || asked().len() == 2);
    control.change(|task| task.last_status = v1::TaskStatus::Running as i32);
    out.read_line(&mut printed).unwrap();
    signal(&child, "TERM");
    let done = finish(child);
    assert!(printed.lines().count() == 2 && printed.contains("RUNNING"), "{printed}");
    let again = asked().pop().unwrap();
    assert_eq!((again.after_sequence, again.incarnation.as_str()), (SEQUENCE, INCARNATION));
    assert!(done.err.contains("[lighter] the stream of events broke off"), "{done:?}");
}

#[test]
fn a_follower_goes_on_after_a_break_and_says_since_when_it_wants_lines() {
    let control = Scripted::start();
    control.quietly(|task| {
        task.task_id = ID.into();
        task.containers = vec![v1::Container { name: "web".into(), ..Default::default() }];
    });
    let line = |text: &str, time_unix_ns: i64| v1::LogLine {
        container: "web".into(),
        source: v1::LogSource::Stdout as i32,
        line: text.as_bytes().to_vec(),
        time_unix_ns,
        ..Default::default()
    };
    {
        let mut state = control.state.lock().unwrap();
        state.log_lines = vec![line("one", 5_000_000), line("two", 5_000_000), line("three", 7_000_000)];
        state.log_breaks = 1;
    }
    let done = run(&control.socket(), &["logs", "-f", "0123", "--since", "1970-01-01T00:00:00.003Z"]);
    assert_eq!((done.code, done.out.as_str()), (0, "one\ntwo\nthree\n"), "{done:?}");
    assert!(done.err.contains("[lighter] the log broke off (the node is away)"), "{done:?}");
    let asked: Vec<i64> =
        control.state.lock().unwrap().log_requests.drain(..).map(|asked| asked.since_unix_ms).collect();
    assert_eq!(asked, [3, 7]);
    // Who does not follow is told at once.
    control.state.lock().unwrap().log_breaks = 1;
    let done = run(&control.socket(), &["logs", "0123"]);
    assert_eq!((done.code, done.out.as_str()), (5, "one\ntwo\nthree\n"), "{done:?}");
    assert!(done.err.contains("the node is away"), "{done:?}");
    let refused = run(&control.socket(), &["logs", "0123", "--since", "yesterday"]);
    assert!(refused.code != 0 && refused.err.contains("--since 10m"), "{refused:?}");
}

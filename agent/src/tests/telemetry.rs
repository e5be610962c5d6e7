//! Journals and waits of tasks on the fake machine, as the control plane hears them.

use super::bench::{Bench, task};
use super::control::{Control, wait};
use crate::facilities::fakes::Program;
use lighter_proto::v1::{self, TaskStatus};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The first wait of that kind in any report of the task.
fn wait_for(control: &Control, task: &str, kind: &str) -> v1::Wait {
    control.wait(&format!("a wait {kind}"), |state| {
        let mut waits = state.applied.get(task)?.iter().flat_map(|report| &report.waits);
        waits.find(|wait| wait.kind == kind).cloned()
    })
}

/// The last report of the task names no wait.
fn no_wait(control: &Control, task: &str, status: TaskStatus) {
    let report = control.wait_status(task, status);
    assert!(report.waits.is_empty(), "{:?}", report.waits);
}

#[test]
fn every_wait_says_what_since_when_and_what_ends_it() {
    let mut bench = Bench::new();
    bench.machine.with(|world| {
        world.programs.insert("side".parse().unwrap(), Program::IgnoresStop);
    });
    bench.start();
    let (first, second, third) = (task(1).to_string(), task(2).to_string(), task(3).to_string());
    bench.control.assign(&first, "web:1");
    no_wait(&bench.control, &first, TaskStatus::Running);
    bench.control.assign(&second, "web:1");
    bench.control.assign(&third, "unknown:1");
    let port = wait_for(&bench.control, &second, "RESOURCE");
    assert!(port.what.contains("8080") && port.what.contains(&first), "{}", port.what);
    assert!(port.ends_by.contains("ends") && port.until_unix_ms == 0, "{port:?}");
    let definition = wait_for(&bench.control, &third, "DEFINITION");
    assert!(definition.ends_by.contains("sends the task definition"), "{definition:?}");
    bench.machine.with(|world| world.failing.insert("del", 2));
    bench.control.stop(&first, "");
    let signal = wait_for(&bench.control, &first, "STOP_SIGNAL");
    assert_eq!(signal.container, "side");
    let (since, until) = (signal.since_unix_ms, signal.until_unix_ms);
    assert!(until > since && until - since <= 120_000, "{signal:?}");
    assert!(signal.ends_by.contains("SIGKILL"), "{signal:?}");
    let teardown = wait_for(&bench.control, &first, "TEARDOWN");
    assert!(teardown.what.contains("network of web") && teardown.until_unix_ms > 0, "{teardown:?}");
    no_wait(&bench.control, &first, TaskStatus::Stopped);
    no_wait(&bench.control, &second, TaskStatus::Running);
}

#[test]
fn the_journal_survives_a_kill_and_names_every_step() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    let before = bench.control.ask_events(&id);
    let ended: Vec<&str> =
        before.iter().filter(|e| e.kind == "STEP_ENDED").map(|event| event.text.as_str()).collect();
    for step in ["pull", "rootfs", "network", "volumes", "bundle", "start"] {
        assert!(ended.contains(&step), "{step} is not in {before:#?}");
    }
    assert!(before.iter().all(|event| event.from_node && event.time_unix_ms > 0));
    bench.kill();
    bench.start();
    bench.control.wait("the new agent", |state| (state.hellos.len() > 1).then_some(()));
    let after = bench.control.ask_events(&id);
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after[before.len()].kind, "ADOPTED");
    bench.control.stop(&id, "enough");
    bench.control.wait_status(&id, TaskStatus::Stopped);
    bench.wait_forgotten(&[task(1)]);
    // Forgotten, the task still has its journal.
    let kinds: Vec<String> = bench.control.ask_events(&id).into_iter().map(|event| event.kind).collect();
    for kind in ["STOPPING", "SIGNAL", "WAIT_BEGUN", "WAIT_ENDED", "EXIT"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind} is not in {kinds:?}");
    }
    assert_eq!(bench.control.ask_events(task(9).as_str()), []);
}

#[test]
fn a_failed_pull_waits_for_its_next_try() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.retriable_pulls_failing = 1);
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    let retry = wait_for(&bench.control, &id, "PULL_RETRY");
    assert!(retry.what.contains("the next try of pulling"), "{retry:?}");
    assert!(retry.until_unix_ms > retry.since_unix_ms, "{retry:?}");
    no_wait(&bench.control, &id, TaskStatus::Running);
}

#[test]
fn a_node_under_pressure_starts_tasks_one_by_one_and_says_so() {
    let mut bench = Bench::new();
    let pressure = bench.pressure();
    std::fs::create_dir_all(&pressure).unwrap();
    let thrashes =
        "some avg10=90.00 avg60=90.00 avg300=9.00 total=1\nfull avg10=55.00 avg60=9.00 avg300=9.00 total=1\n";
    std::fs::write(pressure.join("memory"), thrashes).unwrap();
    bench.start();
    // More than start at once, and far more than start in the time this test has.
    let tasks: Vec<String> = (0..80).map(|number| task(number).to_string()).collect();
    tasks.iter().for_each(|task| bench.control.assign(task, "small:1"));
    // The last in the queue, whichever that is.
    let (last, wait) = bench.control.wait("tasks that wait", |state| {
        let waits = |report: &v1::TaskReport| {
            let of_task = |wait: &v1::Wait| (report.task_id.clone(), wait.clone());
            report.waits.iter().find(|wait| wait.kind == "START_LIMIT").map(of_task)
        };
        let waiting: Vec<_> = state.applied.values().flatten().filter_map(waits).collect();
        let enough = waiting.len() >= 60;
        waiting.into_iter().max_by_key(|(_, wait)| wait.until_unix_ms - wait.since_unix_ms).filter(|_| enough)
    });
    let last = &last;
    assert!(wait.what.contains("under pressure") && wait.what.contains("memory 90 %"), "{}", wait.what);
    assert!(wait.until_unix_ms > wait.since_unix_ms && wait.ends_by.contains("pressure falls"), "{wait:?}");
    bench.control.stop(last, "");
    bench.control.wait_status(last, TaskStatus::Stopped);
    let started = bench.machine.with(|world| world.starts.keys().any(|(task, _)| task.as_str() == last));
    assert!(!started, "stopped before its turn");
    std::fs::remove_dir_all(pressure).unwrap();
    let others = tasks.iter().filter(|task| *task != last);
    others.for_each(|task| no_wait(&bench.control, task, TaskStatus::Running));
}

/// What Prometheus would read.
fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

/// A number of the fluentd driver.
fn of_fluentd(text: &str, family: &str) -> f64 {
    let series = format!("lighter_agent_log_{family}{{driver=\"fluentd\"}} ");
    let found = text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok());
    found.unwrap_or_else(|| panic!("{series} is not in {text}"))
}

#[test]
fn log_drivers_are_counted_and_say_how_far_behind_they_are() {
    // Ports nobody has; they are bound again soon.
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (metrics, sink) = (free(), free());
    let mut bench = Bench::new();
    bench.config.metrics_address = metrics.to_string();
    bench.config.logs.drivers.push("fluentd".to_owned());
    let definition = format!(
        r#"{{"family":"sent","containerDefinitions":[{{"name":"web","image":"side","memory":8,"stopTimeout":1,
        "logConfiguration":{{"logDriver":"fluentd","options":{{"fluentd-address":"{sink}"}}}}}}]}}"#
    );
    bench.control.define("sent:1", &definition);
    let ring = bench.config.log_dir().join(task(1).as_str());
    std::fs::create_dir_all(&ring).unwrap();
    let time = "2026-01-05T10:20:30.123456789Z";
    let records: String = (0..5).map(|number| format!("{time} stdout F line {number}\n")).collect();
    let text = format!("{time} lighter H 0\n{records}");
    std::fs::write(ring.join("web.log"), &text).unwrap();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "sent:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    let failing = wait(
        "the sink to be missed",
        || Some(scrape(metrics)).filter(|text| of_fluentd(text, "send_failures_total") > 0.0),
        || scrape(metrics),
    );
    assert_eq!(of_fluentd(&failing, "containers"), 1.0);
    assert!((records.len()..=text.len()).contains(&(of_fluentd(&failing, "behind_bytes") as usize)));
    assert_eq!(of_fluentd(&failing, "records_sent_total"), 0.0);
    let listener = TcpListener::bind(sink).unwrap();
    // Ends when the agent closes its connection.
    let taking = std::thread::spawn(move || {
        let mut taken = Vec::new();
        let _ = listener.accept().unwrap().0.read_to_end(&mut taken);
        taken.len()
    });
    let sent = wait(
        "all to be sent",
        || Some(scrape(metrics)).filter(|text| of_fluentd(text, "records_sent_total") > 0.0),
        || scrape(metrics),
    );
    assert_eq!((of_fluentd(&sent, "records_sent_total"), of_fluentd(&sent, "bytes_sent_total")), (5.0, 30.0));
    assert_eq!(
        (of_fluentd(&sent, "records_lost_total"), of_fluentd(&sent, "records_refused_total")),
        (0.0, 0.0)
    );
    wait(
        "nothing to be left",
        || (of_fluentd(&scrape(metrics), "behind_bytes") == 0.0).then_some(()),
        || scrape(metrics),
    );
    assert!(sent.contains("lighter_agent_log_containers{driver=\"journald\"} 0"), "{sent}");
    bench.control.stop(&id, "");
    bench.control.wait_status(&id, TaskStatus::Stopped);
    bench.wait_forgotten(&[task(1)]);
    bench.kill();
    assert!(taking.join().unwrap() > 30);
}

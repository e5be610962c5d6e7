//! T2: the agent with its real facilities on this machine's kernel: images over HTTP, overlay, netns,
//! bridge, nf_tables, shim, libcontainer. In: root, a busybox, the binaries (built when they are not
//! given by LIGHTER_BIN_DIR). Out: what `ip`, /proc, mountinfo and a TCP client see.
//! Each test runs this program again in a network and mount namespace of its own.
//! Never: touches the host's network; leaves anything behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../src/tests/control.rs"]
#[allow(dead_code)]
mod control;
#[path = "node/questions.rs"]
mod questions;
#[path = "node/registry.rs"]
mod registry;
#[path = "node/streams.rs"]
mod streams;
#[path = "node/world.rs"]
mod world;

use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;
use lighter_proto::v1::control_message::Message;
use std::io::{Read, Write};
use world::{World, in_own_namespaces};

const FIRST: &str = "00000000000100000000000000000000";
const SECOND: &str = "00000000000200000000000000000000";

/// One request to busybox's httpd.
fn fetch(port: u32) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap())).ok()?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.contains("200 OK").then(|| text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
}

#[test]
fn a_task_of_two_containers_lives_through_a_killed_agent_and_leaves_nothing() {
    in_own_namespaces("a_task_of_two_containers_lives_through_a_killed_agent_and_leaves_nothing", || {
        let mut world = World::new();
        world.control.define("web:1", &world.web());
        world.start();
        world.control.assign(FIRST, "web:1");
        let running = world.control.wait_status(FIRST, TaskStatus::Running);
        let web = running.containers[0].clone();
        assert_eq!(web.limits.as_ref().unwrap().memory_max_bytes, Some(64 << 20));
        let dynamic = web.network_bindings[1].host_port;
        for port in [8080, dynamic] {
            let page = control::wait("the page", || fetch(port), String::new);
            assert_eq!(page.trim(), "from the volume");
        }
        let start_time = world::start_time(web.pid);
        world.kill_agent();
        assert_eq!(fetch(8080).as_deref().map(str::trim), Some("from the volume"));
        world.start();
        let again = world.control.wait("a report of the new agent", |state| {
            state.applied.get(FIRST)?.last().filter(|report| report.sequence > running.sequence).cloned()
        });
        assert_eq!((again.last_status(), again.containers[0].pid), (TaskStatus::Running, web.pid));
        assert_eq!(world::start_time(web.pid), start_time);
        assert_eq!(fetch(dynamic).as_deref().map(str::trim), Some("from the volume"));
        world.control.stop(FIRST, "enough");
        let stopped = world.control.wait_status(FIRST, TaskStatus::Stopped);
        // busybox's httpd has no handler: PID 1 ignores SIGTERM, stopTimeout is 1 s.
        assert_eq!(stopped.containers[0].exit_code, Some(137));
        assert_eq!(stopped.containers[1].exit_code, Some(5), "the other one has a handler");
        let open = v1::OpenLogStream {
            stream_id: "stream-1".into(),
            task_id: FIRST.into(),
            container: "side".into(),
            ..Default::default()
        };
        world.control.push(Message::OpenLogStream(open));
        let line = world.control.wait("the log of a stopped task", |state| state.log_lines.first().cloned());
        assert_eq!(line.line, b"side is up");
        world.assert_nothing_left();
    });
}

#[test]
fn ends_and_failures_of_real_containers_are_told_as_they_are() {
    in_own_namespaces("ends_and_failures_of_real_containers_are_told_as_they_are", || {
        let mut world = World::new();
        let one = |name: &str, script: &str| {
            format!(
                r#"{{"family":"f","containerDefinitions":[{{"name":"{name}","image":"{}","memory":32,"stopTimeout":1,"command":["sh","-c","{script}"]}}]}}"#,
                world.image()
            )
        };
        world.control.define("three:1", &one("three", "exit 3"));
        world.control.define("gone:1", &one("gone", "exit 3").replace(":busybox", ":no-such-tag"));
        world
            .control
            .define("nothing:1", &one("nothing", "").replace(r#""sh","-c","""#, r#""/bin/no-such-program""#));
        let port = r#""portMappings":[{"containerPort":80,"hostPort":8081}],"command""#;
        world.control.define("port:1", &one("port", "sleep 100").replace(r#""command""#, port));
        world.start();
        let end = |number: u64, definition: &str| {
            let id = format!("{number:012x}{number:020x}");
            world.control.assign(&id, definition);
            world.control.wait_status(&id, TaskStatus::Stopped)
        };
        let three = end(1, "three:1");
        assert_eq!(
            (three.stop_code(), three.containers[0].exit_code),
            (v1::StopCode::EssentialContainerExited, Some(3))
        );
        let gone = end(2, "gone:1");
        assert!(gone.stopped_reason.starts_with("CannotPullContainerError"), "{}", gone.stopped_reason);
        let nothing = end(3, "nothing:1");
        assert!(
            nothing.stopped_reason.starts_with("CannotStartContainerError"),
            "{}",
            nothing.stopped_reason
        );
        assert!(nothing.stopped_reason.contains("no-such-program"), "{}", nothing.stopped_reason);
        let listener = std::net::TcpListener::bind("0.0.0.0:8081").unwrap();
        let port = end(4, "port:1");
        let owner = format!("(pid {})", std::process::id());
        assert!(
            port.stopped_reason.contains("8081/tcp is in use by") && port.stopped_reason.contains(&owner),
            "{}",
            port.stopped_reason
        );
        drop(listener);
        world.control.assign(SECOND, "port:1");
        world.control.wait_status(SECOND, TaskStatus::Running);
        world.control.stop(SECOND, "");
        world.control.wait_status(SECOND, TaskStatus::Stopped);
        world.assert_nothing_left();
    });
}

#[test]
fn a_sink_that_takes_nothing_never_blocks_the_application() {
    in_own_namespaces("a_sink_that_takes_nothing_never_blocks_the_application", || {
        let mut world = World::new();
        world.config.logs.drivers.push("fluentd".into());
        // Connections wait in the backlog and are never read.
        let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let json = format!(
            r#"{{"family":"f","containerDefinitions":[{{"name":"loud","image":"{}","memory":64,
              "command":["sh","-c","yes 0123456789012345678901234567890123456789012345678 | head -c 50000000"],
              "logConfiguration":{{"logDriver":"fluentd","options":{{"fluentd-address":"{}","max-buffer-size":"4m"}}}}}}]}}"#,
            world.image(),
            stuck.local_addr().unwrap()
        );
        world.control.define("loud:1", &json);
        world.start();
        world.control.assign(FIRST, "loud:1");
        let stopped = world.control.wait_status(FIRST, TaskStatus::Stopped);
        assert_eq!(stopped.containers[0].exit_code, Some(0), "{}", stopped.stopped_reason);
        world.assert_nothing_left();
        let directory = world.config.log_dir().join(FIRST);
        let bytes: u64 =
            std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!((3 << 20..=4 << 20).contains(&bytes), "the ring is as large as asked for: {bytes}");
    });
}

#[test]
fn programs_copies_and_counters_of_a_real_container() {
    in_own_namespaces("programs_copies_and_counters_of_a_real_container", streams::run);
}

//! T2: the agent with its real facilities on this machine's kernel: images over HTTP, overlay, netns,
//! bridge, nf_tables, shim, libcontainer. In: root, a busybox, the binaries (built when they are not
//! given by LIGHTER_BIN_DIR). Out: what `ip`, /proc, mountinfo and a TCP client see.
//! Each test runs this program again in a network and mount namespace of its own.
//! Never: touches the host's network; leaves anything behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../src/tests/control.rs"]
#[allow(dead_code)]
mod control;
#[path = "node/mapped.rs"]
mod mapped;
#[path = "node/members.rs"]
mod members;
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

/// Image, network, volume and exec of a task whose root is nobody on the host, over a restart.
#[test]
fn a_task_with_ids_of_its_own_serves_and_its_root_is_nobody() {
    in_own_namespaces("a_task_with_ids_of_its_own_serves_and_its_root_is_nobody", || {
        let mut world = World::new();
        let web = world.web().replace(r#""family":"web""#, r#""family":"web","usernsMode":"auto""#);
        world.control.define("web:1", &web);
        world.start();
        world.control.assign(FIRST, "web:1");
        let web = world.control.wait_status(FIRST, TaskStatus::Running).containers[0].clone();
        let page = control::wait("the page", || fetch(8080), String::new);
        assert_eq!(page.trim(), "from the volume");
        let first = "1879048192";
        let map = std::fs::read_to_string(format!("/proc/{}/uid_map", web.pid)).unwrap();
        assert!(map.split_whitespace().eq(["0", first, "65536"]), "{map}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", web.pid)).unwrap();
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        assert!(uids.split_whitespace().eq([first; 4]), "{uids}");
        // What the volume was filled with has the image's owners, not the task's ids.
        let volume = world.config.data_dir.join("volumes/task").join(FIRST).join("www/index.html");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(volume).unwrap()), 0);
        let hosts = std::fs::metadata(format!("/proc/{}/root/etc/hosts", web.pid)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&hosts).to_string(), first);
        world.kill_agent();
        world.start();
        assert_eq!(fetch(8080).as_deref().map(str::trim), Some("from the volume"));
        world.control.stop(FIRST, "enough");
        world.control.wait_status(FIRST, TaskStatus::Stopped);
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

/// An init container, a sidecar that must be healthy, and a main container that is killed once.
fn ordered(image: &str) -> String {
    let main = "echo x >> /tmp/runs; while read l; do echo kept $l; done < /tmp/runs; trap 'exit 0' TERM; while true; do sleep 0.1; done";
    let helper = "sleep 0.3; echo > /tmp/up; trap 'exit 0' TERM; while true; do sleep 0.1; done";
    format!(
        r#"{{"family":"ordered","containerDefinitions":[
          {{"name":"main","image":"{image}","memory":32,"stopTimeout":2,"command":["sh","-c","{main}"],
            "restartPolicy":{{"enabled":true,"restartAttemptPeriod":0}},
            "dependsOn":[{{"containerName":"init","condition":"SUCCESS"}},{{"containerName":"helper","condition":"HEALTHY"}}]}},
          {{"name":"init","image":"{image}","memory":32,"essential":false,"command":["sh","-c","sleep 0.2; exit 0"]}},
          {{"name":"helper","image":"{image}","memory":32,"stopTimeout":2,"essential":false,"command":["sh","-c","{helper}"],
            "healthCheck":{{"command":["CMD-SHELL","echo looked; test -e /tmp/up"],"interval":5}}}}]}}"#
    )
}

/// Waits until the log of `main` has this many lines.
fn log_lines(world: &World, expected: usize) {
    control::wait(
        "the lines of the log",
        || {
            let ended = world.control.with(|state| {
                state.log_lines.clear();
                state.log_streams_ended
            });
            let open = v1::OpenLogStream {
                stream_id: "stream-1".into(),
                task_id: FIRST.into(),
                container: "main".into(),
                ..Default::default()
            };
            world.control.push(Message::OpenLogStream(open));
            let lines = world
                .control
                .wait("the log", |state| (state.log_streams_ended > ended).then_some(state.log_lines.len()));
            (lines == expected).then_some(())
        },
        || world.control.with(|state| format!("{:?}", state.log_lines)),
    );
}

#[test]
fn real_containers_come_in_order_are_checked_and_started_again_in_place() {
    in_own_namespaces("real_containers_come_in_order_are_checked_and_started_again_in_place", || {
        let mut world = World::new();
        world.control.define("ordered:1", &ordered(&world.image()));
        world.start();
        world.control.assign(FIRST, "ordered:1");
        let running = world.control.wait_status(FIRST, TaskStatus::Running);
        let [main, init, helper] = &running.containers[..] else { panic!("{running:?}") };
        assert_eq!(init.exit_code, Some(0));
        let health = helper.health.clone().unwrap();
        assert_eq!((health.status(), health.last_output.trim()), (v1::HealthStatus::Healthy, "looked"));
        let ticks = |pid| world::start_time(pid).parse::<u64>().unwrap();
        assert!(ticks(main.pid) > ticks(helper.pid), "main after helper");
        log_lines(&world, 1);
        let pid = rustix::process::Pid::from_raw(main.pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let again = world.control.wait("a restart", |state| {
            state
                .applied
                .get(FIRST)?
                .last()
                .filter(|report| {
                    let main = &report.containers[0];
                    main.restart_count == 1 && main.last_status() == v1::ContainerStatus::Running
                })
                .cloned()
        });
        let restarted = &again.containers[0];
        assert_eq!(
            restarted.last_exit.as_ref().unwrap().status,
            Some(v1::container_exit::Status::Signaled(9))
        );
        assert_eq!((&restarted.address, again.last_status()), (&main.address, TaskStatus::Running));
        assert_ne!(restarted.pid, main.pid);
        // Its root file system was kept, and its log goes on: one line of the first run, two of this.
        log_lines(&world, 3);
        world.control.stop(FIRST, "enough");
        let stopped = world.control.wait_status(FIRST, TaskStatus::Stopped);
        assert_eq!((stopped.containers[0].exit_code, stopped.containers[2].exit_code), (Some(0), Some(0)));
        world.assert_nothing_left();
    });
}

#[test]
fn ranges_links_and_variables_of_real_containers() {
    in_own_namespaces("ranges_links_and_variables_of_real_containers", members::run);
}

/// Files go in and out with the owners they have in the container.
#[test]
fn copies_of_a_container_with_ids_of_its_own() {
    in_own_namespaces("copies_of_a_container_with_ids_of_its_own", mapped::run);
}

#[test]
fn programs_copies_and_counters_of_a_real_container() {
    in_own_namespaces("programs_copies_and_counters_of_a_real_container", streams::run);
}

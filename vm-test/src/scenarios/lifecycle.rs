//! Stops, and deaths of the daemons while containers run.

use super::Scenario;
use crate::node::{Node, Task, shell_task};
use crate::world::World;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(super) const ALL: &[Scenario] = &[
    ("stop_with_sigterm_handler", stop_with_sigterm_handler),
    ("stop_without_sigterm_handler", stop_without_sigterm_handler),
    ("agent_killed_and_restarted", agent_killed_and_restarted),
    ("control_plane_killed_and_restarted", control_plane_killed_and_restarted),
    ("agent_upgraded_in_place", agent_upgraded_in_place),
    ("drained_and_activated", drained_and_activated),
    ("paused_and_resumed", paused_and_resumed),
    ("output_in_the_journal", output_in_the_journal),
];

/// A program that handles the stop signal ends with its own code, long before the timeout.
fn stop_with_sigterm_handler(world: &mut World) -> Result<()> {
    let node = world.node();
    let script = "trap 'echo going; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let mut definition = shell_task("polite", &world.image(), script);
    definition["containerDefinitions"][0]["stopTimeout"] = json!(30);
    let task = node.run_until_running(&definition)?;
    node.guest.until(10, &format!("lighter logs {} --container main | grep ready", task.id()))?;
    let began = Instant::now();
    let stopped = node.stop(task.id())?;
    ensure!(stopped.exit_code("main")? == Some(7), "{}", stopped.0);
    ensure!(began.elapsed() < Duration::from_secs(20), "it took {:?}, near the timeout", began.elapsed());
    ensure!(stopped.0["stopCode"] == "UserInitiated", "{}", stopped.0);
    Ok(())
}

/// A program that ignores it is killed after its stopTimeout: 137.
fn stop_without_sigterm_handler(world: &mut World) -> Result<()> {
    let node = world.node();
    let mut definition = shell_task("deaf", &world.image(), "trap '' TERM; while :; do sleep 1; done");
    definition["containerDefinitions"][0]["stopTimeout"] = json!(3);
    let task = node.run_until_running(&definition)?;
    let began = Instant::now();
    let stopped = node.stop(task.id())?;
    ensure!(stopped.exit_code("main")? == Some(137), "{}", stopped.0);
    ensure!(
        began.elapsed() >= Duration::from_secs(3),
        "killed after {:?}, before its stopTimeout",
        began.elapsed()
    );
    let reason = stopped.container("main")?["reason"].as_str().unwrap_or_default();
    ensure!(!reason.starts_with("OutOfMemoryError"), "a kill is not an out of memory: {reason}");
    Ok(())
}

/// A task that runs until a file appears in the host's folder, and then exits with a code.
fn waiting_for(gate: &str, image: &str, code: u8) -> Value {
    let mut definition =
        shell_task(gate, image, &format!("while [ ! -e /gate/{gate} ]; do sleep 0.1; done; exit {code}"));
    definition["volumes"] = json!([{ "name": "gate", "host": { "sourcePath": "/srv/allowed" } }]);
    definition["containerDefinitions"][0]["mountPoints"] =
        json!([{ "sourceVolume": "gate", "containerPath": "/gate", "readOnly": true }]);
    definition
}

/// A task that nothing of this may disturb: it counts, and holds a connection.
struct Bystander {
    task: Task,
    started: String,
}

impl Bystander {
    fn start(node: &Node, image: &str) -> Result<Self> {
        let script = "i=0; while :; do i=$((i+1)); echo count $i; sleep 0.2; done";
        let task = node.run_until_running(&shell_task("bystander", image, script))?;
        let started = Self::start_time(node, task.pid("main")?)?;
        Ok(Self { task, started })
    }

    /// Field 22 of proc_pid_stat(5): a process id alone may be another's by now.
    fn start_time(node: &Node, pid: i64) -> Result<String> {
        node.guest.sh(&format!("cut -d' ' -f22 /proc/{pid}/stat"))
    }

    /// The same process, and a log without a gap.
    fn undisturbed(self, node: &Node) -> Result<()> {
        let now = node.task(self.task.id())?;
        ensure!(now.status() == "RUNNING", "the bystander is {}", now.0);
        let started = Self::start_time(node, self.task.pid("main")?)?;
        ensure!(started == self.started, "the bystander was started again");
        let log = node.logs(&self.task, "main")?;
        let counts: Vec<u64> = log.lines().filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
        ensure!(
            !counts.is_empty() && counts.iter().zip(1..).all(|(seen, due)| *seen == due),
            "a gap in the log: {counts:?}"
        );
        node.stop(self.task.id()).map(drop)
    }
}

/// kill -9 of a daemon; an exit while it is away; its restart by systemctl; then the truth, once.
fn exit_while_away(world: &World, unit: &str, code: u8) -> Result<()> {
    let node = world.node();
    let bystander = Bystander::start(node, &world.image())?;
    let gate = format!("gate-{code}");
    let task = node.run_until_running(&waiting_for(&gate, &world.image(), code))?;
    let pid = task.pid("main")?;
    // Stopped by name right after the kill, or systemd would have it back within a second.
    node.guest.sh(&format!("systemctl kill -s KILL {unit}; systemctl stop {unit}"))?;
    ensure!(node.guest.run(&format!("kill -0 {pid}"))?.code == 0, "the task died with {unit}");
    node.guest.sh(&format!("touch /srv/allowed/{gate}"))?;
    node.guest.until(30, &format!("! kill -0 {pid} 2>/dev/null"))?;
    node.guest.sh(&format!("systemctl start {unit}; rm /srv/allowed/{gate}"))?;
    node.guest.until(30, &format!("systemctl is-active {unit} && lighter node ls"))?;
    let stopped = node.wait_for(task.id(), "STOPPED", Duration::from_secs(60))?;
    ensure!(stopped.exit_code("main")? == Some(i64::from(code)), "{}", stopped.0);
    let times = node.stopped_events(task.id())?;
    ensure!(times == 1, "{times} events say that the task has stopped: {:?}", node.task_events(task.id())?);
    bystander.undisturbed(node)
}

/// The agent dies; containers go on; the exit that it missed is reported once, with its true code.
fn agent_killed_and_restarted(world: &mut World) -> Result<()> {
    exit_while_away(world, "lighter-agent", 42)?;
    // And once as systemd does it: killed, and back by itself with nothing said.
    let node = world.node();
    let bystander = Bystander::start(node, &world.image())?;
    let before = node.guest.sh("systemctl show -p MainPID --value lighter-agent")?;
    node.guest.sh("systemctl kill -s KILL lighter-agent")?;
    node.guest.until(
        30,
        &format!("p=$(systemctl show -p MainPID --value lighter-agent); [ $p != 0 ] && [ $p != {before} ]"),
    )?;
    let task = node.run_until_stopped(&shell_task("after", &world.image(), "exit 3"))?;
    ensure!(task.exit_code("main")? == Some(3), "{}", task.0);
    bystander.undisturbed(node)
}

/// The control plane dies; containers and the agent go on; after its restart nothing acknowledged is lost.
fn control_plane_killed_and_restarted(world: &mut World) -> Result<()> {
    exit_while_away(world, "lighter-control", 43)?;
    let list = world.node().lighter("task-definition ls")?;
    ensure!(list.contains("gate-43"), "a registered definition was lost: {list}");
    Ok(())
}

/// New binaries under the old names, the agent restarted: same processes, an unbroken connection.
fn agent_upgraded_in_place(world: &mut World) -> Result<()> {
    let node = world.node();
    let bystander = Bystander::start(node, &world.image())?;
    let mut echo = shell_task("echo", &world.image(), "exec nc -l -p 7 -e cat");
    echo["containerDefinitions"][0]["portMappings"] = json!([{ "containerPort": 7, "hostPort": 7007 }]);
    let echo = node.run_until_running(&echo)?;
    // A connection that lives through the upgrade: a named pipe in, a file out.
    node.guest.sh(
        "mkfifo /tmp/in; setsid sleep 300 </dev/null >/tmp/in 2>/dev/null & echo $! > /tmp/holder; \
         setsid busybox nc 127.0.0.1 7007 </tmp/in >/tmp/out 2>/dev/null & echo $! > /tmp/client; echo before > /tmp/in",
    )?;
    node.guest.until(10, "grep -q before /tmp/out")?;
    node.guest
        .sh("for name in lighter lighter-shim lighter-oci; do cp /usr/bin/$name /usr/bin/$name.new; \
         mv /usr/bin/$name.new /usr/bin/$name; done; systemctl restart lighter-agent")?;
    node.guest.until(30, "systemctl is-active lighter-agent && lighter node ls | grep -q connected")?;
    node.guest.sh("echo after > /tmp/in")?;
    node.guest.until(10, "grep -q after /tmp/out")?;
    node.guest
        .sh("kill $(cat /tmp/holder) $(cat /tmp/client); rm -f /tmp/in /tmp/out /tmp/holder /tmp/client")?;
    node.stop(echo.id())?;
    bystander.undisturbed(node)
}

/// A drained node gets nothing new and keeps what it has; asked to, its tasks stop; then it is back.
fn drained_and_activated(world: &mut World) -> Result<()> {
    let node = world.node();
    let name = node.json("node ls")?[0]["name"].as_str().unwrap_or_default().to_string();
    let bystander = Bystander::start(node, &world.image())?;
    node.lighter(&format!("node drain {name} --reason 'kernel update'"))?;
    let refused = node.try_lighter("run bystander")?;
    ensure!(refused.code != 0, "a drained node was given a task: {}", refused.out);
    node.lighter(&format!("node activate {name}"))?;
    bystander.undisturbed(node)?;
    let doomed =
        node.run_until_running(&shell_task("doomed", &world.image(), "while :; do sleep 1; done"))?;
    node.lighter(&format!("node drain {name} --stop-tasks --wait"))?;
    let stopped = node.wait_for(doomed.id(), "STOPPED", Duration::from_secs(5))?;
    ensure!(stopped.stopped_reason().contains("draining"), "{}", stopped.0);
    node.lighter(&format!("node activate {name}")).map(drop)
}

/// Paused, nothing of it runs and the kernel says so; resumed, it goes on where it was.
fn paused_and_resumed(world: &mut World) -> Result<()> {
    let node = world.node();
    let task = node.run_until_running(&shell_task("pausable", &world.image(), "while :; do :; done"))?;
    let pid = task.pid("main")?;
    let events = format!("$(dirname {})/cgroup.events", node.cgroup_of(pid)?);
    node.lighter(&format!("pause {}", task.id()))?;
    node.guest.until(10, &format!("grep -q 'frozen 1' {events}"))?;
    node.guest.sh("systemctl restart lighter-agent")?;
    node.guest.until(30, "systemctl is-active lighter-agent && lighter node ls | grep -q connected")?;
    node.guest.sh(&format!("grep -q 'frozen 1' {events}"))?;
    node.lighter(&format!("unpause {}", task.id()))?;
    node.guest.until(10, &format!("grep -q 'frozen 0' {events}"))?;
    node.lighter(&format!("pause {}", task.id()))?;
    node.guest.until(10, &format!("grep -q 'frozen 1' {events}"))?;
    node.stop(task.id()).map(drop)
}

/// Log driver journald, seen by journalctl: Docker's fields, ours, and lines in their order.
fn output_in_the_journal(world: &mut World) -> Result<()> {
    let node = world.node();
    let script =
        "echo first; sleep 0.3; echo second >&2; trap 'echo last; exit 0' TERM; while :; do sleep 0.1; done";
    let mut definition = shell_task("journal", &world.image(), script);
    definition["containerDefinitions"][0]["logConfiguration"] =
        json!({ "logDriver": "journald", "options": { "tag": "{{.Name}}/{{.Family}}" } });
    let task = node.run_until_running(&definition)?;
    let find = format!("journalctl -q --no-pager -o json CONTAINER_NAME=main LIGHTER_TASK_ID={}", task.id());
    node.guest.until(20, &format!("{find} | grep second"))?;
    node.stop(task.id())?;
    node.guest.until(20, &format!("{find} | grep last"))?;
    let text = node.guest.sh(&find)?;
    let records = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let messages: Vec<&str> = records.iter().filter_map(|record| record["MESSAGE"].as_str()).collect();
    ensure!(messages == ["first", "second", "last"], "{text}");
    for (record, priority) in records.iter().zip(["6", "3", "6"]) {
        for (field, value) in [
            ("PRIORITY", priority),
            ("CONTAINER_TAG", "main/journal"),
            ("SYSLOG_IDENTIFIER", "main/journal"),
            ("IMAGE_NAME", world.image().as_str()),
            ("CONTAINER_ID_FULL", format!("{}-main", task.id()).as_str()),
            ("LIGHTER_FAMILY", "journal"),
            ("_SYSTEMD_UNIT", "lighter-agent.service"),
        ] {
            ensure!(record[field] == value, "{field} is {}, not {value}", record[field]);
        }
    }
    Ok(())
}

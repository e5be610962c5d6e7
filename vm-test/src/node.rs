//! A machine with Lighter on it, driven through the real `lighter` command.
//! In: task definitions as ECS JSON, ids. Out: what the command says, as JSON.
//! Owns: the machine. Never: observes through the command what the kernel can be asked itself.

use crate::guest::{Done, Guest};
use crate::host::quoted;
use crate::machine::Machine;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A pull of the test image and a start take about 3 s under emulation; two machines may run at once.
const START_LIMIT: Duration = Duration::from_secs(60);

pub struct Node {
    pub machine: Machine,
    pub guest: Guest,
}

/// One task as the control plane last described it.
#[derive(Debug, Clone)]
pub struct Task(pub Value);

impl Node {
    pub fn new(machine: Machine) -> Self {
        let guest = machine.guest.clone();
        Self { machine, guest }
    }

    /// `lighter …`, which must succeed.
    pub fn lighter(&self, arguments: &str) -> Result<String> {
        self.guest.sh(&format!("lighter {arguments}"))
    }

    /// `lighter …`, whatever comes of it.
    pub fn try_lighter(&self, arguments: &str) -> Result<Done> {
        self.guest.run(&format!("lighter {arguments}"))
    }

    /// `lighter … -o json`, parsed.
    pub fn json(&self, arguments: &str) -> Result<Value> {
        let text = self.lighter(&format!("{arguments} -o json"))?;
        serde_json::from_str(&text).with_context(|| format!("lighter {arguments} -o json said: {text}"))
    }

    /// Registers a definition; the family is in it.
    pub fn register(&self, definition: &Value) -> Result<()> {
        let done = self.try_register(definition)?;
        if done.code != 0 {
            bail!("register was refused: {} {}", done.out, done.err);
        }
        Ok(())
    }

    /// As `register`; a refusal is an answer.
    pub fn try_register(&self, definition: &Value) -> Result<Done> {
        let mut definition = definition.clone();
        // The programs of the scenarios are shells as process 1, which ignore SIGTERM: 30 s a stop otherwise.
        for container in definition["containerDefinitions"].as_array_mut().into_iter().flatten() {
            if container["stopTimeout"].is_null() {
                container["stopTimeout"] = json!(2);
            }
        }
        self.guest.run(&format!(
            "printf %s {} > /tmp/definition.json && lighter task-definition register /tmp/definition.json",
            quoted(&definition.to_string())
        ))
    }

    /// Registers and starts one task; its id.
    pub fn run(&self, definition: &Value) -> Result<String> {
        self.register(definition)?;
        let family = definition["family"].as_str().context("a definition without a family")?;
        self.start(family)
    }

    /// Starts one task of a registered family; its id.
    pub fn start(&self, family: &str) -> Result<String> {
        let answer = self.json(&format!("run {family}"))?;
        find(&answer, "taskId")
            .and_then(Value::as_str)
            .map(str::to_string)
            .with_context(|| format!("run said {answer}"))
    }

    /// Registers, starts, and waits until the task runs.
    pub fn run_until_running(&self, definition: &Value) -> Result<Task> {
        let id = self.run(definition)?;
        self.wait_for(&id, "RUNNING", START_LIMIT)
    }

    /// Registers, starts, and waits until the task has stopped by itself.
    pub fn run_until_stopped(&self, definition: &Value) -> Result<Task> {
        let id = self.run(definition)?;
        self.wait_for(&id, "STOPPED", START_LIMIT)
    }

    pub fn task(&self, id: &str) -> Result<Task> {
        let answer = self.json(&format!("task show {id}"))?;
        let task =
            answer.get("tasks").and_then(|t| t.get(0)).or_else(|| answer.get("task")).unwrap_or(&answer);
        Ok(Task(task.clone()))
    }

    /// Waits for a last status; a task that stopped instead fails at once, with its reason.
    pub fn wait_for(&self, id: &str, status: &str, limit: Duration) -> Result<Task> {
        let deadline = Instant::now() + limit;
        loop {
            let task = self.task(id)?;
            if task.status() == status {
                return Ok(task);
            }
            if task.status() == "STOPPED" {
                bail!("task {id} stopped while waiting for {status}: {}", task.0);
            }
            if Instant::now() > deadline {
                bail!("task {id} is not {status} within {} s: {}", limit.as_secs(), task.0);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops a task and waits until it has stopped.
    pub fn stop(&self, id: &str) -> Result<Task> {
        self.lighter(&format!("stop {id} --reason 'the scenario is over'"))?;
        self.wait_for(id, "STOPPED", START_LIMIT)
    }

    /// What a container wrote.
    pub fn logs(&self, task: &Task, container: &str) -> Result<String> {
        self.lighter(&format!("logs {} --container {container}", task.id()))
    }

    /// Events of one task, oldest first, as the control plane keeps them.
    pub fn task_events(&self, id: &str) -> Result<Vec<Value>> {
        let text = self.lighter("events -o json")?;
        let events =
            serde_json::Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
        let flat = events.into_iter().flat_map(|e| e.as_array().cloned().unwrap_or_else(|| vec![e]));
        Ok(flat.filter(|e| find(e, "taskId").and_then(Value::as_str) == Some(id)).collect())
    }

    /// How many events say that the task has stopped.
    pub fn stopped_events(&self, id: &str) -> Result<usize> {
        let events = self.task_events(id)?;
        Ok(events.iter().filter(|e| find(e, "lastStatus").and_then(Value::as_str) == Some("STOPPED")).count())
    }

    /// The cgroup directory of a container's main process.
    pub fn cgroup_of(&self, pid: i64) -> Result<String> {
        self.guest.sh(&format!("echo /sys/fs/cgroup$(cut -d: -f3 /proc/{pid}/cgroup)"))
    }

    /// The last lines of the daemons' journal.
    pub fn journal_tail(&self) -> String {
        self.guest
            .run("journalctl -q --no-pager -o cat -u lighter-agent -u lighter-control -u lighter-tasks -n 40")
            .map(|done| done.out)
            .unwrap_or_default()
    }
}

impl Task {
    pub fn id(&self) -> &str {
        self.0["taskId"].as_str().unwrap_or_default()
    }

    pub fn status(&self) -> &str {
        self.0["lastStatus"].as_str().unwrap_or_default()
    }

    pub fn stopped_reason(&self) -> &str {
        self.0["stoppedReason"].as_str().unwrap_or_default()
    }

    pub fn container(&self, name: &str) -> Result<&Value> {
        let containers = self.0["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
        containers
            .iter()
            .find(|c| c["name"] == name)
            .with_context(|| format!("no container {name} in {}", self.0))
    }

    /// The host's process id of a container's main process.
    pub fn pid(&self, container: &str) -> Result<i64> {
        self.container(container)?["pid"].as_i64().with_context(|| format!("no pid in {}", self.0))
    }

    pub fn exit_code(&self, container: &str) -> Result<Option<i64>> {
        Ok(self.container(container)?["exitCode"].as_i64())
    }

    /// The container's address on the bridge.
    pub fn address(&self, container: &str) -> Result<String> {
        let address = self.container(container)?["address"].as_str().unwrap_or_default();
        Ok(address.split('/').next().unwrap_or_default().to_string())
    }

    /// The host port that a container's port is published on.
    pub fn host_port(&self, container: &str, container_port: u16, protocol: &str) -> Result<u16> {
        let bindings = self.container(container)?["networkBindings"].as_array().cloned().unwrap_or_default();
        bindings
            .iter()
            .filter(|b| b["containerPort"] == container_port)
            .find(|b| b["protocol"].as_str().unwrap_or("tcp").eq_ignore_ascii_case(protocol))
            .and_then(|b| b["hostPort"].as_u64())
            .and_then(|port| u16::try_from(port).ok())
            .with_context(|| format!("no binding of {container_port}/{protocol} in {}", self.0))
    }
}

/// A member anywhere in a document, first found first.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(name).or_else(|| members.values().find_map(|v| find(v, name))),
        Value::Array(items) => items.iter().find_map(|v| find(v, name)),
        _ => None,
    }
}

/// A definition with one container `main` of the given image and shell script.
pub fn shell_task(family: &str, image: &str, script: &str) -> Value {
    json!({
        "family": family,
        "containerDefinitions": [{
            "name": "main", "image": image, "memory": 64, "essential": true,
            "command": ["sh", "-c", script],
        }],
    })
}

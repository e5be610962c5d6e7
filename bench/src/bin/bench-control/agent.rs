//! One node: a client of the session protocol over mTLS that runs nothing and says that it does, healthily, and
//! that stops at once what shall stop.
//! In: an identity. Out: counters. Owns: its connection and the tasks it holds, which outlive sessions.
//! Connects as the agent does: pauses from 100 ms to 5 s with full jitter, endpoints in turn.
//! Never: counts as in sync before a manifest has told exactly what it holds.

use super::clock::now_ns;
use super::tls;
use anyhow::{Context, Result};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::node_client::NodeClient;
use lighter_proto::v1::node_message::Message as FromNode;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// Of all nodes together.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub connected: AtomicU64,
    pub in_sync: AtomicU64,
    pub held: AtomicU64,
    /// Reports that the control plane has acknowledged as durable; until something is stopped, all of them RUNNING.
    pub applied: AtomicU64,
    /// Sessions that ended, and why the last did.
    pub ended: AtomicU64,
    pub why: Mutex<String>,
    /// When each assignment came.
    pub came: Mutex<Vec<(String, u64)>>,
}

pub(crate) struct Agent {
    endpoints: Vec<Endpoint>,
    hello: v1::NodeHello,
    held: BTreeMap<String, Held>,
    counters: Arc<Counters>,
    luck: u64,
}

struct Held {
    generation: u64,
    stopped: bool,
}

/// Takes back what a session counted.
struct Counted<'a> {
    counters: &'a Counters,
    in_sync: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.counters.connected.fetch_sub(1, Ordering::Relaxed);
        self.counters.in_sync.fetch_sub(u64::from(self.in_sync), Ordering::Relaxed);
    }
}

impl Agent {
    pub(crate) fn new(
        number: usize,
        identity: &Value,
        ca: &str,
        addresses: &[SocketAddr],
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let text = |name: &str| identity[name].as_str().with_context(|| format!("no {name}"));
        let own = (text("certificate")?, text("key")?);
        let endpoints: Result<Vec<Endpoint>> =
            addresses.iter().map(|address| tls::endpoint(*address, ca, Some(own))).collect();
        let resources = v1::Resources {
            cpu_units: u32::try_from(identity["cpu"].as_u64().context("no cpu")?)?,
            memory_mib: identity["memory"].as_u64().context("no memory")?,
            ..Default::default()
        };
        let attribute = |name: &str, value: &str| v1::Attribute {
            name: name.to_owned(),
            value: value.to_owned(),
            ..Default::default()
        };
        let attributes = vec![
            attribute("ecs.os-type", "linux"),
            attribute("ecs.cpu-architecture", "x86_64"),
            attribute("ecs.availability-zone", text("zone")?),
        ];
        let state = v1::NodeState {
            resources: Some(resources),
            attributes,
            name: format!("node-{number}"),
            ..Default::default()
        };
        let hello = v1::NodeHello {
            protocol: Some(v1::ProtocolRange { min: 1, max: 1 }),
            agent_version: "bench".to_owned(),
            boot_id: "boot".to_owned(),
            agent_run_id: format!("run {number}"),
            state: Some(state),
            ..Default::default()
        };
        let luck = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(Self { endpoints: endpoints?, hello, held: BTreeMap::new(), counters, luck })
    }

    pub(crate) async fn run(mut self) {
        let (mut ceiling_ms, mut number) = (100, 0);
        loop {
            let before = self.hello.term;
            let endpoint = self.endpoints[number % self.endpoints.len()].clone();
            if let Err(error) = self.session(endpoint).await {
                self.counters.ended.fetch_add(1, Ordering::Relaxed);
                *self.counters.why.lock().unwrap_or_else(PoisonError::into_inner) = format!("{error:#}");
            }
            ceiling_ms = if self.hello.term == before { (ceiling_ms * 2).min(5_000) } else { 100 };
            number += 1;
            let pause = self.draw() % ceiling_ms;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// The next random number (xorshift64).
    fn draw(&mut self) -> u64 {
        self.luck ^= self.luck << 13;
        self.luck ^= self.luck >> 7;
        self.luck ^= self.luck << 17;
        self.luck
    }

    async fn session(&mut self, endpoint: Endpoint) -> Result<()> {
        let channel = endpoint.connect().await?;
        let (out, messages) = mpsc::channel(64);
        let mut hello = self.hello.clone();
        let held = self.held.iter().map(|(id, held)| v1::HeldTask {
            task_id: id.clone(),
            generation: held.generation,
            last_status: if held.stopped { v1::TaskStatus::Stopped } else { v1::TaskStatus::Running }.into(),
            ..Default::default()
        });
        hello.tasks = held.collect();
        say(&out, FromNode::Hello(hello)).await?;
        let mut incoming =
            NodeClient::new(channel).session(ReceiverStream::new(messages)).await?.into_inner();
        let counters = self.counters.clone();
        counters.connected.fetch_add(1, Ordering::Relaxed);
        let mut counted = Counted { counters: &counters, in_sync: false };
        let (mut listed, mut beats) = (0, 0);
        let mut heartbeat = tokio::time::interval(Duration::from_secs(5));
        heartbeat.tick().await;
        loop {
            let message = tokio::select! {
                message = incoming.message() => message?.context("the stream ended")?,
                _ = heartbeat.tick() => {
                    beats += 1;
                    say(&out, FromNode::Heartbeat(v1::Heartbeat { number: beats })).await?;
                    continue;
                }
            };
            let sequence = message.sequence;
            match message.message.context("an empty message")? {
                FromControl::Hello(hello) => {
                    (self.hello.term, self.hello.incarnation) = (hello.term, hello.incarnation);
                    heartbeat =
                        tokio::time::interval(Duration::from_millis(hello.heartbeat_interval_ms.into()));
                    heartbeat.tick().await;
                }
                FromControl::Manifest(manifest) => {
                    self.hello.revision = manifest.revision;
                    listed += manifest.assignments.len();
                    let last = manifest.last_chunk;
                    self.take(manifest.assignments, sequence, &out).await?;
                    if last {
                        anyhow::ensure!(
                            listed == self.held.len(),
                            "{listed} listed, {} held",
                            self.held.len()
                        );
                        counted.in_sync = true;
                        counters.in_sync.fetch_add(1, Ordering::Relaxed);
                    }
                }
                FromControl::Assignments(assignments) => {
                    self.hello.revision = assignments.revision;
                    self.take(assignments.assignments, sequence, &out).await?;
                }
                FromControl::ReportsApplied(applied) => {
                    counters.applied.fetch_add(applied.applied.len() as u64, Ordering::Relaxed);
                }
                _ => {}
            }
        }
    }

    /// Acknowledges what came and says that what is new is running, and what shall stop is STOPPED.
    async fn take(
        &mut self,
        assignments: Vec<v1::Assignment>,
        sequence: u64,
        out: &mpsc::Sender<v1::NodeMessage>,
    ) -> Result<()> {
        let at_ns = now_ns();
        let mut reports = Vec::new();
        for assignment in assignments {
            if assignment.forget {
                let forgotten = self.held.remove(&assignment.task_id).is_some();
                self.counters.held.fetch_sub(u64::from(forgotten), Ordering::Relaxed);
                continue;
            }
            let ends = assignment.desired_status() == v1::DesiredStatus::Stopped;
            let held = Held { generation: assignment.generation, stopped: ends };
            let known = self.held.insert(assignment.task_id.clone(), held);
            if known.is_none() {
                self.counters.held.fetch_add(1, Ordering::Relaxed);
                let mut came = self.counters.came.lock().unwrap_or_else(PoisonError::into_inner);
                came.push((assignment.task_id.clone(), at_ns));
            }
            // Said again it is the same report: it has the same sequence.
            if ends {
                reports.push(stopped(assignment.task_id));
            } else if known.is_none() {
                reports.push(running(assignment.task_id, assignment.group.starts_with("service:")));
            }
        }
        say(out, FromNode::Acknowledge(v1::Acknowledge { sequence })).await?;
        if !reports.is_empty() {
            say(out, FromNode::TaskReports(v1::TaskReports { reports })).await?;
        }
        Ok(())
    }
}

async fn say(out: &mpsc::Sender<v1::NodeMessage>, message: FromNode) -> Result<()> {
    Ok(out.send(v1::NodeMessage { message: Some(message) }).await?)
}

/// The report of a task that runs, as full as that of a real node; with a health check that has passed, or none.
fn running(task_id: String, checked: bool) -> v1::TaskReport {
    let container = v1::Container {
        name: "web".to_owned(),
        last_status: v1::ContainerStatus::Running.into(),
        pid: 4_711,
        image_digest: format!("sha256:{}", "5".repeat(64)),
        address: "10.66.0.2".to_owned(),
        limits: Some(v1::KernelLimits::default()),
        health: checked.then(healthy),
        ..Default::default()
    };
    v1::TaskReport {
        task_id,
        sequence: 1,
        last_status: v1::TaskStatus::Running.into(),
        containers: vec![container],
        pull_started_at_unix_ms: 1_700_000_000_000,
        pull_stopped_at_unix_ms: 1_700_000_000_100,
        started_at_unix_ms: 1_700_000_000_200,
        ..Default::default()
    }
}

fn healthy() -> v1::ContainerHealth {
    v1::ContainerHealth {
        status: v1::HealthStatus::Healthy.into(),
        since_unix_ms: 1_700_000_000_200,
        last_end: "exited with 0".to_owned(),
        ..Default::default()
    }
}

/// The report of a task whose container has ended on its STOPSIGNAL.
fn stopped(task_id: String) -> v1::TaskReport {
    let exit = v1::ContainerExit {
        status: Some(v1::container_exit::Status::Exited(0)),
        oom_killed: false,
        finished_at_unix_ms: 1_700_000_000_300,
    };
    let container = v1::Container {
        name: "web".to_owned(),
        last_status: v1::ContainerStatus::Stopped.into(),
        image_digest: format!("sha256:{}", "5".repeat(64)),
        exit: Some(exit),
        ..Default::default()
    };
    v1::TaskReport {
        sequence: 2,
        last_status: v1::TaskStatus::Stopped.into(),
        containers: vec![container],
        stopping_at_unix_ms: 1_700_000_000_250,
        execution_stopped_at_unix_ms: 1_700_000_000_300,
        stopped_at_unix_ms: 1_700_000_000_300,
        ..running(task_id, false)
    }
}

//! Lighter as it is shipped: `lighter control` and `lighter agent`, release binaries, joined by token.
//! In: LIGHTER_BIN_DIR. Out: tasks started and stopped over the Unix socket's gRPC.
//! Owns: both daemons, their data under the scratch directory. Never: calls into our own crates
//! but the generated client.

use crate::account::CpuAccount;
use crate::images::Registry;
use crate::probes::{self, Shell};
use crate::processes::{Daemon, command_ok, memory_kib, pids_named};
use anyhow::{Context, Result, bail};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint, Uri};

const PATIENCE: Duration = Duration::from_secs(60);

/// Tasks by id as the event stream last told them.
type Seen = watch::Receiver<HashMap<String, (v1::TaskStatus, v1::HealthStatus)>>;

/// A control plane and one node; clones share them.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: LighterClient<Channel>,
    seen: Seen,
    shared: Arc<Shared>,
}

struct Shared {
    scratch: PathBuf,
    agent: Daemon,
    control: Daemon,
    /// After the daemons: what is dropped last removes the cgroups.
    account: CpuAccount,
}

impl Cluster {
    pub(crate) async fn start(scratch: &Path, _registry: &Registry) -> Result<Self> {
        let account = CpuAccount::open("ours")?;
        let files = Files::write(scratch, &account)?;
        let control = Daemon::start(
            files.lighter().arg("control").arg("--config").arg(&files.control),
            &scratch.join("control.log"),
        )?;
        wait_for(&files.socket).await?;
        let token = command_ok(
            files.lighter().arg("--endpoint").arg(files.endpoint()).args(["-q", "token", "create"]),
        )?;
        command_ok(
            files
                .lighter()
                .args(["agent", "join", "https://127.0.0.1:7443", "--token", token.trim()])
                .arg("--data-dir")
                .arg(&files.agent_data),
        )?;
        let agent = Daemon::start(
            &mut account.enter(files.lighter().arg("agent").arg("--config").arg(&files.agent)),
            &scratch.join("agent.log"),
        )?;
        let client = connect(&files.socket).await?;
        let shared = Arc::new(Shared { scratch: scratch.to_owned(), agent, control, account });
        let cluster = Self { seen: follow(client.clone()).await?, client, shared };
        cluster.wait_node().await.with_context(|| format!("see {}", scratch.join("agent.log").display()))?;
        cluster.register().await?;
        // The image is present before anything is measured.
        let first = crate::latency::FirstInstruction::listen(&cluster.socket_dir())?;
        let task = cluster.run_one().await?;
        drop(first.next().await?);
        cluster.wait_stopped(&task).await?;
        Ok(cluster)
    }

    /// The directory that tasks see as /bench.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.shared.scratch.join("share")
    }
    pub(crate) fn agent_pid(&self) -> u32 {
        self.shared.agent.pid()
    }
    pub(crate) fn account(&self) -> &CpuAccount {
        &self.shared.account
    }
    pub(crate) fn shim_pids(&self) -> Result<Vec<u32>> {
        pids_named(&["lighter-shim"])
    }
    pub(crate) fn describe(&self) -> Result<String> {
        let control = memory_kib(self.shared.control.pid())?.0 as f64 / 1024.0;
        Ok(format!(
            "lighter {}: storage overlay, cgroup v1 hybrid where the machine has no v2, redb with fsync on both sides; control plane {control:.1} MiB PSS",
            env!("CARGO_PKG_VERSION")
        ))
    }

    /// One task with half a core and 64 MiB, as the peers get them.
    pub(crate) async fn run_one(&self) -> Result<String> {
        self.run("bench").await
    }

    /// One of many at once: without CPU of its own, because CPU that is limited is also reserved.
    pub(crate) async fn run_one_of_many(&self) -> Result<String> {
        self.run("bench-many").await
    }

    /// One of many at once with a health check.
    pub(crate) async fn run_probed(&self, shell: &Shell) -> Result<String> {
        self.run(shell.family).await
    }

    async fn run(&self, family: &str) -> Result<String> {
        let request = v1::RunTaskRequest { task_definition: family.into(), ..Default::default() };
        let answer = self.client.clone().run_task(request).await?.into_inner();
        if let Some(failure) = answer.failures.first() {
            bail!("run: {} {}", failure.reason, failure.detail);
        }
        Ok(answer.tasks.into_iter().next().context("no task")?.task_id)
    }

    pub(crate) async fn wait_running(&self, task: &str) -> Result<()> {
        self.wait(task, "running", |status, _| status as i32 >= v1::TaskStatus::Running as i32).await
    }
    pub(crate) async fn wait_stopped(&self, task: &str) -> Result<()> {
        self.wait(task, "stopped", |status, _| status == v1::TaskStatus::Stopped).await
    }
    pub(crate) async fn wait_healthy(&self, task: &str) -> Result<()> {
        self.wait(task, "healthy", |_, health| health == v1::HealthStatus::Healthy).await
    }

    async fn wait(
        &self,
        task: &str,
        wanted: &str,
        is: impl Fn(v1::TaskStatus, v1::HealthStatus) -> bool,
    ) -> Result<()> {
        let mut seen = self.seen.clone();
        let reached =
            seen.wait_for(|tasks| tasks.get(task).is_some_and(|(status, health)| is(*status, *health)));
        tokio::time::timeout(PATIENCE, reached)
            .await
            .with_context(|| format!("task {task} is not {wanted}"))??;
        Ok(())
    }

    async fn wait_node(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let list = self
                .client
                .clone()
                .list_container_instances(v1::ListContainerInstancesRequest::default())
                .await?
                .into_inner();
            let request = v1::DescribeContainerInstancesRequest {
                container_instances: list.container_instance_ids.clone(),
                ..Default::default()
            };
            if !list.container_instance_ids.is_empty() {
                let nodes = self
                    .client
                    .clone()
                    .describe_container_instances(request)
                    .await?
                    .into_inner()
                    .container_instances;
                if nodes.iter().any(|node| node.agent_connected) {
                    return Ok(());
                }
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "the node does not connect");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn register(&self) -> Result<()> {
        self.register_one("bench", 512, None).await?;
        self.register_one("bench-many", 0, None).await?;
        for shell in probes::shells() {
            let check = serde_json::json!({"command": shell.test(), "interval": probes::INTERVAL_S});
            self.register_one(shell.family, 0, Some(check)).await?;
        }
        Ok(())
    }

    async fn register_one(
        &self,
        family: &str,
        cpu_units: u32,
        health_check: Option<serde_json::Value>,
    ) -> Result<()> {
        let mut json = serde_json::json!({
            "family": family,
            "containerDefinitions": [{
                "name": "first", "image": Registry::REFERENCE, "cpu": cpu_units, "memory": 64,
                "portMappings": [{"containerPort": 8080}],
                "mountPoints": [{"sourceVolume": "share", "containerPath": "/bench"}],
            }],
            "volumes": [{"name": "share", "host": {"sourcePath": self.socket_dir()}}],
        });
        if let Some(check) = health_check {
            json["containerDefinitions"][0]["healthCheck"] = check;
        }
        let request = v1::RegisterTaskDefinitionRequest { json: json.to_string() };
        self.client.clone().register_task_definition(request).await?;
        Ok(())
    }

    /// Ends both daemons; every task has been waited for.
    pub(crate) async fn stop(self) -> Result<()> {
        drop(self);
        Ok(())
    }
}

/// The files both daemons read.
struct Files {
    control: PathBuf,
    agent: PathBuf,
    agent_data: PathBuf,
    socket: PathBuf,
}

impl Files {
    fn write(scratch: &Path, account: &CpuAccount) -> Result<Self> {
        let share = scratch.join("share");
        std::fs::create_dir_all(&share)?;
        let files = Self {
            control: scratch.join("control.toml"),
            agent: scratch.join("agent.toml"),
            agent_data: scratch.join("agent"),
            socket: scratch.join("control.sock"),
        };
        std::fs::write(
            &files.control,
            format!(
                "data_dir = {:?}\nlisten = [\"127.0.0.1:7443\"]\nlisten_plaintext = [{:?}]\n",
                scratch.join("control"),
                files.socket
            ),
        )?;
        std::fs::write(
            &files.agent,
            format!(
                "data_dir = {:?}\nrun_dir = {:?}\nallow_host_paths = [{share:?}]\nallow_cgroup_v1_hybrid = true\n\
             reserve_cpu_units = 0\nreserve_memory_mib = 256\ncgroup_root = {:?}\n[registries.\"{}\"]\nhttp = true\n",
                files.agent_data,
                scratch.join("run"),
                account.containers(),
                Registry::ADDRESS
            ),
        )?;
        Ok(files)
    }

    fn lighter(&self) -> Command {
        let dir = std::env::var_os("LIGHTER_BIN_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release-bin"),
            PathBuf::from,
        );
        Command::new(dir.join("lighter"))
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

async fn wait_for(socket: &Path) -> Result<()> {
    let began = Instant::now();
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        anyhow::ensure!(began.elapsed() < PATIENCE, "the control plane does not open {}", socket.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn connect(socket: &Path) -> Result<LighterClient<Channel>> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel =
        Endpoint::from_static("http://control.lighter.internal").connect_with_connector(connector).await?;
    Ok(LighterClient::new(channel))
}

/// Follows the events of the cluster; the map holds the newest status of each task.
async fn follow(mut client: LighterClient<Channel>) -> Result<Seen> {
    let mut events = client.watch_events(v1::WatchEventsRequest::default()).await?.into_inner();
    let (sender, receiver) = watch::channel(HashMap::new());
    tokio::spawn(async move {
        while let Ok(Some(event)) = events.message().await {
            if let Some(v1::event::Subject::TaskStateChange(change)) = event.subject
                && let Some(task) = change.task
            {
                sender.send_modify(|tasks| {
                    let now = (task.last_status(), task.health_status());
                    tasks.insert(task.task_id.clone(), now);
                });
            }
        }
    });
    Ok(receiver)
}

//! What a T1 test stands on: a temporary directory, a fake machine, a fake control plane, and an
//! agent that can be started, asked to leave, and killed. In: configuration. Out: handles.
//! Owns the runtimes. Never: touches the real /run or /var.

use super::control::{Control, wait};
use crate::agent::{Agent, AgentHandle, Parts, StartError};
use crate::config::AgentConfig;
use crate::facilities::fakes::{Machine, Program};
use crate::join::Credentials;
use crate::session::{ControlEndpoint, NodeFacts};
use crate::store::{OpenStoreError, Store};
use crate::task::Pace;
use crate::task::restart::Backoff;
use lighter_model::ids::TaskId;
use lighter_model::image_config::ImageConfig;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Two containers, a static and a dynamic port, a volume, an image VOLUME.
pub(super) const WEB: &str = r#"{"family":"web","containerDefinitions":[
    {"name":"web","image":"web","cpu":64,"memory":64,"stopTimeout":1,
     "portMappings":[{"containerPort":80,"hostPort":8080},{"containerPort":81}],
     "mountPoints":[{"sourceVolume":"data","containerPath":"/data"}]},
    {"name":"side","image":"side","cpu":64,"memory":64,"essential":false,"stopTimeout":1,"volumesFrom":[{"sourceContainer":"web"}]}],
  "volumes":[{"name":"data","host":{}}]}"#;

/// A second of health checks and restarts lasts this long here.
pub(super) const FAST: Pace =
    Pace { second_ms: 20, backoff: Backoff { first_ms: 5, cap_ms: 40, reset_ms: 60_000 } };

/// One container, nothing else.
pub(super) const SMALL: &str = r#"{"family":"small","containerDefinitions":[{"name":"small","image":"side","cpu":10,"memory":10,"stopTimeout":1}]}"#;

pub(super) struct Bench {
    pub machine: Machine,
    pub control: Control,
    pub config: AgentConfig,
    pub boot_id: String,
    pub pace: Pace,
    /// The node's, which may be renewed.
    pub credentials: watch::Sender<Credentials>,
    agent: Option<(Runtime, AgentHandle)>,
    _control_runtime: Runtime,
    _dir: TempDir,
}

pub(super) fn task(number: u64) -> TaskId {
    TaskId::from_parts(number, 0)
}

/// Told apart by their text.
pub(super) fn credentials(text: &str) -> Credentials {
    Credentials { certificate: text.to_owned(), key: text.to_owned(), ca: text.to_owned() }
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let control_runtime = runtime();
        let control = control_runtime.block_on(async { Control::start(dir.path()) });
        control.define("web:1", WEB);
        control.define("small:1", SMALL);
        let machine = Machine::new();
        machine.with(|world| {
            let volumes = ["/var/cache".to_owned()].into();
            world.images.insert(
                "web".into(),
                ImageConfig { stop_signal: Some("SIGQUIT".into()), volumes, ..ImageConfig::default() },
            );
            world.images.insert("side".into(), ImageConfig::default());
            world.programs.insert("web".parse().unwrap(), Program::Runs { on_stop: 7 });
        });
        let config = AgentConfig {
            data_dir: dir.path().join("data"),
            run_dir: dir.path().join("run"),
            reserve_memory_mib: 0,
            reserve_cpu_units: 0,
            // Tests share the machine.
            task_metadata: false,
            introspection_address: String::new(),
            ..AgentConfig::default()
        };
        Self {
            machine,
            control,
            config,
            boot_id: "boot-1".into(),
            pace: FAST,
            credentials: watch::channel(credentials("first")).0,
            agent: None,
            _control_runtime: control_runtime,
            _dir: dir,
        }
    }

    pub(super) fn store_path(&self) -> std::path::PathBuf {
        self.config.data_dir.join("agent.redb")
    }

    /// What the kernel says of pressure: nothing, unless a test writes it here.
    pub(super) fn pressure(&self) -> std::path::PathBuf {
        self.config.data_dir.join("pressure")
    }

    pub(super) fn start(&mut self) {
        self.try_start().unwrap();
    }

    /// Starts an agent and waits until it is recovered, or stands still at a point.
    pub(super) fn try_start(&mut self) -> Result<(), StartError> {
        let runtime = runtime();
        let store_path = self.store_path();
        // The killed agent's store closes a moment after its last task is dropped.
        let (mut store, loaded) = wait(
            "the store",
            || match Store::open(&store_path) {
                Err(OpenStoreError::Locked { .. }) => None,
                opened => Some(opened.unwrap()),
            },
            String::new,
        );
        store.machine = Some(self.machine.clone());
        let parts = Parts {
            facilities: self.machine.facilities(),
            store,
            loaded,
            endpoint: ControlEndpoint::new(
                &format!("unix:{}", self.control.socket.display()),
                Some(self.credentials.subscribe()),
            ),
            credentials: None,
            node: NodeFacts {
                name: "node".into(),
                boot_id: self.boot_id.clone(),
                run_id: "run".into(),
                attributes: Vec::new(),
            },
            container_instance_id: "0123456789abcdef0123456789abcdef".into(),
            cluster: "default".into(),
            pace: self.pace,
            pressure: self.pressure(),
        };
        let (config, mut halted) = (self.config.clone(), self.machine.halted());
        let started = runtime.block_on(async move {
            // As the daemon does: on a task of its own, so that a halt inside leaves it standing.
            let start = tokio::spawn(Agent::run(config, parts));
            tokio::select! {
                started = start => Some(started.unwrap()),
                _ = halted.wait_for(|halted| *halted) => None,
            }
        });
        match started {
            Some(Ok(handle)) => self.agent = Some((runtime, handle)),
            Some(Err(error)) => {
                runtime.shutdown_timeout(Duration::from_secs(5));
                return Err(error);
            }
            None => runtime.shutdown_timeout(Duration::from_secs(5)),
        }
        Ok(())
    }

    /// kill -9: every task of the agent is dropped where it stands.
    pub(super) fn kill(&mut self) {
        if let Some((runtime, _handle)) = self.agent.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        self.control.cut();
    }

    /// "The agent leaves."
    pub(super) fn leave(&mut self) {
        let (runtime, handle) = self.agent.take().unwrap();
        handle.shutdown();
        runtime.block_on(handle.join()).unwrap();
        runtime.shutdown_timeout(Duration::from_secs(5));
        self.control.cut();
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.agent.as_ref().unwrap().0
    }

    /// Waits until the agent has no record of the task and nothing of it is left on the machine.
    pub(super) fn wait_forgotten(&mut self, tasks: &[TaskId]) {
        wait(
            "nothing left",
            || {
                let left = self.machine.leftovers();
                tasks.iter().all(|task| !left.iter().any(|name| name.contains(task.as_str()))).then_some(())
            },
            || format!("{:?}", self.machine.leftovers()),
        );
        let socket = self.config.socket();
        let ids: Vec<String> = tasks.iter().map(TaskId::to_string).collect();
        wait(
            "no record",
            || {
                let held = self.runtime().block_on(local_tasks(&socket));
                ids.iter().all(|id| !held.contains(id)).then_some(())
            },
            String::new,
        );
        for task in tasks {
            assert!(!self.config.data_dir.join("volumes/task").join(task.as_str()).exists());
            assert!(!self.config.run_dir.join("records").join(format!("{task}.json")).exists());
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ids of the tasks the agent's own socket shows.
pub(super) async fn local_tasks(socket: &Path) -> Vec<String> {
    let tasks = local_client(socket)
        .await
        .list_local_tasks(lighter_proto::v1::ListLocalTasksRequest {})
        .await
        .unwrap();
    tasks.into_inner().tasks.into_iter().map(|task| task.task_id).collect()
}

pub(super) async fn local_client(
    socket: &Path,
) -> lighter_proto::v1::agent_client::AgentClient<tonic::transport::Channel> {
    let uri = format!("unix:{}", socket.display());
    let channel = tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    lighter_proto::v1::agent_client::AgentClient::new(channel)
}

//! Puts the agent together, in this order: store, facilities, recovery, reconciler, local socket,
//! session. In: `AgentConfig`. Out: `AgentHandle`.
//! Owns: the tokio tasks of the long-lived parts, all of which end when the agent leaves; and that
//! is all that leaving does: no task of the node is touched.
//! Never: decides anything about a task.

use crate::adapters;
use crate::attributes;
use crate::config::{AgentConfig, ConfigError};
use crate::errors::Cause;
use crate::facilities::Facilities;
use crate::image_cleanup;
use crate::join::{Credentials, Identity, identity};
use crate::leases::Leases;
use crate::leases::devices::DevicePool;
use crate::local_api::{self, LocalApi, pulls::PullBoard};
use crate::log_driver::{DeliveryParts, LogDelivery, LogDriverTotals, NodeNames};
use crate::log_retention;
use crate::metadata::{Endpoint, ids::MetadataKey};
use crate::notice;
use crate::reconcile::{self, CoreInput, Reconciler};
use crate::recover::{Recovered, recover};
use crate::renew::Renewal;
use crate::resources::{Ledger, offered};
use crate::self_test::SelfTest;
use crate::session::connect::each;
use crate::session::{ControlEndpoint, NodeFacts, Session, SessionStatus};
use crate::store::records::Step;
use crate::store::{Loaded, OpenStoreError, Store};
use crate::task::board::MonitorBoard;
use crate::task::restart::limiter::StartLimiter;
use crate::task::{CHECKS_AT_ONCE, Pace, TaskContext, copy};
use crate::telemetry::{Telemetry, serve};
use crate::time;
use futures_util::future::BoxFuture;
use lighter_net::{AttachmentRecord, LeasePool, PortAllocator, Subnet};
use lighter_telemetry::trace::Tracer;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The kernel's pressure stall information.
const PRESSURE: &str = "/proc/pressure";

/// Why the agent does not run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("lighter agent must run as root, for namespaces, mounts and cgroups; it runs as uid {uid}")]
    NotRoot { uid: u32 },
    #[error("this node has not joined a cluster; run `lighter agent join https://HOST:PORT --token TOKEN`")]
    NotJoined,
    #[error("the node's credentials {path:?} cannot be used; join again with `lighter agent join --force`")]
    Credentials {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    #[error("bridge_subnet {text:?} is not a subnet")]
    Subnet {
        text: String,
        #[source]
        source: Cause,
    },
    #[error("otlp_endpoint {text:?} is not a URI like http://127.0.0.1:4317")]
    Otlp {
        text: String,
        #[source]
        source: Cause,
    },
    #[error("the agent has no store")]
    Store(#[source] OpenStoreError),
    #[error("{what} cannot be opened")]
    Facility {
        what: &'static str,
        #[source]
        source: Cause,
    },
    #[error("this machine cannot run containers safely: {0}")]
    SelfTest(String),
    #[error("the local socket {path:?} cannot be opened")]
    Socket {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("a part of the agent ended by itself")]
    Ended,
}

/// Starts agents.
#[derive(Debug)]
pub struct Agent;

/// A running agent. Dropping it does not end it; `shutdown` does.
#[derive(Debug)]
pub struct AgentHandle {
    leaving: CancellationToken,
    parts: JoinSet<()>,
    logs: LogDelivery,
}

/// What the agent is made of besides its configuration; tests bring their own.
pub(crate) struct Parts {
    pub facilities: Facilities,
    pub store: Store,
    pub loaded: Loaded,
    pub endpoint: ControlEndpoint,
    /// What the endpoint's credentials come from; `None`: plaintext.
    pub credentials: Option<watch::Sender<Credentials>>,
    pub node: NodeFacts,
    pub container_instance_id: String,
    pub cluster: String,
    pub pace: Pace,
    /// /proc/pressure.
    pub pressure: PathBuf,
}

impl Agent {
    /// Starts everything; returns when the surviving tasks are adopted and the session is under way.
    pub async fn start(config: AgentConfig) -> Result<AgentHandle, StartError> {
        let uid = rustix::process::geteuid().as_raw();
        if uid != 0 {
            return Err(StartError::NotRoot { uid });
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (identity, endpoint, credentials) = who_and_where(&config)?;
        let path = config.data_dir.join("agent.redb");
        let opened = tokio::task::spawn_blocking(move || Store::open(&path)).await;
        let (store, loaded) = opened.map_err(|_| StartError::Ended)?.map_err(StartError::Store)?;
        let facilities = adapters::open(&config).await?;
        let node = facts(&config).await;
        let parts = Parts {
            facilities,
            store,
            loaded,
            endpoint,
            node,
            container_instance_id: identity.container_instance_id.to_string(),
            cluster: identity.cluster.to_string(),
            credentials,
            pace: Pace::default(),
            pressure: PathBuf::from(PRESSURE),
        };
        Self::run(config, parts).await
    }

    /// `start` from its parts on.
    pub(crate) async fn run(config: AgentConfig, parts: Parts) -> Result<AgentHandle, StartError> {
        let socket = config.socket();
        let listener =
            local_api::listen(&socket).map_err(|source| StartError::Socket { path: socket, source })?;
        let subnet = subnet(&config)?;
        let config = Arc::new(config);
        let (reconciler, inputs) = mpsc::channel(reconcile::QUEUE_DEPTH);
        // Copies matter only when the store was lost; then they are all that knows of leases.
        let copies = copy::read_all(&config.run_dir);
        let known: BTreeSet<_> = parts.loaded.tasks.iter().map(|record| record.task.clone()).collect();
        let lost = copies.iter().map(|copy| &copy.record).filter(|record| !known.contains(&record.task));
        let recorded: Vec<AttachmentRecord> =
            parts.loaded.tasks.iter().chain(lost).flat_map(|record| record.attachments()).cloned().collect();
        let mut devices = DevicePool::new(&config.devices);
        let copied = copies.iter().map(|copy| &copy.record).filter(|record| !known.contains(&record.task));
        for record in parts.loaded.tasks.iter().chain(copied).filter(|record| record.step != Step::Stopped) {
            let held = record.containers.iter().flat_map(|container| &container.devices);
            held.for_each(|device| devices.hold(&record.task, device.clone()));
        }
        let pool = LeasePool::from_records(subnet, &recorded);
        let leases = Leases::start(pool, ports(&config), devices, &recorded);
        let leaving = CancellationToken::new();
        let (logs, delivery) = log_delivery(&config, &parts, &leaving)?;
        let tracer = tracer(&config, &parts.container_instance_id, &leaving)?;
        let telemetry = Telemetry::new(config.data_dir.join("events"), tracer);
        let context = Arc::new(TaskContext {
            config: config.clone(),
            facilities: parts.facilities,
            store: parts.store,
            leases,
            logs,
            reconciler,
            pulls: PullBoard::default(),
            monitors: MonitorBoard::default(),
            telemetry,
            metadata_key: MetadataKey::load(&config.data_dir),
            boot_id: parts.node.boot_id.clone(),
            pace: parts.pace,
            limiter: StartLimiter::start(parts.pressure),
            checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            leaving: leaving.clone(),
        });
        // Recovery clears away what no task has; the self-test's container must not be there yet.
        let recovered = recover(&context, parts.loaded).await;
        let self_test = SelfTest::run(&context.facilities).await;
        if let Some(refusal) = self_test.refusal() {
            return Err(StartError::SelfTest(refusal));
        }
        let status = watch::channel(SessionStatus::default());
        let endpoint =
            Endpoint::new(context.clone(), parts.cluster.clone(), parts.container_instance_id.clone());
        let self_test = serve_questions(&context, endpoint, status.1.clone(), self_test).await;
        let rest = Rest {
            delivery: Box::pin(delivery),
            endpoint: parts.endpoint,
            credentials: parts.credentials,
            node: parts.node,
            container_instance_id: parts.container_instance_id,
            cluster: parts.cluster,
            self_test,
            status,
        };
        Ok(spawn(context, recovered, inputs, listener, rest))
    }
}

/// What the long-lived parts need besides the context.
struct Rest {
    /// Of log drivers.
    delivery: BoxFuture<'static, ()>,
    endpoint: ControlEndpoint,
    credentials: Option<watch::Sender<Credentials>>,
    node: NodeFacts,
    container_instance_id: String,
    cluster: String,
    self_test: SelfTest,
    status: (watch::Sender<SessionStatus>, watch::Receiver<SessionStatus>),
}

/// Opens what is asked over HTTP. What cannot be served is reported and keeps nothing from working.
async fn serve_questions(
    context: &Arc<TaskContext>,
    endpoint: Endpoint,
    session: watch::Receiver<SessionStatus>,
    self_test: SelfTest,
) -> SelfTest {
    let unserved = [
        endpoint.start().await,
        endpoint.start_introspection().await,
        serve::start(context.clone(), session).await,
    ];
    self_test.with(unserved.into_iter().flatten())
}

/// Takes `Recovered`: there is no session before the surviving shims are adopted.
fn spawn(
    context: Arc<TaskContext>,
    recovered: Recovered,
    inputs: mpsc::Receiver<CoreInput>,
    listener: UnixListener,
    rest: Rest,
) -> AgentHandle {
    let leaving = context.leaving.clone();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let offered = offered(cores, &meminfo, &context.config);
    let ledger = Ledger::new(offered.clone());
    let Recovered { book, definitions, tasks } = recovered;
    let mut reconciler = Reconciler::new(context.clone(), book, definitions, ledger);
    tasks.into_iter().for_each(|task| reconciler.take_up(task));
    let self_test = watch::channel(rest.self_test);
    let (notices, notices_asked) = (watch::channel(Vec::new()), CancellationToken::new());
    let session = Session {
        endpoint: rest.endpoint.clone(),
        node: rest.node,
        reconciler: context.reconciler.clone(),
        context: context.clone(),
        status: rest.status.0,
        notices: notices.1.clone(),
        notices_asked: notices_asked.clone(),
        leaving: leaving.clone(),
    };
    let api = LocalApi {
        context: context.clone(),
        container_instance_id: rest.container_instance_id,
        cluster: rest.cluster,
        control_endpoint: rest.endpoint.uri,
        offered,
        self_test: self_test.1,
        session: rest.status.1,
        notices: notices.1,
    };
    let dirs = log_retention::Dirs {
        logs: context.config.log_dir(),
        events: context.telemetry.events_dir().to_owned(),
    };
    let keep = context.config.logs.clone();
    // Ends by itself after a second at most; nobody waits for it.
    tokio::spawn(SelfTest::go_on(context.facilities.clone(), self_test.0));
    let mut parts = JoinSet::new();
    if let Some(credentials) = rest.credentials {
        let (endpoint, path) = (session.endpoint.clone(), context.config.credentials());
        parts.spawn(Renewal { endpoint, path, credentials, leaving: leaving.clone() }.run());
    }
    parts.spawn(rest.delivery);
    parts.spawn(reconciler.run(inputs));
    parts.spawn(session.run());
    parts.spawn(local_api::serve(api, listener));
    parts.spawn(log_retention::run(dirs, keep, context.reconciler.clone(), leaving.clone()));
    let sources = notice::sources(&context.config.notices, &context.config.run_dir);
    let config = context.config.notices.clone();
    parts.spawn(notice::run(sources, config, notices.0, notices_asked, leaving.clone()));
    parts.spawn(image_cleanup::run(context.clone()));
    AgentHandle { leaving, parts, logs: context.logs.clone() }
}

impl AgentHandle {
    /// The agent leaves: it stops accepting and ends; what counts is in the store already. Tasks go on.
    pub fn shutdown(&self) {
        self.leaving.cancel();
    }

    /// Does what `shutdown` does, also while somebody waits in `join`.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static {
        let leaving = self.leaving.clone();
        move || leaving.cancel()
    }

    /// What log drivers have done since the agent started, a row for each driver.
    pub fn log_driver_totals(&self) -> Vec<LogDriverTotals> {
        self.logs.totals()
    }

    /// Waits until the agent has ended: after `shutdown`, or because a part of it ended by itself,
    /// which is a fault.
    pub async fn join(mut self) -> Result<(), StartError> {
        let first = self.parts.join_next().await;
        let fault = !self.leaving.is_cancelled() || matches!(first, Some(Err(_)));
        self.leaving.cancel();
        while self.parts.join_next().await.is_some() {}
        if fault { Err(StartError::Ended) } else { Ok(()) }
    }
}

/// Log drivers go on where an earlier agent's were; tasks that are not known to run have ended.
fn log_delivery(
    config: &AgentConfig,
    parts: &Parts,
    leaving: &CancellationToken,
) -> Result<(LogDelivery, impl Future<Output = ()> + Send + use<>), StartError> {
    let live = parts.loaded.tasks.iter().filter(|record| record.step < Step::TearingDown);
    let delivery = LogDelivery::new(DeliveryParts {
        store: parts.store.clone(),
        log_dir: config.log_dir(),
        names: NodeNames { cluster: parts.cluster.clone(), host: parts.node.name.clone() },
        records: parts.loaded.log_deliveries.clone(),
        live: live.map(|record| record.task.clone()).collect(),
        leaving: leaving.clone(),
    });
    delivery.map_err(|source| StartError::Facility { what: "inotify, for logs,", source: source.into() })
}

type WhoAndWhere = (Identity, ControlEndpoint, Option<watch::Sender<Credentials>>);

fn who_and_where(config: &AgentConfig) -> Result<WhoAndWhere, StartError> {
    let path = Identity::path(&config.data_dir);
    let identity = Identity::load(&config.data_dir)
        .map_err(|source| StartError::Credentials { path, source })?
        .ok_or(StartError::NotJoined)?;
    let uri = if config.control_endpoint.is_empty() {
        &identity.control_endpoint
    } else {
        &config.control_endpoint
    };
    crate::config::check_endpoints(uri).map_err(StartError::Config)?;
    let path = config.credentials();
    let credentials = match each(uri).any(|uri| uri.starts_with("https://")) {
        true => Some(Credentials::load(&path).map_err(|source| StartError::Credentials { path, source })?),
        false => None,
    };
    let credentials = credentials.map(|credentials| watch::channel(credentials).0);
    let known = credentials.as_ref().map(watch::Sender::subscribe);
    let endpoint = ControlEndpoint::new(uri, known);
    Ok((identity, endpoint, credentials))
}

fn tracer(config: &AgentConfig, id: &str, leaving: &CancellationToken) -> Result<Tracer, StartError> {
    if config.otlp_endpoint.is_empty() {
        return Ok(Tracer::off());
    }
    let started = Tracer::start(&config.otlp_endpoint, "lighter-agent", id, leaving.clone());
    started.map_err(|source| StartError::Otlp { text: config.otlp_endpoint.clone(), source: source.into() })
}

async fn facts(config: &AgentConfig) -> NodeFacts {
    let name = if config.name.is_empty() { identity::host_name() } else { config.name.clone() };
    // Two agents of one identity at a time are told apart by it; the clock would nearly do.
    let run_id: [u8; 16] = crate::random::bytes().unwrap_or_default();
    let machine = attributes::Machine::default();
    let instance = attributes::of_instance(&config.instance_metadata, &machine).await;
    let attributes = attributes::reported(config, &machine, instance);
    NodeFacts {
        name,
        boot_id: time::boot_id(),
        run_id: run_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        attributes: attributes.into_iter().collect(),
    }
}

pub(crate) fn subnet(config: &AgentConfig) -> Result<Subnet, StartError> {
    if config.bridge_subnet.is_empty() {
        return Ok(Subnet::DEFAULT);
    }
    let parsed = config.bridge_subnet.parse::<Subnet>();
    parsed.map_err(|source| StartError::Subnet { text: config.bridge_subnet.clone(), source: source.into() })
}

fn ports(config: &AgentConfig) -> PortAllocator {
    let range = PortAllocator::from_kernel().range();
    PortAllocator::new(range, config.reserved_ports.iter().chain(&config.reserved_ports_udp).copied())
}

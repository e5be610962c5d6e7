//! Puts the control plane together and takes it apart.
//! In: a configuration. Out: a running server behind a handle. Owns: the order of start and stop.
//! Never: serves before the store is loaded or another is known to lead, or ends before what was acknowledged is durable.

use crate::api::{Context, DEFAULT_CLUSTER, join};
use crate::config::{ConfigError, ControlConfig, PlaintextListen, StoreKind};
use crate::core::Settings;
use crate::core::audit::{Asker, AuditAbandoned};
use crate::core::cluster::EnsureClusters;
use crate::core::mutation::key;
use crate::core::record::{MetaRecord, decode};
use crate::core::recovery::{AwaitNodes, PinCa};
use crate::environment::Environment;
use crate::error::ApiError;
use crate::file_limit;
use crate::format::{Formats, Upgrade};
use crate::grpc::{LighterService, NodeService};
use crate::identity::ca::{Ca, CaError};
use crate::identity::caller::ADMINISTRATOR;
use crate::identity::files::make_private_dir;
use crate::identity::layer::AccessLayer;
use crate::listen::{Acceptors, Connection, Limits, ListenError, tls_config};
use crate::metrics::{self, Starting};
use crate::rate_limit::Limiter;
use crate::session::{
    logs::LogStreams, monitor, questions::Questions, queue, registry::Sessions, replace, streams::Streams,
    tend,
};
use crate::snapshot::{Owned, schedule};
use crate::store::etcd::EtcdStore;
use crate::store::redb::RedbStore;
use crate::store::{Loaded, Store, StoreError};
use crate::view::View;
use crate::waiting::{Patience, first_answer};
use crate::writer::{self, LoadError};
use lighter_proto::v1::lighter_server::LighterServer;
use lighter_proto::v1::node_server::NodeServer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// How long open calls may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// A connection that does not answer a ping for so long is closed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration cannot be used")]
    Config {
        #[source]
        source: ConfigError,
    },
    #[error("the data directory {path:?} cannot be made")]
    DataDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the certificate authority cannot be used")]
    Ca {
        #[source]
        source: CaError,
    },
    #[error("the store cannot be opened")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("the state cannot be loaded")]
    Load {
        #[source]
        source: LoadError,
    },
    #[error(
        "the store is of control planes with another certificate authority than {dir:?}: its nodes trust only that one; copy ca.pem and ca-key.pem of a control plane of this store to here"
    )]
    OtherCa { dir: PathBuf },
    #[error("asked to end before the store answered")]
    GivenUp,
    #[error("cannot listen")]
    Listen {
        #[source]
        source: ListenError,
    },
    #[error("the clusters cannot be made")]
    Clusters {
        #[source]
        source: ApiError,
    },
    #[error("gRPC reflection cannot be set up")]
    Reflection {
        #[source]
        source: tonic_reflection::server::Error,
    },
}

/// The control plane.
#[derive(Debug, Clone, Copy)]
pub struct Control;

/// A running control plane. Dropping it does not stop it.
pub struct ControlHandle {
    addresses: Vec<SocketAddr>,
    plaintext_addresses: Vec<SocketAddr>,
    unix_sockets: Vec<PathBuf>,
    admin_key_path: PathBuf,
    context: Context,
    running: JoinHandle<()>,
    taking_snapshots: JoinHandle<()>,
}

/// Where the control plane is reached.
#[derive(Default)]
struct Bound {
    tls: Vec<SocketAddr>,
    loopback: Vec<SocketAddr>,
    unix: Vec<PathBuf>,
}

impl Control {
    /// Starts with the system's clock and the store of the data directory.
    pub async fn start(config: ControlConfig) -> Result<ControlHandle, StartError> {
        Self::start_in(config, Environment::default()).await
    }

    /// Starts with another clock.
    pub async fn start_in(
        config: ControlConfig,
        environment: Environment,
    ) -> Result<ControlHandle, StartError> {
        Self::start_patiently(config, environment, Patience::default()).await
    }

    /// Starts, and behaves as is said while an etcd does not answer yet.
    pub async fn start_patiently(
        config: ControlConfig,
        environment: Environment,
        patience: Patience,
    ) -> Result<ControlHandle, StartError> {
        check(&config)?;
        let store = open_store(&config, &environment).map_err(|source| StartError::Store { source })?;
        Self::start_over(config, environment, store, patience).await
    }

    /// Starts on another store, for tests.
    pub async fn start_with(
        config: ControlConfig,
        environment: Environment,
        store: Box<dyn Store>,
    ) -> Result<ControlHandle, StartError> {
        Self::start_over(config, environment, store, Patience::default()).await
    }

    async fn start_over(
        config: ControlConfig,
        environment: Environment,
        store: Box<dyn Store>,
        patience: Patience,
    ) -> Result<ControlHandle, StartError> {
        check(&config)?;
        let dir = &config.data_dir;
        let now = environment.wall_unix_ms();
        let ca = open_ca(&config, now)?;
        let stop = CancellationToken::new();
        // On a failure what listens already ends with the guard.
        let guard = stop.clone().drop_guard();
        let starting = Arc::new(Starting::default());
        serve_metrics(&starting, &config, &stop).await;
        let (loaded, mut store) = first_answer(store, &starting.reason, &patience).await?;
        check_ca(&loaded, &ca, dir)?;
        let admin_key_path = ca.ensure_admin_key(dir, now).map_err(|source| StartError::Ca { source })?;
        let (acceptors, connections) = Acceptors::new(stop.clone(), limits(&config));
        let bound = listen(&ca, now, &config, &acceptors).await?;
        let reader = Owned::new(store.reader().map_err(|source| StartError::Store { source })?);
        store.advertise(&advertised(&config, &bound));
        let view = Arc::new(View::default());
        let snapshots = config.snapshots.directory.clone().unwrap_or_else(|| dir.join("snapshots"));
        let upgrade = upgrade(&snapshots, &environment);
        let writing =
            writer::start(store, settings(&config), environment.clone(), view.clone(), Some(upgrade));
        let (writer, writing) = writing.await.map_err(|source| StartError::Load { source })?;
        let context = Context {
            view,
            writer,
            ca,
            environment,
            sessions: Arc::new(Sessions::new(config.heartbeat_interval())),
            logs: Arc::new(LogStreams::default()),
            streams: Streams::default(),
            questions: Questions::default(),
            snapshots: reader.source(),
            heartbeat_interval: config.heartbeat_interval(),
            settings: settings(&config),
            quotas: config.quotas,
            stop,
        };
        let leads = context.writer.leadership().changes();
        if context.writer.leadership().check().is_ok() {
            make_clusters(&context, &config).await?;
        }
        let limiter = Arc::new(Limiter::new(config.rate_limits));
        let stranger = Duration::from_millis(u64::from(config.handshake_timeout_ms));
        let running = serve(&context, limiter, stranger, connections, writing)?;
        guard.disarm();
        let schedule = config.snapshots.clone();
        let taking = schedule::run(context.clone(), schedule, snapshots, reader);
        // Ends with the token, and the reader with it; `join` waits for it so that the store is closed.
        let taking = tokio::spawn(taking);
        tokio::spawn(greet_each_term(context.clone(), config.clone(), leads));
        starting.done(&context);
        announce(&bound, &admin_key_path);
        Ok(ControlHandle {
            addresses: bound.tls,
            plaintext_addresses: bound.loopback,
            unix_sockets: bound.unix,
            admin_key_path,
            context,
            running,
            taking_snapshots: taking,
        })
    }
}

/// The configuration can be used, and its data directory is there.
fn check(config: &ControlConfig) -> Result<(), StartError> {
    config.check().map_err(|source| StartError::Config { source })?;
    let dir = &config.data_dir;
    make_private_dir(dir).map_err(|source| StartError::DataDir { path: dir.clone(), source })
}

fn upgrade(snapshots: &Path, environment: &Environment) -> Upgrade {
    let (directory, environment) = (snapshots.to_path_buf(), environment.clone());
    Upgrade { formats: Formats::THIS_PROGRAM, directory, environment }
}

fn open_ca(config: &ControlConfig, now_unix_ms: u64) -> Result<Arc<Ca>, StartError> {
    let ca = Ca::open(&config.data_dir, now_unix_ms).map_err(|source| StartError::Ca { source })?;
    Ok(Arc::new(ca.with_node_life(config.node_certificate_life())))
}

/// Leader or standby: whose nodes would trust a certificate of another authority?
fn check_ca(loaded: &Loaded, ca: &Ca, dir: &Path) -> Result<(), StartError> {
    let meta = loaded.records.iter().find(|(key, _)| key == key::META);
    // A record that cannot be read is told of where all are.
    let meta: Option<MetaRecord> = meta.and_then(|(key, value)| decode(key, value).ok());
    match meta {
        Some(meta) if meta.ca != 0 && meta.ca != ca.mark() => {
            Err(StartError::OtherCa { dir: dir.join("ca") })
        }
        _ => Ok(()),
    }
}

/// Numbers that cannot be served are told of, and keep nothing from working.
async fn serve_metrics(starting: &Arc<Starting>, config: &ControlConfig, stop: &CancellationToken) {
    let Some(address) = config.metrics_address else { return };
    match metrics::start(starting.clone(), address, stop.clone()).await {
        Ok(address) => tracing::info!(%address, "the numbers for Prometheus are served at /metrics"),
        Err(error) => tracing::warn!(%address, cause = %error, "the numbers for Prometheus are not served"),
    }
}

fn announce(bound: &Bound, admin_key_path: &Path) {
    tracing::info!(
        tls = ?bound.tls, loopback = ?bound.loopback, unix = ?bound.unix,
        admin_key = %admin_key_path.display(), "the control plane serves"
    );
}

/// What the listeners allow; words when the kernel allows fewer nodes than the quota.
fn limits(config: &ControlConfig) -> Limits {
    let soft_limit = file_limit::soft_limit();
    file_limit::warn_if_low(soft_limit, config.quotas.container_instances_per_cluster);
    let anonymous = config.anonymous_connections_max as usize;
    let (connections, anonymous) = match config.connections_max {
        Some(limit) => (limit as usize, anonymous),
        // With few places strangers do not get all of them.
        None => {
            let connections = file_limit::connections(soft_limit);
            (connections, anonymous.min(connections / 2))
        }
    };
    Limits {
        connections,
        anonymous,
        handshake: Duration::from_millis(u64::from(config.handshake_timeout_ms)),
    }
}

fn settings(config: &ControlConfig) -> Settings {
    Settings {
        reserve_cpu_units: config.placement_reserve_cpu_units,
        reserve_memory_mib: config.placement_reserve_memory_mib,
        events_kept: config.events_kept,
        stopped_tasks_kept_ms: config.stopped_tasks_kept_seconds * 1_000,
        stopped_tasks_per_cluster: config.stopped_tasks_per_cluster,
        audit_kept: config.audit_kept,
        heartbeat_ms: u64::from(config.heartbeat_interval_ms),
        quotas: config.quotas,
        store: 0,
    }
}

async fn make_clusters(context: &Context, config: &ControlConfig) -> Result<(), StartError> {
    let failed = |source| StartError::Clusters { source };
    let mut clusters = vec![crate::api::cluster_name(DEFAULT_CLUSTER).map_err(failed)?];
    clusters.extend(config.clusters.iter().cloned());
    let incarnation = context.view.read(|shown| shown.incarnation.clone());
    let await_nodes = AwaitNodes { incarnation };
    while context.writer.submit(await_nodes.clone()).await.map_err(failed)? {}
    context.writer.submit(PinCa { ca: context.ca.mark() }).await.map_err(failed)?;
    context.writer.submit(EnsureClusters { clusters }).await.map_err(failed)?;
    context.writer.submit(AuditAbandoned).await.map_err(failed)
}

/// What every term begins with, until the control plane stops.
async fn greet_each_term(context: Context, config: ControlConfig, mut leads: watch::Receiver<bool>) {
    loop {
        let changed = tokio::select! {
            () = context.stop.cancelled() => return,
            changed = leads.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        if *leads.borrow_and_update()
            && let Err(error) = make_clusters(&context, &config).await
        {
            tracing::error!(cause = %writer::Chain(&error), "a new term could not begin as it should");
        }
    }
}

/// The store that the configuration names; nothing is asked of etcd yet.
pub(crate) fn open_store(
    config: &ControlConfig,
    environment: &Environment,
) -> Result<Box<dyn Store>, StoreError> {
    let (incarnation, me) = (environment.random_hex(), environment.random_hex());
    Ok(match config.store.kind {
        StoreKind::Redb => {
            let path = config.data_dir.join("control.redb");
            Box::new(RedbStore::open_with(&path, &incarnation, config.store.redb())?)
        }
        StoreKind::Etcd => Box::new(EtcdStore::new(config.store.etcd(), &incarnation, &me)?),
    })
}

/// Where others are sent while this control plane leads; empty when it has no address.
fn advertised(config: &ControlConfig, bound: &Bound) -> String {
    let Some(address) = bound.tls.first() else { return config.advertise.clone() };
    match (config.advertise.is_empty(), config.server_names.first()) {
        (false, _) => config.advertise.clone(),
        (true, Some(name)) if address.ip().is_unspecified() => format!("https://{name}:{}", address.port()),
        (true, _) => format!("https://{address}"),
    }
}

async fn listen(
    ca: &Ca,
    now_unix_ms: u64,
    config: &ControlConfig,
    acceptors: &Acceptors,
) -> Result<Bound, StartError> {
    let failed = |source| StartError::Listen { source };
    let mut bound = Bound::default();
    let identity = ca.server_identity(&config.server_names, now_unix_ms);
    let identity = identity.map_err(|source| StartError::Ca { source })?;
    let tls = tls_config(identity, ca.der()).map_err(failed)?;
    for address in &config.listen {
        bound.tls.push(acceptors.tls(*address, tls.clone()).await.map_err(failed)?);
    }
    for plaintext in &config.listen_plaintext {
        match plaintext {
            PlaintextListen::Loopback(address) => {
                bound.loopback.push(acceptors.loopback(*address).await.map_err(failed)?);
            }
            PlaintextListen::Unix(path) => {
                let own_uid = own_uid();
                acceptors.unix(path, own_uid).await.map_err(failed)?;
                bound.unix.push(path.clone());
            }
        }
    }
    Ok(bound)
}

/// The user this process runs as: the owner of what it just made in /proc.
fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    // Without /proc only root is an administrator on the socket.
    std::fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid())
}

/// Serves until the token is cancelled, then lets the writer end.
fn serve(
    context: &Context,
    limiter: Arc<Limiter>,
    stranger: Duration,
    connections: mpsc::Receiver<std::io::Result<Connection>>,
    writing: JoinHandle<()>,
) -> Result<JoinHandle<()>, StartError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(lighter_proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|source| StartError::Reflection { source })?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let stop = context.stop.clone();
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .layer(AccessLayer { leadership: context.writer.leadership().clone(), limiter, stranger })
        .add_service(health_service)
        .add_service(reflection)
        .add_service(LighterServer::new(LighterService(context.clone())))
        .add_service(NodeServer::new(NodeService(context.clone())))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.clone().cancelled_owned());
    let heartbeats = tokio::spawn(monitor::watch_heartbeats(context.clone()));
    let sweeping = tokio::spawn(monitor::sweep(context.clone()));
    let draining = tokio::spawn(monitor::drain(context.clone()));
    let replacing = tokio::spawn(replace::replace_lost(context.clone()));
    let tending = tokio::spawn(tend::tend_services(context.clone()));
    let queueing = tokio::spawn(queue::tend_queues(context.clone()));
    let writer = context.writer.clone();
    Ok(tokio::spawn(async move {
        health.set_serving::<LighterServer<LighterService>>().await;
        health.set_serving::<NodeServer<NodeService>>().await;
        let mut server = tokio::spawn(server);
        tokio::select! {
            () = stop.cancelled() => {
                // First, so that another need not wait for the lead.
                writer.retire();
                if tokio::time::timeout(GRACE, &mut server).await.is_err() {
                    server.abort();
                }
            }
            ended = &mut server => tracing::error!(?ended, "the server ended by itself"),
        }
        stop.cancel();
        writer.retire();
        drop(writer);
        let _ = tokio::join!(heartbeats, sweeping, draining, replacing, tending, queueing);
        // The writer answers what it has taken.
        let _ = tokio::time::timeout(GRACE, writing).await;
    }))
}

impl ControlHandle {
    /// Addresses served with TLS, as bound.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
    /// Loopback addresses served without TLS, as bound.
    pub fn plaintext_addresses(&self) -> &[SocketAddr] {
        &self.plaintext_addresses
    }
    /// The first Unix socket, where local root is the administrator.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.unix_sockets.first().map(PathBuf::as_path)
    }
    /// The administrator's certificate, private key and CA, one PEM file of mode 0600.
    pub fn admin_key_path(&self) -> &Path {
        &self.admin_key_path
    }

    /// Makes a token for one node of the default cluster, good for an hour.
    pub async fn create_join_token(&self) -> Result<String, ApiError> {
        let request = join::TokenRequest {
            cluster: crate::api::cluster_name(DEFAULT_CLUSTER)?,
            time_to_live_s: 0,
            attributes: BTreeMap::new(),
        };
        let asker = Asker { user: ADMINISTRATOR.to_owned(), address: "this program".to_owned() };
        Ok(join::create_token(&self.context, asker, request).await?.text)
    }

    /// Ends sessions and watchers, lets open calls finish, closes the sockets. Returns at once.
    pub fn shutdown(&self) {
        self.context.stop.cancel();
    }

    /// Does what `shutdown` does, also while somebody waits in `join`.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static {
        let stop = self.context.stop.clone();
        move || stop.cancel()
    }

    /// Waits until everything has ended after `shutdown`.
    pub async fn join(self) {
        let Self { running, context, taking_snapshots, .. } = self;
        // The writer ends with its last handle.
        drop(context);
        if let Err(error) = running.await {
            tracing::error!(%error, "the control plane ended badly");
        }
        if let Err(error) = taking_snapshots.await {
            tracing::error!(%error, "taking snapshots ended badly");
        }
    }
}

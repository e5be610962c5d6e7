//! A control plane of a test's own, and the ways to reach it.

use lighter_control::environment::Environment;
use lighter_control::{Control, ControlConfig, ControlHandle};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_client::NodeClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_types::StatusExt;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running control plane with its directory.
pub(crate) struct Running {
    pub(crate) handle: ControlHandle,
    pub(crate) dir: Arc<TempDir>,
    pub(crate) clock_ahead_ms: Arc<AtomicU64>,
}

/// Settings for a test: free ports on loopback, a socket in the directory, quick heartbeats.
pub(crate) fn config(dir: &TempDir) -> ControlConfig {
    ControlConfig {
        data_dir: dir.path().join("data"),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        listen_plaintext: vec![
            dir.path().join("control.sock").to_str().unwrap().parse().unwrap(),
            "127.0.0.1:0".parse().unwrap(),
        ],
        heartbeat_interval_ms: 60_000,
        ..ControlConfig::default()
    }
}

pub(crate) async fn start() -> Running {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut ControlConfig)) -> Running {
    let dir = Arc::new(TempDir::new().unwrap());
    let mut config = config(&dir);
    change(&mut config);
    let clock_ahead_ms = Arc::new(AtomicU64::new(0));
    let environment = clock(clock_ahead_ms.clone());
    let handle = Control::start_in(config, environment).await.unwrap();
    Running { handle, dir, clock_ahead_ms }
}

/// Starts on a directory that was used before.
pub(crate) async fn start_at(dir: Arc<TempDir>, clock_ahead_ms: Arc<AtomicU64>) -> Running {
    let handle = Control::start_in(config(&dir), clock(clock_ahead_ms.clone())).await.unwrap();
    Running { handle, dir, clock_ahead_ms }
}

/// Starts on another store.
pub(crate) async fn start_on(store: Box<dyn lighter_control::store::Store>) -> Running {
    let (dir, clock_ahead_ms) = (Arc::new(TempDir::new().unwrap()), Arc::default());
    let environment = clock(Arc::clone(&clock_ahead_ms));
    let handle = Control::start_with(config(&dir), environment, store).await.unwrap();
    Running { handle, dir, clock_ahead_ms }
}

/// The system's clock, moved ahead as the test wants.
pub(crate) fn clock(ahead_ms: Arc<AtomicU64>) -> Environment {
    Environment::with_clock(move || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_millis() as u64 + ahead_ms.load(Ordering::Relaxed)
    })
}

impl Running {
    /// Stops, and starts again on the same directory.
    pub(crate) async fn restart(self) -> Running {
        self.handle.shutdown();
        self.handle.join().await;
        start_at(self.dir, self.clock_ahead_ms).await
    }

    /// The certificate of the CA as PEM, from the administrator's file.
    pub(crate) fn ca_pem(&self) -> String {
        let (_, _, ca) = split_admin(&std::fs::read_to_string(self.handle.admin_key_path()).unwrap());
        ca
    }

    /// Over TLS, with a client certificate or without.
    pub(crate) async fn tls(&self, identity: Option<(&str, &str)>) -> Channel {
        self.tls_endpoint(identity).connect().await.unwrap()
    }

    pub(crate) fn tls_endpoint(&self, identity: Option<(&str, &str)>) -> Endpoint {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.ca_pem()))
            .domain_name("control.lighter.internal");
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let url = format!("https://{}", self.handle.addresses()[0]);
        Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap()
    }

    /// Over TLS with the administrator's key.
    pub(crate) async fn admin_tls(&self) -> Channel {
        let pem = std::fs::read_to_string(self.handle.admin_key_path()).unwrap();
        let (certificate, key, _) = split_admin(&pem);
        self.tls(Some((&certificate, &key))).await
    }

    /// Over the Unix socket, where this process is the administrator.
    pub(crate) async fn unix(&self) -> Channel {
        let url = format!("unix:{}", self.handle.unix_socket().unwrap().display());
        Endpoint::from_shared(url).unwrap().connect().await.unwrap()
    }

    /// Over loopback without TLS, anonymous.
    pub(crate) async fn plaintext(&self) -> Channel {
        let url = format!("http://{}", self.handle.plaintext_addresses()[0]);
        Endpoint::from_shared(url).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn admin(&self) -> LighterClient<Channel> {
        LighterClient::new(self.unix().await)
    }

    /// A client of the node service without an identity, over TLS.
    pub(crate) async fn anonymous_node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.tls(None).await)
    }
}

/// Certificate, key and CA of an admin.pem.
pub(crate) fn split_admin(pem: &str) -> (String, String, String) {
    let ends: Vec<usize> = pem.match_indices("-----BEGIN").map(|(at, _)| at).collect();
    assert_eq!(ends.len(), 3, "admin.pem holds a certificate, a key and the CA");
    (pem[..ends[1]].to_owned(), pem[ends[1]..ends[2]].to_owned(), pem[ends[2]..].to_owned())
}

/// The machine-readable reason of a refusal.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// A definition with one container.
pub(crate) fn definition_json(family: &str, cpu: u32, memory: u64, host_port: Option<u16>) -> String {
    let ports = host_port.map_or(String::new(), |port| {
        format!(r#","portMappings":[{{"containerPort":80,"hostPort":{port}}}]"#)
    });
    format!(
        r#"{{"family":"{family}","containerDefinitions":[{{"name":"web","image":"registry.test/web:1",
            "cpu":{cpu},"memory":{memory},"essential":true{ports}}}]}}"#
    )
}

pub(crate) async fn register(client: &mut LighterClient<Channel>, json: &str) -> v1::TaskDefinition {
    let request = v1::RegisterTaskDefinitionRequest { json: json.to_owned() };
    client.register_task_definition(request).await.unwrap().into_inner().task_definition.unwrap()
}

pub(crate) fn run_request(task_definition: &str, count: u32) -> v1::RunTaskRequest {
    v1::RunTaskRequest { task_definition: task_definition.to_owned(), count, ..Default::default() }
}

pub(crate) async fn describe_task(client: &mut LighterClient<Channel>, id: &str) -> v1::Task {
    let request = v1::DescribeTasksRequest { tasks: vec![id.to_owned()], ..Default::default() };
    let mut response = client.describe_tasks(request).await.unwrap().into_inner();
    assert!(response.failures.is_empty(), "{:?}", response.failures);
    response.tasks.remove(0)
}

pub(crate) async fn describe_instance(
    client: &mut LighterClient<Channel>,
    name: &str,
) -> v1::ContainerInstance {
    let container_instances = vec![name.to_owned()];
    let request = v1::DescribeContainerInstancesRequest { container_instances, ..Default::default() };
    let mut response = client.describe_container_instances(request).await.unwrap().into_inner();
    assert!(response.failures.is_empty(), "{:?}", response.failures);
    response.container_instances.remove(0)
}

/// Polls until the condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

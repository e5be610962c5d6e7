//! An etcd of a test's own, on free ports of loopback: Debian's `etcd-server`, one member that this
//! process starts, or what `packaging/etcd.sh` starts for people.

use lighter_control::store::etcd::{EtcdSettings, EtcdStore};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// A member with its directory; it ends with the value.
pub(crate) struct Etcd {
    dir: TempDir,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
    /// `--quota-backend-bytes`; 0: etcd's own.
    quota_bytes: u64,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    pub(crate) fn start() -> Self {
        Self::start_with_quota(0)
    }

    pub(crate) fn start_with_quota(quota_bytes: u64) -> Self {
        let mut etcd = Self::stopped();
        etcd.quota_bytes = quota_bytes;
        etcd.run();
        etcd
    }

    /// Has its address and does not run yet.
    pub(crate) fn stopped() -> Self {
        let (client_port, peer_port) = (free_port(), free_port());
        Self { dir: TempDir::new().unwrap(), client_port, peer_port, child: None, quota_bytes: 0 }
    }

    /// Starts the member on what it left.
    pub(crate) fn run(&mut self) {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--quota-backend-bytes", &self.quota_bytes.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd of the Debian package etcd-server");
        self.child = Some(child);
        let deadline = Instant::now() + crate::support::PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.client_port)).is_err() {
            assert!(Instant::now() < deadline, "etcd does not listen");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Kills the member as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already dead is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub(crate) fn settings(&self, prefix: &str) -> EtcdSettings {
        EtcdSettings {
            endpoints: vec![self.endpoint()],
            prefix: prefix.to_owned(),
            ca: None,
            certificate: None,
            key: None,
            lease_seconds: 2,
            limit_bytes: 0,
        }
    }

    /// A handle of its own, as another process would have.
    pub(crate) fn open(&self, prefix: &str) -> EtcdStore {
        let random = lighter_control::environment::Environment::default().random_hex();
        EtcdStore::new(self.settings(prefix), "one", &random).unwrap()
    }

    /// Removes a key, as the end of the lease would.
    pub(crate) fn delete(&self, key: &str) {
        let client = etcd_client::Client::connect([self.endpoint()], None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { client.await.unwrap().delete(key, None).await.unwrap() });
    }
}

/// Members of the script, with TLS or without; they end with the value.
pub(crate) struct EtcdScript {
    dir: TempDir,
    ports: Vec<String>,
    tls: bool,
    endpoints: String,
}

impl EtcdScript {
    pub(crate) fn start(members: usize, tls: bool) -> Self {
        let ports = (0..members).map(|_| format!("{}:{}", free_port(), free_port())).collect();
        let mut etcd = Self { dir: TempDir::new().unwrap(), ports, tls, endpoints: String::new() };
        etcd.run();
        etcd
    }

    fn script(&self, words: &[&str]) -> std::process::Output {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/etcd.sh");
        Command::new(script).args(words).args(&self.ports).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts the members that do not run.
    pub(crate) fn run(&mut self) {
        let dir = self.dir.path().to_str().unwrap();
        let words: &[&str] = if self.tls { &["start", "--tls", dir] } else { &["start", dir] };
        let done = self.script(words);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.endpoints = String::from_utf8(done.stdout).unwrap().trim().to_owned();
    }

    /// Kills a member, from 1 on, as a power cut would.
    pub(crate) fn kill(&mut self, member: usize) {
        let pid = std::fs::read_to_string(self.dir.path().join(member.to_string()).join("pid")).unwrap();
        assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
    }

    /// With commas.
    pub(crate) fn endpoints(&self) -> &str {
        &self.endpoints
    }

    pub(crate) fn tls_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("tls")
    }
}

impl Drop for EtcdScript {
    fn drop(&mut self) {
        let dir = self.dir.path().to_str().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/etcd.sh");
        // What does not end is told by the script.
        let _ = Command::new(script).args(["stop", dir]).status();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

//! A control plane that starts before its etcd, or while that has no leader, waits; it refuses at once
//! what no wait mends.

use crate::etcd::{Etcd, EtcdScript};
use crate::leader::store_config;
use crate::metrics::get;
use crate::support::{PATIENCE, config, definition_json, register, start_on, until};
use lighter_control::config::StoreConfig;
use lighter_control::environment::Environment;
use lighter_control::store::faulty::Faulty;
use lighter_control::store::memory::MemoryStore;
use lighter_control::{Control, ControlConfig, ControlHandle, Patience, StartError};
use lighter_proto::v1;
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::task::JoinHandle;

type Starting = JoinHandle<Result<ControlHandle, StartError>>;

fn with_store(dir: &TempDir, store: StoreConfig) -> (ControlConfig, SocketAddr) {
    // A port nobody has; it is bound again at once.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (ControlConfig { store, metrics_address: Some(free), ..config(dir) }, free)
}

fn start(config: ControlConfig, patience: Patience) -> Starting {
    tokio::spawn(Control::start_patiently(config, Environment::default(), patience))
}

/// Alive, not ready, and says why.
async fn waits(address: SocketAddr, starting: &Starting) {
    until("it says what it waits for", async || {
        assert!(!starting.is_finished(), "it does not wait");
        // Before it listens nobody answers.
        if tokio::net::TcpStream::connect(address).await.is_err() {
            return false;
        }
        let (head, body) = get(address, "/readyz").await;
        head.starts_with("HTTP/1.1 503 ") && body.starts_with("the store does not answer: ")
    })
    .await;
    assert!(get(address, "/livez").await.0.starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/metrics").await.0.starts_with("HTTP/1.1 503 "));
}

async fn serves_and_ends(address: SocketAddr, starting: Starting) {
    let handle = tokio::time::timeout(PATIENCE, starting).await.unwrap().unwrap().unwrap();
    until("it is ready", async || get(address, "/readyz").await.0.starts_with("HTTP/1.1 200 ")).await;
    handle.shutdown();
    handle.join().await;
}

#[tokio::test]
async fn a_control_plane_waits_for_an_etcd_that_starts_later() {
    let (mut etcd, dir) = (Etcd::stopped(), TempDir::new().unwrap());
    let (config, address) = with_store(&dir, store_config(&etcd.endpoint()));
    let starting = start(config, Patience::default());
    waits(address, &starting).await;
    etcd.run();
    serves_and_ends(address, starting).await;
}

#[tokio::test]
async fn a_control_plane_waits_for_an_etcd_without_a_leader_until_it_is_asked_to_end() {
    let mut etcd = EtcdScript::start(3, true);
    let store = store_config(&format!("{}|{}", etcd.endpoints(), etcd.tls_dir().display()));
    let dir = TempDir::new().unwrap();
    let (config, address) = with_store(&dir, store);
    etcd.kill(1);
    etcd.kill(2);
    let patience = Patience::default();
    let give_up = patience.stopper();
    let starting = start(config.clone(), patience);
    waits(address, &starting).await;
    give_up();
    let given_up = tokio::time::timeout(PATIENCE, starting).await.unwrap().unwrap();
    assert!(matches!(given_up, Err(StartError::GivenUp)));

    let starting = start(config, Patience::default());
    waits(address, &starting).await;
    etcd.run();
    serves_and_ends(address, starting).await;
}

#[tokio::test]
async fn a_store_that_falls_silent_between_its_first_answer_and_the_campaign_is_asked_again() {
    let (store, faults) = Faulty::new(MemoryStore::new("one"));
    faults.leave_campaigns_unanswered(2);
    let running = start_on(Box::new(store)).await;
    let mut admin = running.admin().await;
    let request = v1::ListClustersRequest::default();
    until("it leads", async || admin.clone().list_clusters(request.clone()).await.is_ok()).await;
    assert_eq!(faults.unanswered_left(), 0);
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
}

#[tokio::test]
async fn what_no_wait_mends_is_refused_at_once() {
    let etcd = EtcdScript::start(1, true);
    let good = store_config(&format!("{}|{}", etcd.endpoints(), etcd.tls_dir().display()));
    let other = EtcdScript::start(1, true);
    let other_ca = Some(other.tls_dir().join("ca.pem"));
    let (other_certificate, other_key) =
        (Some(other.tls_dir().join("client.pem")), Some(other.tls_dir().join("client.key")));
    for (what, store) in [
        ("etcd's certificate is of another CA", StoreConfig { ca: other_ca, ..good.clone() }),
        (
            "ours is of another CA",
            StoreConfig { certificate: other_certificate, key: other_key, ..good.clone() },
        ),
        ("we show none", StoreConfig { certificate: None, key: None, ..good.clone() }),
        ("a file is missing", StoreConfig { ca: Some("/no/such/file".into()), ..good.clone() }),
    ] {
        let dir = TempDir::new().unwrap();
        let (config, _) = with_store(&dir, store);
        let refused = tokio::time::timeout(PATIENCE, start(config, Patience::default())).await;
        let refused = refused.unwrap_or_else(|_| panic!("it waits: {what}")).unwrap();
        assert!(matches!(refused, Err(StartError::Store { .. })), "{what}: {:?}", refused.err());
    }
}

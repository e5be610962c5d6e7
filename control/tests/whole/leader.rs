//! Three control planes as processes on one etcd: whoever leads is killed, stopped for twice its
//! lease and continued, or asked to end, under load. Clients see retries, never wrong answers.

use crate::etcd::{Etcd, EtcdScript};
use crate::support::{PATIENCE, definition_json, reason, until};
use lighter_control::config::{StoreConfig, StoreKind};
use lighter_control::identity::ca::Ca;
use lighter_control::{Control, ControlConfig};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

/// In the environment of a child: its directory, its number, and where etcd is.
const CHILD_DIR: &str = "LIGHTER_TEST_LEADER_DIR";
const CHILD_ETCD: &str = "LIGHTER_TEST_LEADER_ETCD";
const LEASE_SECONDS: u32 = 2;

fn name(number: usize) -> String {
    format!("https://control-{number}:7443")
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// `etcd`: endpoints with commas; a directory after a `|` has the certificates.
fn child_config(dir: &Path, etcd: &str) -> ControlConfig {
    let number = dir.file_name().unwrap().to_str().unwrap().parse().unwrap();
    ControlConfig {
        data_dir: dir.join("data"),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        listen_plaintext: vec![socket(dir).to_str().unwrap().parse().unwrap()],
        advertise: name(number),
        store: store_config(etcd),
        ..ControlConfig::default()
    }
}

pub(crate) fn store_config(etcd: &str) -> StoreConfig {
    let (endpoints, tls) = etcd.split_once('|').map_or((etcd, None), |(etcd, tls)| (etcd, Some(tls)));
    let file = |name: &str| tls.map(|tls| Path::new(tls).join(name));
    StoreConfig {
        kind: StoreKind::Etcd,
        endpoints: endpoints.split(',').map(str::to_owned).collect(),
        ca: file("ca.pem"),
        certificate: file("client.pem"),
        key: file("client.key"),
        lease_seconds: LEASE_SECONDS,
        ..StoreConfig::default()
    }
}

struct ControlProcess {
    child: Child,
    dir: PathBuf,
}

/// All control planes of a store have one certificate authority.
fn share_ca(dir: &Path) {
    let (shared, own) = (dir.parent().unwrap().join("shared"), dir.join("data/ca"));
    std::fs::create_dir_all(&shared).unwrap();
    Ca::open(&shared, std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64).unwrap();
    std::fs::create_dir_all(&own).unwrap();
    for name in ["ca.pem", "ca-key.pem"] {
        std::fs::copy(shared.join("ca").join(name), own.join(name)).unwrap();
    }
}

impl ControlProcess {
    fn start(dir: PathBuf, etcd: &str) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        share_ca(&dir);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "leader::a_leader_may_die_stop_and_leave_under_load", "--nocapture"])
            .env(CHILD_DIR, &dir)
            .env(CHILD_ETCD, etcd)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Whether each of its threads is stopped: they stop one after another once the signal is sent (signal(7)).
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().all(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:\tT"))
        })
    }

    async fn client(&self) -> Option<LighterClient<Channel>> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket(&self.dir).display())).unwrap();
        let endpoint = endpoint.timeout(Duration::from_secs(8));
        Some(LighterClient::new(endpoint.connect().await.ok()?))
    }
}

impl Drop for ControlProcess {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number in the leader's name that a refusal gives.
fn leader_of(status: &Status) -> Option<usize> {
    let details = status.get_error_details();
    let leader = details.error_info()?.metadata.get("leader")?.clone();
    leader.strip_prefix("https://control-")?.strip_suffix(":7443")?.parse().ok()
}

/// What the callers know together.
#[derive(Default)]
struct Known {
    /// Of the newest registration acknowledged to anyone.
    newest: AtomicU32,
    acknowledged: Mutex<BTreeSet<u32>>,
    ended: AtomicBool,
}

async fn register_on(client: &mut LighterClient<Channel>, known: &Known) -> Result<(), Status> {
    let request = v1::RegisterTaskDefinitionRequest { json: definition_json("f", 0, 6, None) };
    let revision = client.register_task_definition(request).await?.into_inner();
    let revision = revision.task_definition.unwrap().revision;
    assert!(known.acknowledged.lock().unwrap().insert(revision), "revision {revision} was given twice");
    known.newest.fetch_max(revision, Ordering::SeqCst);
    Ok(())
}

/// Asks one process only, whatever it says, and checks every answer.
async fn read_on(client: &mut LighterClient<Channel>, known: &Known) -> Result<(), Status> {
    let before = known.newest.load(Ordering::SeqCst);
    let task_definition = "f".to_owned();
    let answer =
        client.describe_task_definition(v1::DescribeTaskDefinitionRequest { task_definition }).await?;
    let read = answer.into_inner().task_definition.unwrap().revision;
    assert!(read >= before, "an answer of the past: {read}, and {before} was acknowledged");
    Ok(())
}

/// Registers until the end, going where it is sent; tells nothing of refusals.
async fn write(planes: Arc<Vec<PathBuf>>, known: Arc<Known>) {
    let mut at = 0;
    while !known.ended.load(Ordering::SeqCst) {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket(&planes[at]).display())).unwrap();
        if let Ok(channel) = endpoint.timeout(Duration::from_secs(1)).connect().await {
            let mut client = LighterClient::new(channel);
            loop {
                match register_on(&mut client, &known).await {
                    Ok(()) if known.ended.load(Ordering::SeqCst) => return,
                    Ok(()) => {}
                    Err(status) => {
                        at = leader_of(&status).unwrap_or((at + 1) % planes.len());
                        break;
                    }
                }
            }
        } else {
            at = (at + 1) % planes.len();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whoever says that it leads, by answering.
async fn leader(planes: &[ControlProcess], not: Option<usize>) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for (number, plane) in planes.iter().enumerate().filter(|(number, _)| Some(*number) != not) {
            let Some(mut client) = plane.client().await else { continue };
            match client.list_tasks(v1::ListTasksRequest::default()).await {
                Ok(_) => return number,
                Err(status) => assert!(status.code() == tonic::Code::Unavailable, "{status:?}"),
            }
        }
        assert!(Instant::now() < deadline, "nobody leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until somebody has registered something new.
async fn progress(known: &Known) -> Duration {
    let (begun, before) = (Instant::now(), known.newest.load(Ordering::SeqCst));
    while known.newest.load(Ordering::SeqCst) <= before + 1 {
        // etcd elects, then perhaps we do: that is long where many tests sync to one disk.
        assert!(begun.elapsed() < 3 * PATIENCE, "no progress");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

async fn serve_until_terminated(dir: &str, etcd: &str) {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let handle = Control::start(child_config(dir.as_ref(), etcd)).await.unwrap();
    terminated.recv().await;
    handle.shutdown();
    handle.join().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_may_die_stop_and_leave_under_load() {
    if let (Ok(dir), Ok(etcd)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_ETCD)) {
        return serve_until_terminated(&dir, &etcd).await;
    }
    let (etcd, dir) = (Etcd::start(), TempDir::new().unwrap());
    let dirs: Vec<PathBuf> = (0..3).map(|number| dir.path().join(number.to_string())).collect();
    let start = |number: usize| ControlProcess::start(dirs[number].clone(), &etcd.endpoint());
    let mut planes: Vec<ControlProcess> = (0..3).map(start).collect();
    let (known, paths) = (Arc::new(Known::default()), Arc::new(dirs.clone()));
    let first = leader(&planes, None).await;
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(write(paths.clone(), known.clone()))).collect();
    progress(&known).await;
    let standby = (first + 1) % 3;
    let refused = loop {
        // It may still be starting.
        let Some(mut client) = planes[standby].client().await else { continue };
        break client.list_tasks(v1::ListTasksRequest::default()).await.unwrap_err();
    };
    assert_eq!((reason(&refused).as_str(), leader_of(&refused)), ("NOT_LEADER", Some(first)));

    // Killed.
    planes[first].signal("-KILL");
    let took = progress(&known).await;
    assert!(took < Duration::from_secs(10), "the takeover took {took:?}");
    planes[first] = start(first);
    let second = leader(&planes, Some(first)).await;

    // Stopped for twice its lease, with questions waiting in its socket, and continued.
    let mut reader = planes[second].client().await.unwrap();
    read_on(&mut reader, &known).await.unwrap();
    planes[second].signal("-STOP");
    until("it stands still", async || planes[second].is_stopped()).await;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (mut reader, known) = (reader.clone(), known.clone());
            tokio::spawn(async move { read_on(&mut reader, &known).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(u64::from(LEASE_SECONDS) * 2)).await;
    progress(&known).await;
    planes[second].signal("-CONT");
    for answer in waiting {
        // Refused, or cut off; an answer of the past fails in `read_on`.
        assert!(answer.await.unwrap().is_err(), "it had nothing true to say");
    }
    let refused = loop {
        match read_on(&mut reader, &known).await {
            Err(status) if leader_of(&status).is_some() => break status,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(()) => panic!("it leads again?"),
        }
    };
    let third = leader(&planes, None).await;
    assert_eq!(leader_of(&refused), Some(third));

    // Asked to end.
    planes[third].signal("-TERM");
    let took = progress(&known).await;
    assert!(took < Duration::from_secs(1), "the handover took {took:?}");
    known.ended.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }

    let fourth = leader(&planes, Some(third)).await;
    all_are_there(planes[fourth].client().await.unwrap(), &known).await;
}

/// Everything acknowledged is there, once.
async fn all_are_there(mut client: LighterClient<Channel>, known: &Known) {
    let acknowledged = known.acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 20, "only {}", acknowledged.len());
    for revision in acknowledged {
        let task_definition = format!("f:{revision}");
        let request = v1::DescribeTaskDefinitionRequest { task_definition };
        client.describe_task_definition(request).await.unwrap();
    }
}

/// Ends as systemd ends it before it starts the next version; how long until the others went on.
async fn hand_over(planes: &mut [ControlProcess], number: usize, known: &Known) -> Duration {
    planes[number].signal("-TERM");
    let took = progress(known).await;
    let deadline = Instant::now() + PATIENCE;
    while planes[number].child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took
}

/// Until it answers, as leader or as standby.
async fn serves(plane: &ControlProcess) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(mut client) = plane.client().await {
            match client.list_tasks(v1::ListTasksRequest::default()).await {
                Ok(_) => return,
                Err(status) if leader_of(&status).is_some() => return,
                Err(_) => {}
            }
        }
        assert!(Instant::now() < deadline, "it does not serve");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_etcd_die_and_each_control_plane_is_replaced_under_load() {
    let mut etcd = EtcdScript::start(3, true);
    let dir = TempDir::new().unwrap();
    let store = format!("{}|{}", etcd.endpoints(), etcd.tls_dir().display());
    let dirs: Vec<PathBuf> = (0..3).map(|number| dir.path().join(number.to_string())).collect();
    let start = |number: usize| ControlProcess::start(dirs[number].clone(), &store);
    let mut planes: Vec<ControlProcess> = (0..3).map(start).collect();
    let (known, paths) = (Arc::new(Known::default()), Arc::new(dirs.clone()));
    leader(&planes, None).await;
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(write(paths.clone(), known.clone()))).collect();
    progress(&known).await;
    // Each in turn, so that one of them leads etcd and one is what our leader speaks to.
    for member in 1..=3 {
        etcd.kill(member);
        let took = progress(&known).await;
        println!("without member {member} nothing for {took:?}");
        etcd.run();
        progress(&known).await;
    }
    // The leader is always the next, as long as it is of the old version.
    let (mut left, mut handovers) = (vec![0, 1, 2], Vec::new());
    while !left.is_empty() {
        let leads = leader(&planes, None).await;
        let next = if left.contains(&leads) { leads } else { left[0] };
        left.retain(|number| *number != next);
        let took = hand_over(&mut planes, next, &known).await;
        if next == leads {
            handovers.push(took);
        }
        planes[next] = start(next);
        serves(&planes[next]).await;
    }
    // The machine is shared with the other tests, whose turn one of the handovers may meet.
    let best = handovers.iter().min().unwrap();
    assert!(*best < Duration::from_secs(1), "handovers took {handovers:?}");
    known.ended.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let last = leader(&planes, None).await;
    all_are_there(planes[last].client().await.unwrap(), &known).await;
}

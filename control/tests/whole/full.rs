//! A store that is full: no new work, while what runs goes on; on a real disk that is full, and over
//! real connections. In: a tmpfs in a mount namespace of the test's own.

use crate::fake_node::{join, joined, report};
use crate::support::{PATIENCE, definition_json, reason, register, run_request, start_on, start_with};
use lighter_control::store::etcd::{EtcdSettings, EtcdStore};
use lighter_control::store::memory::{Fault, MemoryStore};
use lighter_control::store::redb::RedbStore;
use lighter_control::store::{Batch, Campaign, CommitOutcome, Level, RedbSettings, Store};
use lighter_control::work::{self, Method, Work};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Calls a method that brings new work; one without a call here fails the test.
async fn bring_work(admin: &mut LighterClient<Channel>, method: Method) -> Status {
    let tags = vec![v1::Tag { key: "a".to_owned(), value: "b".to_owned() }];
    let resource = "default".to_owned();
    match method {
        Method::LighterRunTask => admin.run_task(run_request("web", 1)).await.map(drop),
        Method::LighterRegisterTaskDefinition => {
            let json = definition_json("other", 1, 6, None);
            admin.register_task_definition(v1::RegisterTaskDefinitionRequest { json }).await.map(drop)
        }
        Method::LighterCreateCluster => {
            let cluster_name = "other".to_owned();
            let request = v1::CreateClusterRequest { cluster_name, ..Default::default() };
            admin.create_cluster(request).await.map(drop)
        }
        Method::LighterCreateJoinToken => {
            admin.create_join_token(v1::CreateJoinTokenRequest::default()).await.map(drop)
        }
        Method::LighterTagResource => {
            admin.tag_resource(v1::TagResourceRequest { resource, tags }).await.map(drop)
        }
        Method::LighterPutAttributes => {
            admin.put_attributes(v1::PutAttributesRequest::default()).await.map(drop)
        }
        Method::LighterStartTask => {
            let request = v1::StartTaskRequest {
                task_definition: "web".to_owned(),
                container_instances: vec!["node".to_owned()],
                ..Default::default()
            };
            admin.start_task(request).await.map(drop)
        }
        Method::LighterCreateService => {
            let json = r#"{"serviceName":"s","taskDefinition":"web","desiredCount":1}"#.to_owned();
            admin.create_service(v1::CreateServiceRequest { json }).await.map(drop)
        }
        other => panic!("{other:?} is new work and not tried"),
    }
    .unwrap_err()
}

#[tokio::test]
async fn a_full_store_takes_no_new_work_and_what_runs_goes_on() {
    let store = MemoryStore::new("one");
    let room = store.room();
    let running = start_on(Box::new(store.clone())).await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let node = joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    let again = v1::RunTaskRequest { client_token: "once".to_owned(), ..run_request("web", 2) };
    let ran = admin.run_task(again.clone()).await.unwrap().into_inner();
    let (first, second) = (ran.tasks[0].task_id.clone(), ran.tasks[1].task_id.clone());
    session.assignments().await;

    let token = running.handle.create_join_token().await.unwrap();

    room.set(Level::Reserve);
    for method in Method::ALL.iter().copied().filter(|method| work::of(*method) == Work::New) {
        let refused = match method {
            Method::NodeJoin => join(&running, &token, "late").await.err().unwrap(),
            _ => bring_work(&mut admin, method).await,
        };
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::ResourceExhausted, "STORE_FULL"),
            "{method:?}"
        );
        assert!(refused.message().contains("make room"), "{}", refused.message());
    }
    // What was accepted before is answered again, reported, stopped.
    let repeated = admin.run_task(again).await.unwrap().into_inner();
    assert_eq!(repeated.tasks[0].task_id, first);
    session.report(vec![report(&first, 1, v1::TaskStatus::Running)]).await;
    admin.stop_task(v1::StopTaskRequest { task: second, ..Default::default() }).await.unwrap();
    assert_eq!(session.assignments().await.len(), 1, "the node hears of the stop");

    // Not even the reserve has room: refused with words, and nothing is dropped or ended.
    store.plan([Some(Fault::NotTaken { full: true }), Some(Fault::NotTaken { full: false })]);
    let stop = v1::StopTaskRequest { task: first.clone(), ..Default::default() };
    let refused = admin.stop_task(stop.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "STORE_FULL");
    assert_eq!(reason(&admin.stop_task(stop.clone()).await.unwrap_err()), "STORE_UNAVAILABLE");
    admin.stop_task(stop).await.unwrap();
    assert_eq!(session.assignments().await.len(), 1, "the same session");

    room.set(Level::Free);
    admin.run_task(run_request("web", 1)).await.unwrap();
}

/// Runs the test that calls it again, alone, in a mount namespace with a tmpfs on a directory, unless
/// this is that run: then the directory.
fn small_disk(test: &str, mib: u32) -> Option<std::path::PathBuf> {
    if let Ok(dir) = std::env::var("LIGHTER_SMALL_DISK") {
        return Some(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = format!(r#"mount -t tmpfs -o size={mib}m none "$LIGHTER_SMALL_DISK" && exec "$0" "$@""#);
    let status = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &mount])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LIGHTER_SMALL_DISK", dir.path())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed on its small disk: {status}");
    None
}

/// Others write until so many bytes are left, or none.
fn fill(dir: &Path, leave: u64) {
    let free = || rustix::fs::statvfs(dir).map(|disk| disk.f_bavail * disk.f_frsize).unwrap();
    let mut ballast = std::fs::File::create(dir.join("ballast")).unwrap();
    let piece = vec![b'x'; 4_096];
    while free() > leave && std::io::Write::write_all(&mut ballast, &piece).is_ok() {}
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn on_a_full_disk_redb_lives_on_its_reserve_and_takes_it_again() {
    let Some(dir) = small_disk("full::on_a_full_disk_redb_lives_on_its_reserve_and_takes_it_again", 24)
    else {
        return;
    };
    let settings = RedbSettings { reserve_bytes: 4 << 20, free_low_bytes: 1 << 20 };
    let mut store = RedbStore::open_with(&dir.join("control.redb"), "one", settings).unwrap();
    let room = store.room();
    assert_eq!(room.level(), Level::Free);
    let Ok(Campaign::Elected { term }) = store.campaign(1) else { panic!("nobody else leads") };
    let batch = |sequence: u64| Batch::from([(format!("task/{sequence:08}"), Some(vec![b'r'; 20_000]))]);
    assert_eq!(store.commit(term, 1, &batch(1)), CommitOutcome::Committed);
    fill(&dir, 0);
    until("the disk is seen to be full", || room.level() == Level::Reserve);
    let mut sequence = 1;
    let refused = loop {
        match store.commit(term, sequence + 1, &batch(sequence + 1)) {
            CommitOutcome::Committed => sequence += 1,
            other => break other,
        }
        assert!(sequence < 2_000, "the disk was never full");
    };
    assert_eq!(refused, CommitOutcome::NotTaken { full: true });
    assert!(sequence > 50, "only {sequence} batches of 20 kB went into a reserve of 4 MiB");
    assert!(!dir.join("control.redb.reserve").exists());
    // Nothing is lost, nothing half done, and it can be read.
    let loaded = store.load("").unwrap();
    assert_eq!((loaded.sequence, loaded.records.len()), (sequence, usize::try_from(sequence).unwrap()));
    assert!(room.level() > Level::Free);

    std::fs::remove_file(dir.join("ballast")).unwrap();
    assert_eq!(store.commit(term, sequence + 1, &batch(sequence + 1)), CommitOutcome::Committed);
    until("there is room again", || room.level() == Level::Free);
    assert_eq!(std::fs::metadata(dir.join("control.redb.reserve")).unwrap().len(), 4 << 20);
}

#[test]
fn a_control_plane_on_a_full_disk_refuses_work_stops_tasks_and_recovers_by_itself() {
    const TEST: &str = "full::a_control_plane_on_a_full_disk_refuses_work_stops_tasks_and_recovers_by_itself";
    let Some(dir) = small_disk(TEST, 32) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let running = start_with(|config| {
            config.data_dir = dir.join("data");
            (config.store.reserve_mib, config.store.free_low_mib) = (4, 4);
            config.metrics_address = Some(free);
        })
        .await;
        let mut admin = running.admin().await;
        register(&mut admin, &definition_json("web", 0, 6, None)).await;
        let node = joined(&running, "node").await;
        let mut session = node.connect(&running).await.unwrap();
        let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
        let task = ran.tasks[0].task_id.clone();
        session.assignments().await;
        fill(&dir, 0);
        crate::support::until("new work is refused", async || {
            admin.clone().run_task(run_request("web", 1)).await.is_err()
        })
        .await;
        let refused = admin.run_task(run_request("web", 1)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "STORE_FULL"));
        assert!(refused.message().contains("free space on the disk"), "{}", refused.message());
        let (head, body) = crate::metrics::get(free, "/readyz").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("no new work"), "{head} {body}");
        let numbers = crate::metrics::get(free, "/metrics").await.1;
        assert_eq!(crate::metrics::value(&numbers, "lighter_control_store_full"), Some(1.0));
        session.report(vec![report(&task, 1, v1::TaskStatus::Running)]).await;
        admin.stop_task(v1::StopTaskRequest { task, ..Default::default() }).await.unwrap();
        assert_eq!(session.assignments().await.len(), 1, "the node hears of the stop");
        std::fs::remove_file(dir.join("ballast")).unwrap();
        crate::support::until("new work is taken again", async || {
            admin.clone().run_task(run_request("web", 1)).await.is_ok()
        })
        .await;
        running.handle.shutdown();
        running.handle.join().await;
    });
}

/// Writes values of their own until a commit is refused or there is no room for new work.
fn write_until_full(store: &mut impl Store, term: u64, stop_at: Level) -> (u64, CommitOutcome) {
    let room = store.room();
    let mut sequence = 0;
    loop {
        let batch = Batch::from([(format!("task/{sequence:08}"), Some(vec![b'e'; 200_000]))]);
        match store.commit(term, sequence + 1, &batch) {
            CommitOutcome::Committed => sequence += 1,
            other => return (sequence, other),
        }
        if room.level() >= stop_at {
            return (sequence, CommitOutcome::Committed);
        }
        assert!(sequence < 1_000, "etcd was never full");
        // etcd's size is looked at once a second.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Deletes all but one value; the sequence after that.
fn delete_all(store: &mut impl Store, term: u64, sequence: u64) -> u64 {
    let batch: Batch = (1..sequence).map(|number| (format!("task/{number:08}"), None)).collect();
    assert_eq!(store.commit(term, sequence + 1, &batch), CommitOutcome::Committed);
    sequence + 1
}

#[test]
fn etcd_is_full_a_tenth_before_its_quota_and_has_room_again_by_itself() {
    // Lower than etcd's own: here it is written faster than its size is looked at.
    let etcd = crate::etcd::Etcd::start();
    let settings = EtcdSettings { limit_bytes: 16 << 20, ..etcd.settings("/") };
    let mut store = EtcdStore::new(settings, "one", "me").unwrap();
    let Ok(Campaign::Elected { term }) = store.campaign(1) else { panic!("nobody else leads") };
    let (sequence, last) = write_until_full(&mut store, term, Level::Reserve);
    assert_eq!(last, CommitOutcome::Committed, "what runs goes on when new work is refused");
    assert_eq!(store.room().level(), Level::Reserve);
    let sequence = delete_all(&mut store, term, sequence);
    until("there is room again", || store.room().level() == Level::Free);
    assert_eq!(store.commit(term, sequence + 1, &Batch::new()), CommitOutcome::Committed);
}

#[test]
fn the_alarm_of_an_etcd_whose_quota_nobody_told_of_is_taken_back_when_there_is_room() {
    let etcd = crate::etcd::Etcd::start_with_quota(16 << 20);
    let mut store = etcd.open("/");
    let Ok(Campaign::Elected { term }) = store.campaign(1) else { panic!("nobody else leads") };
    // Half of it is history: the same key again and again.
    let again =
        |sequence: u64| Batch::from([(format!("task/{:02}", sequence % 8), Some(vec![b'h'; 200_000]))]);
    let mut sequence = 0;
    let refused = loop {
        match store.commit(term, sequence + 1, &again(sequence)) {
            CommitOutcome::Committed => sequence += 1,
            other => break other,
        }
        assert!(sequence < 1_000, "etcd was never full");
    };
    assert_eq!(refused, CommitOutcome::NotTaken { full: true });
    let refusal = store.room().refusal().to_string();
    assert!(refusal.contains("--quota-backend-bytes"), "{refusal}");
    assert!(store.lease().is_valid(), "it leads as before");
    until("it takes batches again", || match store.commit(term, sequence + 1, &again(sequence)) {
        CommitOutcome::Committed => true,
        CommitOutcome::NotTaken { full: true } => false,
        other => panic!("{other:?}"),
    });
    until("new work is accepted", || store.room().level() == Level::Free);
}

//! Formats of records: what is stored today can be read for ever, and the way from one format to the
//! next works on every store. There is one format yet, so the steps here are of the test's own, given
//! to the code that a control plane runs at its start.

use crate::fake_node::{joined, stopped_report};
use crate::support::{definition_json, register, run_request, start_on, start_with};
use lighter_control::core::Settings;
use lighter_control::core::record::FORMAT_VERSION;
use lighter_control::core::state::State;
use lighter_control::environment::Environment;
use lighter_control::format::{Formats, Record, Step, Upgrade, bring_up};
use lighter_control::store::faulty::Faulty;
use lighter_control::store::memory::{Fault, MemoryStore};
use lighter_control::store::redb::RedbStore;
use lighter_control::store::{Batch, Campaign, CommitOutcome, Loaded, Store};
use lighter_control::{snapshot, writer};
use lighter_proto::v1;
use std::path::Path;
use std::sync::Arc;

/// Format 2 calls a cluster's owner `owner`, and has a number of its own for its tasks.
fn one_to_two((key, mut json): Record) -> Result<Vec<Record>, serde_json::Error> {
    if !key.starts_with("cluster/") {
        return Ok(vec![(key, json)]);
    }
    let fields = json.as_object_mut().unwrap();
    let owner = fields.remove("user").unwrap_or_default();
    fields.insert("owner".to_owned(), owner);
    let count = (format!("count/{}", &key["cluster/".len()..]), serde_json::json!({"tasks": 0}));
    Ok(vec![(key, json), count])
}

/// Format 3 has no join tokens, and counts by a name in words.
fn two_to_three((key, json): Record) -> Result<Vec<Record>, serde_json::Error> {
    Ok(match key.split_once('/') {
        Some(("join-token", _)) => vec![],
        Some(("count", name)) => vec![(format!("tasks-of/{name}"), json)],
        _ => vec![(key, json)],
    })
}

const STEPS: &[Step] = &[one_to_two, two_to_three];
const ONE: Formats = Formats { ours: 1, steps: &[] };
const TWO: Formats = Formats { ours: 2, steps: STEPS.split_at(1).0 };
const THREE: Formats = Formats { ours: 3, steps: STEPS };

fn value(format: u8, json: &str) -> Vec<u8> {
    [&[format], json.as_bytes()].concat()
}

/// What is stored in format 1: every kind of change, and enough for several batches.
fn stored() -> Vec<(String, Vec<u8>)> {
    let mut records = vec![
        ("cluster/a".to_owned(), value(1, r#"{"user":"ann"}"#)),
        ("join-token/x".to_owned(), value(1, "{}")),
        ("meta".to_owned(), value(1, r#"{"cluster_time_ms":1,"event_sequence":2}"#)),
    ];
    records.extend((0..250).map(|number| (format!("task/{number:03}"), value(1, r#"{"n":1}"#))));
    records.sort();
    records
}

#[test]
fn stored_bytes_go_through_each_step() {
    let of = |formats, json: &str| bring_up(formats, "cluster/a", &value(1, json)).unwrap();
    let golden = [("cluster/a", r#"{"owner":"ann"}"#), ("count/a", r#"{"tasks":0}"#)];
    let golden = golden.map(|(key, json)| (key.to_owned(), value(2, json)));
    assert_eq!(of(TWO, r#"{"user":"ann"}"#), golden, "1 to 2");
    let third = bring_up(THREE, "count/a", &golden[1].1).unwrap();
    assert_eq!(third, [("tasks-of/a".to_owned(), value(3, r#"{"tasks":0}"#))], "2 to 3");
    let both = of(THREE, r#"{"user":"ann"}"#);
    assert_eq!(both[0], ("cluster/a".to_owned(), value(3, r#"{"owner":"ann"}"#)), "1 to 3");
    assert_eq!(both[1], third[0]);
    assert_eq!(bring_up(THREE, "join-token/x", &value(1, "{}")).unwrap(), []);
    let refused = bring_up(THREE, "cluster/a", b"\x01no json").unwrap_err().to_string();
    assert!(refused.contains("\"cluster/a\"") && refused.contains("from format 1"), "{refused}");
}

fn elected(store: &mut dyn Store) -> u64 {
    match store.campaign(0).unwrap() {
        Campaign::Elected { term } => term,
        Campaign::Standby(leader) => panic!("{leader:?} leads"),
    }
}

fn put(store: &mut dyn Store, term: u64) -> Loaded {
    for (sequence, piece) in (1..).zip(stored().chunks(100)) {
        let batch: Batch = piece.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        assert_eq!(store.commit(term, sequence, &batch), CommitOutcome::Committed);
    }
    store.load("").unwrap()
}

/// Upgrades what a store of format 1 has, cut off in the middle and gone on with by the next leader;
/// then an older program refuses, and does not take the lead.
fn a_store_goes_from_one_to_three(store: impl Store, dir: &Path) {
    let (mut store, faults) = Faulty::new(store);
    let term = elected(&mut store);
    let before = put(&mut store, term);
    let upgrade =
        |formats| Upgrade { formats, directory: dir.join("snapshots"), environment: Environment::default() };
    // The term is over before anything is written: fenced.
    let fenced = Loaded { term: term - 1, ..before.clone() };
    upgrade(THREE).run(&mut store, fenced).unwrap_err();
    assert_eq!(store.load("").unwrap().records, before.records, "nothing of a fenced leader has effect");
    let term = elected(&mut store);
    // Cut off after its first batch: each record says which format it has.
    faults.plan([None, Some(Fault::NotTaken { full: false })]);
    upgrade(TWO).run(&mut store, Loaded { term, ..before.clone() }).unwrap_err();
    let partly = store.load("").unwrap();
    let formats = |format| partly.records.iter().filter(|(_, value)| value[0] == format).count();
    assert!(formats(1) > 100 && formats(2) >= 100, "{} and {}", formats(1), formats(2));
    assert_eq!(store.load("meta").unwrap().records[0].1[0], 2, "the first to be written");
    let term = elected(&mut store);
    let after = upgrade(THREE).run(&mut store, Loaded { term, ..partly.clone() }).unwrap();
    assert_eq!(after, store.load("").unwrap(), "what the leader has is what is stored");
    assert!(after.records.iter().all(|(_, value)| value[0] == 3));
    let keys: Vec<&str> =
        after.records.iter().map(|(key, _)| key.as_str()).filter(|k| !k.starts_with("task/")).collect();
    assert_eq!(keys, ["cluster/a", "meta", "tasks-of/a"]);
    assert_eq!(after.records.len(), 253);
    // A snapshot of each time, as it was.
    let mut snapshots: Vec<_> =
        std::fs::read_dir(dir.join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    snapshots.sort();
    let content = |name: &str| {
        let path = snapshots.iter().rev().find(|path| path.to_str().unwrap().contains(name)).unwrap();
        snapshot::read_any(path).unwrap().1
    };
    assert_eq!(content("before-format-2").records, before.records);
    assert_eq!(content("before-format-3").records, partly.records);
    assert_eq!(upgrade(THREE).run(&mut store, after.clone()).unwrap(), after, "and no more");

    // An older program names both formats and leaves the lead alone.
    store.resign();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (view, environment) = (Arc::default(), Environment::default());
    let mut reader = store.reader().unwrap();
    let started = writer::start(Box::new(store), Settings::default(), environment, view, Some(upgrade(ONE)));
    let Err(refused) = runtime.block_on(started) else { panic!("an older program leads") };
    let words = writer::Chain(&refused).to_string();
    assert!(words.contains("has format 3") && words.contains("knows up to 1"), "{words}");
    assert_eq!(reader.load().unwrap(), after, "no new term either");
}

#[test]
fn memory_goes_from_format_to_format() {
    let dir = tempfile::tempdir().unwrap();
    a_store_goes_from_one_to_three(MemoryStore::new("one"), dir.path());
}

#[test]
fn redb_goes_from_format_to_format() {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&dir.path().join("control.redb"), "one").unwrap();
    a_store_goes_from_one_to_three(store, dir.path());
}

#[test]
fn etcd_goes_from_format_to_format() {
    let (dir, etcd) = (tempfile::tempdir().unwrap(), crate::etcd::Etcd::start());
    a_store_goes_from_one_to_three(etcd.open("/"), dir.path());
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/whole/golden/format-1.txt");

/// Every record that a cluster with some life in it has, as it is stored: a line each, key and value.
async fn written_today() -> String {
    let store = MemoryStore::new("one");
    let running = start_on(Box::new(store.clone())).await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 64, 32, Some(8_080))).await;
    let node = joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    let request = v1::RunTaskRequest { client_token: "once".to_owned(), ..run_request("web", 1) };
    let ran = admin.run_task(request).await.unwrap().into_inner();
    session.report(vec![stopped_report(&ran.tasks[0].task_id, 1, 3)]).await;
    let line = |(key, value): (String, Vec<u8>)| {
        let (format, json) = value.split_first().unwrap();
        format!("{key}\t{format}\t{}\n", std::str::from_utf8(json).unwrap())
    };
    store.records().into_iter().map(line).collect()
}

/// The bytes of format 1, as they were written when it was the newest: if this fails, stored clusters
/// cannot be read any more, and a new format with a step is needed.
#[tokio::test]
async fn what_was_stored_in_format_1_can_be_read() {
    if std::env::var_os("LIGHTER_WRITE_GOLDEN").is_some() && !Path::new(GOLDEN).exists() {
        std::fs::write(GOLDEN, written_today().await).unwrap();
    }
    let text = std::fs::read_to_string(GOLDEN).unwrap();
    let record = |line: &str| {
        let mut parts = line.splitn(3, '\t');
        let (key, format, json) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        (key.to_owned(), value(format.parse().unwrap(), json))
    };
    let records: Vec<(String, Vec<u8>)> = text.lines().map(record).collect();
    let kinds: std::collections::BTreeSet<&str> =
        records.iter().map(|(key, _)| key.split('/').next().unwrap()).collect();
    assert_eq!(kinds.len(), 10, "one of each kind: {kinds:?}");
    let ours = lighter_control::format::all(Formats::THIS_PROGRAM, &records).unwrap();
    let state = State::from_records(ours).unwrap();
    let task = state.tasks.values().next().unwrap();
    assert_eq!(task.containers[0].exit.as_ref().map(|exit| format!("{exit:?}").contains('3')), Some(true));
    assert_eq!(state.instances.len() + state.definitions.len() + state.client_tokens.len(), 3);
    assert_eq!(Formats::THIS_PROGRAM.steps.len() + 1, usize::from(FORMAT_VERSION), "a step for each format");
}

/// A control plane of today over a file that a program to come has written.
#[tokio::test]
async fn a_control_plane_refuses_to_start_on_a_newer_format_with_words() {
    let running = start_with(|_| {}).await;
    running.handle.shutdown();
    running.handle.join().await;
    let path = running.dir.path().join("data/control.redb");
    let mut store = RedbStore::open(&path, "one").unwrap();
    let term = elected(&mut store);
    let loaded = store.load("meta").unwrap();
    let mut meta = loaded.records[0].1.clone();
    meta[0] = FORMAT_VERSION + 1;
    let batch = Batch::from([("meta".to_owned(), Some(meta))]);
    assert_eq!(store.commit(term, loaded.sequence + 1, &batch), CommitOutcome::Committed);
    drop(store);
    let config = crate::support::config(&running.dir);
    let Err(refused) = lighter_control::Control::start(config).await else { panic!("it starts") };
    let words = writer::Chain(&refused).to_string();
    assert!(words.contains("has format 2") && words.contains("knows up to 1"), "{words}");
}

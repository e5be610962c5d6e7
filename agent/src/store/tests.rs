//! Tests of the store: durable, grouped, set aside when damaged or newer, one user at a time.
//! In: a temporary directory. Out: assertions. Never: the real data directory.

use super::records::{AssignmentRecord, SessionRecord, TaskRecord};
use super::{Loaded, OpenStoreError, Store, StoreOp};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

fn task() -> TaskRecord {
    serde_json::from_str(include_str!("golden/task-record-1.json")).unwrap()
}

fn assignment() -> AssignmentRecord {
    serde_json::from_str(include_str!("golden/assignment-1.json")).unwrap()
}

/// The writer's thread closes the file a moment after the last handle is gone.
fn open(path: &Path) -> (Store, Loaded) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(path) {
            Ok(opened) => return opened,
            Err(OpenStoreError::Locked { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    let (store, loaded) = open(&path);
    assert!(loaded.tasks.is_empty() && loaded.set_aside.is_none());
    let session = SessionRecord { version: 1, term: 4, incarnation: "i".into(), revision: 9, instance: None };
    let definition = StoreOp::PutDefinition { id: "web:2".parse().unwrap(), json: "{}".into() };
    let ops = vec![
        StoreOp::PutAssignment(Box::new(assignment())),
        StoreOp::PutTask(Box::new(task())),
        definition,
        StoreOp::PutSession(session.clone()),
    ];
    store.commit(ops).await.unwrap();
    drop(store);
    let (store, loaded) = open(&path);
    assert_eq!((loaded.tasks, loaded.assignments), (vec![task()], vec![assignment()]));
    assert_eq!(loaded.session, session);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(loaded.definitions.len(), 1);
    store.commit(vec![StoreOp::Forget(task().task)]).await.unwrap();
    store.commit(vec![StoreOp::Forget(task().task)]).await.unwrap();
    drop(store);
    let (_store, loaded) = open(&path);
    assert!(loaded.tasks.is_empty() && loaded.assignments.is_empty());
}

#[tokio::test]
async fn a_damaged_or_newer_store_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    std::fs::write(&path, b"this is not a store, whatever its name says").unwrap();
    let (store, loaded) = open(&path);
    let aside = loaded.set_aside.unwrap();
    assert!(std::fs::read(aside).unwrap().starts_with(b"this is not"));
    let newer = TaskRecord { version: 2, ..task() };
    store.commit(vec![StoreOp::PutTask(Box::new(newer))]).await.unwrap();
    drop(store);
    let (_store, loaded) = open(&path);
    assert!(loaded.set_aside.is_some() && loaded.tasks.is_empty());
}

#[tokio::test]
async fn a_second_agent_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    let (_store, _) = open(&path);
    assert!(matches!(Store::open(&path), Err(OpenStoreError::Locked { .. })));
}

#[tokio::test]
async fn many_writers_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&dir.path().join("agent.redb"));
    let writers = (0..100).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(vec![StoreOp::PutTask(Box::new(task()))]).await.unwrap() })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

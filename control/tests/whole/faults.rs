//! The writer over a store that fails: what was acknowledged is stored, what was refused is not.

use lighter_control::core::Settings;
use lighter_control::core::definition::RegisterDefinition;
use lighter_control::core::state::State;
use lighter_control::environment::Environment;
use lighter_control::error::ApiError;
use lighter_control::store::memory::{Fault, MemoryStore};
use lighter_control::view::View;
use lighter_control::writer::{self, WriterHandle};
use lighter_proto::v1;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

async fn start(store: &MemoryStore) -> (WriterHandle, Arc<View>) {
    let view = Arc::new(View::default());
    let started = writer::start(
        Box::new(store.clone()),
        Settings::default(),
        Environment::default(),
        view.clone(),
        None,
    );
    (started.await.unwrap().0, view)
}

fn register() -> RegisterDefinition {
    let json = crate::support::definition_json("f", 0, 6, None);
    let definition = lighter_model::task_definition::input::parse(&json).unwrap();
    RegisterDefinition { definition, registered_by: "test".to_owned() }
}

#[tokio::test]
async fn what_has_queued_is_committed_together() {
    let store = MemoryStore::new("one");
    let (writer, view) = start(&store).await;
    let all = (0..500).map(|_| {
        let writer = writer.clone();
        async move { writer.submit(register()).await.unwrap().id.revision }
    });
    let revisions: BTreeSet<u32> = futures_util::future::join_all(all).await.into_iter().collect();
    assert_eq!(revisions.len(), 500);
    // Each takes a definition and an event; a group holds 128 mutations.
    assert!((8..=100).contains(&store.commits()), "{} commits", store.commits());
    let stored = State::from_records(store.records()).unwrap();
    view.read(|shown| assert_eq!(shown.state, stored));
}

fn faults() -> impl Strategy<Value = Vec<Option<Fault>>> {
    let fault = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Fault::Fenced)),
        1 => Just(Some(Fault::UnknownApplied)),
        1 => Just(Some(Fault::UnknownLost)),
        1 => any::<bool>().prop_map(|full| Some(Fault::NotTaken { full })),
    ];
    proptest::collection::vec(fault, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn acknowledged_is_stored_and_refused_is_not(plan in faults(), waves in 1usize..6, width in 1usize..9) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new("one");
            store.plan(plan);
            let (writer, view) = start(&store).await;
            let (mut acknowledged, mut unknown) = (BTreeSet::new(), 0);
            for _ in 0..waves {
                let wave = (0..width).map(|_| writer.submit(register()));
                for answer in futures_util::future::join_all(wave).await {
                    match answer {
                        Ok(record) => assert!(acknowledged.insert(record.id.revision), "given twice"),
                        Err(ApiError::OutcomeUnknown) => unknown += 1,
                        Err(ApiError::StoreUnavailable | ApiError::StoreFull { .. }) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            // Settles whatever a fault at the end has left behind.
            loop {
                match writer.submit(register()).await {
                    Ok(record) => break assert!(acknowledged.insert(record.id.revision)),
                    Err(error) => unknown += usize::from(error == ApiError::OutcomeUnknown),
                }
            }
            let stored = State::from_records(store.records()).unwrap();
            let revisions: BTreeSet<u32> = stored.definitions.keys().map(|id| id.revision).collect();
            assert!(acknowledged.is_subset(&revisions));
            assert!(revisions.len() <= acknowledged.len() + unknown, "something refused is stored");
            assert_eq!(stored.events.len(), revisions.len(), "one event each");
            view.read(|shown| assert_eq!(shown.state, stored, "shown is stored"));
        });
    }
}

#[tokio::test]
async fn after_a_lost_answer_of_the_store_nodes_and_watchers_begin_anew_with_the_truth() {
    let store = MemoryStore::new("one");
    let running = crate::support::start_on(Box::new(store.clone())).await;
    let mut admin = running.admin().await;
    crate::support::register(&mut admin, &crate::support::definition_json("web", 0, 6, None)).await;
    let node = crate::fake_node::joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    let mut events = admin.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
    for (fault, tasks_after, code) in
        [(Fault::UnknownApplied, 1, "OUTCOME_UNKNOWN"), (Fault::Fenced, 1, "STORE_UNAVAILABLE")]
    {
        store.plan([Some(fault)]);
        let failed = admin.run_task(crate::support::run_request("web", 1)).await.unwrap_err();
        assert_eq!(crate::support::reason(&failed), code);
        assert_eq!(crate::support::reason(&session.end().await), "STATE_RELOADED");
        let ended = events.message().await.unwrap_err();
        assert_eq!(crate::support::reason(&ended), "STATE_RELOADED");
        session = node.connect(&running).await.unwrap();
        assert_eq!(session.manifest.len(), tasks_after, "{fault:?}");
        events = admin.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
    }
    admin.run_task(crate::support::run_request("web", 1)).await.unwrap();
    assert_eq!(session.assignments().await.len(), 1, "and goes on");
}

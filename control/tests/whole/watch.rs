//! Events: in order, without gaps, and no watcher is waited for.

use crate::support::{definition_json, reason, register, start, start_with};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use tonic::transport::Endpoint;
use tonic::{Code, Streaming};

async fn next(events: &mut Streaming<v1::Event>) -> v1::Event {
    tokio::time::timeout(crate::support::PATIENCE, events.message()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_watcher_goes_on_where_it_stopped_also_after_a_restart() {
    let running = start().await;
    let mut admin = running.admin().await;
    let mut live = admin.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
    for family in ["a", "b", "c"] {
        register(&mut admin, &definition_json(family, 0, 6, None)).await;
    }
    let mut sequences = Vec::new();
    for _ in 0..3 {
        sequences.push(next(&mut live).await.sequence);
    }
    assert_eq!(sequences, [1, 2, 3]);
    let running = running.restart().await;
    assert!(live.message().await.is_err(), "watchers end with the server");
    let mut admin = running.admin().await;
    let request = v1::WatchEventsRequest { after_sequence: 1, ..Default::default() };
    let mut events = admin.watch_events(request).await.unwrap().into_inner();
    register(&mut admin, &definition_json("d", 0, 6, None)).await;
    let families: Vec<String> = {
        let mut families = Vec::new();
        for _ in 0..3 {
            let Some(v1::event::Subject::TaskDefinitionStateChange(change)) = next(&mut events).await.subject
            else {
                panic!("another event");
            };
            families.push(change.task_definition.unwrap().family);
        }
        families
    };
    assert_eq!(families, ["b", "c", "d"]);
    let request = v1::WatchEventsRequest { from_oldest: true, ..Default::default() };
    assert_eq!(next(&mut admin.watch_events(request).await.unwrap().into_inner()).await.sequence, 1);
}

#[tokio::test]
async fn what_is_too_old_is_out_of_range() {
    let running = start_with(|config| config.events_kept = 16).await;
    let mut admin = running.admin().await;
    for _ in 0..20 {
        register(&mut admin, &definition_json("a", 0, 6, None)).await;
    }
    let after = |after_sequence| v1::WatchEventsRequest { after_sequence, ..Default::default() };
    let refused = admin.watch_events(after(3)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::OutOfRange, "EVENTS_TOO_OLD"));
    assert_eq!(next(&mut admin.watch_events(after(4)).await.unwrap().into_inner()).await.sequence, 5);
    assert_eq!(admin.watch_events(after(99)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_nobody_waits_for_it() {
    let running = start().await;
    let mut admin = running.admin().await;
    // A connection of its own with a small window: what is not read is soon not sent.
    let url = format!("unix:{}", running.handle.unix_socket().unwrap().display());
    let endpoint = Endpoint::from_shared(url).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut other = LighterClient::new(endpoint.connect().await.unwrap());
    let mut lazy = other.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
    // More than the windows, the buffers and the watcher's depth hold.
    let image = "x".repeat(200);
    let json =
        format!(r#"{{"family":"a","containerDefinitions":[{{"name":"web","image":"{image}","memory":6}}]}}"#);
    let mut written = 0;
    for _ in 0..40 {
        let writers = (0..50).map(|_| {
            let (mut admin, json) = (admin.clone(), json.clone());
            async move { register(&mut admin, &json).await }
        });
        written += futures_util::future::join_all(writers).await.len() as u64;
    }
    let mut last = 0;
    let cut = loop {
        match lazy.message().await {
            Ok(Some(event)) => {
                assert_eq!(event.sequence, last + 1, "no gap before the cut");
                last = event.sequence;
            }
            Ok(None) => panic!("ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&cut), "WATCHER_TOO_SLOW");
    assert!(cut.message().contains(&format!("the last event sent was {last}:")), "{}", cut.message());
    let request = v1::WatchEventsRequest { after_sequence: last, ..Default::default() };
    let mut rest = admin.watch_events(request).await.unwrap().into_inner();
    for expected in last + 1..=written {
        assert_eq!(next(&mut rest).await.sequence, expected);
    }
}

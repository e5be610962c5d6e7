//! At least once and in order, whatever the sink does; what is lost is counted and marked; the next
//! agent goes on.

use super::sinks::{self, Mood, Seen, free_address};
use super::{Agent, Ring, definition, eventually, open_store, task};
use serde_json::Value;
use std::time::Duration;

fn forward(address: &str) -> String {
    format!(
        r#"{{"logDriver":"fluentd","options":{{"fluentd-address":"{address}","fluentd-request-ack":"true"}}}}"#
    )
}

fn lines(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("line {number}")).collect()
}

#[tokio::test]
async fn a_sink_that_is_down_stuck_or_dies_gets_everything_in_order_once_it_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(&dir.path().join("logs"), 500, 4);
    let (address, seen) = (free_address().await, Seen::default());
    let agent = Agent::start(&dir, true);
    ring.lines(100);
    agent.logs.begin(&task(), &definition(&forward(&address))).await;
    let failed = || agent.logs.totals().iter().map(|row| row.failed_sends).sum::<u64>();
    eventually("nobody listens", || failed() > 0).await;
    for mood in [Mood::DiesHalfWay, Mood::DiesAfterTaking] {
        let sink = sinks::fluentd(&address, mood, &seen).await;
        let before = failed();
        ring.lines(100);
        eventually("it dies", || failed() > before + 1).await;
        drop(sink);
    }
    let _sink = sinks::fluentd(&address, Mood::Well, &seen).await;
    ring.lines(100);
    eventually("all is there", || seen.has("line 399")).await;
    // While it is well each line comes once.
    let before = seen.all().len();
    ring.lines(100);
    eventually("the rest", || seen.has("line 499")).await;
    assert_eq!(seen.all().len(), before + 100);
    assert_eq!(seen.once(), lines(500), "none is missing, none is out of order");
    agent.logs.ended(&task()).await;
    agent.logs.drained(&task(), super::DEADLINE).await;
    agent.leave().await;
    assert_eq!(open_store(&dir).1.log_deliveries, [], "what is delivered is forgotten");
}

#[tokio::test]
async fn what_leaves_the_ring_while_a_sink_hangs_is_counted_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    // 30 to 40 records fit.
    let mut ring = Ring::new(&dir.path().join("logs"), 10, 4);
    let (address, seen) = (free_address().await, Seen::default());
    let agent = Agent::start(&dir, true);
    let stuck = sinks::fluentd(&address, Mood::DiesHalfWay, &seen).await;
    ring.lines(5);
    agent.logs.begin(&task(), &definition(&forward(&address))).await;
    eventually("it fails", || agent.logs.totals().iter().any(|row| row.failed_sends > 0)).await;
    ring.lines(200);
    drop(stuck);
    let _sink = sinks::fluentd(&address, Mood::Well, &seen).await;
    eventually("the last line", || seen.has("line 204")).await;
    let seen = seen.all();
    let marks: Vec<u64> = seen
        .iter()
        .filter_map(|line| {
            line.strip_suffix(
                " records are missing here: they left the node's ring before they could be sent",
            )
        })
        .map(|count| count.parse().unwrap())
        .collect();
    let lost: u64 = marks.iter().sum();
    assert_eq!(seen.len() as u64 - marks.len() as u64 + lost, 205, "{seen:?}");
    assert!((160..=205).contains(&lost), "{lost}");
    assert_eq!(agent.logs.totals().iter().map(|row| row.lost_records).sum::<u64>(), lost);
    agent.leave().await;
}

#[tokio::test]
async fn an_agent_that_comes_back_goes_on_where_the_last_one_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(&dir.path().join("logs"), 30, 8);
    let seen = Seen::default();
    let sink = sinks::fluentd("127.0.0.1:0", Mood::Well, &seen).await;
    let agent = Agent::start(&dir, true);
    agent.logs.begin(&task(), &definition(&forward(&sink.address))).await;
    ring.lines(50);
    eventually("half", || seen.has("line 49")).await;
    agent.leave().await;
    ring.lines(50);
    // The task ends while no agent runs.
    let agent = Agent::start(&dir, false);
    agent.logs.drained(&task(), super::DEADLINE).await;
    assert_eq!(seen.all(), lines(100), "a clean leave repeats nothing");
    agent.leave().await;
    assert_eq!(open_store(&dir).1.log_deliveries, []);
}

#[tokio::test]
async fn a_line_that_is_refused_for_good_is_left_out_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(&dir.path().join("logs"), 500, 4);
    ring.lines(20);
    ring.line("stdout", "F", "poison");
    ring.lines(20);
    let (seen, heads) = (Seen::default(), Seen::default());
    let address = free_address().await;
    let busy = sinks::http(&address, Mood::Unavailable, &seen, &heads).await;
    let agent = Agent::start(&dir, true);
    let configuration = format!(r#"{{"logDriver":"http","options":{{"http-url":"http://{address}/"}}}}"#);
    agent.logs.begin(&task(), &definition(&configuration)).await;
    eventually("it is unavailable", || heads.all().len() > 1).await;
    drop(busy);
    let _sink = sinks::http(&address, Mood::Well, &seen, &heads).await;
    let numbers = || -> Vec<u64> {
        let lines = seen.all();
        lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap())
            .collect()
    };
    eventually("the last line", || numbers().last() == Some(&40)).await;
    assert_eq!(numbers(), (0..20).chain(21..41).collect::<Vec<_>>());
    // The sink has the lines before the agent has its answer.
    let counted = || {
        let row = agent.logs.totals().into_iter().find(|row| row.driver == "http").unwrap();
        (row.sent_records, row.refused_records, row.lost_records)
    };
    eventually("all are counted", || counted().0 >= 40).await;
    assert_eq!(counted(), (40, 1, 0));
    agent.leave().await;
}

#[tokio::test]
async fn a_sink_that_hangs_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(&dir.path().join("logs"), 500, 4);
    ring.lines(10);
    let seen = Seen::default();
    let sink = sinks::fluentd("127.0.0.1:0", Mood::Stuck, &seen).await;
    let agent = Agent::start(&dir, true);
    agent.logs.begin(&task(), &definition(&forward(&sink.address))).await;
    agent.logs.ended(&task()).await;
    // A teardown waits no longer than it is told, and the agent leaves at once.
    let begun = std::time::Instant::now();
    agent.logs.drained(&task(), Duration::from_millis(50)).await;
    agent.leave().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let left = open_store(&dir).1.log_deliveries;
    assert_eq!((left.len(), left[0].next), (1, 0), "all is still to be sent");
}

//! The control plane's numbers as Prometheus scrapes them: over HTTP, in the text format.

use crate::fake_node::{joined, report};
use crate::support::{definition_json, register, run_request, start_with, until};
use lighter_proto::v1;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The answer to a GET: its head and its body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of a series, as it is written.
pub(crate) fn value(body: &str, series: &str) -> Option<f64> {
    body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn a_scrape_shows_the_cluster_and_the_store() {
    // A port nobody has; it is bound again at once.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let running = start_with(|config| config.metrics_address = Some(free)).await;
    let (head, body) = get(free, "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(value(&body, r#"lighter_control_container_instances{connected="true"}"#), Some(0.0));
    assert_eq!(value(&body, r#"lighter_control_tasks{status="RUNNING"}"#), Some(0.0));
    assert!(get(free, "/").await.0.starts_with("HTTP/1.1 404 "));
    assert!(get(free, "/livez").await.0.starts_with("HTTP/1.1 200 "));
    assert!(get(free, "/readyz").await.0.starts_with("HTTP/1.1 200 "));

    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let node = joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    let ran = admin.run_task(run_request("web", 2)).await.unwrap().into_inner();
    session.report(vec![report(&ran.tasks[0].task_id, 1, v1::TaskStatus::Running)]).await;
    let shown = async |series: &str| value(&get(free, "/metrics").await.1, series);
    until("the report is counted", async || {
        shown(r#"lighter_control_tasks{status="RUNNING"}"#).await == Some(1.0)
    })
    .await;
    let body = get(free, "/metrics").await.1;
    assert_eq!(value(&body, r#"lighter_control_container_instances{connected="true"}"#), Some(1.0));
    assert_eq!(value(&body, r#"lighter_control_container_instances{connected="false"}"#), Some(0.0));
    assert_eq!(value(&body, "lighter_control_queue_length"), Some(0.0));
    let commits = value(&body, r#"lighter_control_store_commits_total{outcome="committed"}"#);
    assert!(commits.is_some_and(|count| count >= 3.0), "{body}");
    assert_eq!(value(&body, "lighter_control_store_commit_seconds_count"), commits);
    assert!(value(&body, "lighter_control_event_sequence").is_some_and(|number| number > 0.0), "{body}");
    for (series, least) in [
        ("lighter_control_leader", 1.0),
        ("lighter_control_term", 1.0),
        ("lighter_control_sessions", 1.0),
        ("lighter_control_store_bytes", 1.0),
        ("lighter_control_decision_seconds_count", 3.0),
        ("lighter_control_store_group_records_count", 3.0),
    ] {
        assert!(value(&body, series).is_some_and(|number| number >= least), "{series}: {body}");
    }
    // Every family is explained before its series.
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let family = line.split(['{', ' ']).next().unwrap();
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end)).unwrap_or(family);
        assert!(body.contains(&format!("# TYPE {family} ")), "{line}");
    }
}

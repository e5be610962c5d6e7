//! Notices from a metadata service that is a thread on loopback, and from the file.

use super::*;
use lighter_model::node::NoticeKind;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// Answers as IMDSv2 does: tokens, 401 without one, 404 for what is not set.
fn service(spot: Arc<Mutex<Option<String>>>, events: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let mut text = String::new();
            let mut buffer = [0u8; 1024];
            while !text.contains("\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
                    _ => break,
                }
            }
            let has_token = text.contains("X-aws-ec2-metadata-token: secret");
            let (status, body) = if text.starts_with("PUT /latest/api/token") {
                assert!(text.contains("X-aws-ec2-metadata-token-ttl-seconds: "));
                ("200 OK", "secret".to_owned())
            } else if !has_token || number == 3 {
                // Tokens end; a new one is asked for.
                ("401 Unauthorized", String::new())
            } else if text.contains("/spot/instance-action") {
                match spot.lock().unwrap().clone() {
                    Some(body) => ("200 OK", body),
                    None => ("404 Not Found", String::new()),
                }
            } else {
                ("200 OK", events.lock().unwrap().clone())
            };
            let _ = write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    base
}

#[tokio::test]
async fn the_metadata_service_is_asked_with_a_token_and_told_notices_are_read() {
    let (spot, events) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new("[]".to_owned())));
    let mut source = ImdsSource::new(&service(spot.clone(), events.clone()));
    assert_eq!(source.check().await.unwrap(), []);
    *spot.lock().unwrap() = Some(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#.into());
    *events.lock().unwrap() = r#"[{"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot",
        "Description": "scheduled reboot", "EventId": "instance-event-0d59", "State": "active"},
        {"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "x", "EventId": "old", "State": "completed"}]"#
        .into();
    let found = source.check().await.unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[0].kind, found[0].at_unix_ms), (NoticeKind::SpotInterruption, 1_505_722_920_000));
    assert_eq!((found[1].kind, found[1].at_unix_ms), (NoticeKind::Maintenance, 1_548_061_243_000));
    assert!(found[1].detail.contains("scheduled reboot"));
    assert_eq!(source.check().await.unwrap(), found, "the same notices, with the same ids");
    let mut nowhere = ImdsSource::new("http://127.0.0.1:1");
    assert!(nowhere.check().await.is_err());
}

#[tokio::test]
async fn the_file_is_read_taken_back_and_refused_when_it_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = FileSource::new(dir.path());
    assert_eq!(source.check().await.unwrap(), []);
    let notice = Notice {
        id: "a".into(),
        kind: NoticeKind::Maintenance,
        at_unix_ms: 7,
        detail: "new disk".into(),
        stop_tasks_at_unix_ms: None,
    };
    write(dir.path(), &notice).unwrap();
    assert_eq!(source.check().await.unwrap(), [notice]);
    remove(dir.path()).unwrap();
    remove(dir.path()).unwrap();
    assert_eq!(source.check().await.unwrap(), []);
    std::fs::write(dir.path().join("notice"), r#"{"id": "by hand", "kind": "spot_interruption"}"#).unwrap();
    assert_eq!(source.check().await.unwrap()[0].id, "by hand");
    std::fs::write(dir.path().join("notice"), "soon").unwrap();
    assert!(source.check().await.unwrap_err().to_string().contains("is no notice"));
}

#[test]
fn the_policy_says_when_tasks_stop() {
    let notice = |at_unix_ms| Notice {
        id: String::new(),
        kind: NoticeKind::Maintenance,
        at_unix_ms,
        detail: String::new(),
        stop_tasks_at_unix_ms: None,
    };
    let config = |stop_tasks_before_s| NoticeConfig { stop_tasks_before_s, ..NoticeConfig::default() };
    let stop = |at, before| with_policy(notice(at), &config(before)).stop_tasks_at_unix_ms;
    assert_eq!(stop(100_000, Some(30)), Some(70_000));
    assert_eq!(stop(10_000, Some(30)), Some(1), "the time is over already");
    assert_eq!((stop(100_000, None), stop(0, Some(30))), (None, None));
}

/// Says one thing, then fails.
struct Once(bool);

impl NoticeSource for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    fn check(&mut self) -> BoxFuture<'_, Result<Vec<Notice>, Cause>> {
        let first = !std::mem::replace(&mut self.0, true);
        Box::pin(async move {
            if first {
                let notice = r#"{"id": "x", "kind": "maintenance"}"#;
                Ok(vec![serde_json::from_str(notice)?])
            } else {
                Err(crate::errors::words("gone".to_owned()))
            }
        })
    }
}

#[tokio::test]
async fn a_source_that_fails_keeps_what_it_said() {
    let (sender, mut receiver) = watch::channel(Vec::new());
    let (asked, leaving) = (CancellationToken::new(), CancellationToken::new());
    let sources: Vec<Box<dyn NoticeSource>> = vec![Box::new(Once(false))];
    let running = run(sources, NoticeConfig::default(), sender, asked.clone(), leaving.clone());
    let running = tokio::spawn(running);
    receiver.changed().await.unwrap();
    assert_eq!(receiver.borrow().len(), 1);
    asked.cancelled().await;
    leaving.cancel();
    running.await.unwrap();
    assert_eq!(receiver.borrow().len(), 1);
}

//! The metadata service as a thread on loopback: whole, with gaps, slow, failing, absent.

use super::*;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What a path is answered with.
#[derive(Clone, Copy)]
enum Says {
    Text(&'static str),
    /// Never anything.
    Nothing,
    Error,
}

/// Answers as IMDSv2 does: 401 without a token, 404 for what is not there. Counts the questions.
fn serve(answers: HashMap<&'static str, Says>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut text = String::new();
            let mut buffer = [0u8; 1024];
            while !text.contains("\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
                    _ => break,
                }
            }
            count.fetch_add(1, Ordering::SeqCst);
            let path = text.split(' ').nth(1).unwrap_or_default();
            let (status, body) = if text.starts_with("PUT /latest/api/token ") {
                ("200 OK", "secret")
            } else if !text.contains("X-aws-ec2-metadata-token: secret\r\n") {
                ("401 Unauthorized", "")
            } else {
                match answers.get(path.strip_prefix("/latest/meta-data/").unwrap_or(path)) {
                    Some(Says::Text(text)) => ("200 OK", *text),
                    Some(Says::Error) => ("500 Internal Server Error", ""),
                    Some(Says::Nothing) => {
                        silent.push(stream);
                        continue;
                    }
                    None => ("404 Not Found", ""),
                }
            };
            let _ = write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    (base, asked)
}

fn whole() -> HashMap<&'static str, Says> {
    HashMap::from([
        ("mac", "0e:49:61:0f:c3:11\n"),
        ("placement/region", "eu-central-1"),
        ("placement/availability-zone", "eu-central-1b"),
        ("instance-type", "m5.large"),
        ("ami-id", "ami-0abcdef1234567890"),
        ("instance-id", "i-0123456789abcdef0"),
        ("network/interfaces/macs/0e:49:61:0f:c3:11/vpc-id", "vpc-1"),
        ("network/interfaces/macs/0e:49:61:0f:c3:11/subnet-id", "subnet-2"),
        ("instance-life-cycle", "spot"),
    ])
    .into_iter()
    .map(|(path, text)| (path, Says::Text(text)))
    .collect()
}

async fn found(base: &str) -> BTreeMap<String, String> {
    of_instance(base, &Machine::default()).await
}

#[tokio::test]
async fn the_whole_of_an_instance_becomes_attributes_with_one_token() {
    let (base, asked) = serve(whole());
    let found = found(&base).await;
    let expected = [
        ("ecs.ami-id", "ami-0abcdef1234567890"),
        ("ecs.availability-zone", "eu-central-1b"),
        ("ecs.ec2-instance-id", "i-0123456789abcdef0"),
        ("ecs.instance-type", "m5.large"),
        ("ecs.region", "eu-central-1"),
        ("ecs.subnet-id", "subnet-2"),
        ("ecs.vpc-id", "vpc-1"),
        ("lighter.capacity-type", "spot"),
    ];
    let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(asked.load(Ordering::SeqCst), 1 + 9, "a token, then each value once");
}

#[tokio::test]
async fn what_is_not_there_or_no_attribute_is_left_out() {
    let mut answers = whole();
    for path in ["mac", "ami-id", "instance-id"] {
        answers.remove(path);
    }
    answers.insert("placement/region", Says::Error);
    answers.insert("instance-type", Says::Text("<html>"));
    answers.insert("instance-life-cycle", Says::Text("sometimes"));
    let (base, _) = serve(answers);
    assert_eq!(
        found(&base).await,
        BTreeMap::from([("ecs.availability-zone".into(), "eu-central-1b".into())])
    );
}

#[tokio::test]
async fn a_slow_or_absent_service_keeps_the_agent_no_longer_than_the_limit() {
    let mut answers = whole();
    answers.insert("instance-type", Says::Nothing);
    let (base, _) = serve(answers);
    let begun = Instant::now();
    // One that does not answer costs its own two seconds.
    let kept = found(&base).await;
    assert!(
        kept.contains_key("lighter.capacity-type") && !kept.contains_key("ecs.instance-type"),
        "{kept:?}"
    );
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(found("http://127.0.0.1:1").await, BTreeMap::new());
    assert!((LIMIT..LIMIT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn only_machines_of_ec2_are_asked_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine { firmware: dir.path().to_owned(), hypervisor_uuid: dir.path().join("uuid") };
    assert_eq!(service("auto", &machine), None);
    assert_eq!(of_instance("auto", &machine).await, BTreeMap::new());
    std::fs::write(dir.path().join("sys_vendor"), "QEMU\n").unwrap();
    std::fs::write(dir.path().join("product_uuid"), "4c4c4544-0042\n").unwrap();
    assert_eq!(service("auto", &machine), None);
    for (file, words) in
        [("sys_vendor", "Amazon EC2\n"), ("product_uuid", "EC2E1916-9099\n"), ("uuid", "ec2e1916-9099\n")]
    {
        std::fs::write(dir.path().join(file), words).unwrap();
        assert_eq!(service("auto", &machine), Some("http://169.254.169.254"), "{file}");
        assert_eq!(service("off", &machine), None);
        std::fs::write(dir.path().join(file), "").unwrap();
    }
    assert_eq!(service("http://127.0.0.1:8", &machine), Some("http://127.0.0.1:8"));
}

#[test]
fn the_life_cycle_is_a_capacity_type_or_nothing() {
    let words = ["on-demand", "spot", "scheduled", "capacity-block", "x"];
    let types = words.map(capacity_type);
    assert_eq!(types, [Some("on-demand"), Some("spot"), Some("reserved"), Some("reserved"), None]);
}

//! What each driver puts on the wire, and what it says when the other end fails.

use super::sinks::{self, Mood, Seen};
use super::{Ring, identity, record};
use crate::log_driver::batch::Record;
use crate::log_driver::journald::Journald;
use crate::log_driver::sink::{Sink, make};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

fn ring() -> (TempDir, Vec<Record>) {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(&dir.path().join("logs"), 100, 4);
    ring.line("stdout", "F", "hello  world");
    ring.line("stderr", "P", "half");
    ring.line("lighter", "F", "3 records of output could not be written here");
    let records = ring.records();
    (dir, records)
}

fn sink(configuration: &str) -> Box<dyn Sink> {
    let record = record(configuration);
    make(record.configuration.settings().unwrap().sink, &identity(&record)).unwrap()
}

/// Fields of a datagram of the journal's native protocol.
fn fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut found = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        if let Some(equals) = bytes[..end].iter().position(|byte| *byte == b'=') {
            found.insert(text(&bytes[..equals]), text(&bytes[equals + 1..end]));
            bytes = &bytes[end + 1..];
        } else {
            let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap()) as usize;
            found.insert(text(&bytes[..end]), text(&bytes[end + 9..end + 9 + length]));
            assert_eq!(bytes[end + 9 + length], b'\n');
            bytes = &bytes[end + 10 + length..];
        }
    }
    found
}

fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let count = socket.recv(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

#[tokio::test]
async fn journald_gets_dockers_fields_and_ours() {
    let (dir, records) = ring();
    let path = dir.path().join("journal");
    let socket = UnixDatagram::bind(&path).unwrap();
    let record = record(
        r#"{"logDriver":"journald","options":{"tag":"{{.Name}}/{{.Family}}","labels":"team.name","env":"STAGE"}}"#,
    );
    let mut sink = Journald::new(&path, &identity(&record));
    sink.send(&records).await.unwrap();
    let first = fields(&receive(&socket));
    for (name, value) in [
        ("MESSAGE", "hello  world"),
        ("PRIORITY", "6"),
        ("CONTAINER_NAME", "web"),
        ("CONTAINER_ID", "00000000abcd-web"),
        ("CONTAINER_ID_FULL", "0000000000010000000000000000abcd-web"),
        ("CONTAINER_TAG", "web/shop"),
        ("SYSLOG_IDENTIFIER", "web/shop"),
        ("SYSLOG_TIMESTAMP", "2026-01-05T10:20:30.123456789Z"),
        ("CONTAINER_LOG_ORDINAL", "0"),
        ("IMAGE_NAME", "nginx:1"),
        ("LIGHTER_CLUSTER", "default"),
        ("TEAM_NAME", "red\nblue"),
        ("STAGE", "test"),
    ] {
        assert_eq!(first.get(name).map(String::as_str), Some(value), "{name} in {first:?}");
    }
    assert_eq!(first.get("OTHER"), None);
    let second = fields(&receive(&socket));
    assert_eq!((second["PRIORITY"].as_str(), second["CONTAINER_PARTIAL_MESSAGE"].as_str()), ("3", "true"));
    assert_eq!(fields(&receive(&socket))["PRIORITY"], "4");
    // It is gone, and comes back.
    drop(socket);
    assert_eq!(sink.send(&records).await.unwrap_err().taken, 0);
    std::fs::remove_file(&path).unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    sink.send(&records).await.unwrap();
    assert_eq!(fields(&receive(&socket))["MESSAGE"], "hello  world");
}

fn syslog(address: &str, format: &str) -> Box<dyn Sink> {
    let format = if format.is_empty() { String::new() } else { format!(r#","syslog-format":"{format}""#) };
    sink(&format!(
        r#"{{"logDriver":"syslog","options":{{"syslog-address":"{address}","syslog-facility":"local1","tag":"my tag"{format}}}}}"#
    ))
}

#[tokio::test]
async fn syslog_speaks_each_format_over_each_socket() {
    let (dir, records) = ring();
    let (one, pid) = (&records[..1], std::process::id());
    let path = dir.path().join("log");
    let unix = format!("unix://{}", path.display());
    let socket = UnixDatagram::bind(&path).unwrap();
    for (format, expected) in [
        ("", format!("<142>Jan  5 10:20:30 my_tag[{pid}]: hello  world")),
        ("rfc3164", format!("<142>Jan  5 10:20:30 node-1 my_tag[{pid}]: hello  world")),
        ("rfc5424", format!("<142>1 2026-01-05T10:20:30Z node-1 my_tag {pid} - - hello  world")),
        ("rfc5424micro", format!("<142>1 2026-01-05T10:20:30.123456Z node-1 my_tag {pid} - - hello  world")),
    ] {
        syslog(&unix, format).send(one).await.unwrap();
        assert_eq!(String::from_utf8(receive(&socket)).unwrap(), expected);
    }
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = format!("udp://{}", udp.local_addr().unwrap());
    syslog(&address, "rfc5424").send(&records).await.unwrap();
    let mut buffer = [0; 2048];
    for start in ["<142>1 ", "<139>1 ", "<140>1 "] {
        let count = udp.recv(&mut buffer).await.unwrap();
        assert!(buffer[..count].starts_with(start.as_bytes()), "severity by stream");
    }
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = syslog(&format!("tcp://{}", tcp.local_addr().unwrap()), "");
    sink.send(&records).await.unwrap();
    drop(sink);
    let mut text = String::new();
    tcp.accept().await.unwrap().0.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.ends_with("could not be written here\n"), "{text}");
    std::fs::remove_file(&path).unwrap();
    let stream = tokio::net::UnixListener::bind(&path).unwrap();
    let mut sink = syslog(&unix, "");
    sink.send(one).await.unwrap();
    drop(sink);
    let mut text = String::new();
    stream.accept().await.unwrap().0.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, format!("<142>Jan  5 10:20:30 my_tag[{pid}]: hello  world\n"));
}

#[tokio::test]
async fn a_syslog_connection_that_was_closed_is_noticed_before_anything_is_lost() {
    let (_dir, records) = ring();
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = syslog(&format!("tcp://{}", tcp.local_addr().unwrap()), "");
    sink.send(&records[..1]).await.unwrap();
    let (mut first, _) = tcp.accept().await.unwrap();
    let mut buffer = [0; 256];
    assert_ne!(first.read(&mut buffer).await.unwrap(), 0);
    drop(first);
    assert_eq!(sink.send(&records).await.unwrap_err().taken, 0);
    sink.send(&records).await.unwrap();
    drop(sink);
    let mut text = String::new();
    tcp.accept().await.unwrap().0.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[tokio::test]
async fn fluentd_gets_one_message_a_batch() {
    let (_dir, records) = ring();
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = sink(&format!(
        r#"{{"logDriver":"fluentd","options":{{"fluentd-address":"{}","tag":"app.{{{{.Name}}}}","labels":"other","fluentd-sub-second-precision":"true"}}}}"#,
        tcp.local_addr().unwrap()
    ));
    sink.send(&records).await.unwrap();
    drop(sink);
    let mut bytes = Vec::new();
    tcp.accept().await.unwrap().0.read_to_end(&mut bytes).await.unwrap();
    let (message, taken) = super::unpack::unpack(&bytes).unwrap();
    assert_eq!((taken, &message[0], &message[2]), (bytes.len(), &json!("app.web"), &json!({"size": 3})));
    let time = json!({"ext": 0, "seconds": 1_767_608_430_u64, "nanos": 123_456_789});
    let first = json!({"log": "hello  world", "source": "stdout", "container_name": "web", "cluster": "default",
        "container_id": "0000000000010000000000000000abcd-web", "task_id": "0000000000010000000000000000abcd",
        "task_family": "shop", "other": "no"});
    assert_eq!(message[1][0], json!([time, first]));
    assert_eq!(message[1][1][1]["partial_message"], "true");
}

#[tokio::test]
async fn http_posts_lines_with_the_headers_asked_for() {
    let (_dir, records) = ring();
    let (seen, heads) = (Seen::default(), Seen::default());
    let server = sinks::http("127.0.0.1:0", Mood::Well, &seen, &heads).await;
    let mut sink = sink(&format!(
        r#"{{"logDriver":"http","options":{{"http-url":"http://{}/in?x=1","http-headers":"X-Key=secret","env":"STAGE"}}}}"#,
        server.address
    ));
    sink.send(&records).await.unwrap();
    let head = heads.all().remove(0);
    assert!(head.starts_with("POST /in?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-key: secret") && head.contains("content-type: application/x-ndjson"), "{head}");
    let lines: Vec<Value> = seen.all().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines[0],
        json!({"time": "2026-01-05T10:20:30.123456789Z", "stream": "stdout", "line": "hello  world", "number": 0,
            "container": "web", "task": "0000000000010000000000000000abcd", "family": "shop", "cluster": "default",
            "host": "node-1", "image": "nginx:1", "tag": "00000000abcd-web", "STAGE": "test"})
    );
    assert_eq!(
        (lines.len(), &lines[1]["partial"], &lines[2]["stream"]),
        (3, &json!(true), &json!("lighter"))
    );
    let missing = Path::new("/no/such/ca.pem").display();
    let wrong = format!(
        r#"{{"logDriver":"http","options":{{"http-url":"https://127.0.0.1:1","http-tls-ca-cert":"{missing}"}}}}"#
    );
    assert!(!self::sink(&wrong).send(&records).await.unwrap_err().refused);
}

/// An authority's certificate as PEM, and a server of 127.0.0.1 that it vouches for.
fn authority() -> (String, TlsAcceptor) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let own_key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let own = own.signed_by(&own_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider);
    let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let secret = rustls::pki_types::PrivateKeyDer::Pkcs8(own_key.serialize_der().into());
    let server = server.with_single_cert(vec![own.der().clone()], secret).unwrap();
    (certificate.pem(), TlsAcceptor::from(Arc::new(server)))
}

#[tokio::test]
async fn http_over_tls_trusts_the_authority_it_is_given_and_no_other() {
    let (dir, records) = ring();
    let (seen, heads) = (Seen::default(), Seen::default());
    let ((good, acceptor), (other, _)) = (authority(), authority());
    let server = sinks::https(acceptor, &seen, &heads).await;
    let (good_path, other_path) = (dir.path().join("good.pem"), dir.path().join("other.pem"));
    std::fs::write(&other_path, other).unwrap();
    let sink = |ca: Option<&Path>| {
        let ca = ca.map(|path| format!(r#","http-tls-ca-cert":"{}""#, path.display())).unwrap_or_default();
        sink(&format!(
            r#"{{"logDriver":"http","options":{{"http-url":"https://{}/in"{ca}}}}}"#,
            server.address
        ))
    };
    // Neither without the authority nor with another one; it is tried again, not refused.
    for ca in [None, Some(other_path.as_path())] {
        let error = sink(ca).send(&records).await.unwrap_err();
        assert_eq!((error.taken, error.refused), (0, false));
    }
    assert!(heads.all().is_empty(), "nothing of the log is said to a stranger");
    // The file may come later.
    let mut late = sink(Some(&good_path));
    assert!(late.send(&records).await.is_err());
    std::fs::write(&good_path, good).unwrap();
    late.send(&records).await.unwrap();
    assert_eq!(seen.all().len(), 3);
}

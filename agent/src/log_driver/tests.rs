//! T1: log drivers against fake sinks in this process, over loopback and Unix sockets. In: rings
//! written as lighter-shim writes them. Out: what sinks received. Never: a real journald or network.

mod drivers;
mod shipping;
mod sinks;
mod unpack;

use super::batch::{self, Record};
use super::delivery::{DeliveryParts, LogDelivery};
use super::identity::{Identity, NodeNames};
use crate::store::records::LogDeliveryRecord;
use crate::store::{Loaded, Store};
use lighter_model::ids::TaskId;
use lighter_model::task_definition::TaskDefinition;
use lighter_runtime::logs::RingReader;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

fn task() -> TaskId {
    TaskId::from_parts(1, 0xabcd)
}

fn definition(configuration: &str) -> TaskDefinition {
    let json = format!(
        r#"{{"family":"shop","containerDefinitions":[{{"name":"web","image":"nginx:1","memory":6,
        "dockerLabels":{{"team.name":"red\nblue","other":"no"}},"environment":[{{"name":"STAGE","value":"test"}}],
        "logConfiguration":{configuration}}}]}}"#
    );
    lighter_model::task_definition::input::parse(&json).unwrap()
}

fn record(configuration: &str) -> LogDeliveryRecord {
    super::deliveries(&task(), &definition(configuration)).remove(0)
}

fn names() -> NodeNames {
    NodeNames { cluster: "default".into(), host: "node-1".into() }
}

fn identity(record: &LogDeliveryRecord) -> Identity {
    Identity::new(record, &record.configuration.settings().unwrap().sink, &names())
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes a ring as lighter-shim does.
struct Ring {
    path: PathBuf,
    written: u64,
    file_records: u64,
    files_max: u32,
    in_file: u64,
}

impl Ring {
    fn new(log_dir: &std::path::Path, file_records: u64, files_max: u32) -> Self {
        let directory = log_dir.join(task().as_str());
        fs::create_dir_all(&directory).unwrap();
        Self { path: directory.join("web.log"), written: 0, file_records, files_max, in_file: 0 }
    }

    fn line(&mut self, stream: &str, mark: &str, text: &str) {
        if self.in_file == self.file_records {
            self.rotate();
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        let time = "2026-01-05T10:20:30.123456789Z";
        let mut bytes = String::new();
        if self.in_file == 0 {
            bytes = format!("{time} lighter H {}\n", self.written);
        }
        file.write_all(format!("{bytes}{time} {stream} {mark} {text}\n").as_bytes()).unwrap();
        (self.written, self.in_file) = (self.written + 1, self.in_file + 1);
    }

    fn lines(&mut self, count: u64) {
        for number in self.written..self.written + count {
            self.line("stdout", "F", &format!("line {number}"));
        }
    }

    fn rotate(&mut self) {
        let numbered = |number: u32| self.path.with_extension(format!("log.{number}"));
        for number in (1..self.files_max - 1).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        fs::rename(&self.path, numbered(1)).unwrap();
        self.in_file = 0;
    }

    fn records(&self) -> Vec<Record> {
        let mut ring = RingReader::new(self.path.parent().unwrap(), "web", 0);
        batch::take(&mut ring, 100).unwrap()
    }
}

/// The owner of deliveries, as an agent has it.
struct Agent {
    logs: LogDelivery,
    running: JoinHandle<()>,
    leaving: CancellationToken,
}

impl Agent {
    /// With what the store has; `live`: the task has not ended as far as the store knows.
    fn start(dir: &TempDir, live: bool) -> Self {
        let (store, loaded) = open_store(dir);
        let leaving = CancellationToken::new();
        let parts = DeliveryParts {
            store,
            log_dir: dir.path().join("logs"),
            names: names(),
            records: loaded.log_deliveries,
            live: live.then(task).into_iter().collect(),
            leaving: leaving.clone(),
        };
        let (logs, run) = LogDelivery::new(parts).unwrap();
        Self { logs, running: tokio::spawn(run), leaving }
    }

    async fn leave(self) {
        self.leaving.cancel();
        self.running.await.unwrap();
    }
}

/// The writer of the last one may still be closing the file.
fn open_store(dir: &TempDir) -> (Store, Loaded) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match Store::open(&dir.path().join("agent.redb")) {
            Ok(opened) => return opened,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

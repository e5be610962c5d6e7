//! Files that outlive a process, as text a person can read: the exit of a container and the
//! identity of a shim. In: values. Out: `key=value` lines under a header with a version, and back.
//! Unknown keys are skipped, so that an older reader understands a newer file.
//! Never: opens a file.

use crate::message::{WireExit, WireExitStatus};
use std::fmt;

const EXIT_HEADER: &str = "lighter-exit 1";
const SHIM_HEADER: &str = "lighter-shim 1";

/// Why a text is not a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordError {
    WrongHeader { found: String },
    Missing { key: &'static str },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongHeader { found } => write!(f, "the record begins with {found:?}"),
            Self::Missing { key } => write!(f, "the record has no valid {key}"),
        }
    }
}

impl std::error::Error for RecordError {}

/// Which process a shim is; equal only if it is the same process of the same boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimRecord {
    pub task: String,
    pub pid: i32,
    /// Field 22 of /proc/pid/stat.
    pub start_time_ticks: u64,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
}

impl ShimRecord {
    pub fn to_text(&self) -> String {
        format!(
            "{SHIM_HEADER}\ntask={}\npid={}\nstart_time_ticks={}\nboot_id={}\n",
            self.task, self.pid, self.start_time_ticks, self.boot_id
        )
    }

    pub fn from_text(text: &str) -> Result<Self, RecordError> {
        let body = body(text, SHIM_HEADER)?;
        Ok(Self {
            task: field(body, "task")?.to_owned(),
            pid: number(body, "pid")?,
            start_time_ticks: number(body, "start_time_ticks")?,
            boot_id: field(body, "boot_id")?.to_owned(),
        })
    }
}

impl WireExit {
    pub fn to_text(&self) -> String {
        let (kind, value) = match self.status {
            WireExitStatus::Exited(code) => ("exited", code),
            WireExitStatus::Signaled(signal) => ("signaled", signal),
        };
        format!(
            "{EXIT_HEADER}\n{kind}={value}\noom_killed={}\nfinished_at_unix_ms={}\n",
            u8::from(self.oom_killed),
            self.finished_at_unix_ms
        )
    }

    pub fn from_text(text: &str) -> Result<Self, RecordError> {
        let body = body(text, EXIT_HEADER)?;
        let status = match number(body, "exited") {
            Ok(code) => WireExitStatus::Exited(code),
            Err(_) => WireExitStatus::Signaled(number(body, "signaled")?),
        };
        Ok(Self {
            status,
            oom_killed: number::<u8>(body, "oom_killed")? == 1,
            finished_at_unix_ms: number(body, "finished_at_unix_ms")?,
        })
    }
}

fn body<'a>(text: &'a str, header: &str) -> Result<&'a str, RecordError> {
    match text.split_once('\n') {
        Some((found, rest)) if found == header => Ok(rest),
        _ => Err(RecordError::WrongHeader {
            found: text.lines().next().unwrap_or("").chars().take(40).collect(),
        }),
    }
}

fn field<'a>(body: &'a str, key: &'static str) -> Result<&'a str, RecordError> {
    body.lines()
        .find_map(|line| line.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value))
        .ok_or(RecordError::Missing { key })
}

fn number<T: std::str::FromStr>(body: &str, key: &'static str) -> Result<T, RecordError> {
    field(body, key)?.parse().map_err(|_| RecordError::Missing { key })
}

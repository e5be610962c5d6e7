//! Commands inside a guest, over one SSH connection that all of them share.
//! In: shell scripts. Out: exit code, stdout and stderr.
//! Owns: the connection's control socket. Never: starts or stops machines.

use crate::host;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// No single command of a scenario takes longer; emulation included.
const COMMAND_LIMIT_S: u32 = 180;

/// What ssh ends with when it is not the command's own exit code.
const CONNECTION_LOST: i32 = 255;
/// Numbers the scripts of this run, for `as_job`.
static JOBS: AtomicU64 = AtomicU64::new(1);

/// What a command in the guest ended with.
#[derive(Debug, Clone)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A shell in one guest.
#[derive(Clone)]
pub struct Guest {
    name: String,
    port: u16,
    key: PathBuf,
    control: PathBuf,
}

impl Guest {
    /// `folder` keeps the control socket; `port` is the host's loopback port that leads to the guest's sshd.
    pub fn new(name: &str, port: u16, key: &Path, folder: &Path) -> Self {
        let control = folder.join("ssh.sock");
        // Left by a connection to the machine before it was loaded or rebooted.
        let _ = std::fs::remove_file(&control);
        Self { name: name.to_string(), port, key: key.to_path_buf(), control }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command line to reach this guest by hand.
    pub fn ssh_line(&self) -> String {
        format!(
            "ssh -F none -i {} -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1",
            self.key.display(),
            self.port
        )
    }

    /// Waits until a shell answers.
    pub fn wait_up(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.attempt(10, "true") {
                Ok(done) if done.code == 0 => return Ok(()),
                _ if Instant::now() > deadline => {
                    bail!("{}: no shell within {} s", self.name, limit.as_secs())
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Runs a script; any exit code is an answer.
    pub fn run(&self, script: &str) -> Result<Done> {
        self.run_for(COMMAND_LIMIT_S, script)
    }

    /// As `run`, ended after `limit_s` seconds. A connection that is lost on the way is made again, and the
    /// script's result fetched: it runs once, whatever happens to the connection.
    pub fn run_for(&self, limit_s: u32, script: &str) -> Result<Done> {
        let job = JOBS.fetch_add(1, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(limit_s.into());
        let script = as_job(job, script);
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs().max(1);
            let done = self.attempt(u32::try_from(left).unwrap_or(limit_s), &script)?;
            if done.code != CONNECTION_LOST || Instant::now() > deadline {
                return Ok(done);
            }
            eprintln!("{}: the connection was lost ({}); making a new one", self.name, done.err);
            self.disconnect();
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// One connection, one answer.
    fn attempt(&self, limit_s: u32, script: &str) -> Result<Done> {
        let out = self
            .command(limit_s, script)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{}: start ssh", self.name))?;
        Ok(Done {
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&out.stdout).trim_end().to_string(),
            err: String::from_utf8_lossy(&out.stderr).trim_end().to_string(),
        })
    }

    /// Runs a script that must succeed; its standard output, trimmed.
    pub fn sh(&self, script: &str) -> Result<String> {
        let done = self.run(script)?;
        if done.code != 0 {
            bail!("{}: `{}` ended with {}: {} {}", self.name, script, done.code, done.out, done.err);
        }
        Ok(done.out)
    }

    /// Repeats a condition inside the guest until it holds; its last output, or what it said when time ran out.
    pub fn until(&self, limit_s: u32, condition: &str) -> Result<String> {
        let script = format!(
            "end=$((SECONDS+{limit_s})); while :; do out=$( {{ {condition}\n}} 2>&1 ) && {{ printf '%s' \"$out\"; exit 0; }}; \
             [ $SECONDS -lt $end ] || {{ printf '%s' \"$out\"; exit 1; }}; sleep 0.2; done"
        );
        let done = self.run_for(limit_s + 60, &script)?;
        if done.code != 0 {
            bail!("{}: not within {limit_s} s: `{condition}`; last: {} {}", self.name, done.out, done.err);
        }
        Ok(done.out)
    }

    /// Runs a script with its output going to our own, as it comes.
    pub fn stream(&self, limit_s: u32, script: &str) -> Result<i32> {
        let status = self.command(limit_s, script).stdin(Stdio::null()).status()?;
        Ok(status.code().unwrap_or(-1))
    }

    /// A shell for a person, until it ends.
    pub fn interactive(&self) -> Result<()> {
        println!("reach it from elsewhere with: {}", self.ssh_line());
        let line = self.ssh_line().replacen("ssh ", "ssh -t -o LogLevel=ERROR ", 1);
        Command::new("bash").args(["-c", &line]).status().context("start ssh").map(drop)
    }

    /// Writes a small file in the guest.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let script = format!("mkdir -p \"$(dirname {path})\"; printf %s {} > {path}", host::quoted(text));
        self.sh(&script).map(drop)
    }

    /// Ends the shared connection, so that the next command makes a new one.
    pub fn disconnect(&self) {
        let _ = Command::new("ssh")
            .args(["-F", "none", "-O", "exit", "-o"])
            .arg(format!("ControlPath={}", self.control.display()))
            .arg("root@127.0.0.1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = std::fs::remove_file(&self.control);
    }

    fn command(&self, limit_s: u32, script: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "2", &limit_s.to_string(), "ssh", "-F", "none", "-p", &self.port.to_string()]);
        command.arg("-i").arg(&self.key);
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=8",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ControlMaster=auto",
            "ControlPersist=30",
            "ServerAliveInterval=15",
        ] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("ControlPath={}", self.control.display()));
        command.args(["root@127.0.0.1", script]);
        command
    }
}

/// Where a job keeps its result. A saved machine has those of the run that saved it, so the name is of this run.
fn job_folder(job: u64) -> String {
    static RUN: LazyLock<String> = LazyLock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}", std::process::id(), since.as_nanos())
    });
    format!("/run/vm-test-{}-{job}", *RUN)
}

/// The script as something that runs once and keeps its result: asked for again (over a new connection), it waits
/// for the first run. Its files stay, a few bytes each: whoever asks again may come late.
/// 255 is ssh's own word, so a script that ends with it ends with 254.
fn as_job(job: u64, script: &str) -> String {
    let folder = job_folder(job);
    format!(
        "if mkdir {folder} 2>/dev/null; then ( {script}\n) >{folder}/out 2>{folder}/err </dev/null; code=$?; \
         [ $code -ne 255 ] || code=254; echo $code >{folder}/code; else while [ ! -s {folder}/code ]; do sleep 0.1; \
         done; fi; cat {folder}/err >&2; cat {folder}/out; read code <{folder}/code; exit $code"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removes what a job leaves.
    struct Job(u64);

    impl Job {
        fn spawn(&self, script: &str) -> std::process::Child {
            let mut command = Command::new("bash");
            command.args(["-c", &as_job(self.0, script)]).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        }
    }

    impl Drop for Job {
        fn drop(&mut self) {
            std::fs::remove_dir_all(job_folder(self.0)).unwrap();
        }
    }

    #[test]
    fn a_job_answers_as_its_script() {
        let out = Job(1).spawn("echo out; echo err >&2; (exit 3)").wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(3));
        assert_eq!((&out.stdout[..], &out.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(Job(2).spawn("exit 255").wait().unwrap().code(), Some(254));
    }

    #[test]
    fn a_job_asked_for_again_does_not_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let (count, go) = (folder.path().join("count"), folder.path().join("go"));
        let script = format!(
            "echo x >> {}; until [ -e {} ]; do sleep 0.01; done; exit 7",
            count.display(),
            go.display()
        );
        let job = Job(3);
        let first = job.spawn(&script);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !count.exists() {
            assert!(Instant::now() < deadline, "the first run does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = job.spawn(&script);
        std::fs::write(&go, "").unwrap();
        let codes = [first, second].map(|mut run| run.wait().unwrap().code());
        assert_eq!(codes, [Some(7), Some(7)]);
        assert_eq!(std::fs::read(&count).unwrap(), b"x\n");
    }
}

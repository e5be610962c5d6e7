//! A command that ends: its output goes to a file, and past its limit it is killed with what it started.
//! In: a command, a file, a limit. Out: how it ended. Owns: the processes below the command, found by
//! their parents in /proc. Never: kills what has left that tree (a monitor whose parent is PID 1).

use crate::host;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Succeeded,
    Failed,
    /// It ran past its limit.
    Killed,
}

/// Runs a command in the workspace, its output going to `log`.
pub fn run(command: &[String], log: &Path, limit: Duration) -> Result<End> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let file = File::create(log)?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(host::workspace())
        .env("LIGHTER_BIN_DIR", host::bin_dir())
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    Ok(match end_within(&mut child, limit)? {
        Some(status) if status.success() => End::Succeeded,
        Some(_) => End::Failed,
        None => {
            kill_tree(child.id())?;
            child.wait()?;
            End::Killed
        }
    })
}

fn end_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() >= deadline => return Ok(None),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Kills a process and its descendants, the deepest last: a parent that is gone starts nothing anew.
fn kill_tree(root: u32) -> Result<()> {
    let mut pids = vec![root];
    let parents = parents()?;
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        pids.extend(parents.iter().filter(|(_, parent)| **parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    // One that has ended by itself makes kill(1) fail; whether the root is gone its `wait` says.
    Command::new("kill").arg("-KILL").args(pids.iter().map(u32::to_string)).stderr(Stdio::null()).status()?;
    Ok(())
}

/// The parent of every process (field 4 of proc_pid_stat(5)).
fn parents() -> Result<BTreeMap<u32, u32>> {
    let pids = std::fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    Ok(pids
        .filter_map(|pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (End, String) {
        let log = tempfile::NamedTempFile::new().unwrap();
        let end = run(&["sh", "-c", script].map(str::to_owned), log.path(), limit).unwrap();
        (end, std::fs::read_to_string(log.path()).unwrap())
    }

    #[test]
    fn an_end_of_its_own_is_told_with_its_output() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("echo out; echo err >&2", long), (End::Succeeded, "out\nerr\n".to_owned()));
        assert_eq!(shell("exit 3", long).0, End::Failed);
    }

    #[test]
    fn past_its_limit_it_is_killed_with_what_it_started() {
        // The shell in the middle has a child that says its number before anything can be killed.
        let (end, said) = shell("sh -c 'sleep 86397 & echo $!; wait'", Duration::from_secs(2));
        assert_eq!(end, End::Killed);
        let below = format!("/proc/{}/cmdline", said.trim());
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::fs::read_to_string(&below).is_ok_and(|line| line.contains("86397")) {
            assert!(Instant::now() < deadline, "{said} still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
